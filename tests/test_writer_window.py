"""A staging disk that is smaller than what is written through it."""

import json

import pytest
import trio
import trio.testing

from stsfs.errors import AccessDenied, StagingFull, StoreFailure
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.file import StagingFile
from stsfs.staging.record import Record
from stsfs.staging.spans import Spans
from stsfs.writer.recovery import publish_left
from tests.fakes import MemoryStore, pattern
from tests.faults import Fault, Hold
from tests.writer_stage import closed, on_stage, small_parts

PART = 16
DATA = pattern("window", 10 * PART)


@pytest.fixture
def store():
    store = MemoryStore()
    with small_parts(store, part_bytes=PART, step_parts=1000):
        yield store


@pytest.fixture
def staging(tmp_path):
    return tmp_path / "staging"


@pytest.fixture
def short_disk(monkeypatch):
    """The disk is short of room, what S3 has leaves it: a list with one flag."""
    is_short = [True]
    monkeypatch.setattr(StagingDirectory, "is_short_of_room", lambda self: is_short[0])
    return is_short


class SmallDisk:
    """Counts what lies on it, and takes no more than its size."""

    def __init__(self, monkeypatch, size_bytes):
        self.used, self.most_bytes = Spans(), 0
        write, punch = StagingFile.write, StagingFile.punch

        def limited(file, offset, data):
            after = self.used.copy()
            after.add(offset, offset + len(data))
            total_bytes = sum(stop - start for start, stop in after)
            if total_bytes > size_bytes:
                raise StagingFull("The disk is full.")
            self.used, self.most_bytes = after, max(self.most_bytes, total_bytes)
            write(file, offset, data)

        def freed(file, start, stop):
            self.used.remove(start, stop)
            return punch(file, start, stop)

        monkeypatch.setattr(StagingFile, "write", limited)
        monkeypatch.setattr(StagingFile, "punch", freed)


@pytest.fixture
def disk(monkeypatch):
    return SmallDisk(monkeypatch, 6 * PART)


def on_disk(stage):
    """What the data file and the record have, as another process would find them."""
    (data,) = stage.staging.path.glob("*.data")
    (text,) = (path for path in stage.staging.path.glob("*.json") if path.name != "owner.json")
    return data.read_bytes(), Record.from_json(json.loads(text.read_bytes()))


