"""An object store in memory: other writers, faults and delays by script, counts of requests."""

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace

import crc32c
import trio

from stsfs.errors import PartCopyRefused, StaleVersion, StoreFailure, StsfsError, WriteConflict
from stsfs.store.change import Gone
from stsfs.store.object_store import ListedObject, ListPage, ObjectVersion, Part, Traits
from tests.faults import Fault

MODIFIED_UNIX_S = 1_700_000_000.0


@dataclass(frozen=True)
class Stored:
    """One object as it is now."""

    data: bytes
    etag: str
    storage_class: str = "STANDARD"
    traits: Traits = field(default_factory=Traits)
    write_id: str = ""
    modified_unix_s: float = MODIFIED_UNIX_S


@dataclass
class Upload:
    """One multipart upload under way; parts by number."""

    key: str
    traits: Traits
    write_id: str
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


class MemoryStore:
    """ObjectStore over a dict.

    `scripts["read_range"]` holds Faults (or None), one used up per call; likewise for `confirm`
    and `list_page`. Bodies arrive in pieces of `piece_bytes`, one each `piece_s`.

    `put` and `delete` are what another client does; our own changes go through `writer`, an
    ObjectWriter over the same dict, with scripts and calls under its own methods' names.
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
        self.writer = MemoryWriter(self)

    def put(self, key, data=b"", *, storage_class="STANDARD", traits=None):
        """Another client writes; returns the version. The same bytes have the same ETag."""
        etag = f'"{_md5(data).hex()}"'
        self.objects[key] = Stored(bytes(data), etag, storage_class, traits or Traits())
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
        fault = await self.next_fault("read_range")
        data = self.current(version).data
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
        fault = await self.next_fault("confirm")
        if fault.error is not None:
            raise fault.error
        self.current(version)

    async def list_page(self, prefix, *, token=None, start_after="", keys_max=1000, delimiter="/"):
        self.calls["list_page"] += 1
        self.lists.append(prefix)
        fault = await self.next_fault("list_page")
        if fault.error is not None:
            raise fault.error
        after, keys_max = (token or start_after).encode(), min(keys_max, self.page_keys)
        return self._page(prefix, after, keys_max, delimiter)

    async def next_fault(self, method):
        """Wait as the next fault of a method says; the rest of it is the caller's to do."""
        script = self.scripts.get(method)
        fault = (script.pop(0) if script else None) or Fault()
        if fault.happened:
            await trio.lowlevel.checkpoint()
        else:
            await fault.wait()
        return fault

    def current(self, version):
        """The object, while it is this version; else StaleVersion."""
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
            ListedObject(name, o.etag, len(o.data), o.modified_unix_s, o.storage_class)
            for name, o in shown
            if o is not None
        ]
        prefixes = [name for name, o in shown if o is None]
        return ListPage(objects, prefixes, shown[-1][0] if more else None)


