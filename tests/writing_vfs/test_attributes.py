"""Modes and times: set, published with the object, and remembered on this machine."""

import pytest
import trio

from stsfs.errors import ForbiddenByRule
from stsfs.staging.attributes import AttributeIndex
from tests.fakes import pattern
from tests.writing_vfs.machine import TTL_S, WRITE, Machine

DATA = pattern("data", 1000)
TIME_NS = 1_234_567_890_123_456_789


@pytest.fixture
def machine(store, tmp_path):
    index = AttributeIndex(tmp_path / "attributes.sqlite")
    yield Machine(store, tmp_path / "staging", index)
    index.close()


async def test_times_and_modes_set_after_the_close_are_there_after_a_remount(machine, store):
    async with machine.mounted() as mount:
        await mount.put("f", DATA)
        await mount.set("f", mode=0o100640, modified_ns=TIME_NS)
        assert [method for method, _ in store.writer.changes] == ["put"]
    async with machine.mounted() as mount:
        assert await mount.names() == ["f"]
        node = await mount.stat("f")
        assert (node.mode, node.modified_ns) == (0o640, TIME_NS)


async def test_the_time_of_a_write_is_the_time_after_a_remount(machine):
    async with machine.mounted() as mount:
        await mount.put("f", DATA)
        before = (await mount.stat("f")).modified_ns
    async with machine.mounted() as mount:
        assert (await mount.stat("f")).modified_ns == before


async def test_what_another_client_wrote_since_has_its_own_time(machine, store):
    async with machine.mounted() as mount:
        await mount.put("f", DATA)
        await mount.set("f", mode=0o600, modified_ns=TIME_NS)
    store.put("f", b"theirs")
    async with machine.mounted() as mount:
        node = await mount.stat("f")
        assert node.mode is None
        assert node.modified_ns != TIME_NS


async def test_what_is_known_before_the_upload_travels_with_the_object(machine, store):
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", WRITE, mode=0o600)
        await mount.write(descriptor, DATA)
        await mount.set("f", descriptor, modified_ns=TIME_NS)
        await mount.close(descriptor)
    metadata = store.objects["f"].traits.metadata
    assert int(metadata["mode"], 0) & 0o777 == 0o600
    assert float(metadata["mtime"]) == pytest.approx(TIME_NS / 1e9)


async def test_a_time_that_is_set_is_not_changed_by_the_close(machine):
    async with machine.mounted() as mount:
        descriptor = await mount.open("f", WRITE)
        await mount.write(descriptor, DATA)
        await mount.set("f", descriptor, modified_ns=TIME_NS)
        assert (await mount.stat("f")).modified_ns == TIME_NS
        await mount.close(descriptor)
        assert (await mount.stat("f")).modified_ns == TIME_NS


async def test_modes_and_times_of_directories_are_remembered(machine):
    async with machine.mounted() as mount:
        await mount.mkdir("d", 0o700)
        await mount.put("d/x", DATA)
        await mount.set("d", modified_ns=TIME_NS)
    async with machine.mounted() as mount:
        node = await mount.stat("d")
        assert (node.mode, node.modified_ns) == (0o700, TIME_NS)


async def test_the_mode_that_a_directory_was_made_with_is_remembered(machine):
    async with machine.mounted() as mount:
        await mount.mkdir("d", 0o700)
        await mount.mkdir("e")
    async with machine.mounted() as mount:
        assert (await mount.stat("d")).mode == 0o700
        assert (await mount.stat("e")).mode is None


async def test_attributes_move_with_a_file_and_with_a_directory(machine):
    async with machine.mounted() as mount:
        await mount.mkdir("d")
        for name in ("d/x", "y"):
            await mount.put(name, DATA)
            await mount.set(name, mode=0o600, modified_ns=TIME_NS)
        await mount.rename("d", "e")
        await mount.rename("y", "z")
    async with machine.mounted() as mount:
        for name in ("e/x", "z"):
            node = await mount.stat(name)
            assert (node.mode, node.modified_ns) == (0o600, TIME_NS)


async def test_a_name_made_again_has_nothing_of_what_was_removed(machine, store):
    async with machine.mounted() as mount:
        await mount.put("f", DATA)
        await mount.set("f", mode=0o600)
        await mount.unlink("f")
    store.put("f", DATA)  # with the same ETag
    async with machine.mounted() as mount:
        assert (await mount.stat("f")).mode is None


async def test_names_found_by_a_probe_have_their_attributes(machine, store):
    store.page_keys = 2
    for name in "abcde":
        store.put(name, DATA)
    async with machine.mounted() as mount:
        await mount.put("z", DATA)
        await mount.set("z", mode=0o600)
    async with machine.mounted() as mount:
        assert (await mount.stat("z")).mode == 0o600


async def test_what_belongs_to_the_location_is_not_changed(machine, store):
    store.put("f", DATA)
    async with machine.mounted() as mount:
        with pytest.raises(ForbiddenByRule):
            await mount.set("f", mode=0o4755, modified_ns=TIME_NS)
        with pytest.raises(ForbiddenByRule):
            await mount.set("f", uid=5, owner=(1, 2))
        assert (await mount.stat("f")).modified_ns != TIME_NS
        await mount.set("f", uid=1, gid=2, owner=(1, 2))


async def test_a_version_shown_again_by_a_new_listing_keeps_what_was_set(machine, autojump_clock):
    async with machine.mounted() as mount:
        await mount.put("f", DATA)
        await mount.set("f", mode=0o600, modified_ns=TIME_NS)
        await trio.sleep(2 * TTL_S)
        node = await mount.stat("f")
        assert (node.mode, node.modified_ns) == (0o600, TIME_NS)
