"""A body on its way out, against a server that reads it, answers early, stalls or closes."""

import socket
import ssl
from contextlib import asynccontextmanager, closing

import pytest
import trio

from stsfs.demo.tls import make_local_tls
from stsfs.errors import StagingFailure
from stsfs.store import http_sending
from stsfs.store.http_connection import connect
from stsfs.store.http_sending import PIECE_BYTES, Sending
from stsfs.store.http_wire import ConnectionBroken, TooSlow
from tests.fakes import pattern
from tests.scripted_server import served, with_length

REQUEST = b"PUT /k HTTP/1.1\r\nHost: h\r\n\r\n"
LARGE_BYTES = 24 * PIECE_BYTES
"""More than both sockets of a connection take while nobody reads."""

SMALL_BYTES = 16 * 1024
"""What one socket can hold where the other one takes a few thousand."""

REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\ndenied"


class Bytes:
    """A body in memory that notes what was asked of it; fails where it is told to."""

    def __init__(self, data, *, fails_at=None):
        self.size_bytes, self.sent_bytes = len(data), 0
        self._data, self._fails_at = data, fails_at

    async def read(self, offset, size_bytes):
        await trio.lowlevel.checkpoint()
        if self._fails_at is not None and offset >= self._fails_at:
            raise StagingFailure("the disk is gone")
        return self._data[offset : offset + size_bytes]

    def sent(self, count_bytes):
        assert count_bytes >= 0
        self.sent_bytes += count_bytes


@pytest.fixture(params=["plain", "TLS"])
def contexts(request, tmp_path):
    if request.param == "plain":
        return None, None
    tls = make_local_tls(tmp_path)
    return tls.client_context(), tls.server_context


@asynccontextmanager
async def connected(script, contexts=(None, None)):
    client, server = contexts
    async with served(script, tls=server) as (host, port):
        connection = await connect(host, port, client)
        try:
            yield connection
        finally:
            connection.close()


async def whole_body(connection, head):
    return b"".join([piece async for piece in connection.body(head, 1 << 20)])


async def test_a_body_of_any_size_arrives_whole_and_is_told_byte_for_byte(contexts):
    sizes = [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 5 * PIECE_BYTES + 17, 3]
    arrived = []

    async def script(peer):
        for size_bytes in sizes:
            assert await peer.asked()
            arrived.append(await peer.body(size_bytes))
            await peer.send(with_length(b"%d" % size_bytes))

    async with connected(script, contexts) as connection:
        for size_bytes in sizes:
            body = Bytes(pattern("body", size_bytes))
            head = await connection.ask(REQUEST, body)
            assert await whole_body(connection, head) == b"%d" % size_bytes
            assert body.sent_bytes == size_bytes
            assert connection.reusable
    assert arrived == [pattern("body", size_bytes) for size_bytes in sizes]


async def test_an_answer_before_the_end_is_heard_although_the_rest_is_never_read(contexts):
    async def script(peer):
        await peer.answer(REFUSED)
        await trio.sleep_forever()

    async with connected(script, contexts) as connection:
        body = Bytes(bytes(LARGE_BYTES))
        head = await connection.ask(REQUEST, body)
        assert head.status == 403
        assert await whole_body(connection, head) == b"denied"
        assert body.sent_bytes < LARGE_BYTES
        assert not connection.reusable


async def test_an_answer_is_heard_although_the_server_closes_behind_it():
    async def script(peer):
        await peer.answer(REFUSED)  # what it has not read makes the close a reset

    async with connected(script) as connection:
        head = await connection.ask(REQUEST, Bytes(bytes(LARGE_BYTES)))
        assert head.status == 403
        assert not connection.reusable


EARLY_SUCCESSES = [with_length(b"").replace(b"200", b"%d" % n) for n in (200, 204, 206, 299)]


@pytest.mark.parametrize("answer", EARLY_SUCCESSES, ids=["200", "204", "206", "299"])
async def test_no_success_is_heard_before_the_whole_body_has_left(contexts, answer):
    async def script(peer):
        await peer.answer(answer)
        await trio.sleep_forever()

    async with connected(script, contexts) as connection:
        body = Bytes(bytes(LARGE_BYTES))
        with trio.fail_after(120), pytest.raises(ConnectionBroken, match="before") as broken:
            await connection.ask(REQUEST, body)
        assert body.sent_bytes < LARGE_BYTES
        assert not broken.value.unused
        assert not connection.reusable


