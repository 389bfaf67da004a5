"""Errors on their way from one process to another: by class name, sentence and remedy.

The daemon tells them to whoever started it (a pipe) or asks it (the control socket), and they are
raised there as what they were.
"""

from typing import Any

from stsfs import errors
from stsfs.redaction import redact


class InternalError(errors.StsfsError):
    """A bug, met in another process; the traceback is in that process's log."""


def to_record(exc: BaseException) -> dict[str, Any]:
    """Describe any exception in JSON values; what is no StsfsError is a bug."""
    exc = errors.sole(exc)
    if isinstance(exc, errors.StsfsError):
        return {"class": type(exc).__name__, "sentence": exc.sentence, "remedy": exc.remedy}
    sentence = f"Internal error: {type(exc).__name__}: {exc}".rstrip(": ") + "."
    return {"class": InternalError.__name__, "sentence": redact(sentence), "remedy": ""}


def from_record(record: dict[str, Any]) -> errors.StsfsError:
    """Rebuild the error; a class that is not known here becomes a plain StsfsError."""
    sentence, remedy = str(record.get("sentence", "")), str(record.get("remedy", ""))
    name = str(record.get("class", ""))
    known = InternalError if name == InternalError.__name__ else getattr(errors, name, None)
    if not (isinstance(known, type) and issubclass(known, errors.StsfsError)):
        known = errors.StsfsError
    return known(sentence, remedy=remedy)
