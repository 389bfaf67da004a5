"""May we mount here? Asked before anything slow, answered with a sentence."""

import errno
import os
import shutil
from pathlib import Path

from stsfs.daemon import mountinfo, runtime_dir
from stsfs.errors import FuseUnavailable, MountPointUnusable

FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONFIG = Path("/etc/fuse.conf")


def check_mount_point(path: Path) -> None:
    """Insist on an empty directory that is no mount; `path` comes from `mountinfo.resolve`.

    Raises MountPointUnusable. The list of mounts is asked first: to stat(2) a mount that hangs
    would hang us.
    """
    entry = mountinfo.mount_at(path)
    if entry is not None:
        raise _mounted(path, entry)
    try:
        with os.scandir(path) as entries:
            is_empty = next(entries, None) is None
    except FileNotFoundError as exc:
        raise MountPointUnusable(f"{path} does not exist.", remedy=f"mkdir -p {path}") from exc
    except NotADirectoryError as exc:
        raise MountPointUnusable(f"{path} is not a directory.") from exc
    except OSError as exc:
        raise _unreachable(path, exc) from exc
    if not is_empty:
        raise MountPointUnusable(
            f"{path} is not empty.", remedy="The mount would hide what is in it."
        )
    if os.geteuid() != 0 and not os.access(path, os.W_OK):
        raise MountPointUnusable(
            f"{path} is not writable for you, and fusermount3 demands that.",
            remedy="Mount on a directory of your own.",
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
        raise FuseUnavailable(f"{FUSE_DEVICE} cannot be opened: {exc.strerror}.") from exc
    if os.geteuid() == 0:
        return  # root mounts with mount(2) itself
    if shutil.which("fusermount3") is None:
        raise FuseUnavailable(
            "fusermount3 is not installed.",
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
    known = runtime_dir.find(path)
    if known is None or known.state == "dead":
        try:
            os.statvfs(path)  # never answered from the kernel's cache, as stat(2) is
        except OSError as exc:
            if exc.errno == errno.ENOTCONN:
                return _unreachable(path, exc)
    return MountPointUnusable(
        f"{path} is already a mount of stsfs ({entry.source}).",
        remedy=f"See `stsfs status {path}`.",
    )


def _unreachable(path: Path, exc: OSError) -> MountPointUnusable:
    if exc.errno == errno.ENOTCONN:
        above = mountinfo.mount_above(path)
        dead = above.path if above is not None else path
        return MountPointUnusable(
            f"{dead} holds a dead mount: its daemon is gone.",
            remedy=f"Run `stsfs unmount {dead}` first.",
        )
    return MountPointUnusable(f"{path} cannot be used: {exc.strerror}.")


def _users_may_allow_other() -> bool:
    try:
        lines = FUSE_CONFIG.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)
