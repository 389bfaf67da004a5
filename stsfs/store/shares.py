"""Whose turn it is where several users of a mount wait for the same few places.

The owner of a request is the user id of who asked the kernel. It is a context variable, so that
tasks that a request starts have the same owner; tasks of the daemon itself have none.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import trio

Owner = int | None

OWNER: ContextVar[Owner] = ContextVar("OWNER", default=None)
"""For whom the task works: a user id; None for the daemon itself."""

GUARANTEED_PART = 16
"""One place in so many is the least that an owner gets, however many others have taken."""


class Shares:
    """Places, as a semaphore has them, that no owner can keep all others from.

    One owner alone may have all of them. INVARIANT: an owner with less than its guaranteed share
    need not wait for places of others, as long as no more than half as many places as there are
    have been given out in addition. A place that is given back goes to the owner with the fewest.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._guaranteed = max(1, places // GUARANTEED_PART)
        self._places_max = places + max(1, places // 2)
        self._used = 0
        self._held: dict[Owner, int] = {}
        self._waiting: dict[Owner, deque[trio.Event]] = {}
        """Owners in the order of their turns; none without somebody who waits."""

    async def acquire(self) -> Owner:
        """Take a place; returns whose it is, for `release`. A checkpoint only where it waits."""
        owner = OWNER.get()
        if self._is_free_for(owner):
            self._take(owner)
            return owner
        turn = trio.Event()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.release(owner)
            else:
                _leave(self._waiting, owner, turn)
            raise
        return owner

    def release(self, owner: Owner) -> None:
        """Give a place back. Not a checkpoint."""
        self._used -= 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        while self._waiting:
            following = min(self._waiting, key=lambda each: self._held.get(each, 0))
            if not self._is_free_for(following):
                return
            self._take(following)
            turns = self._waiting.pop(following)
            turns.popleft().set()
            if turns:
                self._waiting[following] = turns  # behind the others who have as many

    def _is_free_for(self, owner: Owner) -> bool:
        if self._used < self._places:
            return True
        is_guaranteed = self._held.get(owner, 0) < self._guaranteed
        return is_guaranteed and self._used < self._places_max

    def _take(self, owner: Owner) -> None:
        self._used += 1
        self._held[owner] = self._held.get(owner, 0) + 1


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


def _leave(waiting: dict[Owner, deque[trio.Event]], owner: Owner, turn: trio.Event) -> None:
    """Somebody waits no more."""
    turns = waiting[owner]
    turns.remove(turn)
    if not turns:
        del waiting[owner]
