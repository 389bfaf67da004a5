"""A request goes to the store of its version's location, and to no other."""

import pytest

from stsfs.errors import StaleVersion, StoreFailure
from stsfs.store.router import StoreRouter
from tests.fakes import MemoryStore, Sink, read_all


async def test_versions_of_the_same_key_are_read_from_their_own_locations():
    one, two = MemoryStore(location_id=1), MemoryStore(location_id=2)
    router = StoreRouter({1: one})
    router.add(2, two)
    versions = one.put("k", b"of one"), two.put("k", b"of two")
    assert [await read_all(router, each) for each in versions] == [b"of one", b"of two"]
    await router.read_range(versions[1], 1, 3, Sink(2), ahead=True)
    assert one.reads == [("k", 0, 6, False)]
    assert two.reads == [("k", 0, 6, False), ("k", 1, 3, True)]


async def test_what_the_store_raises_comes_through():
    one, two = MemoryStore(location_id=1), MemoryStore(location_id=2)
    router, gone = StoreRouter({1: one, 2: two}), one.put("k", b"1")
    kept = two.put("k", b"1")
    one.delete("k")
    with pytest.raises(StaleVersion):
        await router.confirm(gone)
    await router.confirm(kept)
    assert (one.calls["confirm"], two.calls["confirm"]) == (1, 1)


async def test_a_prefix_belongs_to_no_location():
    with pytest.raises(StoreFailure, match="of which location"):
        await StoreRouter({1: MemoryStore()}).list_page("p/")


async def test_an_unknown_location_and_a_second_store_for_one_are_bugs():
    router = StoreRouter({1: MemoryStore()})
    with pytest.raises(KeyError):
        await router.confirm(MemoryStore(location_id=2).put("k"))
    with pytest.raises(AssertionError):
        router.add(1, MemoryStore())
