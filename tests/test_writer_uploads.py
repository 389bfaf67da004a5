"""Large files: parts that go ahead, parts that are copied inside S3, parts that became stale."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stsfs.errors import AccessDenied, StoreFailure, WriteConflict
from stsfs.writer.part_sizes import part_span
from stsfs.writer.sender import STALE_PARTS_MAX
from tests.fakes import MemoryStore, pattern
from tests.faults import Fault, Hold
from tests.writer_stage import MIB, closed, on_stage, released, small_parts

PART = 16


@pytest.fixture
def store():
    store = MemoryStore()
    with small_parts(store, part_bytes=PART):
        yield store


@pytest.fixture
def staging(tmp_path):
    return tmp_path / "staging"


def sent(store):
    return [method for method, _ in store.writer.changes]


async def quiet():
    """Return when background tasks have nothing to do; threads count as work."""
    threads = trio.to_thread.current_default_thread_limiter()
    for _ in range(5):
        await wait_all_tasks_blocked(0.01)
        while threads.borrowed_tokens:
            await wait_all_tasks_blocked(0.001)


async def written(file, data, piece_bytes=7, begin=0):
    for start in range(begin, len(data), piece_bytes):
        await file.write(start, data[start : start + piece_bytes])


async def test_a_stream_goes_ahead_in_parts_and_is_completed_at_the_close(staging, store):
    data = pattern(1, 5 * PART + 3)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, data)
        await quiet()
        assert sent(store) == ["begin_upload"] + ["upload_part"] * 5
        assert stage.left_on_disk() == [".data", ".json"]
        assert file.sent_bytes == 5 * PART
        assert await closed(file)
        assert sent(store)[6:] == ["upload_part", "complete_upload"]
        assert stage.data() == data
        assert stage.left_on_disk() == []


async def test_parts_grow_with_their_number(staging, store):
    data = pattern(2, 8 * PART + 3 * 2 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, data, 50)
        assert await closed(file)
        assert stage.data() == data
        assert sent(store).count("upload_part") == 8 + 3


async def test_a_part_that_was_written_to_again_is_sent_again(staging, store):
    data = bytearray(pattern(3, 6 * PART))
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, data)
        await quiet()
        data[3:5] = b"XY"
        await file.write(3, b"XY")
        assert await closed(file)
        assert stage.data() == data
        assert sent(store).count("upload_part") == 7


@pytest.mark.parametrize("size", [0, 3, 2 * PART, 2 * PART + 1, 3 * PART, 4 * PART - 1])
async def test_a_stream_that_is_cut_off_becomes_what_is_left(staging, store, size):
    data = pattern(4, 5 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, data)
        await quiet()
        await file.truncate(size)
        assert await closed(file)
        assert stage.data() == data[:size]
        assert store.writer.uploads == {}


async def test_a_stream_that_is_cut_off_and_goes_on_has_no_old_bytes(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, b"a" * 5 * PART)
        await quiet()
        await file.truncate(2 * PART + 3)
        await file.write(4 * PART, b"b" * PART)
        assert await closed(file)
        assert stage.data() == b"a" * (2 * PART + 3) + b"\0" * (2 * PART - 3) + b"b" * PART


async def test_who_writes_here_and_there_is_no_stream(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        for number in reversed(range(6)):
            await file.write(number * PART, b"x" * (PART - 1))
        await quiet()
        assert sent(store) == []
        assert await closed(file)
        assert len(stage.data()) == 6 * PART - 1


async def test_who_comes_back_again_and_again_sends_little_ahead(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, b"x" * 60 * PART, PART)
        await quiet()
        for number in range(30):
            await file.write(number * PART, b"y")
        before = sent(store).count("upload_part")
        await file.write(60 * PART, b"z" * 20 * PART)
        await quiet()
        assert sent(store).count("upload_part") == before
        assert await closed(file)
        assert stage.data() == (b"y" + b"x" * (PART - 1)) * 30 + b"x" * 30 * PART + b"z" * 20 * PART


@pytest.mark.parametrize(("rewritten", "goes_ahead"), [(16, True), (17, False)])
async def test_a_stream_with_many_parts_to_be_sent_again_goes_ahead_no_further(
    staging, store, rewritten, goes_ahead
):
    assert goes_ahead == (rewritten <= STALE_PARTS_MAX)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, b"x" * 60 * PART, PART)
        await quiet()
        for number in range(1, rewritten + 1):
            await file.write(part_span(number)[0], b"y")
        before = sent(store).count("upload_part")
        await file.write(60 * PART, b"z" * 20 * PART)
        await quiet()
        assert (sent(store).count("upload_part") > before) == goes_ahead


async def test_a_file_that_grows_beyond_one_request_while_its_base_is_fetched_goes_in_parts(
    staging, store
):
    async with on_stage(staging, store) as stage:
        base = pattern(21, 2 * PART - 4)
        file = stage.over(store.put("base/a", base))
        await file.write(0, b"X")
        store.script("read_range", Fault(hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            await file.write(2 * PART - 4, b"last")
            hold.let_go()
        assert stage.data() == b"X" + base[1:] + b"last"
        assert store.calls["put"] == 0


async def test_unchanged_bytes_of_a_large_object_are_copied_and_never_fetched(staging, store):
    data = bytearray(pattern(5, 20 * PART))
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", data))
        await file.write(7 * PART, b"changed" * 3)
        data[7 * PART : 7 * PART + 21] = b"changed" * 3
        assert await closed(file)
        assert stage.data() == data
        assert store.calls["read_range"] == 0
        assert store.calls["copy_part"] > 0
        assert store.writer.sent_bytes < 3 * PART


async def test_an_append_to_a_large_object_sends_the_appendix(staging, store):
    data = pattern(6, 20 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", data))
        await file.write(file.size_bytes, b"more")
        assert await closed(file)
        assert stage.data() == data + b"more"
        assert store.writer.sent_bytes == 4


async def test_a_large_file_that_goes_on_after_its_publication_copies_what_is_there(staging, store):
    data = pattern(7, 20 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, data, 100)
        await file.publish()
        before = store.writer.sent_bytes
        await file.write(file.size_bytes, b"more")
        assert await closed(file)
        assert stage.data() == data + b"more"
        assert store.writer.sent_bytes == before + 4


async def test_a_server_that_copies_no_parts_is_sent_them(staging, store):
    data = bytearray(pattern(21, 20 * PART))
    async with on_stage(staging, store) as stage:
        store.writer.refuses_part_copies = True
        for number in (3, 11):
            file = stage.over(store.put("base/a", data))
            await file.write(number * PART, b"changed")
            data[number * PART : number * PART + 7] = b"changed"
            assert await closed(file)
            assert stage.data() == data
        assert store.calls["copy_part"] <= 8, "asked once, not for every file"
        assert store.writer.uploads == {}
        assert stage.left_on_disk() == []


async def test_a_base_that_is_replaced_while_it_is_copied_is_a_conflict(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.over(store.put("base/a", pattern(8, 20 * PART)))
        await file.write(file.size_bytes, b"more")
        store.script("begin_upload", Fault(hold=(hold := Hold())))
        errors = []

        async def publish():
            with pytest.raises(WriteConflict):
                await file.publish()
            errors.append(file.error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            await hold.reached()
            theirs = store.put("base/a", b"theirs")
            hold.let_go()
        assert len(errors) == 1
        assert store.objects["base/a"].etag == theirs.etag
        assert store.writer.uploads == {}


async def test_an_upload_that_fails_goes_on_where_it_was(staging, store):
    data = pattern(9, 10 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, data)
        await quiet()
        store.script("complete_upload", Fault(StoreFailure("503")))
        with pytest.raises(StoreFailure):
            await file.publish()
        before = store.calls["upload_part"]
        assert await closed(file) is True
        assert stage.data() == data
        assert store.calls["upload_part"] == before
        assert store.calls["begin_upload"] == 1


async def test_a_completion_whose_answer_was_lost_is_found_out(staging, store):
    data = pattern(10, 10 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, data)
        store.script("complete_upload", Fault(StoreFailure("503"), happened=True))
        with pytest.raises(StoreFailure):
            await file.publish()
        assert await closed(file)
        assert stage.data() == data


@pytest.mark.parametrize("size", [10 * PART, 8 * PART, 5])
async def test_a_lost_completion_is_no_conflict_after_the_file_changed(staging, store, size):
    data = pattern(11, 10 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, data)
        store.script("complete_upload", Fault(StoreFailure("503"), happened=True))
        with pytest.raises(StoreFailure):
            await file.publish()
        if size == len(data):
            await file.write(0, b"XYZ")
            data = b"XYZ" + data[3:]
        else:
            await file.truncate(size)
        assert await closed(file)
        assert stage.data() == data[:size]
        assert store.writer.uploads == {}


async def test_an_upload_that_s3_has_forgotten_is_begun_again(staging, store):
    data = pattern(12, 10 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, data)
        await quiet()
        store.writer.uploads.clear()
        assert await closed(file)
        assert stage.data() == data


async def test_an_upload_that_fails_again_and_again_is_begun_again(staging, store, autojump_clock):
    data = pattern(12, 10 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, data)
        await quiet()
        store.script("complete_upload", *[Fault(StoreFailure("InvalidPart"))] * 3)
        with pytest.raises(StoreFailure):
            await file.publish()
        file.writable_handles = 0
        while not file.closed:
            await trio.sleep(1)
        assert stage.data() == data
        assert store.calls["begin_upload"] == 2
        assert store.writer.uploads == {}


async def test_what_is_denied_gives_the_upload_up(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, pattern(13, 10 * PART))
        await quiet()
        store.script("complete_upload", Fault(AccessDenied("no")))
        with pytest.raises(AccessDenied):
            await file.publish()
        assert store.writer.uploads == {}
        assert stage.left_on_disk() == [".data", ".json"]


async def test_a_stream_that_may_not_go_ahead_says_so_at_the_close(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        store.script("begin_upload", *[Fault(AccessDenied("no"))] * 2)
        await written(file, pattern(14, 10 * PART))
        await quiet()
        assert store.calls["begin_upload"] == 1
        with pytest.raises(AccessDenied):
            await file.publish()


async def test_an_unlinked_stream_is_given_up(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        store.script("upload_part", *[Fault(delay_s=0.05)] * 4)
        await written(file, pattern(15, 10 * PART))
        await trio.sleep(0.01)
        async with file.removing():
            pass
        await quiet()
        assert store.writer.uploads == {}
        assert stage.left_on_disk() == []
        await released(file)
        assert stage.data() is None


async def test_an_upload_that_cannot_be_given_up_is_tried_again(staging, store):
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, pattern(16, 10 * PART))
        await quiet()
        store.script("abort_upload", Fault(StoreFailure("503")))
        async with file.removing():
            pass
        await quiet()
        assert len(store.writer.uploads) == 1
        await released(file)
        await stage.writers.drain()
        assert store.writer.uploads == {}


async def test_a_renamed_stream_ends_under_its_new_name(staging, store):
    data = pattern(17, 10 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        await written(file, data)
        await quiet()
        async with file.held():
            await file.rename("base/b", "b", None)
        assert await closed(file)
        assert stage.data("base/b") == data
        assert stage.data("base/a") is None
        assert store.writer.uploads == {}


async def test_a_stream_that_is_renamed_while_a_part_is_on_its_way_goes_ahead_again(staging, store):
    data = pattern(20, 10 * PART)
    async with on_stage(staging, store) as stage:
        file = stage.new()
        store.script("upload_part", Fault(StoreFailure("NoSuchUpload"), hold=(hold := Hold())))
        await file.write(0, data[: 2 * PART])
        await hold.reached()
        async with file.held():
            await file.rename("base/b", "b", None)
        hold.let_go()
        await quiet()
        begun = store.calls["begin_upload"]
        await written(file, data, begin=2 * PART)
        await quiet()
        assert store.calls["begin_upload"] == begun + 1
        assert file.sent_bytes == 10 * PART
        assert await closed(file)
        assert stage.data("base/b") == data
        assert store.writer.uploads == {}


async def test_who_writes_all_the_time_does_not_keep_the_object_from_being_made(staging, store):
    states, is_made = set(), trio.Event()
    async with on_stage(staging, store) as stage:
        file = stage.new()
        now = bytearray(pattern(18, 10 * PART))
        await written(file, now)
        states.add(bytes(now))
        store.script("upload_part", *[Fault(delay_s=0.002)] * 60)
        async with trio.open_nursery() as nursery:

            async def write():
                for number in range(100_000):
                    if is_made.is_set():
                        break
                    piece = number.to_bytes(4, "big")
                    start = number * 13 % (10 * PART - 4)
                    now[start : start + 4] = piece
                    states.add(bytes(now))
                    await file.write(start, piece)

            nursery.start_soon(write)
            await file.publish()
            is_made.set()
        assert stage.data() in states
        assert await closed(file)
        assert stage.data() == now


async def test_a_plan_is_not_spoilt_by_who_writes_all_the_time(staging, store):
    states = set()
    async with on_stage(staging, store) as stage:
        now = bytearray(pattern(19, 20 * PART))
        file = stage.over(store.put("base/a", now))
        await file.write(file.size_bytes, b"x")
        now += b"x"
        store.script("copy_part", *[Fault(delay_s=0.002)] * 60)
        async with trio.open_nursery() as nursery:

            async def write():
                for number in range(100_000):
                    now[number % 10 * PART] = number % 256
                    states.add(bytes(now))
                    await file.write(number % 10 * PART, bytes([number % 256]))
                    await trio.sleep(0.0005)

            nursery.start_soon(write)
            await file.publish()
            nursery.cancel_scope.cancel()
        assert stage.data() in states


async def test_real_sizes_go_in_parts_too(staging):
    data = bytearray(pattern(20, MIB)) * 26
    async with on_stage(staging) as stage:
        file = stage.new()
        for start in range(0, len(data), MIB):
            await file.write(start, data[start : start + MIB])
        await file.publish()
        data[10 * MIB : 10 * MIB + 5] = b"12345"
        await file.write(10 * MIB, b"12345")
        assert await closed(file)
        assert stage.data() == data
        assert stage.calls["copy_part"] == 2
        assert stage.store.calls["read_range"] == 0
