"""Reads and listings over HTTP: repaired, repeated and resumed, and never of another version."""

import pytest
import trio

from stsfs.demo.file_server.server import FileServer
from stsfs.demo.gate.sessions import SessionBook
from stsfs.demo.tls import make_local_tls
from stsfs.errors import (
    AccessDenied,
    ArchivedObject,
    DeadlineExceeded,
    NotFound,
    StaleVersion,
    StoreFailure,
)
from stsfs.store.object_store import ObjectVersion
from stsfs.store.s3_store import S3Store
from tests.fakes import Sink, pattern, read_all
from tests.s3_place import Place, VendingLease

MIB = 1 << 20


@pytest.fixture
def place(tmp_path):
    with Place(tmp_path / "s3") as made:
        yield made


async def written(place, data, name="x", **options):
    place.write(name, data)
    store = place.store(**options)
    return store, await place.version(store, name)


async def test_one_connection_serves_request_after_request(place):
    data = pattern("a", 100_000)
    store, version = await written(place, data)
    for start in range(0, 100_000, 10_000):
        assert await read_all(store, version, start, start + 10_000) == data[start : start + 10_000]
    assert store.counters.connections_opened == 1
    assert store.counters.of("get").received_bytes == 100_000
    store.close()


async def test_a_body_that_is_cut_is_resumed_where_it_ended(place):
    data = pattern("a", 3 * MIB)
    store, version = await written(place, data)
    place.faults.cut_body(1, after_bytes=700_001, limit=3)
    place.server.reset()
    assert await read_all(store, version, buffer_bytes=65536) == data
    assert sum(seen.body_bytes for seen in place.gate.requests.of_kind("GET")) == len(data)
    store.close()


async def test_passing_trouble_is_repeated(place):
    data = pattern("a", 1000)
    store, version = await written(place, data)
    for status in (503, 500, 429):
        place.faults.status_once(status, kinds=["GET"])
        assert await read_all(store, version) == data
    assert store.counters.throttled == 2
    store.close()


async def test_a_connection_closed_while_idle_costs_one_more_request_and_no_pause(place):
    store, version = await written(place, b"0123456789")
    await read_all(store, version)
    place.faults.hang_up(limit=1, kinds=["GET"])
    assert await read_all(store, version) == b"0123456789"
    assert store.counters.of("get").failures == 0
    store.close()


async def test_an_expired_session_is_renewed_once_and_the_request_repeated(place):
    store, version = await written(place, b"0123456789")
    place.book.expire_all()
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(read_all, store, version)
    assert place.lease.renewals == 1
    store.close()


async def test_a_clock_that_is_wrong_is_corrected_by_the_servers(place):
    store, version = await written(place, b"0123456789")
    place.lease.clock_offset_s = -3600.0
    assert await read_all(store, version) == b"0123456789"
    assert abs(place.lease.clock_offset_s) < 10
    store.close()


@pytest.mark.parametrize("status", [301, 400])
async def test_a_bucket_in_another_region_is_found_there(place, status):
    place.write("x", b"0123456789")
    place.faults.wrong_region("eu-central-1", status=status)
    store = place.store()
    version = await place.version(store, "x")
    assert store.region == "eu-central-1"
    assert await read_all(store, version) == b"0123456789"
    assert store.counters.of("list").requests == 2
    store.close()


async def test_a_replaced_object_is_stale(place):
    store, version = await written(place, b"0123456789")
    replacement = place.folder / "new"
    replacement.write_bytes(b"9876543210")
    replacement.rename(place.folder / "x")
    with pytest.raises(StaleVersion):
        await read_all(store, version)
    with pytest.raises(StaleVersion):
        await store.confirm(version)
    store.close()


async def test_an_object_deleted_is_stale_although_the_session_gets_403(place):
    store, version = await written(place, b"0123456789")
    (place.folder / "x").unlink()
    with pytest.raises(StaleVersion):
        await read_all(store, version)
    assert [seen.status for seen in place.gate.requests.of_kind("GET")] == [403]
    store.close()


