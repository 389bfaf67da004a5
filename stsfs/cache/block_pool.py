"""Blocks: pieces of memory of one size, recycled within one budget for everything cached.

A block in use is *pinned*. It is recycled only when nothing pins it: no range being received into
it, no reader waiting on it, and no view of it that a reply still holds. Foreign bytes in a reply
are the worst thing this program could do, so a lent view carries its pin for as long as it lives.
"""

import mmap
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from stsfs.store.shares import GUARANTEED_PART, OWNER, Owner

if TYPE_CHECKING:
    from stsfs.cache.content import Run

READ_BYTES_MAX = 1024 * 1024
"""The kernel's largest read: 256 pages."""


class Block:
    """One piece of cache memory and the runs of bytes that live in it."""

    __slots__ = ("_mapping", "memory", "owner", "pins", "pool", "runs", "spent", "used_bytes")

    def __init__(self, pool: "BlockPool", size_bytes: int) -> None:
        # Anonymous pages exist once they are written to; a bytearray would write zeros to all.
        self._mapping = mmap.mmap(-1, size_bytes)
        self.memory = memoryview(self._mapping)
        self.pool = pool
        self.pins = 1
        self.owner: Owner = None
        """For whom it is pinned; of several, the first."""

        self.runs: list[Run] = []
        self.used_bytes = 0
        """Bytes handed out to runs so far, from the front; a run's place is never reused alone."""

        self.spent = False
        """Read by a stream that went on: first to be recycled."""

    def pin(self) -> None:
        """Keep the block from being recycled until the matching `unpin`."""
        if not self.pins:
            self.pool.taken_up(self)
        self.pins += 1

    def unpin(self) -> None:
        """Undo one `pin`; the last one makes the block available. Not a checkpoint."""
        assert self.pins > 0
        self.pins -= 1
        if not self.pins:
            self.pool.unpinned(self)

    def lend(self, start: int, stop: int) -> memoryview:
        """A read-only view of [start, stop); the block stays pinned until the view is gone."""
        view = self.memory[start:stop].toreadonly()
        self.pin()
        self.pool.lend(view, self)
        return view

    def give_memory_back(self) -> None:
        """Return the memory to the system at once, whoever may still know this block.

        Nothing may pin it; it is of no use afterwards.
        """
        assert not self.pins
        assert not self.runs
        with suppress(BufferError):  # a view that is not used any more, but still there: it ends it
            self.memory.release()
            self._mapping.close()


_Waiter = tuple[int, Callable[[list[Block]], None]]
"""How many blocks somebody waits for, and what they are given to."""


