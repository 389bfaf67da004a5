"""What the histories of the model test are made of: system calls, as data."""

import os
from dataclasses import dataclass

from hypothesis import strategies as st

FLAGS = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "a": os.O_RDWR | os.O_CREAT,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
}


@dataclass(frozen=True)
class Open:
    path: str
    mode: str


@dataclass(frozen=True)
class Write:
    which: int
    offset: int
    count: int


@dataclass(frozen=True)
class Read:
    which: int


@dataclass(frozen=True)
class Truncate:
    which: int
    count: int


@dataclass(frozen=True)
class Flush:
    which: int


@dataclass(frozen=True)
class Fsync:
    which: int


@dataclass(frozen=True)
class Close:
    which: int


@dataclass(frozen=True)
class TruncatePath:
    path: str
    count: int


@dataclass(frozen=True)
class Unlink:
    path: str


@dataclass(frozen=True)
class Mkdir:
    path: str


@dataclass(frozen=True)
class Rmdir:
    path: str


@dataclass(frozen=True)
class Rename:
    old: str
    new: str
    replace: bool = True


@dataclass(frozen=True)
class Look:
    path: str


@dataclass(frozen=True)
class TimePasses:
    pass


@dataclass(frozen=True)
class Remount:
    pass


@dataclass(frozen=True)
class OpenDirectory:
    path: str


@dataclass(frozen=True)
class ReadDirectory:
    """So many entries more; from the beginning if that is asked for."""

    count: int
    rewind: bool = False


names = st.sampled_from(["a", "b", "d/a", "d/b", "d/s/a", "e/a", "i/a", "i/j/b", "z"])
some_files = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5])
"""Which of the files that are there."""

some_directories = st.integers(10, 13)
"""Which of the directories that are there."""

paths = st.one_of(names, some_files, some_files)
directories = st.sampled_from(["d", "e", "d/s", "e/s", "i", "i/j", "a"])
whiches = st.integers(0, 3)
counts = st.sampled_from([0, 1, 700, 3000])
steps = st.one_of(
    st.builds(Open, paths, st.sampled_from(list(FLAGS))),
    st.builds(Open, paths, st.sampled_from(["w", "w+", "a", "r+"])),
    st.builds(Open, names, st.sampled_from(["w", "w+", "a", "x"])),
    st.builds(Write, whiches, st.sampled_from([0, 5, 1000, 4000]), counts),
    st.builds(Write, whiches, st.just(0), counts),
    st.builds(Read, whiches),
    st.builds(Truncate, whiches, counts),
    st.builds(Flush, whiches),
    st.builds(Fsync, whiches),
    st.builds(Close, whiches),
    st.builds(Close, whiches),
    st.builds(TruncatePath, paths, counts),
    st.builds(Unlink, paths),
    st.builds(Mkdir, directories),
    st.builds(Rmdir, st.one_of(directories, some_directories)),
    st.builds(Rename, st.one_of(paths, directories), st.one_of(paths, directories), st.booleans()),
    st.builds(Rename, some_files, paths),
    st.builds(Rename, some_directories, directories),
    st.builds(OpenDirectory, st.one_of(some_directories, st.just(""))),
    st.builds(ReadDirectory, st.integers(1, 3), st.booleans()),
    st.builds(Look, st.one_of(paths, directories, some_directories, st.just(""))),
    st.builds(TimePasses),
    st.builds(Remount),
)


class Listed:
    """An open directory, and what readdir(3) may and must show of it."""

    def __init__(self, handle, directory):
        self.handle, self.directory = handle, directory
        self.begin()

    def begin(self):
        """From the beginning."""
        self.position, self.shown, self.is_over = 0, [], False
        self.always, self.ever = set(self.directory), set(self.directory)

    def note(self):
        """The directory may have changed."""
        self.always &= set(self.directory)
        self.ever |= set(self.directory)

    async def read(self, mount, count, *, rewind):
        """So many entries more: none twice, none that never was, in the end all that stayed."""
        if rewind:
            self.begin()
        entries = list(await mount.vfs.read_directory(self.handle, self.position))[:count]
        for self.position, node in entries:
            self.shown.append(node.name.decode())
        if not entries and not self.is_over:
            self.is_over = True
            assert self.always <= set(self.shown)
        assert set(self.shown) <= self.ever
