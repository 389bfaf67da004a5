"""The memory cache: reads of a version are answered from it, and fetch what it lacks.

Decisions (what is missing, where it goes) are synchronous; nothing changes between looking and
acting. After each wait the code looks again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import trio

from stsfs.cache.block_pool import Block, BlockPool
from stsfs.cache.content import Content, Run
from stsfs.cache.disk.tier import DiskTier
from stsfs.cache.fill import Fill
from stsfs.errors import StaleVersion, StoreFailure, StsfsError, without_frames
from stsfs.store.object_store import ObjectStore, ObjectVersion
from stsfs.supervisor import TaskPool

Span = tuple[int, int]
"""Half-open interval of byte offsets."""

_CONTENTS_MIN = 1000


@dataclass(slots=True)
class CacheCounters:
    """Reads answered from memory at once, and those that had to wait for the store."""

    hits: int = 0
    hit_bytes: int = 0
    misses: int = 0
    miss_bytes: int = 0


class BlockCache:
    """Runs of bytes by version, in one pool of blocks, filled from one store.

    Where there is a disk tier, ranges come through it.

    `run` owns the fetches; it must be running while reads are served.
    """

    def __init__(self, pool: BlockPool, store: ObjectStore, disk: DiskTier | None = None) -> None:
        self.disk = disk
        self.counters = CacheCounters()
        self._pool = pool
        self._store = store
        self._contents: dict[ObjectVersion, Content] = {}
        self._contents_max = _CONTENTS_MIN  # beyond it, empty ones are forgotten
        self._fetches = TaskPool("memory cache")
        self._open: Block | None = None  # where small runs are put, one behind the other

    @property
    def store(self) -> ObjectStore:
        """Where it is filled from."""
        return self._store

    @property
    def pool(self) -> BlockPool:
        """The memory."""
        return self._pool

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the fetches until cancelled; all of them end with it."""
        await self._fetches.run(task_status=task_status)

    def enter(self, version: ObjectVersion) -> Content:
        """The content of a version, for one handle; `leave` must follow."""
        content = self._contents.get(version)
        if content is None:
            content = self._contents[version] = Content(version)
        if self.disk is not None and not content.users:
            self.disk.look_again(version)
        content.users += 1
        return content

    def leave(self, content: Content) -> None:
        """One handle less. Forgets contents that nobody uses and that hold nothing."""
        content.users -= 1
        if len(self._contents) > self._contents_max:
            empty = [v for v, c in self._contents.items() if not c.users and not len(c)]
            for version in empty:
                del self._contents[version]
            # Twice what is needed: the next look at all of them is as far away as this was long.
            self._contents_max = max(_CONTENTS_MIN, 2 * len(self._contents))

    async def read(self, content: Content, start: int, stop: int, fetch: Span) -> memoryview:
        """Bytes [start, stop) of a version, which must not be empty.

        fetch, a span that contains [start, stop), is what to ask for where something is missing.
        The view is valid as long as it is referenced. Raises what ObjectStore.read_range raises.
        """
        waited = False
        while True:
            runs, gaps = content.cover(start, stop)
            if gaps:
                waited = True
                await self._fetch_missing(content, start, stop, fetch)
                runs, gaps = content.cover(start, stop)
            if gaps:
                continue
            for run in runs:
                run.block.pin()
            arriving = [run for run in runs if run.arrived_stop < min(stop, run.stop)]
            try:
                for run in arriving:
                    waited = True
                    await run.arrival(min(stop, run.stop))
                view = _joined(runs, start, stop)
                if view is not None:
                    self._count(stop - start, waited=waited)
                    return view
                # What cut a run before this read came does not concern it.
                error = next((run.error for run in arriving if run.error is not None), None)
                if error is not None:
                    raise error
            finally:
                for run in runs:
                    run.block.unpin()

    def want(self, content: Content, start: int, stop: int, fetch: Span) -> bool:
        """Begin to fetch what `read` will need; whether it needs nothing. Not a checkpoint."""
        runs, gaps = content.cover(start, stop)
        if not gaps:
            return all(run.arrived_stop >= min(stop, run.stop) for run in runs)
        spans = _touching(content.cover(*fetch)[1], start, stop)
        if content.failure(start, stop) is None:
            blocks = self._take_nowait(self._blocks_needed(spans))
            if blocks is not None:
                self._begin_all(content, spans, blocks)
        return False

    def read_ahead(
        self, content: Content, start: int, stop: int, range_bytes: int
    ) -> tuple[list[Fill], int]:
        """Begin to fetch what is missing of [start, stop), in ranges of at most range_bytes.

        Takes only memory that is free at once. Returns the fetches begun, and how far [start, …)
        is held or on its way now.
        """
        fills: list[Fill] = []
        for gap in content.cover(start, stop)[1]:
            if content.failure(*gap) is not None:
                return fills, gap[0]
            for span in cut(gap, range_bytes):
                blocks = self._take_nowait(self._blocks_needed([span]))
                if blocks is None:
                    return fills, span[0]
                fills.append(self._begin(content, span, iter(blocks), ahead=True))
                self._pool.give_back(blocks)
        return fills, stop

    async def confirm(self, content: Content, stop: int) -> None:
        """Return when the server still has this version. Raises StaleVersion when it has not.

        Costs no request of its own where the front of [0, stop) is missing: the answer to its
        fetch confirms the version, before its bytes are there.
        """
        asked_s = trio.current_time()
        front = content.cover(0, stop)[1][:1]
        if front and front[0][0] == 0:
            blocks = self._take_nowait(self._blocks_needed(front))
            if blocks is not None:
                fill = self._begin(content, front[0], iter(blocks), ahead=False)
                self._pool.give_back(blocks)
                await fill.settled.wait()
                if fill.error is not None and not fill.was_confirmed:
                    raise fill.error
                if fill.was_confirmed:
                    content.confirmed(asked_s)
                    return
        await self._store.confirm(content.version)
        content.confirmed(asked_s)

    def spend(self, content: Content, start: int, stop: int) -> None:
        """A stream has read [start, stop) and gone on: its blocks are the first to be recycled."""
        for run in content.cover(start, stop)[0]:
            if run.stop <= stop and run.arrived_stop == run.stop and run.block.runs == [run]:
                self._pool.spend(run.block)

    @property
    def contents(self) -> Mapping[ObjectVersion, Content]:
        """What is known of each version, for whoever answers questions about it."""
        return self._contents

    async def _fetch_missing(self, content: Content, start: int, stop: int, fetch: Span) -> None:
        """Begin to fetch the gaps of the fetch span that [start, stop) needs.

        Waits only for memory; returns when the fetches are under way, or when it has to look again.
        """
        error = content.failure(start, stop)
        if error is not None:
            raise error
        spans = _touching(content.cover(*fetch)[1], start, stop)
        blocks = self._take_nowait(self._blocks_needed(spans))
        if blocks is None:
            # Memory is short: no more than what is asked for, and look again after waiting.
            blocks = await self._pool.take(self._blocks_needed(content.cover(start, stop)[1]))
            spans = content.cover(start, stop)[1]
        self._begin_all(content, spans, blocks)

    def _take_nowait(self, count: int) -> list[Block] | None:
        """Blocks from the pool; what waits to be written to disk makes way for readers."""
        blocks = self._pool.take_nowait(count)
        while blocks is None and self.disk is not None and self.disk.writer.give_way():
            blocks = self._pool.take_nowait(count)
        return blocks

    def _begin_all(self, content: Content, spans: list[Span], blocks: list[Block]) -> None:
        """Begin the fetches of spans if the blocks suffice, and return what is left of them."""
        if self._blocks_needed(spans) <= len(blocks):
            fresh = iter(blocks)
            for span in spans:
                self._begin(content, span, fresh, ahead=False)
        self._pool.give_back(blocks)

    def _begin(self, content: Content, span: Span, fresh: Iterator[Block], *, ahead: bool) -> Fill:
        """Make the runs of a span, taking fresh blocks where needed, and start to fetch them."""
        runs = []
        for start, stop in cut(span, self._pool.block_bytes):
            run = Run(content, start, stop, self._place(stop - start, fresh))
            # At once: placing the next run may put this block down, and give it to a waiter.
            run.block.pin()
            content.add(run)
            runs.append(run)
        fill = Fill(runs)
        self._fetches.start(
            f"fetch of {content.version.key!r}",
            self._fetch,
            content,
            fill,
            ahead,
            on_bug=lambda bug: fill.end(_failure(bug)),  # where that had not happened
        )
        return fill

    def _place(self, size_bytes: int, fresh: Iterator[Block]) -> Block:
        """The block for a run: the open one if it fits, else a fresh one.

        Small runs share blocks, one behind the other. The open block is pinned, so that it is not
        recycled between two of them.
        """
        if self._open is not None and size_bytes <= self._room():
            return self._open
        block = next(fresh)
        if size_bytes <= self._pool.block_bytes // 2:
            block.pin()
            if self._open is not None:
                self._open.unpin()
            self._open = block
        return block

    def _blocks_needed(self, spans: Sequence[Span]) -> int:
        """How many fresh blocks `_place` will take for these spans."""
        size_bytes = self._pool.block_bytes
        count, room = 0, self._room()
        for span in spans:
            for start, stop in cut(span, size_bytes):
                if stop - start <= room:
                    room -= stop - start
                    continue
                count += 1
                if stop - start <= size_bytes // 2:
                    room = size_bytes - (stop - start)
        return count

    def _room(self) -> int:
        return 0 if self._open is None else self._pool.block_bytes - self._open.used_bytes

    async def _fetch(self, content: Content, fill: Fill, ahead: bool) -> None:
        error: StsfsError | None = None
        try:
            with fill.scope:
                if self.disk is not None:
                    await self.disk.deliver(content.version, fill, ahead=ahead)
                else:
                    await self._store.read_range(
                        content.version, fill.start, fill.stop, fill, ahead=ahead
                    )
        except StsfsError as exc:
            error = without_frames(exc)
        except Exception as bug:
            error = _failure(bug)  # for whoever waits for these bytes
            raise
        finally:
            if isinstance(error, StaleVersion):
                content.fail(0, content.version.size_bytes, error)
            elif error is not None:
                content.fail(fill.missing_from, fill.stop, error)
            fill.end(error)

    def _count(self, size_bytes: int, *, waited: bool) -> None:
        if waited:
            self.counters.misses += 1
            self.counters.miss_bytes += size_bytes
        else:
            self.counters.hits += 1
            self.counters.hit_bytes += size_bytes


