"""Questions about paths are answered, and refreshes forget, without a kernel."""

import pytest
import trio

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.errors import AccessDenied, DeadlineExceeded, SessionExpired
from stsfs.rules.question import Place, Spot
from stsfs.vfs import absent
from stsfs.vfs import inspector as inspecting
from stsfs.vfs.absent import AbsentNames
from stsfs.vfs.inspector import DEADLINE_S, Forgotten, Inspector
from stsfs.vfs.nodes import ROOT_INODE, Site
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs
from tests.fakes import Fault, MemoryStore

CALLER = 4711
TTL_S = 3600.0


class Kernel:
    """Notes what it is told to forget."""

    def __init__(self):
        self.entries, self.inodes, self.delay_s = [], [], 0.0

    async def forget(self, entries, inodes):
        await trio.sleep(self.delay_s)
        self.entries += entries
        self.inodes += inodes


@pytest.fixture
def store():
    made = MemoryStore()
    for key in ("d/e/x", "d/y", "z"):
        made.put(f"base/{key}", b"0123456789")
    return made


@pytest.fixture
def kernel():
    return Kernel()


@pytest.fixture
def tree(store):
    return Tree(Site(1, store, "base/", frozenset({b"owner.txt"})), metadata_ttl_s=TTL_S)


@pytest.fixture
async def cache(store, nursery):
    made = BlockCache(BlockPool(budget_bytes=1 << 20, block_bytes=1 << 16), store)
    await nursery.start(made.run)
    return made


@pytest.fixture
def vfs(tree, cache):
    return Vfs(tree, cache)


@pytest.fixture
def inspector(tree, cache, vfs):
    return Inspector(tree, cache, vfs)


async def look_up(vfs, path):
    """As the kernel does; the inode number, or None, and how long that may be believed."""
    inode, ttl_s = ROOT_INODE, 0.0
    for name in path.split("/"):
        node, ttl_s = await vfs.lookup(inode, name.encode(), CALLER)
        if node is None:
            return None, ttl_s
        inode = node.inode
    return inode, ttl_s


async def read(vfs, path):
    handle = await vfs.open((await look_up(vfs, path))[0], 0, CALLER)
    try:
        return bytes(await vfs.read(handle, 0, 100))
    finally:
        vfs.release(handle)


async def test_a_question_costs_no_request_where_a_listing_answers(inspector, store):
    assert (await inspector.find("d/e/x")).kind == "file"
    store.lists.clear()
    for path, kind in (("d/e", "directory"), ("d/absent", "absent"), ("owner.txt", "reserved")):
        assert (await inspector.find(path)).kind == kind
    assert store.lists == []


@pytest.mark.parametrize("hidden", ["/x", "d//x", "d/./x", "d/../z2", "n" * 256, "d//x/deep"])
async def test_the_text_of_a_key_no_path_can_show_is_found(inspector, store, hidden):
    assert (await inspector.find(hidden)).kind == "absent"
    store.put(f"base/{hidden}", b"x")
    found = await inspector.find(hidden)
    assert (found.kind, found.key) == ("hidden", f"base/{hidden}")
    assert found.reason


async def test_what_a_path_means_wins_over_a_key_of_the_same_text(inspector, store):
    store.put("base/d//y", b"x")
    assert (await inspector.find("d//y")).key == "base/d/y"


async def test_a_name_that_is_not_utf8_is_absent(inspector):
    assert (await inspector.find("d/\udcff")).kind == "absent"


async def test_a_directory_that_hides_an_object_tells_so(inspector, store):
    store.put("base/d", b"x")
    facts = inspector.facts(await inspector.find("d"), None)
    assert (facts.kind, facts.shadows) == ("directory", True)
    assert not inspector.facts(await inspector.find("d/e"), None).shadows


async def test_what_cannot_be_asked_is_unknown_and_says_why(inspector, store, autojump_clock):
    store.script("list_page", Fault(AccessDenied("No.")), Fault(delay_s=2 * DEADLINE_S))
    found = await inspector.find("z")
    assert (found.kind, type(found.error)) == ("unknown", AccessDenied)
    found = await inspector.find("z")
    assert (found.kind, type(found.error)) == ("unknown", DeadlineExceeded)


async def test_a_refresh_of_a_directory_forgets_all_below_it(inspector, vfs, store, kernel):
    inodes = {path: (await look_up(vfs, path))[0] for path in ("d", "d/e", "d/e/x", "d/y", "z")}
    for path in ("d/e/x", "d/y", "z"):
        assert await read(vfs, path) == b"0123456789"
    assert await look_up(vfs, "d/new") == (None, pytest.approx(TTL_S, abs=60))
    assert await look_up(vfs, "new") == (None, pytest.approx(TTL_S, abs=60))
    forgotten = await inspector.forget("d", kernel)
    assert forgotten == Forgotten(listings=3, memory_bytes=20, kernel_entries=5)
    d, e = inodes["d"], inodes["d/e"]
    assert set(kernel.entries) == {(1, b"d"), (d, b"e"), (e, b"x"), (d, b"y"), (d, b"new")}
    assert set(kernel.inodes) == {inodes["d/e/x"], inodes["d/y"]}
    store.put("base/d/new", b"new")
    store.delete("base/d/y")
    assert await read(vfs, "d/new") == b"new"
    assert (await look_up(vfs, "d/y"))[0] is None
    again = {path: (await look_up(vfs, path))[0] for path in ("d", "d/e", "d/e/x", "z")}
    assert again == {path: inodes[path] for path in again}  # what has not changed keeps its number


