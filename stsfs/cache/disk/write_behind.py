"""What has been read goes to disk behind the reader's back: later, in batches, or not at all.

Bytes that wait are pinned in the memory cache and given up as soon as a reader wants the memory.
Where all processors are busy the writer holds back, because it would take its time from readers.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from stsfs.cache.block_pool import Block, BlockPool
from stsfs.cache.disk.disk_cache import DiskCache, Lost, Outcome, Piece, Work
from stsfs.cache.disk.health import Health
from stsfs.store.object_store import ObjectVersion
from stsfs.supervisor import kept_running, unfailing

log = logging.getLogger(__name__)

BATCH_BYTES = 8 * 1024 * 1024
QUEUE_SHARE = 2
QUEUE_BYTES_MAX = 64 * 1024 * 1024
"""What waits to be written holds at most this, and one part in so many of the memory cache."""

BATCH_SHARE = 4
"""What is being written, and cannot give way, holds at most one part in so many of it."""

GATHER_S = 1.0
"""How long less than a batch waits for more: each transaction costs as much as a megabyte."""

RETRY_S = 30.0
"""After trouble, until the directory is tried again."""

OPEN_PATIENCE_S = 2.0
"""How long the mount waits for the directory to open; it goes on without."""

DRAIN_S = 5.0
"""At the end, for what still waits to be written."""

IDLE_SHARE_MIN = 0.15
"""With less of the processors idle, the writer holds back."""

BUSY_REST = 10.0
"""How much longer than a batch it then rests, so that it costs readers a tenth at most."""


@dataclass(slots=True)
class WriteCounters:
    """What became of the bytes that were read from the store."""

    written_bytes: int = 0
    dropped_bytes: int = 0
    """Not written: the disk or the processors were behind, or there was no room."""

    evicted_bytes: int = 0


@dataclass(slots=True)
class Queued:
    """Bytes on their way to the disk; the blocks they lie in are pinned."""

    version: ObjectVersion
    pieces: list[Piece]
    blocks: list[Block]
    size_bytes: int


class WriteBehind:
    """The one writer of a mount. `run` must be running while bytes are offered."""

    def __init__(
        self,
        disk: DiskCache,
        health: Health,
        pool: BlockPool,
        written: Callable[[Sequence[Queued]], None],
    ) -> None:
        self.counters = WriteCounters()
        self.stored_bytes = 0
        """What the directory held when it was last looked at."""

        self._disk = disk
        self._health = health
        self._written = written
        self._pool = pool
        self._queue: deque[Queued] = deque()
        self._queue_bytes = 0
        self._pins: Counter[Block] = Counter()
        """Of the blocks that hold what is queued or being written."""

        self._lost: list[Lost] = []
        self._used: set[tuple[bytes, int]] = set()
        self._is_urgent = trio.Event()
        self._opened = trio.Event()
        self._ending = trio.Event()

    @property
    def waiting_bytes(self) -> int:
        """What is queued or being written."""
        return self._queue_bytes

    @property
    def _blocks_max(self) -> int:
        pool = self._pool
        return min(QUEUE_BYTES_MAX // pool.block_bytes, pool.blocks_max // QUEUE_SHARE)

    @property
    def _batch_blocks_max(self) -> int:
        return max(1, min(self._blocks_max, self._pool.blocks_max // BATCH_SHARE))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the directory and write to it until cancelled; then write what is left."""
        async with trio.open_nursery() as nursery:
            # Not cancelled in the middle of a batch: its thread would go on with blocks of ours.
            writing = trio.CancelScope(shield=True)
            nursery.start_soon(self._write, writing)
            try:
                with trio.move_on_after(OPEN_PATIENCE_S):
                    await self._opened.wait()
                task_status.started()
                await trio.sleep_forever()
            finally:
                writing.deadline = trio.current_time() + DRAIN_S
                self._ending.set()
                self._is_urgent.set()

    def offer(self, queued: Queued) -> bool:
        """Take over bytes and their pins; False when there is no use for them."""
        fresh = {block for block in queued.blocks if block not in self._pins}
        is_full = len(self._pins) + len(fresh) > self._blocks_max
        if is_full or self._pool.is_wanted or not self._health.can_write:
            self.counters.dropped_bytes += queued.size_bytes
            return False
        self._queue.append(queued)
        self._queue_bytes += queued.size_bytes
        self._pins.update(queued.blocks)
        if self._is_batch_full():
            self._is_urgent.set()
        return True

    def give_way(self) -> bool:
        """Let go of the memory that has waited longest; False if there is none. No checkpoint."""
        if not self._queue:
            return False
        queued = self._queue.popleft()
        self.counters.dropped_bytes += queued.size_bytes
        self._let_go(queued)
        return True

    def note_used(self, version: bytes, number: int) -> None:
        """A chunk was read: it is not the next to be given up."""
        self._used.add((version, number))

    def note_lost(self, lost: Lost) -> None:
        """A chunk is not what the index says."""
        self._lost.append(lost)

    async def _write(self, scope: trio.CancelScope) -> None:
        with scope:
            await kept_running("writer of the disk cache", self._write_all)
        with unfailing("closing the disk cache"):
            self._disk.close()

    async def _write_all(self) -> None:
        processors = IdleProcessors()
        await self._open()
        self._opened.set()
        while not self._ending.is_set():
            if not self._health.can_write:
                self._drop_all()
                with trio.move_on_after(RETRY_S):
                    await self._ending.wait()
                await self._open()
            elif not self._is_batch_full():
                with trio.move_on_after(GATHER_S):
                    await self._is_urgent.wait()
            begun_s = trio.current_time()
            await self._write_batch()
            if processors.idle_share() < IDLE_SHARE_MIN:
                with trio.move_on_after(BUSY_REST * (trio.current_time() - begun_s)):
                    await self._ending.wait()
        while self._queue and self._health.can_write:
            await self._write_batch()
        self._drop_all()

    def _is_batch_full(self) -> bool:
        return self._queue_bytes >= BATCH_BYTES or len(self._pins) >= self._batch_blocks_max

    def _drop_all(self) -> None:
        while self.give_way():
            pass

    async def _write_batch(self) -> None:
        """Write some of what is queued, and what reads have found out."""
        batch, size_bytes = self._next_batch()
        self._is_urgent = trio.Event()
        work = Work([piece for queued in batch for piece in queued.pieces], self._lost, self._used)
        self._lost, self._used = [], set()
        if not (work.pieces or work.lost or work.used):
            return
        outcome = None
        try:
            outcome = await trio.to_thread.run_sync(self._disk.work, work, abandon_on_cancel=True)
        except Exception as exc:  # noqa: BLE001 - whatever the disk does costs speed, no mount
            self._health.cannot_write(exc)
        # Not after a cancelled wait: the thread may still read the blocks.
        for queued in batch:
            self._let_go(queued)
        self._note(batch, outcome, size_bytes)

    def _next_batch(self) -> tuple[list[Queued], int]:
        batch: list[Queued] = []
        blocks: set[Block] = set()
        size_bytes = 0
        while self._queue and size_bytes < BATCH_BYTES:
            blocks.update(self._queue[0].blocks)
            if batch and len(blocks) > self._batch_blocks_max:
                break
            batch.append(self._queue.popleft())
            size_bytes += batch[-1].size_bytes
        return batch, size_bytes

    def _let_go(self, queued: Queued) -> None:
        self._queue_bytes -= queued.size_bytes
        self._pins.subtract(queued.blocks)
        for block in queued.blocks:
            if not self._pins[block]:
                del self._pins[block]
            block.unpin()

    def _note(self, batch: list[Queued], outcome: Outcome | None, size_bytes: int) -> None:
        if outcome is None or outcome.no_room:
            self.counters.dropped_bytes += size_bytes
        if outcome is None:
            return
        self.counters.written_bytes += outcome.written_bytes
        self.counters.evicted_bytes += outcome.evicted_bytes
        self.stored_bytes = outcome.stored_bytes
        if outcome.no_room:
            self._health.say_once("the file system, or --cache-size, leaves it no room")
            return
        if batch:
            self._health.worked()
            self._written(batch)

    async def _open(self) -> None:
        try:
            self.stored_bytes = await trio.to_thread.run_sync(
                self._disk.open, abandon_on_cancel=True
            )
        except Exception as exc:  # noqa: BLE001 - see above
            self._health.cannot_read(exc)
        else:
            self._health.opened()


class IdleProcessors:
    """How much of the machine's processors was idle since the last look."""

    def __init__(self, proc_stat: Path = Path("/proc/stat")) -> None:
        self._proc_stat = proc_stat
        self._last = self._ticks()

    def idle_share(self) -> float:
        """Between 0 and 1; 1 when too little time has passed to tell."""
        now = self._ticks()
        idle, total = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now
        return idle / total if total > 0 else 1.0

    def _ticks(self) -> tuple[int, int]:
        """Idle (waiting for disks included), and all, since boot; see proc_stat(5)."""
        try:
            with open(self._proc_stat, "rb") as file:
                fields = [int(field) for field in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return 0, 0
        return sum(fields[3:5]), sum(fields)
