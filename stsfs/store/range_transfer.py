"""The bytes of one version on their way from a connection to a sink, and what proves them right."""

from contextlib import aclosing

import trio

from stsfs.errors import StaleVersion, StoreFailure
from stsfs.store.counters import KindCount
from stsfs.store.etags import normal_etag, told_etag
from stsfs.store.http_connection import Connection, Head
from stsfs.store.http_wire import PACE_BYTES, TURN_BYTES, BodyCut, ConnectionBroken
from stsfs.store.object_store import ObjectVersion, RangeSink
from stsfs.store.retry import Trouble
from stsfs.values import one_line

_SMALL_BODY_BYTES_MAX = 64 * 1024
"""No error answer, and no answer of one byte, is longer."""


class RangeTransfer:
    """Bytes [start, stop) of a version; a body that is cut is taken up again where it ended.

    `headers` and `receive` belong to one request each, as often as it takes. trouble is told of
    progress, count of bytes.
    """

    def __init__(
        self,
        version: ObjectVersion,
        start: int,
        stop: int,
        sink: RangeSink,
        trouble: Trouble,
        count: KindCount,
    ) -> None:
        assert 0 <= start < stop <= version.size_bytes
        self._version = version
        self._position, self._stop = start, stop
        self._sink = sink
        self._confirmed = False
        self._turn_left_bytes = TURN_BYTES
        self._trouble = trouble
        self._count = count

    def headers(self) -> str:
        """Header lines that ask for what is still missing, of this version only."""
        rest = f"bytes={self._position}-{self._stop - 1}"
        return f"Range: {rest}\r\n{if_match(self._version)}"

    async def receive(self, connection: Connection, head: Head) -> None:
        """Receive what the request was answered with.

        Raises StaleVersion and StoreFailure for other bytes than the missing ones, before the
        sink has seen any, and ConnectionBroken. StoreFailure for more than the missing ones, which
        a head without a length does not tell: before the sink has seen the last.
        """
        check_range_head(head, self._version, self._position, self._stop)
        if not self._confirmed:
            self._confirmed = True
            self._sink.confirmed()
        begun, self._turn_left_bytes = self._position, TURN_BYTES
        try:
            if head.length_bytes is None:
                await self._receive_counted(connection, head)
            else:
                await self._receive_announced(connection)
        except ConnectionBroken:
            # Who sends a byte a minute must not be forgiven for ever.
            if self._position - begun >= PACE_BYTES:
                self._trouble.progress()
            raise

    async def _receive_announced(self, connection: Connection) -> None:
        """A body with a length: straight into the sink's memory."""
        while self._position < self._stop:
            memory = self._sink.buffer()
            received = await connection.receive_into(memory[: self._stop - self._position])
            if self._is_turn_over(received):
                await trio.lowlevel.checkpoint()

    async def _receive_counted(self, connection: Connection, head: Head) -> None:
        """A body in chunks, or one that ends with its connection."""
        begun, missing_bytes, last = self._position, self._stop - self._position, b""
        wire_bytes_max = 2 * missing_bytes + _SMALL_BODY_BYTES_MAX
        async with aclosing(connection.body(head, wire_bytes_max)) as pieces:
            async for piece in pieces:
                missing_bytes -= len(piece)
                if missing_bytes < 0:
                    raise _too_much(self._version, begun, self._stop)
                if missing_bytes:
                    self._deliver(piece)
                    await trio.lowlevel.checkpoint()
                else:
                    last = piece
        self._deliver(last)
        if missing_bytes:
            raise BodyCut("the body was cut")

    def _deliver(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            memory = self._sink.buffer()[: len(rest)]
            memory[:] = rest[: len(memory)]
            rest = rest[len(memory) :]
            self._is_turn_over(len(memory))

    def _is_turn_over(self, received_bytes: int) -> bool:
        """Count what lies in the sink's memory; whether others should have a turn."""
        self._sink.received(received_bytes)
        self._position += received_bytes
        self._count.received_bytes += received_bytes
        self._turn_left_bytes -= received_bytes
        is_over = self._turn_left_bytes <= 0
        if is_over:
            self._turn_left_bytes = TURN_BYTES
            self._trouble.progress()
        return is_over


class Confirmation:
    """One byte of a version, or the empty whole of it: proof that the server still has it."""

    def __init__(self, version: ObjectVersion) -> None:
        self._version = version

    def headers(self) -> str:
        """Header lines of the request."""
        only_first = "Range: bytes=0-0\r\n" if self._version.size_bytes else ""
        return f"{only_first}{if_match(self._version)}"

    async def receive(self, connection: Connection, head: Head) -> None:
        """Receive what the request was answered with; raises as RangeTransfer.receive."""
        if self._version.size_bytes:
            check_range_head(head, self._version, 0, 1)
        else:
            _check_etag(head, self._version)
        body = await whole(connection, head)
        if self._version.size_bytes and len(body) > 1:
            raise _too_much(self._version, 0, 1)
        if self._version.size_bytes and not body:
            raise BodyCut("the body was cut")


def header(head: Head, name: bytes) -> str:
    """A header of an answer; empty when it has none of that name."""
    return head.headers.get(name, b"").decode("latin-1")


def if_match(version: ObjectVersion) -> str:
    """The header line that asks for this version only. Raises StoreFailure without an ETag."""
    return f"If-Match: {told_etag(version.etag, version.key)}\r\n"


def check_range_head(head: Head, version: ObjectVersion, start: int, stop: int) -> None:
    """Accept only bytes [start, stop) of this version, whatever a server claims to support.

    Where the head tells no length, the bytes are to be counted.
    """
    _check_etag(head, version)
    complete = start == 0 and stop == version.size_bytes
    expected = _range(version, start, stop)
    found = header(head, b"content-range").strip()
    right = found == expected or (head.status == 200 and complete)
    length = head.length_bytes
    if not right or length not in {None, stop - start}:
        found = one_line(found)  # here alone: it takes as long as the rest of a small read
        counted = "" if length is None else f" in {length} bytes"
        raise StoreFailure(
            f"Asked for {expected} of {version.key!r}, the server sent"
            f" {found or 'no range'}{counted}."
        )


def _range(version: ObjectVersion, start: int, stop: int) -> str:
    """As Content-Range says it."""
    return f"bytes {start}-{stop - 1}/{version.size_bytes}"


def _too_much(version: ObjectVersion, start: int, stop: int) -> StoreFailure:
    told = _range(version, start, stop)
    return StoreFailure(f"The server sent more than {told} of {version.key!r}.")


def _check_etag(head: Head, version: ObjectVersion) -> None:
    """Some servers ignore If-Match."""
    if normal_etag(header(head, b"etag")) != version.etag:
        raise StaleVersion(f"{version.key!r} was replaced.")


async def whole(connection: Connection, head: Head) -> bytes:
    """The body of an answer that is short. Raises ConnectionBroken."""
    async with aclosing(connection.body(head, _SMALL_BODY_BYTES_MAX)) as pieces:
        return b"".join([piece async for piece in pieces])