class MemoryWriter:
    """ObjectWriter over the dict of a MemoryStore.

    `uploads` are those under way, by their id; `changes` what was asked for, in order, as method
    and key; `sent_bytes` what bodies had. Parts but the last have at least `part_bytes_min`.

    With `refuses_part_copies` the server does not know UploadPartCopy, which the first refusal
    teaches (`copies_parts`). Without `honours_conditions` it ignores what is expected. Copies of
    more than `copy_bytes_max` are uploads: `on_upload` is told of them.
    """

    def __init__(self, store):
        self.uploads = {}
        self.changes = []
        self.sent_bytes = 0
        self.part_bytes_min = 5 << 20
        self.copy_bytes_max = 5 << 30
        self.copies_parts = self.honours_conditions = True
        self.refuses_part_copies = False
        self._store = store
        self.names_copies_anew = False
        """The ETag of a copy is not that of its source."""

        self._begun = 0

    async def put(self, key, body, traits, *, expected, write_id):
        data = await self._sent(body)

        def change():
            made = Stored(data, f'"{_md5(data).hex()}"', traits=traits, write_id=write_id)
            return self._make(key, made, expected)

        return await self._change("put", key, change)

    async def begin_upload(self, key, traits, *, write_id, with_copies=False):
        def change():
            self._begun += 1
            upload_id = f"upload-{self._begun}"
            self.uploads[upload_id] = Upload(key, traits, write_id)
            return upload_id

        return await self._change("begin_upload", key, change)

    async def upload_part(self, key, upload_id, number, body):
        data = await self._sent(body)
        return await self._part("upload_part", key, upload_id, number, lambda: data)

    async def copy_part(self, key, upload_id, number, source, start, stop):
        def copied():
            if self.refuses_part_copies:
                self.copies_parts = False
                raise PartCopyRefused("S3 answered 501 NotImplemented to a copied part.")
            data = self._source(source).data
            assert 0 <= start < stop <= len(data)
            return data[start:stop]

        return await self._part("copy_part", key, upload_id, number, copied)

    async def complete_upload(self, key, upload_id, parts, *, expected, write_id):
        def change():
            if upload_id not in self.uploads and self._ours(key, write_id):
                return self._store.objects[key].etag
            upload = self._upload(key, upload_id)
            assert upload.write_id == write_id
            tags = b"".join(bytes.fromhex(part.etag.strip('"')) for part in parts)
            etag = f'"{_md5(tags).hex()}-{len(parts)}"'
            made = Stored(self._joined(upload, parts), etag, "", upload.traits, write_id)
            self._make(key, made, expected)
            del self.uploads[upload_id]
            return etag

        return await self._change("complete_upload", key, change)

    async def abort_upload(self, key, upload_id):
        await self._change("abort_upload", key, lambda: self.uploads.pop(upload_id, None))

    async def copy(
        self, source, key, *, storage_class="", expected=None, on_upload=None, on_unchecked=None
    ):
        def change():
            found = self._source(source)
            self._expect(key, expected)
            traits = Traits(found.traits.metadata, found.traits.content_type, storage_class)
            mark = "copy-" if self.names_copies_anew else ""
            etag = f'"{mark}{_md5(found.data).hex()}"'
            return self._make(key, Stored(found.data, etag, "", traits, found.write_id), None)

        if source.size_bytes <= self.copy_bytes_max:
            return await self._change("copy", key, change)
        upload_id = await self.begin_upload(key, Traits(), write_id="", with_copies=True)
        try:
            if on_upload is not None:
                await on_upload(upload_id)
            etag = await self._change("copy", key, change)
        except (StsfsError, trio.Cancelled):  # a process that dies leaves it
            self.uploads.pop(upload_id, None)
            raise
        self.uploads.pop(upload_id, None)
        return etag

    async def delete(self, key, *, expected=None, seen=None):
        def change():
            if key in self._store.objects:
                self._expect(key, expected)
                del self._store.objects[key]

        await self._change("delete", key, change)

    async def traits(self, version):
        return await self._change(
            "traits", version.key, lambda: self._store.current(version).traits
        )

    async def written(self, key, write_id):
        def look():
            return self._store.objects[key].etag if self._ours(key, write_id) else None

        return await self._change("written", key, look)

    async def copied(self, source, key):
        def look():
            found, stored = self._store.objects.get(key), self._store.objects.get(source.key)
            if found is None or stored is None or stored.etag != source.etag:
                return None
            is_same = found.etag == stored.etag
            is_same |= bool(stored.write_id) and found.write_id == stored.write_id
            return found.etag if is_same else None

        return await self._change("copied", key, look)

    async def _change(self, method, key, change):
        self._store.calls[method] += 1
        self.changes.append((method, key))
        fault = await self._store.next_fault(method)
        if fault.error is not None and not fault.happened:
            raise fault.error
        result = change()
        if fault.happened:
            await fault.wait()
        if fault.error is not None:
            raise fault.error
        return result

    async def _sent(self, body):
        data, offset = bytearray(), 0
        while offset < body.size_bytes:
            piece = await body.read(offset, min(1 << 20, body.size_bytes - offset))
            data += piece
            offset += len(piece)
            assert piece
        self.sent_bytes += len(data)
        return bytes(data)

    async def _part(self, method, key, upload_id, number, made):
        def change():
            assert 1 <= number <= 10_000
            upload, data = self._upload(key, upload_id), made()
            checksum = base64.b64encode(crc32c.crc32c(data).to_bytes(4, "big")).decode()
            upload.parts[number] = (Part(number, f'"{_md5(data).hex()}"', checksum), data)
            return upload.parts[number][0]

        return await self._change(method, key, change)

    def _joined(self, upload, parts):
        assert [part.number for part in parts] == list(range(1, len(parts) + 1)), parts
        assert parts, "an upload has a part"
        if any(upload.parts.get(part.number, [None])[0] != part for part in parts):
            raise StoreFailure("S3 answered 400 InvalidPart to the completion.")
        pieces = [upload.parts[part.number][1] for part in parts]
        if any(len(piece) < self.part_bytes_min for piece in pieces[:-1]):
            raise StoreFailure("S3 answered 400 EntityTooSmall to the completion.")
        return b"".join(pieces)

    def _upload(self, key, upload_id):
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise Gone("S3 answered 404 NoSuchUpload.")
        return upload

    def _source(self, version):
        try:
            return self._store.current(version)
        except StaleVersion as stale:
            raise WriteConflict(stale.sentence) from stale

    def _expect(self, key, expected):
        found = self._store.objects.get(key)
        if not self.honours_conditions:
            return
        if expected is not None and (found and found.etag) != expected.etag:
            raise WriteConflict(f"{key!r} was changed by another client.")

    def _ours(self, key, write_id):
        found = self._store.objects.get(key)
        return found is not None and bool(write_id) and found.write_id == write_id

    def _make(self, key, made, expected):
        """The object is made, unless it is there already: the answer to an earlier try was lost."""
        try:
            self._expect(key, expected)
        except WriteConflict:
            if not self._ours(key, made.write_id):
                raise
            assert self._store.objects[key].data == made.data, "a write_id is of one change"
            return self._store.objects[key].etag
        shown_class = made.traits.storage_class or "STANDARD"
        self._store.objects[key] = replace(made, storage_class=shown_class)
        return made.etag


class BytesBody:
    """Body of bytes in memory."""

    def __init__(self, data):
        self.size_bytes = len(data)
        self._data = bytes(data)

    async def read(self, offset, size_bytes):
        await trio.lowlevel.checkpoint()
        assert 0 <= offset <= offset + size_bytes <= self.size_bytes
        return self._data[offset : offset + size_bytes]


def _md5(data):
    return hashlib.md5(data, usedforsecurity=False).digest()


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
