"""The secret of one user that the names and checksums of cached blocks are made with.

It lies with the state of the user and never in a cache directory: whoever exchanges a directory
while nothing is mounted does not have it, and what was not written with it is not found.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import stat
from pathlib import Path

import trio

from stsfs.errors import ForeignPath
from stsfs.owned_dir import OwnedDir, foreign

log = logging.getLogger(__name__)

KEY_BYTES = 32
_NOT_FOUND = "Later mounts will not find what this one caches."
_REMEDY = (
    "Set XDG_STATE_HOME to a directory that only you can write to, on a file system that keeps "
    "permissions."
)


async def kept_key(path: Path) -> bytes:
    """`load_key` in a thread: it waits for other mounts that start, and for the disk."""
    return await trio.to_thread.run_sync(load_key, path, abandon_on_cancel=True)


def load_key(path: Path) -> bytes:
    """The key that is kept at path, made if there is none; blocks.

    Where none can be kept, or others could exchange or read it, there is one for this process:
    what it caches is of no use to the next. Whenever another key takes the place of one, that is
    said: what was cached with that one is not found any more.
    """
    try:
        with OwnedDir.open(path.parent, create=True, follow=True) as directory:
            descriptor = directory.open_file(path.name, os.O_RDWR | os.O_CREAT)
        try:
            return _read_or_make(path, descriptor)
        finally:
            os.close(descriptor)
    except ForeignPath as exc:
        log.warning("%s %s %s", _NOT_FOUND, exc.sentence, _REMEDY)
        return secrets.token_bytes(KEY_BYTES)
    except OSError as exc:
        log.warning("%s %s: %s.", _NOT_FOUND, path, exc.strerror)
        return secrets.token_bytes(KEY_BYTES)


def _read_or_make(path: Path, descriptor: int) -> bytes:
    with contextlib.suppress(OSError):  # not every network file system has locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # two mounts at once agree on one
    key = os.pread(descriptor, KEY_BYTES + 1, 0)
    was_open = _is_open(descriptor)
    if len(key) == KEY_BYTES and not was_open:
        return key
    os.fchmod(descriptor, 0o600)
    if _is_open(descriptor):
        raise foreign(path, "cannot be made private: its file system keeps no permissions")
    if key:
        what = "could be read or written by others" if was_open else "is incomplete"
        log.warning("%s %s, and is replaced: what was cached before is not found.", path, what)
    key = secrets.token_bytes(KEY_BYTES)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, key, 0)
    os.fsync(descriptor)
    return key


def _is_open(descriptor: int) -> bool:
    """Whether others may read or write it."""
    return bool(stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077)
