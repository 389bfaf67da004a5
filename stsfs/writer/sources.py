"""Where bytes of the object come from that a file was staged over."""

from collections.abc import Callable
from typing import Protocol

from stsfs.store.object_store import ObjectStore, ObjectVersion


class Source(Protocol):
    """Reads one version. The readers of the vfs are sources."""

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        """Bytes from offset on; short only at the end. Raises what ObjectStore raises."""

    def close(self) -> None:
        """Nobody reads any more. Not a checkpoint."""


OpenSource = Callable[[ObjectVersion], Source]


class StoreSource:
    """Asks the store for each read, and keeps nothing."""

    def __init__(self, store: ObjectStore, version: ObjectVersion) -> None:
        self._store, self._version = store, version

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        """See Source."""
        stop = min(offset + size_bytes, self._version.size_bytes)
        if offset >= stop:
            return memoryview(b"")
        sink = _Memory(stop - offset)
        await self._store.read_range(self._version, offset, stop, sink)
        return sink.whole()

    def close(self) -> None:
        """See Source."""


class _Memory:
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

    def whole(self) -> memoryview:
        return self._memory.toreadonly()
