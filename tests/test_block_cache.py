"""Reads are answered from memory, and fetch exactly what it lacks."""

import logging

import pytest
import trio

from stsfs.cache import block_pool
from stsfs.cache.block_cache import BlockCache, cut
from stsfs.cache.block_pool import BlockPool
from stsfs.errors import StaleVersion, StoreFailure
from tests.fakes import Fault, MemoryStore, pattern

BLOCK_BYTES = 16
A, B = pattern("a", 100), pattern("b", 100)


@pytest.fixture
def store():
    made = MemoryStore()
    made.piece_s = 1.0
    return made


@pytest.fixture
async def cache(store, nursery, monkeypatch):
    monkeypatch.setattr(block_pool, "READ_BYTES_MAX", BLOCK_BYTES)
    made = BlockCache(BlockPool(budget_bytes=48, block_bytes=BLOCK_BYTES), store)
    await nursery.start(made.run)
    return made


@pytest.fixture
async def a(store, cache):
    return cache.enter(store.put("a", A))


@pytest.fixture
async def b(store, cache):
    return cache.enter(store.put("b", B))


async def read(cache, content, start, stop):
    return await cache.read(content, start, stop, (start, stop))


async def settled():
    """All fetches have ended."""
    await trio.sleep(100)


@pytest.mark.parametrize(
    ("span", "pieces"),
    [
        ((10, 18), [(10, 18)]),
        ((10, 22), [(10, 16), (16, 22)]),
        ((0, 16), [(0, 16)]),
        ((3, 40), [(3, 16), (16, 32), (32, 40)]),
    ],
)
def test_spans_are_cut_at_blocks_unless_they_are_small(span, pieces):
    assert list(cut(span, BLOCK_BYTES)) == pieces


async def test_a_second_read_costs_no_request(autojump_clock, cache, store, a):
    assert await read(cache, a, 4, 12) == A[4:12]
    assert await read(cache, a, 6, 11) == A[6:11]
    assert store.reads == [("a", 4, 12, False)]
    assert (cache.counters.misses, cache.counters.hits) == (1, 1)


async def test_only_what_is_missing_is_fetched(autojump_clock, cache, store, a):
    await read(cache, a, 8, 12)
    assert await cache.read(a, 4, 16, (0, 20)) == A[4:16]
    assert sorted(store.reads[1:]) == [("a", 0, 8, False), ("a", 12, 20, False)]


async def test_readers_of_the_same_bytes_share_one_request(autojump_clock, cache, store, a):
    async with trio.open_nursery() as readers:
        for _ in range(20):
            readers.start_soon(read, cache, a, 0, 16)
    assert len(store.reads) == 1


async def test_a_reader_wakes_with_its_own_bytes_not_with_the_whole_range(
    autojump_clock, cache, store, a
):
    store.piece_bytes = 4
    begun_s = trio.current_time()
    await cache.read(a, 0, 4, (0, 16))
    assert trio.current_time() - begun_s == 1


async def test_a_failure_is_repeated_from_memory_for_a_moment_and_then_tried_again(
    autojump_clock, cache, store, a
):
    store.script("read_range", Fault(StoreFailure("cut"), after_bytes=4))
    with pytest.raises(StoreFailure):
        await read(cache, a, 0, 12)
    with pytest.raises(StoreFailure):
        await read(cache, a, 0, 12)
    assert len(store.reads) == 1
    assert await read(cache, a, 0, 4) == A[:4]
    await settled()
    assert await read(cache, a, 0, 12) == A[:12]
    assert store.reads[1:] == [("a", 4, 12, False)]


async def test_an_old_failure_does_not_concern_a_new_read(autojump_clock, cache, store, a):
    store.script("read_range", Fault(StoreFailure("old"), after_bytes=4))
    with pytest.raises(StoreFailure):
        await read(cache, a, 0, 16)
    await settled()
    store.script("read_range", Fault(delay_s=5))
    (fill,), _ = cache.read_ahead(a, 4, 16, 16)
    async with trio.open_nursery() as readers:
        readers.start_soon(read, cache, a, 0, 16)
        await trio.testing.wait_all_tasks_blocked()
        fill.scope.cancel()  # whatever ends that fetch: the reader fetches anew


async def test_a_replaced_version_is_stale_and_what_is_held_stays_readable(
    autojump_clock, cache, store, a
):
    await read(cache, a, 0, 8)
    store.put("a", B)
    with pytest.raises(StaleVersion):
        await read(cache, a, 0, 16)
    assert await read(cache, a, 0, 8) == A[:8]


