"""Holes in files: fallocate(2), which Python's os module has no function for."""

import ctypes
import errno
import os

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
"""FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE of linux/falloc.h."""

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch_hole(descriptor: int, offset: int, length_bytes: int) -> bool:
    """Give the blocks of a range back to the disk; False where that cannot be done there.

    Raises OSError for everything else.
    """
    mode = _KEEP_SIZE | _PUNCH_HOLE
    while _libc.fallocate(descriptor, mode, offset, length_bytes):
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True
