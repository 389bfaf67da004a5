"""A non-blocking socket with a buffer: heads whole, bodies relayed without being joined."""

import select
from collections.abc import Callable
from typing import Any

import httptools
import trio

from stsfs.demo.s3_wire import HEAD_BYTES_MAX, BadRequest

PIECE_BYTES = 256 * 1024
"""How much of a body is moved at a time: few system calls, and still in the processor's cache."""


class ConnectionLost(ConnectionError):
    """The peer closed in the middle of a message."""


class _EndOfMessage:
    """Notices where a chunked message ends."""

    def __init__(self) -> None:
        self.complete = False

    def on_message_complete(self) -> None:
        self.complete = True


class Wire:
    """One connection. Bytes that were received too early stay in `_early`."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.socket = sock
        self._early = bytearray()
        self._piece: memoryview | None = None

    def close(self) -> None:
        """Close the connection; harmless when repeated."""
        self.socket.close()

    def is_reset(self) -> bool:
        """Whether the peer has given the connection up. One that has only sent all it has to say
        may still wait for an answer."""
        poll = select.poll()
        poll.register(self.socket.fileno(), 0)
        return bool(poll.poll(0))

    async def read_head(self) -> bytes | None:
        """Read up to and including the empty line; None when the peer closed before a byte.

        Raises BadRequest for a head without end, ConnectionLost for half a head.
        """
        while (end := self._early.find(b"\r\n\r\n")) < 0:
            if len(self._early) > HEAD_BYTES_MAX:
                raise BadRequest("the head is too long")
            received = await self.socket.recv(HEAD_BYTES_MAX)
            if not received:
                if self._early:
                    raise ConnectionLost("closed in the middle of a head")
                return None
            self._early += received
        head = bytes(self._early[: end + 4])
        del self._early[: end + 4]
        return head

    async def read_exactly(self, count_bytes: int) -> bytes:
        """Read so many bytes of a body. Raises ConnectionLost."""
        while len(self._early) < count_bytes:
            received = await self.socket.recv(count_bytes - len(self._early))
            if not received:
                raise ConnectionLost("closed in the middle of a body")
            self._early += received
        body = bytes(self._early[:count_bytes])
        del self._early[:count_bytes]
        return body

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything."""
        rest = memoryview(data)
        while rest:
            rest = rest[await self.socket.send(rest) :]

    async def relay(
        self,
        target: "Wire | None",
        count_bytes: int | None,
        tell: Callable[[int], None] = lambda piece_bytes: None,
    ) -> None:
        """Move so many bytes, or all until the peer closes if None.

        Without a target the bytes are dropped. `tell` hears the size of each piece before it is
        sent on. Raises ConnectionLost if there are fewer.
        """
        if self._piece is None:
            self._piece = memoryview(bytearray(PIECE_BYTES))
        moved_bytes = 0
        while count_bytes is None or moved_bytes < count_bytes:
            left_bytes = PIECE_BYTES if count_bytes is None else count_bytes - moved_bytes
            data = await self._receive(self._piece[: min(PIECE_BYTES, left_bytes)])
            if not data:
                if count_bytes is None:
                    break
                raise ConnectionLost("closed in the middle of a body")
            tell(len(data))
            if target is not None:
                await target.send(data)
            moved_bytes += len(data)

    async def relay_chunked(
        self,
        head: bytes,
        target: "Wire | None",
        tell: Callable[[int], None] = lambda piece_bytes: None,
        *,
        response: bool,
    ) -> None:
        """Move a chunked body with its framing; `head` is what came before it. See relay()."""
        end = _EndOfMessage()
        parser: Any = (httptools.HttpResponseParser if response else httptools.HttpRequestParser)(
            end
        )
        parser.feed_data(head)
        while not end.complete:
            data = bytes(await self._receive(memoryview(bytearray(PIECE_BYTES))))
            if not data:
                raise ConnectionLost("closed in the middle of a chunked body")
            parser.feed_data(data)
            tell(len(data))
            if target is not None:
                await target.send(data)

    async def _receive(self, piece: memoryview) -> memoryview:
        if self._early:
            taken = bytes(self._early[: len(piece)])
            del self._early[: len(taken)]
            return memoryview(taken)
        return piece[: await self.socket.recv_into(piece)]