def _failure(bug: Exception) -> StoreFailure:
    return StoreFailure(f"A bug of stsfs: {bug!r}.", remedy="Please report it; see `stsfs status`.")


def cut(span: Span, piece_bytes: int) -> Iterator[Span]:
    """Cut a span at the multiples of piece_bytes; one of at most half a piece is left whole."""
    start, stop = span
    if stop - start <= piece_bytes // 2:
        yield span
        return
    while start < stop:
        end = min(stop, start - start % piece_bytes + piece_bytes)
        yield start, end
        start = end


def _touching(gaps: list[Span], start: int, stop: int) -> list[Span]:
    """The gaps that [start, stop) has a part in."""
    return [gap for gap in gaps if gap[0] < stop and start < gap[1]]


def _joined(runs: Sequence[Run], start: int, stop: int) -> memoryview | None:
    """Bytes [start, stop) of runs in order: a view of one, a copy of several, None if incomplete.

    Pins the block of a single run for as long as the view lives.
    """
    position = start
    for run in runs:
        if run.start > position:
            return None
        position = run.arrived_stop
    if position < stop:
        return None
    if len(runs) == 1:
        run = runs[0]
        return run.block.lend(run.place + start - run.start, run.place + stop - run.start)
    parts = []
    for run in runs:
        first, last = max(start, run.start), min(stop, run.stop)
        parts.append(run.block.memory[run.place + first - run.start : run.place + last - run.start])
    return memoryview(b"".join(parts))
