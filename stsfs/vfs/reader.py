"""Reads of one open handle: from the cache, with read-ahead where they follow each other."""

from collections.abc import Sequence
from typing import Protocol

import trio

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.cache.content import GRAIN_BYTES
from stsfs.cache.fill import Fill
from stsfs.store.object_store import ObjectStore, ObjectVersion
from stsfs.vfs.streams import ReadPattern, Stream

ACTIVE_S = 2.0
"""A stream counts as active for this long after its last read."""


class ReadAheadBudget:
    """Half of what the pool may have at the moment, shared by the streams that are active."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._active: dict[Stream, float] = {}
        self._prune_at_s = 0.0

    @property
    def active_count(self) -> int:
        """Streams that read within the last seconds."""
        self._prune()
        return len(self._active)

    def share_bytes(self, stream: Stream) -> int:
        """The largest window this stream may have now."""
        now_s = trio.current_time()
        if stream not in self._active or now_s >= self._prune_at_s:
            self._prune()
            self._prune_at_s = now_s + ACTIVE_S
        self._active[stream] = now_s
        return self._pool.budget_bytes // 2 // len(self._active)

    def leave(self, stream: Stream) -> None:
        """The stream's handle is closed."""
        self._active.pop(stream, None)

    def _prune(self) -> None:
        oldest_s = trio.current_time() - ACTIVE_S
        self._active = {s: t for s, t in self._active.items() if t >= oldest_s}


class Reader(Protocol):
    """How the bytes of an open file are read."""

    @property
    def streams(self) -> Sequence[Stream]:
        """What is read in sequence, most recently used last; to look at."""

    async def confirm(self) -> None:
        """Return when the server still has this version. Raises StaleVersion when it has not."""

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        """Bytes from offset on; short only at the end of the file."""

    def close(self) -> None:
        """The handle is closed. Not a checkpoint."""


class CachedReader:
    """Reads through the block cache."""

    def __init__(self, cache: BlockCache, version: ObjectVersion, budget: ReadAheadBudget) -> None:
        self._cache = cache
        self._content = cache.enter(version)
        self._size_bytes = version.size_bytes
        self._budget = budget
        self._fills: list[Fill] = []
        self._pattern = ReadPattern(
            version.size_bytes, block_bytes=cache.pool.block_bytes, grain_bytes=GRAIN_BYTES
        )

    @property
    def streams(self) -> Sequence[Stream]:
        """See Reader."""
        return self._pattern.streams

    async def confirm(self) -> None:
        """Return when the server still has this version; see BlockCache.confirm."""
        front = self._pattern.fetch_span(Stream(start=0, position=0), 0, 0)
        await self._cache.confirm(self._content, front[1])

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        """See Reader."""
        stop = min(offset + size_bytes, self._size_bytes)
        if offset >= stop:
            return memoryview(b"")
        pattern = self._pattern
        stream = pattern.observe(offset, stop)
        fetch = pattern.fetch_span(stream, offset, stop)
        hit = self._cache.want(self._content, offset, stop, fetch)
        if stream.window_bytes:
            self._read_ahead(stream, waited=not hit)
        view = await self._cache.read(self._content, offset, stop, fetch)
        spent = pattern.spent_span(stream)
        if spent is not None:
            self._cache.spend(self._content, *spent)
        return view

    def close(self) -> None:
        """See Reader. Read-ahead that nobody waits for ends with its handle."""
        for fill in self._fills:
            fill.abandon()
        for stream in self._pattern.streams:
            self._budget.leave(stream)
        self._cache.leave(self._content)

    def _read_ahead(self, stream: Stream, *, waited: bool) -> None:
        window_max_bytes = self._budget.share_bytes(stream)
        span = self._pattern.ahead_span(
            stream,
            waited=waited,
            window_max_bytes=window_max_bytes,
            now_s=trio.current_time(),
        )
        if span is None:
            return
        range_bytes = self._pattern.range_bytes(stream)
        fills, stream.ahead = self._cache.read_ahead(self._content, *span, range_bytes)
        self._fills = [fill for fill in self._fills if not fill.ended] + fills


class _Buffer:
    """RangeSink into memory of its own."""

    def __init__(self, size_bytes: int) -> None:
        self._memory = memoryview(bytearray(size_bytes))
        self._arrived_bytes = 0

    def confirmed(self) -> None:
        pass

    def buffer(self) -> memoryview:
        return self._memory[self._arrived_bytes :]

    def received(self, count_bytes: int) -> None:
        self._arrived_bytes += count_bytes

    def view(self) -> memoryview:
        return self._memory.toreadonly()


class DirectReader:
    """O_DIRECT: each read asks the store, and leaves nothing behind."""

    streams: Sequence[Stream] = ()

    def __init__(self, store: ObjectStore, version: ObjectVersion) -> None:
        self._store = store
        self._version = version

    async def confirm(self) -> None:
        """Return when the server still has this version."""
        await self._store.confirm(self._version)

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        """See Reader."""
        stop = min(offset + size_bytes, self._version.size_bytes)
        if offset >= stop:
            return memoryview(b"")
        sink = _Buffer(stop - offset)
        await self._store.read_range(self._version, offset, stop, sink)
        return sink.view()

    def close(self) -> None:
        """See Reader."""
