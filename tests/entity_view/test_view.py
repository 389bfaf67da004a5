"""What a folder of Synapse shows, what that costs, and when changes are seen."""

import gc
import weakref

import pytest
import trio

from stsfs.entities.view import STALE_PATIENCE_S, STALE_SERVED_S
from stsfs.errors import (
    ObjectMissing,
    PermissionMissing,
    StaleVersion,
    SynapseUnavailable,
)
from stsfs.vfs.nodes import ROOT_INODE
from tests.entities_fakes import TTL_S, DirectIndex
from tests.fakes import Fault

AFTER_TTL_S = TTL_S + 1


async def test_names_cost_pages_and_a_stat_one_request_more(api, root, clock, mount):
    for number in range(120):
        api.file(root, f"f{number:03d}", b"x" * number)
    shown = await mount()
    assert await shown.names() == [f"f{number:03d}" for number in range(120)]
    assert await shown.find("f119") is not None
    assert await shown.find("absent") is None
    assert api.calls == {"children": 3}
    assert (await shown.stat("f077")).size_bytes == 77
    assert (await shown.stat("f077")).md5 == (await shown.stat("f077")).record.md5 != ""
    assert api.calls == {"children": 3, "bundle": 1}


async def test_a_name_far_on_in_a_long_folder_costs_two_requests(api, root, clock, mount):
    for number in range(10_000):
        api.file(root, f"f{number:05d}", b"12345")
    shown = await mount()
    await shown.find("f00000")
    before = api.calls.total()
    found = await shown.stat("f09000")
    assert found.size_bytes == 5
    assert api.calls.total() == before + 2
    assert await shown.find("f09000") is found
    assert await shown.find("f0900x") is None
    assert await shown.find("f0900x") is None
    assert api.calls.total() == before + 3


async def test_a_new_version_is_a_new_inode_with_new_bytes_and_a_handle_stays_with_its_own(
    api, root, clock, mount
):
    entity_id = api.file(root, "x", b"old")
    shown = await mount()
    old, handle = await shown.stat("x"), await shown.open("x")
    api.upload(entity_id, b"newer")
    assert await shown.find("x") is old
    await trio.sleep(AFTER_TTL_S)
    new = await shown.stat("x")
    assert new.inode != old.inode
    assert await shown.read("x") == b"newer"
    assert bytes(await shown.vfs.read(handle, 0, 100)) == b"old"


async def test_annotations_are_seen_after_the_ttl(api, root, clock, mount):
    entity_id = api.file(root, "x", b"same")
    api.annotate(entity_id, tissue="blood")
    shown = await mount()
    properties = await shown.vfs.properties(await shown.find("x"))
    assert properties["synapse.annotation.tissue"] == "blood"
    api.annotate(entity_id, tissue="liver")
    await trio.sleep(AFTER_TTL_S)
    properties = await shown.vfs.properties(await shown.find("x"))
    assert properties["synapse.annotation.tissue"] == "liver"
    assert properties["synapse.version"] == "1"
    assert await shown.read("x") == b"same"


@pytest.mark.parametrize("data", [b"NEW", b"of another size"])
async def test_an_object_replaced_in_place_is_read_as_it_is_now(
    api, store, root, clock, mount, data
):
    entity_id = api.file(root, "x", b"old")
    shown = await mount()
    assert await shown.read("x") == b"old"
    store.put(api.key_of(entity_id), data)
    before = await shown.find("x")
    with pytest.raises(StaleVersion):
        await shown.open("x")
    assert await shown.read("x") == data
    after = await shown.stat("x")
    assert (after.size_bytes, after.inode == before.inode) == (len(data), False)


async def test_where_synapse_tells_another_size_a_file_is_stale_once_and_then_right(
    api, store, root, clock, mount
):
    entity_id = api.file(root, "x", b"ten bytes.")
    store.put(api.key_of(entity_id), b"three")
    shown = await mount()
    assert (await shown.stat("x")).size_bytes == 10
    with pytest.raises(StaleVersion, match="without Synapse"):
        await shown.open("x")
    before = api.calls.total()
    assert await shown.read("x") == b"three"
    assert (await shown.stat("x")).size_bytes == 5
    assert api.calls.total() <= before + 1
    await trio.sleep(AFTER_TTL_S)
    assert (await shown.stat("x")).size_bytes == 5


