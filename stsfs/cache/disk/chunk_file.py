"""Bytes to and from one chunk file: sparse, and past the page cache where that pays."""

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

DIRECT_UNIT_BYTES = 4096
DIRECT_BYTES_MIN = 256 * 1024
"""Shorter writes are quicker through the page cache."""

Part = tuple[int, memoryview]
"""An offset in the file, and the bytes that belong there."""


def read(path: Path, offset: int, buffer: memoryview) -> int:
    """Read into buffer; how many bytes there were. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.preadv(descriptor, [buffer], offset)
    finally:
        os.close(descriptor)


def write(path: Path, parts: Sequence[Part]) -> None:
    """Write parts, which come in the order of their offsets; creates the file. Raises OSError."""
    descriptor = _create(path)
    try:
        for offset, views in _joined(parts):
            size_bytes = sum(map(len, views))
            if not _write_direct(descriptor, offset, views, size_bytes):
                _write_through_cache(descriptor, offset, views)
    finally:
        os.close(descriptor)


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


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
