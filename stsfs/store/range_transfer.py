"""The bytes of one version on their way from a connection to a sink, and what proves them right."""

from contextlib import aclosing

import trio

from stsfs.errors import StaleVersion, StoreFailure
from stsfs.store.counters import KindCount
from stsfs.store.etags import normal_etag, told_etag
from stsfs.store.http_connection import Connection, Head
from stsfs.store.http_wire import PACE_BYTES, TURN_BYTES, ConnectionBroken
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
        self._trouble = trouble
        self._count = count

    def headers(self) -> str:
        """Header lines that ask for what is still missing, of this version only."""
        rest = f"bytes={self._position}-{self._stop - 1}"
        return f"Range: {rest}\r\n{if_match(self._version)}"

    async def receive(self, connection: Connection, head: Head) -> None:
        """Receive what the request was answered with.

        Raises StaleVersion and StoreFailure for other bytes than the missing ones, before the
        sink has seen any, and ConnectionBroken.
        """
        check_range_head(head, self._version, self._position, self._stop)
        sink, trouble, count = self._sink, self._trouble, self._count
        if not self._confirmed:
            self._confirmed = True
            sink.confirmed()
        begun, turn_bytes = self._position, TURN_BYTES
        while self._position < self._stop:
            memory = sink.buffer()
            try:
                received = await connection.receive_into(memory[: self._stop - self._position])
            except ConnectionBroken:
                # Who sends a byte a minute must not be forgiven for ever.
                if self._position - begun >= PACE_BYTES:
                    trouble.progress()
                raise
            sink.received(received)
            self._position += received
            count.received_bytes += received
            turn_bytes -= received
            if turn_bytes <= 0:
                turn_bytes = TURN_BYTES
                trouble.progress()
                await trio.lowlevel.checkpoint()


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
        await whole(connection, head)


def header(head: Head, name: bytes) -> str:
    """A header of an answer; empty when it has none of that name."""
    return head.headers.get(name, b"").decode("latin-1")


def if_match(version: ObjectVersion) -> str:
    """The header line that asks for this version only. Raises StoreFailure without an ETag."""
    return f"If-Match: {told_etag(version.etag, version.key)}\r\n"


def check_range_head(head: Head, version: ObjectVersion, start: int, stop: int) -> None:
    """Accept only bytes [start, stop) of this version, whatever a server claims to support."""
    _check_etag(head, version)
    complete = start == 0 and stop == version.size_bytes
    expected = f"bytes {start}-{stop - 1}/{version.size_bytes}"
    found = one_line(header(head, b"content-range"))
    right = found == expected or (head.status == 200 and complete)
    if not right or head.length_bytes != stop - start:
        raise StoreFailure(
            f"Asked for {expected} of {version.key!r}, the server sent {found or 'no range'}."
        )


def _check_etag(head: Head, version: ObjectVersion) -> None:
    """Some servers ignore If-Match."""
    if normal_etag(header(head, b"etag")) != version.etag:
        raise StaleVersion(f"{version.key!r} was replaced.")


async def whole(connection: Connection, head: Head) -> bytes:
    """The body of an answer that is short. Raises ConnectionBroken."""
    async with aclosing(connection.body(head, _SMALL_BODY_BYTES_MAX)) as pieces:
        return b"".join([piece async for piece in pieces])
