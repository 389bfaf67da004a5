"""Pages, wherever they are cut, give the entries that the keys describe."""

from itertools import pairwise

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from stsfs.errors import StoreFailure
from stsfs.store.object_store import ListedObject, ListPage, ObjectVersion
from stsfs.vfs.key_listing import KeyListing, pieces
from stsfs.vfs.listing import HIDDEN_MAX, Hidden, is_file_name
from stsfs.vfs.nodes import Directory, File, Site
from stsfs.vfs.tree import Tree
from tests.fakes import MemoryStore

components = st.sampled_from(["a", "a-1", "a.x", "a0", "b", "", ".", "..", "ü", "owner.txt"])
long_component = st.just("n" * 256)
keys = st.lists(
    st.lists(components | long_component, min_size=1, max_size=3).map("/".join),
    max_size=12,
    unique=True,
)


def model(all_keys):
    """Names in the root: directories, files, and how many keys are hidden."""
    directories, files, hidden = set(), set(), 0
    for name in {key.partition("/")[0] for key in all_keys if "/" in key}:
        if showable(name):
            directories.add(name)
        else:
            hidden += 1
    for key in all_keys:
        if key == "" or "/" in key or key == "owner.txt":
            continue
        if showable(key) and key not in directories:
            files.add(key)
        else:
            hidden += 1
    directories.discard("owner.txt")
    return directories, files, hidden


def showable(name):
    return name not in {"", ".", ".."} and len(name.encode()) <= 255


async def read_all(tree, directory):
    listing = await tree.listing(directory)
    found, index = [], 0
    while True:
        batch = list(await tree.entries(listing, index))
        if not batch and listing.complete and index >= len(listing.entries):
            return listing, found
        found += [node for _, node in batch]
        index = batch[-1][0] if batch else len(listing.entries)


@given(keys, st.integers(1, 5), st.sampled_from(["", "base/"]))
@example(["a", "a-1", "a.x", "a/b"], 1, "")
@example(["a", "a-1", "a.x"], 1, "base/")
async def test_entries_do_not_depend_on_where_pages_are_cut(all_keys, page_keys, prefix):
    store = MemoryStore(page_keys=page_keys)
    for key in all_keys:
        store.put(prefix + key, key.encode())
    tree = Tree(Site(1, store, prefix, frozenset({b"owner.txt"})), metadata_ttl_s=60)
    directories, files, hidden = model(all_keys)
    listing, found = await read_all(tree, tree.inodes.root)
    names = [node.name.decode() for node in found]
    assert len(set(names)) == len(names)
    assert {n.name.decode() for n in found if isinstance(n, Directory)} == directories
    assert {n.name.decode() for n in found if not isinstance(n, Directory)} == files
    assert listing.hidden.count == hidden
    for name in ["a", "a-1", "a.x", "b", "ü", "owner.txt", "absent"]:
        node, _ = await tree.lookup(tree.inodes.root, name.encode())
        assert (node is not None) == (name in directories | files), name


@given(keys, st.integers(1, 4), components)
async def test_a_lookup_before_any_listing_finds_what_a_listing_would(all_keys, page_keys, name):
    store = MemoryStore(page_keys=page_keys)
    for key in all_keys:
        store.put(key, key.encode())
    tree = Tree(Site(1, store, "", frozenset({b"owner.txt"})), metadata_ttl_s=60)
    directories, files, _ = model(all_keys)
    node, until_s = await tree.lookup(tree.inodes.root, name.encode())
    assert (node is not None) == (name in directories | files)
    assert isinstance(node, Directory) == (name in directories)
    assert until_s > trio.current_time()
    assert store.calls["list_page"] <= 3


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=30),
    st.lists(st.booleans(), min_size=30, max_size=30),
    st.integers(1, 9),
)
def test_a_page_in_pieces_is_the_page_in_the_order_of_keys(names, shared, keys_max):
    kinds = dict(zip(sorted(names, key=str.encode), shared, strict=False))
    page = ListPage(
        [ListedObject(name, "", 0, 0.0, "") for name, is_prefix in kinds.items() if not is_prefix],
        [name for name, is_prefix in kinds.items() if is_prefix],
        "next",
    )
    cut = list(pieces(page, keys_max))
    assert [each for piece in cut for each in piece.objects] == page.objects
    assert [each for piece in cut for each in piece.prefixes] == page.prefixes
    edges = [sorted([o.key.encode() for o in p.objects] + [x.encode() for x in p.prefixes])
             for p in cut]  # fmt: skip
    edges = [edge for edge in edges if edge]
    assert all(earlier[-1] < later[0] for earlier, later in pairwise(edges))
    assert all(len(edge) <= max(2, keys_max) for edge in edges)


