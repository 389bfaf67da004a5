"""Places that several owners wait for: one alone has all, and none keeps the others out."""

import pyfuse3
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stsfs.fuse.operations import handler
from stsfs.store.shares import OWNER, Shares, Turns

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


class Asked:
    """A file system that answers for whom it works."""

    deadline_s = 60

    def __init__(self):
        self.under_way, self.changes_under_way, self.served = set(), set(), 0
        self.owners = {5: 1001}

    @handler
    async def getattr(self, inode, ctx):
        return OWNER.get()

    @handler
    async def read(self, fh, off, size):
        return OWNER.get()


async def test_a_request_is_for_whoever_asks_or_has_opened_the_handle():
    asked, root = Asked(), pyfuse3.RequestContext()
    assert await asked.read(5, 0, 1) == 1001
    assert await asked.getattr(5, root) == root.uid == 0
    assert await asked.read(5, 0, 1) == 1001
    assert await asked.read(6, 0, 1) is None, "not whoever was served last"


class Queue:
    """Those who wait for their turn, by name, and in which order they had it."""

    def __init__(self, nursery):
        self.turns, self.had = Turns(), []
        self._nursery = nursery

    async def asks(self, owner, name):
        """Once more somebody waits."""
        self._nursery.start_soon(self._wait, owner, name)
        await wait_all_tasks_blocked()

    async def _wait(self, owner, name):
        OWNER.set(owner)
        async with self.turns.turn():
            self.had.append(name)


async def test_turns_go_from_owner_to_owner_and_first_come_first_served_for_each(nursery):
    queue = Queue(nursery)
    async with queue.turns.turn():
        for name in ("1a", "1b", "1c", "2a", "2b", "3a"):
            await queue.asks(int(name[0]), name)
        assert queue.had == []
    await wait_all_tasks_blocked()
    assert queue.had == ["1a", "2a", "3a", "1b", "2b", "1c"]


async def test_who_gives_up_waiting_has_no_turn_and_keeps_nobody_from_theirs(nursery):
    queue = Queue(nursery)
    async with queue.turns.turn():
        async with trio.open_nursery() as leaving:
            await queue.asks(1, "stays")
            left = Queue(leaving)
            left.turns = queue.turns
            await left.asks(2, "leaves")
            leaving.cancel_scope.cancel()
        await queue.asks(3, "stays, too")
    await wait_all_tasks_blocked()
    assert (queue.had, left.had) == (["stays", "stays, too"], [])


@pytest.mark.parametrize("given_first", [True, False])
async def test_a_turn_of_somebody_who_gives_up_just_then_goes_on(nursery, given_first):
    queue = Queue(nursery)
    leaving = trio.CancelScope()

    async def leave():
        with leaving:
            async with queue.turns.turn():
                queue.had.append("left")

    async with queue.turns.turn():
        nursery.start_soon(leave)
        await wait_all_tasks_blocked()
        await queue.asks(1, "follows")
        if not given_first:
            leaving.cancel()
    leaving.cancel()
    await wait_all_tasks_blocked()
    assert queue.had == ["follows"]


class Memory:
    """Those who take several places at once, by name, in the order in which they had them."""

    def __init__(self, nursery, places):
        self.shares, self.had = Shares(places), []
        self._nursery = nursery
        self._ends = {}

    async def asks(self, owner, count, name):
        """Whether it was given at once."""
        self._ends[name] = trio.CancelScope()
        self._nursery.start_soon(self._hold, owner, count, name)
        await wait_all_tasks_blocked()
        return name in self.had

    async def ends(self, name):
        """Give it back, or wait no longer."""
        self._ends[name].cancel()
        await wait_all_tasks_blocked()

    async def _hold(self, owner, count, name):
        OWNER.set(owner)
        with self._ends[name]:
            async with self.shares.taken(count):
                self.had.append(name)
                await trio.sleep_forever()


@pytest.fixture
def memory(nursery):
    yield Memory(nursery, 64)
    nursery.cancel_scope.cancel()


async def test_who_has_none_takes_many_places_beyond_those_that_others_have(memory):
    assert await memory.asks(1, 64, "all")
    assert await memory.asks(2, 16, "large")
    assert not await memory.asks(2, 1, "more than the share")
    assert await memory.asks(3, 16, "large, too")
    assert not await memory.asks(4, 1, "beyond all limits")


async def test_who_waits_for_many_places_is_not_passed_by_who_has_as_many(memory):
    assert await memory.asks(1, 40, "much")
    assert await memory.asks(1, 20, "more")
    assert not await memory.asks(1, 20, "waits")
    assert not await memory.asks(1, 4, "small, and later")
    assert await memory.asks(2, 1, "another's")
    await memory.ends("more")
    assert memory.had[3:] == ["waits"]
    await memory.ends("much")
    assert memory.had[4:] == ["small, and later"]


async def test_who_stops_waiting_for_many_places_lets_those_pass_who_wait_for_few(memory):
    assert await memory.asks(1, 60, "much")
    assert not await memory.asks(1, 16, "waits")
    assert not await memory.asks(1, 4, "small, and later")
    await memory.ends("waits")
    assert memory.had == ["much", "small, and later"]


async def test_more_places_than_there_are_is_all_of_them(memory):
    assert await memory.asks(1, 1000, "all")
    assert not await memory.asks(1, 1, "one more")
    await memory.ends("all")
    assert memory.had == ["all", "one more"]


async def test_who_takes_nothing_never_waits_and_gives_nothing_back():
    """Uploads of empty files, several at a time."""
    memory = Shares(64)
    async with memory.taken(0):
        async with memory.taken(0):
            pass
        async with memory.taken(64), memory.taken(0):
            pass
