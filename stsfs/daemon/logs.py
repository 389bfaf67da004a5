"""Where log lines go, and the last gate that secrets do not pass.

In the foreground lines go to stderr, with the priorities of sd-daemon(3) when the journal reads
it; in the background to a private file of limited size. Redaction is part of formatting, the last
step before a line leaves, so that tracebacks and what libraries log pass it too. So is writing out
control characters: a record is one line, whatever names and messages of servers it has, and what
follows it (a traceback) is indented.
"""

import logging
import logging.handlers
import os
import sys
import threading
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType

from stsfs.daemon.spawn import open_private
from stsfs.owned_dir import OwnedDir
from stsfs.redaction import redact
from stsfs.shown import shown, shown_below

LOG_FILE_BYTES_MAX = 8 * 1024 * 1024
LOG_FILES_KEPT = 3
_TIMED = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_UNTIMED = "%(name)s: %(message)s"


class RedactingFormatter(logging.Formatter):
    """Formats a record as one line, and its traceback as indented ones; redacts both."""

    def format(self, record: logging.LogRecord) -> str:
        """The finished line or lines."""
        record.message = record.getMessage()
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        lines = [shown(redact(self.formatMessage(record)))]
        if record.exc_info:
            lines.append(shown_below(redact(self.formatException(record.exc_info))))
        if record.stack_info:
            lines.append(shown_below(redact(self.formatStack(record.stack_info))))
        return "\n".join(lines)


class JournalFormatter(RedactingFormatter):
    """Prefixes each line with its syslog priority; the journal adds time and process itself."""

    def format(self, record: logging.LogRecord) -> str:
        """The finished lines, each as `<N>text`."""
        priority = _syslog_priority(record.levelno)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


class PrivateRotatingFileHandler(logging.handlers.RotatingFileHandler):
    """A log file of limited size, and its predecessors, that only the owner can read."""

    def _open(self) -> TextIOWrapper:
        # mode "a", as the base class says; a literal gives the result its type
        return open(self.baseFilename, "a", encoding=self.encoding, opener=open_private)

    def doRollover(self) -> None:
        """Begin anew, in the very directory that the path leads to, links of others aside."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        path = Path(self.baseFilename)
        with OwnedDir.open(path.parent, any_owner=True, any_parents=True, follow=True) as directory:
            names = [path.name, *(f"{path.name}.{n}" for n in range(1, self.backupCount + 1))]
            for newer, older in zip(names[-2::-1], names[:0:-1], strict=True):
                if directory.has(newer):
                    directory.rename(newer, older)
        self.stream = self._open()


def log_to_stderr(level: str) -> None:
    """Send lines of at least `level` (`info`, `debug` ...) to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    journal = _stderr_is_the_journal()
    handler.setFormatter(JournalFormatter(_UNTIMED) if journal else RedactingFormatter(_TIMED))
    _install(handler, level)


def log_to_file(path: Path, level: str) -> None:
    """Send lines of at least `level` to a private file, rotated at LOG_FILE_BYTES_MAX."""
    handler = PrivateRotatingFileHandler(
        path, maxBytes=LOG_FILE_BYTES_MAX, backupCount=LOG_FILES_KEPT, encoding="utf-8"
    )
    handler.setFormatter(RedactingFormatter(_TIMED))
    _install(handler, level)


def _install(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries speak up only when something is wrong
    logging.getLogger("stsfs").setLevel(level.upper())
    logging.captureWarnings(True)
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_thread_end


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    exc_info = _exc_info(unraisable.exc_value, unraisable.exc_traceback)
    logging.getLogger("stsfs").error("unraisable in %r", unraisable.object, exc_info=exc_info)


def _log_thread_end(ended: threading.ExceptHookArgs) -> None:
    exc_info = _exc_info(ended.exc_value, ended.exc_traceback)
    logging.getLogger("stsfs").error("thread %s ended", ended.thread, exc_info=exc_info)


def _exc_info(
    exc: BaseException | None, traceback: TracebackType | None
) -> tuple[type[BaseException], BaseException, TracebackType | None] | None:
    return None if exc is None else (type(exc), exc, traceback)


def _stderr_is_the_journal() -> bool:
    """JOURNAL_STREAM is inherited; only a match says that our stderr still is that stream."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _syslog_priority(level: int) -> int:
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7
