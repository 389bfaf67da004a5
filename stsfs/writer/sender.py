"""Makes an object of a content: in one request, or in parts of which some have gone ahead."""

import contextlib
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import trio

from stsfs.errors import PartCopyRefused, StagingFailure, StoreFailure, StsfsError
from stsfs.staging.record import Record
from stsfs.staging.spans import Spans
from stsfs.store.change import Gone
from stsfs.store.object_store import Expected, Traits
from stsfs.supervisor import TaskPool
from stsfs.writer.content import StagedContent
from stsfs.writer.part_sizes import part_span
from stsfs.writer.plan import plan_pieces
from stsfs.writer.upload import Layout, PlannedLayout, StreamLayout, Upload
from stsfs.writer.wire import MemoryBody, Wire

log = logging.getLogger(__name__)

PUT_BYTES_MAX = 16 * 1024 * 1024
"""Below this, one request: parts take three at least, and S3 wants 5 MiB of them."""

FREE_ROUNDS = 3
"""So often parts that were written to under way are sent again; then writers wait."""

STREAM_PARTS_AT_ONCE = 4
"""Of a file that nobody has closed yet: who waits comes first."""

STALE_PARTS_MAX = 16
"""A writer that has come back to so many parts is no stream: nothing more goes ahead."""

FRUITLESS_MAX = 3
"""Attempts without a single part, until the upload itself is given up: S3 may have lost it."""


class Abandoned(Exception):
    """The object is not wanted any more: the file has lost its name, or is about to."""


def new_write_id() -> str:
    """A text of its own for one change."""
    return secrets.token_hex(16)


class Publishing(Protocol):
    """What the sender must know of the file whose content it sends. Implemented by DirtyFile."""

    @property
    def key(self) -> str:
        """Where the object will be."""

    @property
    def expected(self) -> Expected | None:
        """What must be there; None: whatever is."""

    @property
    def is_unwanted(self) -> bool:
        """Whether the object is not wanted any more."""

    @property
    def changes(self) -> int:
        """Counts up with each change of the content."""

    def traits(self, *, is_final: bool) -> Traits:
        """What is stored beside the bytes; is_final: nothing is written any more."""

    async def seal(self, write_id: str, *, with_bytes: bool) -> tuple[str, bytes]:
        """The content as it is now becomes the object; called with its lock held.

        Returns the write_id to use, which is that of an earlier attempt at the same, and, with
        with_bytes, the whole content.
        """

    async def note_upload(self) -> None:
        """An upload was begun: it must not be forgotten."""

    async def is_completed(self) -> bool:
        """Whether an attempt that seemed to fail has made the object; then it is the base now."""


