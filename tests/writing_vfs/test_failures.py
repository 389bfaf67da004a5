"""Content that does not come to S3: who is told, and what is kept."""

import os

import pytest
import trio

from stsfs.errors import (
    AccessDenied,
    AlreadyExists,
    StagingFull,
    StoreFailure,
    WriteConflict,
)
from tests.fakes import Fault, pattern
from tests.writing_vfs.machine import UPDATE, WRITE, changes, data, root_node, until

OLD, NEW = pattern("old", 1 << 20), pattern("new", 200_000)


async def test_an_empty_file_that_cannot_be_made_is_reported_by_touch(mount, store):
    descriptor = await mount.open("f", os.O_WRONLY | os.O_CREAT)
    store.script("put", *[Fault(AccessDenied("no"))] * 3)
    await mount.flush(descriptor)  # of the descriptor that was duplicated
    await mount.set("f", descriptor, modified_ns=5)
    with pytest.raises(AccessDenied):
        await mount.flush(descriptor)


async def test_fsync_asks_s3_for_nothing_and_survives_a_kill(machine, store):
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", WRITE)
        await mount.write(descriptor, NEW)
        await mount.vfs.fsync(descriptor.number)
        assert changes(store) == []
    async with machine.mounted() as mount:
        (left,) = mount.staging.left_behind()
        assert left.record.key == "f"
        assert left.record.size_bytes == len(NEW)


async def test_fsync_publishes_where_that_is_chosen(machine, store):
    machine.options = {"fsync_publishes": True}
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", WRITE)
        await mount.write(descriptor, NEW)
        await mount.vfs.fsync(descriptor.number)
        assert data(store, "f") == NEW
        await mount.close(descriptor)


async def test_of_two_that_write_one_is_told_and_the_name_is_the_others(mount, store):
    store.put("f", OLD)
    descriptor = await mount.open("f", UPDATE)
    await mount.write(descriptor, b"ours", 0)
    store.put("f", NEW)
    with pytest.raises(WriteConflict):
        await mount.close(descriptor)
    assert data(store, "f") == NEW
    assert await mount.get("f") == NEW
    (pending,) = mount.writers.pending()
    assert pending.state == "conflict"


async def test_our_bytes_are_read_by_who_has_them_open_after_a_conflict(mount, store):
    descriptor = await mount.open("f", os.O_RDWR | os.O_CREAT)
    await mount.write(descriptor, b"ours")
    store.put("f", NEW)
    with pytest.raises(WriteConflict):
        await mount.flush(descriptor)
    assert await mount.read(descriptor) == b"ours"
    assert await mount.get("f") == NEW
    await mount.put("f", b"both were seen")
    assert data(store, "f") == b"both were seen"
    with pytest.raises(WriteConflict):
        await mount.close(descriptor)
    assert data(store, "f") == b"both were seen"


async def test_exclusive_creation_fails_here_at_once(mount, store):
    await mount.put("f", NEW)
    root = root_node(mount).inode
    with pytest.raises(AlreadyExists):
        await mount.vfs.create(root, b"f", WRITE | os.O_EXCL, None)


async def test_exclusive_creation_fails_between_hosts_when_it_is_published(mount, store):
    descriptor = await mount.open("f", WRITE | os.O_EXCL)
    await mount.write(descriptor, b"ours")
    store.put("f", NEW)
    with pytest.raises(AlreadyExists):
        await mount.close(descriptor)
    assert await mount.get("f") == NEW


async def test_a_failed_close_keeps_the_bytes_and_tries_again(mount, store, autojump_clock):
    store.script("put", Fault(StoreFailure("down")), Fault(StoreFailure("down")))
    with pytest.raises(StoreFailure):
        await mount.put("f", NEW)
    assert store.objects == {}
    assert await mount.get("f") == NEW
    node = await mount.walk("f")
    await until(lambda: node.staged is None)
    assert data(store, "f") == NEW
    assert await mount.walk("f") is node
    assert await mount.get("f") == NEW


async def test_what_may_not_be_written_fails_and_stays_here(mount, store, autojump_clock):
    store.put("f", OLD)
    store.script("put", *[Fault(AccessDenied("no"))] * 5)
    with pytest.raises(AccessDenied):
        await mount.put("f", NEW)
    await trio.sleep(1000)
    assert data(store, "f") == OLD
    assert [each.state for each in mount.writers.pending()] == ["failed"]


async def test_a_full_local_disk_fails_the_write_and_nothing_else(mount, store, monkeypatch):
    store.put("f", OLD)
    descriptor = await mount.open("f", UPDATE)

    def full():
        raise StagingFull("no room")

    monkeypatch.setattr(mount.staging, "create", full)
    with pytest.raises(StagingFull):
        await mount.write(descriptor, b"x", 0)
    monkeypatch.undo()
    await mount.close(descriptor)
    assert data(store, "f") == OLD
    assert await mount.get("f") == OLD


async def test_a_truncating_open_that_fails_leaves_the_file_as_it_was(mount, store, monkeypatch):
    store.put("f", OLD)
    await mount.walk("f")

    def stage_over(*args, **options):
        raise StagingFull("no room")

    monkeypatch.setattr(mount.writers, "stage_over", stage_over)
    with pytest.raises(StagingFull):
        await mount.open("f", WRITE)
    assert mount.vfs.open_files == 0
    assert await mount.get("f") == OLD
