"""May we mount here? Asked before anything slow, answered with a sentence."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from stsfs import programs
from stsfs.cache.disk.directory import CacheDirectory
from stsfs.daemon import mount_probe, mountinfo, runtime_dir
from stsfs.daemon.unmount import detach
from stsfs.errors import BadArgument, ForeignPath, FuseUnavailable, MountPointUnusable
from stsfs.fuse.mount_point import MountPoint
from stsfs.owned_dir import OwnedDir
from stsfs.staging.left import part_of_user

FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONFIG = Path("/etc/fuse.conf")

_NOT_LOCAL = re.compile(r"nfs|cifs|smb|9p|afs|ceph|lustre|gluster|beegfs|gpfs|fuse(\.|$)")


PROBE_TIMEOUT_S = 5.0
"""A dead mount says so at once."""


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[runtime_dir.Claim]:
    """Be the only process of this user that mounts at `path`, until the claim is released.

    Raises MountPointUnusable if another one is at it.
    """
    claim = runtime_dir.claim(path)
    if claim is None:
        if (entry := mountinfo.mount_at(path)) is not None:
            raise _mounted(path, entry)
        raise MountPointUnusable(
            f"Another stsfs is just mounting on {path}.", remedy="See `stsfs list`."
        )
    try:
        yield claim
    finally:
        claim.release()


def clear_dead_mount(path: Path) -> bool:
    """Take away what a dead daemon of this user left at `path`; whether there was anything.

    Mounts of others, of other programs, and those that merely hang are not touched. `path` must
    be claimed: what is dead now may be replaced at any time otherwise. Raises AccessDenied.
    """
    cleared = False
    while (entry := mountinfo.mount_at(path)) is not None and _is_ours_and_dead(path, entry):
        detach(path, lazy=True)  # its open files are as dead
        cleared = True
    return cleared


def _is_ours_and_dead(path: Path, entry: mountinfo.MountEntry) -> bool:
    if not entry.is_stsfs or entry.owner_uid != os.geteuid():
        return False
    known = runtime_dir.find(path)
    if known is not None and known.record.mount_path == path and known.state != "dead":
        return False
    return mount_probe.is_dead(path, timeout_s=PROBE_TIMEOUT_S)


def check_mount_point(path: Path) -> MountPoint:
    """Insist on an empty directory that is no mount; `path` comes from `mountinfo.resolve`.

    Returns a hold on the directory: the mount goes there, whatever becomes of the path. Root mounts
    below directories of others, but not where everybody may rename what is above the mount. Raises
    MountPointUnusable. The list of mounts is asked first: to stat(2) a mount that hangs would hang
    us.
    """
    entry = mountinfo.mount_at(path)
    if entry is not None:
        raise _mounted(path, entry)
    try:
        point = MountPoint.open(path)
    except FileNotFoundError as exc:
        raise MountPointUnusable(f"{path} does not exist.", remedy=f"mkdir -p {path}") from exc
    except NotADirectoryError as exc:
        raise MountPointUnusable(f"{path} is not a directory.") from exc
    except OSError as exc:
        raise _unreachable(path, exc) from exc
    try:
        _check_held(point)
    except BaseException:
        point.close()
        raise
    return point


def _check_held(point: MountPoint) -> None:
    path = point.path
    check_in_place(point)
    try:
        with os.scandir(point.link) as entries:
            is_empty = next(entries, None) is None
        is_root = os.geteuid() == 0
        open_parent = next(filter(_is_everybodys, path.parents), None) if is_root else None
    except OSError as exc:
        raise _unreachable(path, exc) from exc
    if not is_empty:
        raise MountPointUnusable(
            f"{path} is not empty.", remedy="The mount would hide what is in it."
        )
    if not is_root and not os.access(point.link, os.W_OK):
        raise MountPointUnusable(
            f"{path} is not writable for you, and fusermount3 demands that.",
            remedy="Mount on a directory of your own.",
        )
    if open_parent is not None:
        raise MountPointUnusable(
            f"Root does not mount on {path}, because everybody may write to {open_parent}.",
            remedy=f"chmod o-w {open_parent}, or chmod +t {open_parent}",
        )


def check_in_place(point: MountPoint) -> None:
    """Insist that the path still leads to the directory that was checked.

    Raises MountPointUnusable.
    """
    if not point.is_in_place():
        raise _swapped(point.path)


def confirm_mounted(point: MountPoint) -> mountinfo.MountEntry:
    """Insist that the new mount lies on the directory that was checked, and the path leads there.

    Raises MountPointUnusable.
    """
    entry = None if point.mounted_id is None else mountinfo.mount_of(point.mounted_id)
    if (
        entry is None
        or not entry.is_stsfs
        or entry.path != point.path
        or entry.parent_id != point.below_id
    ):
        raise _swapped(point.path)
    return entry


def clear_stray_mounts(known_ids: frozenset[int]) -> None:
    """Take away dead mounts of this user that are not among the known ones.

    For a mount that fusermount3 has made elsewhere, because its path was changed at that moment.
    """
    for entry in mountinfo.mounts():
        if entry.id not in known_ids and _is_ours_and_dead(entry.path, entry):
            detach(entry.path, lazy=True)


def _is_everybodys(directory: Path) -> bool:
    """Whether everybody may rename what others have in it."""
    mode = directory.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def _swapped(path: Path) -> MountPointUnusable:
    return MountPointUnusable(
        f"{path} is no longer the directory that was checked: somebody has moved or replaced it.",
        remedy="Mount where nobody else may rename directories.",
    )


def check_cache_dir(path: Path) -> None:
    """Insist on a place on a local file system for blocks on disk. Raises BadArgument.

    Elsewhere they would be slower than the bucket, and SQLite's shared memory does not work. A
    path of which more than the end is missing is a disk that is not mounted, or mistyped.
    Raises ForeignPath where others can exchange it: what is read there would be theirs.
    """
    _check_local("--cache-dir", path, "leave --cache-dir out")
    if not path.exists() and not path.parent.is_dir():
        raise BadArgument(
            f"--cache-dir {path} cannot be made: {path.parent} does not exist.",
            remedy="Mount the disk that belongs there, or make the directory.",
        )
    _check_owned("--cache-dir", path, CacheDirectory.of_user(path).path)


def check_staging_dir(path: Path) -> None:
    """Insist on a local file system for what is being written. Raises BadArgument.

    Elsewhere it would not be safe there when S3 cannot be reached, and might be this very mount.
    Raises ForeignPath where others can exchange it: what is uploaded would be theirs.
    """
    _check_local("--staging-dir", path, "mount without --rw")
    _check_owned("--staging-dir", path, part_of_user(path))


def _check_owned(option: str, named: Path, part: Path) -> None:
    """Refuse a directory that others own or can exchange; one that is not there is no error.

    named is what the user has named, or what is taken otherwise; part, what we use of it.
    """
    try:
        with contextlib.suppress(OSError):
            OwnedDir.open(part, private=True).close()
    except ForeignPath as exc:
        raise ForeignPath(
            f"{option} {named} cannot be used: {exc.sentence}",
            remedy=f"Name a directory that only you can write to, with {option} DIRECTORY; those "
            "above it must be writable by you or root only, or sticky (chmod +t).",
        ) from exc


def _check_local(option: str, path: Path, other_way: str) -> None:
    entry = mountinfo.mount_above(path)
    if entry is not None and _NOT_LOCAL.match(entry.filesystem_type):
        raise BadArgument(
            f"{option} {path} lies on {entry.path} ({entry.filesystem_type}), which is no local "
            "disk.",
            remedy=f"Name a directory on a local disk, or {other_way}.",
        )


def check_fuse(*, allow_other: bool) -> None:
    """Insist on what mounting needs from the system. Raises FuseUnavailable."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError as exc:
        raise FuseUnavailable(
            f"{FUSE_DEVICE} does not exist.",
            remedy="Load the module (modprobe fuse); start a container with --device /dev/fuse "
            "--cap-add SYS_ADMIN.",
        ) from exc
    except OSError as exc:
        raise FuseUnavailable(
            f"{FUSE_DEVICE} cannot be opened: {exc.strerror}.",
            remedy=f"An administrator can allow it: chmod 666 {FUSE_DEVICE}.",
        ) from exc
    if os.geteuid() == 0:
        return  # root mounts with mount(2) itself
    if not os.access(programs.fusermount3(), os.X_OK):
        raise FuseUnavailable(
            f"{programs.fusermount3()} is not installed.",
            remedy="Install it: apt install fuse3, or dnf install fuse3.",
        )
    if allow_other and not _users_may_allow_other():
        raise FuseUnavailable(
            f"--allow-other needs the line `user_allow_other` in {FUSE_CONFIG}.",
            remedy="Ask an administrator to add it, or mount without --allow-other.",
        )


def _mounted(path: Path, entry: mountinfo.MountEntry) -> MountPointUnusable:
    if not entry.is_stsfs:
        return MountPointUnusable(f"{path} is already a mount ({entry.filesystem_type}).")
    is_others = entry.owner_uid != os.geteuid()  # a dead one of ours has been cleared away
    if is_others and mount_probe.is_dead(path, timeout_s=PROBE_TIMEOUT_S):
        return _dead(path)
    return MountPointUnusable(
        f"{path} is already a mount of stsfs ({entry.source}).",
        remedy=f"See `stsfs status {path}`.",
    )


def _unreachable(path: Path, exc: OSError) -> MountPointUnusable:
    if exc.errno == errno.ENOTCONN:
        above = mountinfo.mount_above(path)
        return _dead(above.path if above is not None else path)
    return MountPointUnusable(f"{path} cannot be used: {exc.strerror}.")


def _dead(path: Path) -> MountPointUnusable:
    return MountPointUnusable(
        f"{path} holds a dead mount: its daemon is gone.",
        remedy=f"Run `stsfs unmount {path}` first.",
    )


def _users_may_allow_other() -> bool:
    try:
        lines = FUSE_CONFIG.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)
