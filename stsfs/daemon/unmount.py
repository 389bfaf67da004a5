"""Taking a mount away: living, dead or hanging.

The kernel decides whether a mount is busy, and a daemon whose mount is gone ends by itself. So the
mount is taken away in the kernel first, which cannot cut off a reader by surprise; only where
that is not possible from here, as from another mount namespace, the daemon is asked.
"""

import contextlib
import errno
import os
import select
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stsfs import programs
from stsfs.daemon import mountinfo, runtime_dir, staging_dirs
from stsfs.daemon.control_client import ask
from stsfs.daemon.holders import holders
from stsfs.daemon.mountinfo import MountEntry
from stsfs.daemon.runtime_dir import KnownMount, MountRecord
from stsfs.errors import (
    AccessDenied,
    ChangesLeft,
    DeadlineExceeded,
    MountBusy,
    NoSuchMount,
    StsfsError,
)
from stsfs.fuse.mount_point import take_away
from stsfs.staging.left import LeftBehind, owners, what_is_left
from stsfs.staging.owner import Owner

LOOK_AGAIN_S = 0.5
"""Between attempts to unmount, and looks at uploads: nobody announces that a file was closed."""

PATHS_TOLD = 10
"""Of what is left; `stsfs recover` tells all."""

ANSWER_S, ANSWER_S_MIN = 5.0, 1.0
"""For the daemon to say what it has not uploaded, and no longer than a shorter --timeout, which may
be zero: a daemon that is at work answers within the other one."""

Unsaved = Mapping[str, Any]
"""The answer to `unsaved`: `files`, `left_bytes` and the first `paths`; while it lasts, also
`sent_bytes`."""