async def test_a_bug_in_a_fetch_is_a_failure_of_that_read_alone(
    autojump_clock, cache, store, a, caplog
):
    store.script("read_range", Fault(KeyError("surprise")))
    with pytest.raises(StoreFailure, match="bug"):
        await read(cache, a, 0, 16)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    await settled()
    assert await read(cache, a, 0, 16) == A[:16]


async def test_a_fetch_goes_on_when_its_reader_leaves(autojump_clock, cache, store, a):
    with trio.move_on_after(0.5):
        await read(cache, a, 0, 16)
    await settled()
    assert await read(cache, a, 0, 16) == A[:16]
    assert len(store.reads) == 1


async def test_read_ahead_takes_no_memory_that_a_reader_waits_for(
    autojump_clock, cache, store, a, b
):
    held = [await read(cache, b, start, start + 16) for start in (0, 16, 32)]
    async with trio.open_nursery() as readers:
        readers.start_soon(read, cache, b, 48, 64)
        await trio.testing.wait_all_tasks_blocked()
        held.pop()
        assert cache.read_ahead(a, 0, 64, 16) == ([], 0)
        held.clear()


async def test_read_ahead_nobody_waits_for_ends_with_its_handle(autojump_clock, cache, store, a):
    store.script("read_range", Fault(delay_s=10), Fault(delay_s=10))
    fills, until = cache.read_ahead(a, 0, 32, 16)
    assert until == 32
    async with trio.open_nursery() as readers:
        readers.start_soon(read, cache, a, 16, 20)
        await trio.testing.wait_all_tasks_blocked()
        for fill in fills:
            fill.abandon()
    assert store.fetched_bytes == 16
    assert a.cover(0, 32)[1] == [(0, 16)]


async def test_confirm_costs_no_request_of_its_own_where_the_front_is_missing(
    autojump_clock, cache, store, a
):
    await cache.confirm(a, 16)
    assert store.calls == {"read_range": 1}
    await settled()
    await cache.confirm(a, 16)
    assert store.calls == {"read_range": 1, "confirm": 1}


async def test_confirm_returns_before_the_bytes_and_refuses_what_was_replaced(
    autojump_clock, cache, store, a
):
    begun_s = trio.current_time()
    await cache.confirm(a, 16)
    assert trio.current_time() == begun_s
    store.put("a", B)
    await settled()
    with pytest.raises(StaleVersion):
        await cache.confirm(a, 16)


async def test_an_object_put_back_to_its_old_bytes_is_no_longer_stale(
    autojump_clock, cache, store, a
):
    store.put("a", B)
    with pytest.raises(StaleVersion):
        await read(cache, a, 0, 8)
    store.put("a", A)
    await cache.confirm(a, 8)
    assert await read(cache, a, 16, 24) == A[16:24]
    await settled()
    await read(cache, a, 0, 16)
    store.put("a", B)
    with pytest.raises(StaleVersion):
        await read(cache, a, 32, 40)
    store.put("a", A)
    await cache.confirm(a, 16)  # by a request of its own: the front is here
    assert await read(cache, a, 32, 40) == A[32:40]


async def test_a_version_found_stale_after_its_confirmation_stays_stale(
    autojump_clock, cache, store, a
):
    await read(cache, a, 0, 8)
    store.script("confirm", Fault(delay_s=0.7))
    store.script("read_range", Fault(StaleVersion("Replaced."), delay_s=0.5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.confirm, a, 8)
        with pytest.raises(StaleVersion):
            await read(cache, a, 32, 40)
    with pytest.raises(StaleVersion):
        await read(cache, a, 48, 56)


async def test_what_is_held_of_a_version_is_counted_and_can_be_dropped(
    autojump_clock, cache, store, a, b
):
    assert a.held_bytes == 0
    view = await read(cache, a, 0, 30)
    kept = await read(cache, a, 40, 44)
    await read(cache, b, 0, 4)
    assert cache.contents[a.version].held_bytes == 34
    a.forget()
    assert (a.held_bytes, b.held_bytes) == (0, 4)
    assert (bytes(view), bytes(kept)) == (A[:30], A[40:44])  # a reply still holds these
    assert await read(cache, a, 0, 4) == A[:4]
    assert len(store.reads) == 4


async def test_what_is_arriving_is_not_dropped(autojump_clock, cache, store, a):
    store.piece_bytes = 4
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, cache, a, 0, 16)
        await trio.sleep(2.5)
        assert 0 < a.held_bytes < 16
        a.forget()
    assert await read(cache, a, 0, 16) == A[:16]
    assert len(store.reads) == 1


