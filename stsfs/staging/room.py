"""How much of a local disk may be written to, and what its errors mean."""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from stsfs.errors import StagingFailure, StagingFull, StsfsError
from stsfs.owned_dir import shown

RESERVED_SHARE = 20
"""One part in so many of a file system stays free: the last record must still find room."""

RESERVED_BYTES_MAX = 1 << 30
CHECKED_BYTES = 16 << 20
"""Written between two looks at the file system, or less where the reserve is small."""

SHORT_SHARE = 4
"""Less than one part in so many of a file system free, beside the reserve: it is short of room."""

SHORT_BYTES_MAX = 4 << 30

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Room:
    """Watches the free space of one directory. Safe to be used by several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._unchecked_bytes = 0
        self._allowed_bytes = 0

    def take(self, count_bytes: int) -> None:
        """Announce that count_bytes are about to be written. Raises StagingFull, StagingFailure.

        The file system is asked now and then only; while it is full it is asked each time.
        """
        with self._lock:
            self._unchecked_bytes += count_bytes
            if self._unchecked_bytes <= self._allowed_bytes:
                return
            self._allowed_bytes = 0
            _, reserved_bytes, spare_bytes = self._look()
            if spare_bytes < count_bytes:
                raise full(self._directory)
            self._unchecked_bytes = 0
            self._allowed_bytes = min(CHECKED_BYTES, reserved_bytes // 4)

    def is_short(self) -> bool:
        """Whether what S3 has as well should leave the disk. Blocks for one statvfs(2)."""
        total_bytes, _, spare_bytes = self._look()
        return spare_bytes < min(total_bytes // SHORT_SHARE, SHORT_BYTES_MAX)

    def _look(self) -> tuple[int, int, int]:
        """Bytes of the file system: all, kept free, and free beside those."""
        with translated(self._directory):
            status = os.statvfs(self._directory)
        total_bytes = status.f_blocks * status.f_frsize
        reserved_bytes = min(total_bytes // RESERVED_SHARE, RESERVED_BYTES_MAX)
        return total_bytes, reserved_bytes, status.f_bavail * status.f_frsize - reserved_bytes


def full(path: Path) -> StagingFull:
    """The error for a disk without room."""
    return StagingFull(
        f"The disk of {shown(path)} is full: what is written here waits there until S3 has it.",
        remedy="Make room on it, or mount with --staging-dir on a larger disk.",
    )


@contextlib.contextmanager
def translated(path: Path | str) -> Iterator[None]:
    """Raise StagingFull or StagingFailure in place of an OSError; path is what was worked on."""
    try:
        yield
    except OSError as exc:
        raise trouble(path, exc) from exc


def trouble(path: Path | str, exc: OSError) -> StsfsError:
    """What an error of the local disk is to the user."""
    path = shown(path)
    if exc.errno in _FULL:
        return full(Path(path).parent)
    if exc.errno == errno.EFBIG:
        return StagingFull(
            f"{path} cannot grow further: its file system has a limit for one file.",
            remedy="Mount with --staging-dir on another file system.",
        )
    if exc.errno == errno.EMFILE:
        return StagingFailure(
            f"{path} cannot be opened: no file descriptors are left.",
            remedy="Close files, or mount with a higher limit (ulimit -n; LimitNOFILE= of a unit).",
        )
    if exc.errno == errno.ENFILE:
        return StagingFailure(
            f"{path} cannot be opened: the whole machine has no file descriptors left.",
            remedy="Close files, or raise the machine's limit (sysctl fs.file-max).",
        )
    return StagingFailure(
        f"{path} cannot be used: {exc.strerror or exc}.",
        remedy="Look at the disk; --staging-dir names another.",
    )
