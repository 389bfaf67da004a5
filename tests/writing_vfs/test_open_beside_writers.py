"""An open of a file that somebody here has open for writing, and another client has replaced."""

import os

import pytest
import trio

from stsfs.errors import StaleVersion
from tests.fakes import Fault, pattern
from tests.faults import Hold
from tests.writing_vfs.machine import UPDATE, WRITE, changes, data

OURS, THEIRS = pattern("ours", 200_000), pattern("theirs", 100_000)


@pytest.fixture
async def writer(mount):
    """Has written, and closed a copy of its descriptor: nothing of it is new."""
    descriptor = await mount.open("f", UPDATE | os.O_CREAT)
    await mount.write(descriptor, OURS)
    await mount.flush(descriptor)
    return descriptor


async def test_an_open_sees_what_another_client_has_put_there(mount, store, writer):
    store.put("f", THEIRS)
    assert await mount.get("f") == THEIRS
    assert await mount.names() == ["f"]


async def test_who_has_it_open_for_writing_is_told_and_replaces_nothing(mount, store, writer):
    store.put("f", THEIRS)
    assert await mount.get("f") == THEIRS
    with pytest.raises(StaleVersion):
        await mount.write(writer, b"more")
    await mount.close(writer)
    assert data(store, "f") == THEIRS
    assert mount.writers.files() == []


async def test_an_open_for_writing_is_over_what_another_client_has_put_there(mount, store, writer):
    store.put("f", THEIRS)
    await mount.put("f", b"both were seen", WRITE)
    assert data(store, "f") == b"both were seen"
    assert mount.writers.pending() == []
    await mount.close(writer)


async def test_what_another_client_has_removed_is_not_found(mount, store, writer):
    store.delete("f")
    with pytest.raises((FileNotFoundError, StaleVersion)):
        await mount.get("f")
    await mount.close(writer)
    assert "f" not in store.objects


async def test_what_is_new_here_is_what_an_open_gets(mount, store, writer):
    await mount.write(writer, b"new", 0)
    store.put("f", THEIRS)
    calls = store.calls["confirm"]
    assert (await mount.get("f"))[:3] == b"new"
    assert store.calls["confirm"] == calls


async def test_what_is_written_while_s3_is_asked_stays_what_an_open_gets(mount, store, writer):
    store.put("f", THEIRS)
    store.script("confirm", Fault(hold=(hold := Hold())))
    async with trio.open_nursery() as nursery:

        async def read():
            assert (await mount.get("f"))[:3] == b"new"

        nursery.start_soon(read)
        await hold.reached()
        await mount.write(writer, b"new", 0)
        hold.let_go()


async def test_a_write_that_meets_the_end_of_what_was_staged_is_told(mount, store, writer):
    """It waits for its turn on the local disk while an open finds out what S3 has."""
    store.put("f", THEIRS)
    staged = (await mount.walk("f")).staged
    async with trio.open_nursery() as nursery:

        async def write():
            with pytest.raises(StaleVersion):
                await mount.write(writer, b"more")

        async def cut():
            with pytest.raises(StaleVersion):
                await mount.set("f", writer, size_bytes=7)

        async with staged._content.lock:
            nursery.start_soon(mount.get, "f")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(write)
            nursery.start_soon(cut)
            await trio.testing.wait_all_tasks_blocked()
    assert changes(store).count("put") == 1


async def test_the_version_that_was_published_is_asked_for_and_found(mount, store, writer):
    calls = store.calls["confirm"]
    assert await mount.get("f") == OURS
    assert store.calls["confirm"] == calls + 1
    await mount.write(writer, b"new", 0)
    await mount.close(writer)
    assert data(store, "f")[:3] == b"new"
