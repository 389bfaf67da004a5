"""The locks of files that are being written, and the one order in which they are taken.

From the outside in; whoever holds one may take those below it, never one above it or beside it:

1. names    a name in a directory is being changed (`vfs.staged_nodes.StagedNodes.changing`)
2. turn     one file is published, renamed, removed or ended; several at a time by `in_turn`, in
            the order of their numbers
3. content  bytes and spans of one file; never held across a request to S3
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import IntEnum
from itertools import count
from types import TracebackType
from typing import Self

import trio


class Rank(IntEnum):
    """Places in the order."""

    NAMES = 1
    TURN = 2
    CONTENT = 3


_numbers = count()
_held: dict[trio.lowlevel.Task, list["OrderedLock"]] = {}
"""What each task holds, in the order in which it took it."""


class LockOrderBroken(AssertionError):
    """A lock was taken while one of the same or a later place was held: a bug."""


def check_order(rank: Rank) -> None:
    """Raise LockOrderBroken if the current task holds a lock of this rank or a later one."""
    for held in _held.get(trio.lowlevel.current_task(), ()):
        if held.rank >= rank:
            raise LockOrderBroken(f"{rank.name} is taken while {held.rank.name} is held")


class OrderedLock:
    """A lock for one task at a time, which may take it again while it holds it."""

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.number = next(_numbers)
        self._lock = trio.Lock()
        self._depth = 0

    @property
    def is_mine(self) -> bool:
        """Whether the current task holds it."""
        return self._lock.statistics().owner is trio.lowlevel.current_task()

    async def __aenter__(self) -> Self:
        task = trio.lowlevel.current_task()
        mine = _held.get(task)
        if mine is not None:
            if self in mine:
                self._depth += 1
                await trio.lowlevel.checkpoint_if_cancelled()
                return self
            self._check(mine)
        await self._lock.acquire()
        _held.setdefault(task, []).append(self)
        self._depth = 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth:
            return
        task = trio.lowlevel.current_task()
        mine = _held[task]
        mine.remove(self)
        if not mine:
            del _held[task]
        self._lock.release()

    def _check(self, mine: list["OrderedLock"]) -> None:
        for held in mine:
            in_order = held.rank < self.rank or (
                held.rank == self.rank == Rank.TURN and held.number < self.number
            )
            if not in_order:
                raise LockOrderBroken(f"{self.rank.name} is taken while {held.rank.name} is held")


@asynccontextmanager
async def in_turn(locks: Iterable[OrderedLock]) -> AsyncIterator[None]:
    """Hold several locks of the same rank."""
    async with AsyncExitStack() as stack:
        for lock in sorted(set(locks), key=lambda each: each.number):
            await stack.enter_async_context(lock)
        yield
