"""Directories that are made at the start, above what several locations show."""

import pytest

from stsfs.errors import StaleVersion
from stsfs.vfs.nodes import Directory, File, Site, new_number
from stsfs.vfs.static_view import StaticView
from stsfs.vfs.tree import Tree
from tests.fakes import MemoryStore


@pytest.fixture
def store():
    made = MemoryStore()
    made.put("base/x", b"1")
    return made


@pytest.fixture
def static(store):
    return StaticView(Site(0, store, "", modified_ns=7))


@pytest.fixture
def tree(static):
    return Tree(static.root, metadata_ttl_s=30)


async def test_locations_lie_at_their_paths_and_keep_their_own_view(static, store, tree):
    inner = static.add_directory(static.add_directory(static.root, b"a"), b"b")
    assert static.add_directory(static.root, b"a") is inner.parent
    site = Site(1, store, "base/")
    static.add(Directory(new_number(), site, "base/", inner, b"here"))
    node = tree.inodes.root
    for name in (b"a", b"b", b"here", b"x"):
        node, _ = await tree.lookup(node, name)
    assert node.version.key == "base/x"
    assert (await tree.lookup(inner, b"absent"))[0] is None
    assert (await tree.lookup(static.root, b"x"))[0] is None
    assert inner.modified_ns == 7
    assert store.calls["list_page"] == 1


async def test_entries_are_sorted_and_complete(static, tree):
    for name in (b"b", b"c", b"a"):
        static.add_directory(static.root, name)
    listing = await tree.listing(static.root)
    entries = await tree.entries(listing, 0)
    assert [node.name for _, node in entries] == [b"a", b"b", b"c"]
    assert list(await tree.entries(listing, 3)) == []
    assert static.children(static.root).keys() == {b"a", b"b", b"c"}
    assert tree.distrust(static.root)
    assert (await tree.lookup(static.root, b"a"))[0] is static.children(static.root)[b"a"]


async def test_a_file_that_is_gone_says_so_to_each_who_opens_it(static, store, tree):
    version = store.put("k", b"1")
    file = File(new_number(), static.root, b"f", version, 0, "")
    static.add(file)
    tree.outdate(file)
    found, _ = await tree.lookup(static.root, b"f")
    assert found is file
    assert not found.outdated
    error = StaleVersion("gone")
    assert await static.gone(file, error) is error
    assert await static.resolve(file) is False
    assert await static.properties(file) == {}
