"""Whatever is done through a mount, a local file system would have shown the same.

And S3 has, of each file that nobody writes, exactly that.
"""

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from stsfs.errors import AlreadyExists, NotFound, StaleVersion, StsfsError
from tests.fakes import MemoryStore, pattern
from tests.model.plain_files import PlainFile, PlainFiles
from tests.model.writing_steps import (
    FLAGS,
    Close,
    Flush,
    Fsync,
    Listed,
    Look,
    Mkdir,
    Open,
    OpenDirectory,
    Read,
    ReadDirectory,
    Remount,
    Rename,
    Rmdir,
    TimePasses,
    Truncate,
    TruncatePath,
    Unlink,
    Write,
    steps,
)
from tests.writing_vfs.machine import Machine

pytestmark = pytest.mark.long
HISTORIES = int(os.environ.get("STSFS_HISTORIES", "1000"))
RAM = Path("/dev/shm")
PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]

START = (Mkdir("d"), Mkdir("d/s"), Mkdir("e"))
BEFORE = {"i/a": b"before", "i/j/a": b"and more", "k/l/a": b"x", "many/1": b"", "many/2": b"2"}
"""What the bucket holds from the beginning: directories without markers."""


def kind_of(error):
    """The class that a mount and the model have to agree about."""
    if isinstance(error, FileNotFoundError):
        return NotFound
    if isinstance(error, FileExistsError):
        return AlreadyExists
    return type(error)


