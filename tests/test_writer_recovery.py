"""A process that dies while it writes: the object is old or new, and what was promised is there."""

import itertools
import json
import os
from unittest import mock

import pytest
import trio
import trio.testing

from stsfs.errors import StagingFailure, StoreFailure, WriteConflict
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.left import LeftBehind, what_is_left
from stsfs.writer.moves import Mover
from stsfs.writer.recovery import publish_left, recover_at_mount
from tests.fakes import Fault, MemoryStore, pattern
from tests.writer_stage import LOCATION, closed, on_stage, released, small_parts

PART = 16


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """An ObjectWriter whose process dies at one request: before it, or before its answer."""

    def __init__(self, writer, number, *, happened):
        self._writer, self._number, self._happened = writer, number, happened
        self.count = 0

    def __getattr__(self, method):
        call = getattr(self._writer, method)

        async def mortal(*args, **options):
            self.count += 1
            dies = self.count == self._number
            if dies and not self._happened:
                raise Killed
            result = await call(*args, **options)
            if dies:
                raise Killed
            return result

        return mortal


@pytest.fixture
def store():
    store = MemoryStore()
    with small_parts(store, part_bytes=PART):
        yield store


@pytest.fixture
def staging(tmp_path):
    return tmp_path / "staging"


async def recovered(path, store):
    """The next mount, until all that is left is published."""
    async with on_stage(path, store) as stage:
        mover = Mover(LOCATION, store, store.writer, stage.staging)
        recovery = await recover_at_mount(stage.writers, mover)
        while (
            stage.writers.tasks._nursery.child_tasks
            and len(stage.writers.tasks._nursery.child_tasks) > 1
        ):  # beside the one that tries again
            await trio.sleep(0.001)
        return recovery, stage.staging.left_behind()


async def lived(path, store, number, *, happened, history):
    """A process with this history that dies at a request; whether it did so."""
    mortal = Mortal(store.writer, number, happened=happened)
    try:
        async with on_stage(path, store) as stage:
            stage.writers._wire.writer = mortal
            await history(stage)
    except BaseExceptionGroup as group:
        if group.subgroup(Killed) is None:
            raise
        return True
    return False


OLD, NEW = pattern("old", 12 * PART), bytearray(pattern("old", 12 * PART) + b"tail")
NEW[5 * PART : 5 * PART + 3] = b"new"


async def over_small(stage):
    file = stage.over(stage.store.put("base/a", b"0123456789"))
    await file.write(3, b"XYZ")
    await closed(file)


async def over_large(stage):
    file = stage.over(stage.store.put("base/a", OLD))
    await file.write(5 * PART, b"new")
    await file.write(file.size_bytes, b"tail")
    await closed(file)


async def new_large(stage):
    file = stage.new()
    for start in range(0, len(NEW), 9):
        await file.write(start, NEW[start : start + 9])
        await trio.sleep(0)
    await trio.sleep(0.002)
    await closed(file)


@pytest.mark.parametrize("happened", [False, True])
@pytest.mark.parametrize(
    ("history", "old", "new"),
    [
        (over_small, b"0123456789", b"012XYZ6789"),
        (over_large, OLD, bytes(NEW)),
        (new_large, None, bytes(NEW)),
    ],
)
async def test_a_kill_at_any_request_leaves_old_or_new_and_recovery_makes_it_new_or_lists_it(
    tmp_path, history, old, new, happened
):
    for number in itertools.count(1):
        store, path = MemoryStore(), tmp_path / str(number)
        with small_parts(store, part_bytes=PART):
            died = await lived(path, store, number, happened=happened, history=history)
            found = store.objects.get("base/a")
            assert (found and found.data) in (old, new)
            if not died:
                break
            recovery, left = await recovered(path, store)
            found = store.objects.get("base/a")
            if found is None or found.data != new:
                # Killed while it was open: nothing was promised, and it is listed if it was noted.
                assert not recovery.uploading
                assert (found and found.data) == old
            else:
                assert left == []
            assert store.writer.uploads == {} or happened
    assert number > 2


