"""One attempt to make the object of a file that is being written."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from stsfs.errors import (
    DeadlineExceeded,
    SessionExpired,
    StoreFailure,
    StsfsError,
    SynapseUnavailable,
    TokenRejected,
    UnexpectedError,
)

log = logging.getLogger(__name__)

PASSING = (
    StoreFailure,
    DeadlineExceeded,
    SessionExpired,
    SynapseUnavailable,
    TokenRejected,
    UnexpectedError,
)
"""What may be over when the same is tried again."""


def is_passing(error: StsfsError | None) -> bool:
    """Whether an attempt that ended so is worth another one."""
    return isinstance(error, PASSING)


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt that is under way."""

    changes: int | None = None
    """The count of changes of the content that it publishes, once it has taken it."""

    error: StsfsError | None = None
    done: trio.Event = field(default_factory=trio.Event)


def unexpected(path: str, bug: Exception, kept: str) -> UnexpectedError:
    """What an attempt fails with that met a bug; kept says what has become of the bytes."""
    return UnexpectedError(
        f"{path!r} could not be uploaded because of an error in stsfs itself"
        f" ({type(bug).__name__}).",
        remedy=f"{kept} Please report what the log says.",
    )


@contextmanager
def logged(what: str, path: str) -> Iterator[None]:
    """Log trouble with the local disk that changes nothing of what happened in S3."""
    try:
        yield
    except StsfsError as exc:
        log.error(f"{what}: %s", path, exc)
