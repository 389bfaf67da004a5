"""Requests that the server carries out after their answers were given up."""

import pytest
import trio

from stsfs.demo.gate.faults import Hold, Rule
from stsfs.store import http_connection, retry
from stsfs.store.object_store import Traits
from tests.fakes import BytesBody
from tests.s3_place import Place

KEY, NOTHING = "base/x", Traits()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.01)
    with Place(tmp_path / "s3", permission="read_write") as made:
        store = made.store()
        made.writer = store.writer(acl="bucket-owner-full-control")
        yield made
        store.close()


async def put(place, data, write_id):
    return await place.writer.put(KEY, BytesBody(data), NOTHING, expected=None, write_id=write_id)


async def test_a_late_removal_does_not_take_what_was_written_after_it(place, monkeypatch):
    etag = await put(place, b"old", "1")
    hold = Hold("request")
    place.faults.add(Rule(hold, limit=1, kinds=frozenset({"DELETE"})))
    with monkeypatch.context() as hurry:
        hurry.setattr(http_connection, "STALL_S", 0.2)
        await place.writer.delete(KEY, seen=etag)
    assert not (place.folder / "x").exists()
    await put(place, b"new", "2")
    hold.let_go()
    with trio.fail_after(120):
        await place.server.requests.seen(2, "DELETE")
        while not place.server.requests.of_kind("DELETE")[-1].status:
            await trio.lowlevel.checkpoint()
    assert (place.folder / "x").read_bytes() == b"new"


async def test_what_another_client_has_put_there_meanwhile_is_removed_as_well(place):
    etag = await put(place, b"seen", "1")
    await put(place, b"theirs", "2")
    await place.writer.delete(KEY, seen=etag)
    assert not (place.folder / "x").exists()


async def test_a_removal_whose_answer_was_lost_is_none_of_nothing(place):
    etag = await put(place, b"seen", "1")
    lost = place.faults.lose_answer(limit=1, kinds=["DELETE"])
    await place.writer.delete(KEY, seen=etag)
    assert lost.applied == 1
    assert not (place.folder / "x").exists()