async def test_what_was_closed_when_the_process_died_is_published_with_its_condition(
    staging, store
):
    base = store.put("base/a", b"0123456789")

    async def history(stage):
        file = stage.over(base)
        await file.write(0, b"abc")
        await closed(file)

    assert await lived(staging, store, 2, happened=False, history=history)
    recovery, left = await recovered(staging, store)
    assert recovery.uploading == ["base/a"]
    assert store.objects["base/a"].data == b"abc3456789"
    assert left == []


async def test_another_clients_object_since_then_stays_and_ours_is_listed(staging, store):
    base = store.put("base/a", b"0123456789")

    async def history(stage):
        file = stage.over(base)
        await file.write(0, b"abc")
        await closed(file)

    assert await lived(staging, store, 2, happened=False, history=history)
    store.put("base/a", b"theirs")
    async with on_stage(staging, store) as stage:
        await recover_at_mount(stage.writers, Mover(LOCATION, store, store.writer, stage.staging))
        while not stage.writers.pending() or stage.writers.files():
            await trio.sleep(0.002)
        assert [each.state for each in stage.writers.pending()] == ["conflict"]
    assert store.objects["base/a"].data == b"theirs"
    recovery, _ = await recovered(staging, store)
    assert recovery.listed == ["base/a"]
    assert recovery.uploading == []


async def test_what_was_published_before_the_process_died_is_no_conflict(staging, store):
    async def history(stage):
        file = stage.new()
        await file.write(0, b"abc")
        await closed(file)

    assert await lived(staging, store, 1, happened=True, history=history)
    before = store.calls["put"]
    _, left = await recovered(staging, store)
    assert left == []
    assert store.calls["put"] == before


