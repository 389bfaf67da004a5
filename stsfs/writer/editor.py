"""Changes of the bytes of a file: what stands between a write and the content."""

from collections.abc import Awaitable, Callable

from stsfs.errors import StagingFailure, StagingFull
from stsfs.writer.content import Parked, StagedContent
from stsfs.writer.part_sizes import FILE_BYTES_MAX
from stsfs.writer.record_file import RecordFile
from stsfs.writer.sender import Publishing, Sender
from stsfs.writer.torn import TornBytes
from stsfs.writer.window import StagingWindow


class ContentEditor:
    """Writes and cuts off one content: after the record, before the upload, within the disk.

    Raises StagingFull and StagingFailure, what raise_if_ended raises, and what fetch_back raises,
    which returns once no byte is only in an upload under way.
    """

    def __init__(
        self, content: StagedContent, record: RecordFile, sender: Sender, window: StagingWindow, *,
        raise_if_ended: Callable[[], None], fetch_back: Callable[[], Awaitable[None]],
    ) -> None:  # fmt: skip
        self.torn = TornBytes()
        self._content, self._record, self._sender = content, record, sender
        self._window = window
        self._raise_if_ended, self._fetch_back = raise_if_ended, fetch_back

    async def write(self, file: Publishing, offset: int, data: bytes | memoryview) -> None:
        """Put all of data at offset. Where the disk is full, wait for S3 to have older bytes."""
        while True:
            freed_bytes = self._window.freed_bytes
            try:
                await self._write(offset, data)
                return
            except Parked:
                await self._fetch_back()
            except (StagingFull, StagingFailure) as exc:
                is_full = isinstance(exc, StagingFull)
                if is_full and await self._window.make_room(file, freed_bytes):
                    continue
                self.torn.failed(offset, offset + len(data), exc)
                raise

    async def _write(self, offset: int, data: bytes | memoryview) -> None:
        await self._sender.admit()
        await self._content.bound_spans(offset, offset + len(data))
        async with self._content.lock:
            self._raise_if_ended()
            self._content.raise_if_parked(offset, offset + len(data))
            await self._record.content_will_change()
            await self._content.write(offset, data)
            self.torn.repaired(offset, offset + len(data))

    async def truncate(self, size_bytes: int) -> None:
        """Cut it off, or let it end in zeros. The size that it has is no change."""
        while True:
            await self._sender.admit()
            async with self._content.lock:
                self._raise_if_ended()
                self.torn.clip(size_bytes)
                if size_bytes == self._content.size_bytes:
                    return
                # A part that is cut off has to be sent again, with bytes that lie in it only.
                needed = size_bytes and self._content.parked.overlaps(size_bytes, FILE_BYTES_MAX)
                if not needed:
                    await self._record.content_will_change(size_bytes)
                    await self._content.truncate(size_bytes)
                    return
            await self._fetch_back()
