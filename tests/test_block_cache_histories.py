"""Whatever readers, read-ahead, cancellations, faults and other writers do, bytes are right.

Blocks, files and reads are tiny, and there are only three to six blocks, so that every block is
recycled, or given back to the system, all the time.
"""

from collections import Counter
from dataclasses import dataclass

import pytest
import trio
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from stsfs.cache import block_pool, content
from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.errors import StaleVersion, StoreFailure
from tests.fakes import Fault, MemoryStore, pattern

BLOCK_BYTES = 16
READ_MAX = 16
FILES = {"a": 16, "b": 61, "c": 100}
GRAIN = 4


@dataclass(frozen=True)
class Read:
    at_s: int
    key: str
    start: int
    length: int
    extra: int = 0
    """Bytes beyond the read that its fetch asks for."""
    hold_s: int = 0
    cancel_s: int | None = None


@dataclass(frozen=True)
class Ahead:
    at_s: int
    key: str
    start: int
    length: int
    range_bytes: int
    abandon_s: int | None = None


@dataclass(frozen=True)
class Want:
    at_s: int
    key: str
    start: int
    length: int


@dataclass(frozen=True)
class Confirm:
    at_s: int
    key: str


@dataclass(frozen=True)
class Spend:
    at_s: int
    key: str
    stop: int


@dataclass(frozen=True)
class Resize:
    at_s: int
    blocks: int


@dataclass(frozen=True)
class Replace:
    at_s: int
    key: str


times = st.integers(0, 4)
keys = st.sampled_from(sorted(FILES))
offsets = st.integers(0, 99)
holds = st.integers(0, 12)
steps = st.one_of(
    st.builds(
        Read, times, keys, offsets, st.integers(1, READ_MAX), st.integers(0, 20), holds,
        st.none() | st.integers(0, 6),
    ),
    st.builds(Read, times, keys, offsets, st.integers(4, READ_MAX), hold_s=holds),
    st.builds(Read, times, keys, offsets, st.integers(4, READ_MAX), hold_s=holds),
    st.builds(Read, times, keys, offsets, st.integers(4, READ_MAX), hold_s=holds),
    st.builds(
        Ahead, times, keys, offsets, st.integers(1, 48), st.integers(8, 32),
        st.none() | st.integers(0, 6),
    ),
    st.builds(Want, times, keys, offsets, st.integers(1, READ_MAX)),
    st.builds(Confirm, times, keys),
    st.builds(Spend, times, keys, offsets),
    st.builds(Replace, times, keys),
    st.builds(Resize, times, st.integers(0, 6)),
)  # fmt: skip
faults = (
    st.none()
    | st.builds(
        lambda after, delay: Fault(StoreFailure("cut"), after, delay),
        st.integers(0, 20),
        st.integers(0, 3),
    )
    | st.builds(lambda delay: Fault(delay_s=delay), st.integers(0, 12))
)


