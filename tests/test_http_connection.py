"""One connection against a scripted server: framing, reuse, and every way an answer can end."""

import gc
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
import trio

from stsfs.demo.tls import make_local_tls
from stsfs.store import http_connection
from stsfs.store.counters import StoreCounters
from stsfs.store.http_connection import connect
from stsfs.store.http_pool import ConnectionPool
from stsfs.store.http_wire import STALL_S, TURN_BYTES, ConnectionBroken
from tests.fakes import pattern
from tests.scripted_server import chunked, served, with_length

REQUEST = b"GET /k HTTP/1.1\r\nHost: h\r\n\r\n"


@asynccontextmanager
async def connected(script, tls=None, server_tls=None):
    async with served(script, tls=server_tls) as (host, port):
        connection = await connect(host, port, tls)
        try:
            yield connection
        finally:
            connection.close()


async def whole_body(connection, head):
    return b"".join([piece async for piece in connection.body(head, 1 << 20)])


@pytest.mark.parametrize(
    "answer",
    [
        with_length(b"0123456789"),
        chunked(b"01234", b"56", b"789"),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n0123456789",
    ],
    ids=["length", "chunked", "until close"],
)
@pytest.mark.parametrize("piece_bytes", [1, 7, 1000])
async def test_a_body_is_whole_however_it_is_framed_and_cut_into_packets(answer, piece_bytes):
    async def script(peer):
        pieces = [answer[at : at + piece_bytes] for at in range(0, len(answer), piece_bytes)]
        await peer.answer(*pieces)

    async with connected(script) as connection:
        head = await connection.ask(REQUEST)
        assert head.status == 200
        assert await whole_body(connection, head) == b"0123456789"
        assert connection.reusable == (b"close" not in answer)


@pytest.mark.parametrize("make", [with_length, chunked], ids=["length", "chunked"])
async def test_answer_after_answer_comes_over_one_connection(make):
    bodies = [b"", b"one", pattern("two", 200_000), b"three"]

    async def script(peer):
        for body in bodies:
            await peer.answer(make(body) if body else with_length(b""))

    async with connected(script) as connection:
        for body in bodies:
            head = await connection.ask(REQUEST)
            assert await whole_body(connection, head) == body
            assert connection.reusable


async def test_a_body_is_received_into_the_callers_memory_and_never_beyond():
    data = pattern("body", 3 * TURN_BYTES)

    async def script(peer):
        await peer.answer(with_length(data))

    async with connected(script) as connection:
        await connection.ask(REQUEST)
        memory, at = memoryview(bytearray(len(data))), 0
        while at < len(data):
            assert not connection.reusable
            at += await connection.receive_into(memory[at : at + 50_000])
        assert memory == data
        assert connection.reusable


async def test_an_answer_without_a_body_ends_with_its_head():
    async def script(peer):
        await peer.answer(b"HTTP/1.1 304 Not Modified\r\n\r\n")

    async with connected(script) as connection:
        head = await connection.ask(REQUEST)
        assert await whole_body(connection, head) == b""
        assert connection.reusable


@pytest.mark.parametrize(
    "answer",
    [
        with_length(b"ok", b"Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        with_length(b"ok") + b"and more than was announced",
    ],
    ids=["close", "HTTP/1.0", "surplus"],
)
async def test_a_connection_that_cannot_go_on_is_not_reusable(answer):
    async def script(peer):
        await peer.answer(answer)

    async with connected(script) as connection:
        head = await connection.ask(REQUEST)
        assert await whole_body(connection, head) == b"ok"
        assert not connection.reusable


@pytest.mark.parametrize(
    "answer",
    [with_length(b"0123456789")[:-3], chunked(b"0123456789")[:-9]],
    ids=["length", "chunk"],
)
async def test_a_body_that_is_cut_breaks_the_connection(answer):
    async def script(peer):
        await peer.answer(answer)

    async with connected(script) as connection:
        head = await connection.ask(REQUEST)
        with pytest.raises(ConnectionBroken, match="cut") as caught:
            await whole_body(connection, head)
        assert not caught.value.unused
        assert not connection.reusable


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", "before an answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "endless head"),
    ],
    ids=["cut", "no HTTP", "negative length", "endless"],
)
async def test_a_head_that_makes_no_sense_breaks_the_connection(answer, reason):
    async def script(peer):
        await peer.answer(answer)

    async with connected(script) as connection:
        with pytest.raises(ConnectionBroken, match=reason) as caught:
            await connection.ask(REQUEST)
        assert not caught.value.unused
        assert not connection.reusable


