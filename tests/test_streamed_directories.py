"""Directories larger than the memory for names: read to their end, each name once."""

import random

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.vfs.listing import ENTRY_BYTES
from stsfs.vfs.nodes import ROOT_INODE, File, Site, new_number
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs
from tests.fakes import MemoryStore
from tests.faults import Fault

PAGE_KEYS = 10
CALLER = 4711
TTL_S = 60.0


class Mount:
    """A tree over a dict, with pages of ten keys."""

    def __init__(self, *keys, is_changing=False):
        self.store = MemoryStore(page_keys=PAGE_KEYS)
        for key in keys:
            self.store.put(key)
        self.tree = Tree(Site(1, self.store, ""), metadata_ttl_s=TTL_S)
        self.changes = self.tree.change() if is_changing else None
        cache = BlockCache(BlockPool(budget_bytes=1 << 20, block_bytes=1 << 16), self.store)
        self.vfs = Vfs(self.tree, cache)
        self.root = self.tree.inodes.root

    async def reader(self):
        return Reader(self, await self.vfs.open_directory(ROOT_INODE))

    async def find(self, name):
        return (await self.tree.lookup(self.root, name))[0]


class Reader:
    """An open directory."""

    def __init__(self, mount, handle):
        self.vfs, self.handle = mount.vfs, handle
        self.position, self.is_over = 0, False
        self.seen = []
        """Position before and name, in the order in which they came."""

    async def read(self, count):
        """So many entries more, as one call of the kernel takes them."""
        entries = list(await self.vfs.read_directory(self.handle, self.position))[:count]
        for position, node in entries:
            self.seen.append((self.position, node.name))
            self.position = position
        if entries:
            self.vfs.reached(self.handle, *entries[-1])
        self.is_over = not entries

    async def read_all(self, count=7):
        while not self.is_over:
            await self.read(count)
        return self.names

    def seek(self, position):
        self.position, self.is_over, self.seen = position, False, []

    @property
    def names(self):
        return [name for _, name in self.seen]


def keys(count):
    """Files, directories, and objects that come long before the directory of their name."""
    found = []
    for number in range(count):
        found += [f"n{number:04d}", f"n{number:04d}-1", f"n{number:04d}.x"]
        if number % 3 == 0:
            found.append(f"d{number:04d}/x")
        if number % 10 == 0:
            found.append(f"n{number:04d}/below")
    return found


def shown(found):
    """What a directory with these keys has to show."""
    return sorted({key.split("/")[0].encode() for key in found})


@pytest.fixture
def mount():
    made = Mount(*keys(100))
    made.tree.listed.limit(30 * ENTRY_BYTES)
    return made


@pytest.mark.parametrize("limit_entries", [0, 1, 25, 100, 1000])
async def test_each_name_is_read_once_however_little_is_kept(limit_entries, autojump_clock):
    mount = Mount(*keys(100))
    mount.tree.listed.limit(limit_entries * ENTRY_BYTES)
    names = await (await mount.reader()).read_all()
    assert sorted(names) == shown(keys(100))


async def test_memory_stays_within_the_limit_but_for_the_pages_at_hand(mount, autojump_clock):
    reader = await mount.reader()
    while not reader.is_over:
        await reader.read(7)
        over_bytes = mount.tree.listed.held_bytes - mount.tree.listed.limit_bytes
        assert over_bytes < 3 * PAGE_KEYS * (ENTRY_BYTES + 64) + 20_000
    mount.vfs.close_directory(reader.handle)
    mount.tree.retire(mount.root)
    assert mount.tree.listed.held_bytes == 0


