"""One staged file on its way to S3: what is sent, what stays on disk, what comes back."""

import contextlib
from dataclasses import replace

import pytest
import trio
import trio.testing

from stsfs.errors import (
    AccessDenied,
    AlreadyExists,
    StaleVersion,
    StoreFailure,
    WriteConflict,
)
from stsfs.store.object_store import Traits
from stsfs.writer import content
from stsfs.writer.dirty_state import DirtyState
from stsfs.writer.writing import UPLOADS_MAX
from tests.fakes import pattern
from tests.faults import Fault, Hold
from tests.writer_stage import MIB, closed, let_go_when_blocked, on_stage, released


@pytest.fixture
def staging(tmp_path):
    return tmp_path / "staging"


async def test_a_new_file_is_one_put_and_leaves_nothing_on_disk(staging):
    async with on_stage(staging) as stage:
        file = stage.new(mode=0o640)
        await file.write(0, b"hello ")
        await file.write(6, b"world")
        assert file.dirty
        assert bytes(await file.read(0, 100)) == b"hello world"
        assert await closed(file)
        assert stage.data() == b"hello world"
        assert file.watcher.told == [("published", file.version.etag), ("gone",)]
        assert stage.left_on_disk() == []
        assert stage.writers.files() == []
        assert dict(stage.calls) == {"put": 1}
        metadata = stage.store.objects["base/a"].traits.metadata
        assert metadata["mode"] == str(0o100640)
        assert abs(float(metadata["mtime"]) - file.modified_ns / 1e9) < 1


async def test_an_empty_file_is_an_empty_object(staging):
    async with on_stage(staging) as stage:
        assert await closed(stage.new())
        assert stage.data() == b""


async def test_a_flush_without_changes_asks_nobody(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"a")
        first = await file.publish()
        assert await file.publish() == first
        await file.keep()
        assert dict(stage.calls) == {"put": 1}


async def test_a_file_over_an_object_that_nobody_wrote_to_costs_nothing(staging):
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", b"abc"))
        assert not file.dirty
        assert await closed(file)
        assert dict(stage.calls) == {}


async def test_an_append_fetches_what_it_needs_when_it_is_published(staging):
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", b"abc"))
        await file.write(file.size_bytes, b"def")
        assert stage.store.calls["read_range"] == 0
        assert bytes(await file.read(1, 4)) == b"bcde"
        assert await closed(file)
        assert stage.data() == b"abcdef"


async def test_truncated_bytes_do_not_come_back_when_the_file_grows(staging):
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", b"abcdef"))
        await file.truncate(2)
        await file.truncate(5)
        assert bytes(await file.read(0, 10)) == b"ab\0\0\0"
        await file.write(7, b"x")
        assert await closed(file)
        assert stage.data() == b"ab\0\0\0\0\0x"


async def test_a_truncated_file_fetches_nothing(staging):
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", b"abcdef"), truncate=True)
        assert file.size_bytes == 0
        assert await closed(file)
        assert stage.data() == b""
        assert dict(stage.calls) == {"put": 1}


async def test_what_was_stored_with_a_changed_object_stays(staging):
    kept = Traits({"sample": "s1", "md5chksum": "x", "mode": "33188"}, "text/csv", "STANDARD_IA")
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", b"abc", traits=kept))
        await file.write(0, b"A")
        file.set_times(1_500_000_000_250_000_000)
        await closed(file)
        found = stage.store.objects["base/a"].traits
        assert found.metadata == {
            "sample": "s1",
            "mode": "33188",
            "mtime": "1500000000.25",
        }
        assert (found.content_type, found.storage_class) == ("text/csv", "STANDARD_IA")


