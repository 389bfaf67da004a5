"""How doubtful answers are resolved, and what that costs."""

import json

import pytest
import trio
import trio.testing

from stsfs.errors import AccessDenied, StagingFull, StoreFailure, WriteConflict
from stsfs.staging.record import Record
from stsfs.staging.room import Room
from stsfs.writer.recovery import publish_left
from tests.fakes import MemoryStore, pattern
from tests.faults import Fault, Hold
from tests.writer_stage import closed, on_stage, small_parts

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


@pytest.mark.parametrize("size", [10, 10 * PART])
async def test_what_a_lost_answer_has_made_is_not_made_again(staging, store, size):
    method = "put" if size < PART else "complete_upload"
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", pattern("old", size)))
        await file.write(0, b"abc")
        store.script(method, Fault(StoreFailure("503"), happened=True))
        with pytest.raises(StoreFailure):
            await file.publish()
        etag = store.objects["base/a"].etag
        assert await closed(file)
        assert store.objects["base/a"].etag == etag
        assert store.calls[method] == 2
        assert stage.data() == b"abc" + pattern("old", size)[3:]


@pytest.mark.parametrize("goes_on", [False, True])
async def test_an_object_made_by_an_upload_that_was_given_up_is_recognised(staging, store, goes_on):
    old = pattern("old", 20 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", old))
        await file.write(0, b"abc")
        store.script("complete_upload", Fault(AccessDenied("no"), happened=True))
        with pytest.raises(AccessDenied):
            await file.publish()
        assert store.writer.uploads == {}
        if goes_on:
            await file.write(0, b"ABC")
        await file.publish()
        assert stage.data() == (b"ABC" if goes_on else b"abc") + old[3:]
        assert store.calls["complete_upload"] == (2 if goes_on else 1)
        assert await closed(file)


async def test_nothing_is_asked_about_what_was_answered(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        await file.publish()
        async with file.held() as version:
            assert version.etag == store.objects["base/a"].etag
        assert await closed(file)
        assert store.calls["written"] == 0


async def test_a_file_that_goes_in_parts_is_on_record_as_whole_before_the_first(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", pattern("old", 2 * PART)))
        await file.write(0, b"abc")
        store.script("begin_upload", Fault(hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            record = record_of(stage)
            assert (record.state, record.size_bytes) == ("closed", 2 * PART)
            hold.let_go()
        assert await closed(file)


async def test_the_failure_of_older_bytes_is_not_that_of_newer_ones(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        store.script("put", Fault(StoreFailure("503"), hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            nursery.cancel_scope.cancel()
        await file.write(0, b"ABC")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await trio.testing.wait_all_tasks_blocked(0.001)
            hold.let_go()
        assert stage.data() == b"ABC"


async def test_what_is_stored_beside_the_base_is_asked_for_once(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", b"0123456789"))
        await file.write(0, b"abc")
        store.script("put", Fault(StoreFailure("503")))
        with pytest.raises(StoreFailure):
            await file.publish()
        assert await closed(file)
        assert store.calls["traits"] == 1


async def test_nothing_is_sent_when_the_base_is_seen_to_be_another_clients(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", b"abc"))
        await file.write(0, b"XYZ")
        store.put("base/a", b"theirs")
        with pytest.raises(WriteConflict):
            await file.publish()
        assert store.calls["put"] == store.calls["create_upload"] == 0
        assert stage.data() == b"theirs"


async def test_two_lost_answers_one_after_the_other_are_no_conflict(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        store.script("put", Fault(StoreFailure("503"), happened=True))
        with pytest.raises(StoreFailure):
            await file.publish()
        await file.write(0, b"ABC")
        store.script("put", None, Fault(StoreFailure("503"), happened=True))
        with pytest.raises(StoreFailure):
            await file.publish()
        assert stage.data() == b"ABC"
        assert await closed(file)
        assert stage.data() == b"ABC"
        assert file.error is None


async def test_what_a_process_has_left_in_doubt_is_asked_about_once(staging, store, autojump_clock):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        store.script("put", Fault(StoreFailure("503")))
        with pytest.raises(StoreFailure):
            await file.publish()
    async with on_stage(staging, store) as stage:
        (left,) = stage.staging.left_behind()
        store.script("put", Fault(StoreFailure("503")))
        with pytest.raises(StoreFailure):
            await publish_left(left, stage.writers)
        while stage.writers.files():
            await trio.sleep(1)
        assert stage.data() == b"abc"
        assert store.calls["written"] == 1


async def test_what_was_found_out_once_is_not_asked_again(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        store.script("put", Fault(StoreFailure("503"), happened=True))
        with pytest.raises(StoreFailure):
            await file.publish()
        await file.write(0, b"ABC")
        store.script("put", None, Fault(StoreFailure("503")))
        with pytest.raises(StoreFailure):
            await file.publish()
        assert store.calls["written"] == 2, "the newer one, and the older one, which S3 has"
        async with file.held() as version:
            assert version.etag == store.objects["base/a"].etag
        assert store.calls["written"] == 3
        assert await closed(file)
        assert stage.data() == b"ABC"


async def test_a_completion_that_the_process_did_not_live_to_see_is_recognised(staging, store):
    data = pattern("new", 10 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, data)
        store.script("complete_upload", Fault(happened=True, hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            record = record_of(stage)
            assert (record.state, bool(record.write_id)) == ("closed", True)
            nursery.cancel_scope.cancel()
    etag = store.objects["base/a"].etag
    async with on_stage(staging, store) as stage:
        (left,) = stage.staging.left_behind()
        await publish_left(left, stage.writers)
        assert store.objects["base/a"].etag == etag
        assert stage.left_on_disk() == []


async def test_a_write_that_fails_while_its_file_is_uploaded_keeps_the_object_from_being_made(
    staging, store, monkeypatch
):
    def full(room, count_bytes):
        raise StagingFull("The disk is full.")

    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", b"0123456789"))
        await file.write(0, b"abc")
        store.script("read_range", Fault(hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:

            async def publish():
                with pytest.raises(StagingFull):
                    await file.publish()

            nursery.start_soon(publish)
            await hold.reached()
            with monkeypatch.context() as patched:
                patched.setattr(Room, "take", full)
                with pytest.raises(StagingFull):
                    await file.write(3, b"def")
            hold.let_go()
        assert stage.data() == b"0123456789"
