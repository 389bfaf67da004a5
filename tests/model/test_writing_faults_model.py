"""Whatever fails, dies or is changed by others: nothing torn, nothing lost, nothing overwritten.

No model predicts which answer of a dying server comes when. What is checked instead: every object
is what somebody wrote, whole; what a close or fsync accepted is in S3 or is kept on the local disk;
and what another client wrote stays until an operation of ours that began later replaces it.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from stsfs.errors import AccessDenied, StoreFailure, StsfsError, TargetChanged
from stsfs.writer.recovery import recover_at_mount
from tests.fakes import Fault, MemoryStore, pattern
from tests.model.fault_steps import (
    PATHS,
    Begin,
    Close,
    Dies,
    Fails,
    Fsync,
    Kill,
    Killing,
    Put,
    Read,
    Rename,
    TheirDelete,
    TheirPut,
    TimePasses,
    Unlink,
    Update,
    steps,
)
from tests.writing_vfs.machine import TTL_S, UPDATE, WRITE, Machine

pytestmark = pytest.mark.long
HISTORIES = int(os.environ.get("STSFS_HISTORIES", "1000"))
RAM = Path("/dev/shm")
PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]


class World:
    """A mount, and what may not be lost."""

    def __init__(self, machine):
        self.machine, self.store = machine, machine.store
        self.written = 0
        self.ever = {b""}
        """Every content that a file has had."""

        self.kept = {}
        """By path: contents of which one must be found, in S3 or on the local disk."""

        self.theirs = {}
        """By path: what another client wrote, and no later operation of ours has touched."""

        self.surprising = set()
        """Paths that a listing may still call absent."""

        self.doubtful = []
        """Old and new path, and the content, of what renames were to move that were cut short."""

        self.looked_at = set()
        """Paths that were opened in this mount."""

        self.unseen = set()
        """Those of them where another client has written since: no rename replaces that unseen."""

        self.opened = self.name = None  # the open file, and its path as far as it has one
        self.mount = self.scope = None

    def data(self, count=500):
        self.written += 1
        made = pattern(self.written, count)
        self.ever.add(made)
        return made

    async def do(self, step):
        """One step; errors are allowed, if they are ours."""
        if isinstance(step, Put | Update | Begin | Read | Unlink | TheirDelete):
            self.unseen.discard(step.path)
            if isinstance(step, Unlink):
                self.looked_at.discard(step.path)
        await self.do_one(step)
        if isinstance(step, Put | Update | Begin | Read):
            self.looked_at.add(step.path)

    async def do_one(self, step):
        match step:
            case Put(path, count) if path != self.name:
                await self.put(path, self.data(count))
            case Update(path, offset) if path != self.name:
                await self.update(path, offset)
            case Begin(path) if self.opened is None:
                await self.begin(path)
            case Fsync() if self.opened is not None:
                _, descriptor, content = self.opened
                await self.mount.vfs.fsync(descriptor.number)
                self.accept(self.name, content)
            case Close() if self.opened is not None:
                await self.close()
            case Unlink(path):
                self.touch(path)
                self.kept.pop(path, None)
                if self.name == path:
                    self.name = None
                await self.mount.unlink(path)
            case Rename(old, new) if old != new:
                await self.rename(old, new)
            case Read(path):
                found = await self.mount.get(path)
                assert found in self.ever
            case TheirPut(path):
                self.take_away(path)
                if path not in self.store.objects:
                    self.surprising.add(path)
                if path in self.looked_at:
                    self.unseen.add(path)
                self.theirs[path] = self.data()
                self.store.put(path, self.theirs[path])
            case TheirDelete(path):
                self.take_away(path)
                self.theirs.pop(path, None)
                self.store.delete(path)
            case Fails(method, denied, happened):
                error = AccessDenied("no") if denied else StoreFailure("down")
                self.store.script(method, Fault(error, happened=happened and not denied))
            case Dies(method, happened):
                self.store.script(method, Killing(self.scope, happened=happened))
            case Kill():
                self.scope.cancel()
            case TimePasses(seconds):
                await trio.sleep(seconds)
                if seconds > TTL_S:
                    self.surprising.clear()

    def take_away(self, path):
        """Another client replaces what S3 has; what is only here stays."""
        stored = self.store.objects.get(path)
        if stored is not None and stored.data in self.kept.get(path, ()):
            del self.kept[path]
        if self.name == path and stored is not None and stored.data == self.opened[2]:
            self.name = None  # a rename has published it: its close has nothing more to promise

    def touch(self, path):
        """An operation of ours begins that may replace what is there, whoever wrote it."""
        for each in list(self.theirs):
            if each == path or each.startswith(f"{path}/"):
                del self.theirs[each]

    def try_to_replace(self, path, content):
        """From now on this content may take the place of what was there."""
        if path in self.kept:
            self.kept[path] = {*self.kept[path], content}

    def accept(self, path, content):
        """A call has returned that promises to keep this content."""
        if path is not None:
            self.kept[path] = {content}

    async def put(self, path, content):
        self.touch(path)
        descriptor = await self.mount.open(path, WRITE)
        self.try_to_replace(path, b"")
        try:
            if content:
                await self.mount.write(descriptor, content)
            self.try_to_replace(path, content)
            await self.mount.flush(descriptor)
            await self.mount.flush(descriptor)  # of a duplicate
            self.accept(path, content)
        finally:
            await self.mount.release(descriptor)

    async def update(self, path, offset):
        self.touch(path)
        descriptor = await self.mount.open(path, UPDATE)
        try:
            content = await self.mount.read(descriptor)
            changed = self.changed(content, offset)
            self.try_to_replace(path, changed)
            await self.mount.write(descriptor, changed[offset : offset + 500], offset)
            await self.mount.flush(descriptor)
            self.accept(path, changed)
        finally:
            await self.mount.release(descriptor)

    def changed(self, content, offset):
        padded = content + bytes(max(0, offset - len(content)))
        made = padded[:offset] + self.data() + padded[offset + 500 :]
        self.ever.add(made)
        return made

    async def begin(self, path):
        self.touch(path)
        descriptor = await self.mount.open(path, WRITE)
        content = self.data()
        self.opened, self.name = (path, descriptor, content), path
        self.try_to_replace(path, b"")
        self.try_to_replace(path, content)
        await self.mount.write(descriptor, content)

    async def close(self):
        (_, descriptor, content), self.opened = self.opened, None
        try:
            await self.mount.flush(descriptor)
            self.accept(self.name, content)
        finally:
            self.name = None
            await self.mount.release(descriptor)

    async def rename(self, old, new):
        before = dict(self.theirs), dict(self.kept), self.name
        try:
            await self.try_to_rename(old, new)
        except TargetChanged:  # nothing has happened, and the next one is on purpose
            self.theirs, self.kept, self.name = before
            self.unseen.discard(new)
            raise
        assert new not in self.unseen, new
        for paths in (self.unseen, self.looked_at):
            paths -= {each for each in paths if f"{each}/".startswith((f"{old}/", f"{new}/"))}

    async def try_to_rename(self, old, new):
        for path in (old, new):
            self.touch(path)
        moved = {
            path: new + path.removeprefix(old)
            for path in self.kept
            if (path == old or path.startswith(f"{old}/")) and self.is_in_the_mount(path)
        }
        self.kept.pop(new, None)
        if self.name == new:
            self.name = None  # replaced, even where the old name could not be removed
        try:
            await self.mount.rename(old, new)
        except BaseException:
            went = {path: moved[path] for path in moved if self.has_gone(path, moved[path])}
            self.doubtful += [
                (path, target, self.kept[path])
                for path, target in moved.items()
                if path not in went
            ]
            moved = went
            raise
        finally:
            self.kept |= {target: self.kept.pop(path) for path, target in moved.items()}
        if self.name is not None and f"{self.name}/".startswith(f"{old}/"):
            self.name = new + self.name.removeprefix(old)

    def is_in_the_mount(self, path):
        """Whether a path of the mount has what was kept: what an earlier mount has left on the
        local disk is only listed, and stays so under its name, whatever is renamed."""
        stored = self.store.objects.get(path)
        is_here = any(each.path == path for each in self.mount.writers.files())
        return is_here or (stored is not None and stored.data in self.kept[path])

    def has_gone(self, path, target):
        """Whether S3 has moved a file, though the answer was lost."""
        stored = self.store.objects.get(target)
        return path not in self.store.objects and stored and stored.data in self.kept[path]

    def settle(self):
        """The next mount has put renames right that were cut short: what it moved is elsewhere."""
        for path, target, contents in self.doubtful:
            if self.kept.get(path) == contents and self.has_gone(path, target):
                self.kept[target] = self.kept.pop(path)
        self.doubtful.clear()

    def check(self):
        """What holds at any time."""
        for key, stored in self.store.objects.items():
            assert stored.data in self.ever, key
        for path, content in self.theirs.items():
            assert self.store.objects[path].data == content, path

    def check_kept(self):
        """Nothing that was accepted is lost; asked while nobody is mounted."""
        shown = {stored.data for stored in self.store.objects.values()}
        for path, contents in self.kept.items():
            assert contents & shown or path in self.left(), path

    def left(self):
        """Keys of what the local disk keeps."""
        records = self.machine.left_behind()
        return {each.record.key for each in records if getattr(each, "record", None) is not None}

    async def play(self, history):
        """All steps, in as many mounts as it takes; at the end S3 is well, and all is recovered."""
        remaining = list(history)
        while remaining:
            with trio.CancelScope() as self.scope:
                await self.live(remaining)
            self.opened = self.name = None
            self.unseen, self.looked_at = set(), set()
            for script in self.store.scripts.values():
                script[:] = [each for each in script if not isinstance(each, Killing)]
            self.check()
            self.check_kept()
        self.store.scripts.clear()
        async with self.machine.mounted() as self.mount:
            await recover_at_mount(self.mount.writers, self.mount.mover)
            self.settle()
            await trio.sleep(3000)
            for path in PATHS:
                if await self.mount.exists(path):
                    assert await self.mount.get(path) == self.store.objects[path].data
        self.check()
        self.check_kept()

    async def live(self, remaining):
        """One mount."""
        async with self.machine.mounted() as self.mount:
            recovery = await recover_at_mount(self.mount.writers, self.mount.mover)
            self.settle()
            while remaining:
                step = remaining.pop(0)
                is_well = self.is_well(step) and not recovery.uploading
                try:
                    await self.do(step)
                except (StsfsError, OSError):
                    assert not is_well, step
                self.check()
            if self.opened is not None:
                with contextlib.suppress(StsfsError):
                    await self.close()
            self.store.scripts.clear()
            await trio.sleep(3000)
            await self.check_shown()

    def is_well(self, step):
        """Whether nothing can be in the way of writing a file: an open sees the newest version."""
        return (
            isinstance(step, Put)
            and "/" not in step.path
            and step.path not in {self.name, *self.surprising}
            and not any(self.store.scripts.values())
            and all(each.state == "conflict" for each in self.mount.writers.pending())
            # What is open for writing here stays the file of its name, whatever S3 has by now.
            and all(each.path != step.path for each in self.mount.writers.files())
        )

    async def check_shown(self):
        """What another client wrote is seen, unless something of ours still waits for its turn."""
        pending = {each.path for each in self.mount.writers.pending() if each.state != "conflict"}
        for path, content in self.theirs.items():
            if path not in pending:
                assert await self.mount.get(path) == content


# A rename that was killed between its copy and its removal is finished by the next mount: from
# then on what was accepted at the old name is at the new one, where a later write may replace it.
@example(history=[Put("a", 500), Dies("delete", False), Rename("a", "b"), Put("b", 500)])
@example(history=[Put("a", 500), Dies("copy", True), Rename("a", "b"), Put("b", 500)])
@example(history=[Put("d/a", 500), Dies("delete", False), Rename("d", "e"), Kill(), Unlink("d/a")])
@example(history=[Put("b", 500), Begin("b"), Fsync(), Kill(), Put("a", 500), Rename("b", "a")])
@given(history=st.lists(steps, min_size=4, max_size=25))
@settings(deadline=None, max_examples=HISTORIES, report_multiple_bugs=False, phases=PHASES)
def test_nothing_is_torn_lost_or_overwritten(history):
    play(history)


def play(history):
    directory = tempfile.mkdtemp(dir=RAM if RAM.is_dir() else None)
    try:
        machine = Machine(MemoryStore(page_keys=3), Path(directory) / "staging")
        world = World(machine)
        trio.run(world.play, history, clock=MockClock(autojump_threshold=0))
    finally:
        shutil.rmtree(directory)
