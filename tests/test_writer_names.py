"""A staged file whose name goes or changes, before, during and after its publication."""

import pytest
import trio
import trio.testing

from stsfs.errors import (
    StoreFailure,
)
from stsfs.store.object_store import Expected
from tests.faults import Fault, Hold
from tests.writer_stage import closed, let_go_when_blocked, on_stage, released


@pytest.fixture
def staging(tmp_path):
    return tmp_path / "staging"


async def test_a_lost_answer_is_known_before_an_unlink(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        stage.store.script("put", Fault(StoreFailure("503"), happened=True))
        with pytest.raises(StoreFailure):
            await file.publish()
        async with file.removing() as version:
            pass
        assert version.etag == stage.store.objects["base/a"].etag


async def test_an_unlinked_file_is_not_uploaded_and_goes_on_working(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        await file.keep()
        async with file.removing() as version:
            assert version is None
        assert stage.left_on_disk() == []
        await file.write(3, b"def")
        assert bytes(await file.read(0, 10)) == b"abcdef"
        assert await file.publish() is None
        assert await released(file)
        assert dict(stage.calls) == {}
        assert stage.writers.files() == []


async def test_an_unlink_during_the_publication_knows_what_has_to_be_deleted(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        stage.store.script("put", Fault(hold=(hold := Hold())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.publish)
            await hold.reached()
            nursery.start_soon(let_go_when_blocked, hold)
            async with file.removing() as version:
                pass
        assert version.etag == stage.store.objects["base/a"].etag
        assert stage.left_on_disk() == []


async def test_a_rename_before_the_first_publication_changes_names_only(staging):
    async with on_stage(staging) as stage:
        target = stage.store.put("base/b", b"old")
        file = stage.new()
        await file.write(0, b"abc")
        await file.keep()
        async with file.held() as version:
            assert version is None
            await file.rename("base/b", "b", Expected(target.etag))
        assert await closed(file)
        assert stage.data("base/a") is None
        assert stage.data("base/b") == b"abc"
        assert stage.left_on_disk() == []


async def test_a_file_whose_object_was_moved_is_published_there(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abcdef")
        await file.publish()
        async with file.held() as version:
            etag = await stage.writer.copy(version, "base/b")
            await stage.writer.delete("base/a")
            moved = type(version)(1, "base/b", etag, 6)
            await file.follow(moved, "b")
        await file.write(0, b"X")
        assert await closed(file)
        assert stage.data("base/b") == b"Xbcdef"
        assert stage.data("base/a") is None


async def test_nothing_is_published_while_a_file_is_held(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        async with trio.open_nursery() as nursery, file.held():
            nursery.start_soon(file.publish)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert stage.calls["put"] == 0
        assert stage.data() == b"abc"


async def test_a_file_opened_while_it_is_closed_stays_staged(staging):
    async with on_stage(staging) as stage:
        file = stage.new()
        await file.write(0, b"abc")
        stage.store.script("put", Fault(hold=(hold := Hold())))
        file.writable_handles = 0
        async with trio.open_nursery() as nursery:
            results = []

            async def close():
                results.append(await file.close())

            nursery.start_soon(close)
            await hold.reached()
            file.writable_handles = 1
            hold.let_go()
        assert results == [False]
        assert not file.closed
        await file.write(3, b"def")
        assert await closed(file)
        assert stage.data() == b"abcdef"