class House:
    """One cache over one store, and what a test has to know to judge it."""

    def __init__(self, scripted, piece_bytes):
        self.store = MemoryStore()
        self.store.script("read_range", *scripted)
        self.store.piece_bytes, self.store.piece_s = piece_bytes, 0.25
        self.pool = BlockPool(budget_bytes=3 * BLOCK_BYTES, block_bytes=BLOCK_BYTES)
        assert self.pool.blocks_max == 3
        self.cache = BlockCache(self.pool, self.store)
        self.puts = Counter()
        self.data = {}
        self.current = {}
        self.replaced_at = {}
        self.received, self.dropped = Counter(), Counter()
        self.open_contents = []
        for key in FILES:
            self.replace(key)

    def replace(self, key):
        self.puts[key] += 1
        data = pattern((key, self.puts[key]), FILES[key])
        old = self.current.get(key)
        if old is not None:
            self.replaced_at[old] = trio.current_time()
        version = self.current[key] = self.store.put(key, data)
        self.data[version] = data

    def enter(self, key):
        version = self.current[key]
        opened = self.cache.enter(version)
        self.open_contents.append(opened)
        return version, opened

    async def play(self, step):
        await trio.sleep(step.at_s)
        match step:
            case Read():
                await self.read(step)
            case Ahead(_, key, start, length, range_bytes, abandon_s):
                _, opened = self.enter(key)
                stop = min(start + length, FILES[key])
                if start >= stop:
                    return
                fills, until = self.cache.read_ahead(opened, start, stop, range_bytes)
                assert start <= until <= stop
                if abandon_s is not None:
                    await trio.sleep(abandon_s)
                    for fill in fills:
                        fill.abandon()
            case Want(_, key, start, length):
                _, opened = self.enter(key)
                stop = min(start + length, FILES[key])
                if start < stop:
                    self.cache.want(opened, start, stop, (start, stop))
            case Confirm(_, key):
                version, opened = self.enter(key)
                try:
                    await self.cache.confirm(opened, min(8, FILES[key]))
                except StaleVersion:
                    assert version in self.replaced_at
                except StoreFailure:
                    pass
            case Spend(_, key, stop):
                _, opened = self.enter(key)
                self.cache.spend(opened, 0, min(stop, FILES[key]))
            case Replace(_, key):
                self.replace(key)
            case Resize(_, blocks):
                self.pool.resize(blocks * BLOCK_BYTES)

    async def read(self, step):
        version, opened = self.enter(step.key)
        size = FILES[step.key]
        start, stop = step.start, min(step.start + step.length, size)
        if start >= stop:
            return
        last = min(size, stop + step.extra + -(stop + step.extra) % GRAIN)
        fetch = (start - start % GRAIN, last)
        cancel_s = float("inf") if step.cancel_s is None else step.cancel_s
        with trio.move_on_after(cancel_s):
            try:
                view = await self.cache.read(opened, start, stop, fetch)
            except StaleVersion:
                assert version in self.replaced_at
                return
            except StoreFailure:
                return
            expected = self.data[version][start:stop]
            assert view == expected
            await trio.sleep(step.hold_s)
            assert view == expected, "a view changed while it was held"

    def audit(self):
        """Every block in one place, nothing pinned, waited for, or fetched while it was held."""
        pool, cache = self.pool, self.cache
        assert not pool._waiters
        assert not pool._lent
        free, spent, idle = list(pool._free), list(pool._spent), list(pool._idle)
        opened = [cache._open] if cache._open is not None else []
        assert all(not block.pins for block in (*free, *spent, *idle))
        assert all(block.pins == 1 for block in opened), "someone still pins the open block"
        places = Counter(id(block) for block in (*free, *spent, *idle, *opened))
        assert set(places.values()) <= {1}
        assert len(places) == pool.blocks_made <= pool.blocks_max
        assert all(not block.runs and not block.used_bytes for block in free)
        assert all(block.runs for block in (*spent, *idle))
        resident = Counter()
        for version, held in cache._contents.items():
            for run in held._runs:
                assert run.arrived_stop == run.stop > run.start
                assert run in run.block.runs
                begin = run.place
                memory = run.block.memory[begin : begin + run.stop - run.start]
                assert memory == self.data[version][run.start : run.stop]
                resident.update((version, offset) for offset in range(run.start, run.stop))
        assert set(resident.values()) <= {1}
        assert self.received - self.dropped == resident, "bytes fetched that were still held"
        for held in self.open_contents:
            cache.leave(held)
            assert held.users >= 0


async def play(history, scripted, piece_bytes, monkeypatch):
    house = House(scripted, piece_bytes)

    def note(count):
        def advance(run, count_bytes, original=content.Run.advance):
            at = run.arrived_stop
            original(run, count_bytes)
            count.update((run.content.version, o) for o in range(at, at + count_bytes))

        return advance

    def drop(run, original=content.Run.drop):
        house.dropped.update((run.content.version, o) for o in range(run.start, run.arrived_stop))
        original(run)

    monkeypatch.setattr(content.Run, "advance", note(house.received))
    monkeypatch.setattr(content.Run, "drop", drop)
    async with trio.open_nursery() as background:
        await background.start(house.cache.run)
        with trio.fail_after(1000):  # of the mock clock: a deadlock is a failure
            async with trio.open_nursery() as players:
                for step in history:
                    players.start_soon(house.play, step)
            while len(house.cache._fetches._nursery.child_tasks):
                await trio.sleep(1)
        house.audit()
        background.cancel_scope.cancel()


@given(
    history=st.lists(steps, min_size=4, max_size=24),
    scripted=st.lists(faults, max_size=10),
    piece_bytes=st.integers(1, 16),
)
@settings(
    deadline=None,
    max_examples=400,
    # Shrinking takes minutes: thousands of virtual seconds for each attempt that still fails.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
def test_every_byte_is_the_versions_and_no_block_is_lost(history, scripted, piece_bytes):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(block_pool, "READ_BYTES_MAX", READ_MAX)
        trio.run(
            play, history, scripted, piece_bytes, monkeypatch,
            clock=MockClock(autojump_threshold=0),
        )  # fmt: skip
