"""Reads through URLs that others sign: one for many requests, a new one in time, never shown."""

from contextlib import ExitStack, asynccontextmanager, suppress

import boto3
import pytest
import trio
from botocore.config import Config

from stsfs.demo.file_server.server import FileServer
from stsfs.demo.gate.gate import Gate
from stsfs.demo.gate.sessions import Session, SessionBook
from stsfs.demo.tls import make_local_tls
from stsfs.errors import AccessDenied, ArchivedObject, DeadlineExceeded, StaleVersion, StoreFailure
from stsfs.store import retry
from stsfs.store.object_store import ObjectVersion
from stsfs.store.presigned_store import PresignedStore
from stsfs.store.reach import Reach
from tests.fakes import Sink, pattern, read_all
from tests.scripted_server import served, with_length

MIB = 1 << 20
HERE = Reach(loopback=True)
OWNER = Session("AKIAOWNER", "the-owners-key")
DATA = b"0123456789"
SIGNATURE = "5ec2e7" * 10
NAME = "syn12/345"


class Place:
    """A file server behind a gate, and someone who signs URLs for it, as Synapse does."""

    def __init__(self, root):
        self.folder = root / "lab"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.book = SessionBook()
        self.book.add(OWNER)
        self.session, self.life_s = OWNER, 900
        self.signed = 0
        self._root, self._end = root, ExitStack()

    def __enter__(self):
        server = self._end.enter_context(FileServer(self._root))
        self.gate = self._end.enter_context(Gate(server.url, self.book))
        self.faults, self.requests = self.gate.faults, self.gate.requests
        return self

    def __exit__(self, *exc):
        self._end.close()

    def store(self, **options):
        store = PresignedStore(self.url_of, reach=HERE, **options)
        self._end.callback(store.close)
        return store

    async def url_of(self, key):
        self.signed += 1
        s3 = boto3.client(
            "s3",
            endpoint_url=self.gate.url,
            region_name="us-east-1",
            aws_access_key_id=self.session.access_key_id,
            aws_secret_access_key=self.session.secret_access_key,
            aws_session_token=self.session.session_token,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )
        named = {"Bucket": "lab", "Key": key}
        url = s3.generate_presigned_url("get_object", Params=named, ExpiresIn=self.life_s)
        s3.close()
        return url


@pytest.fixture
def place(tmp_path):
    with Place(tmp_path / "s3") as made:
        yield made


async def written(place, data=DATA, name="x", **options):
    """A store and the version of a file in it, learnt as at the first open."""
    path = place.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    store = place.store(**options)
    etag, size_bytes, _ = await store.probe(name)
    return store, ObjectVersion(7, name, etag, size_bytes)


async def test_one_url_and_one_connection_serve_request_after_request(place):
    data = pattern("a", 100_000)
    store, version = await written(place, data, "odd +%41ü/~'()")
    for start in range(0, 100_000, 10_000):
        assert await read_all(store, version, start, start + 10_000) == data[start : start + 10_000]
    await store.confirm(version)
    assert (place.signed, store.counters.connections_opened) == (1, 1)
    assert store.counters.of("get").received_bytes == 100_000
    assert len(place.gate.denied) == 0


async def test_what_cannot_last_until_it_arrives_is_not_kept(place):
    place.life_s = 5
    store, version = await written(place)
    for _ in range(2):
        assert await read_all(store, version) == DATA
    assert place.signed == 3
    assert [seen.status for seen in place.requests.of_kind("GET")] == [206, 206, 206]


async def test_a_probe_tells_size_etag_and_time(place):
    store, version = await written(place, b"x" * 70_000)
    etag, size_bytes, modified_unix_s = await store.probe("x")
    assert (etag, size_bytes) == (version.etag, 70_000)
    assert modified_unix_s == int((place.folder / "x").stat().st_mtime)
    assert store.counters.of("confirm").requests == 2


async def test_a_probe_of_an_empty_object_asks_once_more(place):
    store, version = await written(place, b"")
    assert version.size_bytes == 0
    assert [seen.status for seen in place.requests.of_kind("GET")] == [416, 200]
    await store.confirm(version)