async def test_small_runs_share_a_block(autojump_clock, cache, store, a):
    for start in (0, 20, 40, 60):
        assert await read(cache, a, start, start + 4) == A[start : start + 4]
    assert cache.pool.blocks_made == 1


async def test_a_block_is_not_recycled_between_two_runs_of_one_range(
    autojump_clock, cache, store, a, b
):
    """The second run replaces the shared block of the first; a waiter must not be given it."""
    await read(cache, a, 0, 7)
    held = [await read(cache, a, start, start + 16) for start in (32, 48)]
    store.script("read_range", Fault(delay_s=10))
    views = {}

    async def keep(content, start, stop):
        views[start, stop] = await read(cache, content, start, stop)

    async with trio.open_nursery() as readers:
        readers.start_soon(keep, a, 10, 22)
        await trio.testing.wait_all_tasks_blocked()
        readers.start_soon(keep, b, 16, 32)
        await trio.testing.wait_all_tasks_blocked()
        held.clear()
    await settled()
    assert views[10, 22] == A[10:22]
    assert views[16, 32] == B[16:32]


async def test_contents_nobody_uses_and_that_hold_nothing_are_forgotten(
    autojump_clock, cache, store
):
    for number in range(5000):
        content = cache.enter(store.put(f"k{number}", A))
        await trio.lowlevel.checkpoint()
        cache.leave(content)
    assert len(cache._contents) < 2500


async def test_what_is_wanted_is_on_its_way_before_anybody_waits(autojump_clock, cache, store, a):
    assert not cache.want(a, 4, 12, (0, 16))
    assert not cache.want(a, 4, 12, (0, 16))
    await settled()
    assert store.reads == [("a", 0, 16, False)]
    assert cache.want(a, 4, 12, (0, 16))


async def test_what_failed_a_moment_ago_is_not_begun_by_a_wish(autojump_clock, cache, store, a):
    store.script("read_range", Fault(StoreFailure("503")))
    with pytest.raises(StoreFailure):
        await read(cache, a, 0, 16)
    assert not cache.want(a, 0, 16, (0, 16))
    await trio.testing.wait_all_tasks_blocked()
    assert len(store.reads) == 1


@pytest.mark.parametrize(
    ("start", "stop", "fetched"), [(0, 32, (0, 16)), (16, 40, (32, 48))], ids=["behind", "before"]
)
async def test_a_gap_that_only_touches_what_is_read_is_not_fetched(
    autojump_clock, cache, store, a, start, stop, fetched
):
    await read(cache, a, 16, 32)
    assert await cache.read(a, start, stop, (0, 48)) == A[start:stop]
    assert store.reads[1:] == [("a", *fetched, False)]


async def test_blocks_that_a_stream_has_left_behind_go_first(autojump_clock, cache, store, a, b):
    for start in (0, 16, 32):
        await read(cache, a, start, start + 16)
    cache.spend(a, 16, 32)
    await read(cache, b, 0, 16)
    before = len(store.reads)
    await read(cache, a, 0, 16)
    await read(cache, a, 32, 48)
    assert len(store.reads) == before


async def test_a_front_that_cannot_be_fetched_is_not_asked_about_again(
    autojump_clock, cache, store, a
):
    store.script("read_range", Fault(StoreFailure("503")))
    with pytest.raises(StoreFailure):
        await cache.confirm(a, 16)
    assert store.calls["confirm"] == 0


async def test_several_small_gaps_take_as_many_blocks_as_they_need(autojump_clock, cache, store, a):
    for start in (0, 16, 26):
        await read(cache, a, start, start + 4)
    assert await read(cache, a, 10, 36) == A[10:36]
    assert sorted(store.reads[3:]) == [("a", at, at + 6, False) for at in (10, 20, 30)]


@pytest.mark.parametrize("gap_bytes", [4, 8])
async def test_small_gaps_wait_for_no_more_memory_than_they_take(
    autojump_clock, cache, store, a, b, gap_bytes
):
    for number in range(4):
        start = number * (4 + gap_bytes)
        await read(cache, a, start, start + 4)
    held = await read(cache, b, 0, 16)
    with trio.fail_after(1000):
        assert await read(cache, a, 4, 24) == A[4:24]
    assert held == B[:16]
