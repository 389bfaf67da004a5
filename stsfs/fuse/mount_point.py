"""The directory that a mount covers, held by a descriptor, and mount(2) and umount2(2) on it.

A path can lead elsewhere a moment after it was checked, where others may rename what it is made of.
A descriptor cannot: it is opened at the first check, and root mounts on it. For ordinary users
fusermount3 mounts, which checks paths with the user's rights.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

KERNEL_TYPE = b"fuse.stsfs"

_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4  # of mount(2)
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8  # of umount2(2)

_UNMOUNT_PROGRAM = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
place = os.fsencode(f"/proc/self/fd/{sys.argv[1]}/{sys.argv[2]}")
os._exit(ctypes.get_errno() if libc.umount2(place, int(sys.argv[3])) else 0)
"""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What the kernel is told of a mount; it is always nosuid and nodev."""

    source: str
    """As mount(8) shows it."""

    is_read_only: bool
    """The kernel itself refuses every change, with EROFS."""

    allow_other: bool = False

    def of_fusermount(self) -> str:
        """For `fusermount3 -o`."""
        source = self.source.replace("\\", "\\\\").replace(",", "\\,")
        words = ["ro" if self.is_read_only else "rw", "nosuid", "nodev", "default_permissions"]
        words += ["allow_other"] if self.allow_other else []
        return ",".join([*words, "subtype=stsfs", f"fsname={source}"])

    def of_kernel(self, device: int) -> tuple[int, bytes]:
        """Flags and data for mount(2); device is the descriptor of /dev/fuse."""
        words = [f"fd={device}", "rootmode=40000", f"user_id={os.getuid()}",
                 f"group_id={os.getgid()}", "default_permissions"]  # fmt: skip
        words += ["allow_other"] if self.allow_other else []
        flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if self.is_read_only else 0)
        return flags, ",".join(words).encode()


class MountPoint:
    """A directory to mount on. Works as a context, after which the descriptor is closed."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor
        """Where it was when it was opened; and what it is."""

        self.mounted_id: int | None = None
        """The id of our mount on it, as in mountinfo."""

    @classmethod
    def open(cls, path: Path) -> "MountPoint":
        """Hold the directory at this path, which has no symbolic links. Raises OSError."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return cls(path, os.open(path, flags))

    def __enter__(self) -> "MountPoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory; may be called again."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def is_in_place(self) -> bool:
        """Whether its path still leads to it."""
        return os.readlink(self.link) == os.fspath(self.path)

    @property
    def link(self) -> str:
        """A name of the directory itself, wherever it has been moved to."""
        return f"/proc/self/fd/{self.descriptor}"

    @property
    def below_id(self) -> int:
        """The id of the mount that the directory itself lies on."""
        return _mount_id(self.descriptor)

    def covering_id(self) -> int:
        """The id of the uppermost mount on the directory; `below_id` if there is none."""
        parent = self._parent()
        try:
            return _mount_id_at(parent, self._name())
        except FileNotFoundError:
            return self.below_id  # it has been removed
        finally:
            os.close(parent)

    def mount(self, device: int, options: MountOptions) -> None:
        """Mount on it, which takes CAP_SYS_ADMIN. Raises OSError. Does not wait for answers."""
        flags, data = options.of_kernel(device)
        libc = ctypes.CDLL(None, use_errno=True)
        place, source = self.link.encode(), os.fsencode(options.source)
        if libc.mount(source, place, KERNEL_TYPE, ctypes.c_ulong(flags), data):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def note_mount(self) -> None:
        """Remember the mount that was just made on it, if it was made there."""
        covering = self.covering_id()
        self.mounted_id = None if covering == self.below_id else covering

    def unmounting(self, parent: int, *, lazy: bool) -> list[str]:
        """The command that takes the mount away, and returns errno as its exit code.

        parent is from `opened_parent`, and goes to the command. A command, because whoever
        unmounts may have to wait for an answer of this very process.
        """
        flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
        arguments = [str(parent), self._name(), str(flags)]
        return [sys.executable, "-I", "-S", "-c", _UNMOUNT_PROGRAM, *arguments]

    def opened_parent(self) -> int | None:
        """A descriptor of the directory above it; None if our mount is no longer the uppermost."""
        if self.mounted_id is None or self.covering_id() != self.mounted_id:
            return None
        return self._parent()

    def _parent(self) -> int:
        return os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor)

    def _name(self) -> str:
        """Its last name, which nobody can change as long as something is mounted on it."""
        return os.path.basename(os.readlink(self.link))


def take_away(path: Path, is_meant: Callable[[int], bool], *, lazy: bool) -> None:
    """Unmount what is mounted at a path, as root.

    is_meant says of the id of a mount whether it is to be taken away. Raises OSError: EINVAL where
    it says no, ELOOP where the path leads through a symbolic link. The directory above is held
    meanwhile, so that nobody can put another one there.
    """
    parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.readlink(f"/proc/self/fd/{parent}") != os.fspath(path.parent):
            raise OSError(errno.ELOOP, "its path leads elsewhere now")
        if not is_meant(_mount_id_at(parent, path.name)):
            raise OSError(errno.EINVAL, "something else is mounted there now")
        flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(f"/proc/self/fd/{parent}/{path.name}"), flags):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(parent)


def _mount_id_at(parent: int, name: str) -> int:
    """The id of the mount that a name leads into. Asks no file system but that of the parent."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        return _mount_id(descriptor)
    finally:
        os.close(descriptor)


def _mount_id(descriptor: int) -> int:
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["mnt_id"])
