"""Blocks are recycled when nothing pins them, and go round among those who wait in order."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stsfs.cache import block_pool
from stsfs.cache.block_pool import READ_BYTES_MAX, BlockPool
from stsfs.cache.content import Content, Run
from stsfs.store.object_store import ObjectVersion

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
    least = READ_BYTES_MAX // block_bytes + 3
    assert pool.blocks_max * block_bytes <= max(budget_bytes, least * block_bytes)
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

    with trio.fail_after(10):
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
