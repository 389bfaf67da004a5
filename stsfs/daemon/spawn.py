"""Going into the background: fork, and a pipe on which the daemon says how its start went.

The fork comes first, before any thread, event loop or connection exists; the shell gets its
prompt back only when the mount stands, or the reason why it does not.
"""

import contextlib
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from stsfs.daemon.error_record import InternalError, from_record, to_record
from stsfs.errors import BadArgument, StsfsError
from stsfs.owned_dir import open_log

Ready = Callable[[], None]

LAST_WORDS_LINES = 5
LAST_WORDS_BYTES = 4096

log = logging.getLogger(__name__)


class DaemonDied(StsfsError):
    """The background process ended before it could say why."""


def open_private(path: str | Path, flags: int) -> int:
    """An opener for `open`: what it creates, only the owner can read; see `open_log`."""
    return open_log(path, flags)


def run_in_background(
    body: Callable[[Ready], int], log_file: Path, *, kept: Iterable[int] = ()
) -> int:
    """Run `body` in a daemon; returns its pid once it has called `ready`.

    The daemon has a session of its own, `/` as working directory, of the caller's descriptors
    nothing but those that are `kept`, and writes what it prints to `log_file`. Raises what `body`
    raised before it was ready: the same StsfsError, InternalError for a bug, DaemonDied if it ended
    without a word. Interrupting the wait ends the daemon.
    """
    assert threading.active_count() == 1, "fork comes before threads"
    output = _open_log(log_file)
    log_start_bytes = os.fstat(output).st_size
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _live(body, output, writing, kept)
    os.close(writing)
    try:
        word = _word(pid, reading)
        if not word:
            raise _death(pid, log_file, output, log_start_bytes)
    finally:
        os.close(output)
    report = json.loads(word)
    if "ready" in report:
        return pid
    os.waitpid(pid, 0)
    error = from_record(report)
    if isinstance(error, InternalError):
        error = InternalError(error.sentence, remedy=f"The log has the details: {log_file}")
    raise error


def _word(pid: int, reading: int) -> bytes:
    """What the daemon says of its start; empty if it ends without."""
    try:
        with open(reading, "rb") as pipe:
            return pipe.read()  # to its end: the daemon closes it after one word
    except BaseException:
        os.kill(pid, signal.SIGTERM)  # half a mount helps nobody
        os.waitpid(pid, 0)
        raise


def _open_log(log_file: Path) -> int:
    try:
        return open_private(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError as exc:
        raise BadArgument(f"The log file {log_file} cannot be written: {exc.strerror}.") from exc


def _live(body: Callable[[Ready], int], output: int, writing: int, kept: Iterable[int]) -> NoReturn:
    """All that the child does. Leaves by os._exit: the stack below belongs to the parent."""
    exit_code = 1
    try:
        _detach(output, {writing, *kept})
        report = _Report(writing)
        try:
            exit_code = body(report.ready)
        except BaseException as exc:  # nothing is left above to take it
            if not isinstance(exc, StsfsError):
                log.critical("the daemon ends with an error", exc_info=exc)
            report.send(to_record(exc))
        logging.shutdown()
    finally:
        os._exit(exit_code)


def _detach(output: int, kept: Iterable[int]) -> None:
    """Leave the caller's session, directory and descriptors, but for those that are kept."""
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    first = 3
    for each in sorted(kept):
        os.closerange(first, each)
        first = each + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
    faulthandler.enable(file=2)


class _Report:
    """The one word that the daemon sends to whoever started it."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def ready(self) -> None:
        """Tell that the mount stands; may be called again."""
        self.send({"ready": True})

    def send(self, report: dict[str, object]) -> None:
        """Send the first report and close the pipe; drop all others."""
        if self._pipe is None:
            return
        pipe, self._pipe = self._pipe, None
        with contextlib.suppress(BrokenPipeError):  # the caller did not wait
            os.write(pipe, json.dumps(report).encode("ascii"))
        os.close(pipe)


def _last_words(output: int, log_start_bytes: int) -> list[str]:
    """The last lines that the child logged. Its name may lead elsewhere by now, or keep us waiting.

    None of what cannot be read again, such as a terminal.
    """
    with contextlib.suppress(OSError), open(f"/proc/self/fd/{output}", "rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(log_start_bytes, size_bytes - LAST_WORDS_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
        return lines[-LAST_WORDS_LINES:]
    return []


def _death(pid: int, log_file: Path, output: int, log_start_bytes: int) -> DaemonDied:
    """Say how the child ended, with the last lines that it logged."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    words = _last_words(output, log_start_bytes)
    how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
    return DaemonDied(
        f"The daemon ended {how} before the mount stood.",
        remedy=f"Its log {log_file} ends with:" if words else f"Its log: {log_file}",
        details=words,
    )
