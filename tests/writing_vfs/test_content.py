"""Content that is written through a mount: what a process, the local disk and S3 have when."""

import os

import pytest
import trio

from stsfs.errors import (
    IsADirectory,
    StaleVersion,
)
from tests.fakes import Fault, pattern
from tests.writing_vfs.machine import UPDATE, WRITE, changes, data, root_node, until

OLD, NEW = pattern("old", 1 << 20), pattern("new", 200_000)


async def test_a_closed_file_is_in_s3_as_it_was_written(mount, store):
    await mount.put("f", NEW)
    assert data(store, "f") == NEW
    assert await mount.get("f") == NEW
    assert changes(store) == ["put"]


async def test_what_is_written_is_read_by_everybody_here_before_it_is_in_s3(mount, store):
    written = await mount.open("f", WRITE)
    await mount.write(written, NEW)
    assert await mount.get("f") == NEW
    assert (await mount.stat("f")).size_bytes == len(NEW)
    assert await mount.names() == ["f"]
    assert store.objects == {}
    await mount.close(written)


async def test_opening_for_writing_costs_nothing_until_something_is_written(mount, store):
    store.put("f", OLD)
    await mount.close(await mount.open("f", UPDATE))
    assert changes(store) == []
    assert (await mount.walk("f")).staged is None
    assert mount.writers.files() == []


async def test_a_change_in_the_middle_keeps_the_rest(mount, store):
    store.put("f", OLD)
    descriptor = await mount.open("f", UPDATE)
    await mount.write(descriptor, b"middle", 1000)
    await mount.close(descriptor)
    assert data(store, "f") == OLD[:1000] + b"middle" + OLD[1006:]


async def test_truncation_at_open_fetches_nothing(mount, store):
    store.put("f", OLD)
    await mount.put("f", NEW)
    assert data(store, "f") == NEW
    assert store.calls["read_range"] == 0


async def test_the_number_stays_when_a_file_is_written_and_published(mount, store):
    store.put("f", OLD)
    before = await mount.walk("f")
    await mount.put("f", NEW)
    after = await mount.walk("f")
    assert after is before
    assert after.staged is None
    assert after.version.etag == store.objects["f"].etag


async def test_a_page_that_shows_what_we_published_keeps_the_number(mount, store, autojump_clock):
    await mount.put("f", NEW)
    before = await mount.walk("f")
    await trio.sleep(40)
    assert await mount.names() == ["f"]
    assert await mount.walk("f") is before


async def test_a_reader_sees_the_new_version_after_our_own_publication(mount, store):
    store.put("f", OLD)
    reader = await mount.open("f")
    assert await mount.read(reader, 0, 10) == OLD[:10]
    await mount.put("f", NEW)
    assert await mount.read(reader) == NEW
    await mount.close(reader)


async def test_a_reader_of_what_another_client_replaced_stays_with_its_version(mount, store):
    store.put("f", OLD)
    reader = await mount.open("f")
    store.put("f", NEW)
    await mount.put("f", b"third")  # over the new version, which is another node
    with pytest.raises(StaleVersion):
        await mount.read(reader, len(OLD) - 10, 10)
    assert data(store, "f") == b"third"


async def test_an_open_file_that_is_removed_works_on_and_is_never_uploaded(mount, store):
    descriptor = await mount.open("f", WRITE)
    await mount.write(descriptor, b"abc")
    await mount.unlink("f")
    assert not await mount.exists("f")
    await mount.write(descriptor, b"def")
    assert await mount.read(descriptor) == b"abcdef"
    await mount.close(descriptor)
    assert store.objects == {}
    assert changes(store) == []
    assert mount.writers.files() == []


async def test_a_file_that_was_published_is_removed_while_it_is_open(mount, store):
    store.put("f", OLD)
    descriptor = await mount.open("f", UPDATE)
    await mount.write(descriptor, b"abc", 0)
    await mount.unlink("f")
    assert store.objects == {}
    assert await mount.read(descriptor, 0, 3) == b"abc"
    await mount.close(descriptor)
    assert store.objects == {}


async def test_a_second_close_without_new_bytes_costs_nothing(mount, store):
    descriptor = await mount.open("f", WRITE)
    await mount.write(descriptor, NEW)
    await mount.flush(descriptor)
    await mount.flush(descriptor)
    await mount.release(descriptor)
    assert changes(store) == ["put"]


async def test_a_shell_redirection_is_published_once_and_at_its_close(mount, store):
    descriptor = await mount.open("f", WRITE)
    await mount.flush(descriptor)  # the shell duplicates the descriptor, and closes the first
    assert changes(store) == []
    await mount.write(descriptor, b"hi\n")
    await mount.flush(descriptor)
    assert data(store, "f") == b"hi\n"
    await mount.release(descriptor)
    assert changes(store) == ["put"]


async def test_the_output_of_several_commands_is_published_by_the_last_close(mount, store):
    descriptor = await mount.open("f", WRITE)
    await mount.flush(descriptor)
    for line in (b"a\n", b"b\n", b"c\n"):
        await mount.write(descriptor, line)
        await mount.flush(descriptor)
    assert data(store, "f") == b"a\n"
    await mount.release(descriptor)
    assert data(store, "f") == b"a\nb\nc\n"
    assert changes(store) == ["put", "put"]


