"""Blocks are recycled when nothing pins them, and go round among those who wait in order."""

import contextlib
import itertools

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from stsfs.cache import block_pool
from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import READ_BYTES_MAX, BlockPool
from stsfs.cache.content import Content, Run
from stsfs.store.object_store import ObjectVersion
from stsfs.store.shares import OWNER

BLOCK_BYTES = 64


@pytest.fixture
def pool(monkeypatch):
    """Three blocks."""
    monkeypatch.setattr(block_pool, "READ_BYTES_MAX", BLOCK_BYTES)
    return BlockPool(budget_bytes=3 * BLOCK_BYTES, block_bytes=BLOCK_BYTES)


@pytest.fixture
def content():
    return Content(ObjectVersion(1, "x", '"e"', 1000))


def filled(content, block, start=0, data=b"0123456789"):
    """A complete run in a block, which stays pinned as it was."""
    run = Run(content, start, start + len(data), block)
    content.add(run)
    run.memory()[:] = data
    run.advance(len(data))
    return run


def idle_run(pool, content, start):
    """A complete run whose block nothing pins."""
    (block,) = pool.take_nowait(1)
    run = filled(content, block, start)
    block.unpin()
    return run


@pytest.mark.parametrize("budget_bytes", [0, 1 << 20, 64 << 20])
@pytest.mark.parametrize("block_bytes", [64 << 10, 1 << 20, 8 << 20])
def test_a_pool_has_room_for_one_read_of_any_place_and_otherwise_keeps_its_budget(
    budget_bytes, block_bytes
):
    pool = BlockPool(budget_bytes=budget_bytes, block_bytes=block_bytes)
    assert pool.blocks_max >= READ_BYTES_MAX // block_bytes + 2
    assert pool.budget_bytes <= max(budget_bytes, 2 * READ_BYTES_MAX + 2 * block_bytes)
    assert pool.used_bytes == 0


def test_memory_is_made_when_it_is_first_needed(pool):
    blocks = pool.take_nowait(2)
    assert (pool.used_bytes, pool.pinned_count, pool.available_count) == (128, 2, 1)
    pool.give_back(blocks)
    again = pool.take_nowait(2)
    assert set(map(id, again)) == set(map(id, blocks))
    assert pool.used_bytes == 128


def test_nothing_is_given_when_not_all_can_be(pool):
    pool.take_nowait(2)
    assert pool.take_nowait(2) is None
    assert pool.pinned_count == 2
    assert pool.take_nowait(0) == []


def test_the_least_recently_used_block_is_recycled_first_and_its_runs_are_forgotten(pool, content):
    first, second, third = (idle_run(pool, content, start) for start in (0, 100, 200))
    first.block.pin()
    first.block.unpin()  # used again: the second is the oldest now
    (block,) = pool.take_nowait(1)
    assert block is second.block
    assert (block.runs, block.used_bytes, block.pins) == ([], 0, 1)
    assert content.cover(0, 300)[0] == [first, third]


def test_what_a_stream_has_left_behind_is_recycled_before_new_memory_is_made(pool, content):
    kept, left = idle_run(pool, content, 0), idle_run(pool, content, 100)
    pool.spend(left.block)
    (block,) = pool.take_nowait(1)
    assert block is left.block
    assert not block.spent
    assert content.cover(0, 300)[0] == [kept]
    assert pool.blocks_made == 2


def test_a_block_left_behind_but_used_again_is_not_first_any_more(pool, content):
    left, other, _ = (idle_run(pool, content, start) for start in (0, 100, 200))
    pool.spend(left.block)
    left.block.pin()
    left.block.unpin()
    (block,) = pool.take_nowait(1)
    assert block is other.block


def test_a_pinned_block_is_never_recycled(pool, content):
    run = idle_run(pool, content, 0)
    run.block.pin()
    assert len(pool.take_nowait(2)) == 2
    assert pool.take_nowait(1) is None
    assert content.cover(0, 10)[0] == [run]


