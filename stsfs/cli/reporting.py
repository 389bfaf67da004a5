"""How a command ends: its sentence on stderr and its exit code, never a bare traceback."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from stsfs.cli import output
from stsfs.cli.exit_codes import exit_code
from stsfs.errors import StsfsError, sole
from stsfs.shown import shown_below

DEBUG_KEY = "stsfs.debug"
"""In click's Context.meta, which all nested contexts share."""


def remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    """Callback of --debug, wherever on the command line it stands."""
    ctx.meta[DEBUG_KEY] = value or ctx.meta.get(DEBUG_KEY, False)
    return value


@contextlib.contextmanager
def reports_errors(ctx: click.Context) -> Iterator[None]:
    """Turn what a command raises into words on stderr and an exit code.

    One line says what is wrong, the next what can be done. A bug gets one line and the path of
    a log with its traceback. With --debug the traceback is shown too.
    """
    try:
        yield
    except click.ClickException as wrong:
        raise output.presentable(wrong) from None
    except (click.exceptions.Exit, click.Abort):
        raise
    except BrokenPipeError:
        # Whoever read our output has seen enough; what is buffered must not be tried again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        ctx.exit(1)
    except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001 - the last stop of all errors
        exc = sole(raised)
        if ctx.meta.get(DEBUG_KEY):
            output.warn_below(_redacted_traceback(raised))
        for line in _words(exc):
            output.warn(line)
        for line in exc.details if isinstance(exc, StsfsError) else ():
            output.warn_below(line)
        ctx.exit(exit_code(exc))


def _words(exc: BaseException) -> list[str]:
    if isinstance(exc, KeyboardInterrupt):
        return ["stsfs: interrupted"]
    if isinstance(exc, StsfsError):
        return [f"stsfs: {exc.sentence}", *([exc.remedy] if exc.remedy else [])]
    log_file = _keep_traceback(exc)
    where = f" Traceback: {log_file}" if log_file is not None else ""
    return [f"stsfs: internal error: {type(exc).__name__}: {_redact(str(exc))}.{where}"]


def _keep_traceback(exc: BaseException) -> Path | None:
    """Append the traceback to a private log; None if there is no place for it."""
    from stsfs.daemon.runtime_dir import log_dir
    from stsfs.daemon.spawn import open_private

    try:
        path = log_dir() / "errors.log"
        with open(path, "a", opener=open_private) as file:
            file.write(f"{datetime.now(UTC).isoformat()} {Path(sys.argv[0]).name}\n")
            file.write(f"{shown_below(_redacted_traceback(exc))}\n")
    except (OSError, StsfsError):
        return None
    return path


def _redacted_traceback(exc: BaseException) -> str:
    return _redact("".join(traceback.format_exception(exc)))


def _redact(text: str) -> str:
    from stsfs.redaction import redact

    return redact(text)
