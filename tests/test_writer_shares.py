"""Several users close files: whoever sends much keeps nobody else waiting."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stsfs.store.shares import OWNER
from stsfs.writer import wire
from stsfs.writer.writing import UPLOADS_MAX
from tests.fakes import MemoryStore
from tests.faults import Fault, Hold
from tests.writer_stage import MIB, closed, on_stage, small_parts

MANY, FEW = 1001, 1002


@pytest.fixture
def staging(tmp_path):
    return tmp_path / "staging"


async def close_one(stage, owner, key, size_bytes):
    """A file of a user is written and closed; see `stsfs.store.shares` for what owners are."""
    OWNER.set(owner)
    file = stage.new(key)
    await file.write(0, bytes(size_bytes))
    assert await closed(file)


async def close_many(stage, nursery, method, size_bytes):
    """Three times as many files as S3 is asked for at once, none of which it answers."""
    hold = Hold()
    stage.store.script(method, *[Fault(hold=hold)] * (3 * UPLOADS_MAX))
    for number in range(3 * UPLOADS_MAX):
        nursery.start_soon(close_one, stage, MANY, f"base/many-{number}", size_bytes)
    await hold.reached()
    await wait_all_tasks_blocked(0.1)
    asked = stage.calls[method]
    stage.store.scripts[method].clear()
    return hold, asked


@pytest.mark.parametrize(
    ("body_bytes", "bodies_bytes", "at_once"),
    [(1, 64 * MIB, UPLOADS_MAX), (16 * 1024, 64 * 1024, 4)],
    ids=["places", "memory"],
)
async def test_a_close_does_not_wait_for_the_uploads_of_another_user(
    staging, monkeypatch, body_bytes, bodies_bytes, at_once
):
    monkeypatch.setattr(wire, "BODIES_BYTES_MAX", bodies_bytes)
    async with on_stage(staging) as stage, trio.open_nursery() as nursery:
        hold, asked = await close_many(stage, nursery, "put", body_bytes)
        assert asked == at_once
        with trio.fail_after(120):
            await close_one(stage, FEW, "base/few", 1)
        assert stage.data("base/few") == b"\0"
        hold.let_go()


async def test_a_close_does_not_wait_for_the_parts_of_another_user(staging):
    store = MemoryStore()
    with small_parts(store):
        async with on_stage(staging, store) as stage, trio.open_nursery() as nursery:
            hold, asked = await close_many(stage, nursery, "upload_part", 100)
            assert asked == UPLOADS_MAX
            with trio.fail_after(120):
                await close_one(stage, FEW, "base/few", 100)
            assert stage.data("base/few") == bytes(100)
            hold.let_go()