async def test_a_directory_is_listed_once_by_a_reader_from_its_beginning(mount, autojump_clock):
    reader = await mount.reader()
    await reader.read_all()
    assert mount.store.calls["list_page"] == -(-len(shown(keys(100))) // PAGE_KEYS) + 1


async def test_readers_at_different_places_each_read_all(mount, autojump_clock):
    readers = [await mount.reader() for _ in range(4)]
    for number, reader in enumerate(readers):
        await reader.read(1 + 60 * number)
    while not all(reader.is_over for reader in readers):
        for reader in readers:
            if not reader.is_over:
                await reader.read(9)
    for reader in readers:
        assert sorted(reader.names) == shown(keys(100))


async def test_many_open_directories_keep_no_more_than_one(mount, autojump_clock):
    readers = [await mount.reader() for _ in range(50)]
    for number, reader in enumerate(readers):
        for _ in range(number):
            await reader.read(10)
    listings = {each.listing for each in mount.vfs._directories.values()}
    entries = sum(len(each.entries) for each in listings)
    assert len(listings) > 1
    assert entries <= 30 + 3 * PAGE_KEYS
    for reader in readers[::10]:
        assert sorted(await reader.read_all(50)) == shown(keys(100))


async def test_a_position_leads_to_the_same_name_wherever_it_lies(mount, autojump_clock):
    reader = await mount.reader()
    await reader.read_all()
    whole = reader.seen
    order = list(range(len(whole)))
    random.Random(4711).shuffle(order)
    for index in order[:40]:
        reader.seek(whole[index][0])
        await reader.read(5)
        assert reader.names[:5] == [name for _, name in whole[index : index + len(reader.names)]]
        assert reader.names


async def test_a_reader_that_begins_anew_sees_what_is_there_now(mount, autojump_clock):
    reader = await mount.reader()
    await reader.read_all()
    mount.store.put("aaa")
    reader.seek(0)
    await reader.read_all()
    assert sorted(reader.names) == shown([*keys(100), "aaa"])


async def test_every_name_is_found_beside_and_after_a_stream(mount, autojump_clock):
    reader = await mount.reader()
    names = shown(keys(100))
    for index, name in enumerate(names):
        await reader.read(3)
        for each in (name, names[-index - 1]):
            assert (await mount.find(each)).name == each
        assert await mount.find(name + b"~") is None


async def test_names_looked_up_in_their_order_share_requests(autojump_clock):
    mount = Mount(*(f"n{number:06d}" for number in range(3000)))
    mount.store.page_keys = 1000
    mount.tree.listed.limit(0)
    reader = await mount.reader()
    await reader.read_all(500)
    lists = mount.store.calls["list_page"]
    for number in range(2000):
        assert await mount.find(b"n%06d" % number) is not None
    assert mount.store.calls["list_page"] - lists < 20


async def test_entries_of_a_late_page_are_believed_from_when_it_was_asked_for(
    mount, autojump_clock
):
    reader = await mount.reader()
    assert mount.vfs.entry_ttl_s(reader.handle, 0) == TTL_S
    for _ in range(20):
        await trio.sleep(TTL_S / 10)
        await reader.read(30)
        assert mount.vfs.entry_ttl_s(reader.handle, reader.position) >= TTL_S / 2
    mount.tree.distrust(mount.root)
    reader.seek(0)
    await reader.read(3)
    assert mount.vfs.entry_ttl_s(reader.handle, 0) == TTL_S


async def test_names_of_a_late_page_are_found_without_a_request(mount, autojump_clock):
    reader = await mount.reader()
    while not reader.is_over:
        await trio.sleep(TTL_S / 10)
        await reader.read(10)
        if reader.is_over:
            break
        lists = mount.store.calls["list_page"]
        for name in reader.names[-3:]:
            assert (await mount.find(name)).name == name
        assert mount.store.calls["list_page"] == lists


async def test_a_file_removed_here_is_not_shown_by_pages_that_are_read_again(autojump_clock):
    mount = Mount(*keys(60), is_changing=True)
    mount.tree.listed.limit(30 * ENTRY_BYTES)
    reader = await mount.reader()
    left = set(shown(keys(60)))
    while not reader.is_over:
        await reader.read(4)
        for name in reader.names[-4:]:
            if (node := await mount.find(name)) is not None and isinstance(node, File):
                mount.store.delete(name.decode())
                mount.changes.tell(mount.root, name, None)
                left.discard(name)
        mount.tree.listed.limit(0)
        mount.tree.listed.limit(30 * ENTRY_BYTES)
    assert len(reader.names) == len(set(reader.names))
    assert set(reader.names) >= set(shown(keys(60)))
    again = await mount.reader()
    assert sorted(await again.read_all()) == sorted({*left, *shown(mount.store.objects)})


async def test_a_file_that_is_being_written_stays_shown_and_found(autojump_clock):
    mount = Mount(*keys(60), is_changing=True)
    mount.tree.listed.limit(0)
    reader = await mount.reader()
    await reader.read(3)
    old = await mount.find(b"n0051")
    assert isinstance(old, File)
    old_too = new_file(mount, b"n0040-1")
    created = new_file(mount, b"n0030-new")
    mount.changes.pin(mount.root, b"n0051", old)
    mount.changes.pin(mount.root, b"n0040-1", old_too)
    mount.changes.pin(mount.root, b"n0030-new", created)
    other = await mount.reader()
    await other.read(100)
    mount.tree.listed.limit(0)
    await reader.read_all()
    await other.read_all()
    for each in (reader, other):
        assert len(each.names) == len(set(each.names))
        assert set(each.names) >= set(shown(keys(60)))
    assert b"n0030-new" in other.names
    assert await mount.find(b"n0051") is old
    assert await mount.find(b"n0040-1") is old_too
    assert await mount.find(b"n0030-new") is created


def new_file(mount, name):
    return File(new_number(), mount.root, name, None, 0, "STANDARD")


names_changed = st.sampled_from(
    [f"n{number:04d}{end}" for number in range(12) for end in ("", "+")]
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 12)),
        st.tuples(st.just("give up"), st.none(), st.none()),
        st.tuples(st.just("another puts"), names_changed, st.none()),
        st.tuples(st.just("another deletes"), names_changed, st.none()),
        st.tuples(st.just("we write"), names_changed, st.none()),
        st.tuples(st.just("we publish"), names_changed, st.none()),
        st.tuples(st.just("we remove"), names_changed, st.none()),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.integers(0, 40))