async def test_the_second_publication_replaces_the_first(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        await file.publish()
        await file.write(1, b"X")
        assert file.dirty
        assert await closed(file)
        assert stage.data() == b"aXc"
        assert stage.store.calls["read_range"] == 0


async def test_several_flushes_share_one_publication(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        stage.store.script("put", Fault(delay_s=0.01))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(file.publish)
        assert stage.calls["put"] == 1


async def test_a_flush_of_newer_bytes_does_not_return_with_an_older_publication(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        stage.store.script("put", Fault(hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            await file.write(0, b"xyz")
            nursery.start_soon(let_go_when_blocked, hold)
            await file.publish()
            assert stage.data() == b"xyz"
        assert stage.calls["put"] == 2


async def test_a_cancelled_flush_does_not_break_the_publication_of_others(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        stage.store.script("put", Fault(hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            nursery.cancel_scope.cancel()
        hold.let_go()
        await file.publish()
        assert stage.data() == b"abc"
        assert stage.calls["put"] == 1


@pytest.mark.parametrize("happened", [False, True])
async def test_a_publication_whose_answer_was_lost_is_repeated_as_the_same(staging, happened):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        stage.store.script("put", Fault(StoreFailure("503"), happened=happened))
        with pytest.raises(StoreFailure):
            await file.publish()
        assert file.state is DirtyState.FAILED
        assert file.dirty
        assert await closed(file)
        assert stage.data() == b"abc"


async def test_a_lost_answer_is_no_conflict_with_ourselves_after_more_was_written(staging):
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", b"0123456789"))
        await file.write(0, b"abc")
        stage.store.script("put", Fault(StoreFailure("503"), happened=True))
        with pytest.raises(StoreFailure):
            await file.publish()
        await file.write(1, b"XY")
        assert await closed(file)
        assert stage.data() == b"aXY3456789"


@pytest.mark.parametrize("error", [None, StoreFailure("503")])
async def test_bytes_that_only_s3_has_are_read_although_we_have_just_replaced_it(staging, error):
    data = pattern(1, 20 * MIB)
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", data))
        await file.write(file.size_bytes, b"more")
        stage.store.script("complete_upload", Fault(error, happened=True, hold=(hold := Hold())))

        async def publish():
            with contextlib.suppress(StoreFailure):
                await file.publish()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            await hold.reached()
            assert stage.data() != data
            nursery.start_soon(let_go_when_blocked, hold)
            assert bytes(await file.read(0, 5)) == data[:5]
        assert bytes(await file.read(5, 5)) == data[5:10]


async def test_another_clients_object_is_a_conflict_and_ours_stays_on_disk(staging):
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", b"abc"))
        await file.write(0, b"X")
        await file.read(0, 3)
        theirs = stage.store.put("base/a", b"theirs")
        with pytest.raises(WriteConflict) as caught:
            await file.publish()
        assert "recover" in str(caught.value)
        with pytest.raises(WriteConflict):
            await file.publish()
        assert file.detached
        assert stage.store.objects["base/a"].etag == theirs.etag
        assert await released(file)
        assert stage.left_on_disk() == [".data", ".json"]
        (pending,) = stage.writers.pending()
        assert pending.state == "conflict"
        assert stage.writers.files() == []


async def test_an_exclusive_file_that_another_client_made_already_exists(staging):
    async with on_stage(staging) as stage:
        file = stage.new(exclusive=True)
        await file.write(0, b"X")
        stage.store.put("base/a", b"theirs")
        with pytest.raises(AlreadyExists):
            await file.publish()
        assert stage.data() == b"theirs"


async def test_a_base_that_was_replaced_is_a_conflict_though_only_reading_found_out(staging):
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", b"abcdef"), storage_class="STANDARD")
        await file.write(0, b"X")
        stage.store.script("traits", Fault(AccessDenied("no HEAD")))
        stage.store.put("base/a", b"theirs")
        with pytest.raises(WriteConflict):
            await file.publish()
        assert stage.calls["put"] == 0


@pytest.mark.parametrize("method", ["traits", "read_range"])
async def test_a_conflict_is_told_in_words_not_as_an_answer_of_the_server(staging, method):
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", b"abcdef"))
        await file.write(0, b"X")
        stage.store.put("base/a", b"theirs")
        stage.store.script(method, Fault(StaleVersion("S3 answered 412 PreconditionFailed.")))
        with pytest.raises(WriteConflict) as caught:
            await file.publish()
        assert caught.value.sentence == "'base/a' was changed by another client."


async def test_what_is_denied_is_kept_and_not_tried_again_by_itself(staging, autojump_clock):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        stage.store.script("put", *[Fault(AccessDenied("may not write"))] * 2)
        with pytest.raises(AccessDenied):
            await file.publish()
        assert not await released(file)
        assert stage.left_on_disk() == [".data", ".json"]
        for _ in range(1000):
            await trio.sleep(10)
        assert stage.calls["put"] == 1
        (pending,) = stage.writers.pending()
        assert (pending.state, pending.size_bytes) == ("failed", 3)


async def test_passing_trouble_is_tried_again_until_it_is_over(staging, autojump_clock):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        stage.store.script("put", *[Fault(StoreFailure("503"))] * 6)
        with pytest.raises(StoreFailure):
            await file.publish()
        assert not await released(file)
        while stage.left_on_disk():  # the clock jumps on while a thread is at work
            await trio.sleep(1)
        assert file.closed
        assert stage.data() == b"abc"
        assert file.watcher.told[-1] == ("gone",)
        assert stage.left_on_disk() == []
        assert stage.writers.pending() == []


async def test_reads_of_unfetched_bytes_fail_when_the_base_is_gone(staging):
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", b"abcdef"))
        await file.write(0, b"X")
        stage.store.delete("base/a")
        with pytest.raises(StaleVersion):
            await file.read(0, 6)
        assert bytes(await file.read(0, 1)) == b"X"


async def test_drain_publishes_what_is_closed_and_keeps_what_is_open(staging):
    async with on_stage(staging) as stage:
        done, half = stage.new("base/done"), stage.new("base/half")
        await done.write(0, b"whole")
        await half.write(0, b"ha")
        done.writable_handles = 0
        (left,) = await stage.writers.drain()
        assert left.path == "base/half"
        assert left.state == "writing"
        assert stage.data("base/done") == b"whole"
        assert stage.left_on_disk() == [".data", ".json"]


async def test_the_record_is_there_before_the_request(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        stage.store.script("put", Fault(hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            assert stage.left_on_disk() == [".data", ".json"]
            hold.let_go()


async def test_big_bodies_wait_for_each_other(staging):
    async with on_stage(staging) as stage:
        files = [stage.new(f"base/{number}") for number in range(8)]
        for file in files:
            await file.write(0, pattern(1, 1) * (15 * MIB))
        stage.store.script("put", *[Fault(delay_s=0.01)] * 8)
        async with trio.open_nursery() as nursery:
            for file in files:
                nursery.start_soon(file.publish)
        assert stage.calls["put"] == 8


async def test_writes_scattered_over_a_large_object_do_not_make_a_span_each(staging, monkeypatch):
    monkeypatch.setattr(content, "SPANS_MAX", 8)
    monkeypatch.setattr(content, "FETCH_BYTES", 64)
    data = bytearray(pattern(1, 64 * 40))
    async with on_stage(staging) as stage:
        file = stage.over(stage.store.put("base/a", data))
        for start in range(0, len(data), 16):
            await file.write(start, b"X")
            data[start : start + 1] = b"X"
        spans = file._content
        assert max(len(spans.present), len(spans.changed)) <= 8 + len(data) // 64
        assert bytes(await file.read(0, len(data))) == data
        assert await closed(file)
        assert stage.data() == data


async def test_a_file_that_is_removed_while_it_waits_for_its_turn_is_not_uploaded(staging):
    async with on_stage(staging) as stage:
        busy = [stage.new(f"base/{number}") for number in range(UPLOADS_MAX)]
        stage.store.script("put", *[Fault(hold=(hold := Hold()))] * UPLOADS_MAX)
        async with trio.open_nursery() as nursery:
            for file in busy:
                await file.write(0, b"abc")
                nursery.start_soon(file.publish)
            while stage.calls["put"] < UPLOADS_MAX:
                await trio.testing.wait_all_tasks_blocked()
            file = stage.new()
            await file.write(0, b"abc")
            nursery.start_soon(file.publish)
            nursery.start_soon(removed, file)
            nursery.start_soon(let_go_when_blocked, hold)
        assert file.detached
        assert stage.calls["put"] == UPLOADS_MAX
        assert stage.data() is None


async def removed(file):
    await trio.testing.wait_all_tasks_blocked()
    async with file.removing():
        pass


@pytest.mark.parametrize("truncate", [True, False])
async def test_nothing_is_staged_over_an_object_without_an_etag(staging, truncate):
    async with on_stage(staging) as stage:
        version = replace(stage.store.put("base/a", b"old"), etag="")
        with pytest.raises(StoreFailure, match="tells no ETag of 'base/a'"):
            stage.over(version, truncate=truncate)
        assert stage.writers.files() == []
        assert stage.left_on_disk() == []
