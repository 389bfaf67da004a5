"""What reading an open file asks of the store."""

import itertools
import random

import pytest
import trio

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.cache.content import GRAIN_BYTES
from stsfs.errors import StaleVersion, StoreFailure
from stsfs.vfs.reader import ACTIVE_S, CachedReader, DirectReader, ReadAheadBudget
from stsfs.vfs.streams import FRONT_BYTES, RAMP_BYTES, Stream
from tests.fakes import Fault, MemoryStore, pattern

KIB = 1024
MIB = 1024 * KIB
READ = 128 * KIB
BLOCK_BYTES = MIB
LARGE = pattern("large", 24 * MIB)


@pytest.fixture
def store():
    made = MemoryStore()
    made.piece_s = 0.01
    return made


@pytest.fixture
async def cache(store, nursery):
    made = BlockCache(BlockPool(budget_bytes=64 * MIB, block_bytes=BLOCK_BYTES), store)
    await nursery.start(made.run)
    return made


@pytest.fixture
def budget(cache):
    return ReadAheadBudget(cache.pool)


@pytest.fixture
def reader(store, cache, budget):
    return CachedReader(cache, store.put("large", LARGE), budget)


async def stream_through(reader, stop, read_bytes=READ):
    for offset in range(0, stop, read_bytes):
        assert bytes(await reader.read(offset, read_bytes)) == LARGE[offset : offset + read_bytes]


async def test_a_cold_stream_fetches_each_byte_once_in_few_requests(store, reader, autojump_clock):
    await stream_through(reader, len(LARGE))
    assert store.fetched_bytes == len(LARGE)
    asked = sorted((start, stop) for _, start, stop, _ in store.reads)
    assert asked[0][0] == 0
    assert asked[-1][1] == len(LARGE)
    assert all(first[1] == second[0] for first, second in itertools.pairwise(asked))
    assert len(asked) <= 40
    reader.close()


async def test_a_stream_that_is_slow_to_read_finds_its_bytes(cache, reader, autojump_clock):
    for offset in range(0, 8 * MIB, READ):
        await reader.read(offset, READ)
        await trio.sleep(1)
    # The front is waited for, and the first read that shows that this is a stream.
    assert cache.counters.misses <= 4
    assert reader._pattern.streams[0].window_bytes <= 16 * READ
    reader.close()


async def test_a_stream_that_waits_for_its_bytes_opens_its_window(reader, autojump_clock):
    await stream_through(reader, 8 * MIB)
    assert reader._pattern.streams[0].window_bytes >= 2 * MIB
    reader.close()


async def test_a_long_stream_recycles_its_own_blocks_before_those_of_others(
    store, cache, budget, autojump_clock
):
    kept = CachedReader(cache, store.put("kept", LARGE[: 2 * MIB]), budget)
    for offset in range(0, 2 * MIB, MIB):
        await kept.read(offset, MIB)
    for number in range(4):
        version = store.put(f"long{number}", LARGE)
        stream = CachedReader(cache, version, budget)
        await stream_through(stream, len(LARGE))
        stream.close()
    assert store.fetched_bytes > cache.pool.blocks_max * BLOCK_BYTES
    calls = store.calls["read_range"]
    assert bytes(await kept.read(MIB, MIB)) == LARGE[MIB : 2 * MIB]
    assert store.calls["read_range"] == calls
    kept.close()


