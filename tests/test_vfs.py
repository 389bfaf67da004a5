"""Opens see the newest version, handles stay with theirs."""

import os

import pytest
import trio

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.errors import (
    AccessDenied,
    IsADirectory,
    NotADirectory,
    SessionExpired,
    StaleVersion,
    StoreFailure,
)
from stsfs.vfs.nodes import ROOT_INODE, Directory, Site
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import SUCCESSIONS_MAX, VOUCHED_S, Vfs
from tests.fakes import Fault, MemoryStore, pattern

CALLER, SOMEONE_ELSE = 4711, 4712
TTL_S = 30.0
SIZE_BYTES = 1 << 20
OLD, NEW = pattern("old", SIZE_BYTES), pattern("new", SIZE_BYTES)


@pytest.fixture
def store():
    made = MemoryStore()
    made.put("x", OLD)
    return made


@pytest.fixture
async def cache(store, nursery):
    made = BlockCache(BlockPool(budget_bytes=8 << 20, block_bytes=1 << 16), store)
    await nursery.start(made.run)
    return made


@pytest.fixture
def tree(store):
    return Tree(Site(1, store, ""), metadata_ttl_s=TTL_S)


@pytest.fixture
def vfs(tree, cache):
    return Vfs(tree, cache)


async def look_up(vfs, name=b"x", caller=CALLER):
    node, _ = await vfs.lookup(ROOT_INODE, name, caller)
    return node


async def opened(vfs, name=b"x", flags=0):
    return await vfs.open((await look_up(vfs, name)).inode, flags, CALLER)


async def test_an_object_put_back_to_its_old_bytes_is_readable_at_once(store, vfs):
    far, count = SIZE_BYTES - 10, 10
    handle = await opened(vfs)
    store.put("x", NEW)
    with pytest.raises(StaleVersion):
        await vfs.read(handle, far, count)
    store.put("x", OLD)
    again = await opened(vfs)
    for each in (again, handle):
        assert await vfs.read(each, far, count) == OLD[far:]


async def test_an_open_sees_what_was_written_since_the_listing(store, vfs, autojump_clock):
    outdated = await look_up(vfs)
    store.put("x", NEW)
    with pytest.raises(StaleVersion):
        await vfs.open(outdated.inode, 0, CALLER)
    handle = await opened(vfs)  # the kernel looks the name up again
    assert bytes(await vfs.read(handle, 0, 4096)) == NEW[:4096]
    vfs.release(handle)


async def test_an_open_of_a_deleted_file_is_stale_and_the_name_is_gone(store, vfs, autojump_clock):
    node = await look_up(vfs)
    store.delete("x")
    with pytest.raises(StaleVersion):
        await vfs.open(node.inode, 0, CALLER)
    assert await look_up(vfs) is None