class BlockPool:
    """All blocks of a mount: at most budget_bytes of memory, but enough for one read of any place.

    INVARIANT: a block is in exactly one place: free (no runs), spent or idle (unpinned, with runs,
    least recently used first), or pinned. There are at most blocks_max of them, except while more
    are pinned than a smaller budget allows; then there are no others.

    INVARIANT: no user of the mount pins so many that there is no room for a read of another one
    (see `_left_for`), unless the whole budget is hardly enough for one.
    """

    def __init__(self, *, budget_bytes: int, block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self.blocks_min = (READ_BYTES_MAX - 1) // (block_bytes // 2 + 1) + 2
        """Enough for one read, however its gaps lie, and for the block that small runs share.

        A run has a block of its own when it is larger than half of one. Smaller ones begin another
        block only when together they are larger than that, or for the first of them.
        """

        self.blocks_max = 0
        self.blocks_made = 0
        self._free: list[Block] = []
        self._spent: OrderedDict[Block, None] = OrderedDict()
        self._idle: OrderedDict[Block, None] = OrderedDict()
        self._waiters: dict[Owner, deque[_Waiter]] = {}
        """Owners in the order of their turns; none without somebody who waits."""

        self._pinned_for: Counter[Owner] = Counter()
        # By id of the reference: a weak reference hashes like its referent, and views do not hash.
        self._lent: dict[int, tuple[weakref.ref[memoryview], Block]] = {}
        self.resize(budget_bytes)

    def resize(self, budget_bytes: int) -> None:
        """Have at most budget_bytes from now on, or what one read needs. Not a checkpoint.

        What is too much goes back to the system: free blocks first, then as they would be
        recycled, and pinned ones when they are put down.
        """
        self.blocks_max = max(self.blocks_min, budget_bytes // self.block_bytes)
        self._shrink()
        self._serve_waiters()

    @property
    def budget_bytes(self) -> int:
        """Memory that all blocks may have now."""
        return self.blocks_max * self.block_bytes

    @property
    def used_bytes(self) -> int:
        """Memory of all blocks made so far."""
        return self.blocks_made * self.block_bytes

    @property
    def held_bytes(self) -> int:
        """Memory of the blocks that hold something, or are about to."""
        return self.used_bytes - len(self._free) * self.block_bytes

    @property
    def pinned_count(self) -> int:
        """Blocks in use right now."""
        return self.blocks_made - len(self._free) - len(self._spent) - len(self._idle)

    @property
    def is_wanted(self) -> bool:
        """Somebody waits for blocks."""
        return bool(self._waiters)

    @property
    def available_count(self) -> int:
        """Blocks that `take_nowait` could give; below 0 while pinned ones exceed the budget."""
        return self.blocks_max - self.pinned_count

    def take_nowait(self, count: int) -> list[Block] | None:
        """count empty blocks, each pinned once for the caller; None if there are not enough.

        Whoever waits in `take` goes first, unless it is for blocks of their own.
        """
        owner = OWNER.get()
        if count and (
            count > min(self.available_count, self._left_for(owner))
            or owner in self._waiters
            or self._next_owner() is not None
        ):
            return None
        return [self._take_one(owner) for _ in range(count)]

    async def take(self, count: int) -> list[Block]:
        """Like `take_nowait`, but waits. Is a checkpoint.

        First come first served, and users of the mount take turns. A caller must hold no pin of its
        own, or two of them could wait for each other for ever.
        """
        assert count <= self.blocks_min, "asked for more blocks than a read can need"
        given: list[Block] = []
        arrived = trio.Event()

        def give(blocks: list[Block]) -> None:
            given.extend(blocks)
            arrived.set()

        owner, waiter = OWNER.get(), (count, give)
        self._waiters.setdefault(owner, deque()).append(waiter)
        self._serve_waiters()
        try:
            await arrived.wait()
        except trio.Cancelled:
            if arrived.is_set():
                self.give_back(given)
            else:
                self._leave(owner, waiter)
            raise
        return given

    def give_back(self, blocks: list[Block]) -> None:
        """Return blocks taken but not used."""
        for block in blocks:
            block.unpin()

    def spend(self, block: Block) -> None:
        """A stream has read this block and gone on: recycle it before any other."""
        block.spent = True
        if block in self._idle:
            del self._idle[block]
            self._spent[block] = None

    def taken_up(self, block: Block) -> None:
        """A block is pinned again: it counts as used."""
        self._pin_for(block, OWNER.get())
        block.spent = False
        self._idle.pop(block, None)
        self._spent.pop(block, None)

    def unpinned(self, block: Block) -> None:
        """The last pin of a block is gone."""
        self._pinned_for[block.owner] -= 1
        if not self._pinned_for[block.owner]:
            del self._pinned_for[block.owner]
        self._put_down(block)

    def _put_down(self, block: Block) -> None:
        if not block.runs:
            block.used_bytes = 0
            block.spent = False
            self._free.append(block)
        elif block.spent:
            self._spent[block] = None
        else:
            self._idle[block] = None
        self._shrink()
        self._serve_waiters()

    def emptied(self, block: Block) -> None:
        """The last run of a block was dropped."""
        if not block.pins:
            self._idle.pop(block, None)
            self._spent.pop(block, None)
            self._put_down(block)

    def lend(self, view: memoryview, block: Block) -> None:
        """Unpin block when view is no longer referenced by anyone."""
        reference = weakref.ref(view, self._view_gone)
        self._lent[id(reference)] = reference, block

    def _view_gone(self, reference: "weakref.ref[memoryview]") -> None:
        _, block = self._lent.pop(id(reference))
        block.unpin()

    def _left_for(self, owner: Owner) -> int:
        """How many more blocks may be pinned for an owner, as far as its own part goes.

        A user alone may have all but one part in sixteen, or what one read needs. The daemon itself
        asks for little.
        """
        if owner is None:
            return self.blocks_max
        kept_free = max(self.blocks_min, self.blocks_max // GUARANTEED_PART)
        return max(self.blocks_min, self.blocks_max - kept_free) - self._pinned_for[owner]

    def _pin_for(self, block: Block, owner: Owner) -> None:
        block.owner = owner
        self._pinned_for[owner] += 1

    def _take_one(self, owner: Owner) -> Block:
        if self._free:
            block = self._free.pop()
        elif self._spent:
            block = self._recycle(self._spent)
        elif self.blocks_made < self.blocks_max:
            self.blocks_made += 1
            block = Block(self, self.block_bytes)
        else:
            block = self._recycle(self._idle)
        block.pins = 1
        self._pin_for(block, owner)
        return block

    def _recycle(self, queue: "OrderedDict[Block, None]") -> Block:
        block, _ = queue.popitem(last=False)
        block.pins = 1  # so that dropping its last run does not put it down
        for run in list(block.runs):
            run.drop()
        block.used_bytes = 0
        block.spent = False
        return block

    def _shrink(self) -> None:
        """Give blocks back that are too many and that nothing pins."""
        while self.blocks_made > self.blocks_max:
            if self._free:
                block = self._free.pop()
            elif self._spent or self._idle:
                block = self._recycle(self._spent or self._idle)
                block.pins = 0
            else:
                return
            self.blocks_made -= 1
            block.give_memory_back()

    def _next_owner(self) -> tuple[Owner] | None:
        """Whose turn it is among those who wait; None where all of them wait for their own."""
        for owner, waiters in self._waiters.items():
            if waiters[0][0] <= self._left_for(owner):
                return (owner,)
        return None

    def _serve_waiters(self) -> None:
        while (found := self._next_owner()) is not None:
            (owner,) = found
            count, give = self._waiters[owner][0]
            if count > self.available_count:
                return
            waiters = self._waiters.pop(owner)
            waiters.popleft()
            if waiters:
                self._waiters[owner] = waiters  # behind the others
            give([self._take_one(owner) for _ in range(count)])

    def _leave(self, owner: Owner, waiter: _Waiter) -> None:
        """Somebody waits no more."""
        waiters = self._waiters[owner]
        waiters.remove(waiter)
        if not waiters:
            del self._waiters[owner]
        self._serve_waiters()
