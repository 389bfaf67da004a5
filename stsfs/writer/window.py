"""The staging disk as a window: what S3 has as well leaves the disk where that is short of room.

Parts of an upload under way are *parked*: S3 has them, but nobody can read them until the upload is
completed. The record says so before the bytes go, with all that is needed to complete the upload.
"""

import contextlib
import logging
from collections.abc import AsyncIterator

import trio

from stsfs.errors import StsfsError
from stsfs.staging.spans import Spans
from stsfs.writer.content import Span, StagedContent
from stsfs.writer.record_file import RecordFile
from stsfs.writer.sender import Publishing, Sender
from stsfs.writer.wire import StagingRoom

log = logging.getLogger(__name__)


class StagingWindow:
    """Takes bytes of one file off the local disk. Raises StagingFull and StagingFailure."""

    def __init__(
        self, content: StagedContent, record: RecordFile, sender: Sender, room: StagingRoom
    ) -> None:
        self._content, self._record, self._sender = content, record, sender
        self._is_unsupported = False
        self._hold_ended: trio.Event | None = None
        self._room = room

    @property
    def freed_bytes(self) -> int:
        """What has left the disk so far, of all files of the location."""
        return self._room.freed_bytes

    @contextlib.asynccontextmanager
    async def parks_nothing(self) -> AsyncIterator[None]:
        """No byte becomes parked inside: the upload is about to be given up. Nests."""
        if self._hold_ended is not None:
            yield
            return
        self._hold_ended = trio.Event()
        try:
            yield
        finally:
            self._hold_ended.set()
            self._hold_ended = None

    async def shrink_if_short(self) -> None:
        """Let go what S3 has, if the disk is short of room. Raises nothing of ours."""
        try:
            if await trio.to_thread.run_sync(lambda: self._content.is_short_of_room):
                await self.shrink()
        except StsfsError as exc:
            log.error("bytes that S3 has stay on the local disk: %s", exc)

    async def shrink(self) -> None:
        """Let go what S3 has.

        The first part stays for as long as there is another one: programs come back to headers.
        """
        if self._is_unsupported:
            return
        async with self._content.lock:
            unchanged, parked = self._unchanged(), self._parkable()
            spans = [*unchanged, *parked]
            if not spans:
                return
            self._content.let_go(unchanged, parked)
            try:
                # Once the record says so: a hole must never pass for bytes.
                if parked or self._record.state is not None:
                    await self._record.keep(self._record.state or "writing")
            except BaseException:
                self._content.take_back(unchanged, parked)
                raise
            if not await self._content.punch(spans):
                self._is_unsupported = True
                self._content.take_back(unchanged, parked)
                return
        self._room.note(sum(stop - start for start, stop in spans))

    async def make_room(self, file: Publishing, freed_bytes: int) -> bool:
        """A write found the disk full: whether another try may find room. Not under lock.

        Waits as long as parts of any file go ahead. freed_bytes is what the property of that name
        was before the write.
        """
        is_tried = False
        while True:
            await self.shrink()
            changed = self._room.changed
            if self._room.freed_bytes > freed_bytes:
                return True
            if self._hold_ended is not None:
                await self._hold_ended.wait()
                continue
            if not (self._sender.is_streaming or is_tried):
                is_tried = True
                self._sender.stream(file, again=True)
            if not self._room.stream_count:
                return False
            await changed.wait()

    def _unchanged(self) -> list[Span]:
        """What the base has as well, and no part on its way is read from."""
        upload = self._sender.upload
        busy = Spans() if upload is None else Spans(upload.in_flight())
        return [gap for span in self._content.unchanged_present() for gap in busy.gaps(*span)]

    def _parkable(self) -> list[Span]:
        upload, present = self._sender.upload, self._content.present
        if upload is None or self._hold_ended is not None:
            return []
        found = [span for _, span in upload.whole_parts() if present.covers(*span)]
        return found[1:] if found and found[0][0] == 0 and len(found) > 1 else found
