"""A lock as a directory: what it shows, what that costs, and what is said of what has changed."""

from dataclasses import replace

import pytest

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.entities.lock_file import Lock, LockedFile
from stsfs.entities.lock_view import LockSource, LockView
from stsfs.entities.objects import Objects, Outside
from stsfs.errors import (
    AccessDenied,
    BadArgument,
    EntityNotFound,
    PermissionMissing,
    StaleVersion,
    StoreFailure,
)
from stsfs.vfs.nodes import ROOT_INODE, Directory, Site, new_number, path_of
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs
from tests.entities_fakes import BUCKET, PREFIX, DirectIndex, FakeApi
from tests.fakes import Fault, MemoryStore

PINNED_UNIX_S = 1_700_000_000.0


class Mounted:
    """A lock of some files of a fake Synapse, mounted without a kernel."""

    def __init__(self, api, store, files, *, outside=None, by_keys=False):
        lock = Lock("syn1", BUCKET, "base", None, None, "entities", PINNED_UNIX_S, tuple(files))
        index = DirectIndex(None)
        objects = Objects(1, BUCKET, PREFIX, store, index, outside=outside)
        if by_keys:
            self.source = LockSource(replace(lock, view="keys"), 1, store)
        else:
            self.source = LockSource(lock, 1, store, api, objects, index)
        self.view = LockView(self.source)
        self.tree = Tree(self.view.root, metadata_ttl_s=0)
        self.cache = BlockCache(BlockPool(budget_bytes=4 << 20, block_bytes=1 << 16), store)
        self.vfs = Vfs(self.tree, self.cache)

    async def find(self, path):
        inode = ROOT_INODE
        for name in path.split("/"):
            node, _ = await self.vfs.lookup(inode, name.encode(), 1)
            if node is None:
                return None
            inode = node.inode
        return node

    async def read(self, path):
        handle = await self.vfs.open((await self.find(path)).inode, 0, 1)
        data = bytes(await self.vfs.read(handle, 0, 1 << 20))
        self.vfs.release(handle)
        return data


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def api(store):
    return FakeApi(store)


@pytest.fixture
def make(api, store, nursery):
    """make(*files) -> Mounted."""

    async def make(*files, **options):
        made = Mounted(api, store, files, **options)
        await nursery.start(made.cache.run)
        return made

    return make


def locked(api, store, path, entity_id, **changes):
    """What a pin of an entity writes down now."""
    header = api.header(entity_id)
    handle = api.entities[entity_id].handles[header.version]
    etag = store.objects[handle.key].etag if handle.bucket == BUCKET else ""
    made = LockedFile(
        path,
        entity_id,
        header.version,
        handle.size_bytes,
        handle.md5,
        etag,
        handle.key if etag else "",
        handle.created_unix_s,
    )
    return replace(made, **changes)


async def test_all_is_shown_without_a_word_to_synapse_or_the_store(api, store, make):
    one = api.file(api.root_id, "one", b"1")
    two = api.file(api.root_id, "two", b"22")
    shown = await make(locked(api, store, "a/b/one", one), locked(api, store, "two", two))
    node = await shown.find("a/b/one")
    assert (path_of(node), node.size_bytes, node.md5) == (
        "/a/b/one", 1, api.entities[one].handles[1].md5
    )  # fmt: skip
    assert node.modified_ns == int(api.entities[one].handles[1].created_unix_s) * 10**9
    assert (await shown.find("a")).modified_ns == int(PINNED_UNIX_S) * 10**9
    assert await shown.find("a/two") is None
    assert dict(await shown.vfs.properties(node)) == {
        "synapse.id": one, "synapse.version": "1", "synapse.md5": node.md5
    }  # fmt: skip
    assert not api.calls
    assert not store.calls


async def test_the_pinned_version_is_read_whatever_synapse_has_now(
    api, store, make, autojump_clock
):
    entity_id = api.file(api.root_id, "x", b"pinned")
    shown = await make(locked(api, store, "x", entity_id))
    api.upload(entity_id, b"a newer version")
    api.invisible.add(entity_id)
    assert await shown.read("x") == b"pinned"
    assert not api.calls


async def test_a_replaced_object_is_stale_with_both_versions_named_each_time(
    api, store, make, autojump_clock
):
    entity_id = api.file(api.root_id, "x", b"pinned")
    pinned = locked(api, store, "x", entity_id)
    shown = await make(pinned)
    api.upload(entity_id, b"version two")
    new = store.put(pinned.key, b"other bytes")
    for _ in range(2):
        with pytest.raises(StaleVersion) as caught:
            await shown.read("x")
        told = str(caught.value)
        assert f"version 1 of {entity_id}, 6 bytes, ETag {pinned.etag}" in told
        assert f"its object has now 11 bytes, ETag {new.etag}" in told
        assert f"{entity_id} is at version 2" in told
        assert "2023-11-14" in told