async def test_a_touched_file_is_an_empty_object(mount, store):
    descriptor = await mount.open("f", os.O_WRONLY | os.O_CREAT)
    await mount.close(descriptor)
    assert data(store, "f") == b""


async def test_pages_of_a_mapping_are_published_at_the_end_of_the_handle(mount, store):
    store.put("f", OLD)
    descriptor = await mount.open("f", UPDATE)
    await mount.flush(descriptor)
    await mount.write(descriptor, b"mapped", 0)
    await mount.release(descriptor)
    assert data(store, "f")[:6] == b"mapped"


async def test_a_reader_that_closes_publishes_nothing(mount, store):
    writer = await mount.open("f", WRITE)
    await mount.write(writer, NEW)
    await mount.get("f")
    assert store.objects == {}
    await mount.close(writer)


async def test_truncating_a_path_publishes_at_once(mount, store):
    store.put("f", OLD)
    await mount.truncate("f", 10)
    assert data(store, "f") == OLD[:10]
    await mount.truncate("f", 20)
    assert data(store, "f") == OLD[:10] + bytes(10)
    await mount.truncate("f", 0)
    assert data(store, "f") == b""
    assert mount.writers.files() == []


async def test_truncating_a_path_of_an_outdated_version_works_on_the_new_one(mount, store):
    store.put("f", OLD)
    await mount.walk("f")
    store.put("f", NEW)
    await mount.truncate("f", 10)
    assert data(store, "f") == NEW[:10]


async def test_truncating_an_open_file_is_published_with_it(mount, store):
    descriptor = await mount.open("f", WRITE)
    await mount.write(descriptor, NEW)
    await mount.set("f", descriptor, size_bytes=5)
    assert changes(store) == []
    await mount.close(descriptor)
    assert data(store, "f") == NEW[:5]


async def test_an_open_to_append_does_not_fetch_the_file(mount, store):
    store.put("f", OLD)
    descriptor = await mount.open("f", os.O_WRONLY | os.O_APPEND)
    assert store.calls["read_range"] == 0
    assert store.calls["confirm"] == 1
    await mount.write(descriptor, b"tail", len(OLD))
    await mount.close(descriptor)
    assert data(store, "f") == OLD + b"tail"


async def test_a_directory_is_not_opened_for_writing(mount, store):
    store.put("d/x", OLD)
    with pytest.raises(IsADirectory):
        await mount.open("d", os.O_RDONLY)
    with pytest.raises(IsADirectory):
        await mount.vfs.create(root_node(mount).inode, b"d", WRITE, None)


async def test_many_closes_upload_at_the_same_time(mount, store, autojump_clock):
    store.script("put", *[Fault(delay_s=1e6)] * 8)
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(mount.put, f"f{number}", NEW)
        await until(lambda: store.calls["put"] == 8)
        assert store.objects == {}
    assert len(store.objects) == 8


async def test_two_descriptors_see_each_others_bytes(mount, store):
    first = await mount.open("f", WRITE)
    await mount.write(first, b"aaaa")
    second = await mount.open("f", UPDATE)
    await mount.write(second, b"b")
    await mount.close(second)
    assert data(store, "f") == b"baaa"
    await mount.write(first, b"a")
    assert await mount.get("f") == b"baaaa"
    await mount.close(first)
    assert data(store, "f") == b"baaaa"


async def test_a_file_opened_again_while_it_is_published_is_not_lost(mount, store, autojump_clock):
    store.script("put", Fault(delay_s=1e6))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.put, "f", NEW)
        await until(lambda: store.calls["put"])
        again = await mount.open("f", UPDATE)
        await mount.write(again, b"again", 0)
    assert data(store, "f") == NEW
    assert await mount.read(again, 0, 5) == b"again"
    await mount.close(again)
    assert data(store, "f") == b"again" + NEW[5:]


async def test_a_flush_before_anything_was_written_replaces_nothing(mount, store):
    store.put("x", OLD)
    descriptor = await mount.open("x", WRITE)
    for _ in range(3):  # of a duplicate, and of each command of a shell that writes nothing
        await mount.flush(descriptor)
    assert (data(store, "x"), changes(store)) == (OLD, [])
    await mount.write(descriptor, NEW)
    await mount.close(descriptor)
    assert (data(store, "x"), changes(store)) == (NEW, ["put"])


async def test_a_file_that_was_only_opened_and_cut_off_is_published_at_its_end(mount, store):
    store.put("x", OLD)
    await mount.close(await mount.open("x", WRITE))
    assert data(store, "x") == b""


async def test_the_flush_of_another_handle_does_not_make_a_handle_shared(mount, store):
    writer, other = await mount.open("x", WRITE), await mount.open("x", UPDATE)
    await mount.write(writer, NEW)
    await mount.flush(other)
    assert data(store, "x") == NEW
    await mount.write(other, OLD)
    await mount.flush(other)
    assert data(store, "x")[: len(OLD)] == OLD, "its first own publication, which is waited for"
    await mount.close(other)
    await mount.close(writer)


async def test_truncating_to_the_same_size_changes_nothing(mount, store):
    store.put("x", OLD)
    await mount.set("x", size_bytes=len(OLD))
    assert changes(store) == []
