"""Two mounts of one bucket: what one host makes, moves or removes, the other finds in time.

That is before it changes a name, whatever it remembers.

Host b has listed the directories before host a changes something there, and its memory of that is
older than a moment (FRESH_S) and younger than the metadata TTL.
"""

import errno
import os

import pytest
import trio

from stsfs.errors import (
    AlreadyExists,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    StoreFailure,
    TargetChanged,
    WriteConflict,
)
from stsfs.fuse.errno_table import reply_for
from stsfs.vfs.listing import FRESH_S
from tests.fakes import Fault, pattern
from tests.writing_vfs.machine import TTL_S, UPDATE, WRITE, Machine, changes, data

OLD, NEW = pattern("old", 5000), pattern("new", 3000)
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@pytest.fixture
async def hosts(store, tmp_path):
    one, other = Machine(store, tmp_path / "a"), Machine(store, tmp_path / "b")
    async with one.mounted() as a, other.mounted() as b:
        yield a, b


async def a_moment_later():
    await trio.sleep(FRESH_S + 0.1)


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
    number, node = await b.vfs.create(root(b), b"log", APPEND, None, 1)  # absent for b's kernel
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
        await b.vfs.create(root(b), b"f", EXCLUSIVE, None, 1)
    assert data(store, "f") == OLD


async def test_a_file_is_not_made_where_another_host_has_a_directory(hosts, autojump_clock, store):
    a, b = hosts
    assert not await b.exists("d")
    await a_moment_later()
    await a.mkdir("d")
    with pytest.raises(IsADirectory):
        await b.vfs.create(root(b), b"d", WRITE, None, 1)
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


# Renames: sources.


@pytest.mark.parametrize("within_a_moment", [True, False])
async def test_a_directory_that_another_host_moved_is_not_moved_again(
    hosts, autojump_clock, store, within_a_moment
):
    a, b = hosts
    store.put("m/x", OLD)
    assert await b.names("m") == ["x"]
    assert await b.names() == ["m"]
    await a.rename("m", "moved")
    if not within_a_moment:
        await a_moment_later()
    with pytest.raises(NotFound):
        await b.vfs.names.rename(root(b), b"m", root(b), b"again")
    assert await b.names() == ["moved"]
    assert list(store.objects) == ["moved/x"]


async def test_a_file_that_another_host_removed_is_not_renamed(hosts, autojump_clock, store):
    a, b = hosts
    store.put("x", OLD)
    assert await b.names() == ["x"]
    await a.unlink("x")
    await a_moment_later()
    with pytest.raises(NotFound):
        await b.rename("x", "y")
    assert await b.names() == []
    assert changes(store) == ["delete"]


async def test_a_file_is_not_renamed_over_another_hosts_directory(hosts, autojump_clock, store):
    a, b = hosts
    store.put("x", OLD)
    assert await b.names() == ["x"]
    await a_moment_later()
    await a.mkdir("d")
    with pytest.raises(IsADirectory):
        await b.rename("x", "d")
    with pytest.raises(NotADirectory):
        await b.rename("d", "x")
    assert sorted(store.objects) == ["d/", "x"]


# Renames: what they replace.


async def test_a_save_by_rename_does_not_replace_what_another_host_wrote_since(
    hosts, autojump_clock, store
):
    a, b = hosts
    store.put("f", OLD)
    assert await b.get("f") == OLD
    await a.put("f", b"a's own")
    await a_moment_later()
    await b.put("f.tmp", NEW)
    with pytest.raises(TargetChanged, match="changed by another client") as refused:
        await b.rename("f.tmp", "f")
    assert reply_for(refused.value).errno == errno.EBUSY  # the kernel repeats after ESTALE
    assert data(store, "f") == b"a's own"
    assert await b.get("f") == b"a's own"
    assert await b.get("f.tmp") == NEW
    await b.rename("f.tmp", "f")
    assert data(store, "f") == NEW
    assert list(store.objects) == ["f"]