@example([("read", 2, 7), ("we remove", "n0001", None), ("read", 2, 9)], 23)  # pages end elsewhere
def test_whatever_happens_what_does_not_change_is_read_once(history, limit_entries):
    trio.run(play, history, limit_entries, clock=MockClock(autojump_threshold=0))


async def play(history, limit_entries):
    mount = Mount(*keys(12), is_changing=True)
    limit_bytes = limit_entries * ENTRY_BYTES
    mount.tree.listed.limit(limit_bytes)
    readers = [await mount.reader() for _ in range(3)]
    changed = set()
    for what, which, count in history:
        if what == "read":
            if not readers[which].is_over:
                await readers[which].read(count)
            continue
        if what == "give up":
            mount.tree.listed.limit(0)
            mount.tree.listed.limit(limit_bytes)
            continue
        await change(mount, what, which)
        changed.add(which.encode())
    for reader in readers:
        await reader.read_all()
        kept = [name for name in reader.names if name not in changed]
        assert sorted(kept) == [name for name in shown(keys(12)) if name not in changed]
    for name in shown(keys(12)):
        if name not in changed:
            assert await mount.find(name) is not None


async def change(mount, what, key):
    name = key.encode()
    pinned = mount.changes.of(mount.root).get(name)
    if what == "another puts":
        mount.store.put(key, b"another")
    elif what == "another deletes":
        mount.store.delete(key)
    elif what == "we write":
        node = pinned or await mount.find(name) or new_file(mount, name)
        if isinstance(node, File):
            mount.changes.pin(mount.root, name, node)
    elif what == "we publish" and pinned is not None:
        pinned.version = mount.store.put(key, b"ours")
        mount.changes.release(mount.root, name)
    elif what == "we remove":
        mount.store.delete(key)
        mount.changes.release(mount.root, name)
        mount.changes.tell(mount.root, name, None)


async def test_a_listing_that_answers_is_kept_longer_than_one_that_nobody_asks(autojump_clock):
    mount = Mount("a/x", "b/x", "c/x")
    a, b, c = [await mount.find(name) for name in (b"a", b"b", b"c")]
    for each in (a, b):
        await mount.tree.listing(each)
    await mount.tree.lookup(a, b"x")
    await mount.find(b"a")
    mount.tree.listed.limit(mount.tree.listed.held_bytes)
    await mount.tree.listing(c)
    assert mount.tree.known_listing(a) is not None
    assert mount.tree.known_listing(b) is None


async def test_no_place_is_looked_for_in_an_old_listing_of_one_page(autojump_clock):
    mount = Mount("a", "b")
    await mount.find(b"a")
    old = mount.tree.listed.get(mount.root)
    await trio.sleep(TTL_S + 1)
    await mount.find(b"b")
    assert old._places is None
    assert mount.tree.listed.get(mount.root) is not old


async def test_what_is_changed_before_its_page_comes_is_counted(autojump_clock):
    mount = Mount(*keys(100), is_changing=True)
    await mount.find(b"d0000")
    listing = mount.tree.listed.get(mount.root)
    count = listing.shown_count
    node = await mount.find(b"n0050")
    for told, more in ((None, 0), (node, 1), (node, 1), (None, 0), (node, 1)):
        mount.changes.tell(mount.root, b"n0050", told)
        assert listing.shown_count == count + more
    while not listing.complete:
        await mount.tree._next_page(listing)
    assert listing.shown_count == len(shown(keys(100)))


async def test_a_listing_is_kept_whose_predecessor_was_given_up_meanwhile(nursery, autojump_clock):
    mount = Mount("a", "b")
    await mount.find(b"a")
    await trio.sleep(TTL_S + 1)
    mount.store.script("list_page", Fault(delay_s=1))
    nursery.start_soon(mount.find, b"a")
    await trio.sleep(0.5)
    mount.tree.listed.drop(mount.root)
    await trio.sleep(1)
    assert mount.tree.known_listing(mount.root) is not None
