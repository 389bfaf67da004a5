"""What one owner of a written file makes impossible: bytes that vanish between two of its steps."""

import os
import threading

import pytest
import trio
import trio.testing

from stsfs.errors import StagingFull, StoreFailure, UnexpectedError
from stsfs.staging.file import StagingFile
from stsfs.staging.left import what_is_left
from stsfs.staging.room import Room
from tests.faults import Fault, Hold
from tests.writing_vfs.machine import UPDATE, WRITE, data, until

LARGE = b"0123456789" * 40_000
"""So much that the staging file is removed in a thread."""


@pytest.fixture
def slow_discard(monkeypatch):
    """Holds the first removal of a staging file: (it was reached, let it go)."""
    reached, go_on = threading.Event(), threading.Event()
    discard = StagingFile.discard

    def slow(self):
        if not reached.is_set():
            reached.set()
            assert go_on.wait(120)
        discard(self)

    monkeypatch.setattr(StagingFile, "discard", slow)
    yield reached, go_on
    go_on.set()


async def failed_put(mount, store, path="f", content=b"old data"):
    """A close whose upload failed, and nobody knows whether it did."""
    store.script("put", Fault(StoreFailure("503")))
    with pytest.raises(StoreFailure):
        await mount.put(path, content)


async def failed_unlink(mount, store, path="f"):
    """An unlink that could not find out what S3 has."""
    store.script("written", Fault(StoreFailure("503")))
    with pytest.raises(StoreFailure):
        await mount.unlink(path)


async def test_a_failed_unlink_leaves_the_name_and_the_bytes(mount, store):
    await failed_put(mount, store)
    await failed_unlink(mount, store)
    assert await mount.get("f") == b"old data"
    assert [each.path for each in mount.writers.pending()] == ["f"]
    await until(lambda: "f" in store.objects)
    assert data(store, "f") == b"old data"


async def test_what_is_copied_onto_a_name_that_could_not_be_removed_comes_to_s3(mount, store):
    await failed_put(mount, store)
    await failed_unlink(mount, store)
    await mount.put("f", b"precious new data")
    assert data(store, "f") == b"precious new data"
    assert mount.writers.pending() == []


async def test_a_descriptor_open_during_a_failed_unlink_publishes_at_its_close(mount, store):
    descriptor = await mount.open("f", WRITE)
    await mount.write(descriptor, b"part one ")
    store.script("put", Fault(StoreFailure("503")))
    with pytest.raises(StoreFailure):
        await mount.flush(descriptor)
    await failed_unlink(mount, store)
    await mount.write(descriptor, b"part two")
    await mount.close(descriptor)
    assert data(store, "f") == b"part one part two"
    assert await mount.get("f") == b"part one part two"


async def renamed_over_without_an_answer(mount, store):
    """A file that is only here, and a rename over it whose copy happens, which nobody learns."""
    await mount.put("other", b"other")
    await failed_put(mount, store)
    store.script("copy", Fault(StoreFailure("503"), happened=True))
    with pytest.raises(StoreFailure):
        await mount.rename("other", "f")
    assert data(store, "f") == b"other"


async def test_a_file_that_is_removed_after_a_failed_rename_over_it_does_not_come_back(
    mount, store
):
    await renamed_over_without_an_answer(mount, store)
    await mount.unlink("f")
    assert "f" not in store.objects
    assert data(store, "other") == b"other"


async def test_a_file_that_is_written_after_a_failed_rename_over_it_is_no_conflict(mount, store):
    await renamed_over_without_an_answer(mount, store)
    await mount.put("f", b"newer")
    assert data(store, "f") == b"newer"


async def test_a_failed_deletion_of_the_object_leaves_what_was_written_since(mount, store):
    store.put("f", b"before")
    descriptor = await mount.open("f", UPDATE)
    await mount.write(descriptor, b"BE", 0)
    store.script("delete", Fault(StoreFailure("503")))
    with pytest.raises(StoreFailure):
        await mount.unlink("f")
    await mount.close(descriptor)
    assert data(store, "f") == b"BEfore"


async def test_a_flush_that_an_unlink_breaks_off_waits_for_its_end(mount, store):
    """The unlink fails in the end: the flush publishes after all, and only then succeeds."""
    descriptor = await mount.open("f", WRITE)
    await mount.write(descriptor, b"abc")
    store.script("put", Fault(StoreFailure("503"), hold=(hold := Hold()), happened=False))
    store.script("written", Fault(StoreFailure("503")))
    outcome = []

    async def flush():
        try:
            await mount.flush(descriptor)
            outcome.append(data(store, "f"))
        except StoreFailure as exc:
            outcome.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        await hold.reached()

        async def let_go():
            await trio.testing.wait_all_tasks_blocked(0.01)
            hold.let_go()

        nursery.start_soon(let_go)
        with pytest.raises(StoreFailure):
            await mount.unlink("f")
    assert outcome == [b"abc"] or isinstance(outcome[0], StoreFailure)
    await mount.close(descriptor)
    assert data(store, "f") == b"abc"


