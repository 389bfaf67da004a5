"""A server in the test's own loop that says on each connection exactly what a script says."""

import socket
from contextlib import asynccontextmanager, suppress

import trio


def with_length(body, *more):
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*parts):
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream):
        self._stream = stream
        self._received = b""

    async def asked(self):
        """Wait for a request; whether one came before the client closed."""
        while b"\r\n\r\n" not in self._received:
            data = await self.receive()
            if not data:
                return False
            self._received += data
        self._received = self._received.partition(b"\r\n\r\n")[2]
        return True

    async def body(self, size_bytes):
        """The body of the request that was asked last."""
        while len(self._received) < size_bytes:
            data = await self.receive()
            assert data, "closed in the middle of a body"
            self._received += data
        body, self._received = self._received[:size_bytes], self._received[size_bytes:]
        return body

    async def answer(self, *pieces):
        """Wait for a request, then send pieces, each one when the last has been taken."""
        assert await self.asked()
        await self.send(*pieces)

    async def send(self, *pieces):
        for piece in pieces:
            await self._stream.send_all(piece)

    async def reset(self):
        linger = b"\1\0\0\0\0\0\0\0"
        self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await self._stream.aclose()

    async def receive(self):
        """What comes next; nothing at the end, which a client may well make by a reset."""
        try:
            return await self._stream.receive_some()
        except trio.BrokenResourceError:
            return b""

    async def closed_by_client(self):
        assert await self.receive() == b""


@asynccontextmanager
async def served(script, *, tls=None, connections=1):
    """(host, port) of a server that plays `script(peer)` on each of so many connections."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:

        async def serve():
            for _ in range(connections):
                stream = await listener.accept()
                nursery.start_soon(play, stream)

        async def play(stream):
            whole = stream if tls is None else trio.SSLStream(stream, tls, server_side=True)
            # A client that gives up resets the connection: tests look at the client's end.
            with suppress(trio.BrokenResourceError):
                async with stream:
                    await script(Peer(whole))

        nursery.start_soon(serve)
        with trio.fail_after(120):
            yield listener.socket.getsockname()
        nursery.cancel_scope.cancel()
