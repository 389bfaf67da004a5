"""A request with a body on its way out, while an answer may come before its end."""

import socket
import ssl
from typing import Protocol

import trio

from stsfs.store.http_wire import (
    STALL_S,
    TURN_BYTES,
    UPLOAD_PACE_BYTES,
    UPLOAD_PACE_S,
    ConnectionBroken,
    InterimHeads,
    TooSlow,
    unacknowledged_bytes,
)

PIECE_BYTES = 1 << 20
"""How much of a body is read at once."""

_TLS_SLICE_BYTES = 64 * 1024
_LOOK_S = 0.2
"""How often it is looked whether the last bytes have arrived."""


class OutgoingBody(Protocol):
    """A body to be sent with a request."""

    @property
    def size_bytes(self) -> int:
        """What the request announces."""

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """Exactly these bytes."""

    def sent(self, count_bytes: int) -> None:
        """So many more bytes have left, in turn. Not a checkpoint."""


class _Pace:
    """Whether a peer takes what it is sent, and takes it fast enough to be of use.

    What counts is what its kernel has acknowledged: ours may keep megabytes for a slow line.
    """

    def __init__(self) -> None:
        self._moved_s = self._since_s = trio.current_time()
        self._moved_bytes = self._since_bytes = 0

    def check(self, taken_bytes: int) -> None:
        """Raise ConnectionBroken unless something was taken of late, TooSlow unless enough was.

        Not a checkpoint.
        """
        now_s = trio.current_time()
        if taken_bytes > self._moved_bytes:
            self._moved_s, self._moved_bytes = now_s, taken_bytes
        elif now_s - self._moved_s >= STALL_S:
            raise ConnectionBroken(f"nothing could be sent for {STALL_S:g} s")
        if now_s - self._since_s < UPLOAD_PACE_S:
            return
        if taken_bytes - self._since_bytes < UPLOAD_PACE_BYTES:
            raise TooSlow(f"fewer than {UPLOAD_PACE_BYTES} bytes were taken in {UPLOAD_PACE_S:g} s")
        self._since_s, self._since_bytes = now_s, taken_bytes


class Sending:
    """One request, head and body, to be sent over a non-blocking socket."""

    def __init__(
        self, sock: socket.socket, answer: memoryview, request: bytes, body: OutgoingBody
    ) -> None:
        """answer is where the first bytes of an answer go that comes too early."""
        self._sock = sock
        # TLS takes all that it is given, or says that it has taken nothing yet.
        self._slice_bytes = _TLS_SLICE_BYTES if isinstance(sock, ssl.SSLSocket) else TURN_BYTES
        self._answer = answer
        self._answer_bytes = 0
        """What lies there of an answer; of a head that is not the last, as long as none came."""

        self._interim = InterimHeads()
        self._is_answered = False
        self._request = request
        self._body = body
        self._read_bytes = 0
        self._rest = memoryview(request)
        self._piece_bytes = 0
        """How much of the rest, at most, is the body's: its end."""

        self._sent_bytes = 0
        self._pace = _Pace()
        self._failure: Exception | None = None
        self._heard = trio.Event()
        """Set, and replaced, whenever something has been read: TLS may get on then."""

        self._wants_read = False
        """TLS sends nothing before it has read something: keys are being exchanged."""

    @property
    def whole(self) -> bool:
        """Whether all of it has left."""
        return not self._rest and self._read_bytes == self._body.size_bytes

    async def run(self) -> int:
        """Send until the end, or until the server answers; how many bytes of that have come.

        Raises OSError, ConnectionBroken and what the body raises. 0 before the end: it has closed.
        """
        self._rest = memoryview(self._request + await self._read())
        self._send_now()
        if self.whole and (
            self._sent_bytes <= UPLOAD_PACE_BYTES or not unacknowledged_bytes(self._sock)
        ):
            return 0  # so little is there before who waits for the answer gives up
        # It takes its time: from here on, one task sends and another one listens.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, nursery.cancel_scope)
            try:
                await self._send_rest()
            except Exception as exc:  # noqa: BLE001 - raised below, not in a group
                self._failure = exc
            nursery.cancel_scope.cancel()
        answered = self._is_answered and isinstance(self._failure, OSError)
        if self._failure is not None and not answered:
            raise self._failure
        return self._answer_bytes if self._is_answered or self.whole else 0

    async def _read(self) -> bytes:
        size_bytes = min(PIECE_BYTES, self._body.size_bytes - self._read_bytes)
        piece = await self._body.read(self._read_bytes, size_bytes) if size_bytes else b""
        assert len(piece) == size_bytes
        self._read_bytes += size_bytes
        self._piece_bytes = size_bytes
        return piece

    async def _send_rest(self) -> None:
        while True:
            while self._rest:
                if self._send_now(TURN_BYTES):
                    await trio.lowlevel.checkpoint()
                    continue
                with trio.CancelScope(deadline=trio.current_time() + STALL_S):
                    if self._wants_read:
                        await self._heard.wait()
                    else:
                        await trio.lowlevel.wait_writable(self._sock)
                self._check_pace()
            if self.whole:
                break
            self._rest = memoryview(await self._read())
        while unacknowledged_bytes(self._sock):  # who waits for the answer has not begun to
            await trio.sleep(_LOOK_S)
            self._check_pace()

    def _check_pace(self) -> None:
        self._pace.check(self._sent_bytes - unacknowledged_bytes(self._sock))

    def _send_now(self, turn_bytes: int = 2 * PIECE_BYTES) -> bool:
        """Send what the socket takes, about turn_bytes at most; False when it takes no more."""
        self._wants_read = False
        while self._rest and turn_bytes > 0:
            body_bytes = min(len(self._rest), self._piece_bytes)
            try:
                count = self._sock.send(self._rest[: self._slice_bytes])
            except (BlockingIOError, ssl.SSLWantWriteError):
                return False
            except ssl.SSLWantReadError:
                self._wants_read = True
                return False
            self._rest = self._rest[count:]
            self._sent_bytes += count
            turn_bytes -= count
            self._body.sent(body_bytes - min(len(self._rest), self._piece_bytes))
        return True

    async def _listen(self, scope: trio.CancelScope) -> None:
        """End the sending when the server answers, or closes."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            if self._is_over():
                scope.cancel()
                return
            heard, self._heard = self._heard, trio.Event()
            heard.set()

    def _is_over(self) -> bool:
        """Receive what there is; whether it is an answer, or the end."""
        try:
            while self._answer_bytes < len(self._answer):
                count = self._sock.recv_into(self._answer[self._answer_bytes :])
                if count == 0:
                    return True
                received = bytearray(self._answer[: self._answer_bytes + count])
                self._is_answered = not self._interim.passed(received)
                self._answer_bytes = len(received)
                self._answer[: len(received)] = received
                if self._is_answered:
                    return True
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except (OSError, ConnectionBroken) as exc:
            self._failure = exc
            return True
        self._is_answered = True  # whoever reads on will find that it has no end
        return True
