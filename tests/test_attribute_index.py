"""Modes and times by key and ETag: what is found again, what goes, and a file that is damaged."""

import logging
import os
import sqlite3
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stsfs.staging import attributes as attributes_module
from stsfs.staging.attribute_rows import AttributeRows, Attributes
from stsfs.staging.attributes import AttributeIndex
from stsfs.supervisor import BUGS

HERE = ("s3://bucket/base", None)
THERE = ("s3://bucket/base", "https://s3.example")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "attributes.sqlite3"


@pytest.fixture
def index(path):
    made = AttributeIndex(path)
    yield made
    made.close()


def put(index, key, etag="e", mode=0o644, mtime_ns=5, location=HERE):
    index.put(location, key, etag, mode=mode, mtime_ns=mtime_ns)


def of(index, key, location=HERE):
    return index.of_keys(location, key, key).get(key)


def test_what_was_set_is_known_at_once_and_after_a_remount(path, index):
    put(index, "dir/a", '"1"', 0o600, 1_700_000_000_123_456_789)
    put(index, "dir/a", '"2"', None, 7)
    put(index, "dir/\udcff\n", '"3"', 0o755, None)
    known = {
        "dir/a": Attributes('"2"', None, 7),
        "dir/\udcff\n": Attributes('"3"', 0o755, None),
    }
    assert index.of_keys(HERE, "dir/a", "dir/\udcff\n") == known
    index.close()
    after = AttributeIndex(path)
    assert after.of_keys(HERE, "dir/a", "dir/\udcff\n") == known
    after.close()


def test_a_question_is_about_one_directory_and_the_directories_it_shows(index):
    for key in ("a", "dir/", "dir/a", "dir/b", "dir/b/", "dir/b/x", "dir/c", "dir0", "e"):
        put(index, key)
    assert list(index.of_keys(HERE, "dir/a", "dir/c")) == ["dir/a", "dir/b", "dir/b/", "dir/c"]
    assert list(index.of_keys(HERE, "dir/b", "dir/b")) == ["dir/b"]
    assert list(index.of_keys(HERE, "a", "dir0")) == ["a", "dir/", "dir0"]
    assert list(index.of_keys(HERE, "dir/b/a", "dir/b/z")) == ["dir/b/x"]


def test_locations_and_endpoints_know_nothing_of_each_other(index):
    put(index, "a", "here")
    put(index, "a", "there", location=THERE)
    index.forget(HERE, "a")
    assert of(index, "a") is None
    assert of(index, "a", THERE).etag == "there"
    assert of(index, "a", ("s3://bucket", None)) is None


def test_a_move_takes_what_was_set_along_with_the_new_etag(index):
    put(index, "a", "old", 0o600, 9)
    put(index, "dir/b", "gone")
    index.move(HERE, "a", "dir/b", "new")
    assert of(index, "a") is None
    assert of(index, "dir/b") == Attributes("new", 0o600, 9)


def test_a_move_of_what_has_nothing_set_leaves_nothing_of_the_target(index):
    put(index, "b", "gone")
    index.move(HERE, "a", "b", "new")
    assert of(index, "b") is None


def test_a_directory_moves_with_all_below_and_nothing_beside(index):
    for key in ("old/", "old/a", "old/x/", "old/x/y/z", "old0", "old-1/a", "oldest/a"):
        put(index, key, key)
    put(index, "new/gone", "gone")
    put(index, "newer/stays", "stays")
    index.move_prefix(HERE, "old/", "a/way/off/")
    index.move_prefix(HERE, "a/way/off/", "new/")
    kept = {key: of(index, key) and of(index, key).etag for key in (
        "old/", "old/a", "old/x/y/z", "new/", "new/a", "new/x/", "new/x/y/z", "new/gone",
        "old0", "old-1/a", "oldest/a", "newer/stays",
    )}  # fmt: skip
    assert kept == {
        "old/": None, "old/a": None, "old/x/y/z": None, "new/": "old/", "new/a": "old/a",
        "new/x/": "old/x/", "new/x/y/z": "old/x/y/z", "new/gone": None,
        "old0": "old0", "old-1/a": "old-1/a", "oldest/a": "oldest/a", "newer/stays": "stays",
    }  # fmt: skip


NAMES = st.sampled_from(["a", "a/", "a/b", "a/b/", "a/b/c", "a-", "a0/b", "c", "c/", "c/d"])
PREFIXES = st.sampled_from([("a/", "c/"), ("c/", "x/y/"), ("a/b/", "c/e/")])
CHANGES = st.one_of(
    st.tuples(st.just("put"), NAMES, st.integers(0, 3)),
    st.tuples(st.just("forget"), NAMES),
    st.tuples(st.just("move"), NAMES, NAMES, st.integers(4, 7)),
    st.tuples(st.just("move_prefix"), PREFIXES),
)


