"""The owner of a file that is written: what its record says, and what it does after a failure."""

import json

import pytest
import trio
import trio.testing

from stsfs.errors import AccessDenied, StagingFull, StoreFailure, WriteConflict
from stsfs.staging.record import Record
from stsfs.staging.room import Room
from stsfs.store.object_store import Expected, ObjectVersion
from stsfs.writer.dirty_state import DirtyState
from tests.fakes import MemoryStore, pattern
from tests.faults import Fault, Hold
from tests.writer_stage import closed, let_go_when_blocked, on_stage, released, small_parts

PART = 16


@pytest.fixture
def store():
    store = MemoryStore()
    with small_parts(store, part_bytes=PART):
        yield store


@pytest.fixture
def staging(tmp_path):
    return tmp_path / "staging"


def record_of(stage):
    """The only record on the local disk, as another process would find it."""
    (path,) = (path for path in stage.staging.path.glob("*.json") if path.name != "owner.json")
    return Record.from_json(json.loads(path.read_bytes()))


async def streamed(stage, parts=10):
    """A new file of which every part has gone ahead."""
    file = stage.new()
    for start in range(0, parts * PART, PART):
        await file.write(start, pattern(start, PART))
    while file.sent_bytes < parts * PART:
        await trio.testing.wait_all_tasks_blocked(0.001)
    return file


