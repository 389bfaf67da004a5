"""Names: what is shown, what is hidden, and how few LIST requests that takes.

Contract: "One LIST answers readdir, every lookup and every getattr in that directory for the
metadata TTL, present or absent"; "Existence comes from listings, not from HEAD".
"""

import contextlib
import errno
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.mount

MANY = 100_000
PAGE_KEYS = 1000
THREADS = 16


@pytest.fixture(scope="module")
def crowd(servers):
    """A folder with a directory of 100 000 empty objects."""
    folder = servers.folder()
    (folder.path / "many").mkdir()
    for number in range(MANY):
        os.close(os.open(folder.path / "many" / f"n{number:06}", os.O_CREAT | os.O_WRONLY))
    folder.write("few/x", b"x")
    return folder


@pytest.fixture
def crowded(crowd, mount, stage):
    live = mount(crowd.syn_id, "--metadata-ttl", "3600")
    stage.forget_requests()
    return live


def lists(stage):
    """Requests so far, all of which must be LISTs."""
    assert set(stage.requests) <= {"LIST"}
    return stage.requests.get("LIST", 0)


def test_100_000_objects_are_listed_in_about_101_requests(stage, crowded):
    """And nothing is asked again while the listing holds; `ls -l` makes no HEAD and no GET."""
    assert len(os.listdir(crowded / "many")) == MANY
    assert MANY // PAGE_KEYS <= lists(stage) <= MANY // PAGE_KEYS + 1
    stage.forget_requests()
    shown = subprocess.run(
        ["ls", "-l", crowded / "many"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(shown) == MANY + 1
    for number in range(0, MANY, 10):
        assert (crowded / "many" / f"n{number:06}").stat().st_size == 0
    assert not (crowded / "many" / "n1000000").exists()
    assert lists(stage) == 0


def test_one_known_name_in_a_long_directory_costs_two_lists_at_most(stage, crowded):
    """ "in a directory longer than a page a name further on is answered by a bounded LIST"."""
    path = crowded / "many" / "n077777"
    assert path.stat().st_size == 0
    assert lists(stage) <= 2
    assert path.read_bytes() == b""
    stage.forget_requests()
    for _ in range(100):
        path.stat()
    assert lists(stage) == 0


def test_an_absent_name_in_a_long_directory_is_asked_once(stage, crowded):
    for _ in range(1000):
        assert not (crowded / "many" / "n0777777").exists()
    assert lists(stage) <= 2


def test_a_missing_name_costs_one_request_per_ttl(stage, folder, mount):
    """1000 questions, one LIST; and one more when its answer has ended."""
    folder.write("dir/x", b"x")
    live = mount(folder.syn_id, "--metadata-ttl", "3600")
    stage.forget_requests()
    for _ in range(1000):
        assert not (live / "dir" / "missing").exists()
    for _ in range(10):
        assert not (live / "dir" / "missing too").exists()
    assert lists(stage) == 1


def test_without_a_ttl_each_lookup_asks_and_new_names_appear_at_once(stage, folder, mount):
    """--metadata-ttl 0: what another client makes or deletes is seen by the next lookup."""
    folder.write("dir/x", b"x")
    live = mount(folder.syn_id, "--metadata-ttl", "0")
    assert not (live / "dir/new").exists()
    folder.put("dir/new", b"new")
    assert (live / "dir/new").read_bytes() == b"new"
    assert sorted(os.listdir(live / "dir")) == ["new", "x"]
    folder.delete("dir/new")
    assert not (live / "dir/new").exists()
    assert os.listdir(live / "dir") == ["x"]
    folder.put("other/y", b"y")
    assert (live / "other/y").read_bytes() == b"y"


def test_names_appear_when_the_ttl_has_ended(stage, folder, mount):
    """A listing is believed for its TTL, and not longer."""
    folder.write("dir/x", b"x")
    live = mount(folder.syn_id, "--metadata-ttl", "1")
    assert not (live / "dir/new").exists()
    folder.put("dir/new", b"new")
    asked = lists(stage)
    while not (live / "dir/new").exists():
        assert lists(stage) <= asked + 1  # a listing that is renewed shows it
    assert lists(stage) == asked + 1 or lists(stage) == asked + 2


def test_a_file_is_found_and_read_at_the_price_of_listings_and_one_get(stage, folder, mount):
    """ls, stat, open, read of a small file: a LIST per directory, one GET, nothing else."""
    folder.write("a/b/x", b"contents")
    live = mount(folder.syn_id)
    stage.forget_requests()
    assert os.listdir(live / "a" / "b") == ["x"]
    assert (live / "a/b/x").stat().st_size == 8
    assert (live / "a/b/x").read_bytes() == b"contents"
    assert stage.requests == {"LIST": 2, "GET": 1}


def test_where_a_key_is_both_a_file_and_a_directory_the_directory_is_shown(stage, folder, mount):
    """ "Where both a and a/b exist the directory is shown"; the object is counted as hidden."""
    for name, data in {"a": b"file", "a/b": b"below", "a-1": b"before /", "a.x": b"x"}.items():
        folder.put(name, data)
    live = mount(folder.syn_id)
    assert sorted(os.listdir(live.path)) == ["a", "a-1", "a.x"]
    assert os.listdir(live / "a") == ["b"]
    assert (live / "a/b").read_bytes() == b"below"
    assert (live / "a-1").read_bytes() == b"before /"
    assert live.status()["hidden"]["count"] == 1


ODD_NAMES = [
    "plain", "with space", "new\nline", "tab\there", "bell\a", "ünïcödé", "日本語", "a+b", "50%",
    "%41", "a&b<c>", "semi;colon", "quote'\"", "back\\slash", "-dash", "~", "x" * 255, "#?=",
    "\x7f", "🧬",
]  # fmt: skip


def test_names_with_any_character_are_shown_and_read_as_they_are(stage, folder, mount):
    """ "Control characters and newlines are shown as they are"."""
    for name in ODD_NAMES:
        folder.put(f"dir/{name}", name.encode())
    live = mount(folder.syn_id)
    assert sorted(os.listdir(live / "dir")) == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        assert (live / "dir" / name).read_bytes() == name.encode()


def test_a_name_with_odd_characters_is_found_without_a_listing(stage, folder, mount):
    """A lookup in a directory that nobody has read."""
    for name in ODD_NAMES:
        folder.put(f"dir/{name}/x", name.encode())
    live = mount(folder.syn_id)
    for name in ODD_NAMES:
        assert (live / "dir" / name / "x").read_bytes() == name.encode()


def test_keys_that_cannot_be_file_names_are_hidden_and_counted(stage, folder, mount):
    """ "an empty, . or .. component, a component over 255 bytes"."""
    long = "y" * 256
    for key in ("d//x", "d/./x", "d/../x", f"d/{long}", f"d/{long}/x", "d/good"):
        folder.put(key, b"x")
    live = mount(folder.syn_id)
    assert os.listdir(live / "d") == ["good"]
    assert live.status()["hidden"]["count"] == 5
    assert os.listdir(live.path) == ["d"]
    with pytest.raises(OSError, match="too long"):
        (live / "d" / long).stat()


def test_a_marker_makes_an_empty_directory_and_no_entry_of_itself(stage, folder, mount):
    """Other tools mark directories by an object `dir/`."""
    folder.put("empty/", b"")
    folder.put("full/", b"")
    folder.put("full/x", b"x")
    live = mount(folder.syn_id)
    assert sorted(os.listdir(live.path)) == ["empty", "full"]
    assert os.listdir(live / "empty") == []
    assert os.listdir(live / "full") == ["x"]


def test_an_empty_location_is_an_empty_directory(folder, mount):
    assert os.listdir(mount(folder.syn_id).path) == []


def test_a_directory_read_in_pieces_while_it_changes_shows_each_name_once(stage, crowd, mount):
    """A reader that has begun is not disturbed by another listing of the same directory."""
    live = mount(crowd.syn_id, "--metadata-ttl", "0")
    with os.scandir(live / "few") as begun:
        first = next(begun).name
        assert os.listdir(live / "few") == ["x"]
        assert [first, *(each.name for each in begun)] == ["x"]
    with os.scandir(live / "many") as begun:
        names = [next(begun).name for _ in range(1500)]
        assert (live / "many" / "n000001").exists()
        names += [each.name for each in begun]
    assert len(names) == len(set(names)) == MANY


def test_lookups_in_one_directory_run_side_by_side(stage, crowded):
    """PARALLEL_DIROPS: 16 names of one directory are asked for at the same time."""
    assert (crowded / "many" / "n000000").exists()
    stage.forget_requests()
    paths = [crowded / "many" / f"n{50_000 + number:06}" for number in range(THREADS)]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(THREADS))
        let_go = stack.enter_context(stage.s3_holding())
        found = pool.map(os.path.exists, paths)
        stage.server.requests.wait_for(THREADS, "LIST")
        let_go.set()
        assert list(found) == [True] * THREADS


def test_a_listing_that_fails_in_the_middle_says_so(stage, crowded):
    """An error, never a directory that looks complete."""
    crowded.allow_in_log("S3 answered 400 Unheard")
    with os.scandir(crowded / "many") as begun:
        names = [next(begun).name for _ in range(1500)]
        rule = stage.gate.faults.every_nth(1, status=400, code="Unheard", kinds=["LIST"])
        with pytest.raises(OSError, match="Input/output") as raised:
            names += [each.name for each in begun]
    assert raised.value.errno == errno.EIO
    stage.gate.faults.remove(rule)
    assert len(os.listdir(crowded / "many")) == MANY
    assert crowded.errors() == [("/many", "EIO")]
