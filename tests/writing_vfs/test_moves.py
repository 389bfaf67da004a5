"""Renames through a mount: nodes, open files and listings follow, and nothing is lost."""

import os

import pytest
import trio

from stsfs.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidRequest,
    KeyTooLong,
    NotEmpty,
    StaleVersion,
    StoreFailure,
    TooManyObjects,
)
from tests.fakes import Fault, pattern
from tests.writing_vfs.machine import UPDATE, WRITE, changes, data, until

OLD, NEW = pattern("old", 1 << 20), pattern("new", 200_000)


async def test_a_published_file_is_moved_by_a_copy_and_keeps_its_number(mount, store):
    await mount.put("x", NEW)
    before = await mount.walk("x")
    await mount.rename("x", "y")
    assert list(store.objects) == ["y"]
    assert await mount.walk("y") is before
    assert await mount.names() == ["y"]
    assert await mount.get("y") == NEW
    assert store.writer.sent_bytes == len(NEW)


async def test_a_new_file_that_is_still_written_only_changes_its_name(mount, store):
    descriptor = await mount.open("x", WRITE)
    await mount.write(descriptor, NEW)
    await mount.rename("x", "y")
    assert await mount.names() == ["y"]
    assert changes(store) == []
    await mount.close(descriptor)
    assert list(store.objects) == ["y"]
    assert data(store, "y") == NEW


async def test_a_changed_file_is_published_before_it_is_moved(mount, store):
    store.put("x", OLD)
    descriptor = await mount.open("x", UPDATE)
    await mount.write(descriptor, b"ours", 0)
    await mount.rename("x", "y")
    assert data(store, "y") == b"ours" + OLD[4:]
    await mount.write(descriptor, b"more", 0)
    await mount.close(descriptor)
    assert data(store, "y") == b"more" + OLD[4:]
    assert list(store.objects) == ["y"]


async def test_a_temporary_file_takes_the_place_of_the_old_one(mount, store):
    store.put("f", OLD)
    reader = await mount.open("f")
    await mount.put("f.tmp", NEW)
    await mount.rename("f.tmp", "f")
    assert list(store.objects) == ["f"]
    assert await mount.get("f") == NEW
    assert await mount.names() == ["f"]
    with pytest.raises(StaleVersion):
        await mount.read(reader, len(OLD) - 10, 10)


async def test_an_unpublished_file_takes_the_place_of_a_published_one(mount, store):
    store.put("f", OLD)
    reader = await mount.open("f")
    descriptor = await mount.open("a", WRITE)
    await mount.write(descriptor, b"new")
    await mount.rename("a", "f")
    assert await mount.get("f") == b"new"
    await mount.write(descriptor, b"er")
    await mount.close(descriptor)
    assert data(store, "f") == b"newer"
    assert list(store.objects) == ["f"]
    await mount.close(reader)


async def test_what_was_written_to_a_replaced_file_is_not_uploaded(mount, store):
    target = await mount.open("f", os.O_RDWR | os.O_CREAT)
    await mount.write(target, b"lost")
    await mount.put("a", NEW)
    await mount.rename("a", "f")
    assert await mount.read(target) == b"lost"
    await mount.close(target)
    assert data(store, "f") == NEW
    assert await mount.get("f") == NEW


async def test_a_rename_of_what_another_client_replaced_moves_their_version(mount, store):
    store.put("x", OLD)
    await mount.walk("x")
    store.put("x", NEW)
    await mount.rename("x", "y")
    assert data(store, "y") == NEW
    assert list(store.objects) == ["y"]


async def test_a_rename_that_must_not_replace_does_not(mount, store):
    store.put("x", OLD)
    store.put("y", NEW)
    with pytest.raises(AlreadyExists):
        await mount.rename("x", "y", replace=False)
    await mount.rename("x", "z", replace=False)
    assert sorted(store.objects) == ["y", "z"]


async def test_a_rename_that_may_not_remove_leaves_both_names(mount, store):
    store.put("x", OLD)
    store.script("delete", Fault(AccessDenied("no")))
    with pytest.raises(AccessDenied, match="both exist"):
        await mount.rename("x", "y")
    assert await mount.names() == ["x", "y"]
    assert await mount.get("x") == await mount.get("y") == OLD


async def test_a_rename_whose_last_answer_was_lost_shows_what_happened(mount, store):
    store.put("a/x", OLD)
    store.put("a/y", OLD)
    store.put("b/z", OLD)
    assert await mount.names("a") == ["x", "y"]
    assert await mount.names("b") == ["z"]
    store.script("delete", Fault(StoreFailure("503"), happened=True))
    with pytest.raises(StoreFailure, match="both exist"):
        await mount.rename("a/x", "b/x")
    assert not await mount.exists("a/x")
    assert await mount.names("b") == ["x", "z"]
    assert await mount.get("b/x") == OLD


async def test_names_are_not_exchanged(mount, store):
    store.put("x", OLD)
    store.put("y", NEW)
    with pytest.raises(InvalidRequest):
        await mount.rename("x", "y", exchange=True)