async def test_what_has_changed_is_told_as_far_as_it_can_be_had(api, store, make, autojump_clock):
    entity_id = api.file(api.root_id, "x", b"pinned")
    pinned = locked(api, store, "x", entity_id)
    shown = await make(pinned)
    store.delete(pinned.key)
    api.delete(entity_id)
    with pytest.raises(StaleVersion, match=r"there is no object .* does not exist"):
        await shown.read("x")
    store.script("list_page", Fault(StoreFailure("The store is on fire.")))
    with pytest.raises(StaleVersion, match="The store is on fire"):
        await shown.read("x")


async def test_keys_are_pinned_without_synapse(store, make, api, autojump_clock):
    version = store.put("base/d/x", b"pinned")
    file = LockedFile("d/x", "", None, 6, "", version.etag, version.key, PINNED_UNIX_S)
    shown = await make(file, by_keys=True)
    assert await shown.read("d/x") == b"pinned"
    assert dict(await shown.vfs.properties(await shown.find("d/x"))) == {}
    store.put("base/d/x", b"changed!")
    with pytest.raises(StaleVersion, match="has now 8 bytes"):
        await shown.read("d/x")
    assert not api.calls


def outside_of(size_bytes):
    async def probe(name):
        return "e", size_bytes, PINNED_UNIX_S

    return Outside(0, probe)


@pytest.fixture
def elsewhere(api):
    """A file whose bytes lie in another bucket."""
    return api.file(api.root_id, "x", b"outside", bucket="elsewhere", key="k")


async def test_a_file_outside_is_found_by_its_entity_in_that_version(api, store, make, elsewhere):
    file = locked(api, store, "x", elsewhere)
    api.upload(elsewhere, b"a newer one", bucket="elsewhere", key="k2")
    shown = await make(file, outside=outside_of(7))
    node = await shown.find("x")
    assert node.size_bytes == 7
    assert await shown.view.resolve(node)
    handle = api.entities[elsewhere].handles[1]
    assert node.version.key == f"{elsewhere}/{handle.handle_id}"
    gone = await shown.view.gone(node, StaleVersion("gone"))
    assert f"MD5 {handle.md5}): {elsewhere} is at version 2." in str(gone)


@pytest.mark.parametrize(("changes", "size_bytes"), [({"md5": "0" * 32}, 7), ({}, 8)])
async def test_other_bytes_outside_are_stale(api, store, make, elsewhere, changes, size_bytes):
    file = locked(api, store, "x", elsewhere, **changes)
    shown = await make(file, outside=outside_of(size_bytes))
    with pytest.raises(StaleVersion, match=f"that version is {size_bytes} bytes"):
        await shown.view.resolve(await shown.find("x"))


async def test_a_file_outside_that_may_not_be_read_says_why(api, store, make, elsewhere):
    file = locked(api, store, "x", elsewhere)
    shown = await make(file)
    with pytest.raises(AccessDenied, match="--outside fetch"):
        await shown.view.resolve(await shown.find("x"))
    api.invisible.add(elsewhere)
    with pytest.raises(PermissionMissing):
        await shown.view.resolve(await shown.find("x"))
    api.invisible.clear()
    api.delete(elsewhere)
    with pytest.raises(EntityNotFound):
        await shown.view.resolve(await shown.find("x"))
    by_keys = await make(file, by_keys=True)
    with pytest.raises(AccessDenied, match="from Synapse alone"):
        await by_keys.view.resolve(await by_keys.find("x"))


async def test_a_key_without_an_etag_is_no_version(api, store, make):
    file = LockedFile("x", "", None, 1, "", "", "base/x", PINNED_UNIX_S)
    with pytest.raises(BadArgument, match="no ETag for x"):
        await make(file)


async def test_a_lock_can_lie_beside_other_locations(api, store, make):
    above = Directory(ROOT_INODE, Site(0, store, ""), "", None, b"")
    source = (await make(locked(api, store, "x", api.file(api.root_id, "x")))).source
    below = LockView(source, above, b"data")
    (node,) = below.children(below.root).values()
    assert path_of(node) == "/data/x"
    assert ROOT_INODE < below.root.inode < new_number()