async def test_what_fsync_has_accepted_is_listed_with_all_its_bytes(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", b"0123456789"))
        await file.write(2, b"abc")
        await file.keep()
    async with on_stage(staging, store) as stage:
        recovery = await recover_at_mount(
            stage.writers, Mover(LOCATION, store, store.writer, stage.staging)
        )
        assert recovery.listed == ["base/a"]
        (left,) = stage.staging.left_behind(LOCATION.uri, LOCATION.endpoint_url)
        assert isinstance(left, LeftBehind)
        version = await publish_left(left, stage.writers)
        assert store.objects["base/a"].etag == version.etag
        assert store.objects["base/a"].data == b"01abc56789"
        assert stage.staging.left_behind() == []


async def test_bytes_that_fsync_has_accepted_are_not_lost_in_an_older_publication(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"first")
        await file.publish()
        await file.write(0, b"FIRST")
        await file.keep()
    async with on_stage(staging, store) as stage:
        (left,) = stage.staging.left_behind()
        await publish_left(left, stage.writers)
        assert store.objects["base/a"].data == b"FIRST"


async def test_a_conflict_is_published_by_force_only(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", b"0123456789"), truncate=True)
        await file.write(0, b"ours")
        store.put("base/a", b"theirs")
        with pytest.raises(WriteConflict):
            await file.publish()
        await released(file)
    for force, expected in ((False, b"theirs"), (True, b"ours")):
        async with on_stage(staging, store) as stage:
            (left,) = stage.staging.left_behind()
            if force:
                await publish_left(left, stage.writers, force=True)
            else:
                with pytest.raises(WriteConflict):
                    await publish_left(left, stage.writers)
            assert store.objects["base/a"].data == expected


async def test_a_renamed_file_is_recovered_under_its_new_name(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        await file.keep()
        async with file.held():
            await file.rename("base/b", "b", None)
    async with on_stage(staging, store) as stage:
        (left,) = stage.staging.left_behind()
        assert (left.record.key, left.record.path) == ("base/b", "b")


async def test_an_unlinked_file_is_not_recovered(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        await file.keep()
        async with file.removing():
            pass
        await file.write(3, b"more")
        await file.keep()
    async with on_stage(staging, store) as stage:
        assert stage.staging.left_behind() == []


async def test_a_file_that_was_cut_off_after_fsync_is_not_recovered_longer(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"0123456789")
        await file.keep()
        await file.truncate(3)
    async with on_stage(staging, store) as stage:
        (left,) = stage.staging.left_behind()
        assert left.record.size_bytes == 3
        await publish_left(left, stage.writers)
        assert store.objects["base/a"].data == b"012"


async def test_what_cannot_be_published_again_waits_and_is_tried_again(
    staging, store, autojump_clock
):
    async def history(stage):
        file = stage.new()
        await file.write(0, b"abc")
        await closed(file)

    assert await lived(staging, store, 1, happened=False, history=history)
    async with on_stage(staging, store) as stage:
        store.script("put", Fault(StoreFailure("503")), Fault(StoreFailure("503")))
        told = []

        async def arrived(key):
            told.append(key)

        mover = Mover(LOCATION, store, store.writer, stage.staging)
        await recover_at_mount(stage.writers, mover, arrived)
        while not told:
            await trio.sleep(1)
        assert told == ["base/a"]
        assert store.objects["base/a"].data == b"abc"


async def test_an_upload_that_was_under_way_is_given_up(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        for start in range(0, len(NEW), 9):
            await file.write(start, NEW[start : start + 9])
        while not store.writer.uploads:
            await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked(0.02)
    assert len(store.writer.uploads) == 1
    await recovered(staging, store)
    assert store.writer.uploads == {}


async def test_the_record_of_a_file_that_is_cut_off_names_no_bytes_behind_its_end(tmp_path):
    """Bytes that only an upload had are among those: such a record could not be read."""
    store = MemoryStore()
    with (
        small_parts(store, part_bytes=16),
        mock.patch.object(StagingDirectory, "is_short_of_room", return_value=True),
    ):
        async with on_stage(tmp_path / "staging", store) as stage:
            file = stage.new()
            for number in range(8):
                await file.write(16 * number, bytes([number + 1]) * 16)
            while not file.has_parked:
                await trio.testing.wait_all_tasks_blocked()  # and threads may still be at work
            await file.keep()
            (left,) = what_is_left(stage.path)
            assert left.record.parked
            await file.truncate(0)
            (left,) = what_is_left(stage.path)
            assert (left.trouble, left.record.size_bytes, left.record.parked) == ("", 0, ())
            await file.close()


async def test_no_mount_replaces_whatever_is_at_a_key_because_a_record_says_so(staging, store):
    store.script("put", Fault(StoreFailure("503")))
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"written")
        with pytest.raises(StoreFailure):
            await file.publish()
    (path,) = (path for path in staging.glob("*/*/*.json") if path.name != "owner.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"expected": None, "write_id": ""}))
    store.put("base/a", b"theirs")
    recovery, _ = await recovered(staging, store)
    assert (recovery.uploading, recovery.listed) == ([], ["base/a"])
    assert store.objects["base/a"].data == b"theirs"


async def test_a_file_of_which_bytes_are_gone_is_not_published_by_the_next_mount(staging, store):
    store.script("put", Fault(StoreFailure("503")))
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(0, b"written")
        with pytest.raises(StoreFailure):
            await file.publish()
    (data,) = staging.glob("*/*/*.data")
    os.truncate(data, 3)
    recovery, left = await recovered(staging, store)
    assert (recovery.uploading, recovery.listed) == ([], ["base/a"])
    assert store.objects == {}
    assert [each.record.path for each in left] == ["base/a"]


@pytest.mark.parametrize("size", [10, 5 * PART])
async def test_bytes_that_vanish_from_the_disk_are_never_sent_as_zeros(staging, store, size):
    async with on_stage(staging, store) as stage:
        store.script("begin_upload", Fault(StoreFailure("503")))  # nothing goes ahead
        file = stage.new()
        await file.write(0, pattern(1, size))
        (data,) = staging.glob("*/*/*.data")
        os.truncate(data, size - 1)
        with pytest.raises(StagingFailure, match="not in the staging file any more"):
            await file.publish()
        with pytest.raises(StagingFailure):
            await file.read(0, size)
        assert store.objects == {}