async def streamed(stage, data=DATA):
    """A new file of which every part has gone ahead."""
    file = stage.new()
    for start in range(0, len(data), PART):
        await file.write(start, data[start : start + PART])
    await parts_sent(file, len(data) // PART)
    return file


async def parts_sent(file, count):
    """S3 has so many parts, and what is done about the disk is done."""
    while file.sent_bytes < count * PART or file._sender.is_streaming:
        await trio.testing.wait_all_tasks_blocked(0.001)


async def test_parts_that_s3_has_leave_a_short_disk_but_for_the_first(staging, store, short_disk):
    async with on_stage(staging, store) as stage:
        short_disk[0] = False
        file = await streamed(stage, DATA[: 9 * PART])
        short_disk[0] = True
        await file.write(9 * PART, DATA[9 * PART :])
        await parts_sent(file, 10)
        data, record = on_disk(stage)
        assert data == DATA[:PART] + bytes(9 * PART)
        assert record.parked == ((PART, 10 * PART),)
        assert record.present == ((0, PART),)
        assert [part.number for part in record.parts] == list(range(2, 11))
        assert (record.state, [record.upload_id]) == ("writing", list(store.writer.uploads))
        assert await closed(file)
        assert stage.data() == DATA
        assert store.calls["upload_part"] == 10


async def test_a_disk_with_room_keeps_all_that_was_written(staging, store):
    async with on_stage(staging, store) as stage:
        file = await streamed(stage)
        data, record = on_disk(stage)
        assert (data, record.parked) == (DATA, ())
        assert await closed(file)


async def test_the_first_part_goes_where_it_is_the_only_one(
    staging, store, short_disk, monkeypatch
):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        upload_part, go_on = store.writer.upload_part, trio.Event()

        async def second_waits(key, upload_id, number, body):
            if number == 2:
                await go_on.wait()
            return await upload_part(key, upload_id, number, body)

        monkeypatch.setattr(store.writer, "upload_part", second_waits)
        await file.write(0, DATA[: 2 * PART])
        while not file.has_parked:
            await trio.testing.wait_all_tasks_blocked(0.001)
        for _ in range(5):
            await trio.testing.wait_all_tasks_blocked(0.001)
        data, record = on_disk(stage)
        assert data == bytes(PART) + DATA[PART : 2 * PART]
        assert record.parked == ((0, PART),)
        go_on.set()
        assert await closed(file)
        assert stage.data() == DATA[: 2 * PART]


async def test_bytes_that_left_the_disk_are_read_and_changed_again(staging, store, short_disk):
    async with on_stage(staging, store) as stage:
        file = await streamed(stage)
        assert bytes(await file.read(3 * PART, 5)) == DATA[3 * PART : 3 * PART + 5]
        file = file if not file.closed else stage.over(file.version)
        await file.write(5 * PART, b"XYZ")
        assert await closed(file)
        assert stage.data() == DATA[: 5 * PART] + b"XYZ" + DATA[5 * PART + 3 :]


async def test_bytes_that_only_an_upload_had_when_the_process_died_are_recovered(
    staging, store, short_disk
):
    async with on_stage(staging, store) as stage:
        file = await streamed(stage)
        await file.write(10 * PART, b"more")
        await file.keep()
        assert file.has_parked
    sent_bytes = store.writer.sent_bytes
    async with on_stage(staging, store) as stage:
        (left,) = stage.staging.left_behind()
        await publish_left(left, stage.writers)
        assert stage.data() == DATA + b"more"
        assert store.writer.sent_bytes < sent_bytes + 2 * PART
        assert stage.left_on_disk() == []


async def test_an_upload_with_the_only_copy_goes_on_after_a_completion_that_failed(
    staging, store, short_disk
):
    async with on_stage(staging, store) as stage:
        file = await streamed(stage)
        store.script("complete_upload", Fault(StoreFailure("503")))
        with pytest.raises(StoreFailure):
            await file.publish()
        assert file.has_parked
        await file.write(10 * PART, b"more")
        assert await closed(file)
        assert stage.data() == DATA + b"more"
        assert store.calls["begin_upload"] == 1


async def test_fetched_bytes_of_the_base_leave_the_disk_and_not_while_they_are_sent(
    staging, store, short_disk
):
    async with on_stage(staging, store) as stage:
        store.writer.refuses_part_copies = True
        file = stage.over(store.put("base/a", DATA))
        await file.write(file.size_bytes, b"more")
        delays = [Fault(delay_s=0.001 * (number % 3)) for number in range(11)]
        store.script("upload_part", *delays)
        store.script("complete_upload", Fault(StoreFailure("503")))
        with pytest.raises(StoreFailure):
            await file.publish()
        data, record = on_disk(stage)
        assert data == bytes(len(DATA)) + b"more"
        assert record.present == ((len(DATA), len(DATA) + 4),)
        assert await closed(file)
        assert stage.data() == DATA + b"more"


async def test_a_record_never_calls_a_hole_present(staging, store, short_disk, monkeypatch):
    upload_part, go_on, arrived = store.writer.upload_part, trio.Event(), []

    async def one_at_a_time(*args):
        arrived.append(args)
        if short_disk[0] and len(arrived) > 1:
            await go_on.wait()
        return await upload_part(*args)

    monkeypatch.setattr(store.writer, "upload_part", one_at_a_time)
    old = bytearray(pattern("old", 20 * PART))
    async with on_stage(staging, store) as stage:
        short_disk[0] = False
        file = stage.over(store.put("base/a", old))
        for at in (3, 12 * PART + 3):
            await file.write(at, b"X")
            old[at] = ord("X")
        store.script("complete_upload", Fault(StoreFailure("503")))
        with pytest.raises(StoreFailure):
            await file.publish()
        assert file._content.unchanged_present(), "what the parts needed of the base"
        short_disk[0] = True
        arrived.clear()
        for at in (3, 12 * PART + 3):
            await file.write(at, b"Y")
            old[at] = ord("Y")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            while not file._window.freed_bytes:
                await trio.testing.wait_all_tasks_blocked(0.001)
            data, record = on_disk(stage)
            assert data != old
            assert record.state == "closed"
            for start, stop in record.present:
                assert data[start:stop] == old[start:stop]
            go_on.set()
        assert await closed(file)
        assert stage.data() == old


async def test_a_disk_without_holes_keeps_all_and_is_not_asked_again(
    staging, store, short_disk, monkeypatch
):
    asked = []
    monkeypatch.setattr(StagingFile, "punch", lambda self, *span: asked.append(span))
    async with on_stage(staging, store) as stage:
        file = await streamed(stage)
        assert asked
        asked.clear()
        assert bytes(await file.read(0, 20 * PART)) == DATA
        assert store.calls["complete_upload"] == 0
        await file.write(10 * PART, DATA[:PART])
        await parts_sent(file, 11)
        assert asked == []
        assert await closed(file)
        assert stage.data() == DATA + DATA[:PART]


async def test_bytes_stay_on_the_disk_where_the_record_cannot_say_that_they_left(
    staging, store, short_disk, monkeypatch
):
    keep = StagingFile.keep

    def limited(self, record, *, durable=False):
        if record.parked:
            raise StagingFull("The disk is full.")
        keep(self, record, durable=durable)

    monkeypatch.setattr(StagingFile, "keep", limited)
    async with on_stage(staging, store) as stage:
        file = await streamed(stage)
        data, record = on_disk(stage)
        assert (data, record.parked) == (DATA, ())
        assert bytes(await file.read(0, 20 * PART)) == DATA
        assert store.calls["complete_upload"] == 0
        assert await closed(file)
        assert stage.data() == DATA


async def test_a_stream_is_written_through_a_disk_that_is_smaller(staging, store, disk):
    data = pattern("through", 40 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        for start in range(0, len(data), 10):
            await file.write(start, data[start : start + 10])
        assert await closed(file)
        assert stage.data() == data
        assert disk.most_bytes <= 6 * PART
        assert store.calls["upload_part"] == 40


async def test_a_write_into_a_full_disk_waits_for_the_part_that_is_on_its_way(staging, store, disk):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        store.script("upload_part", *[Fault(hold=(hold := Hold()))] * 6)
        await file.write(0, DATA[: 6 * PART])
        await hold.reached()
        taken = trio.Event()

        async def write():
            await file.write(6 * PART, DATA[6 * PART : 7 * PART])
            taken.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not taken.is_set()
            hold.let_go()
        assert await closed(file)
        assert stage.data() == DATA[: 7 * PART]


async def test_parts_that_could_not_go_ahead_are_tried_again_where_the_disk_is_full(
    staging, store, disk
):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        store.script("upload_part", Fault(StoreFailure("503")))
        for start in range(0, len(DATA), PART):
            await file.write(start, DATA[start : start + PART])
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert await closed(file)
        assert stage.data() == DATA


async def test_who_writes_where_no_part_is_complete_is_told_that_the_disk_is_full(
    staging, store, disk
):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await file.write(PART, DATA[: 6 * PART])
        with pytest.raises(StagingFull):
            await file.write(7 * PART, b"x")
        assert store.calls["begin_upload"] == 0


async def test_who_writes_while_s3_takes_no_part_is_told_that_the_disk_is_full(
    staging, store, disk
):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        store.script("begin_upload", *[Fault(AccessDenied("no"))] * 10)
        await file.write(0, DATA[: 6 * PART])
        with pytest.raises(StagingFull):
            await file.write(6 * PART, b"x")
        assert store.calls["begin_upload"] == 2, "once ahead, and once more for room"
