"""What lookups and listings cost, and which inode a name has."""

import pytest
import trio

from stsfs import supervisor
from stsfs.errors import NameTooLong, NotADirectory, SessionExpired, StaleVersion, StoreFailure
from stsfs.vfs import probes
from stsfs.vfs.listing import ENTRY_BYTES, FRESH_S, LISTING_BYTES
from stsfs.vfs.nodes import ROOT_INODE, Directory, Site
from stsfs.vfs.tree import STALE_SERVED_S, Tree
from tests.fakes import Fault, MemoryStore
from tests.faults import Hold

TTL_S = 30.0


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def tree(store):
    return Tree(Site(1, store, "base/"), metadata_ttl_s=TTL_S)


async def find(tree, path):
    """The node of a path from the root, or None."""
    node = tree.inodes.root
    for name in path.split("/"):
        node, _ = await tree.lookup(node, name.encode())
        if node is None:
            return None
    return node


async def test_one_listing_answers_every_name_of_a_directory(store, tree, autojump_clock):
    for number in range(500):
        store.put(f"base/d/n{number}")
    for number in range(1000):
        found = await find(tree, f"d/n{number}")
        assert (found is not None) == (number < 500)
    assert store.calls["list_page"] == 2


async def test_a_missing_name_is_asked_once_per_ttl(store, tree, autojump_clock):
    for _ in range(1000):
        assert await find(tree, "absent") is None
    assert store.calls["list_page"] == 1
    await trio.sleep(TTL_S + 1)
    store.put("base/absent")
    assert await find(tree, "absent") is not None
    assert store.calls["list_page"] == 2


async def test_a_name_far_on_in_a_long_directory_costs_two_requests(store, tree, autojump_clock):
    for number in range(5000):
        store.put(f"base/s{number:05d}.bam")
        store.put(f"base/s{number:05d}.bam.bai")
    assert await find(tree, "s04000.bam") is not None
    assert store.calls["list_page"] == 2
    assert await find(tree, "s04000.bam.bai") is not None  # told by the same probe
    assert await find(tree, "s04000.bam.csi") is None
    assert store.calls["list_page"] == 2
    assert await find(tree, "s04999.absent") is None
    assert store.calls["list_page"] == 3


async def test_concurrent_lookups_share_one_request(store, tree, autojump_clock):
    store.put("base/x")
    store.script("list_page", Fault(delay_s=1))
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(find, tree, "x")
    assert store.calls["list_page"] == 1


async def test_a_leader_that_is_cancelled_leaves_the_others_their_answer(
    store, tree, autojump_clock
):
    store.put("base/x")
    store.script("list_page", Fault(delay_s=10))
    answers = []

    async def follow():
        answers.append(await find(tree, "x"))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(follow)
            await find(tree, "x")
    assert answers[0] is not None


async def test_a_listing_that_failed_is_tried_again(store, tree, autojump_clock):
    store.put("base/x")
    store.script("list_page", Fault(StoreFailure("down")))
    with pytest.raises(StoreFailure):
        await find(tree, "x")
    assert await find(tree, "x") is not None


async def test_with_the_session_over_the_old_listing_is_served(store, tree, autojump_clock):
    store.put("base/x")
    before = await find(tree, "x")
    await trio.sleep(TTL_S + 1)
    store.script("list_page", *[Fault(SessionExpired("over"))] * 2)
    assert await find(tree, "x") is before
    assert await find(tree, "x") is before
    await trio.sleep(STALE_SERVED_S + 1)
    assert await find(tree, "x") is before
    assert store.calls["list_page"] == 3
    store.script("list_page", Fault(SessionExpired("over")))
    never_listed = Directory(99, tree.inodes.root.site, "base/d/", tree.inodes.root, b"d")
    with pytest.raises(SessionExpired):
        await tree.listing(never_listed)


async def test_an_unchanged_object_keeps_its_inode_and_a_changed_one_has_a_new_one(
    store, tree, autojump_clock
):
    store.put("base/same", b"1")
    store.put("base/changed", b"1")
    same, changed = await find(tree, "same"), await find(tree, "changed")
    store.put("base/changed", b"2")
    await trio.sleep(TTL_S + 1)
    assert await find(tree, "same") is same
    after = await find(tree, "changed")
    assert after.inode != changed.inode
    assert after.version != changed.version


