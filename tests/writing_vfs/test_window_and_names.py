"""A mount whose staging disk is short of room: bytes that only an upload has, and changes of names.

And what a change of names must not do to whoever opens a file meanwhile.
"""

import os

import pytest
import trio
import trio.testing

from stsfs.errors import StagingFull, WriteConflict
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.file import StagingFile
from stsfs.staging.room import Room
from tests.fakes import pattern
from tests.faults import Fault, Hold
from tests.writer_stage import small_parts
from tests.writing_vfs.machine import CALLER, UPDATE, WRITE, data, until

PART = 64
LONG = bytes(range(256)) * 2


@pytest.fixture
def short_of_room(store, monkeypatch):
    monkeypatch.setattr(StagingDirectory, "is_short_of_room", lambda self: True)
    with small_parts(store, part_bytes=PART):
        yield


def staged(mount, path):
    (found,) = [each for each in mount.writers.files() if each.path == path]
    return found


@pytest.mark.usefixtures("short_of_room")
async def test_a_file_that_is_parked_can_be_renamed(mount, store):
    descriptor = await mount.open("f", WRITE)
    await mount.write(descriptor, LONG)
    await until(lambda: staged(mount, "f").has_parked)
    await mount.rename("f", "g")
    await mount.write(descriptor, b"more")
    await mount.close(descriptor)
    assert data(store, "g") == LONG + b"more"


@pytest.mark.usefixtures("short_of_room")
async def test_nothing_is_parked_while_the_directory_of_a_file_is_renamed(mount, store):
    store.put("d/other", b"other")
    descriptor = await mount.open("d/f", WRITE)
    store.script("copy", Fault(hold=(hold := Hold())))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "d", "e")
        await hold.reached()
        await mount.write(descriptor, LONG)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await until(lambda: mount.writers.files()[0].sent_bytes >= PART)
        assert not mount.writers.files()[0].has_parked
        hold.let_go()
    await mount.close(descriptor)
    assert data(store, "e/f") == LONG


async def test_an_open_of_what_is_being_renamed_does_not_outdate_it(mount, store):
    """The name is looked up, then the file is moved, then S3 says that it is gone."""
    await mount.put("f", b"content")
    node = await mount.walk("f")
    store.script("confirm", Fault(hold=(asked := Hold())))
    store.script("delete", Fault(hold=(moved := Hold()), happened=True))
    async with trio.open_nursery() as nursery:

        async def open_it():
            mount.vfs.release(await mount.vfs.open(node.inode, UPDATE, CALLER))

        nursery.start_soon(open_it)
        await asked.reached()
        nursery.start_soon(mount.rename, "f", "g")
        await moved.reached()
        asked.let_go()
        await trio.testing.wait_all_tasks_blocked(0.01)
        moved.let_go()
    # The kernel knows the file under its new name, and asks about no name to open it.
    mount.vfs.release(await mount.vfs.open(node.inode, os.O_RDONLY, CALLER))
    assert await mount.get("g") == b"content"


async def test_a_conflict_is_listed_while_another_handle_is_open(mount, store):
    one, other = await mount.open("f", WRITE), await mount.open("f", UPDATE)
    await mount.write(one, b"ours")
    store.put("f", b"theirs")
    with pytest.raises(WriteConflict):
        await mount.close(one)
    (pending,) = mount.writers.pending()
    assert (pending.path, pending.state) == ("f", "conflict")
    await mount.release(other)
    assert [each.state for each in mount.writers.pending()] == ["conflict"]


async def test_a_small_file_waits_for_the_room_that_a_stream_makes(mount, store, monkeypatch):
    """Its own bytes are nowhere else, but those of the stream leave the disk shortly."""
    taken, room_bytes = [0], 40 << 20
    take, punch = Room.take, StagingFile.punch

    def limited(self, count_bytes):
        if taken[0] + count_bytes > room_bytes:
            raise StagingFull("The disk is full.")
        taken[0] += count_bytes
        take(self, count_bytes)

    def counted(self, start, stop):
        taken[0] -= stop - start
        return punch(self, start, stop)

    monkeypatch.setattr(Room, "take", limited)
    monkeypatch.setattr(StagingDirectory, "is_short_of_room", lambda self: True)
    monkeypatch.setattr(StagingFile, "punch", counted)
    mebibyte = pattern("stream", 1 << 20)
    store.script("upload_part", *[Fault(hold=(held := Hold()))] * 5)
    stream = await mount.open("stream", WRITE)
    for number in range(40):
        await mount.write(stream, mebibyte, number << 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.put, "small", b"small")
        await held.reached()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert "small" not in store.objects
        held.let_go()
    assert store.objects["small"].data == b"small"
    await mount.close(stream)
    assert store.objects["stream"].data == mebibyte * 40
