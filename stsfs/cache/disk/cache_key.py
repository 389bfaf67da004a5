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

from stsfs.errors import ForeignPath
from stsfs.owned_dir import OwnedDir

log = logging.getLogger(__name__)

KEY_BYTES = 32


def load_key(path: Path) -> bytes:
    """The key that is kept at path, made if there is none; blocks.

    Where none can be kept, or others could exchange it, there is one for this process: what it
    caches is of no use to the next.
    """
    try:
        with OwnedDir.open(path.parent, create=True, follow=True) as directory:
            descriptor = directory.open_file(path.name, os.O_RDWR | os.O_CREAT)
        try:
            return _read_or_make(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ForeignPath) as exc:
        reason = exc.sentence if isinstance(exc, ForeignPath) else f"{path}: {exc.strerror}."
        log.warning("Later mounts will not find what this one caches. %s", reason)
        return secrets.token_bytes(KEY_BYTES)


def _read_or_make(descriptor: int) -> bytes:
    with contextlib.suppress(OSError):  # not every network file system has locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # two mounts at once agree on one
    key = os.pread(descriptor, KEY_BYTES + 1, 0)
    is_open = bool(stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077)
    if len(key) == KEY_BYTES and not is_open:
        return key
    # Cut short by a crash, or no secret: others may have read or written it.
    key = secrets.token_bytes(KEY_BYTES)
    os.fchmod(descriptor, 0o600)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, key, 0)
    os.fsync(descriptor)
    return key
