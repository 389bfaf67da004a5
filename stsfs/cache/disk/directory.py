"""The directory of one user's disk cache: where it lies, whether it may be used, what is in it."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stsfs.errors import ForeignPath
from stsfs.owned_dir import OwnedDir

FORMAT = 1
"""Part of the names: mounts of another version of this program keep out of each other's way."""

INDEX = f"index-{FORMAT}.sqlite3"
"""The SQLite database."""

INDEX_FILES = (INDEX, f"{INDEX}-wal", f"{INDEX}-shm")
CHUNKS = f"chunks-{FORMAT}"
"""What the chunk files lie in."""

LOCK = "lock"
"""Held by whoever throws the index away; its time says when that was last."""

TAG = "CACHEDIR.TAG"
ASIDE = "gone-"

RESERVED_SHARE = 10
"""One part in so many of the file system always stays free: its last tenth is not ours."""

_TAG_TEXT = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# Blocks cached by stsfs; may be removed at any time.\n"
    b"# What this file is for: https://bford.info/cachedir/\n"
)


@dataclass(frozen=True, slots=True)
class CacheDirectory:
    """Where the cache of one user lies below the directory that the user named.

    Users who name the same directory share the disk, and nothing else: each has a part that is
    closed to the others, because bytes that one may read another may not.
    """

    path: Path
    """The user's own part."""

    @classmethod
    def of_user(cls, parent: Path) -> "CacheDirectory":
        """This user's part of the directory that was named."""
        return cls(parent / f"stsfs-{os.geteuid()}")

    def check(self) -> None:
        """Raise ForeignPath if others own it, or can exchange it or what it lies in.

        Makes nothing; a directory that is not there is no error.
        """
        with contextlib.suppress(OSError):
            OwnedDir.open(self.path, private=True).close()

    def open(self) -> "OpenDirectory":
        """Open what is there. Raises OSError, and ForeignPath as `check` does."""
        return OpenDirectory(OwnedDir.open(self.path, private=True))

    def create(self) -> "OpenDirectory":
        """Open it, and make what is missing. Raises what `open` raises."""
        with contextlib.suppress(FileExistsError):
            self.path.parent.mkdir(0o755)  # and nothing above it: that is a disk, not mounted yet
        directory = OpenDirectory(OwnedDir.open(self.path, create=True, private=True))
        directory.complete()
        return directory


class OpenDirectory:
    """The user's part, held by a descriptor: whatever becomes of its name, this one is used.

    The descriptor is closed when nobody has the object any more: a thread that hangs in a call may
    have it longer than the rest.
    """

    def __init__(self, owned: OwnedDir) -> None:
        self._owned = owned
        self.descriptor = owned.descriptor
        """For calls with `dir_fd`."""

        weakref.finalize(self, owned.close).atexit = False

    @property
    def is_gone(self) -> bool:
        """Whether it has been removed; a directory that was renamed is still there."""
        return os.fstat(self.descriptor).st_nlink == 0

    def complete(self) -> None:
        """Make what is missing; what has the name and is not ours is put aside. Raises OSError."""
        try:
            self._owned.open_dir(CHUNKS, create=True).close()
        except ForeignPath:
            self.put_aside(CHUNKS)
            os.mkdir(CHUNKS, 0o700, dir_fd=self.descriptor)
        try:
            os.close(self._owned.open_file(LOCK, os.O_RDWR | os.O_CREAT))
        except ForeignPath:
            self.put_aside(LOCK)
            os.close(self._owned.create_file(LOCK))
        with (
            contextlib.suppress(FileExistsError),
            open(self._owned.create_file(TAG), "wb") as tag,
        ):
            tag.write(_TAG_TEXT)
        self.remove_what_is_aside()

    def index(self) -> Path:
        """What SQLite finds the index by; made, empty, if it is not there. Raises ForeignPath.

        SQLite opens paths only. It asks the kernel where this one leads when it opens it, so that
        it finds the directory under whatever name it has by then.
        """
        for name in INDEX_FILES:
            self._owned.check_file(name)
        with contextlib.suppress(FileExistsError):  # SQLite would let others read it
            os.close(self._owned.create_file(INDEX))
        return self._owned.fixed_path / INDEX

    def check_is_there(self) -> None:
        """Raise OSError where more than one file cannot be read."""
        os.stat(CHUNKS, dir_fd=self.descriptor)

    def era(self) -> int:
        """A number that changes when the index is thrown away. Raises OSError."""
        return os.stat(LOCK, dir_fd=self.descriptor, follow_symlinks=False).st_mtime_ns

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time, for throwing the index away. Raises OSError."""
        descriptor = self._owned.open_file(LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def throw_away(self) -> None:
        """Put the index and all chunks aside: connections to the index are worth nothing now."""
        for name in INDEX_FILES:
            self.put_aside(name)
        os.utime(LOCK, dir_fd=self.descriptor, follow_symlinks=False)
        self.put_chunks_aside()

    def put_chunks_aside(self) -> None:
        """Begin with no chunk files, at once; see `remove_what_is_aside`."""
        self.put_aside(CHUNKS)
        os.mkdir(CHUNKS, 0o700, dir_fd=self.descriptor)

    def put_aside(self, name: str) -> None:
        """Give up an entry, whatever it is; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(
                name,
                f"{ASIDE}{os.getpid()}-{secrets.token_hex(8)}",
                src_dir_fd=self.descriptor,
                dst_dir_fd=self.descriptor,
            )

    def remove_what_is_aside(self) -> None:
        """Remove what this process or another has put aside; what cannot be removed stays."""
        for name in self._owned.names():
            if name.startswith(ASIDE):
                with contextlib.suppress(OSError):
                    self._remove(name)

    def _remove(self, name: str) -> None:
        try:
            self._owned.unlink(name)
        except OSError as exc:
            if exc.errno not in (errno.EISDIR, errno.EPERM):
                raise
            shutil.rmtree(name, ignore_errors=True, dir_fd=self.descriptor)

    def free_bytes(self) -> int:
        """What the file system has left above the share that is not ours; negative below it."""
        status = os.fstatvfs(self.descriptor)
        return (status.f_bavail - status.f_blocks // RESERVED_SHARE) * status.f_frsize