def test_a_view_keeps_its_bytes_for_as_long_as_it_is_referenced(pool, content):
    run = idle_run(pool, content, 0)
    view = run.block.lend(2, 5)
    also = run.block.lend(0, 1)
    assert view.readonly
    taken = pool.take_nowait(2)
    assert pool.take_nowait(1) is None
    del also
    assert pool.take_nowait(1) is None
    assert view == b"234"
    del view
    assert pool.take_nowait(1)[0] not in taken


def test_a_block_whose_last_run_goes_is_free(pool, content):
    run = idle_run(pool, content, 0)
    run.drop()
    assert pool.pinned_count == 0
    (block,) = pool.take_nowait(1)
    assert block is run.block
    assert block.used_bytes == 0


async def test_who_waits_is_served_in_order_also_when_a_later_one_asks_for_less(pool):
    blocks = pool.take_nowait(3)
    served = []

    async def take(name, count):
        taken = await pool.take(count)
        served.append(name)
        pool.give_back(taken)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, "three", 3)
        await wait_all_tasks_blocked()
        nursery.start_soon(take, "one", 1)
        await wait_all_tasks_blocked()
        pool.give_back(blocks[:2])
        await wait_all_tasks_blocked()
        assert served == []
        assert pool.take_nowait(1) is None, "nobody overtakes"
        pool.give_back(blocks[2:])
    assert served == ["three", "one"]
    assert pool.pinned_count == 0


async def test_a_waiter_that_is_cancelled_lets_the_next_one_go(pool):
    pool.take_nowait(2)
    scope = trio.CancelScope()

    async def take_two():
        with scope:
            await pool.take(2)

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_two)
            await wait_all_tasks_blocked()
            nursery.start_soon(pool.take, 1)
            await wait_all_tasks_blocked()
            assert pool.pinned_count == 2
            scope.cancel()
    assert pool.pinned_count == 3


async def test_a_waiter_cancelled_in_the_moment_it_is_served_returns_its_blocks(pool):
    blocks = pool.take_nowait(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.take, 2)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        pool.give_back(blocks)
    assert pool.pinned_count == 0


async def test_taking_what_is_there_is_a_checkpoint_and_gives_it_back_when_cancelled(pool):
    with trio.testing.assert_checkpoints():
        pool.give_back(await pool.take(3))
    with trio.CancelScope() as scope:
        scope.cancel()
        await pool.take(3)
    assert scope.cancelled_caught
    assert pool.pinned_count == 0


async def test_a_view_that_goes_serves_who_waits_for_its_block(pool, content):
    run = idle_run(pool, content, 0)
    view = run.block.lend(0, 10)
    pool.take_nowait(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.take, 1)
        await wait_all_tasks_blocked()
        assert content.cover(0, 10)[0] == [run]
        del view
        assert content.cover(0, 10)[0] == []


@given(
    block_bytes=st.sampled_from([4, 16, 32, 64, 256]),
    room_bytes=st.integers(0, 64),
    lengths=st.lists(st.integers(1, 64), max_size=130),
)
@settings(deadline=None)
def test_no_read_needs_more_blocks_than_there_are_however_its_gaps_lie(
    block_bytes, room_bytes, lengths
):
    read_bytes = 128
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(block_pool, "READ_BYTES_MAX", read_bytes)
        pool = BlockPool(budget_bytes=0, block_bytes=block_bytes)
    cache = BlockCache(pool, None)
    (cache._open,) = pool.take_nowait(1)
    cache._open.used_bytes = max(0, block_bytes - room_bytes)
    gaps, position = [], 0
    for gap_bytes, held_bytes in itertools.pairwise(lengths):
        if position + gap_bytes > read_bytes:
            break
        gaps.append((position, position + gap_bytes))
        position += gap_bytes + held_bytes
    assert cache._blocks_needed(gaps) <= pool.available_count


def test_a_read_with_one_byte_of_each_small_block_at_hand_fits_the_smallest_pool():
    pool = BlockPool(budget_bytes=0, block_bytes=4096)
    cache = BlockCache(pool, None)
    gaps = []
    for start in range(0, READ_BYTES_MAX, 8192):
        gaps += [(start, start + 2046), (start + 2047, start + 4096)]
        gaps += [(start + 4096, start + 6145), (start + 6146, start + 8192)]
    needed = cache._blocks_needed(gaps)
    assert needed > READ_BYTES_MAX // 4096 + 100, "far more than whole blocks in a read"
    assert needed < pool.blocks_min


