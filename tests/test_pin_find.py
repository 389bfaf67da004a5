"""Pin and find without a mount: what is written down, and what a lock may not lead to."""

import io
import random
from collections import Counter
from dataclasses import replace

import pytest

from stsfs.cli.walk_progress import walk_progress
from stsfs.daemon import finding, locks, pinning
from stsfs.daemon.finding import files_of_rows
from stsfs.daemon.locks import LockTarget
from stsfs.entities.condition import parse
from stsfs.entities.lock_file import Lock, LockedFile, load, render
from stsfs.entities.walk import Progress, walk_headers, walk_shown, with_records
from stsfs.errors import BadArgument
from stsfs.location.location import Location
from stsfs.location.parse import S3Target, SynapseTarget
from stsfs.store.object_store import ListedObject
from stsfs.synapse.client import EntityHeader
from stsfs.synapse.endpoints import PRODUCTION, Endpoints
from stsfs.synapse.records import TableRows, table_rows
from stsfs.vfs.nodes import ROOT_INODE, Site
from stsfs.vfs.tree import Tree
from tests.entities_fakes import FakeApi, Shown
from tests.fakes import MemoryStore

LOCATION = Location("syn1", "bucket", "base", reserved_names=frozenset({b"owner.txt"}))
LOCK = Lock("syn1", "bucket", "base", None, None, "entities", 1_700_000_000.0, ())


def listed(key):
    return ListedObject(key, '"e"', 1, 0.0, "STANDARD")


def test_keys_become_files_as_in_a_mount():
    keys = ["owner.txt", "a", "a/b", "c//d", "c/", "e/../f", "g/" + "n" * 256, "h/i/j", "k/"]
    files, hidden = pinning.files_of_keys((listed(f"base/{key}") for key in keys), LOCATION)
    assert [path for path, _ in files] == ["a/b", "h/i/j"]
    assert hidden == 4


async def shown_by_a_mount(store):
    """Paths of all files, as the keys view finds them."""
    tree = Tree(Site(1, store, "base/", LOCATION.reserved_names), metadata_ttl_s=30)
    found, waiting = [], [(tree.directory(ROOT_INODE), "")]
    while waiting:
        directory, above = waiting.pop()
        listing = await tree.listing(directory)
        start = 0
        while entries := list(await tree.entries(listing, start)):
            start = entries[-1][0]
            for _, node in entries:
                path = above + node.name.decode()
                if hasattr(node, "site"):
                    waiting.append((node, f"{path}/"))
                else:
                    found.append(path)
    return sorted(found)


@pytest.mark.parametrize("seed", range(30))
async def test_any_keys_become_the_files_of_a_mount(seed, autojump_clock):
    chance, store = random.Random(seed), MemoryStore()
    for _ in range(chance.randrange(25)):
        parts = chance.choices(
            ["a", "b", "", ".", "..", "a.x", "owner.txt"], k=chance.randint(1, 4)
        )
        store.put(f"base/{'/'.join(parts)}")
    page = await store.list_page("base/", delimiter="")
    files, _ = pinning.files_of_keys(page.objects, LOCATION)
    assert sorted(path for path, _ in files) == await shown_by_a_mount(store)


@pytest.mark.parametrize("count", [3, 250])
async def test_objects_are_found_at_the_price_of_pages_or_of_keys(count, autojump_clock):
    store = MemoryStore()
    for number in range(500):
        store.put(f"base/{number:03d}", b"x")
    keys = {f"base/{number:03d}" for number in range(count)}
    found = await pinning.find_objects(store, "base/", keys | {"base/absent"})
    assert found.keys() == keys
    assert store.calls["list_page"] == (4 if count == 3 else 1)


async def test_a_large_location_is_not_listed_for_ever(monkeypatch, autojump_clock):
    monkeypatch.setattr(pinning, "PAGES_MIN", 2)
    store = MemoryStore(page_keys=100)
    for number in range(1000):
        store.put(f"base/{number:04d}", b"x")
    keys = {f"base/{number:04d}" for number in range(0, 1000, 4)}
    found = await pinning.find_objects(store, "base/", keys)
    assert found.keys() == keys
    assert store.calls["list_page"] == 5 + 250 - 500 // 4


def test_a_lock_is_written_in_one_step(tmp_path):
    path = tmp_path / "data.lock"
    path.write_text("what was there")
    file = LockedFile("a/é", "syn5", 1, 3, "", '"e"', "base/k", 1_700_000_000.0)
    lock = replace(LOCK, files=(file,))
    pinning.write_lock(path, lock)
    assert load(path) == lock
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(BadArgument, match="cannot be written"):
        pinning.write_lock(tmp_path / "absent" / "data.lock", lock)