@pytest.mark.parametrize("answer", EARLY_SUCCESSES, ids=["200", "204", "206", "299"])
async def test_no_success_is_heard_while_the_body_lies_between_here_and_there(answer):
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        connection = await connect(*listening.getsockname(), None)
        peer, _ = listening.accept()
        connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * SMALL_BYTES)
        body = Bytes(bytes(SMALL_BYTES))

        async def ask():
            with pytest.raises(ConnectionBroken, match="before") as broken:
                await connection.ask(REQUEST, body)
            assert not broken.value.unused

        with peer, closing(connection), trio.fail_after(120):
            async with trio.open_nursery() as asking:
                asking.start_soon(ask)
                while body.sent_bytes < SMALL_BYTES:
                    await trio.lowlevel.checkpoint()
                peer.send(answer)
            assert not connection.reusable


class AnsweringAtOnce:
    """A socket that takes nothing at first, and is answered in the moment its last byte leaves."""

    def __init__(self, sock, theirs, size_bytes):
        self._socket, self._theirs, self._left_bytes = sock, theirs, size_bytes
        self._is_full = True

    def fileno(self):
        return self._socket.fileno()

    def send(self, data):
        if self._is_full:
            self._is_full = False
            raise BlockingIOError
        self._left_bytes -= len(data)
        if not self._left_bytes:
            self._theirs.send(REFUSED)
        return len(data)

    def recv_into(self, into):
        return self._socket.recv_into(into)


async def test_a_body_whose_answer_comes_in_the_moment_it_ends_is_whole():
    for _ in range(30):  # which of two tasks goes first is up to trio
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            body = Bytes(bytes(PIECE_BYTES))
            at_once = AnsweringAtOnce(ours, theirs, len(REQUEST) + PIECE_BYTES)
            sending = Sending(at_once, memoryview(bytearray(100)), REQUEST, body)
            with trio.fail_after(120):
                assert await sending.run() in {0, len(REFUSED)}
            assert sending.whole


@pytest.mark.parametrize("reused", [False, True])
async def test_a_connection_that_ends_without_an_answer_is_broken(reused):
    async def script(peer):
        await peer.asked()
        await peer.reset()

    async with connected(script) as connection:
        connection.reused = reused
        with pytest.raises(ConnectionBroken) as broken:
            await connection.ask(REQUEST, Bytes(bytes(LARGE_BYTES)))
        assert broken.value.unused == reused
        assert not connection.reusable


async def test_a_server_that_takes_nothing_more_is_given_up(monkeypatch):
    monkeypatch.setattr(http_sending, "STALL_S", 0.05)

    async def script(peer):
        await peer.asked()
        await trio.sleep_forever()

    async with connected(script) as connection:
        with pytest.raises(ConnectionBroken, match="nothing could be sent"):
            await connection.ask(REQUEST, Bytes(bytes(LARGE_BYTES)))


class SlowLine:
    """A socket that takes all at once, and delivers it at a pace, by trio's clock."""

    def __init__(self, sock, bytes_per_s):
        self._socket, self._pace = sock, bytes_per_s
        self._sent_bytes, self._begun_s = 0, trio.current_time()
        self._is_full = True

    def fileno(self):
        return self._socket.fileno()

    def send(self, data):
        if self._is_full:
            self._is_full = False
            raise BlockingIOError
        self._sent_bytes += len(data)
        return len(data)

    def left_bytes(self):
        taken_bytes = self._pace * (trio.current_time() - self._begun_s)
        return max(0, int(self._sent_bytes - taken_bytes))


async def sent_over(line, monkeypatch, size_bytes):
    monkeypatch.setattr(http_sending, "unacknowledged_bytes", lambda _: line.left_bytes())
    sending = Sending(line, memoryview(bytearray(100)), REQUEST, Bytes(bytes(size_bytes)))
    assert await sending.run() == 0
    assert sending.whole


async def test_a_slow_line_is_waited_for_as_long_as_it_takes(monkeypatch, autojump_clock):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await sent_over(SlowLine(ours, 100_000 / 16), monkeypatch, 2 * PIECE_BYTES)
    assert trio.current_time() > 300


@pytest.mark.parametrize(
    ("bytes_per_s", "given_up_s", "raised"), [(1500, 60, TooSlow), (0, 15, ConnectionBroken)]
)
async def test_who_takes_too_little_of_a_body_is_given_up(
    monkeypatch, autojump_clock, bytes_per_s, given_up_s, raised
):
    ours, theirs = socket.socketpair()
    why = r"fewer than|nothing could be sent"
    with ours, theirs, pytest.raises(raised, match=why):
        await sent_over(SlowLine(ours, bytes_per_s), monkeypatch, 2 * PIECE_BYTES)
    assert trio.current_time() == pytest.approx(given_up_s, abs=1)


async def test_a_server_may_work_as_long_as_it_was_given(autojump_clock):
    async def script(peer):
        assert await peer.asked()
        await trio.sleep_forever()

    async with served(script) as (host, port):
        connection = await connect(host, port, None)
        begun_s = trio.current_time()
        with pytest.raises(ConnectionBroken, match="no answer for 5 s"):
            await connection.ask(REQUEST, Bytes(b"abc"), patience_s=5)
        assert trio.current_time() - begun_s == pytest.approx(5, abs=0.5)
        connection.close()