async def test_a_denied_object_is_access_denied_after_one_look_at_the_listing(place):
    store, version = await written(place, b"0123456789")
    place.faults.every_nth(1, status=403, code="AccessDenied", kinds=["GET"])
    with pytest.raises(AccessDenied):
        await read_all(store, version)
    assert place.gate.requests.count("LIST") == 2
    store.close()


async def test_a_listing_outside_the_base_key_is_access_denied(place):
    store = place.store()
    with pytest.raises(AccessDenied, match="policy"):
        await store.list_page("other/")
    assert len(place.gate.denied) == 1
    store.close()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(403, "InvalidObjectState", ArchivedObject), (404, "NoSuchBucket", NotFound)],
)
async def test_final_answers_have_errors_of_their_own(place, status, code, expected):
    store, version = await written(place, b"0123456789")
    place.faults.every_nth(1, status=status, code=code, kinds=["GET"])
    with pytest.raises(expected):
        await read_all(store, version)
    assert place.gate.requests.count("GET") == 1
    store.close()


async def test_without_an_answer_the_deadline_ends_it(place):
    store, version = await written(place, b"0123456789", deadline_s=0.3)
    place.faults.every_nth(1, status=503, kinds=["GET"])
    with pytest.raises(DeadlineExceeded):
        await read_all(store, version)
    store.close()


async def test_an_endpoint_that_refuses_connections_is_a_store_failure(place, autojump_clock):
    store = S3Store("lab", place.lease, endpoint_url="http://127.0.0.1:1", region="r")
    with pytest.raises(StoreFailure, match="cannot connect"):
        await store.list_page("base/")


async def test_a_cancelled_read_leaves_nothing_in_use(place):
    data = pattern("a", 4 * MIB)
    store, version = await written(place, data, connections_max=2)
    for step_bytes in range(0, 4 * MIB, MIB):

        class Cancelling(Sink):
            def __init__(self, scope, at):
                super().__init__(4 * MIB)
                self._scope, self._at = scope, at

            def received(self, count_bytes):
                super().received(count_bytes)
                if self.arrived_bytes >= self._at:
                    self._scope.cancel()

        with trio.CancelScope() as scope:
            await store.read_range(
                version, 0, 4 * MIB, Cancelling(scope, step_bytes + 1), ahead=True
            )
    with trio.fail_after(120):  # both connections are free again, also for read-ahead
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(read_all, store, version)
    store.close()


async def test_all_pages_of_a_listing_come_in_the_order_of_keys(place):
    names = sorted([f"n{i:04d}" for i in range(25)] + ["a b", "a+b", "ü", "%41", "&<>", "~"])
    for name in names:
        place.write(name, b"")
    store = place.store()
    seen, token = [], None
    while True:
        page = await store.list_page("base/", token=token, keys_max=7)
        seen += [listed.key.removeprefix("base/") for listed in page.objects]
        token = page.next_token
        if token is None:
            break
    assert seen == sorted(names, key=str.encode)
    store.close()


async def test_a_flat_listing_is_asked_for_without_a_delimiter(place):
    (place.folder / "sub").mkdir()
    place.write("sub/x", b"")
    store = place.store()
    page = await store.list_page("base/", delimiter="")
    assert ([listed.key for listed in page.objects], page.prefixes) == (["base/sub/x"], [])
    assert "delimiter" not in place.gate.requests.of_kind("LIST")[0].query
    store.close()


async def test_tls_reads_are_checked_against_the_given_authority(tmp_path, monkeypatch):
    folder = tmp_path / "s3" / "lab"
    folder.mkdir(parents=True)
    data = pattern("tls", 2 * MIB)
    (folder / "x").write_bytes(data)
    tls = make_local_tls(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls.ca_file))
    with FileServer(tmp_path / "s3", tls=tls.server_context) as server:
        book = SessionBook()
        lease = VendingLease(book)
        store = S3Store("lab", lease, endpoint_url=server.url, region="us-east-1")
        found = (await store.list_page("x")).objects[0]
        version = ObjectVersion(1, found.key, found.etag, found.size_bytes)
        assert await read_all(store, version) == data
        store.close()
