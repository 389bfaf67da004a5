"""What the cache holds of one version: runs of bytes, complete or still arriving."""

from bisect import bisect_left, bisect_right

import trio

from stsfs.cache.block_pool import Block
from stsfs.errors import StaleVersion, StsfsError
from stsfs.store.object_store import ObjectVersion

GRAIN_BYTES = 16 * 1024
"""What random reads are rounded out to: a few pages, so that neighbours hit; little is wasted."""

FAILURE_REMEMBERED_S = 1.0
"""The kernel asks twice for a read that fails, for the read-ahead and then for the page."""


class Run:
    """Consecutive bytes [start, stop) of one version, in one block.

    Arrives from the front: [start, arrived_stop) can be read. A run that fails keeps what has
    arrived and gives up the rest.
    """

    __slots__ = ("_waiters", "arrived_stop", "block", "content", "error", "place", "start", "stop")

    def __init__(self, content: "Content", start: int, stop: int, block: Block) -> None:
        self.content = content
        self.start = start
        self.stop = stop
        self.arrived_stop = start
        self.block = block
        self.place = block.used_bytes
        """Where in the block the run begins."""

        self.error: StsfsError | None = None
        self._waiters: list[tuple[int, trio.Event]] = []
        block.used_bytes += stop - start
        block.runs.append(self)

    @property
    def awaited(self) -> bool:
        """Somebody waits for bytes of this run."""
        return bool(self._waiters)

    def memory(self) -> memoryview:
        """Where the next bytes go."""
        begin = self.place + self.arrived_stop - self.start
        return self.block.memory[begin : self.place + self.stop - self.start]

    def advance(self, count_bytes: int) -> None:
        """count_bytes more have arrived: wake whoever waited for just these."""
        self.arrived_stop += count_bytes
        assert self.arrived_stop <= self.stop
        if self._waiters:
            self._wake(self.arrived_stop)

    def cut(self, error: StsfsError | None) -> None:
        """Nothing more will arrive. Keeps the front, and wakes all who wait."""
        self.error = error
        self.stop = self.arrived_stop
        if self.stop == self.start:
            self.drop()
        self._wake(None)

    def drop(self) -> None:
        """Forget these bytes; the block may take them away."""
        self.content.remove(self)
        self.block.runs.remove(self)
        if not self.block.runs:
            self.block.pool.emptied(self.block)

    async def arrival(self, stop: int) -> None:
        """Return when [start, stop) can be read, or never will be. A checkpoint if it waits.

        The caller pins the block, and looks again afterwards.
        """
        if self.arrived_stop >= stop or self.stop < stop:
            return
        event = trio.Event()
        waiter = (stop, event)
        self._waiters.append(waiter)
        try:
            await event.wait()
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self, arrived_stop: int | None) -> None:
        still = []
        for waiter in self._waiters:
            if arrived_stop is None or waiter[0] <= arrived_stop:
                waiter[1].set()
            else:
                still.append(waiter)
        self._waiters = still


class Content:
    """The runs of one version, in order, never overlapping; and what went wrong lately."""

    def __init__(self, version: ObjectVersion) -> None:
        self.version = version
        self.users = 0
        """Open handles; a content without users and runs is forgotten."""

        self._runs: list[Run] = []
        self._starts: list[int] = []
        self._failures: list[tuple[float, int, int, StsfsError]] = []

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: Run) -> None:
        """Put a new run into a gap."""
        index = bisect_left(self._starts, run.start)
        self._runs.insert(index, run)
        self._starts.insert(index, run.start)

    def remove(self, run: Run) -> None:
        """Take a run out; its bytes are a gap again."""
        index = bisect_left(self._starts, run.start)
        assert self._runs[index] is run
        del self._runs[index], self._starts[index]

    def cover(self, start: int, stop: int) -> tuple[list[Run], list[tuple[int, int]]]:
        """The runs that touch [start, stop), in order, and the gaps between them."""
        runs: list[Run] = []
        gaps: list[tuple[int, int]] = []
        position = start
        index = self._first_beyond(start)
        while index < len(self._runs) and self._starts[index] < stop:
            run = self._runs[index]
            if run.start > position:
                gaps.append((position, run.start))
            runs.append(run)
            position = run.stop
            index += 1
        if position < stop:
            gaps.append((position, stop))
        return runs, gaps

    def held_until(self, start: int) -> int:
        """The end of what is held, or on its way, without a gap from start on."""
        position = start
        index = self._first_beyond(start)
        while index < len(self._runs) and self._starts[index] <= position:
            position = self._runs[index].stop
            index += 1
        return position

    @property
    def held_bytes(self) -> int:
        """How many bytes have arrived and are kept."""
        return sum(run.arrived_stop - run.start for run in self._runs)

    def forget(self) -> None:
        """Drop all complete runs, and every remembered failure; what is arriving goes on."""
        for run in reversed([run for run in self._runs if run.arrived_stop == run.stop]):
            run.drop()  # from the end, where taking one out moves no others
        self._failures.clear()

    def fail(self, start: int, stop: int, error: StsfsError) -> None:
        """Remember that [start, stop) could not be had."""
        now_s = trio.current_time()
        self._failures = [f for f in self._failures if f[0] > now_s]
        self._failures.append((now_s + FAILURE_REMEMBERED_S, start, stop, error))

    def failure(self, start: int, stop: int) -> StsfsError | None:
        """The remembered reason why a part of [start, stop) cannot be had just now."""
        if self._failures:
            now_s = trio.current_time()
            for until_s, begin, end, error in self._failures:
                if until_s > now_s and begin < stop and start < end:
                    return error
        return None

    def confirmed(self, asked_s: float) -> None:
        """The server has had this version since asked_s: being stale before no longer counts.

        An object that is put back to its old bytes is the old version again.
        """
        self._failures = [
            failure
            for failure in self._failures
            if not isinstance(failure[3], StaleVersion)
            or failure[0] > asked_s + FAILURE_REMEMBERED_S
        ]

    def _first_beyond(self, position: int) -> int:
        """Index of the first run that ends after position."""
        index = bisect_right(self._starts, position) - 1
        if index < 0 or self._runs[index].stop <= position:
            index += 1
        return index
