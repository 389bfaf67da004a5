"""One keep-alive HTTP/1.1 connection, in trio's own loop, received straight into block memory.

A plain non-blocking socket with `recv_into`, and over TLS an `ssl.SSLSocket` in non-blocking mode:
trio's streams would copy every byte once more, and trio.SSLStream twice. Heads are parsed by
httptools; bodies with a Content-Length never pass through a parser.
"""

import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import httptools
import trio

from stsfs.store.http_sending import OutgoingBody, Sending
from stsfs.store.http_wire import (
    BODY_S,
    PACE_BYTES,
    STALL_S,
    WORK_S,
    BodyCut,
    ConnectionBroken,
    InterimHeads,
    unacknowledged_bytes,
    with_one_length,
)
from stsfs.store.shares import Owner
from stsfs.values import TEXT_CHARS_MAX, size_bytes

AddressCheck = Callable[[str], None]

ADDRESS_PATIENCE_S = 5.0
"""How long one of several addresses may take that were checked."""

_SCRATCH_BYTES = 16 * 1024
_HEAD_BYTES_MAX = 64 * 1024
_HEADERS_MAX = 500
_SINGLE = {b"etag", b"content-range", b"last-modified"}
"""Headers that decide something: two that differ are no answer. Proxies add a Date of their own."""

_ALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""Seconds, seconds, times: a peer that has vanished is noticed while a long answer is due."""

_GIVEN_UP = struct.pack("ii", 1, 0)
"""SO_LINGER: what is closed is reset. Otherwise the kernel goes on to deliver what was given up, or
what was on its way when this process was killed: S3 would make an object minutes later, when its
name may have been removed, or when whoever recovers has found that it is not there."""


@dataclass(slots=True)
class Head:
    """Status line and headers of one answer.

    As a connection makes it: a bounded number of headers of bounded length, without control
    characters, and none of those that decide something twice.
    """

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    """Names in lower case."""

    length_bytes: int | None = None
    """Content-Length, a size that a file can have; None when the body is chunked or ends with the
    connection."""

    keep_alive: bool = False


class _Parser:
    """httptools callbacks for one answer; what they raise is an HttpParserError to the caller.

    httptools itself refuses control characters in headers, and a length that is no number, comes
    twice (see with_one_length), or beside chunks.
    """

    def __init__(self) -> None:
        self.head = Head()
        self.complete = False
        self.ended = False
        self.followed = False
        """Something came behind the answer that was not asked for."""

        self.body: list[bytes] = []
        self.http: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.followed = self.ended

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return  # behind the last chunk: nobody looks there
        headers, name = self.head.headers, name.lower()
        if len(headers) >= _HEADERS_MAX or len(value) > TEXT_CHARS_MAX:
            raise ValueError("too many headers, or too long")
        if name in _SINGLE and headers.get(name, value) != value:
            raise ValueError("a header that is there twice")
        headers[name] = value

    def on_headers_complete(self) -> None:
        if self.followed:
            return
        assert self.http is not None
        self.complete = True
        self.head.status = self.http.get_status_code()
        self.head.keep_alive = self.http.should_keep_alive()
        length = self.head.headers.get(b"content-length")
        if length is not None and b"transfer-encoding" not in self.head.headers:
            self.head.length_bytes = size_bytes(int(length))

    def on_body(self, data: bytes) -> None:
        if not self.followed:
            self.body.append(data)

    def on_message_complete(self) -> None:
        self.ended = True


class Connection:
    """A connected socket and the bytes received ahead of what was asked for.

    Methods raise ConnectionBroken and what a body raises. After any exception, a cancellation
    included, the connection is not reusable and must be closed.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._left = self._scratch[:0]
        self._parser: _Parser | None = None
        self._http: httptools.HttpResponseParser | None = None
        self._body_left_bytes = 0
        self._body_ends_s = self._pace_ends_s = float("inf")
        self._pace_left_bytes = 0
        self._cut = False
        self._patience_s = STALL_S
        self.reused = False
        self.ahead = False
        self.owner: Owner = None
        """For whom it was lent last."""

        self.idle_since_s = 0.0

    @property
    def reusable(self) -> bool:
        """The last answer was received to its end, and the server keeps the connection."""
        parser = self._parser
        if parser is None or not parser.head.keep_alive or self._left or self._cut:
            return False
        if parser.followed:
            return False
        return parser.ended or (parser.head.length_bytes is not None and not self._body_left_bytes)

    @property
    def silent(self) -> bool:
        """Nothing has come since the last answer: no end, and no answer that nobody asked for.

        To be looked at before the next request, which would take it for its own. Not a checkpoint.
        """
        try:
            self._sock.recv_into(self._scratch)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Give the descriptor back. Not a checkpoint."""
        self._sock.close()

    async def ask(
        self,
        request: bytes,
        body: OutgoingBody | None = None,
        *,
        patience_s: float | None = None,
    ) -> Head:
        """Send a request and return the head of its answer.

        One that comes before the server has all of the request may only be a refusal: success is
        that of another request, or of a server that does not look, and breaks the connection.
        patience_s is how long the server may be silent once it has the whole request, and in the
        middle of its answer; None is STALL_S.
        """
        self._parser = None
        patience_s = self._patience_s = STALL_S if patience_s is None else patience_s
        try:
            early_bytes = 0 if body is None else await self._send_with(request, body)
            with trio.CancelScope(deadline=trio.current_time() + patience_s):
                if body is None:
                    await self._send(request)
                return await self._receive_head(early_bytes)
        except OSError as exc:
            raise ConnectionBroken(str(exc), unused=self.reused) from exc
        raise ConnectionBroken(f"no answer for {patience_s:g} s")

    async def _send_with(self, request: bytes, body: OutgoingBody) -> int:
        """Send head and body; how many bytes of an early answer lie in _scratch.

        A server that refuses a request may answer and close without having read the body.
        """
        sending = Sending(self._sock, self._scratch, request, body)
        try:
            early_bytes = await sending.run()
        except OSError:
            try:  # the answer may have come before the reset
                early_bytes = self._sock.recv_into(self._scratch)
            except OSError:
                early_bytes = 0
            if not early_bytes:
                raise
        finally:
            self._cut = not sending.whole
        if self._cut and not early_bytes:
            raise ConnectionBroken("closed before the body was sent", unused=self.reused)
        return early_bytes

    async def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._sock.send(rest) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await trio.lowlevel.wait_writable(self._sock)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._sock)

    async def _receive_head(self, early_bytes: int) -> Head:
        interim, head, end = InterimHeads(), bytearray(), -1
        while end < 0:
            count = early_bytes or await self._recv(self._scratch)
            early_bytes = 0
            if count == 0:
                unused = self.reused and not head and not interim.any_passed
                raise ConnectionBroken("closed before an answer", unused=unused)
            head += self._scratch[:count]
            if not interim.passed(head):
                end = head.find(b"\r\n\r\n")
            if end < 0 and len(head) > _HEAD_BYTES_MAX:
                raise ConnectionBroken("an answer with an endless head")
        body_bytes = len(head) - (end + 4)
        self._left = self._scratch[count - body_bytes : count]
        parser = _Parser()
        # Each holds the other: one cycle per answer, which nothing would collect for minutes.
        http = parser.http
        assert http is not None
        try:
            http.feed_data(with_one_length(bytes(memoryview(head)[: end + 4])))
        except httptools.HttpParserUpgrade as exc:
            raise ConnectionBroken("a change of protocol that nobody asked for") from exc
        except httptools.HttpParserError as exc:
            raise ConnectionBroken(f"not HTTP: {exc}") from exc
        finally:
            parser.http = None
        if not parser.complete:
            raise ConnectionBroken("an incomplete head")
        is_success = 200 <= parser.head.status < 300
        if is_success and (self._cut or unacknowledged_bytes(self._sock)):
            raise ConnectionBroken("success was told before the request was there")
        self._parser, self._http = parser, http
        self._body_left_bytes = self._pace_left_bytes = parser.head.length_bytes or 0
        self._body_ends_s = float("inf")
        self._pace_ends_s = trio.current_time() + STALL_S
        return parser.head

    async def _recv(self, into: memoryview) -> int:
        while True:
            try:
                return self._sock.recv_into(into)
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(self._sock)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._sock)

    async def receive_into(self, into: memoryview) -> int:
        """Receive at least one byte of the body into memory; returns how many.

        Waits only when nothing has arrived, so that a caller must give others a turn itself:
        once per TURN_BYTES.
        """
        if self._left:
            count = min(len(self._left), len(into))
            into[:count] = self._left[:count]
            self._left = self._left[count:]
            self._body_left_bytes -= count
            return count
        count = -1
        try:
            try:
                count = self._sock.recv_into(into)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                now_s = trio.current_time()
                self._check_pace(now_s)
                with trio.CancelScope(deadline=min(now_s + self._patience_s, self._body_ends_s)):
                    count = await self._recv(into)
        except OSError as exc:
            raise ConnectionBroken(str(exc)) from exc
        if count < 0:
            raise ConnectionBroken("the body stalled")
        if count == 0:
            raise BodyCut("the body was cut")
        self._body_left_bytes -= count
        return count

    def _check_pace(self, now_s: float) -> None:
        """Raise ConnectionBroken for a body that comes too slowly to be of use.

        Only looked at when there is nothing to receive. Who is given time to work may be slow.
        """
        if now_s < self._pace_ends_s or self._patience_s > STALL_S:
            return
        if self._pace_left_bytes - self._body_left_bytes < PACE_BYTES:
            raise ConnectionBroken(f"fewer than {PACE_BYTES} bytes came in {STALL_S:g} s")
        self._pace_left_bytes = self._body_left_bytes
        self._pace_ends_s = now_s + STALL_S

    async def body(self, head: Head, bytes_max: int) -> AsyncGenerator[bytes, None]:
        """The whole body in pieces, however it is framed: for small bodies (LIST pages, errors).

        Raises ConnectionBroken, also where it does not end within bytes_max, chunks' heads and
        what follows the last one included, or in time.
        """
        self._body_ends_s = trio.current_time() + (WORK_S if self._patience_s > STALL_S else BODY_S)
        if head.length_bytes is not None:
            if head.length_bytes > bytes_max:
                raise ConnectionBroken(f"a body longer than {bytes_max} bytes")
            left_bytes = head.length_bytes
            piece = memoryview(bytearray(min(left_bytes, 4 * _SCRATCH_BYTES)))
            while left_bytes:
                count = await self.receive_into(piece[: min(left_bytes, len(piece))])
                left_bytes -= count
                yield bytes(piece[:count])
            return
        parser, http = self._parser, self._http
        assert parser is not None
        assert http is not None
        piece = memoryview(bytearray(4 * _SCRATCH_BYTES))
        left_bytes = bytes_max
        while not parser.ended:
            if left_bytes < 0:
                raise ConnectionBroken(f"a body longer than {bytes_max} bytes")
            try:
                count = await self.receive_into(piece)
            except BodyCut:
                if b"transfer-encoding" in head.headers or head.keep_alive:
                    raise
                return  # no length, no chunks: the end of the connection ends the body
            left_bytes -= count
            try:
                http.feed_data(bytes(piece[:count]))
            except httptools.HttpParserError as exc:
                raise ConnectionBroken(f"not HTTP: {exc}") from exc
            # Chunks may be of one byte each: whoever takes them should be asked less often.
            data = b"".join(parser.body)
            parser.body.clear()
            if data:
                yield data
            else:  # heads of chunks, lines behind the last one: others have their turn, too
                await trio.lowlevel.checkpoint()


async def connect(
    host: str, port: int, tls: ssl.SSLContext | None, *, check: AddressCheck | None = None
) -> Connection:
    """Open a connection (all addresses of the host are tried). Raises ConnectionBroken.

    check sees every address before any is connected to, and raises for one that must not be.
    """
    try:
        with trio.fail_after(STALL_S):
            if check is None:
                stream = await trio.open_tcp_stream(host, port)
            else:
                stream = await _connected(await _checked_addresses(host, port, check), port)
            sock = socket.socket(fileno=stream.socket.detach())
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _GIVEN_UP)
                for option, value in _ALIVE:
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
                if tls is not None:
                    sock = await _handshake(sock, host, tls)
            except BaseException:
                sock.close()
                raise
            return Connection(sock)
    except trio.TooSlowError:
        raise ConnectionBroken(f"no connection to {host}:{port} within {STALL_S:g} s") from None
    except OSError as exc:
        raise ConnectionBroken(f"cannot connect to {host}:{port}: {exc}") from exc
    except ValueError as exc:  # a UnicodeError where a label is empty, too long or no text
        raise ConnectionBroken(f"cannot connect to {host!r}: no host can have that name") from exc


async def _checked_addresses(host: str, port: int, check: AddressCheck) -> list[str]:
    """All addresses of a host, each once; raises OSError, and what check raises."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    for each in addresses:
        check(each)
    return addresses


async def _connected(addresses: list[str], port: int) -> trio.SocketStream:
    """A connection to the first of these that takes one: they are not looked up again."""
    error: OSError = OSError("the host has no address")
    for each in addresses:
        with trio.move_on_after(ADDRESS_PATIENCE_S):
            try:
                return await trio.open_tcp_stream(each, port)
            except OSError as exc:
                error = exc
                continue
        error = TimeoutError(f"{each} does not answer")
    raise error


class _SecuredSocket(ssl.SSLSocket):
    """Closes itself when its connection is gone before it is wrapped.

    `wrap_socket` looks for its peer first. When a reset has come by then, Python 3.11 raises and
    forgets the new socket, which has the descriptor already.
    """

    def getpeername(self) -> Any:  # host and port, and more for IPv6: as socket types it
        try:
            return super().getpeername()
        except OSError:
            self.close()
            raise


async def _handshake(sock: socket.socket, host: str, tls: ssl.SSLContext) -> ssl.SSLSocket:
    """Takes over the descriptor of sock, and closes it when there is no handshake."""
    tls.sslsocket_class = _SecuredSocket
    secured = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secured)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(secured)
            else:
                return secured
    except BaseException:  # a cancelled wait included
        secured.close()
        raise
