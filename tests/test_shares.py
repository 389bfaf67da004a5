"""Places that several owners wait for: one alone has all, and none keeps the others out."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stsfs.store.shares import OWNER, Shares

PLACES = 32
GUARANTEED = 2
EXTRA = 16


@pytest.fixture
def shares():
    return Shares(PLACES)


async def take(shares, owner, taken):
    OWNER.set(owner)
    taken.append(await shares.acquire())


async def taken_at_once(shares, nursery, owner, count):
    """Ask for so many places; what was given without waiting, and goes on growing."""
    taken = []
    for _ in range(count):
        nursery.start_soon(take, shares, owner, taken)
    await wait_all_tasks_blocked()
    return taken


async def test_one_owner_alone_has_all_places_without_waiting(shares, nursery):
    assert len(await taken_at_once(shares, nursery, 1, 3 * PLACES)) == PLACES
    nursery.cancel_scope.cancel()


async def test_every_other_owner_has_a_few_all_the_same(shares, nursery):
    await taken_at_once(shares, nursery, 1, 3 * PLACES)
    for owner in (2, None, 4):
        assert len(await taken_at_once(shares, nursery, owner, PLACES)) == GUARANTEED
    nursery.cancel_scope.cancel()


async def test_what_is_given_in_addition_has_a_limit(shares, nursery):
    await taken_at_once(shares, nursery, 0, PLACES)
    given = [len(await taken_at_once(shares, nursery, owner, 9)) for owner in range(1, 100)]
    assert sum(given) == EXTRA
    nursery.cancel_scope.cancel()


async def test_a_place_that_is_given_back_goes_to_the_owner_with_the_fewest(shares, nursery):
    many = await taken_at_once(shares, nursery, 1, 3 * PLACES)
    few = await taken_at_once(shares, nursery, 2, 10)
    for _ in range(GUARANTEED):  # those that were given in addition
        shares.release(1)
    assert (len(many), len(few)) == (PLACES, GUARANTEED)
    for _ in range(8):
        shares.release(1)
    await wait_all_tasks_blocked()
    assert (len(many), len(few)) == (PLACES, 10)
    nursery.cancel_scope.cancel()


async def test_who_does_not_wait_any_longer_takes_no_place(shares, nursery):
    await taken_at_once(shares, nursery, 1, PLACES)
    with trio.move_on_after(0):
        OWNER.set(1)
        await shares.acquire()
    for _ in range(PLACES):
        shares.release(1)
    assert len(await taken_at_once(shares, nursery, 1, 2 * PLACES)) == PLACES
    nursery.cancel_scope.cancel()


async def test_all_places_come_back(shares, nursery):
    """Whatever order they are taken, waited for and given back in."""

    async def use(owner):
        OWNER.set(owner)
        for _ in range(5):
            whose = await shares.acquire()
            assert whose == owner
            await trio.lowlevel.checkpoint()
            shares.release(whose)

    async with trio.open_nursery() as users:
        for number in range(4 * PLACES):
            users.start_soon(use, number % 5)
    assert len(await taken_at_once(shares, nursery, 9, 2 * PLACES)) == PLACES
    nursery.cancel_scope.cancel()


async def test_one_place_is_enough_for_two_owners(nursery):
    shares = Shares(1)
    assert await taken_at_once(shares, nursery, 1, 3) == [1]
    assert await taken_at_once(shares, nursery, 2, 3) == [2]
    nursery.cancel_scope.cancel()