@pytest.fixture
def lock_path(tmp_path):
    path = tmp_path / "data.lock"
    path.write_text("".join(render(LOCK)))
    return path


def test_a_lock_is_told_from_locations_by_what_it_is(lock_path, monkeypatch):
    monkeypatch.chdir(lock_path.parent)
    (lock_path.parent / "syn1").write_text("".join(render(LOCK)))
    assert locks.absolute("data.lock") == str(lock_path)
    assert locks.absolute("syn1") == "syn1"
    assert locks.location_of("syn1") == SynapseTarget("syn1")
    found = locks.location_of(str(lock_path))
    assert (found.path, found.lock, found.target) == (lock_path, LOCK, SynapseTarget("syn1"))
    for text in ("absent.lock", "some/where"):
        with pytest.raises(BadArgument, match="is not a"):
            locks.location_of(text)


def test_a_lock_that_names_a_path_as_its_location_is_refused(lock_path):
    lock_path.write_text("".join(render(replace(LOCK, location=str(lock_path)))))
    with pytest.raises(BadArgument, match="is not a storage location"):
        locks.location_of(str(lock_path))


def target(target=SynapseTarget("syn1"), **changes):  # noqa: B008
    return LockTarget("data.lock", replace(LOCK, **changes), target)


@pytest.mark.parametrize(
    ("changes", "found", "word"),
    [
        ({"endpoint_url": "https://evil.example"}, {}, "evil.example"),
        ({}, {"endpoint_url": "https://ours.example"}, "AWS"),
        ({"bucket": "other"}, {}, "s3://other/base/"),
        ({"base_key": ""}, {}, "s3://bucket/,"),
        ({"base_key": "bas"}, {}, "s3://bucket/bas/"),
    ],
)
def test_a_lock_does_not_lead_to_another_place(changes, found, word):
    with pytest.raises(BadArgument, match=word):
        locks.check_agrees(target(**changes), replace(LOCATION, **found))


def test_a_lock_that_agrees_is_taken():
    locks.check_agrees(target(), LOCATION)
    url = "http://ours.example"
    locks.check_agrees(target(endpoint_url=f"{url}/"), replace(LOCATION, endpoint_url=url))
    locks.check_synapse(target(), PRODUCTION)
    ours = Endpoints.single("https://synapse.example")
    locks.check_synapse(target(synapse_url=ours.repo_url), ours)


def test_a_lock_of_another_synapse_is_refused():
    ours = Endpoints.single("https://synapse.example")
    with pytest.raises(BadArgument, match="the public Synapse, and yours is https://synapse"):
        locks.check_synapse(target(), ours)
    with pytest.raises(BadArgument, match=r"written for https://evil\.example"):
        locks.check_synapse(target(synapse_url="https://evil.example"), PRODUCTION)
    with pytest.raises(BadArgument, match="no place in Synapse"):
        locks.check_synapse(target(S3Target("bucket", "base")), None)


def test_rows_of_a_view_are_files_only_where_a_mount_shows_them():
    columns = ("id", "name", "type", "parentId", "currentVersion", "dataFileSizeBytes")
    rows = [
        ("syn5", "a", "file", "syn2", "3", "10"),
        ("syn6", "a", "file", "syn2", "1", None),
        ("syn7", "b/c", "file", "syn2", "1", None),
        ("syn8", "d", "folder", "syn2", "1", None),
        ("syn9", "a", "file", "syn3", None, None),
    ]
    found, left_out = files_of_rows(TableRows(columns, tuple(rows)))
    assert left_out == 0
    assert [(parent, each.entity_id) for parent, each in found] == [
        ("syn2", "syn5"), ("syn3", "syn9"),
    ]  # fmt: skip
    assert (found[0][1].version, found[0][1].size_bytes, found[1][1].version) == (3, 10, None)


def test_rows_of_a_view_that_make_no_sense_are_left_out_and_counted():
    columns = ("id", "name", "type", "parentId", "currentVersion", "dataFileSizeBytes")
    good = ("syn5", "a", "file", "syn2", "3", "10")
    bad = [
        (None, "b", "file", "syn2", "3", "10"),
        ("syn5/..", "b", "file", "syn2", "3", "10"),
        ("syn6", "b", "file", None, "3", "10"),
        ("syn6", "b", "file", "elsewhere", "3", "10"),
        ("syn6", "b", "file", "syn2", "three", "10"),
        ("syn6", "b", "file", "syn2", "3", "-1"),
    ]
    later = ("syn7", "b", "file", "syn2", "1", None)
    found, left_out = files_of_rows(TableRows(columns, (good, *bad, later), left_out=2))
    assert [each.entity_id for _, each in found] == ["syn5", "syn7"]
    assert left_out == len(bad) + 2
    with pytest.raises(KeyError):
        files_of_rows(TableRows(columns[:3], (good[:3],)))