@pytest.mark.parametrize("chunks", [b"zz\r\nno\r\n", b"5\r\nhello-and-more\r\n"])
async def test_chunks_that_make_no_sense_break_the_connection(chunks):
    async def script(peer):
        await peer.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)

    async with connected(script) as connection:
        head = await connection.ask(REQUEST)
        with pytest.raises(ConnectionBroken, match="not HTTP"):
            await whole_body(connection, head)


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_an_idle_connection_that_was_closed_is_reported_unused(end):
    async def script(peer):
        await peer.answer(with_length(b"ok"))
        if end == "reset":
            await peer.reset()
        else:
            await peer.answer()  # and hang up

    async with connected(script) as connection:
        head = await connection.ask(REQUEST)
        await whole_body(connection, head)
        connection.reused = True  # as the pool marks it
        with pytest.raises(ConnectionBroken) as caught:
            await connection.ask(REQUEST)
        assert caught.value.unused


async def test_a_fresh_connection_that_is_closed_is_a_failure_not_unused():
    async def script(peer):
        await peer.answer()

    async with connected(script) as connection:
        with pytest.raises(ConnectionBroken) as caught:
            await connection.ask(REQUEST)
        assert not caught.value.unused


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_a_head_that_does_not_come_is_given_up(sent, fast_stalls):
    async def script(peer):
        await peer.answer(sent)
        await trio.sleep_forever()

    async with connected(script) as connection:
        with pytest.raises(ConnectionBroken, match="no answer"):
            await connection.ask(REQUEST)


async def test_a_body_that_stalls_is_given_up(fast_stalls):
    async def script(peer):
        await peer.answer(with_length(b"0123456789")[:-1])
        await trio.sleep_forever()

    async with connected(script) as connection:
        head = await connection.ask(REQUEST)
        with pytest.raises(ConnectionBroken, match="stalled"):
            await whole_body(connection, head)


@pytest.fixture
def fast_stalls(monkeypatch):
    assert STALL_S > 1
    monkeypatch.setattr("stsfs.store.http_connection.STALL_S", 0.05)


async def test_a_cancelled_request_leaves_the_connection_unusable():
    async def script(peer):
        await peer.answer(with_length(b"0123456789")[:-5])
        await peer.closed_by_client()

    async with connected(script) as connection:
        with trio.CancelScope() as scope:
            await connection.ask(REQUEST)
            memory = memoryview(bytearray(10))
            await connection.receive_into(memory)
            scope.cancel()
            while True:
                await connection.receive_into(memory)
        assert scope.cancelled_caught
        assert not connection.reusable


async def test_requests_and_bodies_pass_through_tls(tmp_path):
    tls = make_local_tls(tmp_path)
    bodies = [pattern("tls", 3 * TURN_BYTES), b"second"]

    async def script(peer):
        for body in bodies:
            await peer.answer(with_length(body))
        await peer.answer(with_length(b"0123456789")[:-5])

    context = tls.client_context()
    async with connected(script, context, tls.server_context) as connection:
        for body in bodies:
            head = await connection.ask(REQUEST)
            assert await whole_body(connection, head) == body
            assert connection.reusable
        head = await connection.ask(REQUEST)
        with pytest.raises(ConnectionBroken, match="cut"):
            await whole_body(connection, head)


async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path):
    tls = make_local_tls(tmp_path)

    async def script(peer):
        with pytest.raises(trio.BrokenResourceError):
            await peer.answer()

    async with served(script, tls=tls.server_context) as (host, port):
        with pytest.raises(ConnectionBroken, match="certificate verify failed"):
            await connect(host, port, ssl.create_default_context())


@pytest.mark.parametrize("end", ["cancelled", "stalled"])
async def test_a_handshake_that_does_not_end_gives_its_descriptor_back(end, monkeypatch):
    # A socket left to the collector would be a ResourceWarning, and so an error.
    client_is_gone = trio.Event()
    if end == "stalled":
        monkeypatch.setattr("stsfs.store.http_connection.STALL_S", 0.05)

    async def script(peer):
        while await peer.receive():
            pass
        client_is_gone.set()

    async with served(script) as (host, port):
        context = ssl.create_default_context()
        if end == "cancelled":
            with trio.move_on_after(0.05) as scope:
                await connect(host, port, context)
            assert scope.cancelled_caught
        else:
            with pytest.raises(ConnectionBroken, match="no connection"):
                await connect(host, port, context)
        await client_is_gone.wait()


