"""Two mounts of one bucket: what one host makes, moves or removes, the other finds in time.

That is before it changes a name, whatever it remembers.

Host b has listed the directories before host a changes something there, and its memory of that is
older than a moment (FRESH_S) and younger than the metadata TTL.
"""

import os

import pytest
import trio

from stsfs.errors import (
    AlreadyExists,
    IsADirectory,
    NotEmpty,
    NotFound,
    StoreFailure,
)
from stsfs.vfs.listing import FRESH_S
from tests.fakes import Fault, pattern
from tests.writing_vfs.machine import WRITE, a_moment_later, data

OLD, NEW = pattern("old", 5000), pattern("new", 3000)
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def root(mount):
    return mount.tree.inodes.root.inode


# Files that are made.


async def test_an_append_to_what_another_host_made_keeps_what_is_there(
    hosts, autojump_clock, store
):
    a, b = hosts
    assert await b.names() == []
    await a_moment_later()
    await a.put("log", b"from a\n")
    number, node = await b.vfs.create(root(b), b"log", APPEND, None)  # absent for b's kernel
    await b.vfs.write(number, node.size_bytes, b"from b\n")
    await b.vfs.flush(number)
    assert data(store, "log") == b"from a\nfrom b\n"


async def test_a_copy_onto_what_another_host_made_replaces_it(hosts, autojump_clock, store):
    a, b = hosts
    assert not await b.exists("f")
    await a_moment_later()
    await a.put("f", OLD)
    assert await b.exists("f")  # what cp asks first
    await b.put("f", NEW)
    assert data(store, "f") == NEW


async def test_a_file_that_must_be_new_is_not_where_another_host_has_one(
    hosts, autojump_clock, store
):
    a, b = hosts
    assert not await b.exists("f")
    await a_moment_later()
    await a.put("f", OLD)
    with pytest.raises(AlreadyExists):
        await b.vfs.create(root(b), b"f", EXCLUSIVE, None)
    assert data(store, "f") == OLD


async def test_a_file_is_not_made_where_another_host_has_a_directory(hosts, autojump_clock, store):
    a, b = hosts
    assert not await b.exists("d")
    await a_moment_later()
    await a.mkdir("d")
    with pytest.raises(IsADirectory):
        await b.vfs.create(root(b), b"d", WRITE, None)
    assert list(store.objects) == ["d/"]
    assert await b.names("d") == []


async def test_two_hosts_that_make_a_file_in_the_same_moment_do_not_both_succeed(
    hosts, autojump_clock, store
):
    a, b = hosts
    assert not await b.exists("f")
    one = await a.open("f", EXCLUSIVE)
    other = await b.open("f", EXCLUSIVE)
    await a.write(one, OLD)
    await b.write(other, NEW)
    await a.close(one)
    with pytest.raises(AlreadyExists):
        await b.close(other)
    assert data(store, "f") == OLD


# Directories that are made and removed.


async def test_a_directory_is_not_made_over_another_hosts_file(hosts, autojump_clock, store):
    a, b = hosts
    assert await b.names() == []
    await a_moment_later()
    await a.put("out", OLD)
    with pytest.raises(AlreadyExists):
        await b.mkdir("out")
    assert list(store.objects) == ["out"]
    assert await b.get("out") == OLD


async def test_two_hosts_that_make_a_directory_in_the_same_moment_do_not_both_succeed(
    hosts, autojump_clock
):
    a, b = hosts
    assert await b.names() == []
    await a.mkdir("d")
    with pytest.raises(AlreadyExists):
        await b.mkdir("d")
    assert await b.names() == ["d"]


async def test_a_directory_that_another_host_removed_is_not_there_to_be_removed(
    hosts, autojump_clock
):
    a, b = hosts
    await a.mkdir("d")
    assert await b.exists("d")
    await a.rmdir("d")
    with pytest.raises(NotFound):
        await b.rmdir("d")
    assert await b.names() == []


async def test_a_directorys_object_with_content_stays_and_is_named(hosts, autojump_clock, store):
    _, b = hosts
    store.put("d/", b"content")
    await b.mkdir("e")
    assert await b.names() == ["d", "e"]
    with pytest.raises(NotEmpty, match=r"that no path shows, 'd/': it has content"):
        await b.rmdir("d")
    with pytest.raises(NotEmpty, match="it has content"):
        await b.rename("e", "d")
    await b.rename("d", "moved")
    assert data(store, "moved/") == b"content"
    assert "d/" not in store.objects


async def test_a_directorys_object_that_gets_content_meanwhile_stays(hosts, autojump_clock, store):
    _, b = hosts
    await b.mkdir("d")
    page = store._page

    def then_changed(prefix, *rest):
        found = page(prefix, *rest)
        if prefix == "d/":
            store.put("d/", b"content")
        return found

    store._page = then_changed
    with pytest.raises(NotEmpty, match="it has content"):
        await b.rmdir("d")
    assert data(store, "d/") == b"content"


# Removals.


async def test_a_file_that_another_host_removed_is_not_there_to_be_removed(
    hosts, autojump_clock, store
):
    a, b = hosts
    store.put("x", OLD)
    assert await b.names() == ["x"]
    await a.unlink("x")
    await a_moment_later()
    with pytest.raises(NotFound):
        await b.unlink("x")
    assert await b.names() == []


async def test_a_directory_that_another_host_made_of_a_name_is_not_unlinked(
    hosts, autojump_clock, store
):
    a, b = hosts
    store.put("x", OLD)
    assert await b.exists("x")
    await a.unlink("x")
    store.put("x/y", NEW)
    await a_moment_later()
    with pytest.raises(IsADirectory):
        await b.unlink("x")
    assert list(store.objects) == ["x/y"]


async def test_a_rename_says_that_s3_could_not_be_asked_and_changes_nothing(
    hosts, autojump_clock, store
):
    _, b = hosts
    store.put("x", OLD)
    assert await b.names() == ["x"]
    await a_moment_later()
    for change in (
        lambda: b.vfs.names.rename(root(b), b"x", root(b), b"y"),
        lambda: b.vfs.names.unlink(root(b), b"x"),
        lambda: b.vfs.names.mkdir(root(b), b"d", None),
        lambda: b.vfs.create(root(b), b"z", WRITE, None),
    ):
        store.script("list_page", *[Fault(StoreFailure("down"))] * 2)
        with pytest.raises(StoreFailure):
            await change()
        store.scripts.clear()
    assert list(store.objects) == ["x"]
    assert b.writers.files() == []


async def test_a_thousand_new_files_cost_a_listing_a_second_and_no_more(
    hosts, autojump_clock, store
):
    _, b = hosts
    await b.mkdir("d")
    lists, begun_s = store.calls["list_page"], trio.current_time()
    for number in range(1000):
        await b.put(f"d/n{number:03}", b"")
    lasted_s = trio.current_time() - begun_s
    assert store.calls["list_page"] - lists <= 3 + 2 * lasted_s / FRESH_S
    assert len(await b.names("d")) == 1000