def memory_is_gone(block):
    with pytest.raises(ValueError, match="released"):
        _ = block.memory[0]
    return True


def test_a_smaller_budget_gives_back_free_then_spent_then_idle_blocks(pool, content):
    pool.resize(6 * BLOCK_BYTES)
    blocks = [pool.take_nowait(1)[0] for _ in range(6)]
    runs = [filled(content, block, 100 * n) for n, block in enumerate(blocks[:5])]
    for block in blocks:
        block.unpin()
    pool.spend(blocks[3])
    pool.resize(4 * BLOCK_BYTES)
    assert memory_is_gone(blocks[5])  # the free one
    assert memory_is_gone(blocks[3])  # left behind by a stream
    assert content.cover(0, 1000)[0] == [runs[0], runs[1], runs[2], runs[4]]
    pool.resize(0)
    assert memory_is_gone(blocks[0])  # the least recently used
    assert pool.used_bytes == pool.budget_bytes == 3 * BLOCK_BYTES


def test_pinned_blocks_are_given_back_when_they_are_put_down(pool, content):
    pool.resize(5 * BLOCK_BYTES)
    blocks = pool.take_nowait(5)
    run = filled(content, blocks[0])
    view = blocks[0].lend(2, 5)
    pool.resize(3 * BLOCK_BYTES)
    assert (pool.used_bytes, pool.available_count) == (5 * BLOCK_BYTES, -2)
    assert pool.take_nowait(1) is None
    blocks[0].unpin()
    assert view == b"234", "a reply holds it"
    del view
    assert memory_is_gone(blocks[0])
    assert run not in content.cover(0, 1000)[0]
    pool.give_back(blocks[1:])
    assert (pool.used_bytes, pool.available_count) == (3 * BLOCK_BYTES, 3)


def test_a_larger_budget_is_used_at_once(pool):
    pool.take_nowait(3)
    assert pool.take_nowait(1) is None
    pool.resize(5 * BLOCK_BYTES)
    assert len(pool.take_nowait(2)) == 2


async def test_who_waits_is_served_when_the_budget_grows_and_survives_when_it_shrinks(pool):
    blocks = pool.take_nowait(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.take, 3)
        await wait_all_tasks_blocked()
        pool.resize(0)
        pool.give_back(blocks[:1])
        await wait_all_tasks_blocked()
        assert pool.pinned_count == 2
        pool.resize(5 * BLOCK_BYTES)
    assert pool.pinned_count == 5


changes = st.one_of(
    st.tuples(st.just("take"), st.integers(1, 3), st.booleans()),
    st.tuples(st.sampled_from(["put down", "lend", "let go", "use", "spend"]), st.integers(0, 9)),
    st.tuples(st.just("resize"), st.integers(0, 8)),
)


@given(st.lists(changes, max_size=60))
@settings(deadline=None, max_examples=300)
def test_whatever_happens_each_block_is_in_one_place_and_lent_bytes_stay(history):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(block_pool, "READ_BYTES_MAX", BLOCK_BYTES)
        pool = BlockPool(budget_bytes=3 * BLOCK_BYTES, block_bytes=BLOCK_BYTES)
    contents = Content(ObjectVersion(1, "x", '"e"', 1 << 20))
    starts = itertools.count(0, 100)
    held, lent, known = [], [], []
    for change, *arguments in history:
        at = arguments[0]
        if change == "take":
            for block in pool.take_nowait(at) or []:
                start = next(starts)
                if arguments[1]:
                    known.append(filled(contents, block, start, b"%-10d" % start))
                held.append(block)
        elif change == "resize":
            pool.resize(at * BLOCK_BYTES)
        elif change == "put down" and held:
            held.pop(at % len(held)).unpin()
        elif change == "let go" and lent:
            lent.pop(at % len(lent))
        resident = [run for run in known if run in contents.cover(0, 1 << 20)[0]]
        if resident and change in {"lend", "use", "spend"}:
            run = resident[at % len(resident)]
            if change == "lend":
                lent.append((run.block.lend(0, 10), b"%-10d" % run.start))
            elif change == "use":
                run.block.pin()
                held.append(run.block)
            else:
                pool.spend(run.block)
        del change, arguments
        assert all(view == expected for view, expected in lent)
        resident = [run for run in known if run in contents.cover(0, 1 << 20)[0]]
        assert all(bytes(run.block.memory[:10]) == b"%-10d" % run.start for run in resident)
        places = [*pool._free, *pool._spent, *pool._idle]
        assert len(places) == len(set(places)) == pool.blocks_made - pool.pinned_count
        assert not any(block.pins for block in places)
        assert pool.blocks_made <= pool.blocks_max or not places


