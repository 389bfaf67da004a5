"""The bytes of one file while it is being written: some lie in the staging file, some in the base.

A byte that is not in the staging file is the base's, at the same offset. Everything at and behind
`limit_bytes` is in the staging file, if only as a hole: the file was once that short.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import trio

from stsfs.errors import StagingFailure, StaleVersion
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.file import StagingFile
from stsfs.staging.record import Record
from stsfs.staging.spans import Spans
from stsfs.store.object_store import ObjectVersion
from stsfs.writer.local_disk import LocalDisk
from stsfs.writer.locks import OrderedLock, Rank
from stsfs.writer.sources import OpenSource, Source

FETCH_BYTES = 1024 * 1024
"""What is fetched from the base in one piece."""

Span = tuple[int, int]
SPANS_MAX = 65_536
"""Beyond so many separate ranges on the disk, each further one brings its surroundings along."""

OnChange = Callable[[int, int], None]


class Parked(Exception):
    """Bytes are needed that lie in parts of an unfinished upload, where nobody can read them."""


class StagedContent:
    """Bytes, size and what was changed. Changes happen one at a time, under `lock`.

    Raises StagingFull and StagingFailure, and for bytes of the base what ObjectStore raises.
    """

    def __init__(
        self,
        staging: StagingDirectory,
        disk: LocalDisk,
        open_source: OpenSource,
        *,
        base: ObjectVersion | None = None,
        size_bytes: int = 0,
    ) -> None:
        self.lock = OrderedLock(Rank.CONTENT)
        """Held for what must see one state of the content. Never across a request to S3."""

        self.file: StagingFile | None = None
        """Made when it is first needed."""

        self.size_bytes = size_bytes
        self.base = base
        self.limit_bytes = size_bytes
        self.present = Spans()
        self.changed = Spans()
        """What may differ from the base: all of it is present."""

        self.written = Spans()
        """What somebody has put there: what is changed, without holes."""

        self.disk = disk
        self.on_change: OnChange = _nobody
        """Told of each range of bytes that has changed. Not a checkpoint."""

        self.parked = Spans()
        """What only an upload under way has: neither in the staging file nor in the base."""

        self._staging = staging
        self._open_source = open_source
        self._is_nameless = self._is_closed = False
        self._let_go_count = 0
        self._shared: _Shared | None = None
        self._since = Spans()
        self._since_limit_bytes = 0
        """The same two, counted from the last call of `mark`."""

    def adopt(self, record: Record, file: StagingFile) -> None:
        """Take over what a process that died has left; everything present counts as changed."""
        self.file, self.size_bytes = file, record.size_bytes
        self.limit_bytes = 0 if record.base is None else record.base.limit_bytes
        self.present, self.changed = Spans(record.present), Spans(record.present)
        self.parked = Spans(record.parked)

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of [start, stop) that only the base has."""
        return self.present.gaps(start, min(stop, self.limit_bytes))

    def unchanged(self) -> list[tuple[int, int]]:
        """The runs that the base has at the same place, in order."""
        return [] if self.base is None else self.changed.gaps(0, self.limit_bytes)

    def made_file(self) -> StagingFile:
        """The staging file; made now if there is none. May block: called in threads, under lock."""
        if self.file is None:
            file = self._staging.create()
            if self._is_nameless:
                file.forget()
            self.file = file
        return self.file

    def unlink(self) -> None:
        """Nothing is left of it once this process ends. May block: called in threads."""
        self._is_nameless = True
        if self.file is not None:
            self.file.forget()

    @property
    def is_short_of_room(self) -> bool:
        """Whether what S3 has as well should leave the disk. Blocks for a moment."""
        return self.file is not None and self._staging.is_short_of_room()

    def raise_if_parked(self, start: int, stop: int) -> None:
        """Raise Parked if any byte of [start, stop) is only in an upload under way."""
        if self.parked.overlaps(start, stop):
            raise Parked

    def let_go(self, unchanged: Iterable[Span], parked: Iterable[Span]) -> None:
        """Bytes may leave the disk: what the base has, and what an upload under way has."""
        self._let_go_count += 1
        for start, stop in unchanged:
            self.present.remove(start, stop)
        for start, stop in parked:
            self.present.remove(start, stop)
            self.parked.add(start, stop)

    def take_back(self, unchanged: Iterable[Span], parked: Iterable[Span]) -> None:
        """Undo `let_go`, where the bytes have not left the disk."""
        for start, stop in unchanged:
            self.present.add(start, stop)
        for start, stop in parked:
            self.parked.remove(start, stop)
            self.present.add(start, stop)

    def unchanged_present(self) -> list[Span]:
        """What lies on the disk and is what the base has at the same place, in order."""
        return [
            inside
            for start, stop in self.unchanged()
            for inside in self.present.within(start, stop)
        ]

    async def punch(self, spans: Sequence[Span]) -> bool:
        """Give the disk back bytes that are no longer present. Under lock."""
        file = self.file
        if file is None:
            return False

        def punch() -> bool:
            return all(file.punch(start, stop) for start, stop in spans)

        return await trio.to_thread.run_sync(punch)

    async def discard(self) -> None:
        """Remove the staging file: S3 has all there is, or nobody asks any more. After `close`."""
        assert self._is_closed
        file, self.file = self.file, None
        if file is not None:
            await self.disk.run(self.size_bytes, file.discard)

    def rest(self) -> None:
        """Nobody uses it for a while: no descriptor is held. Not a checkpoint."""
        if self.file is not None and not self._is_nameless:
            self.file.rest()

    async def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put data at offset; what lies between the end and offset becomes zeros. Under lock."""
        stop = offset + len(data)
        start = min(offset, self.size_bytes)
        try:
            await self.disk.run(len(data), self._write, offset, data)
        except BaseException:
            # Some of it may have been written: over bytes that are ours, or behind the end, where
            # zeros are expected if the file is ever made longer.
            hurt = self.present.within(offset, min(stop, self.size_bytes))
            self._mark_changed(hurt)
            with trio.CancelScope(shield=True), contextlib.suppress(StagingFailure):
                await trio.to_thread.run_sync(self._cut)
            raise
        self.present.add(start, stop)
        self.written.add(offset, stop)
        if len(self.written) > SPANS_MAX:
            self.written.clear()  # this is no stream: nothing goes ahead of the publication
        self.size_bytes = max(self.size_bytes, stop)
        self._mark_changed([(start, stop)])
        if self.limit_bytes and self.changed.covers(0, self.limit_bytes):
            self.limit_bytes = 0  # nothing of the base is left: as good as cut off at the open

    async def truncate(self, size_bytes: int) -> None:
        """Cut the file off, or let it end in zeros. Under lock."""
        before = self.size_bytes
        await self.disk.run(self.size_bytes, self._truncate, size_bytes)
        self.size_bytes = size_bytes
        for spans in (self.present, self.changed, self.written, self.parked, self._since):
            spans.clip(size_bytes)
        self.limit_bytes = min(self.limit_bytes, size_bytes)
        self._since_limit_bytes = min(self._since_limit_bytes, size_bytes)
        if size_bytes > before:
            self.present.add(before, size_bytes)
            self._mark_changed([(before, size_bytes)])
        else:
            self.on_change(size_bytes, before)

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        """Bytes from offset on; short only at the end."""
        while True:
            stop = min(offset + size_bytes, self.size_bytes)
            if offset >= stop:
                await trio.lowlevel.checkpoint()
                return memoryview(b"")
            self.raise_if_parked(offset, stop)
            base, let_go_count = self.base, self._let_go_count
            try:
                if self.present.covers(offset, stop):
                    data = await self.read_present(offset, stop)
                else:
                    data = await self._read_mixed(offset, stop)
                if let_go_count == self._let_go_count:  # else there may be holes in it
                    return memoryview(data)
            except StaleVersion:
                if self.base is base:
                    raise  # else it was our own publication that replaced it

    async def bound_spans(self, start: int, stop: int) -> None:
        """Before a write of [start, stop): keep the number of spans bounded. Not under lock.

        Writes scattered over a large object would else make a span each, in memory and in the
        record. Bytes around the write are fetched, so that there is one span a FETCH_BYTES at most.
        """
        is_bounded = len(self.present) < SPANS_MAX and len(self.changed) < SPANS_MAX
        if is_bounded or self.changed.overlaps(max(0, start - 1), stop + 1):
            return
        first = start - start % FETCH_BYTES
        last = min(-(-stop // FETCH_BYTES) * FETCH_BYTES, self.limit_bytes)
        await self.fetch(first, last)
        async with self.lock:
            for inside in self.present.within(first, last):
                self._mark_changed([inside])

    async def fetch(self, start: int, stop: int) -> None:
        """Bring what only the base has of [start, stop) into the staging file. Not under lock."""
        while missing := self.missing(start, stop):
            first, last = missing[0]
            last = min(last, first + FETCH_BYTES)
            base = self.base
            try:
                data = await self._from_base(first, last)
            except StaleVersion:
                if self.base is base:
                    raise
                continue
            async with self.lock:
                # Only what is still missing: somebody may have written there meanwhile.
                for at, until in self.missing(first, last):
                    piece = data[at - first : until - first]
                    await self.disk.run(len(piece), self._write, at, piece)
                    self.present.add(at, until)

    def mark(self) -> None:
        """The content as it is now is about to become an object. Under lock."""
        self._since = Spans()
        self._since_limit_bytes = self.size_bytes

    def rebase(self, version: ObjectVersion) -> None:
        """What was marked last has become this object."""
        self.base = version
        self.changed = self._since.copy()
        self.limit_bytes = self._since_limit_bytes
        self.parked.clear()
        self._let_go()

    def replace_base(self, version: ObjectVersion) -> None:
        """This object has the same bytes as the base, wherever the base is still needed."""
        self.base = version
        self._let_go()

    def close(self) -> None:
        """Nothing is read any more, from the base neither. Not a checkpoint."""
        self._is_closed = True
        self._let_go()

    def whole(self) -> bytes:
        """All bytes, which are present. May block: called in threads, under lock."""
        return self._complete(_bytes_of(self.file, 0, self.size_bytes), 0, self.size_bytes)

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        self.made_file().write(offset, data)

    def _truncate(self, size_bytes: int) -> None:
        if self.file is not None or size_bytes:
            self.made_file().truncate(size_bytes)

    def _cut(self) -> None:
        if self.file is not None:
            self.file.truncate(self.size_bytes)

    def _mark_changed(self, spans: Sequence[tuple[int, int]]) -> None:
        for start, stop in spans:
            self.changed.add(start, stop)
            self._since.add(start, stop)
            self.on_change(start, stop)

    async def read_present(self, start: int, stop: int) -> bytes:
        """Present bytes; zeros where the file was cut off meanwhile. Not under lock."""
        if self._is_closed:
            raise StagingFailure("The file is not being written any more.")
        data = await self.disk.run(stop - start, _bytes_of, self.file, start, stop)
        if len(data) == stop - start:
            return data
        async with self.lock:  # a cut that is under way ends first
            data = await self.disk.run(stop - start, _bytes_of, self.file, start, stop)
            return self._complete(data, start, stop)

    def _complete(self, data: bytes, start: int, stop: int) -> bytes:
        """Zeros follow where the staging file ends, but never in place of present bytes."""
        if self.present.overlaps(start + len(data), stop):
            raise StagingFailure("Bytes that were written are not in the staging file any more.")
        return data if len(data) == stop - start else data.ljust(stop - start, b"\0")

    async def _read_mixed(self, start: int, stop: int) -> bytes:
        pieces, at = [], start
        for first, last in [*self.missing(start, stop), (stop, stop)]:
            if at < first:
                pieces.append(await self.read_present(at, first))
            if first < last:
                pieces.append(bytes(await self._from_base(first, last)))
            at = last
        return b"".join(pieces)

    async def _from_base(self, start: int, stop: int) -> memoryview:
        assert self.base is not None, "what is not present comes from a base"
        with self._reading(self.base) as source:
            pieces, at = [], start
            while at < stop:
                piece = await source.read(at, stop - at)
                if not len(piece):
                    raise StagingFailure(f"{self.base.key!r} is shorter than it was.")
                pieces.append(piece)
                at += len(piece)
            return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))

    @contextlib.contextmanager
    def _reading(self, base: ObjectVersion) -> Iterator[Source]:
        if self._is_closed:
            raise StagingFailure(f"{base.key!r} is not being written any more.")
        if self._shared is None:
            self._shared = _Shared(self._open_source(base))
        shared = self._shared
        shared.readers += 1
        try:
            yield shared.source
        finally:
            shared.readers -= 1
            shared.close_if_done()

    def _let_go(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.is_over = True
            shared.close_if_done()


def _nobody(start: int, stop: int) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class _Shared:
    """A source that is closed when it is over and its last reader is done."""

    source: Source
    readers: int = 0
    is_over: bool = False

    def close_if_done(self) -> None:
        if self.is_over and not self.readers:
            self.source.close()


def _bytes_of(file: StagingFile | None, start: int, stop: int) -> bytes:
    """Fewer than stop - start only where the file ends."""
    return b"" if file is None else file.read(start, stop - start)
