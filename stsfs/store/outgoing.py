"""Bodies on their way out: files that are read as they leave, and small documents."""

import base64

import crc32c
import trio

from stsfs.store.counters import KindCount
from stsfs.store.http_sending import PIECE_BYTES
from stsfs.store.http_wire import UPLOAD_PACE_BYTES
from stsfs.store.object_store import Body
from stsfs.store.retry import Trouble


class Outgoing:
    """A body as a request sends it, as often as it takes; trouble is told how it goes on."""

    def __init__(self, body: Body, trouble: Trouble, count: KindCount) -> None:
        self.size_bytes = body.size_bytes
        self._body = body
        self._trouble = trouble
        self._count = count
        self._sent_bytes = self._furthest_bytes = self._forgiven_bytes = 0
        self._moved_at_s: float | None = None
        self._kept: bytes | None = None
        """The whole of a body of one piece: it need not be read twice for one try."""

    async def prepare(self, *, checksum: bool) -> str:
        """Before each try: to be sent from its beginning. The CRC32C in base64, if asked for."""
        self._sent_bytes, self._moved_at_s, self._kept = 0, None, None
        if not checksum:
            return ""
        value, offset = 0, 0
        while offset < self.size_bytes:
            piece = await self.read(offset, min(PIECE_BYTES, self.size_bytes - offset))
            offset += len(piece)
            if crc32c.hardware_based:  # a tenth of a millisecond
                value = crc32c.crc32c(piece, value)
            else:
                value = await trio.to_thread.run_sync(crc32c.crc32c, piece, value)
            if offset == len(piece) == self.size_bytes:
                self._kept = piece
        return encoded(value)

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """See http_sending.OutgoingBody. Raises what the body raises."""
        if self._kept is not None:
            return self._kept[offset : offset + size_bytes]
        return await self._body.read(offset, size_bytes)

    def sent(self, count_bytes: int) -> None:
        """See http_sending.OutgoingBody."""
        now_s = trio.current_time()
        self._count.sent_bytes += count_bytes
        self._sent_bytes += count_bytes
        if self._sent_bytes > self._furthest_bytes:
            self._furthest_bytes = self._sent_bytes
            new_bytes = self._sent_bytes - self._forgiven_bytes
            # The next try begins at the beginning: a few bytes more than the last are no progress.
            if new_bytes >= UPLOAD_PACE_BYTES or self._sent_bytes == self.size_bytes:
                self._forgiven_bytes = self._sent_bytes
                self._trouble.progress()
        elif self._moved_at_s is not None:
            self._trouble.moving(now_s - self._moved_at_s)
        self._moved_at_s = now_s


class Document:
    """A small body in memory."""

    def __init__(self, text: str) -> None:
        self.data = text.encode()

    @property
    def size_bytes(self) -> int:
        """See http_sending.OutgoingBody."""
        return len(self.data)

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """See http_sending.OutgoingBody."""
        return self.data[offset : offset + size_bytes]

    def sent(self, count_bytes: int) -> None:
        """See http_sending.OutgoingBody."""


def encoded(crc: int) -> str:
    """A CRC32C as S3 writes it: base64 of four bytes, the highest first."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()
