"""Whether a cache directory can be used just now, and why not."""

import errno
import logging
import math
import sqlite3
import time
from pathlib import Path

log = logging.getLogger(__name__)

QUIET_S = 3600.0
"""Between two warnings about the same directory."""

_NO_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_WRITING_SQLITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY)


class Health:
    """The state that readers and the writer of one directory share."""

    def __init__(self, directory: Path) -> None:
        self.can_read = self.can_write = False
        self.reason: str | None = None
        self._directory = directory
        self._quiet_until_s = -math.inf

    @property
    def state(self) -> str:
        """`on`; `read-only` while nothing can be written, or nothing could; `off`."""
        if not self.can_read:
            return "off"
        return "on" if self.can_write and self.reason is None else "read-only"

    def opened(self) -> None:
        """The directory answers; whether it takes anything again is seen at the next write."""
        if not self.can_read:
            self.reason = None
        self.can_read = self.can_write = True

    def worked(self) -> None:
        """Something was written: there is no trouble now."""
        self.reason = None

    def cannot_read(self, exc: BaseException) -> None:
        """Go on without the directory until it is opened again."""
        self.can_read = self.can_write = False
        self.say_once(_words(exc))

    def cannot_write(self, exc: BaseException) -> None:
        """Go on without writing to it, and where that means something, without reading."""
        is_readable = isinstance(exc, OSError) and exc.errno in _NO_WRITING
        if isinstance(exc, sqlite3.Error):
            # The low byte is the kind of an extended result code.
            is_readable = getattr(exc, "sqlite_errorcode", 0) & 0xFF in _NO_WRITING_SQLITE
        self.can_write = False
        self.can_read = self.can_read and is_readable
        self.say_once(_words(exc))

    def say_once(self, reason: str) -> None:
        """Remember a reason for `status`; of trouble that comes and goes the log hears once."""
        self.reason = reason
        now_s = time.monotonic()
        if now_s >= self._quiet_until_s:
            self._quiet_until_s = now_s + QUIET_S
            log.warning("the disk cache %s is not used for now: %s", self._directory, reason)


def _words(exc: BaseException) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return f"{exc.strerror} ({exc.filename})" if exc.filename else exc.strerror
    return str(exc)
