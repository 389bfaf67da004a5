"""A request cancelled at any moment leaves nothing behind: no socket, nothing in use."""

import os
import socket
import ssl
import stat
import struct
from contextlib import suppress

import pytest
import trio

from stsfs.credentials.credentials import Credentials
from stsfs.demo.file_server.server import FileServer
from stsfs.demo.tls import make_local_tls
from stsfs.errors import StoreFailure
from stsfs.store.http_connection import connect
from stsfs.store.http_wire import ConnectionBroken
from stsfs.store.object_store import ObjectVersion, Traits
from stsfs.store.s3_store import S3Store
from tests.fakes import BytesBody, Sink, pattern, read_all

DATA = pattern("cancelled", 1 << 20)
STEPS_MAX = 1000


class FixedLease:
    clock_offset_s = 0.0

    def current(self):
        return Credentials("AKIAEXAMPLE", "secret", None, None)

    valid = renew_after = None  # never asked: the file server checks nothing


class CancelAt(trio.abc.Instrument):
    """Cancels a scope with the loop's n-th step: `before` it is taken, or when its task waits.

    Before means that what the task waited for has happened, and it learns of the end at its next
    wait; after it, the wait itself is cut short.
    """

    def __init__(self, scope, step, *, before):
        self._scope, self._left, self._before = scope, step, before

    def _count(self):
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()

    def before_task_step(self, task):
        if self._before:
            self._count()

    def after_task_step(self, task):
        if not self._before:
            self._count()


async def cancelled_at(step, request, *, before):
    """Whether the request was still running at this step of the loop, and so was cancelled."""
    with trio.CancelScope() as scope:
        instrument = CancelAt(scope, step, before=before)
        trio.lowlevel.add_instrument(instrument)
        try:
            await request()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancel_called


def sockets_to(port):
    """Sockets of this process that are connected to a port, whoever may still know them."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own descriptor, or a socket without a peer
            if stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    is_tcp = sock.family == socket.AF_INET
                    found += is_tcp and sock.getpeername()[1] == port
    return found


@pytest.fixture(params=["plain", "TLS"])
def server(request, tmp_path, monkeypatch):
    folder = tmp_path / "s3" / "lab"
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(DATA)
    context = None
    if request.param == "TLS":
        tls = make_local_tls(tmp_path)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tls.ca_file))
        context = tls.server_context
    with FileServer(tmp_path / "s3", tls=context) as serving:
        yield serving


@pytest.mark.parametrize("before", [True, False], ids=["in time", "too late"])
@pytest.mark.parametrize("kind", ["read", "list", "put"])
async def test_a_request_cancelled_at_any_moment_leaves_nothing_behind(server, kind, before):
    etag = (await _found(server)).etag
    version = ObjectVersion(1, "x", etag, len(DATA))
    for step in range(1, STEPS_MAX):
        # One connection: whatever still held it, or the place for read-ahead, would stop the next.
        store = _store(server)

        async def request(store=store):
            if kind == "read":
                await store.read_range(version, 0, len(DATA), Sink(len(DATA)), ahead=True)
            elif kind == "put":
                body = BytesBody(DATA * 3)
                await store.writer().put("y", body, Traits(), expected=None, write_id="w")
            else:
                await store.list_page("x")

        cancelled = await cancelled_at(step, request, before=before)
        assert sockets_to(server.port) <= 1, "at most an idle one, for the next request"
        with trio.fail_after(120):
            sink = Sink(100)
            await store.read_range(version, 5, 105, sink, ahead=True)
        assert sink.data == DATA[5:105]
        store.close()
        assert sockets_to(server.port) == 0
        if not cancelled:
            break
    assert not cancelled
    assert step > 5, "connecting, asking and receiving are several moments"


async def test_a_request_cancelled_while_it_waits_for_a_connection_leaves_nothing_behind(server):
    store = _store(server)
    version = ObjectVersion(1, "x", (await _found(server)).etag, len(DATA))
    held = await store._bucket.pool.take(ahead=True)
    with trio.move_on_after(0.01) as scope:
        await read_all(store, version)
    assert scope.cancelled_caught
    store._bucket.pool.give_back(held)
    with trio.fail_after(120):
        assert await read_all(store, version) == DATA
    store.close()
    assert sockets_to(server.port) == 0


async def test_a_reset_between_connecting_and_the_handshake_leaves_no_socket(monkeypatch):
    """wrap_socket then finds no peer, and Python 3.11 would drop the new socket unclosed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        open_tcp_stream = trio.open_tcp_stream

        async def open_and_reset(*where):
            stream = await open_tcp_stream(*where)
            peer, _ = listener.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            await trio.lowlevel.wait_readable(stream.socket)  # the reset is here
            return stream

        monkeypatch.setattr(trio, "open_tcp_stream", open_and_reset)
        with pytest.raises(ConnectionBroken, match="cannot connect"):
            await connect("127.0.0.1", port, ssl.create_default_context())
        # A socket left to the collector would be a ResourceWarning, and so an error.


async def test_what_retries_did_not_help_is_counted_as_a_failure(autojump_clock):
    store = S3Store("lab", FixedLease(), endpoint_url="http://127.0.0.1:1", region="us-east-1")
    with pytest.raises(StoreFailure):
        await store.list_page("")
    count = store.counters.of("list")
    assert (count.requests, count.failures) == (0, 1)
    assert count.retries > 1


def _store(server):
    return S3Store(
        "lab", FixedLease(), endpoint_url=server.url, region="us-east-1", connections_max=1
    )


async def _found(server):
    store = _store(server)
    try:
        return (await store.list_page("x")).objects[0]
    finally:
        store.close()
