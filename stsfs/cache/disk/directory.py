"""The directory of one user's disk cache: where it lies, and whether it may be used."""

import contextlib
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1
"""Part of the names: mounts of another version of this program keep out of each other's way."""

RESERVED_SHARE = 10
"""One part in so many of the file system always stays free: its last tenth is not ours."""

_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# Blocks cached by stsfs; may be removed at any time.\n"
    "# What this file is for: https://bford.info/cachedir/\n"
)


class UnusableDirectory(Exception):
    """The cache directory cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class CacheDirectory:
    """What lies where below the directory that the user named.

    Users who name the same directory share the disk, and nothing else: each has a part that is
    closed to the others, because bytes that one may read another may not.
    """

    path: Path
    """The user's own part."""

    @classmethod
    def of_user(cls, parent: Path) -> "CacheDirectory":
        """This user's part of the directory that was named."""
        return cls(parent / f"stsfs-{os.geteuid()}")

    @property
    def index(self) -> Path:
        """The SQLite database."""
        return self.path / f"index-{FORMAT}.sqlite3"

    @property
    def chunks(self) -> Path:
        """What the chunk files lie in."""
        return self.path / f"chunks-{FORMAT}"

    @property
    def lock(self) -> Path:
        """Held by whoever throws the index away; its time says when that was last."""
        return self.path / "lock"

    def put_chunks_aside(self) -> Path:
        """Begin with no chunk files, at once; returns what the caller has to remove."""
        aside = self.path / f"gone-{os.getpid()}-{time.monotonic_ns()}"
        self.chunks.rename(aside)
        self.chunks.mkdir(mode=0o700)
        return aside

    def era(self) -> int:
        """A number that changes when the index is thrown away. Raises OSError."""
        return self.lock.stat().st_mtime_ns

    def begin_era(self) -> None:
        """The index has been thrown away: connections to it are worth nothing now."""
        os.utime(self.lock)

    def prepare(self) -> None:
        """Create what is missing. Raises UnusableDirectory, or OSError."""
        self.path.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
        status = self.path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise UnusableDirectory(f"{self.path} is not a directory of ours")
        if status.st_mode & 0o077:
            self.path.chmod(0o700)
        self.chunks.mkdir(mode=0o700, exist_ok=True)
        if not self.lock.exists():
            self.lock.touch(mode=0o600)
        tag = self.path / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(_TAG, encoding="ascii")

    def free_bytes(self) -> int:
        """What the file system has left above the share that is not ours; negative below it."""
        status = os.statvfs(self.path)
        return (status.f_bavail - status.f_blocks // RESERVED_SHARE) * status.f_frsize