def unmount(
    path: Path,
    *,
    lazy: bool,
    timeout_s: float,
    wait_s: float = 0.0,
    waiting: Callable[[str], None] = lambda sentence: None,
    silent: Callable[[str], None] = lambda sentence: None,
    uploading: Callable[[Unsaved], None] = lambda unsaved: None,
) -> Unsaved | None:
    """Unmount the stsfs mount at `path` (from `mountinfo.resolve`) and wait for its daemon.

    Open files are waited for up to `wait_s` seconds, and `waiting` is told who holds them; then
    uploads, of which `uploading` is told, as long as they get on. A lazy unmount does not wait: the
    daemon serves the files that are still open. Returns what has not been uploaded, None where that
    is certainly nothing: of a lazy unmount so far, else what is left for `stsfs recover`. A lazy
    unmount does not need the daemon: `silent` is told where that does not answer. Raises
    NoSuchMount, MountBusy, AccessDenied, DeadlineExceeded if the daemon is not gone `timeout_s`
    seconds after the last progress, and ChangesLeft where the mount is gone, and nothing tells
    whether all that was written has been uploaded.
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
        traces = _traces(path, entry, record)
        heard, has_answered = None, False
        if record is not None and lazy:
            heard, has_answered = _asked(record, timeout_s)
        if entry is not None:
            _detach_when_free(path, lazy=lazy, wait_s=wait_s, waiting=waiting)
        elif record is not None:
            ask(
                record.control_socket, "unmount", timeout_s=timeout_s, arguments={"lazy": lazy},
                name=f"The daemon of {path} (pid {record.pid})",
                remedy=f"`kill -KILL {record.pid}` ends it.",
            )  # fmt: skip
        if record is not None and process is not None and not lazy:
            heard = _wait_for_end(record, process, timeout_s, uploading)
        if process is not None and lazy and not (has_answered or _has_ended(process)):
            assert record is not None
            silent(
                f"{path} is unmounted; its daemon (pid {record.pid}) does not answer, and may never"
                f" end by itself: `kill -KILL {record.pid}` ends it."
            )
        runtime_dir.records()  # prunes what a dead daemon left behind
        left = heard if lazy and has_answered else traces.left(heard)
    finally:
        if process is not None:
            os.close(process)
    return left


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
    try:
        take_away(path, _is_of_stsfs, lazy=lazy)
    except OSError as exc:
        return exc.errno or errno.EIO, exc.strerror or str(exc)
    return 0, ""


def _is_of_stsfs(mount_id: int) -> bool:
    entry = mountinfo.mount_of(mount_id)
    return entry is not None and entry.is_stsfs


def _fusermount(path: Path, *, lazy: bool) -> tuple[int, str]:
    program = os.fspath(programs.fusermount3())
    command = [program, "-u", *(["-z"] if lazy else []), "--", os.fspath(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=programs.environment()
        )
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


def _wait_for_end(
    record: MountRecord, process: int, timeout_s: float, uploading: Callable[[Unsaved], None]
) -> Unsaved | None:
    """Return when the process has ended, as long as its uploads get on: what it said last."""
    deadline_s = time.monotonic() + timeout_s
    before: Unsaved | None = None
    while not select.select([process], [], [], LOOK_AGAIN_S)[0]:
        now, has_answered = _asked(record, timeout_s)
        if now is not None:
            uploading(now)
            if before is None or now["sent_bytes"] > before["sent_bytes"]:
                deadline_s = time.monotonic() + timeout_s
        before = now
        if time.monotonic() >= deadline_s:
            raise _not_ended(record, has_answered)
    return before


def _has_ended(process: int) -> bool:
    return bool(select.select([process], [], [], 0)[0])


def _not_ended(record: MountRecord, has_answered: bool) -> DeadlineExceeded:
    words = "has not ended yet" if has_answered else "does not answer: it hangs, or was stopped"
    remedies = [] if has_answered else [f"`kill -KILL {record.pid}` ends it."]
    if record.log_file:
        remedies.append(f"Its log: {record.log_file}")
    return DeadlineExceeded(
        f"{record.mount_path} is unmounted, but its daemon ({record.pid}) {words}.",
        remedy=" ".join(remedies),
    )


@dataclass(frozen=True, slots=True)
class _Traces:
    """Where what the daemon of a mount has not uploaded lies on the disk."""

    mount_path: Path
    pid: int | None
    """None: nobody has noted it."""

    staging_dirs: tuple[Path, ...]
    """Empty: not known, or there is nothing, because nobody could write."""

    could_write: bool

    def left(self, heard: Unsaved | None) -> Unsaved | None:
        """What lies there; None if that is nothing. Raises ChangesLeft where nobody can tell.

        What the daemon has said last counts only where the disk cannot be read: it may have
        uploaded that since, or have said nothing at all.
        """
        if not self.could_write:
            return None
        try:
            on_disk = [each for named in self.staging_dirs for each in what_is_left(named)]
        except (StsfsError, OSError):
            if heard is None:
                raise self._unknown() from None
            return heard
        if not self.staging_dirs:
            raise self._unknown()
        found = [each for each in on_disk if self._is_of(each.owner)]
        if not found:
            return None
        paths = [each.id if each.record is None else f"/{each.record.path}" for each in found]
        return {
            "files": len(found),
            "left_bytes": sum(_size_bytes(each) for each in found if isinstance(each, LeftBehind)),
            "paths": paths[:PATHS_TOLD],
        }

    def _is_of(self, owner: Owner) -> bool:
        info = owner.info
        if info is None or info.mount_path != str(self.mount_path):
            return False
        return self.pid is None or info.pid == self.pid

    def _unknown(self) -> ChangesLeft:
        return ChangesLeft(
            f"{self.mount_path} is unmounted, but it is not known whether all that was written to"
            " it has reached S3.",
            remedy="See `stsfs recover`, as the user who mounted it.",
        )


def _traces(path: Path, entry: MountEntry | None, record: MountRecord | None) -> _Traces:
    """To be called before the mount is taken away: its daemon removes its traces at its end."""
    pid = None if record is None else record.pid
    if record is not None and record.staging_dir is not None:
        return _Traces(path, pid, (record.staging_dir,), could_write=True)
    if entry is None or entry.is_read_only:
        return _Traces(path, pid, (), could_write=False)
    # Its record is lost, of an earlier version, or another user's: who owns files tells as well.
    found = []
    for named in staging_dirs.look().directories:
        with contextlib.suppress(StsfsError):
            mount_paths = {each.info.mount_path for each in owners(named) if each.info is not None}
            if str(path) in mount_paths:
                found.append(named)
    return _Traces(path, pid, tuple(found), could_write=True)


def _size_bytes(left: LeftBehind) -> int:
    return left.stored_bytes if left.record is None else left.record.size_bytes


def _asked(record: MountRecord, timeout_s: float) -> tuple[Unsaved | None, bool]:
    """What the daemon has not uploaded, None if that is nothing; and whether it has answered."""
    try:
        answer = ask(
            record.control_socket, "unsaved", timeout_s=min(ANSWER_S, max(timeout_s, ANSWER_S_MIN))
        )
    except StsfsError:
        return None, False
    return (answer if answer["files"] else None), True


def _where_else(known: KnownMount | None) -> str:
    return f"The mount is {known.record.mount_path}." if known is not None else ""