async def test_an_outdated_version_is_looked_for_at_once(store, tree, autojump_clock):
    store.put("base/x", b"1")
    old = await find(tree, "x")
    new_version = store.put("base/x", b"2")
    tree.outdate(old)
    new = await find(tree, "x")
    assert new.version == new_version
    store.delete("base/x")
    tree.outdate(new)
    assert await find(tree, "x") is None


async def test_directories_keep_their_inode_over_listings(store, tree, autojump_clock):
    store.put("base/d/x")
    before = await find(tree, "d")
    await trio.sleep(TTL_S + 1)
    store.put("base/d/y")
    assert await find(tree, "d") is before


async def test_the_kernel_gives_back_what_it_was_given(store, tree, autojump_clock):
    store.put("base/d/x")
    node = await find(tree, "d/x")
    for _ in range(3):
        tree.inodes.remember(node)
    assert tree.inodes.get(node.inode) is node
    tree.inodes.forget(node.inode, 2)
    tree.inodes.forget(node.inode, 1)
    with pytest.raises(StaleVersion):
        tree.inodes.get(node.inode)
    tree.inodes.forget(ROOT_INODE, 1)
    assert tree.directory(ROOT_INODE) is tree.inodes.root


async def test_names_that_cannot_be_keys_are_absent_without_a_request(store, tree):
    assert (await tree.lookup(tree.inodes.root, b"\xff\xfe"))[0] is None
    with pytest.raises(NameTooLong):
        await tree.lookup(tree.inodes.root, b"n" * 256)
    assert store.calls["list_page"] == 0


async def test_a_file_is_not_a_directory(store, tree):
    store.put("base/x")
    node = await find(tree, "x")
    tree.inodes.remember(node)
    with pytest.raises(NotADirectory):
        tree.directory(node.inode)


async def test_the_next_page_is_under_way_while_one_is_read(store, tree, autojump_clock):
    for number in range(3000):
        store.put(f"base/n{number:04d}")
    async with trio.open_nursery() as nursery:
        await nursery.start(tree.run)
        listing = await tree.listing(tree.inodes.root)
        await tree.entries(listing, 0)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1)
        assert listing.pages == 2
        nursery.cancel_scope.cancel()


async def test_listings_nobody_reads_are_forgotten_when_there_are_too_many(
    store, tree, autojump_clock
):
    tree.listed.limit(20 * (LISTING_BYTES + ENTRY_BYTES))
    for number in range(40):
        store.put(f"base/d{number}/x")
    for number in range(40):
        assert await find(tree, f"d{number}/x") is not None
    assert await find(tree, "d39/x") is not None
    calls = store.calls["list_page"]
    assert await find(tree, "d0/x") is not None
    assert store.calls["list_page"] > calls


def writing(store):
    """A tree whose names are changed."""
    tree = Tree(Site(1, store, "base/"), metadata_ttl_s=TTL_S)
    tree.change()
    return tree


async def test_what_decides_a_change_is_asked_for_once_a_second(store, autojump_clock):
    tree = writing(store)
    root = tree.inodes.root
    for _ in range(3):
        lists = store.calls["list_page"]
        for number in range(200):
            assert await tree.fresh(root, f"new{number}".encode()) is None
        assert store.calls["list_page"] == lists + 1
        await trio.sleep(FRESH_S + 0.1)


async def test_what_another_host_made_is_found_by_a_change_whatever_is_remembered(
    store, autojump_clock
):
    tree = writing(store)
    root = tree.inodes.root
    store.put("base/x")
    assert await find(tree, "file") is None
    await trio.sleep(FRESH_S + 0.1)
    store.put("base/file")
    store.put("base/d/y")
    store.delete("base/x")
    assert (await tree.fresh(root, b"file")).version.key == "base/file"
    assert isinstance(await tree.fresh(root, b"d"), Directory)
    assert await tree.fresh(root, b"x") is None
    assert await find(tree, "x") is None  # who looks is told the same


async def test_in_a_long_directory_one_page_decides_many_changes(store, autojump_clock):
    tree = writing(store)
    root = tree.inodes.root
    for number in range(3500):
        store.put(f"base/n{number:05d}")
    listing = await tree.listing(root)
    while not listing.complete:
        await tree.entries(listing, len(listing.entries))
    await trio.sleep(FRESH_S + 0.1)
    lists = store.calls["list_page"]
    store.put("base/n01000.new")
    for number in range(1000, 1900):
        assert await tree.fresh(root, f"n{number:05d}.new".encode()) is (
            listing.find(b"n01000.new") if number == 1000 else None
        )
    assert store.calls["list_page"] <= lists + 6
    assert listing.find(b"n01000.new") is not None
    lists = store.calls["list_page"]
    for number in range(500, 400, -1):  # in no order to go by: each by itself
        assert await tree.fresh(root, f"n{number:05d}.new".encode()) is None
    assert store.calls["list_page"] == lists + 100


