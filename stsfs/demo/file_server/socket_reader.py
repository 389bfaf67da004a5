"""Reads HTTP/1.1 requests from a blocking socket: heads, and bodies without their framings."""

import socket
from collections.abc import Callable, Iterator

from stsfs.demo.s3_wire import HEAD_BYTES_MAX, BadRequest, RequestHead, response_bytes

PIECE_BYTES = 256 * 1024


class SocketReader:
    """The receiving half of one connection. Bytes that came too early stay in `_early`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._early = b""

    def read_head(self) -> bytes | None:
        """Read up to and including the empty line; None at the end of the connection."""
        while (end := self._early.find(b"\r\n\r\n")) < 0:
            if len(self._early) > HEAD_BYTES_MAX:
                raise BadRequest("the head is too long")
            received = self._socket.recv(HEAD_BYTES_MAX)
            if not received:
                return None
            self._early += received
        head, self._early = self._early[: end + 4], self._early[end + 4 :]
        return head

    def body(self, head: RequestHead) -> Iterator[bytes]:
        """Yield the body in pieces, free of chunked and aws-chunked framing.

        Asks for it first where the client waits for that. Raises ConnectionError, BadRequest.
        """
        if head.expects_continue:
            self._socket.sendall(response_bytes(100, ()))
        length_bytes = head.content_length_bytes
        if length_bytes is None:
            outer = unframed(self._receive)
        else:
            outer = exactly(self._receive, length_bytes)
        if head.header("x-amz-content-sha256").startswith("STREAMING-"):
            yield from unframed(_Joined(outer).receive)
        yield from outer

    def _receive(self, count_bytes: int) -> bytes:
        if self._early:
            piece, self._early = self._early[:count_bytes], self._early[count_bytes:]
            return piece
        piece = self._socket.recv(count_bytes)
        if not piece:
            raise ConnectionError("closed in the middle of a body")
        return piece


class _Joined:
    """Makes pieces readable again in sizes that the reader chooses."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def receive(self, count_bytes: int) -> bytes:
        while not self._rest:
            try:
                self._rest = next(self._pieces)
            except StopIteration:
                raise BadRequest("the body ends within its framing") from None
        piece, self._rest = self._rest[:count_bytes], self._rest[count_bytes:]
        return piece


def exactly(receive: Callable[[int], bytes], count_bytes: int) -> Iterator[bytes]:
    """Yield so many bytes; `receive(n)` gives between 1 and n."""
    while count_bytes:
        piece = receive(min(count_bytes, PIECE_BYTES))
        count_bytes -= len(piece)
        yield piece


def unframed(receive: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the data of chunks: hexadecimal size, extensions, data; trailers are dropped."""
    while size_bytes := int(_line(receive).partition(b";")[0], 16):
        yield from exactly(receive, size_bytes)
        _line(receive)
    while _line(receive):
        pass


def _line(receive: Callable[[int], bytes]) -> bytes:
    line = b""
    while not line.endswith(b"\r\n"):
        line += receive(1)
    return line[:-2]
