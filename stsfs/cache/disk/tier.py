"""The disk as a tier between memory and the store: it may save time, and may never cost more.

Readers wait for the disk only while it is quick; what goes to the disk goes there after the
reader has it. Whatever is wrong with the directory is said once, shown by `status`, and tried
again later; meanwhile everything comes from the store.
"""

import errno
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import trio
from cachetools import LRUCache

from stsfs.cache.block_pool import BlockPool
from stsfs.cache.content import GRAIN_BYTES, Run
from stsfs.cache.disk.disk_cache import DiskCache, Lost, Piece
from stsfs.cache.disk.health import Health
from stsfs.cache.disk.layout import (
    CHUNK_BYTES,
    Span,
    bits,
    held_spans,
    per_chunk,
    version_id,
    whole_grains,
)
from stsfs.cache.disk.write_behind import Queued, WriteBehind
from stsfs.cache.fill import Fill
from stsfs.store.object_store import ObjectStore, ObjectVersion

log = logging.getLogger(__name__)

T = TypeVar("T")

READ_DEADLINE_S = 1.0
"""A disk that takes longer is slower than the network."""

THREADS_MAX = 8
READ_BYTES = 1024 * 1024

VERSIONS_MAX = 1000
"""Versions whose bitmaps are kept in memory."""

SHORT_SPAN_BYTES = 256 * 1024
"""Less than this between two gaps is fetched with them: one request instead of two."""


@dataclass(slots=True)
class ReadCounters:
    """Where the bytes came from that memory did not have."""

    hit_bytes: int = 0
    miss_bytes: int = 0
    damaged: int = 0
    """Reads that found something else than what had been written."""