async def test_a_missing_object_fails_the_open_and_not_the_stat(api, store, root, clock, mount):
    entity_id = api.file(root, "x", b"12345")
    store.delete(api.key_of(entity_id))
    shown = await mount()
    assert (await shown.stat("x")).size_bytes == 5
    with pytest.raises(ObjectMissing, match=entity_id):
        await shown.open("x")
    store.put(api.key_of(entity_id), b"12345")
    assert await shown.read("x") == b"12345"


async def test_renamed_moved_and_deleted_entities_are_seen_after_the_ttl(api, root, clock, mount):
    ids = {name: api.file(root, name, name.encode()) for name in ("a", "b", "c")}
    folder = api.folder(root, "d")
    shown = await mount()
    assert await shown.names() == ["a", "b", "c", "d"]
    assert await shown.names("d") == []
    assert await shown.find("z") is None
    api.rename(ids["a"], "z")
    api.move(ids["b"], folder)
    api.delete(ids["c"])
    await trio.sleep(AFTER_TTL_S)
    assert await shown.names() == ["d", "z"]
    assert await shown.names("d") == ["b"]
    assert await shown.read("z") == b"a"
    assert [await shown.find(name) for name in ("a", "b", "c")] == [None, None, None]


async def test_an_absent_name_beyond_the_pages_read_is_found_after_the_ttl(api, root, clock, mount):
    for number in range(60):
        api.file(root, f"f{number:02d}")
    shown = await mount()
    assert await shown.find("z") is None
    await trio.sleep(TTL_S - 1)
    assert await shown.find("y") is None
    api.file(root, "y", b"here")
    await trio.sleep(AFTER_TTL_S)
    assert await shown.read("y") == b"here"


async def test_names_of_two_entities_that_were_exchanged_are_two_new_inodes(
    api, root, clock, mount
):
    one, two = api.file(root, "one", b"1"), api.file(root, "two", b"2")
    shown = await mount()
    before = {(await shown.stat(name)).inode for name in ("one", "two")}
    api.rename(one, "two")
    api.rename(two, "one")
    await trio.sleep(AFTER_TTL_S)
    assert [await shown.read(name) for name in ("one", "two")] == [b"2", b"1"]
    assert before.isdisjoint({(await shown.stat(name)).inode for name in ("one", "two")})


async def test_a_file_deleted_and_made_anew_is_found_at_once_when_an_open_meets_that(
    api, store, root, clock, mount
):
    entity_id = api.file(root, "x", b"old")
    shown = await mount()
    await shown.read("x")
    store.delete(api.key_of(entity_id))
    api.delete(entity_id)
    api.file(root, "x", b"another entity")
    with pytest.raises(StaleVersion):
        await shown.open("x")
    assert await shown.read("x") == b"another entity"


async def test_a_second_mount_asks_nothing_within_the_ttl_and_pages_only_after(
    api, root, clock, mount, store
):
    for number in range(60):
        api.file(root, f"f{number:02d}", b"x")
    index = DirectIndex(None)
    first = await mount(index=index)
    await first.names()
    for number in range(60):
        await first.stat(f"f{number:02d}")
    api.calls.clear()
    second = await mount(index=index)
    assert len(await second.names()) == 60
    assert (await second.stat("f59")).size_bytes == 1
    assert api.calls == {}
    await trio.sleep(TTL_S - 1)
    assert await second.find("f59") is not None
    assert api.calls == {}
    await trio.sleep(2)
    assert len(await second.names()) == 60
    assert (await second.stat("f59")).size_bytes == 1
    assert api.calls == {"children": 2}


async def test_a_listing_that_another_mount_has_renewed_is_used(api, root, clock, mount):
    api.file(root, "a")
    index = DirectIndex(None)
    first, second = await mount(index=index), await mount(index=index)
    await first.names()
    await trio.sleep(AFTER_TTL_S)
    await second.names()
    api.calls.clear()
    assert await first.names() == ["a"]
    assert api.calls == {}