async def test_it_does_not_so_after_the_listing_is_over_and_the_kernel_has_looked_again(
    hosts, autojump_clock, store
):
    a, b = hosts
    store.put("f", OLD)
    assert await b.get("f") == OLD
    await a.put("f", b"a's own")
    await trio.sleep(2 * TTL_S)
    await b.put("f.tmp", NEW)
    assert await b.exists("f")  # a lookup of the rename's own
    with pytest.raises(TargetChanged):
        await b.rename("f.tmp", "f")
    await b.rename("f.tmp", "f")  # on purpose
    assert data(store, "f") == NEW


async def test_whoever_saves_again_and_again_is_not_stopped_by_himself(
    hosts, autojump_clock, store
):
    _, b = hosts
    store.put("f", OLD)
    for number in range(4):
        await b.get("f")
        await b.put("f.tmp", pattern(number, 1000))
        await a_moment_later()
        await b.rename("f.tmp", "f")
        await b.put("f", pattern(-number, 1000))
        await b.put("f.tmp", pattern(number, 2000))
        await b.rename("f.tmp", "f")
        await b.rename("f", "g")
        await a_moment_later()
        await b.put("f.tmp", OLD)
        await b.rename("f.tmp", "f")
        await b.rename("g", "f")
    await b.unlink("f")
    store.put("f", OLD)
    await a_moment_later()
    assert await b.exists("f")
    await b.put("f.tmp", NEW)
    await b.rename("f.tmp", "f")
    assert data(store, "f") == NEW


async def test_a_rename_onto_a_name_that_was_absent_does_not_replace_what_came_since(
    hosts, autojump_clock, store
):
    a, b = hosts
    assert await b.names() == []
    await b.put("f.tmp", NEW)
    assert await b.names() == ["f.tmp"]
    await a.put("f", OLD)
    await a_moment_later()
    with pytest.raises(TargetChanged):
        await b.rename("f.tmp", "f")
    assert data(store, "f") == OLD
    await b.rename("f.tmp", "f")
    assert data(store, "f") == NEW


async def test_what_nobody_has_looked_at_here_is_replaced_as_asked(hosts, autojump_clock, store):
    a, b = hosts
    await a.put("f", OLD)
    await b.put("d.tmp", NEW)
    await trio.sleep(2 * TTL_S)
    await b.rename("d.tmp", "f")
    assert data(store, "f") == NEW


async def test_a_target_that_changes_after_the_last_look_is_not_replaced(
    hosts, autojump_clock, store
):
    _, b = hosts
    store.put("f", OLD)
    assert await b.get("f") == OLD
    await b.put("f.tmp", NEW)
    await a_moment_later()
    assert await b.names() == ["f", "f.tmp"]
    await b.tree.fresh(b.tree.inodes.root, b"f")
    store.put("f", b"another client's")  # within the moment that the listing counts for
    with pytest.raises(TargetChanged):
        await b.rename("f.tmp", "f")
    assert data(store, "f") == b"another client's"
    assert await b.get("f") == b"another client's"
    await b.rename("f.tmp", "f")
    assert data(store, "f") == NEW


async def test_a_rename_that_must_not_replace_does_not_replace_what_came_just_now(
    hosts, autojump_clock, store
):
    _, b = hosts
    await b.put("x", NEW)
    assert await b.names() == ["x"]
    store.put("y", OLD)
    with pytest.raises(AlreadyExists):
        await b.rename("x", "y", replace=False)
    assert (data(store, "x"), data(store, "y")) == (NEW, OLD)


async def test_a_target_that_is_written_here_and_was_changed_elsewhere_is_not_replaced(
    hosts, autojump_clock, store
):
    _, b = hosts
    store.put("f", OLD)
    descriptor = await b.open("f", UPDATE)
    await b.write(descriptor, b"ours", 0)
    store.put("f", b"another client's")
    await b.put("f.tmp", NEW)
    with pytest.raises(TargetChanged, match="while it was written here"):
        await b.rename("f.tmp", "f")
    assert data(store, "f") == b"another client's"
    with pytest.raises(WriteConflict):
        await b.close(descriptor)


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
        lambda: b.vfs.create(root(b), b"z", WRITE, None, 1),
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
