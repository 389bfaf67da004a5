"""What a mount that was killed had finished is not done again by the next one."""

import threading

import pytest
import trio

from stsfs.errors import StoreFailure, WriteConflict
from stsfs.staging.file import StagingFile
from stsfs.store.object_store import Traits
from stsfs.writer.recovery import publish_left, recover_at_mount
from tests.fakes import Fault, pattern
from tests.writing_vfs.machine import UPDATE, WRITE, data, until

OLD, NEW = pattern("old", 300_000), pattern("new", 300_000)


async def recovered(machine, mount):
    """What the next mount finds, once it has done what it does by itself."""
    recovery = await recover_at_mount(mount.writers, mount.mover)
    with trio.fail_after(120):
        while any(each.record for each in machine.left_behind() if recovery.uploading):
            await trio.lowlevel.checkpoint()
    return recovery


async def test_what_was_published_and_is_still_open_is_not_published_again(
    machine, store, autojump_clock
):
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", WRITE)
        await mount.write(descriptor, NEW)
        await mount.flush(descriptor)
    store.delete("f")
    async with machine.mounted() as mount:
        assert not (await recovered(machine, mount)).uploading
        assert "f" not in store.objects
        assert machine.left_behind() == []


async def test_what_another_client_has_replaced_since_is_no_conflict_after_a_kill(
    machine, store, autojump_clock
):
    store.put("f", OLD)
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", WRITE)
        await mount.write(descriptor, NEW)
        await mount.flush(descriptor)
    store.put("f", b"theirs, over what we had published")
    async with machine.mounted() as mount:
        await recovered(machine, mount)
        assert mount.writers.pending() == []
        assert machine.left_behind() == []


@pytest.mark.parametrize("change", ["unlink", "rename", "replace"])
async def test_the_end_of_a_file_leaves_nothing_to_be_published(
    change, machine, store, autojump_clock, monkeypatch
):
    """The kernel does not wait for a release: names change while its bytes leave the disk."""
    free, discard = threading.Event(), StagingFile.discard

    def slow(file):
        free.wait(120)
        discard(file)

    async with machine.mounted() as mount:
        await mount.put("g", OLD)
        descriptor = await mount.open("f", WRITE)
        await mount.write(descriptor, NEW)
        await mount.flush(descriptor)
        monkeypatch.setattr(StagingFile, "discard", slow)
        file = mount.tree.inodes.get(descriptor.inode)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.release, descriptor)
            await until(lambda: file.staged is None)
            if change == "unlink":
                await mount.unlink("f")
            elif change == "rename":
                await mount.rename("f", "h")
            else:
                await mount.rename("g", "f")
            left = [each for each in machine.left_behind() if each.record is not None]
            free.set()
        assert left == []


async def test_what_has_changed_since_it_was_published_is_kept_and_not_uploaded(
    machine, store, autojump_clock
):
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", WRITE)
        await mount.write(descriptor, NEW)
        await mount.flush(descriptor)
        await mount.write(descriptor, b"more", 0)
        await mount.vfs.fsync(descriptor.number)
    async with machine.mounted() as mount:
        assert (await recovered(machine, mount)).listed == ["f"]
        assert data(store, "f") == NEW
        (left,) = machine.left_behind()
        assert left.record.state == "writing"
        assert left.record.expected.etag == store.objects["f"].etag


async def test_what_was_published_twice_is_not_published_again(machine, store, autojump_clock):
    async with machine.mounted() as mount:
        for content, flags in ((OLD, WRITE), (NEW, UPDATE)):
            descriptor = await mount.open("f", flags)
            await mount.write(descriptor, content)
            await mount.flush(descriptor)
    store.delete("f")
    async with machine.mounted() as mount:
        assert not (await recovered(machine, mount)).uploading
        assert "f" not in store.objects
        assert machine.left_behind() == []


