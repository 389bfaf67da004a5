"""An object store in memory: other writers, faults and delays by script, counts of requests."""

import hashlib
from collections import Counter
from dataclasses import dataclass

import trio

from stsfs.errors import StaleVersion
from stsfs.store.object_store import ListedObject, ListPage, ObjectVersion

MODIFIED_UNIX_S = 1_700_000_000.0


@dataclass(frozen=True)
class Fault:
    """What happens to one request: a delay, then perhaps an error after so many bytes."""

    error: Exception | None = None
    after_bytes: int = 0
    delay_s: float = 0.0


@dataclass(frozen=True)
class Stored:
    """One object as it is now."""

    data: bytes
    etag: str
    storage_class: str = "STANDARD"


class MemoryStore:
    """ObjectStore over a dict.

    `scripts["read_range"]` holds Faults (or None), one used up per call; likewise for `confirm`
    and `list_page`. Bodies arrive in pieces of `piece_bytes`, one each `piece_s`.
    """

    def __init__(self, *, page_keys=1000, location_id=1):
        self.objects = {}
        self.scripts = {}
        self.calls = Counter()
        self.reads, self.lists = [], []
        self.fetched_bytes = 0
        self.piece_bytes, self.piece_s = 1 << 20, 0.0
        self.page_keys = page_keys
        self._location_id = location_id
        self._puts = 0

    def put(self, key, data=b"", *, storage_class="STANDARD"):
        """Another client writes; returns the version. The same bytes have the same ETag."""
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        self.objects[key] = Stored(bytes(data), etag, storage_class)
        return ObjectVersion(self._location_id, key, etag, len(data))

    def delete(self, key):
        """Another client deletes."""
        self.objects.pop(key, None)

    def script(self, method, *faults):
        """Append faults for the next calls of a method."""
        self.scripts.setdefault(method, []).extend(faults)

    async def read_range(self, version, start, stop, sink, *, ahead=False):
        self.calls["read_range"] += 1
        self.reads.append((version.key, start, stop, ahead))
        fault = await self._next_fault("read_range")
        data = self._current(version).data
        if fault.error is not None and not fault.after_bytes:
            raise fault.error
        sink.confirmed()
        position = start
        while position < stop:
            await trio.sleep(self.piece_s)
            memory = sink.buffer()
            assert len(memory) > 0
            count = min(len(memory), self.piece_bytes, stop - position)
            if fault.error is not None:
                count = min(count, start + fault.after_bytes - position)
            memory[:count] = data[position : position + count]
            sink.received(count)
            self.fetched_bytes += count
            position += count
            if fault.error is not None and position - start >= fault.after_bytes:
                raise fault.error

    async def confirm(self, version):
        self.calls["confirm"] += 1
        fault = await self._next_fault("confirm")
        if fault.error is not None:
            raise fault.error
        self._current(version)

    async def list_page(self, prefix, *, token=None, start_after="", keys_max=1000, delimiter="/"):
        self.calls["list_page"] += 1
        self.lists.append(prefix)
        fault = await self._next_fault("list_page")
        if fault.error is not None:
            raise fault.error
        after, keys_max = (token or start_after).encode(), min(keys_max, self.page_keys)
        return self._page(prefix, after, keys_max, delimiter)

    async def _next_fault(self, method):
        script = self.scripts.get(method)
        fault = (script.pop(0) if script else None) or Fault()
        await trio.sleep(fault.delay_s)
        return fault

    def _current(self, version):
        stored = self.objects.get(version.key)
        if stored is None or stored.etag != version.etag:
            raise StaleVersion(f"{version.key!r} was replaced or deleted.")
        return stored

    def _page(self, prefix, after, keys_max, delimiter):
        found = {}
        for key in sorted(self.objects, key=str.encode):
            if not key.startswith(prefix):
                continue
            head, end, _ = key[len(prefix) :].partition(delimiter or "\0")
            name = prefix + head + end
            if name.encode() > after:
                found[name] = None if end else self.objects[key]
        shown = list(found.items())[:keys_max]
        more = len(found) > keys_max
        objects = [
            ListedObject(name, o.etag, len(o.data), MODIFIED_UNIX_S, o.storage_class)
            for name, o in shown
            if o is not None
        ]
        prefixes = [name for name, o in shown if o is None]
        return ListPage(objects, prefixes, shown[-1][0] if more else None)


class Sink:
    """RangeSink into one bytearray, in pieces as small as a test likes."""

    def __init__(self, size_bytes, buffer_bytes=1 << 20):
        self.memory = bytearray(size_bytes)
        self.arrived_bytes, self.confirmations = 0, 0
        self._buffer_bytes = buffer_bytes

    def confirmed(self):
        self.confirmations += 1

    def buffer(self):
        begin = self.arrived_bytes
        return memoryview(self.memory)[begin : begin + self._buffer_bytes]

    def received(self, count_bytes):
        self.arrived_bytes += count_bytes
        assert self.arrived_bytes <= len(self.memory)

    @property
    def data(self):
        return bytes(self.memory[: self.arrived_bytes])


async def read_all(store, version, start=0, stop=None, **options):
    """The bytes [start, stop) that a store delivers."""
    stop = version.size_bytes if stop is None else stop
    sink = Sink(stop - start, **options)
    await store.read_range(version, start, stop, sink)
    assert sink.arrived_bytes == stop - start
    return sink.data


def pattern(seed, size_bytes):
    """Bytes that differ between versions and between offsets."""
    return hashlib.shake_256(repr(seed).encode()).digest(size_bytes)
