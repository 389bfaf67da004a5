"""What ObjectStore promises, kept by the fake of the tests and by S3Store over two servers."""

import pytest
import trio

from stsfs.errors import StaleVersion
from tests.conformance.houses import LISTING
from tests.fakes import Sink, pattern, read_all

ODD_NAMES = [" a", "%41", "&<>", "+", "a b", "a'b\"", "a+b", "~*()", "ü/ñ", "日本", "🐭"]

lists = pytest.mark.parametrize("made_house", LISTING, indirect=True, scope="module")


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
    assert await house.store().list_page("missing/") == ([], [], None, {})


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