class Sender:
    """Sends one content, again and again. Only one `send` runs at a time."""

    def __init__(self, wire: Wire, content: StagedContent, tasks: TaskPool) -> None:
        self.upload: Upload | None = None
        self._wire, self._content, self._tasks = wire, content, tasks
        self._may_stream = True
        self._is_sending = False
        self._is_broken_off = False
        self._stream_scope: trio.CancelScope | None = None
        self._parts_scope: trio.CancelScope | None = None
        self._stream_ended = trio.Event()
        self.after_part: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        """Called when S3 has one part more. Raises nothing of ours."""

        self._resumed: trio.Event | None = None

    @property
    def sent_bytes(self) -> int:
        """What has gone into the upload that is under way."""
        return self.upload.sent_bytes if self.upload is not None else 0

    @property
    def is_streaming(self) -> bool:
        """Whether parts go ahead now."""
        return self._stream_scope is not None

    async def admit(self) -> None:
        """Wait while the content must not change."""
        while self._resumed is not None:
            await self._resumed.wait()

    def touched(self, start: int, stop: int) -> None:
        """Bytes have changed. Not a checkpoint."""
        if self.upload is not None:
            self.upload.touched(start, stop)

    def stream(self, file: Publishing, *, again: bool = False) -> None:
        """Send what is complete ahead of time, if this is a stream. Not a checkpoint.

        again: also where parts could not be sent before.
        """
        self._may_stream |= again
        if self._stream_scope is not None or self._is_sending or file.is_unwanted:
            return
        if not self._may_stream or self._content.limit_bytes:
            return
        if self.upload is None and not self._content.written.covers(0, part_span(2)[1]):
            return
        if self._is_ready(1 + (self.upload.ahead_count if self.upload is not None else 0)):
            self._stream_scope = trio.CancelScope()
            self._wire.room.stream_count += 1
            self._stream_ended = trio.Event()
            self._tasks.start(f"parts of {file.key!r}", self._stream, file, self._stream_scope)

    async def stop_streaming(self) -> None:
        """Nothing more goes ahead; returns when what is under way has ended."""
        self._is_sending = True
        if self._stream_scope is not None:
            await self._stream_ended.wait()

    async def break_off(self) -> None:
        """Send no more parts, until `go_on`; returns when no parts go ahead.

        A request that makes the object is not broken off: nobody would know whether it did.
        """
        self._is_broken_off = True
        for scope in (self._stream_scope, self._parts_scope):
            if scope is not None:
                scope.cancel()
        await self.stop_streaming()

    def go_on(self) -> None:
        """Parts may be sent again. Not a checkpoint."""
        self._is_broken_off = self._is_sending = False

    async def send(self, file: Publishing) -> str:
        """Make the object; returns its ETag.

        Raises what ObjectWriter and StagedContent raise, and Abandoned.
        """
        try:
            await self.stop_streaming()
            for round_number in itertools.count(1):
                if self._content.size_bytes < PUT_BYTES_MAX:
                    etag = await self._put(file)
                else:
                    etag = await self._round(file, is_late=round_number > FREE_ROUNDS)
                if etag is not None:
                    break
            assert etag is not None
            return etag
        finally:
            self._is_sending = False

    def adopt(self, key: str, record: Record) -> None:
        """Go on with the upload of a process that died. Raises StagingFailure."""
        assert record.upload_id is not None
        there = Spans(part_span(part.number) for part in record.parts)
        if not all(there.covers(*span) for span in record.parked):
            raise StagingFailure(_PARTS_LOST)
        upload = Upload(
            self._wire, self._content, key, record.upload_id, record.upload_write_id,
            StreamLayout(), None,
        )  # fmt: skip
        upload.adopt(record.parts)
        upload.after_part = self._note_part
        self.upload = upload

    async def give_up(self) -> None:
        """The upload that is under way is of no use."""
        upload = self._dropped()
        if upload is not None:
            await self._wire.abort(upload.key, upload.upload_id)

    def give_up_soon(self) -> None:
        """The same, in the background. Not a checkpoint."""
        upload = self._dropped()
        if upload is not None:
            self._tasks.start("an upload", self._wire.abort, upload.key, upload.upload_id)

    def _dropped(self) -> Upload | None:
        upload, self.upload = self.upload, None
        if upload is not None:
            upload.is_over = True
        return upload

    async def after_failure(self, error: StsfsError, *, is_passing: bool) -> None:
        """Decide what becomes of the upload: another attempt goes on with it, where one helps."""
        upload = self.upload
        if upload is None:
            return
        if isinstance(error, StoreFailure):
            upload.fruitless_count += 1
        if self._content.parked:
            return  # there is no other copy of those bytes
        if not is_passing or upload.fruitless_count >= FRUITLESS_MAX:
            await self.give_up()

    async def _put(self, file: Publishing) -> str | None:
        """In one request; None if the content has outgrown that."""
        assert not self._content.parked
        await self.give_up()
        content, wire = self._content, self._wire
        await content.fetch(0, content.size_bytes)
        async with wire.bodies.taken(content.size_bytes):
            while True:
                await content.fetch(0, content.size_bytes)
                async with content.lock:
                    if content.size_bytes >= PUT_BYTES_MAX:
                        return None
                    if not content.missing(0, content.size_bytes):
                        write_id, data = await file.seal(new_write_id(), with_bytes=True)
                        break
            async with wire.uploads.taken():
                _raise_if_abandoned(file)
                return await wire.writer.put(
                    file.key,
                    MemoryBody(data),
                    file.traits(is_final=True),
                    expected=file.expected,
                    write_id=write_id,
                )

    async def _round(self, file: Publishing, *, is_late: bool) -> str | None:
        try:
            return await self._send_parts(file, holds=is_late)
        except PartCopyRefused as refused:
            log.info("parts are sent from here instead of copied inside S3: %s", refused)
            assert not self._wire.writer.copies_parts, "the next plan has no copies"
            await self.give_up()
            return None
        except Gone:
            if is_late:
                raise
            if self._content.parked:
                raise StagingFailure(_PARTS_LOST) from None
            await self.give_up()  # S3 has forgotten the upload, or it was an object for a while
            return None

    async def _send_parts(self, file: Publishing, *, holds: bool) -> str | None:
        """One round; None if it has to be repeated, because the content changed meanwhile."""
        content = self._content
        with self._held() if holds else contextlib.nullcontext():
            upload = await self._usable_upload(file)
            if upload is None or not upload.fits(content.size_bytes):
                return None
            await self._send_lacking(upload)
            async with content.lock:
                size_bytes = content.size_bytes
                is_small = size_bytes < PUT_BYTES_MAX
                if is_small or not upload.fits(size_bytes) or upload.lacking(size_bytes):
                    return None
                await file.seal(upload.write_id, with_bytes=False)
                upload.completed_changes = file.changes
                parts = upload.parts(size_bytes)
        _raise_if_abandoned(file)
        etag = await self._wire.writer.complete_upload(
            file.key, upload.upload_id, parts, expected=file.expected, write_id=upload.write_id
        )
        self.upload = None
        return etag

    async def _send_lacking(self, upload: Upload) -> None:
        """Raises Abandoned when it is broken off."""
        if self._is_broken_off:
            raise Abandoned
        with trio.CancelScope() as self._parts_scope:
            await upload.send(upload.lacking(self._content.size_bytes))
        if self._parts_scope.cancelled_caught:
            raise Abandoned

    async def _usable_upload(self, file: Publishing) -> Upload | None:
        """The one under way, if it can become the object; else a new one.

        None: it has become the object already, and the content goes on from there.
        """
        content, upload = self._content, self.upload
        if upload is not None:
            # Once its completion was asked for, it may be an object already: that of then.
            is_over = upload.completed_changes not in (None, file.changes)
            if self._content.parked:
                if is_over and await file.is_completed():
                    return None
                return upload
            if is_over or upload.key != file.key or not upload.fits(content.size_bytes):
                await self.give_up()
        _raise_if_abandoned(file)
        if self.upload is None:
            copied = content.unchanged() if self._wire.writer.copies_parts else ()
            pieces = plan_pieces(content.size_bytes, copied)
            layout: Layout = StreamLayout() if pieces is None else PlannedLayout(pieces)
            return await self._begin(file, layout, is_final=True)
        return self.upload

    async def _begin(self, file: Publishing, layout: Layout, *, is_final: bool) -> Upload:
        write_id, base = new_write_id(), self._content.base
        changes = file.changes
        upload_id = await self._wire.writer.begin_upload(
            file.key,
            file.traits(is_final=is_final),
            write_id=write_id,
            with_copies=layout.has_copies,
        )
        upload = Upload(self._wire, self._content, file.key, upload_id, write_id, layout, base)
        upload.after_part = self._note_part
        # A plan is of the content as it was; a stream takes it as it is when a part is sent.
        upload.is_useless = isinstance(layout, PlannedLayout) and file.changes != changes
        self.upload = upload
        await file.note_upload()
        return upload

    async def _note_part(self) -> None:
        await self.after_part()
        self._wire.room.note()

    def _is_ready(self, number: int) -> bool:
        return self._content.written.covers(*part_span(number))

    def _ready(self, upload: Upload) -> Iterator[int]:
        """The parts that can go ahead, one after the other; ends when none is complete."""
        while not (self._is_sending or upload.is_over) and upload.stale_count <= STALE_PARTS_MAX:
            if not self._is_ready(upload.ahead_count + 1):
                return
            upload.ahead_count += 1
            if not upload.is_there(upload.ahead_count, self._content.size_bytes):
                yield upload.ahead_count

    async def _stream(self, file: Publishing, scope: trio.CancelScope) -> None:
        upload = self.upload
        try:
            with scope:
                upload = upload or await self._begin(file, StreamLayout(), is_final=False)
                for number in self._ready(upload):
                    ready = itertools.chain([number], self._ready(upload))
                    await upload.send(ready, at_once=STREAM_PARTS_AT_ONCE)
                self._may_stream = upload.stale_count <= STALE_PARTS_MAX
        except StsfsError as exc:
            # Nobody waits for it: whoever closes the file meets the trouble, or finds it over.
            self._may_stream = upload is not None and upload.is_over
            log.info("parts of %r do not go ahead any more: %s", file.key, exc)
        finally:
            self._stream_scope = None
            self._stream_ended.set()
            self._wire.room.stream_count -= 1
            self._wire.room.note()

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        self._resumed = trio.Event()
        try:
            yield
        finally:
            self._resumed.set()
            self._resumed = None


_PARTS_LOST = (
    "S3 has given up an upload that had the only copy of some bytes, because the disk was full."
)


def _raise_if_abandoned(file: Publishing) -> None:
    if file.is_unwanted:
        raise Abandoned