async def test_a_probe_of_nothing_is_stale(place):
    with pytest.raises(StaleVersion):
        await place.store().probe("missing")


async def test_a_body_that_is_cut_is_resumed_where_it_ended(place):
    data = pattern("a", 3 * MIB)
    store, version = await written(place, data)
    place.faults.cut_body(1, after_bytes=700_001, limit=3)
    assert await read_all(store, version, buffer_bytes=65536) == data
    assert store.counters.of("get").received_bytes == len(data)
    assert place.signed == 1


async def test_a_bad_connection_is_borne_as_long_as_bytes_arrive(place, monkeypatch):
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.001)
    data = pattern("a", MIB)
    store, version = await written(place, data)
    place.faults.cut_body(1, after_bytes=50_000)
    assert await read_all(store, version) == data
    assert place.requests.count("GET") > 2 * retry.FAILURES_MAX


async def test_a_connection_closed_while_idle_costs_no_pause(place, monkeypatch):
    store, version = await written(place)
    monkeypatch.setattr(retry.Trouble, "back_off", None)  # not to be called
    place.faults.hang_up(limit=1, kinds=["GET"])
    assert await read_all(store, version) == DATA
    assert store.counters.connections_opened == 2


async def test_passing_trouble_is_repeated_until_the_deadline(place):
    store, version = await written(place, deadline_s=0.3)
    for status in (503, 500, 429):
        place.faults.status_once(status, kinds=["GET"])
        assert await read_all(store, version) == DATA
    assert (store.counters.throttled, place.signed) == (2, 1)
    place.faults.every_nth(1, status=503, kinds=["GET"])
    with pytest.raises(DeadlineExceeded):
        await read_all(store, version)


async def test_a_url_that_is_refused_is_replaced_once_and_the_read_goes_on(place):
    data = pattern("a", MIB)
    store, version = await written(place, data)
    place.faults.cut_body(1, after_bytes=300_000, limit=1)
    place.faults.every_nth(2, status=403, limit=1, kinds=["GET"])
    assert await read_all(store, version) == data
    assert place.signed == 2


async def test_a_url_of_a_session_that_is_over_is_replaced(place):
    place.session = place.book.vend("lab", "p", "read_only", 3600)
    store, version = await written(place, name="p/x")
    place.book.expire_all()
    place.session = place.book.vend("lab", "p", "read_only", 3600)
    assert await read_all(store, version) == DATA
    assert place.signed == 2


async def test_a_new_url_that_is_refused_is_the_last(place):
    store, version = await written(place)
    place.faults.every_nth(1, status=403, kinds=["GET"])
    with pytest.raises(AccessDenied, match="403 AccessDenied to read 'x'"):
        await read_all(store, version)
    assert (place.signed, place.requests.count("GET")) == (2, 1 + 2)
    with pytest.raises(AccessDenied):
        await read_all(store, version)
    assert (place.signed, place.requests.count("GET")) == (3, 1 + 3)


async def test_an_archived_object_is_told_as_one(place):
    store, version = await written(place)
    place.faults.every_nth(1, status=403, code="InvalidObjectState", kinds=["GET"])
    with pytest.raises(ArchivedObject, match="restore"):
        await read_all(store, version)


@pytest.mark.parametrize("change", ["replaced", "deleted"])
async def test_a_version_that_is_gone_is_stale_and_gives_no_byte(place, change):
    store, version = await written(place)
    (place.folder / "x").unlink()
    if change == "replaced":
        (place.folder / "x").write_bytes(b"9876543210")
    sink = Sink(10)
    with pytest.raises(StaleVersion):
        await store.read_range(version, 0, 10, sink)
    assert (sink.confirmations, sink.arrived_bytes) == (0, 0)


async def test_a_cancelled_read_leaves_nothing_in_use(place):
    store, version = await written(place, bytes(4 * MIB), connections_max=1)

    class Cancelling(Sink):
        def received(self, count_bytes):
            super().received(count_bytes)
            scope.cancel()

    with trio.CancelScope() as scope:
        await store.read_range(version, 0, 4 * MIB, Cancelling(4 * MIB), ahead=True)
    with trio.fail_after(120):
        assert await read_all(store, version) == bytes(4 * MIB)


