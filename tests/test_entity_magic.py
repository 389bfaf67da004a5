"""`/.synapse`: every entity by its id, every version of a file, and none of that in listings."""

import pytest
import trio

from stsfs.errors import NameTooLong, PermissionMissing
from tests.entities_fakes import TTL_S, FakeApi, Shown, wall_clock
from tests.fakes import MemoryStore


@pytest.fixture
def clock(autojump_clock, monkeypatch):
    wall_clock(monkeypatch, autojump_clock)
    return autojump_clock


@pytest.fixture
def api():
    return FakeApi(MemoryStore())


@pytest.fixture
async def shown(api, nursery, clock):
    made = Shown(api, api.store)
    await nursery.start(made.cache.run)
    return made


async def test_it_is_found_and_not_listed(api, shown, clock):
    api.file(api.root_id, "x")
    below = api.folder(api.root_id, "d")
    assert await shown.names() == ["d", "x"]
    assert await shown.names(".synapse") == ["by-id", "versions"]
    assert await shown.find("d/.synapse") is None
    assert await shown.find(f".synapse/by-id/{below}/.synapse") is None
    assert await shown.find(".synapse/other") is None


async def test_entities_are_found_by_id_also_those_that_have_no_path(api, shown, clock):
    odd = api.file(api.root_id, "a/b", b"odd")
    folder = api.folder(api.root_id, "d")
    inner = api.file(folder, "x", b"inner")
    table = api.folder(api.root_id, "t", kind="TableEntity")
    assert await shown.read(f".synapse/by-id/{odd}") == b"odd"
    assert await shown.read(f".synapse/by-id/{inner}") == b"inner"
    assert await shown.read(f".synapse/by-id/{folder}/x") == b"inner"
    calls = api.calls.total()
    for name in ("syn0", "synx", "12", "SYN2", f"{odd}.1", "syn" + "9" * 30):
        assert await shown.find(f".synapse/by-id/{name}") is None
    assert api.calls.total() == calls
    assert await shown.find(f".synapse/by-id/{table}") is None
    assert await shown.find(".synapse/by-id/syn999999") is None
    api.invisible.add(odd)
    await trio.sleep(TTL_S + 1)
    with pytest.raises(PermissionMissing):
        await shown.find(f".synapse/by-id/{odd}")
    with pytest.raises(NameTooLong):
        await shown.find(f".synapse/by-id/syn{'9' * 300}")


async def test_a_folder_keeps_its_number_while_the_kernel_knows_it(api, shown, clock):
    folder = api.folder(api.root_id, "d")
    first = await shown.find(f".synapse/by-id/{folder}")
    await trio.sleep(TTL_S + 1)
    assert await shown.find(f".synapse/by-id/{folder}") is first


async def test_what_is_reached_by_id_does_not_draw_the_background_elsewhere(api, shown, clock):
    elsewhere = api.folder("", "another project", kind="Project")
    api.folder(elsewhere, "of others")
    inner = api.folder(api.root_id, "d")
    api.folder(inner, "e")
    assert await shown.names(f".synapse/by-id/{elsewhere}") == ["of others"]
    assert await shown.names() == ["d"]
    assert await shown.names(f".synapse/by-id/{inner}") == ["e"]
    assert shown.location.index.folder_paths() == {api.root_id: "/", inner: "/d"}


async def test_all_versions_of_a_file_are_listed_and_read(api, shown, clock):
    entity_id = api.file(api.root_id, "x", b"v1")
    for number in range(2, 121):
        api.upload(entity_id, b"v%d" % number)
    versions = f".synapse/versions/{entity_id}"
    assert await shown.names(versions) == [str(number) for number in range(120, 0, -1)]
    assert api.calls["versions"] == 3
    assert await shown.read(f"{versions}/1") == b"v1"
    assert await shown.read(f"{versions}/120") == b"v120"
    assert (await shown.stat(f"{versions}/99")).size_bytes == 3
    for name in ("0", "01", "x", "121"):
        assert await shown.find(f"{versions}/{name}") is None
    folder = api.folder(api.root_id, "d")
    assert await shown.find(f".synapse/versions/{folder}") is None


async def test_a_version_made_later_is_found_at_once_and_old_ones_stay(api, shown, clock):
    entity_id = api.file(api.root_id, "x", b"v1")
    versions = f".synapse/versions/{entity_id}"
    assert await shown.names(versions) == ["1"]
    old = await shown.stat(f"{versions}/1")
    shown.tree.inodes.remember(old)
    api.upload(entity_id, b"v2")
    assert await shown.read(f"{versions}/2") == b"v2"
    await trio.sleep(TTL_S + 1)
    assert await shown.names(versions) == ["2", "1"]
    assert await shown.find(f"{versions}/1") is old


async def test_what_the_index_knows_is_listed_by_id(api, shown, clock):
    ids = [api.file(api.root_id, "x"), api.folder(api.root_id, "d")]
    assert await shown.names(".synapse/by-id") == []
    await shown.names()
    await trio.sleep(TTL_S + 1)
    assert sorted(await shown.names(".synapse/by-id")) == sorted(ids)
    assert await shown.names(".synapse/versions") == ids[:1]
