"""A folder as it was: files in their versions of then, without what was made later."""

import pytest
import trio

from stsfs.errors import SynapseUnavailable
from tests.entities_fakes import TTL_S, FakeApi, Shown, wall_clock
from tests.fakes import Fault, MemoryStore


@pytest.fixture
def clock(autojump_clock, monkeypatch):
    wall_clock(monkeypatch, autojump_clock)
    return autojump_clock


@pytest.fixture
def api():
    return FakeApi(MemoryStore())


@pytest.fixture
async def mount(api, nursery, clock):
    async def make(unix_s):
        made = Shown(api, api.store, as_of_unix_s=unix_s)
        await nursery.start(made.cache.run)
        return made

    return make


async def test_files_are_shown_in_their_versions_of_then(api, clock, mount):
    file = api.file(api.root_id, "x", b"v1")
    folder = api.folder(api.root_id, "d")
    api.file(folder, "same", b"same")
    api.upload(file, b"version 2")
    then = api.now_unix_s()
    api.upload(file, b"v3")
    api.file(api.root_id, "later")
    api.folder(api.root_id, "later folder")
    shown = await mount(then)
    assert await shown.names() == ["d", "x"]
    assert (await shown.stat("x")).size_bytes == 9
    assert await shown.read("x") == b"version 2"
    assert await shown.read("d/same") == b"same"
    assert await shown.find("later") is None


async def test_what_changes_later_is_not_seen_and_costs_nothing_twice(api, clock, mount):
    file = api.file(api.root_id, "x", b"v1")
    shown = await mount(api.now_unix_s())
    before = await shown.stat("x")
    api.upload(file, b"v2")
    for _ in range(3):
        await trio.sleep(TTL_S + 1)
        assert (await shown.stat("x")).file_key == before.file_key
    assert api.calls["versions"] == 1
    assert await shown.read("x") == b"v1"


async def test_a_name_beyond_the_pages_read_is_looked_up_as_it_was(api, clock, mount):
    for number in range(60):
        api.file(api.root_id, f"f{number:02d}", b"old")
    then = api.now_unix_s()
    api.upload(next(reversed(api.entities)), b"newer")
    api.file(api.root_id, "g", b"later")
    shown = await mount(then)
    assert await shown.read("f59") == b"old"
    assert await shown.find("g") is None


async def test_the_version_may_lie_pages_back_and_an_outage_is_told_as_one(api, clock, mount):
    files = [api.file(api.root_id, name, b"first") for name in ("x", "y")]
    then = api.now_unix_s()
    for number in range(120):
        for file in files:
            api.upload(file, b"%d" % number)
    shown = await mount(then)
    api.script("versions", *[Fault(SynapseUnavailable("down"), delay_s=1)] * 2)
    with pytest.raises(SynapseUnavailable):
        await shown.names()
    assert await shown.read("x") == await shown.read("y") == b"first"
