"""Taking a mount away: living, dead or hanging.

The kernel decides whether a mount is busy, and a daemon whose mount is gone ends by itself. So the
mount is taken away in the kernel first, which cannot cut off a reader by surprise; only where
that is not possible from here, as from another mount namespace, the daemon is asked.
"""

import contextlib
import ctypes
import errno
import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from stsfs.daemon import mountinfo, runtime_dir
from stsfs.daemon.control_client import ask
from stsfs.daemon.holders import holders
from stsfs.daemon.runtime_dir import KnownMount, MountRecord
from stsfs.errors import AccessDenied, DeadlineExceeded, MountBusy, NoSuchMount

MNT_DETACH = 2
"""umount2(2): take the name away now, the mount itself when its last file is closed."""

UMOUNT_NOFOLLOW = 8


LOOK_AGAIN_S = 0.5
"""Between attempts to unmount: nobody announces that a file was closed."""


def unmount(
    path: Path,
    *,
    lazy: bool,
    timeout_s: float,
    wait_s: float = 0.0,
    waiting: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Unmount the stsfs mount at `path` (from `mountinfo.resolve`) and wait for its daemon.

    Open files are waited for up to `wait_s` seconds, and `waiting` is told who holds them. A lazy
    unmount does not wait: the daemon serves the files that are still open. Raises NoSuchMount,
    MountBusy, AccessDenied, or DeadlineExceeded if the daemon is not gone after `timeout_s`
    seconds.
    """
    os.chdir("/")  # our own working directory may be what keeps it busy
    known = runtime_dir.find(path)
    record = known.record if known is not None and known.record.mount_path == path else None
    entry = mountinfo.mount_at(path)
    # Its record may be pruned by others once the mount is gone, its pid used again: hold it now.
    process = _open_process(record) if record is not None else None
    try:
        if entry is None and record is None:
            raise NoSuchMount(f"{path} is not a mount.", remedy=_where_else(known))
        if entry is not None and not entry.is_stsfs:
            raise NoSuchMount(f"{path} is a mount, but not of stsfs ({entry.filesystem_type}).")
        if entry is not None:
            _detach_when_free(path, lazy=lazy, wait_s=wait_s, waiting=waiting)
        elif record is not None:
            ask(record.control_socket, "unmount", timeout_s=timeout_s, arguments={"lazy": lazy})
        if record is not None and process is not None and not lazy:
            _wait_for_end(record, process, timeout_s)
    finally:
        if process is not None:
            os.close(process)
    runtime_dir.records()  # prunes what a dead daemon left behind


def _detach_when_free(
    path: Path, *, lazy: bool, wait_s: float, waiting: Callable[[str], None]
) -> None:
    deadline_s = time.monotonic() + wait_s
    told = ""
    while True:
        try:
            detach(path, lazy=lazy)
        except MountBusy as busy:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise
            if busy.sentence != told:
                waiting(busy.sentence)
                told = busy.sentence
        else:
            return
        select.select([], [], [], min(left_s, LOOK_AGAIN_S))


def detach(path: Path, *, lazy: bool) -> None:
    """Take the mount at `path` away in the kernel. Raises MountBusy or AccessDenied."""
    if os.geteuid() == 0:
        code, words = _umount2(path, lazy=lazy)
    else:
        code, words = _fusermount(path, lazy=lazy)
    if code == errno.EBUSY:
        users = ", ".join(str(holder) for holder in holders(path))
        raise MountBusy(
            f"{path} is in use{f' by {users}' if users else ''}.",
            remedy="Close those, or use `stsfs unmount --lazy`: it ends when the last is closed.",
        )
    if code:
        raise AccessDenied(f"{path} cannot be unmounted: {words}.")


def _umount2(path: Path, *, lazy: bool) -> tuple[int, str]:
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), flags) == 0:
        return 0, ""
    code = ctypes.get_errno()
    return code, os.strerror(code)


def _fusermount(path: Path, *, lazy: bool) -> tuple[int, str]:
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", os.fspath(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return errno.ENOENT, "fusermount3 is not installed"
    if done.returncode == 0:
        return 0, ""
    words = done.stderr.strip().removeprefix("fusermount3: ")
    # Its exit code is 1 for everything; its words are never translated.
    return (errno.EBUSY if "busy" in words.lower() else errno.EPERM), words


def _open_process(record: MountRecord) -> int | None:
    """A descriptor that tells when the process has ended; None if it already has."""
    if not runtime_dir.is_listening(record.control_socket):
        return None
    with contextlib.suppress(OSError):
        return os.pidfd_open(record.pid)
    return None


def _wait_for_end(record: MountRecord, process: int, timeout_s: float) -> None:
    if not select.select([process], [], [], timeout_s)[0]:
        raise DeadlineExceeded(
            f"{record.mount_path} is unmounted, but its daemon ({record.pid}) has not ended yet.",
            remedy=f"Its log: {record.log_file}" if record.log_file else "",
        )


def _where_else(known: KnownMount | None) -> str:
    return f"The mount is {known.record.mount_path}." if known is not None else ""
