"""What is asked of a mount through its control socket, of whatever form the question is."""

import json
from types import SimpleNamespace

import trio
from hypothesis import example, given
from hypothesis import strategies as st

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.daemon.questions import DIGESTS_MAX, Questions
from stsfs.errors import StsfsError
from stsfs.location.location import Location
from stsfs.location.rules_place import rules_place
from stsfs.vfs.inspector import Inspector
from stsfs.vfs.nodes import Directory, Site, new_number
from stsfs.vfs.refusals import Refusals
from stsfs.vfs.static_view import StaticView
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs
from tests.fakes import MemoryStore
from tests.fuzz.mutations import ODD_TEXTS, ODD_VALUES, bounded, fuzz, mutated


class Kernel:
    async def forget(self, entries, inodes):
        await trio.lowlevel.checkpoint()


def questions(store, cache_of):
    """A mount of one location below a directory."""
    location = Location("s3://lab/base", "lab", "base")
    static = StaticView(Site(0, store, ""))
    site = Site(1, store, location.prefix, location.reserved_names)
    static.add(Directory(new_number(), site, location.prefix, static.root, b"here"))
    lease = SimpleNamespace(
        current=lambda: None, status=lambda: SimpleNamespace(in_force=True, last_error="")
    )
    place = SimpleNamespace(
        location=location, lease=lease, rules_place=rules_place(location, writable=True)
    )
    tree = Tree(static.root, metadata_ttl_s=3600)
    inspector = Inspector(tree, cache_of, Vfs(tree, cache_of))
    return Questions({1: place}, inspector, Refusals(), Kernel())


PATHS = st.sampled_from(["", "here", "here/file", "here/d", "here/d/x", "here/none", "none/x",
                         "/here/file", "here//file", "here/./file", "here/../here"])  # fmt: skip
REQUESTS = (
    st.fixed_dictionaries({"path": PATHS | ODD_TEXTS.map(lambda text: f"here/{text}")})
    | mutated(st.just({"path": "here/file", "paths": ["here/file", "here/d"]}))
    | st.fixed_dictionaries({"paths": st.lists(PATHS | ODD_VALUES, max_size=3)})
)


@fuzz
@given(st.sampled_from(["explain", "info", "refresh", "rules", "digests"]), REQUESTS)
@example("explain", {"path": "here/\ud800"})
@example("info", {"path": "here/\udcff"})
@example("info", {"path": "here/" + "d/" * 3000})
@example("refresh", {"path": "here/a\0b"})
@example("digests", {"paths": [["here/file"]]})
@example("digests", {"paths": [""] * (DIGESTS_MAX + 1)})
def test_a_question_is_answered_in_json_or_refused(name, request):
    async def run():
        store = MemoryStore()
        for key in ("base/file", "base/d/x"):
            store.put(key, b"0123456789")
        async with trio.open_nursery() as nursery:
            cache = BlockCache(BlockPool(budget_bytes=1 << 20, block_bytes=1 << 16), store)
            await nursery.start(cache.run)
            asked = request if isinstance(request, dict) else {"path": request}
            try:
                answer = await questions(store, cache).handlers()[name](asked)
                assert json.loads(json.dumps(answer)) == answer
            except StsfsError as exc:
                json.dumps(str(exc))
            nursery.cancel_scope.cancel()

    with bounded():
        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0.01))
