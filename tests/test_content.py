"""Runs and gaps of one version, against a plain array of bytes; arrivals, cuts and failures."""

from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from stsfs.cache.block_cache import BlockCache, cut
from stsfs.cache.block_pool import BlockPool
from stsfs.cache.content import FAILURE_REMEMBERED_S, Content, Run
from stsfs.cache.fill import Fill
from stsfs.errors import StoreFailure
from stsfs.store.object_store import ObjectVersion
from tests.fakes import MemoryStore, pattern

SIZE_BYTES = 60
spans = st.tuples(st.integers(0, SIZE_BYTES - 1), st.integers(1, 20)).map(
    lambda span: (span[0], min(SIZE_BYTES, span[0] + span[1]))
)


@pytest.fixture
def pool():
    return BlockPool(budget_bytes=0, block_bytes=1 << 20)


@pytest.fixture
def content():
    return Content(ObjectVersion(1, "x", '"e"', SIZE_BYTES))


def add(content, block, start, stop):
    run = Run(content, start, stop, block)
    content.add(run)
    return run


@given(wanted=st.lists(spans, max_size=12), asked=spans, dropped=st.sets(st.integers(0, 40)))
def test_runs_and_gaps_are_those_of_a_plain_array(wanted, asked, dropped):
    content = Content(ObjectVersion(1, "x", '"e"', SIZE_BYTES))
    (block,) = BlockPool(budget_bytes=0, block_bytes=1 << 20).take_nowait(1)
    runs = [add(content, block, *gap) for span in wanted for gap in content.cover(*span)[1]]
    for index, run in enumerate(runs):
        if index in dropped:
            run.drop()
    held = [None] * SIZE_BYTES
    for index, run in enumerate(runs):
        if index not in dropped:
            assert held[run.start : run.stop] == [None] * (run.stop - run.start)
            held[run.start : run.stop] = [run] * (run.stop - run.start)
    start, stop = asked
    found, gaps = content.cover(start, stop)
    assert found == list(dict.fromkeys(run for run in held[start:stop] if run is not None))
    missing = [offset for gap in gaps for offset in range(*gap)]
    assert missing == [offset for offset in range(start, stop) if held[offset] is None]
    assert all(one[1] < other[0] for one, other in pairwise(gaps))
    until = next((at for at in range(start, SIZE_BYTES) if held[at] is None), SIZE_BYTES)
    assert content.held_until(start) == until
    assert len(content) == len(runs) - len([at for at in dropped if at < len(runs)])