class World:
    """A mount beside the plain model."""

    def __init__(self, machine):
        self.machine, self.store = machine, machine.store
        self.plain = PlainFiles()
        for key, data in BEFORE.items():
            self.store.put(key, data)
            self.plain.add(key, data)
        self.opened = []
        self.listed = None
        self.writes = 0
        self.mount = None

    async def both(self, plain, real):
        """Do the same in the model and in the mount: the same result, or the same error."""
        expected = error = None
        try:
            expected = plain()
        except StsfsError as exc:
            error = exc
        try:
            found = await real()
        except (StsfsError, OSError) as exc:
            if error is None or kind_of(exc) is not type(error):
                raise
            return None, None
        assert error is None, f"the model says {error!r}"
        return expected, found

    def handle(self, which):
        """One of the open files, if there is any."""
        return self.opened[which % len(self.opened)] if self.opened else None

    def real_path(self, path):
        """The path that a number stands for."""
        if isinstance(path, str):
            return path
        shown = list(self.plain.walk())
        wanted = dict if path >= 10 else PlainFile
        found = [each for each, node in shown if isinstance(node, wanted)]
        return found[path % len(found)] if found else "a"

    async def do(self, step):
        """One step of a history."""
        given = {
            each: self.real_path(getattr(step, each))
            for each in ("path", "old", "new")
            if hasattr(step, each)
        }
        step = dataclasses.replace(step, **given)
        match step:
            case Open(path, mode):
                await self.open(path, mode)
            case Write() | Read() | Truncate() | Flush() | Fsync() | Close():
                if self.opened:
                    await self.with_handle(step, *self.handle(step.which))
            case TruncatePath(path, count):

                def truncate():
                    node = self.plain.open(path)
                    if len(node.data) != count or not node.writers:
                        node.truncate(count)

                await self.both(truncate, lambda: self.mount.truncate(path, count))
            case Unlink(path):
                await self.both(lambda: self.plain.unlink(path), lambda: self.mount.unlink(path))
            case Mkdir(path):
                await self.both(lambda: self.plain.mkdir(path), lambda: self.mount.mkdir(path))
            case Rmdir(path):
                await self.both(lambda: self.plain.rmdir(path), lambda: self.mount.rmdir(path))
            case Rename(old, new, replace):
                if f"{old}/".startswith(f"{new}/") or f"{new}/".startswith(f"{old}/"):
                    return  # the kernel itself refuses, or does nothing
                await self.both(
                    lambda: self.plain.rename(old, new, replace=replace),
                    lambda: self.mount.rename(old, new, replace=replace),
                )
            case Look(path):
                await self.look(path)
            case OpenDirectory(path) if isinstance(self.plain.root_or(path), dict):
                self.end_listing()
                inode = (await self.mount.walk(path)).inode
                handle = await self.mount.vfs.open_directory(inode)
                self.listed = Listed(handle, self.plain.find(path))
            case ReadDirectory(count, rewind) if self.listed is not None:
                await self.listed.read(self.mount, count, rewind=rewind)
            case TimePasses():
                await trio.sleep(50)
        if self.listed is not None:
            self.listed.note()
        self.check_store()

    async def open(self, path, mode):
        flags = FLAGS[mode]
        node, descriptor = await self.both(
            lambda: self.plain.open(
                path,
                create=bool(flags & os.O_CREAT),
                exclusive=bool(flags & os.O_EXCL),
                truncate=bool(flags & os.O_TRUNC),
                writes=mode != "r",
            ),
            lambda: self.mount.open(path, flags),
        )
        if node is not None:
            self.opened.append((node, descriptor, mode))

    async def with_handle(self, step, node, descriptor, mode):
        """Something with an open file. One that is open on a version of S3, and has lost its name,
        may be gone: the only row of the table that differs."""
        named = any(each is node for _, each in self.plain.walk())
        try:
            await self.with_live_handle(step, node, descriptor, mode)
        except StaleVersion:
            assert not named

    async def with_live_handle(self, step, node, descriptor, mode):
        match step:
            case Write(_, offset, count) if mode != "r":
                self.writes += 1
                data = pattern(self.writes, count)
                if data:
                    await self.mount.write(descriptor, data, offset)
                node.write(offset, data)
            case Read():
                if "+" in mode or mode in "ra":
                    assert await self.mount.read(descriptor) == bytes(node.data)
            case Truncate(_, count) if mode != "r":
                await self.mount.set("", descriptor, size_bytes=count)
                node.truncate(count)
            case Flush():
                await self.mount.flush(descriptor)
            case Fsync():
                await self.mount.vfs.fsync(descriptor.number)
            case Close():
                self.opened.remove((node, descriptor, mode))
                node.writers -= mode != "r"
                await self.mount.close(descriptor)

    def end_listing(self):
        """The open directory, if there is one, is closed."""
        if self.listed is not None:
            self.mount.vfs.close_directory(self.listed.handle)
            self.listed = None

    async def look(self, path):
        """A path shows what the model has: names, or bytes."""
        node, error = None, None
        try:
            node = self.plain.find(path)
        except StsfsError as exc:
            error = exc
        if error is not None:
            with pytest.raises((StsfsError, OSError)) as raised:
                await self.mount.get(path)
            assert kind_of(raised.value) is type(error)
            return
        if isinstance(node, PlainFile):
            assert await self.mount.get(path) == bytes(node.data)
            assert (await self.mount.stat(path)).size_bytes == len(node.data)
        else:
            assert await self.mount.names(path) == sorted(node)

    def check_store(self):
        """S3 has what nobody writes as it is, and nothing that has no name."""
        shown = dict(self.plain.walk())
        for path, node in shown.items():
            if isinstance(node, PlainFile) and not node.writers:
                assert self.store.objects[path].data == bytes(node.data)
        for key, stored in self.store.objects.items():
            node = shown[key.removesuffix("/")]
            if key.endswith("/"):
                assert isinstance(node, dict)
            else:
                assert stored.data in node.states

    def forget_empty(self):
        """A directory that was only a prefix, and has lost its last key, is not there any more."""
        for path, node in reversed(list(self.plain.walk())):
            if isinstance(node, dict) and not any(
                key.startswith(f"{path}/") for key in self.store.objects
            ):
                self.plain.rmdir(path)

    async def play(self, history):
        """All steps; each mount ends with all files closed."""
        remaining = [*START, *history]
        while remaining:
            async with self.machine.mounted() as self.mount:
                while remaining:
                    step = remaining.pop(0)
                    if isinstance(step, Remount):
                        break
                    await self.do(step)
                self.end_listing()
                while self.opened:
                    await self.with_handle(Close(0), *self.opened[0])
                self.check_store()
                for path in ["", *dict(self.plain.walk())]:
                    await self.look(path)
                self.forget_empty()
                assert self.mount.writers.files() == []
                assert self.mount.vfs.open_files == 0


@given(history=st.lists(steps, min_size=5, max_size=40))
@example(history=[Open("a", "w"), Rename("a", "k/l/a"), Rename("k", "e"), Write(0, 0, 700)])
@example(
    history=[Open("z", "w"), Close(0), Open("z", "r"), Open("z", "w"), Write(1, 0, 1), Read(0)]
)
@example(history=[Unlink("many/1"), Rmdir("many"), Rename("k", "d/x"), Rename("i", "z"), Look("")])
@example(history=[TimePasses(), Rename(10, "a"), TimePasses(), Rename(1, "b"), Look("i")])
@example(
    history=[TimePasses(), TimePasses(), Rename(10, "a"), TimePasses(), Rename(1, "b"), Look("i")]
)
@settings(deadline=None, max_examples=HISTORIES, report_multiple_bugs=False, phases=PHASES)
def test_every_history_is_that_of_a_local_file_system(history):
    play(history)


def play(history):
    directory = tempfile.mkdtemp(dir=RAM if RAM.is_dir() else None)
    try:
        machine = Machine(MemoryStore(page_keys=3), Path(directory) / "staging")
        world = World(machine)
        trio.run(world.play, history, clock=MockClock(autojump_threshold=0))
    finally:
        shutil.rmtree(directory)
