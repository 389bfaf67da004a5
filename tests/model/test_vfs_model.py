"""Whatever others write meanwhile, an open sees the newest version and a handle sees only one."""

from dataclasses import dataclass

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.errors import StaleVersion, StoreFailure
from stsfs.vfs.nodes import ROOT_INODE, Site
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs
from tests.fakes import Fault, MemoryStore, pattern

BLOCK_BYTES = 1 << 16
TTL_S = 30
CALLER = 4711


@dataclass(frozen=True)
class Put:
    name: str
    size_bytes: int


@dataclass(frozen=True)
class Delete:
    name: str


@dataclass(frozen=True)
class Open:
    name: str


@dataclass(frozen=True)
class Read:
    which: int
    offset: int
    length: int


@dataclass(frozen=True)
class Close:
    which: int


@dataclass(frozen=True)
class TimePasses:
    seconds: int


@dataclass(frozen=True)
class NextReadIsCut:
    after_bytes: int


names = st.sampled_from(["a", "b"])
sizes = st.sampled_from([0, 1, 5000, 200_000, 900_000])
offsets = st.integers(0, 900_000)
steps = st.one_of(
    st.builds(Put, names, sizes),
    st.builds(Delete, names),
    st.builds(Open, names),
    st.builds(Open, names),
    st.builds(Read, st.integers(0, 5), offsets, st.sampled_from([1, 4096, 131_072])),
    st.builds(Read, st.integers(0, 5), st.just(0), st.sampled_from([4096, 131_072])),
    st.builds(Close, st.integers(0, 5)),
    st.builds(TimePasses, st.sampled_from([1, 40])),
    st.builds(NextReadIsCut, st.integers(0, 3000)),
)


@dataclass
class Handle:
    """What the model knows of an open file."""

    number: int
    name: str
    data: bytes
    replaced: bool = False


class World:
    """The vfs under test beside the plain facts."""

    def __init__(self):
        self.store = MemoryStore()
        self.now = {}
        self.handles = []
        self.puts = 0
        self.cut = False
        self.tree = Tree(Site(1, self.store, ""), metadata_ttl_s=TTL_S)
        pool = BlockPool(budget_bytes=24 * BLOCK_BYTES, block_bytes=BLOCK_BYTES)
        self.cache = BlockCache(pool, self.store)
        self.vfs = Vfs(self.tree, self.cache)

    def changed(self, name):
        for handle in self.handles:
            if handle.name == name and self.now.get(name) != handle.data:
                handle.replaced = True

    async def put(self, name, size_bytes):
        self.puts += 1
        self.now[name] = pattern((name, self.puts), size_bytes)
        self.store.put(name, self.now[name])
        self.changed(name)

    async def delete(self, name):
        self.store.delete(name)
        self.now.pop(name, None)
        self.changed(name)

    async def open(self, name):
        """open(2) as the kernel does it: look up, open, and both once more after ESTALE."""
        for attempt in range(2):
            try:
                node, _ = await self.vfs.lookup(ROOT_INODE, name.encode(), CALLER)
            except StoreFailure:  # of the request that confirms a successor
                assert self.cut
                return
            if node is None:
                # A name may appear up to a TTL late, but one that an open asks for again is gone.
                assert name not in self.now or attempt == 0
                return
            try:
                number = await self.vfs.open(node.inode, 0, CALLER)
            except StaleVersion:
                assert attempt == 0, "the second open of one open(2) must not be stale"
                continue
            except StoreFailure:
                assert self.cut
                return
            assert node.version.size_bytes == len(self.now[name])
            self.handles.append(Handle(number, name, self.now[name]))
            return

    async def read(self, which, offset, length):
        if not self.handles:
            return
        handle = self.handles[which % len(self.handles)]
        expected = handle.data[offset : offset + length]
        try:
            view = await self.vfs.read(handle.number, offset, length)
        except StaleVersion:
            assert handle.replaced
        except StoreFailure:
            assert self.cut
        else:
            assert bytes(view) == expected

    async def close(self, which):
        if self.handles:
            self.vfs.release(self.handles.pop(which % len(self.handles)).number)


@given(history=st.lists(steps, max_size=25))
@example(history=[Put("a", 5000), Open("a"), Put("a", 5000), Read(0, 0, 4096), Open("a")])
@example(history=[Put("a", 900_000), Open("a"), Delete("a"), Read(0, 800_000, 4096), Open("a")])
@example(history=[Put("a", 5000), NextReadIsCut(0), Open("a"), Read(0, 0, 4096)])
@example(history=[Put("a", 1), Open("a"), Put("a", 5000), Open("a"), NextReadIsCut(0), Open("a")])
@settings(deadline=None, max_examples=300)
def test_every_history_reads_like_the_model(history):
    trio.run(play, history, clock=MockClock(autojump_threshold=0))


async def play(history):
    world = World()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.cache.run)
        await nursery.start(world.tree.run)
        for step in history:
            match step:
                case Put(name, size_bytes):
                    await world.put(name, size_bytes)
                case Delete(name):
                    await world.delete(name)
                case Open(name):
                    await world.open(name)
                case Read(which, offset, length):
                    await world.read(which, offset, length)
                case Close(which):
                    await world.close(which)
                case TimePasses(seconds):
                    await trio.sleep(seconds)
                case NextReadIsCut(after_bytes):
                    world.store.script(
                        "read_range", Fault(StoreFailure("cut"), after_bytes=after_bytes)
                    )
                    world.cut = True
            await trio.testing.wait_all_tasks_blocked()
        while world.handles:
            await world.close(0)
        await trio.testing.wait_all_tasks_blocked()
        # The block that small runs share stays pinned; nothing else may.
        assert world.cache.pool.pinned_count <= 1
        assert world.vfs.open_files == 0
        nursery.cancel_scope.cancel()


def test_the_model_itself_notices_a_foreign_byte():
    world = World()
    world.handles.append(Handle(0, "a", b"right"))

    class Wrong:
        async def read(self, *where):
            return memoryview(b"wrong")

    world.vfs = Wrong()
    with pytest.raises(AssertionError):
        trio.run(world.read, 0, 0, 5)