async def test_truncate_by_name_is_not_lost_while_a_retry_lets_the_staging_file_go(
    mount, store, slow_discard
):
    reached, go_on = slow_discard
    await failed_put(mount, store, content=LARGE)
    await until(reached.is_set)
    assert data(store, "f") == LARGE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.truncate, "f", 100)
        await trio.testing.wait_all_tasks_blocked(0.01)
        go_on.set()
    assert data(store, "f") == LARGE[:100]
    assert (await mount.stat("f")).size_bytes == 100
    await until(lambda: not any(mount.staging.path.glob("*.data")))


async def test_the_end_of_an_older_staging_does_not_end_a_newer_one(mount, store, slow_discard):
    reached, go_on = slow_discard
    await failed_put(mount, store, content=LARGE)
    await until(reached.is_set)
    descriptor = await mount.open("f", os.O_RDWR)
    await mount.write(descriptor, b"NEW", 0)
    go_on.set()
    await until(lambda: len(list(mount.staging.path.glob("*.data"))) == 1)
    assert await mount.read(descriptor, 0, 5) == b"NEW34"
    await mount.close(descriptor)
    assert data(store, "f") == b"NEW" + LARGE[3:]


async def test_a_bug_in_an_upload_fails_that_file_and_is_tried_again(mount, store):
    store.script("put", Fault(KeyError("a bug")))
    with pytest.raises(UnexpectedError) as caught:
        await mount.put("f", b"x")
    assert "recover" in str(caught.value)
    await mount.put("g", b"y")
    assert data(store, "g") == b"y"
    await until(lambda: "f" in store.objects)
    assert data(store, "f") == b"x"


@pytest.fixture
def full_disk(monkeypatch):
    """Whether the disk takes bytes: a list with one flag."""
    is_full = [False]
    take = Room.take

    def limited(self, count_bytes):
        if is_full[0]:
            raise StagingFull("The disk is full.")
        take(self, count_bytes)

    monkeypatch.setattr(Room, "take", limited)
    return is_full


async def test_what_a_full_disk_left_incomplete_does_not_replace_the_object(
    mount, store, full_disk, autojump_clock
):
    store.put("f", b"the good one")
    descriptor = await mount.open("f", WRITE)
    await mount.write(descriptor, b"a stu")
    full_disk[0] = True
    with pytest.raises(StagingFull):
        await mount.write(descriptor, b"mp")
    with pytest.raises(StagingFull):
        await mount.close(descriptor)
    full_disk[0] = False
    assert data(store, "f") == b"the good one"
    await trio.sleep(3000)
    assert data(store, "f") == b"the good one"
    (pending,) = mount.writers.pending()
    assert (pending.state, pending.size_bytes) == ("writing", 5)
    (left,) = what_is_left(mount.staging.path.parent.parent)
    assert (left.record.path, left.record.size_bytes) == ("f", 5)
    assert "full" in left.record.reason


async def test_a_write_that_brings_the_missing_bytes_repairs_the_file(mount, store, full_disk):
    descriptor = await mount.open("f", WRITE)
    await mount.write(descriptor, b"0123")
    full_disk[0] = True
    with pytest.raises(StagingFull):
        await mount.write(descriptor, b"4567", 4)
    full_disk[0] = False
    await mount.write(descriptor, b"4567", 4)
    await mount.close(descriptor)
    assert data(store, "f") == b"01234567"


async def test_a_file_cut_off_before_the_missing_bytes_is_published(mount, store, full_disk):
    descriptor = await mount.open("f", WRITE)
    await mount.write(descriptor, b"0123")
    full_disk[0] = True
    with pytest.raises(StagingFull):
        await mount.write(descriptor, b"4567", 4)
    await mount.set("f", descriptor, size_bytes=2)
    full_disk[0] = False
    await mount.close(descriptor)
    assert data(store, "f") == b"01"


async def test_a_conflict_found_by_a_retry_is_listed_and_gives_its_descriptor_back(mount, store):
    await failed_put(mount, store, content=b"ours")
    store.put("f", b"theirs")
    await until(lambda: mount.writers.files() == [])
    (pending,) = mount.writers.pending()
    assert (pending.path, pending.state) == ("f", "conflict")
    assert data(store, "f") == b"theirs"


async def test_an_open_that_meets_our_own_publication_sees_the_file(mount, store):
    """S3 is asked for the version before, and answers when we have replaced it."""
    store.put("f", b"before")
    first = await mount.open("f", UPDATE)
    store.script("confirm", Fault(hold=(hold := Hold())))
    async with trio.open_nursery() as nursery:

        async def second():
            descriptor = await mount.open("f", UPDATE)
            await mount.write(descriptor, b"second", 0)
            await mount.close(descriptor)

        nursery.start_soon(second)
        await hold.reached()
        await mount.write(first, b"first!", 0)
        await mount.flush(first)
        hold.let_go()
    assert await mount.get("f") == b"second"
    await mount.release(first)
    assert data(store, "f") == b"second"
    assert await mount.get("f") == b"second"