async def test_names_that_many_others_begin_with_are_known_to_a_change(store, autojump_clock):
    """The page that begins at a name does not come to its end: the name is asked for by itself."""
    store.page_keys = 3
    tree = writing(store)
    root = tree.inodes.root
    for suffix in ("", *(f"-{number}" for number in range(9)), "/below"):
        store.put(f"base/name{suffix}")
    assert await tree.fresh(root, b"name!") is None
    assert isinstance(await tree.fresh(root, b"name"), Directory)
    store.delete("base/name/below")
    await trio.sleep(FRESH_S + 0.1)
    assert await tree.fresh(root, b"name!") is None
    assert (await tree.fresh(root, b"name")).version.key == "base/name"


async def test_what_a_page_told_before_a_refresh_decides_nothing_after_it(store, autojump_clock):
    store.page_keys = 3
    tree = writing(store)
    root = tree.inodes.root
    for number in range(9):
        store.put(f"base/n{number}")
    assert await tree.fresh(root, b"n7a") is None
    store.put("base/n7a")
    assert await tree.fresh(root, b"n7a") is None  # within the second
    tree.distrust(root)
    assert await tree.fresh(root, b"n7a") is not None


@pytest.mark.parametrize("page_keys", [1000, 3])
async def test_where_names_change_an_absence_is_believed_for_a_second(
    store, autojump_clock, page_keys
):
    store.page_keys = page_keys
    tree = writing(store)
    for number in range(9):
        store.put(f"base/n{number}")
    node, until_s = await tree.lookup(tree.inodes.root, b"n7a")
    assert node is None
    assert until_s <= trio.current_time() + FRESH_S
    store.put("base/n7a")
    assert await find(tree, "n7a") is None
    await trio.sleep(FRESH_S + 0.1)
    node, until_s = await tree.lookup(tree.inodes.root, b"n7a")
    assert node is not None
    assert until_s > trio.current_time() + FRESH_S


async def test_an_absence_goes_on_being_served_when_the_session_is_over(store, autojump_clock):
    tree = writing(store)
    assert await find(tree, "x") is None
    await trio.sleep(FRESH_S + 0.1)
    store.script("list_page", *[Fault(SessionExpired("over"))] * 2)
    assert await find(tree, "x") is None
    store.script("list_page", *[Fault(SessionExpired("over"))] * 2)
    with pytest.raises(SessionExpired):
        await tree.fresh(tree.inodes.root, b"x")


async def test_a_bug_in_a_page_read_ahead_is_an_error_for_its_readers_only(
    store, tree, nursery, autojump_clock, monkeypatch
):
    monkeypatch.setattr(supervisor, "BUGS", supervisor.BugLog())
    for number in range(2500):
        store.put(f"base/k{number:05d}")
    await nursery.start(tree.run)
    listing = await tree.listing(tree.inodes.root)
    hold = Hold()
    store.script("list_page", Fault(KeyError("a bug"), hold=hold))
    await tree.entries(listing, 500)
    await hold.reached()

    async def read():
        with pytest.raises(StoreFailure, match="met a bug"):
            await tree.entries(listing, 1000)

    async with trio.open_nursery() as readers:
        for _ in range(3):
            readers.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        hold.let_go()
    assert supervisor.BUGS.count == 1
    assert list(await tree.entries(listing, 1000))


async def test_probes_of_all_directories_together_are_bounded(store, autojump_clock, monkeypatch):
    monkeypatch.setattr(probes, "ALL_NAMES_MAX", 50)
    store.page_keys = 1
    tree = Tree(Site(1, store, ""), metadata_ttl_s=TTL_S)
    for directory in range(20):
        for number in range(10):
            store.put(f"d{directory:02}/n{number}")
    for directory in range(20):
        for number in range(1, 10):
            assert await find(tree, f"d{directory:02}/n{number}") is not None
    lists = store.calls["list_page"]
    assert await find(tree, "d19/n9") is not None
    assert store.calls["list_page"] == lists
    assert await find(tree, "d00/n9") is not None
    assert store.calls["list_page"] > lists