@pytest.mark.parametrize("fails_at", [0, 20 * PIECE_BYTES])
async def test_what_a_body_raises_comes_out_as_it_is(fails_at):
    async def script(peer):
        if await peer.asked():
            with pytest.raises(AssertionError, match="in the middle"):
                await peer.body(LARGE_BYTES)

    async with connected(script) as connection:
        with pytest.raises(StagingFailure):
            await connection.ask(REQUEST, Bytes(bytes(LARGE_BYTES), fails_at=fails_at))
        assert not connection.reusable


async def test_a_cancelled_body_is_left_where_it_is(contexts):
    async def script(peer):
        await peer.asked()
        await trio.sleep_forever()

    async with connected(script, contexts) as connection:
        body = Bytes(bytes(LARGE_BYTES))
        with trio.move_on_after(0.05) as scope:
            await connection.ask(REQUEST, body)
        assert scope.cancelled_caught
        assert 0 < body.sent_bytes < LARGE_BYTES
        assert not connection.reusable


class ExchangingKeys:
    """A TLS socket that sends nothing before it has read what the server says about its keys."""

    def __init__(self, sock):
        self._socket = sock
        self.exchanged = False

    def fileno(self):
        return self._socket.fileno()

    def send(self, data):
        if not self.exchanged:
            raise ssl.SSLWantReadError
        return self._socket.send(data)

    def recv_into(self, into):
        assert self._socket.recv(100) == b"keys"
        self.exchanged = True
        raise ssl.SSLWantReadError


async def test_a_body_waits_while_keys_are_exchanged(nursery):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for each in (ours, theirs):
            each.setblocking(False)
        sending = Sending(ExchangingKeys(ours), memoryview(bytearray(100)), REQUEST, Bytes(b"body"))
        nursery.start_soon(sending.run)
        await trio.testing.wait_all_tasks_blocked()
        theirs.send(b"keys")
        with trio.fail_after(60):
            await trio.lowlevel.wait_readable(theirs)
            await trio.testing.wait_all_tasks_blocked()
        assert theirs.recv(1000) == REQUEST + b"body"
        assert sending.whole


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [[INTERIM], [EARLY, INTERIM], [INTERIM[:4], INTERIM[4:]], [EARLY + INTERIM[:12], INTERIM[12:]]],
)
async def test_heads_that_are_not_the_last_do_not_end_a_body(contexts, pieces):
    """A proxy may send them at any time, asked or not (RFC 9110, 15.2)."""
    body, arrived = Bytes(pattern("body", LARGE_BYTES)), []

    async def script(peer):
        assert await peer.asked()
        await peer.send(*pieces[:1])
        arrived.append(await peer.body(LARGE_BYTES // 2))
        await peer.send(*pieces[1:])
        arrived.append(await peer.body(LARGE_BYTES - LARGE_BYTES // 2))
        await peer.send(with_length(b"done"))

    async with connected(script, contexts) as connection:
        with trio.fail_after(120):
            head = await connection.ask(REQUEST, body)
            assert await whole_body(connection, head) == b"done"
        assert connection.reusable
        assert body.sent_bytes == LARGE_BYTES
    assert b"".join(arrived) == pattern("body", LARGE_BYTES)


@pytest.mark.parametrize("refused", [INTERIM + REFUSED, INTERIM + EARLY + REFUSED])
async def test_an_answer_behind_such_a_head_is_heard_at_once(contexts, refused):
    async def script(peer):
        await peer.answer(refused)
        await trio.sleep_forever()

    async with connected(script, contexts) as connection:
        with trio.fail_after(120):
            head = await connection.ask(REQUEST, Bytes(bytes(LARGE_BYTES)))
            assert head.status == 403
            assert await whole_body(connection, head) == b"denied"
        assert not connection.reusable


@pytest.mark.parametrize(
    "said", [INTERIM * 2000, INTERIM[:-2] + b"x: y\r\n" * 20_000], ids=["many", "long"]
)
async def test_such_heads_without_end_break_the_connection(said):
    async def script(peer):
        await peer.answer(said)
        await trio.sleep_forever()

    async with connected(script) as connection:
        with trio.fail_after(120), pytest.raises(ConnectionBroken, match=r"without end|endless"):
            await connection.ask(REQUEST, Bytes(bytes(LARGE_BYTES)))
        assert not connection.reusable


async def test_a_connection_that_ends_behind_such_a_head_has_no_answer():
    async def script(peer):
        await peer.answer(INTERIM[:-4])

    async with connected(script) as connection:
        with trio.fail_after(120), pytest.raises(ConnectionBroken):
            await connection.ask(REQUEST, Bytes(bytes(LARGE_BYTES)))
        assert not connection.reusable