def make_listing(names, *, more=None):
    """A listing of one page, whose nodes are directories: only their names matter here."""
    root = Directory(1, Site(1, MemoryStore(), ""), "", None, b"")

    def make_node(name, _listed):
        return Directory(0, root.site, f"{name.decode()}/", root, name)

    listing = KeyListing(root, make_node, expires_s=0.0)
    listing.add(ListPage([], [f"{name}/" for name in names], more))
    return listing, make_node


def shown(listing):
    found = map(listing.shown, range(len(listing.entries)))
    return [node for node in found if node is not None]


def test_every_name_of_a_large_directory_is_replaced_in_linear_time():
    names = [f"n{number:06d}" for number in range(100_000)]
    listing, make_node = make_listing(names)
    fresh = [make_node(name.encode(), None) for name in names]
    for node in fresh:
        listing.replace(node.name, node)
    assert shown(listing) == fresh


def test_a_replaced_name_keeps_its_place_and_a_gone_one_may_come_back():
    listing, make_node = make_listing(["a", "b"], more="next")
    gone = listing.find(b"a")
    listing.replace(b"a", None)
    assert shown(listing) == [listing.find(b"b")]
    again = make_node(b"a", None)
    assert again is not gone
    listing.replace(b"a", again)
    listing.add(ListPage([], ["c/"], None))
    last = make_node(b"c", None)
    listing.replace(b"c", last)
    assert shown(listing) == [again, listing.find(b"b"), last]


@given(
    st.lists(st.sampled_from(["a", "b", "c", "k1", "k2", "k3", "ü"]), max_size=40),
    st.lists(st.sampled_from(["a/", "b/", "k1/", "ü/"]), max_size=40),
    st.integers(1, 9),
)
def test_pieces_come_to_an_end_whatever_order_the_names_are_in(names, prefixes, keys_max):
    page = ListPage([ListedObject(name, "", 0, 0.0, "") for name in names], prefixes, None)
    cut = list(pieces(page, keys_max))
    assert [each for piece in cut for each in piece.objects] == page.objects
    assert [each for piece in cut for each in piece.prefixes] == page.prefixes


def test_a_page_that_goes_back_is_refused_and_no_name_is_shown_twice():
    listing, _ = make_listing(["a", "b"], more="next")
    with pytest.raises(StoreFailure, match="begins with 'b/', and the one before it ended with"):
        listing.add(ListPage([], ["b/", "c/"], None))
    assert [node.name for node in shown(listing)] == [b"a", b"b"]


def test_a_page_of_another_directory_is_refused():
    root = Directory(1, Site(1, MemoryStore(), "base/"), "base/", None, b"")
    listing = KeyListing(root, lambda name, listed: None, expires_s=0.0)
    with pytest.raises(StoreFailure, match="below 'base/', the server lists 'other/x'"):
        listing.add(ListPage([ListedObject("other/x", "", 0, 0.0, "")], [], None))


async def test_a_key_out_of_order_does_not_stop_the_mount_and_loses_no_name():
    class Liar:
        async def list_page(self, prefix, **options):
            await trio.lowlevel.checkpoint()
            objects = [ListedObject(f"k{i:04}", '"e"', 1, 0.0, "") for i in range(1000)]
            objects[100] = ListedObject("a", '"e"', 1, 0.0, "")
            return ListPage(objects, [], None)

    tree = Tree(Site(1, Liar(), ""), metadata_ttl_s=30)
    listing = await tree.listing(tree.inodes.root)
    assert len(shown(listing)) == 1000


@pytest.mark.parametrize("prefix", ["base/", "base/d/"])
async def test_an_object_of_a_directory_itself_is_hidden_if_it_has_content(prefix):
    store = MemoryStore()
    store.put(prefix, b"content")
    store.put(prefix + "x")
    tree = Tree(Site(1, store, prefix), metadata_ttl_s=60)
    listing = await tree.listing(tree.inodes.root)
    assert [node.name for node in shown(listing)] == [b"x"]
    assert [(what, reason) for _, what, reason in tree.hidden()] == [
        (prefix, "it has content, and a directory is shown in its place")
    ]
    assert tree.hidden_count == 1
    store.put(prefix)
    tree.distrust(tree.inodes.root)
    await tree.listing(tree.inodes.root)
    assert tree.hidden_count == 0


