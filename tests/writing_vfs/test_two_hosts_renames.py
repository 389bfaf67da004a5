"""Two mounts of one bucket: renames of what another host has moved, or onto what it wrote."""

import errno

import pytest
import trio

from stsfs.errors import (
    AlreadyExists,
    IsADirectory,
    NotADirectory,
    NotFound,
    TargetChanged,
    WriteConflict,
)
from stsfs.fuse.errno_table import reply_for
from stsfs.store.object_store import ObjectVersion
from stsfs.vfs import targets
from stsfs.vfs.nodes import File
from tests.fakes import pattern
from tests.writing_vfs.machine import TTL_S, UPDATE, a_moment_later, changes, data

OLD, NEW = pattern("old", 5000), pattern("new", 3000)


def root(mount):
    return mount.tree.inodes.root.inode


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


async def test_a_name_that_was_absent_when_the_last_listing_ended_is_replaced_as_asked(
    hosts, autojump_clock, store
):
    a, b = hosts
    assert await b.names() == []
    await b.put("d.tmp", NEW)
    await a.put("f", OLD)
    await trio.sleep(2 * TTL_S)
    await b.rename("d.tmp", "f")
    assert data(store, "f") == NEW


async def test_a_target_that_is_written_here_and_nowhere_else_is_replaced(
    hosts, autojump_clock, store
):
    _, b = hosts
    store.put("f", OLD)
    descriptor = await b.open("f", UPDATE)
    await b.write(descriptor, b"ours", 0)
    await b.put("f.tmp", NEW)
    await b.rename("f.tmp", "f")
    assert data(store, "f") == NEW
    await b.close(descriptor)
    assert data(store, "f") == NEW


async def test_of_the_names_that_were_opened_those_used_least_recently_are_forgotten(
    mount, monkeypatch
):
    monkeypatch.setattr(targets, "OPENED_MAX", 2)
    known, root = targets.Targets(mount.tree, mount.vfs._nodes), mount.tree.inodes.root
    x, y, z = (
        File(number, root, name, ObjectVersion(1, "k", f'"{number}"', 1), 0, "")
        for number, name in enumerate((b"x", b"y", b"z"), 2)
    )
    for file in (x, y, x, z):
        known.opened(file)
    assert [known.seen(root, each.name) is not None for each in (x, y, z)] == [True, False, True]


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
    root = b.tree.inodes.root.inode
    with pytest.raises(TargetChanged):  # at once, not only when the kernel asks again
        await b.vfs.names.rename(root, b"f.tmp", root, b"f")
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