async def test_a_refresh_asks_synapse_and_not_the_index(api, root, clock, mount):
    api.file(root, "a")
    index = DirectIndex(None)
    for shown in (await mount(index=index), await mount(index=index)):
        await shown.names()
    api.file(root, "b")
    fresh = await mount(index=index)
    assert await fresh.names() == ["a"]
    fresh.tree.distrust(fresh.tree.inodes.root)
    shown.tree.distrust(shown.tree.inodes.root)
    assert await shown.names() == ["a", "b"]
    assert await fresh.names() == ["a", "b"]


async def test_what_a_probe_asked_before_a_refresh_is_not_believed_after_it(
    api, root, clock, mount
):
    for number in range(60):
        api.file(root, f"f{number:02d}")
    shown = await mount()
    await shown.find("f00")
    api.script("child_id", Fault(delay_s=2))

    async def ask():
        await shown.find("new")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(1)
        shown.tree.distrust(shown.tree.inodes.root)
        await shown.find("f00")  # a new listing, before the old answer comes
    api.file(root, "new")
    assert await shown.find("new") is not None


async def test_a_listing_under_way_at_a_refresh_is_not_taken_from_the_index_after_it(
    api, root, clock, mount
):
    api.file(root, "a")
    shown = await mount()
    api.script("children", Fault(delay_s=2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shown.vfs.open_directory, ROOT_INODE)
        await trio.sleep(1)
        shown.tree.distrust(shown.tree.inodes.root)
    api.file(root, "b")
    assert await shown.names() == ["a", "b"]


async def test_a_reader_that_is_cancelled_leaves_the_others_their_answer(api, root, clock, mount):
    api.file(root, "x", b"1")
    shown = await mount()
    sizes = []

    async def follow():
        sizes.append((await shown.stat("x")).size_bytes)

    for method in ("children", "bundle"):
        api.script(method, Fault(delay_s=10))
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(1):
                nursery.start_soon(follow)
                await shown.stat("x")
    assert sizes == [1, 1]


async def test_errors_of_synapse_reach_who_asked_and_are_gone_with_their_cause(
    api, root, clock, mount
):
    api.file(root, "x", b"1")
    shown = await mount()
    for method in ("children", "bundle"):
        api.script(method, Fault(SynapseUnavailable("down")))
        with pytest.raises(SynapseUnavailable):
            await shown.stat("x")
        await trio.sleep(6)
    assert (await shown.stat("x")).size_bytes == 1
    api.invisible.add(root)
    await trio.sleep(AFTER_TTL_S)
    with pytest.raises(PermissionMissing):
        await shown.names()


async def test_a_child_that_two_pages_show_is_shown_once(api, root, clock, mount):
    for number in range(60):
        api.file(root, f"f{number:02d}")
    shown = await mount()
    listing = await shown.tree.listing(shown.tree.inodes.root)
    api.file(root, "a")  # moves all others on by one
    assert len(list(await shown.tree.entries(listing, 50))) == 10
    assert len({node.name for node in listing.entries}) == 60


async def test_listings_that_nobody_reads_to_the_end_do_not_pile_up(api, root, clock, mount):
    for number in range(60):
        api.file(root, f"f{number:02d}", b"x")
    shown = await mount()
    kept = await shown.stat("f00")
    shown.tree.inodes.remember(kept)
    listings = []
    for number in range(5):
        if number == 1:
            api.delete(kept.listed_id)  # still open, but in no listing any more
        listings.append(weakref.ref(await shown.tree.listing(shown.tree.inodes.root)))
        await trio.sleep(AFTER_TTL_S)
    gc.collect()
    assert sum(each() is not None for each in listings) <= 2


@pytest.mark.parametrize("fault", [Fault(SynapseUnavailable("down")), Fault(delay_s=1000)])
async def test_while_synapse_is_down_an_old_listing_is_shown_for_a_moment(
    api, root, clock, mount, fault
):
    api.file(root, "a")
    shown = await mount()
    await shown.names()
    api.file(root, "b")
    await trio.sleep(AFTER_TTL_S)
    api.script("children", fault)
    began_s = trio.current_time()
    assert await shown.names() == ["a"]
    assert trio.current_time() - began_s <= STALE_PATIENCE_S
    await trio.sleep(STALE_SERVED_S + 1)
    assert await shown.names() == ["a", "b"]