def listed(*names):
    return [ListedObject(name, '"e"', 0, 0.0, "") for name in names]


def names_of(listing):
    return [node.name for node in shown(listing)]


@pytest.mark.parametrize(("count", "is_cut"), [(4, False), (5, True)])
def test_a_page_that_is_short_enough_stays_whole(count, is_cut):
    page = ListPage(listed(*"abcde"[:count]), [], None)
    assert (len(list(pieces(page, 4))) > 1) is is_cut


def test_a_directory_with_an_object_of_its_own_is_known_to_have_one():
    listing, _ = make_listing(["a"])
    assert not listing.has_marker
    root = Directory(1, Site(1, MemoryStore(), "base/"), "base/", None, b"")
    listing = KeyListing(root, lambda name, found: None, expires_s=0.0)
    listing.add(ListPage(listed("base/"), [], None))
    assert listing.has_marker
    assert shown(listing) == []


@pytest.mark.parametrize("is_directory", [False, True])
def test_a_name_that_later_pages_would_explain_is_settled_alone(is_directory):
    listing, _ = make_listing([], more="next")
    listing.add(ListPage(listed("a", "a-"), [], "next"))
    assert names_of(listing) == []
    listing.settle(b"a", is_directory=is_directory)
    assert names_of(listing) == [b"a"]
    assert listing.hidden.count == is_directory


def test_a_name_that_we_have_removed_is_not_shown_by_a_page_that_comes_after():
    listing, make_node = make_listing(["a"], more="next")
    listing.change(b"b", None)
    made = make_node(b"d", None)
    listing.change(b"d", made)
    listing.add(ListPage([], ["b/", "c/", "d/"], None))
    assert sorted(names_of(listing)) == [b"a", b"c", b"d"]
    assert listing.find(b"d") is made


def test_a_listing_tells_of_no_earlier_time_than_its_own_and_nothing_when_distrusted():
    root = Directory(1, Site(1, MemoryStore(), ""), "", None, b"")
    listing = KeyListing(root, lambda name, found: None, expires_s=60.0, begun_s=5.0)
    assert not listing.tells(b"a", since_s=5.0), "its pages are still to come"
    listing.add(ListPage([], [], None))
    assert listing.tells(b"a", since_s=5.0)
    assert not listing.tells(b"a", since_s=5.5)
    version = ObjectVersion(1, "a", '"e"', 0)
    file = File(7, root, b"a", version, 0, "")
    listing.change(b"a", file)
    assert listing.tells(b"a", since_s=5.0)
    file.outdated = True
    assert not listing.tells(b"a", since_s=5.0)
    assert listing.tells(b"b", since_s=5.0)
    listing.distrust()
    assert not listing.tells(b"b", since_s=5.0)


def test_what_follows_an_entry_is_told_while_it_is_one():
    listing, make_node = make_listing(["a", "b", "c", "d"])
    a, b, c, d = shown(listing)
    assert listing.after(a, 2) == [b, c]
    assert listing.after(c, 2) == [d]
    assert listing.after(d, 2) == []
    listing.replace(b"b", make_node(b"b", None))
    assert listing.after(b, 2) == [], "it has been replaced"
    assert listing.after(make_node(b"e", None), 2) == [], "it was never shown"
    assert listing.shown_count == 4
    listing.replace(b"a", None)
    assert listing.shown_count == 3


def test_a_page_that_ends_with_a_directory_says_all_about_its_name():
    listing, _ = make_listing(["a"], more="next")
    assert listing.passed(b"a")
    assert not listing.passed(b"b")


def test_a_name_that_we_have_removed_is_shown_no_longer():
    listing, make_node = make_listing(["a", "b"])
    listing.change(b"a", None)
    assert names_of(listing) == [b"b"]
    listing.change(b"a", again := make_node(b"a", None))
    assert shown(listing) == [again, listing.find(b"b")]


def test_a_name_may_have_as_many_bytes_as_the_kernel_takes():
    assert is_file_name(b"n" * 255)
    assert not is_file_name(b"n" * 256)


def test_all_hidden_keys_are_counted_and_so_many_are_told():
    hidden = Hidden()
    for number in range(HIDDEN_MAX + 3):
        hidden.add(f"k{number}/")
    assert hidden.count == HIDDEN_MAX + 3
    assert len(hidden.reasons) == HIDDEN_MAX
