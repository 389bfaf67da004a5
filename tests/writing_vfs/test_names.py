"""Names that are made and removed through a mount: what it shows at once, and what S3 has then."""

import os
from dataclasses import replace

import pytest
import trio

from stsfs.errors import (
    AccessDenied,
    AlreadyExists,
    ForbiddenByRule,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    ReadOnlyPlace,
    StoreFailure,
)
from tests.fakes import Fault, pattern
from tests.writing_vfs.machine import UPDATE, WRITE, changes, data, root_node, until

OLD, NEW = pattern("old", 1 << 20), pattern("new", 200_000)


async def test_a_made_directory_is_a_marker_and_is_known_to_be_empty(mount, store):
    await mount.mkdir("d")
    assert data(store, "d/") == b""
    lists = store.calls["list_page"]
    assert await mount.names("d") == []
    assert await mount.names() == ["d"]
    await mount.put("d/x", NEW)
    assert await mount.names("d") == ["x"]
    assert store.calls["list_page"] == lists


async def test_a_name_that_is_taken_is_no_new_directory(mount, store):
    store.put("x", OLD)
    with pytest.raises(AlreadyExists):
        await mount.mkdir("x")


async def test_an_empty_directory_goes_with_its_marker(mount, store):
    await mount.mkdir("d")
    await mount.rmdir("d")
    assert store.objects == {}
    assert await mount.names() == []
    assert not await mount.exists("d")


async def test_a_directory_with_what_another_client_put_there_is_not_empty(mount, store):
    await mount.mkdir("d")
    assert await mount.names("d") == []
    store.put("d/theirs", OLD)
    with pytest.raises(NotEmpty, match="theirs"):
        await mount.rmdir("d")
    assert await mount.names("d") == ["theirs"]


async def test_a_directory_with_a_key_that_no_path_shows_names_it(mount, store):
    store.put("d//hidden", OLD)
    with pytest.raises(NotEmpty, match=r"no path shows, 'd//hidden': between two slashes"):
        await mount.rmdir("d")


async def test_a_directory_with_an_unpublished_file_is_not_empty(mount, store):
    await mount.mkdir("d")
    descriptor = await mount.open("d/x", WRITE)
    with pytest.raises(NotEmpty):
        await mount.rmdir("d")
    await mount.close(descriptor)


async def test_a_directory_that_was_only_a_prefix_stays_until_it_is_removed(mount, store):
    store.put("a/b/x", OLD)
    assert await mount.names("a/b") == ["x"]
    await mount.unlink("a/b/x")
    assert store.objects == {}
    assert await mount.names() == ["a"]
    assert await mount.names("a") == ["b"]
    assert await mount.names("a/b") == []
    await mount.rmdir("a/b")
    await mount.rmdir("a")
    assert await mount.names() == []


async def test_a_kept_directory_is_still_there_when_listings_are_over(mount, store, autojump_clock):
    store.put("a/b/x", OLD)
    before = await mount.walk("a/b")
    await mount.unlink("a/b/x")
    await trio.sleep(100)
    assert await mount.walk("a/b") is before
    await mount.put("a/b/y", NEW)
    await trio.sleep(100)
    store.delete("a/b/y")
    assert await mount.names() == []


async def test_a_directory_made_in_a_kept_one_keeps_it_no_longer_than_it_is_there(
    mount, store, autojump_clock
):
    store.put("a/x", OLD)
    await mount.unlink("a/x")
    assert await mount.names() == ["a"]
    await mount.mkdir("a/d")
    await trio.sleep(100)
    store.delete("a/d/")
    assert await mount.names() == []


async def test_a_directory_whose_object_has_content_is_listed_anew(mount, store):
    await mount.mkdir("d")
    assert await mount.names("d") == []
    store.put("d/", OLD)
    with pytest.raises(NotEmpty, match="it has content"):
        await mount.rmdir("d")
    before = store.calls["list_page"]
    assert await mount.names("d") == []
    assert store.calls["list_page"] > before


async def test_a_directory_with_more_in_it_needs_no_keeping(mount, store, autojump_clock):
    for key in ("d/x", "d/y"):
        store.put(key, OLD)
    await mount.unlink("d/x")
    store.delete("d/y")
    await trio.sleep(100)
    assert await mount.names() == []