async def test_a_handle_stays_with_its_version(store, vfs, autojump_clock):
    handle = await opened(vfs)
    assert bytes(await vfs.read(handle, 0, 4096)) == OLD[:4096]
    store.put("x", NEW)
    assert bytes(await vfs.read(handle, 0, 4096)) == OLD[:4096]
    with pytest.raises(StaleVersion):
        await vfs.read(handle, SIZE_BYTES // 2, 4096)
    newer = await opened(vfs)
    assert bytes(await vfs.read(newer, SIZE_BYTES // 2, 10)) == NEW[SIZE_BYTES // 2 :][:10]
    assert bytes(await vfs.read(handle, 0, 4096)) == OLD[:4096]
    vfs.release(handle)
    vfs.release(newer)


async def test_a_read_that_finds_its_version_gone_makes_the_next_lookup_ask(
    store, vfs, autojump_clock
):
    old = await look_up(vfs)
    handle = await vfs.open(old.inode, 0, CALLER)
    store.put("x", NEW)
    with pytest.raises(StaleVersion):
        await vfs.read(handle, SIZE_BYTES // 2, 4096)
    new = await look_up(vfs)
    assert new.inode != old.inode
    vfs.release(handle)


async def test_an_object_put_back_as_it_was_is_the_same_version(store, vfs, autojump_clock):
    before = await look_up(vfs)
    store.put("x", NEW)
    with pytest.raises(StaleVersion):
        await vfs.open(before.inode, 0, CALLER)
    store.put("x", OLD)
    await trio.sleep(TTL_S + 1)
    assert (await look_up(vfs)).inode == before.inode
    vfs.release(await opened(vfs))


async def test_a_name_replaced_all_the_time_is_still_opened(store, vfs, autojump_clock):
    """The kernel repeats an open only once, so the lookup follows the replacements itself."""
    node = await look_up(vfs)
    versions = [pattern(number, 5000) for number in range(5)]
    store.put("x", versions[0])
    with pytest.raises(StaleVersion):
        await vfs.open(node.inode, 0, CALLER)
    pending = versions[1:]
    list_page = store.list_page

    async def list_then_replaced(prefix, **options):
        page = await list_page(prefix, **options)
        if pending:
            store.put("x", pending.pop(0))
        return page

    store.list_page = list_then_replaced
    handle = await opened(vfs)
    assert bytes(await vfs.read(handle, 0, 5000)) == versions[-1]
    vfs.release(handle)


async def test_a_listing_from_before_a_replacement_does_not_bring_the_old_version_back(
    store, vfs, autojump_clock
):
    node = await look_up(vfs)
    await trio.sleep(TTL_S + 1)
    list_page = store.list_page

    async def answered_late(prefix, **options):
        page = await list_page(prefix, **options)
        await trio.sleep(5)
        return page

    store.list_page = answered_late
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_up, vfs, b"x", SOMEONE_ELSE)
        await trio.sleep(1)
        store.put("x", NEW)
        store.list_page = list_page
        with pytest.raises(StaleVersion):
            await vfs.open(node.inode, 0, CALLER)
        handle = await opened(vfs)
    assert bytes(await vfs.read(handle, 0, 4096)) == NEW[:4096]
    vfs.release(handle)


async def test_a_repeated_open_does_not_find_what_was_confirmed_for_another_and_is_gone(
    store, vfs, autojump_clock
):
    node = await look_up(vfs)
    store.put("x", pattern("second", SIZE_BYTES))
    with pytest.raises(StaleVersion):
        await vfs.open(node.inode, 0, SOMEONE_ELSE)
    assert await look_up(vfs, caller=SOMEONE_ELSE) is not node
    store.put("x", NEW)
    with pytest.raises(StaleVersion):
        await vfs.open(node.inode, 0, CALLER)
    handle = await opened(vfs)
    assert bytes(await vfs.read(handle, 0, 4096)) == NEW[:4096]
    vfs.release(handle)


async def test_a_page_from_before_a_replacement_is_read_past_by_a_repeated_open(store, vfs):
    """It brings the old version back, which the server denies: until a page does not."""
    node = await look_up(vfs)
    list_page = store.list_page
    old_pages = [await list_page("")] * 2
    store.put("x", NEW)
    with pytest.raises(StaleVersion):
        await vfs.open(node.inode, 0, CALLER)

    async def answered_by_an_old_page(prefix, **options):
        return old_pages.pop() if old_pages else await list_page(prefix, **options)

    store.list_page = answered_by_an_old_page
    new = await look_up(vfs)
    assert not old_pages
    vfs.release(await vfs.open(new.inode, 0, CALLER))


async def test_a_lookup_does_not_follow_replacements_for_ever(store, vfs, autojump_clock):
    node = await look_up(vfs)
    store.delete("x")
    with pytest.raises(StaleVersion):
        await vfs.open(node.inode, 0, CALLER)
    list_page, numbers = store.list_page, iter(range(10_000))

    async def list_then_replaced(prefix, **options):
        store.put("x", pattern(next(numbers), 5000))
        page = await list_page(prefix, **options)
        store.put("x", pattern(next(numbers), 5000))
        return page

    store.list_page = list_then_replaced
    assert await look_up(vfs) is not None
    assert next(numbers) <= 2 * (SUCCESSIONS_MAX + 1)


async def test_what_a_lookup_has_confirmed_its_open_does_not_ask_again(store, vfs, autojump_clock):
    node = await look_up(vfs)
    store.put("x", NEW)
    with pytest.raises(StaleVersion):
        await vfs.open(node.inode, 0, CALLER)
    new = await look_up(vfs)
    asked = store.calls["confirm"] + store.calls["read_range"]
    handle = await vfs.open(new.inode, 0, CALLER)
    assert store.calls["confirm"] + store.calls["read_range"] == asked
    vfs.release(handle)


@pytest.mark.parametrize(("caller", "later_s"), [(SOMEONE_ELSE, 0), (CALLER, 2 * VOUCHED_S)])
async def test_a_lookup_confirms_for_its_own_open_only(store, vfs, autojump_clock, caller, later_s):
    node = await look_up(vfs)
    store.put("x", NEW)
    with pytest.raises(StaleVersion):
        await vfs.open(node.inode, 0, CALLER)
    new = await look_up(vfs)
    store.put("x", OLD)
    await trio.sleep(later_s)
    with pytest.raises(StaleVersion):
        await vfs.open(new.inode, 0, caller)


async def test_what_a_lookup_has_confirmed_counts_for_the_next_open_only(store, vfs):
    """Also if that open fails: by the next one the object may have been replaced again."""
    node = await look_up(vfs)
    version_2 = pattern("second", SIZE_BYTES)
    store.put("x", version_2)
    with pytest.raises(StaleVersion):
        await vfs.open(node.inode, 0, CALLER)
    second = await look_up(vfs)
    store.put("x", NEW)
    with pytest.raises(StaleVersion):
        await vfs.open(second.inode, 0, SOMEONE_ELSE)
    with pytest.raises(StaleVersion):
        await vfs.open(second.inode, 0, CALLER)
    store.put("x", version_2)
    assert await look_up(vfs, caller=SOMEONE_ELSE) is second
    store.put("x", NEW)
    with pytest.raises(StaleVersion):
        await vfs.open(second.inode, 0, CALLER)


async def test_a_lookup_of_stat_confirms_nothing_for_a_later_open(store, vfs):
    node = await look_up(vfs)
    store.put("x", pattern("second", SIZE_BYTES))
    with pytest.raises(StaleVersion):
        await vfs.open(node.inode, 0, SOMEONE_ELSE)
    second = await look_up(vfs)
    store.put("x", NEW)
    with pytest.raises(StaleVersion):
        await vfs.open(second.inode, 0, CALLER)


async def test_each_open_asks_however_fresh_the_listing_is(store, vfs, autojump_clock):
    for number in range(3):
        vfs.release(await opened(vfs))
        assert store.calls["confirm"] + store.calls["read_range"] == number + 1
    assert store.calls["list_page"] == 1


async def test_with_trusted_listings_an_open_asks_nothing(store, tree, cache, autojump_clock):
    vfs = Vfs(tree, cache, trust_listings=True)
    handle = await opened(vfs)
    assert store.calls == {"list_page": 1}
    vfs.release(handle)


async def test_with_the_session_over_what_is_cached_stays_readable(store, vfs, autojump_clock):
    handle = await opened(vfs)
    await vfs.read(handle, 0, 4096)
    vfs.release(handle)
    over = Fault(SessionExpired("over"))
    store.script("confirm", over)
    store.script("read_range", over)
    handle = await opened(vfs)
    assert bytes(await vfs.read(handle, 0, 4096)) == OLD[:4096]
    with pytest.raises(SessionExpired):
        await vfs.read(handle, SIZE_BYTES // 2, 4096)
    vfs.release(handle)


@pytest.mark.parametrize("error", [AccessDenied("no"), StoreFailure("down")])
async def test_an_open_that_fails_leaves_nothing_behind(store, vfs, cache, autojump_clock, error):
    node = await look_up(vfs)
    store.script("read_range", Fault(error))
    with pytest.raises(type(error)):
        await vfs.open(node.inode, 0, CALLER)
    assert vfs.open_files == 0
    assert cache.enter(node.version).users == 1
    await trio.sleep(2)
    handle = await vfs.open(node.inode, 0, CALLER)
    assert bytes(await vfs.read(handle, 0, 10)) == OLD[:10]
    vfs.release(handle)


async def test_an_open_that_is_cancelled_leaves_nothing_behind(store, vfs, cache, autojump_clock):
    node = await look_up(vfs)
    store.script("read_range", Fault(delay_s=100))
    with trio.move_on_after(1) as scope:
        await vfs.open(node.inode, 0, CALLER)
    assert scope.cancelled_caught
    assert vfs.open_files == 0
    assert cache.enter(node.version).users == 1


async def test_o_direct_leaves_nothing_in_the_cache(store, vfs, cache, autojump_clock):
    handle = await opened(vfs, flags=os.O_DIRECT)
    for _ in range(2):
        assert bytes(await vfs.read(handle, 10, 20)) == OLD[10:30]
    assert store.calls["read_range"] == 2
    assert cache.pool.used_bytes == 0
    vfs.release(handle)


async def test_a_directory_is_not_opened_as_a_file(store, vfs):
    with pytest.raises(IsADirectory):
        await vfs.open(ROOT_INODE, 0, CALLER)
    with pytest.raises(NotADirectory):
        await vfs.open_directory((await look_up(vfs)).inode)


async def read_names(vfs, handle, start=0):
    names, nodes = [], []
    while True:
        batch = list(await vfs.read_directory(handle, start))
        if not batch:
            return names, nodes
        names += [node.name.decode() for _, node in batch]
        nodes += [node for _, node in batch]
        start = batch[-1][0]


async def test_a_directory_is_read_to_its_end_and_again_from_the_beginning(
    store, vfs, autojump_clock
):
    store.page_keys = 7
    for number in range(50):
        store.put(f"d/n{number:02d}")
    directory = await look_up(vfs, b"d")
    assert isinstance(directory, Directory)
    handle = await vfs.open_directory(directory.inode)
    expected = [f"n{number:02d}" for number in range(50)]
    assert (await read_names(vfs, handle))[0] == expected
    assert 0 < vfs.entry_ttl_s(handle, 0) <= TTL_S
    store.put("d/z")
    await trio.sleep(TTL_S + 1)
    assert (await read_names(vfs, handle, start=48))[0] == expected[48:]  # goes on as it began
    assert (await read_names(vfs, handle))[0] == [*expected, "z"]  # rewinddir
    vfs.close_directory(handle)


async def test_a_reader_of_a_directory_goes_on_after_a_page_that_failed(store, vfs, autojump_clock):
    store.page_keys = 3
    for number in range(9):
        store.put(f"n{number}")
    handle = await vfs.open_directory(ROOT_INODE)
    first = list(await vfs.read_directory(handle, 0))
    store.script("list_page", Fault(StoreFailure("down")))
    with pytest.raises(StoreFailure):
        await vfs.read_directory(handle, first[-1][0])
    names, _ = await read_names(vfs, handle, start=first[-1][0])
    assert [n.name.decode() for _, n in first] + names == [*(f"n{i}" for i in range(9)), "x"]
    vfs.close_directory(handle)


async def test_references_of_the_kernel_return_to_none(store, vfs, tree, autojump_clock):
    store.put("d/y")
    node = await look_up(vfs)
    directory = await look_up(vfs, b"d")
    handle = await vfs.open_directory(ROOT_INODE)
    for listed in (await read_names(vfs, handle))[1]:
        vfs.refer(listed)
    vfs.close_directory(handle)
    assert len(tree.inodes) == 3
    assert vfs.node(node.inode) is node
    vfs.forget(node.inode, 2)
    vfs.forget(directory.inode, 2)
    assert len(tree.inodes) == 1
    assert tree.inodes.root.looked_up == {}
    with pytest.raises(StaleVersion):
        vfs.node(node.inode)


async def test_paths_in_messages_never_fail(store, vfs, autojump_clock):
    store.put("d/ü\n")
    directory = await look_up(vfs, b"d")
    node, _ = await vfs.lookup(directory.inode, "ü\n".encode(), CALLER)
    assert vfs.path(node.inode) == "/d/ü\n"
    assert vfs.path(ROOT_INODE) == "/"
    assert vfs.path(999) == "inode 999"
    file, listed = await opened(vfs), await vfs.open_directory(directory.inode)
    assert vfs.handle_path(file) == "/x"
    assert vfs.handle_path(listed) == "/d"
    assert vfs.handle_path(999) == "handle 999"