async def test_a_directory_whose_last_file_moved_away_stays(mount, store):
    store.put("a/b/x", OLD)
    await mount.rename("a/b/x", "y")
    assert list(store.objects) == ["y"]
    assert await mount.names() == ["a", "y"]
    assert await mount.names("a") == ["b"]
    await mount.rmdir("a/b")
    await mount.rmdir("a")
    assert await mount.names() == ["y"]


async def test_a_directory_moves_with_all_that_is_in_it(mount, store):
    for key, content in (("d/", b""), ("d/sub/y", OLD), ("d//hidden", b"h")):
        store.put(key, content)
    await mount.put("d/x", NEW)
    nodes = [await mount.walk(path) for path in ("d", "d/x", "d/sub", "d/sub/y")]
    reader = await mount.open("d/x")
    await mount.rename("d", "e")
    assert sorted(store.objects) == ["e/", "e//hidden", "e/sub/y", "e/x"]
    assert [await mount.walk(path) for path in ("e", "e/x", "e/sub", "e/sub/y")] == nodes
    assert await mount.names("e") == ["sub", "x"]
    assert await mount.names() == ["e"]
    assert await mount.get("e/sub/y") == OLD
    assert await mount.read(reader) == NEW


async def test_files_being_written_move_with_their_directory(mount, store):
    store.put("d/old", OLD)
    changed = await mount.open("d/old", UPDATE)
    await mount.write(changed, b"ours", 0)
    new = await mount.open("d/new", WRITE)
    await mount.write(new, b"new")
    await mount.rename("d", "e")
    assert await mount.names("e") == ["new", "old"]
    await mount.write(new, b"er")
    await mount.write(changed, b"more", 0)
    await mount.close(new)
    await mount.close(changed)
    assert {key: data(store, key) for key in store.objects} == {
        "e/new": b"newer",
        "e/old": b"more" + OLD[4:],
    }


async def test_a_directory_that_exists_only_here_moves_as_well(mount, store):
    store.put("a/x", OLD)
    await mount.unlink("a/x")
    await mount.rename("a", "b")
    assert await mount.names() == ["b"]
    await mount.put("b/y", NEW)
    assert list(store.objects) == ["b/y"]


async def test_a_directory_takes_the_place_of_an_empty_one_and_of_no_other(mount, store):
    store.put("d/x", OLD)
    store.put("full/y", NEW)
    await mount.mkdir("empty")
    with pytest.raises(NotEmpty):
        await mount.rename("d", "full")
    await mount.rename("d", "empty")
    assert sorted(store.objects) == ["empty/", "empty/x", "full/y"]
    assert await mount.names("empty") == ["x"]
    assert await mount.names() == ["empty", "full"]


async def test_a_directory_with_too_many_objects_stays_where_it_is(store, machine):
    machine.options = {"rename_limit": 3}
    for number in range(4):
        store.put(f"d/{number}", OLD)
    async with machine.mounted() as mount:
        with pytest.raises(TooManyObjects):
            await mount.rename("d", "e")
        await mount.unlink("d/0")
        await mount.rename("d", "e")
    assert sorted(store.objects) == ["e/1", "e/2", "e/3"]


async def test_a_directory_whose_move_failed_is_what_it_was(mount, store):
    for number in range(4):
        store.put(f"d/{number}", pattern(number, 10))
    before = await mount.walk("d/2")
    store.script("copy", None, Fault(AccessDenied("no")))
    with pytest.raises(AccessDenied):
        await mount.rename("d", "e")
    assert sorted(store.objects) == ["d/0", "d/1", "d/2", "d/3"]
    assert await mount.names() == ["d"]
    assert await mount.walk("d/2") is before


async def test_a_key_below_a_moved_directory_may_not_be_too_long(mount, store):
    store.put("d/" + "x" * 200 + "/" + "y" * 200, OLD)
    await mount.mkdir("a" * 250)
    await mount.mkdir("a" * 250 + "/" + "b" * 250)
    with pytest.raises(KeyTooLong):
        await mount.rename("d", "a" * 250 + "/" + "b" * 250 + "/" + "c" * 150)


async def test_a_write_in_a_directory_that_moves_waits_for_its_end(mount, store, autojump_clock):
    for number in range(3):
        store.put(f"d/{number}", OLD)
    descriptor = await mount.open("d/0", UPDATE)
    store.script("copy", *[Fault(delay_s=1e6)] * 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "d", "e")
        await until(lambda: store.calls["copy"] == 3)
        await mount.write(descriptor, b"ours", 0)
    await mount.close(descriptor)
    assert data(store, "e/0") == b"ours" + OLD[4:]
    assert sorted(store.objects) == ["e/0", "e/1", "e/2"]


async def test_a_reader_of_a_file_that_is_being_moved_reads_on(mount, store, autojump_clock):
    store.put("x", OLD)
    reader = await mount.open("x")
    store.script("delete", Fault(delay_s=1e6, happened=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "x", "y")
        await until(lambda: "x" not in store.objects)
        assert await mount.read(reader, len(OLD) - 10, 10) == OLD[-10:]
    assert await mount.get("y") == OLD
