"""Who owns the files of a staging directory: one process each, for as long as it lives.

An owner is a directory whose `owner.json` its process holds a lock (flock) on. The lock goes with
the process, however it ends, and so a lock that is free says that nobody looks after the files.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from stsfs.errors import ForeignPath
from stsfs.owned_dir import open_file
from stsfs.staging.record import DamagedRecord, Fields

OWNER_FILE = "owner.json"
FILE_BYTES_MAX = 64 * 1024
"""Nothing that an owner says of itself is as long."""

OwnerState = Literal["living", "dead", "elsewhere"]
"""elsewhere: of another machine, on a file system where its lock may not be visible here."""

_MOUNTINFO = Path("/proc/self/mountinfo")
_LOCAL_TYPES = ("ext", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "bcachefs", "jfs",
                "reiserfs", "nilfs2", "ramfs", "rootfs")  # fmt: skip


@dataclass(frozen=True, slots=True)
class OwnerInfo:
    """What an owner says of itself."""

    host: str
    pid: int
    mount_path: str
    """Empty: it has none (`stsfs recover`)."""

    started_unix_s: float

    @classmethod
    def of_this_process(cls, mount_path: Path | None) -> "OwnerInfo":
        """This process, now."""
        mounted = "" if mount_path is None else str(mount_path)
        return cls(os.uname().nodename, os.getpid(), mounted, time.time())

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> "OwnerInfo | None":
        """Undo `to_json`; None for anything else, as where a process died while it wrote."""
        try:
            with open(open_file(path), "rb") as file:
                fields = Fields.parse(file.read(FILE_BYTES_MAX), "the owner")
            return cls(
                fields.text("host"),
                fields.integer("pid"),
                fields.text("mount_path"),
                fields.number("started_unix_s"),
            )
        except (OSError, ForeignPath, DamagedRecord):
            return None


@dataclass(frozen=True, slots=True)
class Owner:
    """One owner, and what is true of it now."""

    path: Path
    info: OwnerInfo | None
    state: OwnerState


class Ownership:
    """The lock of an owner, held."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def begin(cls, path: Path, info: OwnerInfo) -> "Ownership":
        """Make an owner of the empty directory `path`, and hold it. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path / OWNER_FILE, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, json.dumps(info.to_json()).encode("ascii"))
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    @classmethod
    def take(cls, path: Path) -> "Ownership | None":
        """Hold an owner whose process is gone; None if it lives.

        Raises OSError, and ForeignPath for what no process of ours can hold.
        """
        descriptor = open_file(path / OWNER_FILE, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def end(self) -> None:
        """Let it go."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def state_of(path: Path, info: OwnerInfo | None, *, is_local: bool) -> OwnerState:
    """Whether the process of an owner lives. Raises OSError."""
    try:
        held = Ownership.take(path)
    except (FileNotFoundError, ForeignPath):
        return "dead"  # it died before it had a lock
    if held is None:
        return "living"
    held.end()
    if not is_local and info is not None and info.host != os.uname().nodename:
        return "elsewhere"
    return "dead"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One process of this user at a time; held for a few file operations.

    The directory was opened as an OwnedDir before. Raises OSError and ForeignPath.
    """
    descriptor = open_file(directory / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_local(path: Path) -> bool:
    """Whether only this machine sees the file system of path, so that its locks are enough.

    Unknown kinds count as shared. Format: proc_pid_mountinfo(5).
    """
    inside = os.fsencode(os.path.realpath(path))
    kind, longest = "", -1
    try:
        lines = _MOUNTINFO.read_bytes().split(b"\n")
    except OSError:
        return False
    for line in lines:
        head, _, tail = line.partition(b" - ")
        fields = head.split(b" ")
        if len(fields) < 5 or not tail:
            continue
        mounted = fields[4].replace(b"\\040", b" ").rstrip(b"/")
        if (inside + b"/").startswith(mounted + b"/") and len(mounted) >= longest:
            kind, longest = tail.split(b" ")[0].decode("ascii", "replace"), len(mounted)
    return kind.startswith(_LOCAL_TYPES)
