"""Bytes to and from one chunk file: sparse, and past the page cache where that pays.

Files are named by a path below a directory that the caller holds open. What belongs to somebody
else is neither read nor written.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence

DIRECT_UNIT_BYTES = 4096
DIRECT_BYTES_MIN = 256 * 1024
"""Shorter writes are quicker through the page cache."""

Part = tuple[int, memoryview]
"""An offset in the file, and the bytes that belong there."""

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Neither led elsewhere by a link, nor held up by a pipe."""

_FOREIGN = (errno.ELOOP, errno.ENXIO, errno.EPERM)
"""What opening a link, a pipe or a socket, and what is not ours ends with."""


def read(directory: int, path: str, offset: int, buffer: memoryview) -> int:
    """Read into buffer; how many bytes there were. Raises OSError, also for what is not ours."""
    descriptor = _open(directory, path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [buffer], offset)
    finally:
        os.close(descriptor)


def write(directory: int, path: str, parts: Sequence[Part]) -> None:
    """Write parts, which come in the order of their offsets; creates the file. Raises OSError."""
    descriptor = _create(directory, path)
    try:
        for offset, views in _joined(parts):
            size_bytes = sum(map(len, views))
            if not _write_direct(descriptor, offset, views, size_bytes):
                _write_through_cache(descriptor, offset, views)
    finally:
        os.close(descriptor)


def _create(directory: int, path: str) -> int:
    try:
        return _open(directory, path, os.O_WRONLY | os.O_CREAT)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another thread was faster
            os.mkdir(os.path.dirname(path), 0o700, dir_fd=directory)
    except OSError as exc:
        if exc.errno not in _FOREIGN:
            raise
        os.unlink(path, dir_fd=directory)
    return _open(directory, path, os.O_WRONLY | os.O_CREAT)


def _open(directory: int, path: str, flags: int) -> int:
    descriptor = os.open(path, flags | _FLAGS, 0o600, dir_fd=directory)
    status = os.fstat(descriptor)
    if status.st_uid == os.geteuid() and stat.S_ISREG(status.st_mode):
        return descriptor
    os.close(descriptor)
    raise PermissionError(errno.EPERM, "it is no file of ours", path)


def _joined(parts: Sequence[Part]) -> Iterator[tuple[int, list[memoryview]]]:
    """Parts that lie end to end, together."""
    views: list[memoryview] = []
    begin = end = 0
    for offset, data in parts:
        if views and offset != end:
            yield begin, views
            views = []
        if not views:
            begin = end = offset
        views.append(data)
        end += len(data)
    if views:
        yield begin, views


def _write_direct(
    descriptor: int, offset: int, views: Sequence[memoryview], size_bytes: int
) -> bool:
    """Write all views with O_DIRECT; False where that does not pay, or cannot be done.

    The bytes have just been read, and the kernel holds them as pages of the mount already: a
    second copy in the page cache would cost more time than all the rest of a cold read.
    """
    if size_bytes < DIRECT_BYTES_MIN or any(len(view) % DIRECT_UNIT_BYTES for view in views):
        return False
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
        return os.pwritev(descriptor, views, offset) == size_bytes
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # memory, or a file system, that it does not work with
            raise
        return False
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _write_through_cache(descriptor: int, offset: int, views: Sequence[memoryview]) -> None:
    for view in views:
        while view:
            count = os.pwrite(descriptor, view, offset)
            view = view[count:]
            offset += count
