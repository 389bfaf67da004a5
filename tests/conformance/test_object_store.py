"""What ObjectStore promises, kept by the fake of the tests and by S3Store over two servers."""

import boto3
import pytest
import trio
from botocore.config import Config
from moto.server import ThreadedMotoServer

from stsfs.credentials.credentials import Credentials
from stsfs.demo.file_server.server import FileServer
from stsfs.demo.gate.gate import Gate
from stsfs.demo.gate.sessions import Session, SessionBook
from stsfs.errors import StaleVersion
from stsfs.store.object_store import ObjectVersion
from stsfs.store.presigned_store import PresignedStore
from stsfs.store.s3_store import S3Store
from tests.fakes import MemoryStore, Sink, pattern, read_all

KEYS = Session("AKIATEST", "test-secret")
ODD_NAMES = [" a", "%41", "&<>", "+", "a b", "a'b\"", "a+b", "~*()", "ü/ñ", "日本", "🐭"]


class FixedLease:
    """Keys that do not end."""

    clock_offset_s = 0.0

    def current(self):
        return Credentials(KEYS.access_key_id, KEYS.secret_access_key)

    async def valid(self):
        return self.current()

    async def renew_after(self, refused):
        raise AssertionError("the server refused keys that do not end")


class S3House:
    """A bucket of an S3 server: written by AWS's own client, read by our store."""

    def __init__(self, url, *, write_url=None):
        self._url = url
        self._client = boto3.client(
            "s3",
            endpoint_url=write_url or url,
            region_name="us-east-1",
            aws_access_key_id=KEYS.access_key_id,
            aws_secret_access_key=KEYS.secret_access_key,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )
        self._client.create_bucket(Bucket="lab")
        self._stores = []

    def store(self):
        self._stores.append(
            S3Store("lab", FixedLease(), endpoint_url=self._url, region="us-east-1")
        )
        return self._stores[-1]

    def put(self, key, data):
        etag = self._client.put_object(Bucket="lab", Key=key, Body=data)["ETag"]
        return ObjectVersion(1, key, etag, len(data))

    def delete(self, key):
        self._client.delete_object(Bucket="lab", Key=key)

    def leave(self):
        for store in self._stores:
            store.close()
        self._stores.clear()
        for listed in self._client.list_objects_v2(Bucket="lab").get("Contents", []):
            self.delete(listed["Key"])

    def close(self):
        self._client.close()


class SignedHouse(S3House):
    """The same, read through URLs that AWS's own client signs."""

    def store(self):
        self._stores.append(PresignedStore(self._url_of))
        return self._stores[-1]

    async def _url_of(self, key):
        named = {"Bucket": "lab", "Key": key}
        return self._client.generate_presigned_url("get_object", Params=named)


class MemoryHouse:
    def __init__(self):
        self._memory = MemoryStore()
        self.put, self.delete = self._memory.put, self._memory.delete

    def store(self):
        return self._memory

    def leave(self):
        self._memory.objects.clear()

    def close(self):
        pass


LISTING = ["memory", "file server", "moto"]
lists = pytest.mark.parametrize("made_house", LISTING, indirect=True, scope="module")


@pytest.fixture(scope="module", params=[*LISTING, "signed URLs"])
def made_house(request, tmp_path_factory):
    if request.param == "memory":
        yield MemoryHouse()
    elif request.param == "moto":
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        made = S3House("http://{}:{}".format(*server.get_host_and_port()))
        yield made
        made.close()
        server.stop()
    else:
        root = tmp_path_factory.mktemp("s3")
        (root / "lab").mkdir()
        book = SessionBook()
        book.add(KEYS)
        with FileServer(root) as server, Gate(server.url, book) as gate:
            made = (S3House if request.param == "file server" else SignedHouse)(gate.url)
            yield made
            made.close()


@pytest.fixture
def house(made_house):
    yield made_house
    made_house.leave()


async def names(store, prefix, *, keys_max=1000, start_after="", delimiter="/"):
    """The names below prefix, page by page, each page within its limits and in order."""
    found, token = [], None
    while True:
        page = await store.list_page(
            prefix,
            token=token,
            keys_max=keys_max,
            start_after="" if token else start_after,
            delimiter=delimiter,
        )
        keys = [listed.key for listed in page.objects]
        assert keys == sorted(keys, key=str.encode)
        assert list(page.prefixes) == sorted(page.prefixes, key=str.encode)
        assert len(keys) + len(page.prefixes) <= keys_max
        found += sorted([*keys, *page.prefixes], key=str.encode)
        token = page.next_token
        if token is None:
            return [name.removeprefix(prefix) for name in found]


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (0, 5000), (4999, 5000), (17, 4096), (2500, 2501)]
)
@pytest.mark.parametrize("buffer_bytes", [1000, 1 << 20])
async def test_a_range_is_these_bytes_of_the_version(house, start, stop, buffer_bytes):
    data = pattern("range", 5000)
    version = house.put("x", data)
    assert (
        await read_all(house.store(), version, start, stop, buffer_bytes=buffer_bytes)
        == (data[start:stop])
    )