async def test_a_host_that_is_silent_holds_up_no_other(place, tmp_path):
    _, version = await written(place)
    with Place(tmp_path / "s3") as silent:
        silent.faults.stall(seconds_s=3600)
        places = {"silent": silent, "x": place}
        store = PresignedStore(
            lambda name: places[name].url_of(name), reach=HERE, connections_max=1
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.probe, "silent")
            await silent.requests.seen(1, "GET")
            assert await read_all(store, version) == DATA
            nursery.cancel_scope.cancel()
        store.close()


async def test_tls_is_checked_against_the_given_authority(tmp_path, monkeypatch):
    folder = tmp_path / "s3" / "lab"
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(pattern("tls", 2 * MIB))
    tls = make_local_tls(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls.ca_file))
    with FileServer(tmp_path / "s3", tls=tls.server_context) as server:

        async def url_of(name):
            return f"{server.url}/lab/{name}?X-Amz-Signature={SIGNATURE}"

        store = PresignedStore(url_of, reach=HERE)
        etag, size_bytes, _ = await store.probe("x")
        version = ObjectVersion(7, "x", etag, size_bytes)
        assert await read_all(store, version) == pattern("tls", 2 * MIB)
        store.close()


async def test_a_url_lists_nothing(place):
    with pytest.raises(StoreFailure, match="Cannot list 'p/'"):
        await place.store().list_page("p/")


def answered(status, *headers, body=b""):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def store_of(answer):
    """A store whose server gives this answer, each time on a connection of its own."""

    async def script(peer):
        with suppress(trio.BrokenResourceError):
            await peer.answer(answer)

    async with served(script, connections=20) as (host, port):

        async def url_of(name):
            return f"http://{host}:{port}/{name}?X-Amz-Signature={SIGNATURE}"

        store = PresignedStore(url_of, reach=HERE)
        yield store
        store.close()


async def test_a_server_that_ignores_ranges_is_believed_about_the_size():
    async with store_of(with_length(DATA, b'ETag: "e"', b"Last-Modified: nonsense")) as store:
        assert await store.probe(NAME) == ('"e"', 10, 0.0)
        assert await read_all(store, ObjectVersion(7, NAME, '"e"', 10)) == DATA


FIRST = ("206 Partial Content", 'ETag: "e"')


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (answered("200 OK"), "no strong ETag"),
        (answered("200 OK", 'ETag: W/"e"'), "no strong ETag"),
        (answered(*FIRST, "Content-Range: bytes 0-0/*", body=b"x"), "how long"),
        (answered(*FIRST, body=b"x"), "how long"),
        (answered("200 OK", 'ETag: "e"').replace(b"Content-Length: 0\r\n", b""), "how long"),
        (answered("302 Found", "Location: http://elsewhere.example/?Signature=x"), "302.*redirect"),
        (answered("307 Moved", "Location: /", "x-amz-bucket-region: eu-north-1"), "307.*redirect"),
    ],
)
async def test_a_server_that_does_not_tell_enough_is_a_failure(answer, told):
    async with store_of(answer) as store:
        with pytest.raises(StoreFailure, match=told):
            await store.probe(NAME)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no HTTP\r\n\r\n",
        answered("302 Found", f"Location: /?X-Amz-Signature={SIGNATURE}"),
        answered("403 No", body=f"<E><Code>No</Code><Message>{SIGNATURE}</Message></E>".encode()),
        answered("418 No", body=f"<E><Code>No</Code><Message>{SIGNATURE}</Message></E>".encode()),
        answered("503 No", body=f"<E><Code>No</Code><Message>{SIGNATURE}</Message></E>".encode()),
    ],
)
async def test_no_signature_is_part_of_an_error_or_a_log(answer, monkeypatch, caplog):
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.001)
    caplog.set_level(0)
    async with store_of(answer) as store:
        with pytest.raises((AccessDenied, StoreFailure)) as caught:
            await store.probe(NAME)
    assert NAME in str(caught.value)
    assert SIGNATURE not in str(caught.value) + repr(caught.value.__cause__) + caplog.text