def applied(model, change):
    match change:
        case ("put", key, etag):
            model[key] = str(etag)
        case ("forget", key):
            model.pop(key, None)
        case ("move", old, new, etag):
            moved = old in model
            model.pop(old, None)
            model.pop(new, None)
            if moved:
                model[new] = str(etag)
        case ("move_prefix", (old, new)):
            moved = {key: etag for key, etag in model.items() if key.startswith(old)}
            for key in [*model]:
                if key.startswith((old, new)):
                    del model[key]
            model.update({new + key[len(old) :]: etag for key, etag in moved.items()})


@settings(deadline=None)
@given(st.lists(CHANGES))
def test_the_rows_are_those_of_a_plain_table(tmp_path_factory, changes):
    rows, model = AttributeRows(tmp_path_factory.mktemp("rows") / "index"), {}
    for change in changes:
        if change[0] == "move" and change[1] == change[2]:
            continue
        applied(model, change)
        match change:
            case ("put", key, etag):
                rows.put(HERE, key, Attributes(str(etag), None, None))
            case ("forget", key):
                rows.forget(HERE, key)
            case ("move", old, new, etag):
                rows.move(HERE, old, new, str(etag))
            case ("move_prefix", prefixes):
                rows.move_prefix(HERE, *prefixes)
    keys = {*model, "a", "a/", "a/b", "a/b/", "a/b/c", "c/", "c/d", "c/b", "x/y/", "x/y/d"}
    found = {key: rows.of_keys(HERE, key, key).get(key) for key in keys}
    rows.close()
    assert {key: row.etag for key, row in found.items() if row} == model


def test_the_oldest_go_where_there_are_too_many(path):
    index = AttributeIndex(path, rows_max=100)
    for number in range(1000):
        put(index, f"{number:04}")
        if number == 950:
            put(index, "0940")  # set again: young
    index.close()
    after = AttributeIndex(path)
    left = after.of_keys(HERE, "0000", "9999")
    after.close()
    assert 80 <= len(left) <= 120
    assert {"0940", "0999"} <= left.keys()
    assert "0000" not in left


def test_mounts_that_share_the_file_see_what_each_other_set(path, index):
    other = AttributeIndex(path)
    put(index, "a", "ours")
    of(index, "a")
    assert of(other, "a").etag == "ours"
    put(other, "a", "theirs")
    of(other, "a")
    assert of(index, "a").etag == "theirs"
    other.close()


def test_changes_of_many_threads_all_arrive(path, index):
    other = AttributeIndex(path)
    threads = [
        threading.Thread(target=lambda n=n, at=at: [put(at, f"{n}/{i}") for i in range(200)])
        for n, at in enumerate([index, other, index, other])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert [len(index.of_keys(HERE, f"{n}/0", f"{n}/9999")) for n in range(4)] == [200] * 4


@pytest.mark.parametrize("mtime_ns", [1 << 63, -(1 << 63) - 1, 1 << 100])
def test_a_time_that_has_no_place_in_the_file_hurts_nothing_else(index, mtime_ns):
    put(index, "a", "e", 0o600, mtime_ns)
    put(index, "b", "e", 0o600, -(1 << 63))
    assert of(index, "a") == Attributes("e", 0o600, None)
    assert of(index, "b") == Attributes("e", 0o600, -(1 << 63))


def warnings_of(caplog):
    return [each.message for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "damage", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 4096]
)
def test_a_damaged_file_is_begun_anew_with_a_warning_and_takes_what_is_set_then(
    path, caplog, damage
):
    path.parent.mkdir()
    path.write_bytes(damage)
    index = AttributeIndex(path)
    put(index, "a")
    assert of(index, "a") == Attributes("e", 0o644, 5)
    index.close()
    assert len(warnings_of(caplog)) == 1
    assert str(path) in warnings_of(caplog)[0]


def test_a_file_that_is_damaged_while_it_is_used_is_begun_anew_by_all_who_use_it(
    path, index, caplog
):
    other = AttributeIndex(path)
    put(index, "old")
    assert of(index, "old")
    assert of(other, "old")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with open(path, "r+b") as file:  # the same file: its readers notice by what they read
        file.write(os.urandom(path.stat().st_size))
    put(index, "a", "ours")
    put(index, "a", "ours")
    assert of(index, "a").etag == "ours"
    assert of(other, "a").etag == "ours"
    other.close()
    assert warnings_of(caplog)