async def test_a_refresh_of_a_name_forgets_that_name(inspector, vfs, tree, store, kernel):
    d, _ = await look_up(vfs, "d")
    assert (await look_up(vfs, "d/new/below"))[0] is None
    store.put("base/d/new/below", b"new")
    await inspector.forget("d/new/below", kernel)
    assert kernel.entries == [(d, b"new")]
    assert await read(vfs, "d/new/below") == b"new"


async def test_a_refresh_of_a_file_forgets_every_version_of_it(inspector, vfs, store, kernel):
    old, _ = await look_up(vfs, "z")
    await read(vfs, "z")
    store.put("base/z", b"newer")
    await inspector.forget("z", kernel)
    new, _ = await look_up(vfs, "z")
    assert new != old
    kernel.inodes.clear()
    await inspector.forget("z", kernel)
    assert set(kernel.inodes) == {old, new}


async def test_an_answer_under_way_during_a_refresh_is_not_remembered(
    inspector, vfs, store, kernel, autojump_clock
):
    store.script("list_page", Fault(delay_s=5))
    answers = []

    async def ask():
        answers.append(await look_up(vfs, "absent"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(1)
        await inspector.forget("", kernel)
        store.lists.clear()
        assert (await look_up(vfs, "z"))[1] == pytest.approx(TTL_S, abs=60)  # asks for itself
        assert store.lists == ["base/"]
    assert answers == [(None, 0.0)]
    store.lists.clear()
    await look_up(vfs, "z")
    assert store.lists == []  # and the late answer has not taken the place of the newer one


async def test_with_the_session_over_what_was_refreshed_is_still_served(
    inspector, vfs, store, kernel
):
    inode, _ = await look_up(vfs, "z")
    await inspector.forget("", kernel)
    store.script("list_page", Fault(SessionExpired("Over.")))
    assert (await look_up(vfs, "z"))[0] == inode


async def test_a_refresh_the_kernel_does_not_take_ends(inspector, vfs, kernel, autojump_clock):
    kernel.delay_s = 2 * DEADLINE_S
    with pytest.raises(DeadlineExceeded, match="under way"):
        await inspector.forget("", kernel)


async def test_a_refresh_of_very_much_lets_others_have_their_turn(
    inspector, vfs, store, kernel, monkeypatch
):
    monkeypatch.setattr(inspecting, "TURN_NODES", 10)
    for number in range(100):
        store.put(f"base/many/{number}")
    for number in range(100):
        await look_up(vfs, f"many/{number}")
    turns = 0
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def count_turns():
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        forgotten = await inspector.forget("many", kernel)
        nursery.cancel_scope.cancel()
    assert forgotten.kernel_entries == 101
    assert turns >= 5


def test_absent_names_are_told_as_long_as_there_is_room(tree, monkeypatch):
    monkeypatch.setattr(absent, "ABSENT_MAX", 2)
    names, root = AbsentNames(), tree.inodes.root
    assert names.tell(root, b"a", now_s=0, ttl_s=10) == 10
    assert names.tell(root, b"b", now_s=5, ttl_s=10) == 10
    assert names.tell(root, b"c", now_s=5, ttl_s=10) == 0  # so the kernel asks again each time
    assert names.tell(root, b"b", now_s=6, ttl_s=10) == 10
    assert names.tell(root, b"c", now_s=11, ttl_s=10) == 10
    assert names.tell(root, b"d", now_s=11, ttl_s=0) == 0
    assert set(names.names()) == {(root, b"b"), (root, b"c")}


PLACE = Place(label="syn1", storage="external", prefix="base/", writable=True)


@pytest.mark.parametrize(
    ("path", "touched", "prefix", "name"),
    [
        ("", "root", "base/", b""),
        ("d", "directory", "base/", b"d"),
        ("d/y", "file", "base/d/", b"y"),
        ("d/absent", "file", "base/d/", b"absent"),
        ("absent/below", "file", "base/absent/", b"below"),
        ("d/\udcff", "file", "base/d/", b"\xff"),
        ("owner.txt", "file", "base/", b"owner.txt"),
    ],
)
async def test_a_path_is_told_in_the_words_of_the_rules(inspector, path, touched, prefix, name):
    facts = inspector.facts(await inspector.find(path), None, place=PLACE)
    assert (facts.touched, facts.spot) == (touched, Spot(PLACE, prefix, name))


async def test_a_directory_that_leads_to_locations_is_told_as_such(inspector):
    way = Place(label="this mount", storage="none")
    assert inspector.facts(await inspector.find("d"), None, place=way).touched == "way"