async def test_random_reads_fetch_what_they_ask_for_rounded_to_grains(
    store, reader, autojump_clock
):
    places = random.Random(7)
    wanted = set()
    for _ in range(30):
        offset = places.randrange(MIB, len(LARGE) - 4 * KIB)
        assert bytes(await reader.read(offset, 4 * KIB)) == LARGE[offset : offset + 4 * KIB]
        wanted |= set(range(offset // GRAIN_BYTES, (offset + 4 * KIB - 1) // GRAIN_BYTES + 1))
    assert store.fetched_bytes == len(wanted) * GRAIN_BYTES
    reader.close()


async def test_random_bursts_cost_one_request_each_once_their_length_is_known(
    store, reader, autojump_clock
):
    for number, start in enumerate((20, 4, 12, 8, 16, 2, 18)):
        for offset in (start * MIB, start * MIB + READ):
            await reader.read(offset, READ)
        if number == 3:
            known = len(store.reads)
    assert len(store.reads) - known == 3
    assert store.reads[-1][1:3] == (18 * MIB, 18 * MIB + 2 * READ)
    reader.close()


async def test_a_small_file_is_one_request_whatever_is_read_first(
    store, cache, budget, autojump_clock
):
    version = store.put("small", LARGE[: 300 * KIB])
    reader = CachedReader(cache, version, budget)
    for offset in (200 * KIB, 0, 100 * KIB):
        view = await reader.read(offset, 4 * KIB)
        assert bytes(view) == LARGE[offset : offset + 4 * KIB]
    assert store.reads == [("small", 0, 300 * KIB, False)]
    reader.close()


async def test_opening_costs_no_request_beside_the_first_range(store, reader, autojump_clock):
    await reader.confirm()
    await reader.read(0, 4 * KIB)
    assert store.reads == [("large", 0, FRONT_BYTES, False)]
    assert store.calls["confirm"] == 0
    await reader.confirm()  # the front is held now, so there is nothing to fetch
    assert store.calls == {"read_range": 1, "confirm": 1}
    reader.close()


async def test_an_empty_file_is_confirmed_by_a_request_of_its_own(
    store, cache, budget, autojump_clock
):
    reader = CachedReader(cache, store.put("empty"), budget)
    await reader.confirm()
    assert bytes(await reader.read(0, READ)) == b""
    assert store.calls == {"confirm": 1}
    reader.close()


async def test_a_version_that_is_gone_is_not_confirmed(store, reader, autojump_clock):
    store.put("large", b"new")
    with pytest.raises(StaleVersion):
        await reader.confirm()
    reader.close()


async def test_reads_end_where_the_file_ends(store, reader, autojump_clock):
    assert bytes(await reader.read(len(LARGE) - 10, READ)) == LARGE[-10:]
    calls = store.calls["read_range"]
    for offset in (len(LARGE), len(LARGE) + 5):
        assert bytes(await reader.read(offset, READ)) == b""
    assert store.calls["read_range"] == calls
    reader.close()


async def test_closing_ends_read_ahead_that_nobody_waits_for(store, reader, autojump_clock):
    store.piece_s = 1
    store.piece_bytes = 64 * KIB
    await stream_through(reader, MIB)
    assert any(ahead for *_, ahead in store.reads)
    reader.close()
    await trio.testing.wait_all_tasks_blocked()
    before = store.fetched_bytes
    await trio.sleep(1000)
    assert store.fetched_bytes - before <= store.piece_bytes  # the first bytes were under way
    assert store.fetched_bytes < 3 * MIB


async def test_closing_leaves_read_ahead_that_another_handle_waits_for(
    store, cache, budget, reader, autojump_clock
):
    store.piece_s = 1
    store.piece_bytes = 64 * KIB
    await stream_through(reader, 2 * MIB)
    end = max(stop for _, _, stop, ahead in store.reads if ahead)  # the last bytes to arrive
    other = CachedReader(cache, store.put("large", LARGE), budget)
    views = []

    async def wait():
        views.append(await other.read(end - 4 * KIB, 4 * KIB))

    calls = store.calls["read_range"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        reader.close()
    assert bytes(views[0]) == LARGE[end - 4 * KIB : end]
    assert store.calls["read_range"] == calls
    other.close()


async def test_a_read_after_a_failed_read_ahead_asks_again(store, reader, autojump_clock):
    await reader.read(0, READ)
    store.script("read_range", *[None] * 2, *[Fault(StoreFailure("down"))] * 2)
    failures = 0
    offset = READ
    while offset < 6 * MIB:
        try:
            view = await reader.read(offset, READ)
        except StoreFailure:
            failures += 1
            await trio.sleep(2)  # a failed range is remembered for a second
            continue
        assert bytes(view) == LARGE[offset : offset + READ]
        offset += READ
    assert failures <= 2
    reader.close()


async def test_a_handle_reads_nothing_of_a_newer_version(store, reader, autojump_clock):
    await reader.read(0, 4 * KIB)
    store.put("large", pattern("other", len(LARGE)))
    assert bytes(await reader.read(8 * KIB, 4 * KIB)) == LARGE[8 * KIB : 12 * KIB]
    with pytest.raises(StaleVersion):
        await reader.read(12 * MIB, 4 * KIB)
    reader.close()


async def test_many_streams_stay_within_half_of_the_memory(store, cache, budget, autojump_clock):
    store.piece_s = 0.0
    version = store.put("large", LARGE)
    readers = [CachedReader(cache, version, budget) for _ in range(16)]
    for offset in range(0, len(LARGE), MIB):
        for reader in readers:
            await reader.read(offset, MIB)
            windows = [stream.window_bytes for r in readers for stream in r._pattern.streams]
            assert max(windows) <= RAMP_BYTES
    assert sum(windows) <= 32 * MIB
    for reader in readers:
        reader.close()
    assert budget.active_count == 0


async def test_a_smaller_pool_has_smaller_windows_at_once(cache, budget):
    first, second = Stream(0, 0), Stream(1, 1)
    assert budget.share_bytes(first) == 32 * MIB
    cache.pool.resize(16 * MIB)
    assert budget.share_bytes(first) == 8 * MIB
    assert budget.share_bytes(second) == 4 * MIB
    cache.pool.resize(64 * MIB)
    assert budget.share_bytes(first) == 16 * MIB


async def test_memory_is_shared_by_the_streams_that_read_lately(budget, autojump_clock):
    first, second = Stream(0, 0), Stream(0, 0)
    assert budget.share_bytes(first) == 32 * MIB
    assert budget.share_bytes(second) == 16 * MIB
    assert budget.share_bytes(first) == 16 * MIB
    await trio.sleep(ACTIVE_S / 2)
    assert budget.share_bytes(first) == 16 * MIB
    await trio.sleep(ACTIVE_S * 1.1)
    assert budget.share_bytes(first) == 32 * MIB
    assert budget.active_count == 1
    budget.leave(first)
    assert budget.active_count == 0


async def test_direct_reads_ask_the_store_each_time(store, autojump_clock):
    version = store.put("large", LARGE)
    reader = DirectReader(store, version)
    await reader.confirm()
    for _ in range(3):
        assert bytes(await reader.read(5000, 4 * KIB)) == LARGE[5000 : 5000 + 4 * KIB]
    assert store.reads == [("large", 5000, 5000 + 4 * KIB, False)] * 3
    assert bytes(await reader.read(len(LARGE) - 3, READ)) == LARGE[-3:]
    assert bytes(await reader.read(len(LARGE), READ)) == b""
    store.delete("large")
    with pytest.raises(StaleVersion):
        await reader.read(0, 10)
    with pytest.raises(StaleVersion):
        await reader.confirm()
    reader.close()