async def test_an_address_where_nobody_listens_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionBroken, match="cannot connect"):
        await connect("127.0.0.1", port, None)


async def test_a_connection_opened_in_place_of_a_closed_one_keeps_within_the_limit():
    async def script(peer):
        while await peer.asked():
            await peer.send(with_length(b"ok"))

    async with served(script, connections=4) as (host, port):
        pool = ConnectionPool(host, port, None, connections_max=2, counters=StoreCounters())
        for fresh in (False, True):
            pair = [await pool.take(ahead=False, fresh=fresh) for _ in range(2)]
            for connection in pair:
                await whole_body(connection, await connection.ask(REQUEST))
                pool.give_back(connection)
            assert len(pool._idle) == 2
        pool.close()


async def test_an_answer_leaves_nothing_to_the_garbage_collector():
    async def script(peer):
        for _ in range(5):
            await peer.answer(chunked(b"body"))

    async with connected(script) as connection:
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                head = await connection.ask(REQUEST)
                assert await whole_body(connection, head) == b"body"
            kept = [each for each in gc.get_objects() if isinstance(each, http_connection._Parser)]
            assert len(kept) == 1
        finally:
            gc.enable()


async def test_addresses_that_do_not_answer_are_named(monkeypatch):
    async def never(*_):
        await trio.sleep_forever()

    monkeypatch.setattr(http_connection, "ADDRESS_PATIENCE_S", 0.01)
    monkeypatch.setattr(trio, "open_tcp_stream", never)
    with pytest.raises(ConnectionBroken, match=r"127\.0\.0\.1 does not answer"):
        await connect("127.0.0.1", 1, None, check=lambda _: None)


def sent_until_nothing_fits(sock):
    sent_bytes = 0
    while True:
        try:
            sent_bytes += sock.send(bytes(1 << 20))
        except BlockingIOError:
            return sent_bytes


def received_until_reset(sock):
    received_bytes = 0
    while True:
        try:
            data = sock.recv(1 << 20)
        except ConnectionResetError:
            return received_bytes
        assert data, "ended as if all had been sent"
        received_bytes += len(data)


async def test_what_was_not_delivered_when_a_connection_ends_is_never_delivered():
    """Also when the process is killed: the kernel must not go on alone."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = await connect(*listening.getsockname(), None)
        peer, _ = listening.accept()
        with peer:
            sent_bytes = sent_until_nothing_fits(connection._sock)
            connection.close()
            assert received_until_reset(peer) < sent_bytes


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 2", b"content-length: 2"],
        [b"Content-Length: 2", b"ETag: e", b"Content-Length:2 ", b"CONTENT-LENGTH: \t2"],
        [b"Content-Length: 2, 2"],
        [b"Content-Length: 2 ,2", b"Content-Length: 2"],
    ],
)
async def test_a_length_that_is_told_twice_alike_is_one(lines):
    """A recipient may take them as one (RFC 9110, 8.6)."""
    answer = b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\nok"

    async def script(peer):
        await peer.answer(answer)
        await peer.answer(with_length(b"next"))

    async with connected(script) as connection:
        for body in (b"ok", b"next"):
            head = await connection.ask(REQUEST)
            assert head.length_bytes == len(body)
            assert await whole_body(connection, head) == body
            assert connection.reusable


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 2", b"Content-Length: 3"],
        [b"Content-Length: 2", b"Content-Length: 02"],
        [b"Content-Length: 2, 3"],
        [b"Content-Length: 2,"],
        [b"Content-Length: 2", b"Content-Length: 2", b" 3"],
        [b"Content-Length: 2", b"Content-Length: 2", b"Content-Length : 3"],
        [b"Content-Length: 2", b"Content-Length: -2"],
        [b"Content-Length: 2", b"Content-Length: 2", b"Transfer-Encoding: chunked"],
    ],
)
async def test_lengths_that_differ_are_none(lines):
    answer = b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\nok"

    async def script(peer):
        await peer.answer(answer)

    async with connected(script) as connection:
        with pytest.raises(ConnectionBroken, match="not HTTP"):
            await connection.ask(REQUEST)
        assert not connection.reusable