async def test_what_fsync_keeps_of_an_open_file_is_no_conflict(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        await file.keep()
        assert record_of(stage).state == "writing"


async def test_bytes_written_during_an_upload_are_kept_over_what_it_made(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", b"0123456789"))
        await file.write(0, b"abc")
        store.script("put", Fault(hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            await file.write(0, b"ABC")
            await file.keep()
            hold.let_go()
        assert file.dirty
        record = record_of(stage)
        assert record.state == "writing"
        assert record.expected == Expected(store.objects["base/a"].etag)


async def test_an_unlinked_file_leaves_no_record_when_it_is_cut_off(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"0123456789")
        await file.keep()
        async with file.removing():
            pass
        await file.truncate(3)
        await file.keep()
        assert bytes(await file.read(0, 10)) == b"012"
        assert stage.left_on_disk() == []


async def test_the_record_of_a_failed_file_names_the_upload_that_goes_on(staging, store):
    async with on_stage(staging, store) as stage:
        file = await streamed(stage)
        (upload_id,) = store.writer.uploads
        store.script("complete_upload", Fault(StoreFailure("503")))
        with pytest.raises(StoreFailure):
            await file.publish()
        record = record_of(stage)
        assert (record.state, record.upload_id) == ("failed", upload_id)


async def test_a_file_that_moved_gives_up_the_upload_at_its_old_place(staging, store):
    async with on_stage(staging, store) as stage:
        file = await streamed(stage)
        await file.publish()
        for start in range(0, 10 * PART, PART):
            await file.write(start, b"x" * PART)
        await file.truncate(0)
        for start in range(0, 10 * PART, PART):
            await file.write(start, b"y" * PART)
        while not store.writer.uploads:
            await trio.testing.wait_all_tasks_blocked(0.001)
        moved = store.put("base/b", store.objects["base/a"].data)
        async with file.held():
            await file.follow(ObjectVersion(1, "base/b", moved.etag, moved.size_bytes), "b")
        while store.writer.uploads:
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert await closed(file)
        assert stage.data("base/b") == b"y" * (10 * PART)


async def test_a_failed_removal_publishes_nothing_of_what_is_still_written(
    staging, store, autojump_clock
):
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", b"0123456789"))
        await file.write(0, b"ab")
        with pytest.raises(StoreFailure):
            async with file.removing():
                raise StoreFailure("503")
        assert file.state is DirtyState.WRITING
        await trio.sleep(1000)
        assert stage.calls["put"] == 0
        assert await closed(file)
        assert stage.data() == b"ab23456789"


async def test_a_failed_removal_leaves_what_could_not_be_published_to_the_next_try(
    staging, store, autojump_clock
):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        store.script("put", Fault(AccessDenied("may not write")))
        with pytest.raises(AccessDenied):
            await file.publish()
        with pytest.raises(StoreFailure):
            async with file.removing():
                raise StoreFailure("503")
        assert file.state is DirtyState.FAILED
        while file.dirty:
            await trio.sleep(1)
        assert stage.data() == b"abc"


async def test_bytes_written_after_a_conflict_are_kept_by_the_next_flush(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", b"0123456789"))
        await file.write(0, b"abc")
        store.put("base/a", b"theirs")
        with pytest.raises(WriteConflict):
            await file.publish()
        await file.write(10, b"more")
        with pytest.raises(WriteConflict):
            await file.publish()
        record = record_of(stage)
        assert (record.state, record.size_bytes) == ("conflict", 14)
        assert bytes(await file.read(10, 10)) == b"more"


async def test_a_success_in_between_makes_the_next_pause_a_first_one(staging, store, mock_clock):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        for number in range(2):
            await file.write(0, b"%d" % number)
            store.script("put", Fault(StoreFailure("503")))
            with pytest.raises(StoreFailure):
                await file.publish()
            if number == 0:
                await file.publish()
        mock_clock.jump(7)  # a second pause is longer
        for _ in range(1000):
            if not file.dirty:
                break
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert stage.data() == b"1"
        assert await released(file)


async def test_what_a_process_has_left_counts_as_failed_until_it_is_tried(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        await file.keep()
    async with on_stage(staging, store) as stage:
        (left,) = stage.staging.left_behind()
        file = stage.writers.adopt(left.record, stage.staging.adopt(left))
        assert file.state is DirtyState.FAILED
        assert [each.state for each in stage.writers.pending()] == ["failed"]
        await file.retry()
        assert file.closed
        assert stage.data() == b"abc"


async def test_a_file_whose_bytes_are_incomplete_says_so_after_its_close(
    staging, store, monkeypatch
):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        with monkeypatch.context() as full:
            full.setattr(Room, "take", _full)
            with pytest.raises(StagingFull):
                await file.write(3, b"def")
        assert not await released(file)
        assert isinstance(file.error, StagingFull)
        (pending,) = stage.writers.pending()
        assert "full" in pending.reason


def _full(room, count_bytes):
    raise StagingFull("The disk is full.")


async def test_a_rename_waits_for_an_upload_whose_caller_has_gone(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        store.script("put", Fault(hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(let_go_when_blocked, hold)
            async with file.held() as version:
                assert version is not None
                assert version.etag == store.objects["base/a"].etag
                assert file.state is DirtyState.CLEAN


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_hold_finds_out_what_a_lost_answer_said(staging, store, goes_on):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        store.script("put", Fault(StoreFailure("503"), happened=True))
        with pytest.raises(StoreFailure):
            await file.publish()
        if goes_on:
            await file.write(0, b"ABC")
        async with file.held() as version:
            assert version.etag == store.objects["base/a"].etag
        assert file.state is (DirtyState.WRITING if goes_on else DirtyState.CLEAN)
        assert file.dirty is goes_on


async def test_a_removal_goes_on_when_a_lost_answer_was_a_success(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        store.script("put", Fault(StoreFailure("503"), happened=True))
        with pytest.raises(StoreFailure):
            await file.publish()
        async with file.removing() as version:
            assert file.state is DirtyState.REMOVING
            await store.writer.delete(version.key)
        assert file.state is DirtyState.UNLINKED
        assert await released(file)
        assert stage.left_on_disk() == []


async def test_a_conflict_ends_when_its_upload_was_given_up(staging, store):
    async with on_stage(staging, store) as stage:
        file = await streamed(stage)
        store.put("base/a", b"theirs")
        store.script("abort_upload", Fault(hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(released, file)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not file.closed
            hold.let_go()
        assert file.closed
        assert record_of(stage).state == "conflict"


async def test_what_is_kept_already_is_not_written_again(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        await file.keep()
        before = record_of(stage)
        with trio.testing.assert_checkpoints():
            await file.keep()
        assert record_of(stage) == before
        await file.write(0, b"A")
        await file.keep()
        assert record_of(stage) != before


async def test_no_parts_go_ahead_while_the_object_is_being_made(staging, store):
    async with on_stage(staging, store) as stage:
        file = await streamed(stage)
        store.script("complete_upload", Fault(hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            before = store.calls["upload_part"]
            await file.write(10 * PART, b"x" * (2 * PART))
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert store.calls["upload_part"] == before
            hold.let_go()
        assert await closed(file)
        assert stage.data()[10 * PART :] == b"x" * (2 * PART)


async def test_a_removal_does_not_wait_for_the_parts_that_are_on_their_way(
    staging, store, monkeypatch
):
    upload_part, under_way, answered = store.writer.upload_part, trio.Event(), []
    go_on = trio.Event()

    async def waits(key, upload_id, number, body):
        under_way.set()
        await go_on.wait()
        answered.append(await upload_part(key, upload_id, number, body))
        return answered[-1]

    monkeypatch.setattr(store.writer, "upload_part", waits)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"x" * (10 * PART))
        await under_way.wait()
        async with trio.open_nursery() as nursery:

            async def let_go():
                await trio.testing.wait_all_tasks_blocked()
                go_on.set()

            nursery.start_soon(let_go)
            async with file.removing():
                pass
        assert answered == []
        await released(file)