# Users of a mount.

PART = 4
"""Blocks of the large pool that one user leaves to the others."""


@pytest.fixture
def large(monkeypatch):
    """64 blocks, of which a read needs at most three."""
    monkeypatch.setattr(block_pool, "READ_BYTES_MAX", BLOCK_BYTES)
    return BlockPool(budget_bytes=64 * BLOCK_BYTES, block_bytes=BLOCK_BYTES)


@contextlib.contextmanager
def as_owner(owner):
    token = OWNER.set(owner)
    try:
        yield
    finally:
        OWNER.reset(token)


def hoard(pool, owner):
    """All blocks that a user can have without waiting, each of them in use."""
    with as_owner(owner):
        return list(itertools.chain(*iter(lambda: pool.take_nowait(1), None)))


async def take_as(pool, owner, count, taken):
    OWNER.set(owner)
    taken.append((owner, await pool.take(count)))


async def test_one_user_cannot_have_all_blocks_in_use(large, nursery):
    assert len(hoard(large, 1)) == 64 - PART
    taken = []
    for _ in range(5):
        nursery.start_soon(take_as, large, 1, 3, taken)
    await wait_all_tasks_blocked()
    with as_owner(2):
        assert large.take_nowait(1) is not None, "nobody waits who could be served"
    await take_as(large, 2, 3, taken)
    assert [owner for owner, _ in taken] == [2]
    nursery.cancel_scope.cancel()


async def test_blocks_that_are_given_back_go_to_the_users_who_wait_in_turn(large, nursery):
    mine = hoard(large, 1)
    hoard(large, 2)
    taken = []
    for owner in (1, 1, 1, 2, 2, 3):
        nursery.start_soon(take_as, large, owner, 1, taken)
        await wait_all_tasks_blocked()
    for block in mine[:6]:
        block.unpin()
        await wait_all_tasks_blocked()
    assert [owner for owner, _ in taken] == [1, 2, 3, 1, 2, 1]
    nursery.cancel_scope.cancel()


async def test_a_block_counts_for_who_uses_it_and_no_longer_than_that(large, content):
    mine = hoard(large, 1)
    runs = [filled(content, block, 10 * number) for number, block in enumerate(mine)]
    large.give_back(mine)  # they hold something now, and nothing pins them
    with as_owner(2):
        views = [run.block.lend(0, 10) for run in runs]
    assert len(hoard(large, 1)) == PART
    del views
    assert len(hoard(large, 1)) == 64 - 2 * PART
    assert len(hoard(large, 3)) == PART


def test_the_daemon_itself_and_a_pool_that_is_small_know_no_parts(large, pool):
    assert len(hoard(large, None)) == 64
    assert len(hoard(pool, 1)) == 3


def test_a_budget_that_shrinks_leaves_a_user_enough_for_one_read(large):
    hoard(large, 1)
    large.resize(8 * BLOCK_BYTES)
    assert hoard(large, 1) == []
    large.give_back(hoard(large, 2))
    assert large.available_count == 8 - 60


async def test_who_gives_up_waiting_lets_other_users_have_blocks(large, nursery):
    hoard(large, None)[0].unpin()
    taken = []
    async with trio.open_nursery() as leaving:
        leaving.start_soon(take_as, large, 1, 3, taken)
        await wait_all_tasks_blocked()
        nursery.start_soon(take_as, large, 2, 1, taken)
        await wait_all_tasks_blocked()
        assert taken == []
        leaving.cancel_scope.cancel()
    await wait_all_tasks_blocked()
    assert [owner for owner, _ in taken] == [2]