async def test_an_attempt_of_ours_whose_answer_was_lost_is_no_conflict_after_a_kill(machine, store):
    """It has made the object; what was written after it was not published before the kill."""
    store.put("f", OLD)
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", UPDATE)
        await mount.write(descriptor, NEW)
        store.script("put", Fault(StoreFailure("no answer"), happened=True))
        with pytest.raises(StoreFailure):
            await mount.flush(descriptor)
        await mount.write(descriptor, b"more", 0)
        await mount.vfs.fsync(descriptor.number)
    assert data(store, "f") == NEW
    async with machine.mounted() as mount:
        assert (await recovered(machine, mount)).listed == ["f"]
        (left,) = machine.left_behind()
        await publish_left(left, mount.writers)
        assert data(store, "f") == b"more" + NEW[4:]
        assert mount.writers.pending() == []


async def test_of_two_attempts_of_ours_the_first_is_no_conflict_after_a_kill(machine, store):
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", WRITE)
        await mount.write(descriptor, NEW)
        store.script("put", Fault(StoreFailure("no answer"), happened=True))
        with pytest.raises(StoreFailure):
            await mount.flush(descriptor)
        await mount.write(descriptor, b"more", 0)
        store.script("put", Fault(StoreFailure("down")))
        with pytest.raises(StoreFailure):
            await mount.flush(descriptor)
    assert data(store, "f") == NEW
    async with machine.mounted() as mount:
        assert (await recovered(machine, mount)).uploading == ["f"]
        assert data(store, "f") == b"more" + NEW[4:]
        assert mount.writers.pending() == []


async def test_what_another_client_has_put_over_an_attempt_of_ours_is_a_conflict_after_a_kill(
    machine, store
):
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", WRITE)
        await mount.write(descriptor, NEW)
        store.script("put", Fault(StoreFailure("no answer"), happened=True))
        with pytest.raises(StoreFailure):
            await mount.flush(descriptor)
        await mount.write(descriptor, b"more", 0)
        await mount.vfs.fsync(descriptor.number)
    store.put("f", b"theirs")
    async with machine.mounted() as mount:
        (left,) = machine.left_behind()
        with pytest.raises(WriteConflict):
            await publish_left(left, mount.writers)
        assert data(store, "f") == b"theirs"


@pytest.mark.parametrize("size_bytes", [4, len(OLD) + 1], ids=["in part", "all of it"])
async def test_what_is_stored_beside_an_object_stays_after_a_kill(size_bytes, machine, store):
    store.put("f", OLD, traits=Traits({"colour": "blue"}, "text/plain"))
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", UPDATE)
        await mount.write(descriptor, bytes(size_bytes), 0)
        await mount.vfs.fsync(descriptor.number)
    async with machine.mounted() as mount:
        (left,) = machine.left_behind()
        await publish_left(left, mount.writers)
    stored = store.objects["f"]
    assert stored.data == bytes(size_bytes) + OLD[size_bytes:]
    assert stored.traits.content_type == "text/plain"
    assert stored.traits.metadata["colour"] == "blue"


async def test_nothing_is_kept_of_what_was_cut_off_before_a_kill(machine, store):
    store.put("f", OLD, traits=Traits({"colour": "blue"}, "text/plain"))
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", WRITE)
        await mount.write(descriptor, NEW)
        await mount.vfs.fsync(descriptor.number)
    async with machine.mounted() as mount:
        (left,) = machine.left_behind()
        await publish_left(left, mount.writers)
    assert store.objects["f"].traits.content_type == ""


async def test_what_replaces_whatever_is_there_asks_for_nothing_of_it(machine, store):
    store.put("f", OLD)
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", UPDATE)
        await mount.write(descriptor, NEW)
        await mount.vfs.fsync(descriptor.number)
    store.put("f", b"theirs")
    async with machine.mounted() as mount:
        (left,) = machine.left_behind()
        await publish_left(left, mount.writers, force=True)
    assert data(store, "f") == NEW
