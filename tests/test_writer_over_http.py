"""The writer over real requests: a server of files behind a gate with the policy of a session."""

import pytest
import trio

from stsfs.errors import StoreFailure, WriteConflict
from stsfs.staging.directory import StagingDirectory
from stsfs.writer.moves import Mover
from stsfs.writer.wire import LocationName
from stsfs.writer.writing import Writers
from tests.conformance.conftest import file_house
from tests.fakes import pattern
from tests.writer_stage import MIB

LOCATION = LocationName(1, "s3://bucket/base", None, "syn123")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with file_house("Synapse session", tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture
async def writers(house, tmp_path):
    staging = StagingDirectory.open(tmp_path)
    async with trio.open_nursery() as nursery:
        writers = Writers(LOCATION, house.store(), house.writer(), staging)
        await nursery.start(writers.run)
        yield writers
        nursery.cancel_scope.cancel()
    staging.close()
    house.leave()


def data_at(house, key):
    found = house.found(key)
    return None if found is None else found[0]


async def closed(file):
    await file.publish()
    assert await file.close()
    return file.version


async def test_small_files_are_put_and_changed(house, writers):
    file = writers.stage_new("base/small ü+", "small", mode=0o644)
    await file.write(0, b"hello")
    version = await closed(file)
    file = writers.stage_over(version, "small", modified_ns=0)
    await file.write(file.size_bytes, b" world")
    await closed(file)
    assert data_at(house, "base/small ü+") == b"hello world"
    assert house.found("base/small ü+")[1]["mode"] == "33188"


async def test_a_long_stream_with_a_change_at_its_front_and_a_later_append(house, writers):
    data = bytearray(pattern(1, MIB)) * 40
    file = writers.stage_new("base/long", "long")
    for start in range(0, len(data), MIB):
        await file.write(start, data[start : start + MIB])
    data[:5] = b"front"
    await file.write(0, b"front")
    version = await closed(file)
    assert data_at(house, "base/long") == data
    file = writers.stage_over(version, "long", modified_ns=0)
    await file.write(file.size_bytes, b"more")
    await file.write(20 * MIB, b"middle")
    data[20 * MIB : 20 * MIB + 6] = b"middle"
    await closed(file)
    assert data_at(house, "base/long") == data + b"more"
    assert writers.store.counters.of("get").received_bytes < 6 * MIB


async def test_another_clients_object_is_not_replaced(house, writers):
    file = writers.stage_new("base/mine", "mine")
    await file.write(0, b"ours")
    house.put("base/mine", b"theirs")
    with pytest.raises(WriteConflict):
        await file.publish()
    assert data_at(house, "base/mine") == b"theirs"


async def test_objects_and_trees_move(house, writers):
    keys = {f"base/tree/{name}": name.encode() for name in ("", "a", "b/", "b/c d", "ü")}
    for key, data in keys.items():
        house.put(key, data)
    mover = Mover(LOCATION, writers.store, writers.writer, writers.staging)
    page = await writers.store.list_page("base/tree/", delimiter="")
    await mover.move_tree(page.objects, "base/tree/", "base/wood/", path="tree", target_path="wood")
    page = await writers.store.list_page("base/", delimiter="")
    assert {each.key: data_at(house, each.key) for each in page.objects} == {
        key.replace("tree", "wood"): data for key, data in keys.items()
    }


async def test_an_upload_that_the_server_has_lost_is_begun_again(house, writers):
    data = pattern(2, 20 * MIB)
    file = writers.stage_new("base/lost", "lost")
    await file.write(0, data[: 17 * MIB])
    while not file.sent_bytes:
        await trio.sleep(0.01)
    upload = file._sender.upload
    await writers.writer.abort_upload("base/lost", upload.upload_id)
    await file.write(17 * MIB, data[17 * MIB :])
    try:
        await closed(file)
    except StoreFailure:
        pytest.fail("a lost upload is no failure")
    assert data_at(house, "base/lost") == data