@given(st.integers(0, 100), st.integers(1, 100), st.integers(1, 40))
def test_a_span_is_cut_into_pieces_that_lie_end_to_end_within_blocks(start, length, piece_bytes):
    span = (start, start + length)
    pieces = list(cut(span, piece_bytes))
    assert [at for piece in pieces for at in range(*piece)] == list(range(*span))
    if len(pieces) > 1 or length > piece_bytes // 2:
        assert all(one // piece_bytes == (other - 1) // piece_bytes for one, other in pieces)


def test_runs_in_one_block_have_places_of_their_own(pool, content):
    (block,) = pool.take_nowait(1)
    for run, data in (
        (add(content, block, 20, 30), b"a" * 10),
        (add(content, block, 0, 5), b"b" * 5),
    ):
        run.memory()[:2] = data[:2]
        run.advance(2)
        run.memory()[:] = data[2:]
        run.advance(len(data) - 2)
    assert bytes(block.memory[:15]) == b"a" * 10 + b"b" * 5


async def test_a_reader_is_woken_by_its_last_byte_not_by_the_runs(pool, content):
    (block,) = pool.take_nowait(1)
    run = add(content, block, 10, 20)
    woken = []

    async def wait(stop):
        await run.arrival(stop)
        woken.append(stop)

    async with trio.open_nursery() as nursery:
        for stop in (20, 12, 15):
            nursery.start_soon(wait, stop)
        await wait_all_tasks_blocked()
        for count, expected in ((1, []), (2, [12]), (2, [12, 15]), (5, [12, 15, 20])):
            run.advance(count)
            await wait_all_tasks_blocked()
            assert woken == expected
    assert not run.awaited
    await run.arrival(20)


async def test_a_cut_wakes_all_and_keeps_the_front(pool, content):
    (block,) = pool.take_nowait(1)
    run, empty = add(content, block, 10, 20), add(content, block, 30, 40)
    run.advance(4)
    error = StoreFailure("cut")
    async with trio.open_nursery() as nursery:
        for each, stop in ((run, 16), (run, 20), (empty, 31)):
            nursery.start_soon(each.arrival, stop)
        await wait_all_tasks_blocked()
        run.cut(error)
        empty.cut(error)
    assert (run.stop, run.error, empty.error) == (14, error, error)
    assert content.cover(0, 40) == ([run], [(0, 10), (14, 40)])
    with trio.fail_after(1):
        await run.arrival(20)  # never comes: no reason to wait


async def test_a_waiter_that_is_cancelled_is_not_waited_for(pool, content):
    (block,) = pool.take_nowait(1)
    run = add(content, block, 0, 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.arrival, 5)
        await wait_all_tasks_blocked()
        assert run.awaited
        nursery.cancel_scope.cancel()
    assert not run.awaited


async def test_a_failure_is_remembered_for_its_span_and_for_a_moment(content, autojump_clock):
    one, two = StoreFailure("one"), StoreFailure("two")
    content.fail(10, 20, one)
    await trio.sleep(FAILURE_REMEMBERED_S / 2)
    content.fail(40, 50, two)
    for span, expected in (((0, 10), None), ((0, 11), one), ((19, 45), one), ((20, 40), None)):
        assert content.failure(*span) is expected
    await trio.sleep(FAILURE_REMEMBERED_S / 2)
    assert content.failure(0, 60) is two
    await trio.sleep(FAILURE_REMEMBERED_S / 2)
    assert content.failure(0, 60) is None


class Range:
    """A fill over three runs in two blocks, each run holding one pin."""

    def __init__(self, pool, content):
        self.blocks = pool.take_nowait(2)
        first, second = self.blocks
        places = ((0, 10, first), (10, 16, second), (16, 20, second))
        self.runs = [add(content, block, start, stop) for start, stop, block in places]
        second.pin()
        self.fill = Fill(self.runs)

    def receive(self, data):
        while data:
            memory = self.fill.buffer()
            count = min(len(memory), len(data), 3)
            memory[:count] = data[:count]
            self.fill.received(count)
            data = data[count:]


def test_a_fill_goes_through_its_runs_and_unpins_each_with_its_last_byte(pool, content):
    made = Range(pool, content)
    fill, (first, second) = made.fill, made.blocks
    assert (fill.start, fill.stop, fill.missing_from) == (0, 20, 0)
    for data, pins, missing_from in (
        (b"012345678", (1, 2), 9), (b"9", (0, 2), 10), (b"abcdef", (0, 1), 16), (b"ghi", (0, 1), 19)
    ):  # fmt: skip
        made.receive(data)
        assert (first.pins, second.pins) == pins
        assert (fill.missing_from, fill.ended) == (missing_from, False)
    made.receive(b"j")
    assert (first.pins, second.pins, fill.missing_from, fill.ended) == (0, 0, 20, True)
    assert bytes(first.memory[:10]) + bytes(second.memory[:10]) == b"0123456789abcdefghij"
    assert not fill.settled.is_set()
    fill.end()
    assert fill.settled.is_set()


@pytest.mark.parametrize("arrived_bytes", [0, 4, 10, 13, 16, 19])
def test_a_fill_that_ends_early_keeps_what_arrived_and_pins_nothing(pool, content, arrived_bytes):
    made = Range(pool, content)
    made.fill.confirmed()
    made.receive(b"x" * arrived_bytes)
    made.fill.end(StoreFailure("cut"))
    assert pool.pinned_count == 0
    assert content.cover(0, 20)[1] == [(arrived_bytes, 20)]
    assert made.fill.was_confirmed
    assert made.fill.ended


async def test_a_fill_is_abandoned_only_while_nobody_waits_for_it(pool, content):
    fill = Range(pool, content).fill
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill.runs[2].arrival, 18)
        await wait_all_tasks_blocked()
        fill.abandon()
        assert not fill.scope.cancel_called
        nursery.cancel_scope.cancel()
    fill.abandon()
    assert fill.scope.cancel_called


async def test_contents_that_hold_nothing_are_forgotten_and_others_kept(nursery):
    store = MemoryStore()
    cache = BlockCache(BlockPool(budget_bytes=8 << 20, block_bytes=1 << 20), store)
    await nursery.start(cache.run)
    held = cache.enter(store.put("held", pattern("held", 100)))
    await cache.read(held, 0, 100, (0, 100))
    cache.leave(held)
    open_file = cache.enter(store.put("open", b"0123456789"))
    for number in range(5000):
        cache.leave(cache.enter(store.put(f"{number}", b"x")))
    assert len(cache._contents) <= 1001
    assert cache.enter(held.version) is held
    assert cache.enter(open_file.version) is open_file