@pytest.mark.parametrize("damage", ["mode = 'x'", "name = 5", "etag = x'00'", "mtime_ns = 1.5"])
def test_a_row_of_another_kind_is_damage(path, index, damage):
    put(index, "a")
    of(index, "a")
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE attribute SET {damage}")
    connection.commit()
    connection.close()
    assert of(index, "a") is None
    put(index, "a")
    assert of(index, "a") == Attributes("e", 0o644, 5)


@pytest.mark.parametrize(
    "planted",
    [
        "CREATE TRIGGER t BEFORE INSERT ON attribute BEGIN SELECT RAISE(ABORT, 'it ran'); END",
        "DROP TABLE journal; CREATE VIEW journal AS SELECT 1 AS id",
        "CREATE INDEX more ON attribute (abs(mode))",
    ],
)
def test_an_index_with_more_in_it_than_its_tables_is_begun_anew(path, planted):
    first = AttributeIndex(path)
    put(first, "old")
    first.close()
    connection = sqlite3.connect(path)
    connection.executescript(planted)
    connection.close()
    index = AttributeIndex(path)
    put(index, "a")
    assert of(index, "a") == Attributes("e", 0o644, 5)
    index.close()


def test_a_database_of_another_program_that_has_only_views_is_left_alone(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE VIEW precious AS SELECT 1")
    connection.close()
    before = path.read_bytes()
    index = AttributeIndex(path)
    put(index, "a")
    assert of(index, "a") is None
    index.close()
    assert path.read_bytes() == before


def test_a_disk_that_hangs_keeps_neither_questions_nor_the_end_and_nothing_is_lost(
    path, monkeypatch, caplog
):
    first = AttributeIndex(path)
    put(first, "a", "before")
    assert of(first, "a")
    hangs, over = threading.Event(), threading.Event()

    def hang(rows, *_key):
        hangs.set()
        over.wait(120)
        raise sqlite3.OperationalError("disk I/O error")

    for patience in ("ANSWER_S", "CLOSE_S"):
        monkeypatch.setattr(attributes_module, patience, 0.01)
    with monkeypatch.context() as hung:
        hung.setattr(AttributeRows, "put", hang)
        put(first, "a", "after")
        assert hangs.wait(120)
        assert of(first, "a") is None
        first.close()
        assert first._thread.is_alive()
        assert warnings_of(caplog)
        lines = b"".join(each.read_bytes() for each in path.parent.glob("*.changes-*"))
        over.set()
        first._thread.join(120)
    assert b"after" in lines


def test_without_a_place_for_the_file_nothing_is_known_and_nothing_fails(tmp_path, caplog):
    (tmp_path / "state").write_text("a file")
    index = AttributeIndex(tmp_path / "state" / "attributes.sqlite3")
    put(index, "a")
    put(index, "b")
    assert of(index, "a") is None
    index.close()
    assert len(warnings_of(caplog)) == 1


def test_a_file_that_goes_away_is_made_again(path, index):
    put(index, "a")
    assert of(index, "a")
    path.unlink()
    put(index, "b")
    assert (of(index, "a"), of(index, "b")) == (None, Attributes("e", 0o644, 5))


def test_changes_that_the_disk_cannot_follow_are_dropped_and_nobody_waits(
    path, monkeypatch, caplog
):
    monkeypatch.setattr(attributes_module, "WAITING_MAX", 10)
    may_go_on = threading.Event()
    real = AttributeRows.put

    def slow(*args):
        may_go_on.wait()
        real(*args)

    monkeypatch.setattr(AttributeRows, "put", slow)
    index = AttributeIndex(path)
    for number in range(100):
        put(index, f"{number:03}")
    may_go_on.set()
    known = index.of_keys(HERE, "000", "999")
    index.close()
    assert 10 <= len(known) <= 30
    assert "000" in known
    assert len(warnings_of(caplog)) == 1


def test_a_closed_index_knows_nothing_and_takes_nothing(path):
    index = AttributeIndex(path)
    put(index, "a")
    index.close()
    put(index, "b")
    assert of(index, "a") is None
    after = AttributeIndex(path)
    assert (of(after, "a") is None, of(after, "b")) == (False, None)
    after.close()


def test_the_file_is_closed_to_others(path, index):
    put(index, "a")
    of(index, "a")
    for each in path.parent.iterdir():
        assert each.stat().st_mode & 0o077 == 0, each


def test_a_bug_leaves_nobody_without_an_answer_and_the_next_change_is_kept(index, monkeypatch):
    def broken(*arguments):
        monkeypatch.undo()
        raise TypeError("a bug")

    before = BUGS.count
    put(index, "a")
    assert of(index, "a") is not None
    monkeypatch.setattr(AttributeRows, "of_keys", broken)
    assert of(index, "a") is None
    assert BUGS.count == before + 1
    put(index, "b")
    assert of(index, "b") is not None