class DiskTier:
    """Delivers ranges from disk where they are held, else from the store, and keeps those.

    `writer.run` must be running while ranges are delivered.
    """

    def __init__(
        self, disk: DiskCache, store: ObjectStore, sites: Mapping[int, str], pool: BlockPool
    ) -> None:
        self.counters = ReadCounters()
        self._disk = disk
        self._store = store
        self._sites = sites
        self._health = Health(disk.directory.path)
        self.writer = WriteBehind(disk, self._health, pool, self._note_written)
        self._held: LRUCache[ObjectVersion, dict[int, int]] = LRUCache(VERSIONS_MAX)
        self._buffers: list[memoryview] = []
        self._threads = trio.CapacityLimiter(THREADS_MAX)
        self._turns = trio.Semaphore(THREADS_MAX)

    async def deliver(self, version: ObjectVersion, fill: Fill, *, ahead: bool) -> None:
        """Deliver the range of fill. Raises what ObjectStore.read_range raises."""
        position = fill.start
        while position < fill.stop:
            held = await self._load(version)
            # Only the first part: what the disk turns out not to have changes the rest.
            (start, stop), is_held = plan(held, position, fill.stop)[0]
            if is_held:
                position = await self._from_disk(version, fill, start, stop)
                if position > start:
                    continue
                held = await self._load(version)
                (_, stop), _ = plan(held, position, fill.stop)[0]
            await self._from_store(version, fill, start, stop, ahead=ahead)
            position = stop

    def look_again(self, version: ObjectVersion) -> None:
        """Forget which bytes of a version are on disk: another mount may have put more there."""
        self._held.pop(version, None)

    async def held_bytes(self, version: ObjectVersion) -> int | None:
        """What there is of a version on disk; None if that cannot be said."""
        if not self._health.can_read:
            return None
        held = await self._ask(self._disk.held, self._id(version))
        if held is None:
            return None
        return sum(stop - start for start, stop in held_spans(held, 0, version.size_bytes))

    def status(self) -> dict[str, object]:
        """For `stsfs status`."""
        return {
            "directory": str(self._disk.directory.path),
            "state": self._health.state,
            "reason": self._health.reason,
            "stored_bytes": self.writer.stored_bytes,
            "limit_bytes": self._disk.limit_bytes,
            "waiting_bytes": self.writer.waiting_bytes,
            **asdict(self.counters),
            **asdict(self.writer.counters),
        }

    def _id(self, version: ObjectVersion) -> bytes:
        return version_id(self._sites[version.location_id], version, self._disk.key)

    async def _load(self, version: ObjectVersion) -> dict[int, int]:
        """The bitmaps of a version; empty where the disk cannot be read."""
        if not self._health.can_read:
            return {}
        held = self._held.get(version)
        if held is None:
            held = await self._ask(self._disk.held, self._id(version))
            if held is None:
                return {}
            self._held[version] = held
        return held

    async def _ask(self, call: Callable[..., T], *arguments: object) -> T | None:
        """What a call on the directory returns; None when it is slow, or in trouble.

        Who waits long for his turn asks the store; only a call that has its turn and takes long
        says something about the disk.
        """
        turn = False
        with trio.move_on_after(READ_DEADLINE_S):
            await self._turns.acquire()
            turn = True
        if not turn:
            return None
        try:
            with trio.fail_after(READ_DEADLINE_S):
                return await trio.to_thread.run_sync(
                    call, *arguments, abandon_on_cancel=True, limiter=self._threads
                )
        except trio.TooSlowError:
            self._health.cannot_read(_too_slow())
        except Exception as exc:  # noqa: BLE001 - whatever the disk does costs only speed
            self._health.cannot_read(exc)
        finally:
            self._turns.release()
        return None

    async def _from_disk(self, version: ObjectVersion, fill: Fill, start: int, stop: int) -> int:
        """Deliver [start, stop) from disk as far as it is there and right; how far that was."""
        name = self._id(version)
        while start < stop and self._health.can_read:
            number = start // CHUNK_BYTES
            end = min(stop, start + READ_BYTES, (number + 1) * CHUNK_BYTES)
            read = await self._ask(self._read, name, version.size_bytes, start, end)
            if read is None:
                break
            data, buffer = read
            if data is None:
                self._note_gone(version, name, number)
                break
            _copy(data, fill)
            start += len(data)
            self.counters.hit_bytes += len(data)
            self.writer.note_used(name, number)
            if len(self._buffers) < THREADS_MAX:
                self._buffers.append(buffer)
            if start < end:
                self._note_damaged(version, name, start, end)
                break
        return start

    def _read(
        self, name: bytes, size_bytes: int, start: int, stop: int
    ) -> tuple[memoryview | None, memoryview]:
        """In a thread: see DiskCache.read; and the buffer that may be used again afterwards.

        Not straight into a block: a thread that hangs would write into it when it is another's.
        """
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = memoryview(bytearray(READ_BYTES + 2 * GRAIN_BYTES))
        return self._disk.read(name, size_bytes, start, stop, buffer), buffer

    def _note_gone(self, version: ObjectVersion, name: bytes, number: int) -> None:
        """The bitmap is older than an eviction; or the file of the chunk cannot be read."""
        held = self._held.get(version, {})
        self.writer.note_lost(Lost(name, number, held.pop(number, 0)))

    def _note_damaged(self, version: ObjectVersion, name: bytes, start: int, stop: int) -> None:
        """What the bitmap promised is not right: it is fetched and written anew."""
        self.counters.damaged += 1
        number, grains = start // CHUNK_BYTES, bits(start, stop)
        self.writer.note_lost(Lost(name, number, grains))
        held = self._held.get(version, {})
        if number in held:
            held[number] &= ~grains
        log.info("the cached bytes %d-%d of %s are damaged", start, stop, version.key)

    async def _from_store(
        self, version: ObjectVersion, fill: Fill, start: int, stop: int, *, ahead: bool
    ) -> None:
        runs = [run for run in fill.runs if run.start < stop and start < run.stop]
        for run in runs:
            run.block.pin()
        has_taken_pins = False
        try:
            await self._store.read_range(version, start, stop, fill, ahead=ahead)
            self.counters.miss_bytes += stop - start
            has_taken_pins = self._keep(version, runs, start, stop)
        finally:
            if not has_taken_pins:
                for run in runs:
                    run.block.unpin()

    def _keep(self, version: ObjectVersion, runs: Sequence[Run], start: int, stop: int) -> bool:
        """Queue [start, stop), which has just arrived in runs; whether the pins are taken over."""
        name = self._id(version)
        pieces = []
        for run in runs:
            first, last = whole_grains(
                max(start, run.start), min(stop, run.stop), version.size_bytes
            )
            if first < last:
                place = run.place - run.start
                pieces.append(Piece(name, first, run.block.memory[place + first : place + last]))
        if not pieces:
            return False
        blocks = [run.block for run in runs]
        return self.writer.offer(Queued(version, pieces, blocks, stop - start))

    def _note_written(self, batch: Sequence[Queued]) -> None:
        for queued in batch:
            held = self._held.get(queued.version)
            if held is None:
                continue
            for piece in queued.pieces:
                for number, start, stop in per_chunk(piece.start, piece.start + len(piece.data)):
                    held[number] = held.get(number, 0) | bits(start, stop)


def plan(held: Mapping[int, int], start: int, stop: int) -> list[tuple[Span, bool]]:
    """[start, stop) cut into parts that are held on disk and parts that are not, in order."""
    parts: list[tuple[Span, bool]] = []
    position = start
    for begin, end in held_spans(held, start, stop):
        if end - begin < SHORT_SPAN_BYTES and start < begin and end < stop:
            continue
        if position < begin:
            parts.append(((position, begin), False))
        parts.append(((begin, end), True))
        position = end
    if position < stop:
        parts.append(((position, stop), False))
    return parts


def _copy(data: memoryview, fill: Fill) -> None:
    while data:
        room = fill.buffer()
        count = min(len(room), len(data))
        room[:count] = data[:count]
        fill.received(count)
        data = data[count:]


def _too_slow() -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, f"no answer from the disk within {READ_DEADLINE_S:g} s")
