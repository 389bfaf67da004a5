"""Where a running mount leaves its traces: one record and one socket per mount, and its log.

Everything lies in a directory that belongs to us alone (0700). A record is written once the
mount stands and removed once it is gone; whoever lists records prunes those of daemons that died
and whose mount has been cleared away.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs

from stsfs import values as checks
from stsfs.daemon import mountinfo
from stsfs.errors import BadArgument, ForeignPath
from stsfs.owned_dir import OwnedDir, open_file

SOCKET_PATH_BYTES_MAX = 107
"""sun_path of unix(7), without its final zero."""

RECORD_BYTES_MAX = 64 * 1024
PID_MAX = (1 << 31) - 1

PROBE_TIMEOUT_S = 1.0
"""A listening socket takes a connection at once, even if its process hangs."""

MountState = Literal["serving", "dead", "ending"]
"""serving: mounted and answering. dead: mounted, but nobody answers. ending: no longer mounted,
the daemon is still busy. A mount in another mount namespace looks like `ending`."""


@dataclass(frozen=True, slots=True)
class MountRecord:
    """What can be known about a mount without asking its daemon."""

    location: str
    uri: str
    mount_path: Path
    pid: int
    control_socket: Path
    started_at_unix_s: float
    log_file: Path | None = None
    staging_dir: Path | None = None
    """Where what it has not uploaded lies; None: it does not write, or is of an earlier version."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        values = asdict(self)
        return {key: str(v) if isinstance(v, Path) else v for key, v in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "MountRecord":
        """Undo `to_json`; raises KeyError, TypeError, ValueError or OverflowError for all else."""
        pid = values["pid"]
        if not isinstance(pid, int) or not 0 < pid <= PID_MAX:
            raise ValueError("no pid")
        return cls(
            location=_text(values["location"]),
            uri=_text(values["uri"]),
            mount_path=_absolute(values["mount_path"]),
            pid=pid,
            control_socket=_absolute(values["control_socket"]),
            started_at_unix_s=checks.unix_s(float(values["started_at_unix_s"])),
            log_file=_absolute(values["log_file"]) if values["log_file"] else None,
            staging_dir=_absolute(values["staging_dir"]) if values.get("staging_dir") else None,
        )


@dataclass(frozen=True, slots=True)
class KnownMount:
    """A record, and what is true of it now."""

    record: MountRecord
    state: MountState


def runtime_dir() -> Path:
    """The directory of records and sockets, created if absent.

    `$XDG_RUNTIME_DIR/stsfs`; without it /run/user/UID, /run for root, and /tmp/stsfs-UID as the
    last resort. Root's own login session is passed over, so that a root shell finds what a system
    service mounted. Raises BadArgument if somebody else owns the directory.
    """
    uid = os.geteuid()
    session = Path(f"/run/user/{uid}")
    parents = [Path("/run") if uid == 0 else session]
    xdg = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if xdg.is_absolute() and (uid != 0 or xdg != session):  # a daemon has another directory
        parents.insert(0, xdg)
    for parent in parents:
        # After `su` the variable may still name the directory of the user before.
        if _owner(parent) == uid:
            return _private(parent / "stsfs")
    return _private(Path(f"/tmp/stsfs-{uid}"))  # noqa: S108 - its owner and mode are verified


def log_dir() -> Path:
    """The directory of log files, created if absent: $XDG_STATE_HOME/stsfs, root /var/log/stsfs.

    Groups may write to directories above it, as to /var/log: each log is checked when it is opened.
    """
    if os.geteuid() == 0 and not os.environ.get("XDG_STATE_HOME"):
        return _private(Path("/var/log/stsfs"), any_parents=True)
    return _private(platformdirs.user_state_path("stsfs", appauthor=False), any_parents=True)


def attribute_index() -> Path:
    """Modes and times that were set through mounts of this user; not created."""
    return staging_root().with_name("attributes.sqlite")


def known_servers() -> Path:
    """What was found out about S3 servers through mounts of this user; not created."""
    return staging_root().with_name("servers")


def cache_key() -> Path:
    """What names and checksums of this user's cached blocks are made with; not created."""
    return staging_root().with_name("cache-key")


def staging_root() -> Path:
    """Where mounts keep what S3 has not got yet, unless they are told otherwise; not created."""
    if os.geteuid() == 0 and not os.environ.get("XDG_STATE_HOME"):
        return Path("/var/lib/stsfs/staging")
    return platformdirs.user_state_path("stsfs", appauthor=False) / "staging"


def mount_id(mount_path: Path) -> str:
    """The name under which a mount is filed: safe in a path, and of fixed length."""
    return hashlib.sha256(os.fsencode(mount_path)).hexdigest()[:16]


def control_socket(mount_path: Path) -> Path:
    """Where the daemon of this mount listens. Raises BadArgument if no socket can have the name."""
    path = runtime_dir() / f"{mount_id(mount_path)}.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise BadArgument(
            f"{path} is too long for the name of a socket.",
            remedy="Set XDG_RUNTIME_DIR to a shorter path.",
        )
    return path


