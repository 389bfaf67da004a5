"""What the kernel knows keeps its number, however names were found and listings were renewed."""

import pytest
import trio

from stsfs.vfs import probes
from stsfs.vfs.listing import ENTRY_BYTES, LISTING_BYTES
from stsfs.vfs.nodes import Directory, Site
from stsfs.vfs.tree import Tree
from tests.fakes import Fault, MemoryStore

TTL_S = 30.0


@pytest.fixture
def store():
    return MemoryStore(page_keys=10)


@pytest.fixture
def tree(store):
    site = Site(1, store, "", frozenset({b"owner.txt"}))
    return Tree(site, metadata_ttl_s=TTL_S)


async def known(tree, name, parent=None):
    """The node of a name, which the kernel refers to from now on."""
    node, _ = await tree.lookup(parent or tree.inodes.root, name)
    if node is not None:
        tree.inodes.remember(node)
    return node


def fill(store, prefix="", count=30):
    for number in range(count):
        store.put(f"{prefix}n{number:02d}")


async def all_pages(tree, directory):
    listing, index = await tree.listing(directory), 0
    while not listing.complete:
        await tree.entries(listing, index)
        index = len(listing.entries)
    return listing


async def test_beyond_the_first_page_names_keep_their_inodes_over_listings(
    store, tree, autojump_clock
):
    fill(store)
    store.put("z/x")
    file, directory = await known(tree, b"n25"), await known(tree, b"z")
    assert isinstance(directory, Directory)
    for _ in range(3):
        await trio.sleep(TTL_S + 1)
        assert await known(tree, b"n25") is file
        assert await known(tree, b"z") is directory
        listing = await all_pages(tree, tree.inodes.root)
        assert listing.find(b"n25") is file
        assert listing.find(b"z") is directory


async def test_names_keep_their_inodes_when_the_listing_was_forgotten(store, tree, autojump_clock):
    tree.listed.limit(LISTING_BYTES + 5 * ENTRY_BYTES)
    fill(store, "d/", 5)
    fill(store, "e/", 5)
    d = await known(tree, b"d")
    file = await known(tree, b"n01", d)
    await known(tree, b"n01", await known(tree, b"e"))
    calls = store.calls["list_page"]
    assert await known(tree, b"n01", d) is file
    assert store.calls["list_page"] > calls


async def test_a_changed_object_beyond_the_first_page_has_a_new_inode(store, tree, autojump_clock):
    fill(store)
    file = await known(tree, b"n25")
    store.put("n25", b"changed")
    await trio.sleep(TTL_S + 1)
    assert (await known(tree, b"n25")).inode != file.inode


async def test_what_the_kernel_has_forgotten_is_not_kept(store, tree, autojump_clock):
    fill(store)
    before = len(tree.inodes)
    node = await known(tree, b"n25")
    await known(tree, b"n25")
    tree.inodes.forget(node.inode, 2)
    assert len(tree.inodes) == before
    assert tree.inodes.root.looked_up == {}


async def test_forgetting_an_old_version_leaves_the_new_one_known(store, tree, autojump_clock):
    store.put("x", b"1")
    old = await known(tree, b"x")
    store.put("x", b"2")
    tree.outdate(old)
    new = await known(tree, b"x")
    tree.inodes.forget(old.inode, 1)
    assert tree.inodes.root.looked_up == {b"x": new}


async def test_a_reserved_name_is_reserved_in_the_root_only(store, tree, autojump_clock):
    store.put("owner.txt")
    fill(store, "d/")
    store.put("d/owner.txt")
    assert await known(tree, b"owner.txt") is None
    assert await known(tree, b"owner.txt", await known(tree, b"d")) is not None


async def test_a_name_told_long_ago_is_asked_for_again_and_not_taken_for_absent(
    store, tree, autojump_clock, monkeypatch
):
    monkeypatch.setattr(probes, "NAMES_MAX", 4)
    fill(store)
    for stem in ("s", "t"):
        for suffix in ("", ".a", ".b"):
            store.put(stem + suffix)
    for name in (b"s", b"t", b"s.a"):
        assert await known(tree, name) is not None


async def test_racing_listings_give_one_answer(store, tree, autojump_clock):
    """The first asker is cancelled while others wait and more arrive: all see the same nodes."""
    store.put("x")
    store.script("list_page", Fault(delay_s=10), Fault(delay_s=1), Fault(delay_s=2))
    nodes = []

    async def ask(at_s):
        await trio.sleep(at_s)
        nodes.append(await known(tree, b"x"))

    async with trio.open_nursery() as nursery:
        for at_s in (1, 2, 5, 5, 6):
            nursery.start_soon(ask, at_s)
        with trio.move_on_after(5):
            await tree.lookup(tree.inodes.root, b"x")
    assert len(nodes) == 5
    assert {node.inode for node in nodes} == {nodes[0].inode}