class View:
    """A client whose only view tells these rows."""

    def __init__(self, columns, rows):
        self._columns, self._rows, self.entities = columns, rows, self

    async def columns(self, view_id):
        return dict.fromkeys(self._columns, "STRING")

    async def query(self, view_id, sql):
        return TableRows(self._columns, self._rows)

    async def entity_path(self, entity_id):
        return [EntityHeader("syn1", "root", "folder"), EntityHeader(entity_id, "d", "folder")]


@pytest.mark.parametrize(
    ("rows", "paths", "said"),
    [
        (["syn5", "x", "syn6", "y"], ["d/syn5", "d/syn6"], "2 rows of syn9 make no sense"),
        (["x", "y"], None, "No row of syn9 makes sense; every file is looked at instead."),
        (["syn5"], ["d/syn5"], ""),
        ([], [], ""),
    ],
)
async def test_a_search_tells_how_many_rows_made_no_sense(rows, paths, said):
    columns = ("id", "name", "type", "parentId", "currentVersion")
    view = View(columns, tuple((each, each, "file", "syn2", "1") for each in rows))
    told = []
    search = finding._Search(None, None, parse("name = x"), Progress(None), told.append, False)
    found = await search._by_query(view, "syn9", "syn1")
    assert (found and [each.path for each in found]) == paths
    assert [each[: len(said)] for each in told] == ([said] if said else [])


def test_rows_that_are_none_are_left_out_of_a_page_and_counted():
    rows = [{"values": ["1", None]}, {"values": ["1"]}, {"values": [[], "2"]}, {}, None, 5,
            {"values": ["3", 4]}]  # fmt: skip
    page = table_rows({"queryResults": {"headers": [{"name": "a"}, {"name": "b"}], "rows": rows}})
    assert page.rows == (("1", None), ("3", "4"))
    assert page.left_out == 5


@pytest.fixture
def api():
    """Two folders, three files, a link to one of the folders, and something hidden."""
    api = FakeApi(MemoryStore())
    folder = api.folder(api.root_id, "d")
    inner = api.folder(folder, "inner")
    api.file(inner, "deep", b"deep")
    api.file(folder, "x", b"x")
    api.file(api.root_id, "top", b"top")
    api.link(api.root_id, "link", inner)
    api.folder(api.root_id, "t", kind="TableEntity")
    return api


async def test_a_walk_finds_every_file_and_links_only_where_a_mount_shows_them(api, autojump_clock):
    shown, steps = Shown(api, api.store), Counter()
    progress = Progress(lambda _: steps.update(["told"]))
    files = await walk_headers(shown.filler, api.root_id, progress)
    assert [each.path for each in files] == ["d/inner/deep", "d/x", "top"]
    assert (progress.folders, progress.folders_done, progress.files) == (3, 3, 3)
    assert progress.hidden == 1
    assert steps["told"] == 3
    progress = Progress()
    files = await walk_shown(shown.view, shown.location.root(), progress)
    assert [each.path for each in files] == ["d/inner/deep", "d/x", "link/deep", "top"]
    assert (progress.files, progress.hidden) == (4, 1)


async def test_a_walk_that_would_not_end_is_refused(api, autojump_clock, monkeypatch):
    monkeypatch.setattr("stsfs.entities.walk.FILES_MAX", 2)
    with pytest.raises(BadArgument, match="more than 2 files"):
        await walk_headers(Shown(api, api.store).filler, api.root_id, Progress())


async def test_records_are_asked_for_only_where_the_index_lacks_them(api, autojump_clock):
    shown = Shown(api, api.store)
    files = await walk_headers(shown.filler, api.root_id, Progress())
    found = await with_records(shown.filler, files, Progress(), annotations=True)
    assert [each.record.size_bytes for each in found] == [4, 1, 3]
    assert api.calls["bundle"] == 3
    progress = Progress()
    assert await with_records(shown.filler, files, progress, annotations=True) == found
    assert (api.calls["bundle"], progress.files_done) == (3, 3)
    api.delete(files[1].header.entity_id)
    fresh = Shown(api, api.store)
    found = await with_records(fresh.filler, files, Progress(), annotations=False)
    assert [each.path for each in found] == ["d/inner/deep", "top"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stderr", "is_shown"), [(Terminal(), True), (io.StringIO(), False)])
def test_progress_is_for_people(stderr, is_shown, monkeypatch):
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    with walk_progress() as told:
        progress = Progress(told)
        progress.found(5)
        progress.done()
    assert ("1/5" in stderr.getvalue()) == is_shown
    assert bool(stderr.getvalue()) == is_shown