def default_log_file(mount_path: Path) -> Path:
    """The log of a background daemon that was given no other."""
    return log_dir() / f"{mount_id(mount_path)}.log"


def write_record(record: MountRecord) -> None:
    """File the record, in one step. To be called once the mount stands: see `records`."""
    with _locked() as directory:
        target = directory / f"{mount_id(record.mount_path)}.json"
        text = json.dumps(record.to_json()).encode("ascii")
        with OwnedDir.open(directory) as opened:
            opened.replace(target.name, text)


def remove_record(record: MountRecord) -> None:
    """Forget this mount; a newer mount at the same path keeps its record."""
    with _locked() as directory:
        path = directory / f"{mount_id(record.mount_path)}.json"
        if _read(path) == record:
            path.unlink(missing_ok=True)


def records() -> list[KnownMount]:
    """Every mount of this user, by path; prunes what has neither mount nor daemon.

    A daemon writes its record after mounting, and both that and the pruning happen under one
    lock, so a mount that is just coming up is never pruned.
    """
    known = []
    with _locked() as directory:
        mounted = {entry.path for entry in mountinfo.mounts() if entry.is_stsfs}
        for path in directory.glob("*.json"):
            if (record := _read(path)) is None:
                continue
            answering = is_listening(record.control_socket)
            if record.mount_path in mounted:
                known.append(KnownMount(record, "serving" if answering else "dead"))
            elif answering:
                known.append(KnownMount(record, "ending"))
            else:
                path.unlink(missing_ok=True)
                if record.control_socket.parent == directory:
                    record.control_socket.unlink(missing_ok=True)
    return sorted(known, key=lambda mount: mount.record.mount_path)


def find(path: Path) -> KnownMount | None:
    """The mount at `path`, or the innermost one that `path` lies in."""
    holding = [mount for mount in records() if path.is_relative_to(mount.record.mount_path)]
    return max(holding, key=lambda mount: len(mount.record.mount_path.parts), default=None)


def is_listening(path: Path) -> bool:
    """Whether a living process listens on the socket; more reliable than its pid, never reused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except (TimeoutError, BlockingIOError):
            return True  # alive, with a full queue
        except OSError:
            return False
    return True


class Claim:
    """The right to mount at one path, held by one process of this user at a time."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def release(self) -> None:
        """Give the right back; may be called again, and happens by itself when the process ends."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            self._path.unlink(missing_ok=True)
            os.close(descriptor)


def claim(mount_path: Path) -> Claim | None:
    """Take the right to mount at this path; None if another process has it now."""
    path = runtime_dir() / f".{mount_id(mount_path)}.claim"
    while True:
        descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_still(path, descriptor):
            return Claim(path, descriptor)
        os.close(descriptor)  # it was released, and removed, between our opening and our locking


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _locked() -> Iterator[Path]:
    """The runtime directory, for one process at a time; held for a few file operations only."""
    directory = runtime_dir()
    descriptor = open_file(directory / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield directory
    finally:
        os.close(descriptor)


def _read(path: Path) -> MountRecord | None:
    try:
        with open(open_file(path), "rb") as file:
            values = json.loads(file.read(RECORD_BYTES_MAX).decode("ascii"))
        return MountRecord.from_json(values)
    except (OSError, ForeignPath, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # gone meanwhile, damaged, or of another version of this program


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    os.fsencode(value)  # what a path or an argument can hold
    return value


def _absolute(value: object) -> Path:
    path = Path(_text(value))
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("no absolute path")
    return path


def _owner(path: Path) -> int | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_uid if stat.S_ISDIR(status.st_mode) else None


def _private(path: Path, *, any_parents: bool = False) -> Path:
    """Create the directory if absent, and insist that it is ours and closed to others."""
    try:
        OwnedDir.open(path, create=True, private=True, any_parents=any_parents).close()
    except OSError as exc:
        raise BadArgument(f"{path} cannot be created: {exc.strerror}.") from exc
    except ForeignPath as exc:
        raise ForeignPath(
            exc.sentence,
            remedy="Set XDG_RUNTIME_DIR and XDG_STATE_HOME to directories that belong to you.",
        ) from exc
    return path