async def test_the_sink_learns_once_that_the_version_is_confirmed(house):
    version = house.put("x", b"0123456789")
    sink = Sink(10, buffer_bytes=3)
    await house.store().read_range(version, 0, 10, sink, ahead=True)
    assert (sink.confirmations, sink.data) == (1, b"0123456789")


@pytest.mark.parametrize("size_bytes", [0, 1, 70_000])
@pytest.mark.parametrize("change", ["replaced", "longer", "deleted"])
async def test_a_version_that_is_gone_is_stale_and_gives_no_byte(house, size_bytes, change):
    store, version = house.store(), house.put("x", pattern("old", size_bytes))
    house.put("x-other", b"has a name that begins alike")
    await store.confirm(version)
    if change == "deleted":
        house.delete("x")
    else:
        house.put("x", pattern("new", size_bytes or 100_000) + b"+" * (change == "longer"))
    with pytest.raises(StaleVersion):
        await store.confirm(version)
    if size_bytes:
        sink = Sink(size_bytes)
        with pytest.raises(StaleVersion):
            await store.read_range(version, 0, size_bytes, sink)
        assert (sink.confirmations, sink.arrived_bytes) == (0, 0)


async def test_a_version_that_came_back_is_confirmed(house):
    store, version = house.store(), house.put("x", b"one")
    house.put("x", b"two")
    again = house.put("x", b"one")
    await store.confirm(again)
    assert await read_all(store, again) == b"one"
    assert (again == version) or again.etag != version.etag


@lists
@pytest.mark.parametrize("name", ODD_NAMES)
async def test_an_object_of_an_odd_name_is_listed_confirmed_and_read(house, name):
    store, key = house.store(), f"d/{name}"
    version = house.put(key, name.encode())
    prefix = key.rpartition("/")[0] + "/"
    (listed,) = (await store.list_page(prefix)).objects
    assert (listed.key, listed.etag, listed.size_bytes) == (key, version.etag, len(name.encode()))
    assert listed.modified_unix_s > 1e9
    assert listed.storage_class in {"", "STANDARD"}
    await store.confirm(version)
    assert await read_all(store, version) == name.encode()
    assert await names(store, key) == [""]


@lists
@pytest.mark.parametrize("keys_max", [1, 2, 3, 1000])
async def test_pages_join_to_the_children_of_the_prefix_each_of_them_once(house, keys_max):
    for name in ("a", "a-1", "a.x", "a/1", "a/2", "b/c/d", "b/e", "ü/1", "z"):
        house.put(f"d/{name}", b"")
    for key in ("c", "d", "d-", "da/x", "e/x"):
        house.put(key, b"")
    expected = ["a", "a-1", "a.x", "a/", "b/", "z", "ü/"]
    assert await names(house.store(), "d/", keys_max=keys_max) == expected


@lists
async def test_a_prefix_need_not_end_with_a_slash(house):
    for key in ("d/s1.bam", "d/s1.bam.bai", "d/s1/x", "d/s2.bam"):
        house.put(key, b"")
    assert await names(house.store(), "d/s1") == [".bam", ".bam.bai", "/"]


@lists
@pytest.mark.parametrize(
    ("after", "expected"), [("a", ["b", "c/", "e"]), ("b", ["c/", "e"]), ("c0", ["e"]), ("e", [])]
)
async def test_a_listing_begins_behind_a_key(house, after, expected):
    for name in ("a", "b", "c/x", "e"):
        house.put(f"d/{name}", b"")
    assert await names(house.store(), "d/", start_after=f"d/{after}") == expected


@lists
@pytest.mark.parametrize("keys_max", [1, 3, 1000])
async def test_without_a_delimiter_all_keys_below_the_prefix_are_listed(house, keys_max):
    below = ["a", "a-1", "a/1", "b/c/d", "b/c/e", "z", "ü/1"]
    for key in [*(f"d/{name}" for name in below), "c", "d-", "e/x"]:
        house.put(key, b"")
    flat = {"delimiter": "", "keys_max": keys_max}
    assert await names(house.store(), "d/", **flat) == below
    assert await names(house.store(), "d/", start_after="d/b/c/d", **flat) == below[4:]


@lists
async def test_below_a_prefix_without_keys_is_one_empty_page(house):
    house.put("other", b"")
    assert await house.store().list_page("missing/") == ([], [], None)


@lists
async def test_a_request_in_a_cancelled_scope_is_not_made(house):
    version = house.put("x", b"0123456789")
    for call in (
        lambda store: store.confirm(version),
        lambda store: store.read_range(version, 0, 10, Sink(10)),
        lambda store: store.list_page(""),
    ):
        with trio.CancelScope() as scope:
            scope.cancel()
            await call(house.store())
        assert scope.cancelled_caught


@lists
async def test_requests_side_by_side_get_their_own_answers(house):
    store = house.store()
    versions = {n: house.put(f"d/{n}", pattern(n, 3000 + n)) for n in range(12)}

    async def check(n):
        assert await read_all(store, versions[n], buffer_bytes=700) == pattern(n, 3000 + n)

    async with trio.open_nursery() as nursery:
        for n in versions:
            nursery.start_soon(check, n)
            nursery.start_soon(store.list_page, "d/")