async def test_what_is_removed_is_gone_at_once_and_everywhere(mount, store):
    store.put("x", OLD)
    store.put("y", OLD)
    assert await mount.names() == ["x", "y"]
    lists = store.calls["list_page"]
    await mount.unlink("x")
    assert await mount.names() == ["y"]
    assert not await mount.exists("x")
    assert store.calls["list_page"] == lists
    with pytest.raises(NotFound):
        await mount.unlink("x")


async def test_a_removal_that_may_not_be_leaves_the_file(mount, store):
    store.put("x", OLD)
    store.script("delete", Fault(AccessDenied("no")))
    with pytest.raises(AccessDenied):
        await mount.unlink("x")
    assert await mount.get("x") == OLD


async def test_a_removal_whose_answer_was_lost_shows_what_happened(mount, store):
    store.put("x", OLD)
    store.script("delete", Fault(StoreFailure("down"), happened=True))
    with pytest.raises(StoreFailure):
        await mount.unlink("x")
    assert not await mount.exists("x")


async def test_a_denied_removal_keeps_what_is_being_written(mount, store):
    store.put("x", OLD)
    descriptor = await mount.open("x", UPDATE)
    await mount.write(descriptor, b"ours", 0)
    store.script("delete", Fault(AccessDenied("no")))
    with pytest.raises(AccessDenied):
        await mount.unlink("x")
    await mount.close(descriptor)
    assert data(store, "x") == b"ours" + OLD[4:]


async def test_a_removal_while_the_file_is_uploaded_leaves_nothing(mount, store, autojump_clock):
    store.script("put", Fault(delay_s=1e6))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.put, "x", NEW)
        await until(lambda: store.calls["put"])
        await mount.unlink("x")
    assert store.objects == {}
    assert await mount.names() == []
    assert mount.writers.files() == []


async def test_a_file_is_not_a_directory_and_the_other_way_round(mount, store):
    store.put("x", OLD)
    store.put("d/y", OLD)
    with pytest.raises(NotADirectory):
        await mount.rmdir("x")
    with pytest.raises(IsADirectory):
        await mount.unlink("d")
    with pytest.raises(IsADirectory):
        await mount.rename("x", "d")
    with pytest.raises(NotADirectory):
        await mount.rename("d", "x")


async def test_a_listing_under_way_hears_of_what_changes_meanwhile(mount, store):
    store.page_keys = 2
    for name in "abcdef":
        store.put(name, OLD)
    handle = await mount.vfs.open_directory(root_node(mount).inode)
    first = [node.name for _, node in await mount.vfs.read_directory(handle, 0)]
    assert first[0] == b"a"
    await mount.unlink("e")
    await mount.put("new", NEW)
    await mount.rename("f", "g")
    names = await mount.names()
    assert names == ["a", "b", "c", "d", "g", "new"]
    mount.vfs.close_directory(handle)


async def test_a_renamed_file_is_listed_once_also_in_the_way_back(mount, store):
    for name in ("a", "b", "c"):
        store.put(name, OLD)
    assert sorted(await mount.names()) == ["a", "b", "c"]
    await mount.rename("a", "d")
    assert sorted(await mount.names()) == ["b", "c", "d"]
    await mount.rename("d", "a")
    assert sorted(await mount.names()) == ["a", "b", "c"]


async def test_what_is_no_file_is_refused(mount):
    for operation in ("symlink", "link", "fifo", "socket", "device"):
        with pytest.raises(ForbiddenByRule):
            mount.vfs.names.refuse(operation, root_node(mount).inode, b"x")


async def test_a_place_that_is_read_only_is_not_changed(machine, store):
    machine.place = replace(machine.place, writable=False)
    store.put("x", OLD)
    store.put("d/y", OLD)
    async with machine.mounted() as mount:
        attempts = [
            lambda: mount.open("new", WRITE),
            lambda: mount.open("x", UPDATE),
            lambda: mount.mkdir("new"),
            lambda: mount.rmdir("d"),
            lambda: mount.unlink("x"),
            lambda: mount.rename("x", "z"),
            lambda: mount.set("x", mode=0o600),
            lambda: mount.set("x", size_bytes=0),
            lambda: mount.set("x", modified_ns=0),
        ]
        for attempt in attempts:
            with pytest.raises(ReadOnlyPlace):
                await attempt()
        assert changes(store) == []
        await mount.open("x", os.O_RDONLY)
