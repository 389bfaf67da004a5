"""Whose turn it is where several users of a mount wait for the same few places.

The owner of a request is the user id of who asked the kernel. It is a context variable, so that
tasks that a request starts have the same owner; tasks of the daemon itself have none.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TypeVar

import trio

Owner = int | None
_T = TypeVar("_T")

OWNER: ContextVar[Owner] = ContextVar("OWNER", default=None)
"""For whom the task works: a user id; None for the daemon itself."""

GUARANTEED_PART = 16
"""One place in so many is the least that an owner gets, however many others have taken."""


class Shares:
    """Places, as a semaphore has them, that no owner can keep all others from.

    One owner alone may have all of them. Who asks takes one place, or several at once (bytes of
    memory). INVARIANT: an owner with less than its guaranteed share need not wait for places of
    others, as long as no more than half as many places as there are have been given out in
    addition. A place that is given back goes to the owner with the fewest.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._guaranteed = max(1, places // GUARANTEED_PART)
        self._places_max = places + max(1, places // 2)
        self._used = 0
        self._held: dict[Owner, int] = {}
        self._waiting: dict[Owner, deque[tuple[int, trio.Event]]] = {}
        """Owners in the order of their turns; none without somebody who waits."""

    async def acquire(self, count: int = 1) -> Owner:
        """Take places; returns whose they are, for `release`. A checkpoint only where it waits.

        count: at most as many as there are; none, as for an empty file, are there at once.
        """
        assert count <= self._places
        owner = OWNER.get()
        if not count:
            return owner
        if not self._waiting and self._is_free_for(owner, count):
            self._give(owner, count)
            return owner
        mine = (count, trio.Event())
        self._waiting.setdefault(owner, deque()).append(mine)
        self._serve()
        if mine[1].is_set():
            return owner
        try:
            await mine[1].wait()
        except BaseException:
            if mine[1].is_set():
                self.release(owner, count)
            else:
                _leave(self._waiting, owner, mine)
                self._serve()  # others may have waited for less, behind it
            raise
        return owner

    def release(self, owner: Owner, count: int = 1) -> None:
        """Give places back. Not a checkpoint."""
        if not count:
            return
        self._used -= count
        self._held[owner] -= count
        if not self._held[owner]:
            del self._held[owner]
        self._serve()

    @asynccontextmanager
    async def taken(self, count: int = 1) -> AsyncIterator[None]:
        """Hold as many places, or all where there are not so many. Entering is a checkpoint."""
        count = min(count, self._places)
        owner = await self.acquire(count)
        try:
            await trio.lowlevel.checkpoint()
            yield
        finally:
            self.release(owner, count)

    def _serve(self) -> None:
        """Give what is free to those who wait, the owner with the fewest first."""
        while self._waiting:
            owner = min(self._waiting, key=lambda each: self._held.get(each, 0))
            count = self._waiting[owner][0][0]
            if not self._is_free_for(owner, count):
                return
            self._give(owner, count)
            turns = self._waiting.pop(owner)
            turns.popleft()[1].set()
            if turns:
                self._waiting[owner] = turns  # behind the others who have as many

    def _give(self, owner: Owner, count: int) -> None:
        self._used += count
        self._held[owner] = self._held.get(owner, 0) + count

    def _is_free_for(self, owner: Owner, count: int) -> bool:
        if self._used + count <= self._places:
            return True
        is_guaranteed = self._held.get(owner, 0) < self._guaranteed
        return is_guaranteed and self._used + count <= self._places_max


class Turns:
    """One at a time, as with a lock; owners who wait take turns, however much one of them asks.

    INVARIANT: who is the first of an owner to wait, waits for one turn of each other owner at most,
    and for the one under way.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: dict[Owner, deque[trio.Event]] = {}
        """Owners in the order of their turns; none without somebody who waits."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the turn. Entering is a checkpoint."""
        await self._acquire(OWNER.get())
        try:
            await trio.lowlevel.checkpoint()
            yield
        finally:
            self._release()

    async def _acquire(self, owner: Owner) -> None:
        if not self._taken:
            self._taken = True
            return
        turn = trio.Event()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._release()
            else:
                _leave(self._waiting, owner, turn)
            raise

    def _release(self) -> None:
        """The turn goes to the next, in the name of whom it stays taken."""
        if not self._waiting:
            self._taken = False
            return
        owner = next(iter(self._waiting))
        turns = self._waiting.pop(owner)
        turns.popleft().set()
        if turns:
            self._waiting[owner] = turns  # behind the others


def _leave(waiting: dict[Owner, deque[_T]], owner: Owner, turn: _T) -> None:
    """Somebody waits no more."""
    turns = waiting[owner]
    turns.remove(turn)
    if not turns:
        del waiting[owner]
