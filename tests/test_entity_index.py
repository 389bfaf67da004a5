"""What the index keeps, over restarts and beside other mounts, and what damage to it costs."""

import logging
import sqlite3
from dataclasses import replace

import pytest

from stsfs.entities import index_file
from stsfs.entities.index import EntityIndex, index_path
from stsfs.entities.records import FileKey, FileRecord, ObjectFact
from stsfs.synapse.records import ChildHeader

ROOT = "syn1"


def header(entity_id, name, kind="FileEntity", version=1):
    return ChildHeader(entity_id, name, kind, version, 1.5, 1_700_000_000.123, "7", "8")


def record(entity_id, key, size_bytes=5, **more):
    return FileRecord(FileKey(entity_id, 1, 1_700_000_000.123), "h", "b", key, size_bytes, **more)


def fact(size_bytes):
    return ObjectFact('"e"', size_bytes, 2.0, "STANDARD")


FILE, FOLDER, LINK = header("syn2", "f"), header("syn3", "d", "Folder"), header("syn4", "l", "Link")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "below" / "index.sqlite3"


@pytest.fixture
def opened(path):
    made = []

    def make(at=path):
        made.append(EntityIndex(at))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_what_was_told_survives_a_restart(opened):
    known = record("syn2", "k", annotations={"a": ("1", "ü")}, md5="m", created_unix_s=1.25)
    refused = record("syn5", "", None, unreadable="no")
    index = opened()
    index.save_listed(ROOT, "/", [FOLDER, FILE, LINK])
    index.save_files([known, refused])
    index.save_objects([("k", fact(5))])
    index.set_meta("n", "v")
    index.close()
    index = opened()
    assert index.listed(ROOT).headers == [FOLDER, FILE, LINK]
    assert index.listed("syn3") is None
    assert index.files([known.key, refused.key]) == {known.key: known, refused.key: refused}
    assert index.files([known.key._replace(version=2)]) == {}
    assert index.objects(["k", "x"]) == {"k": fact(5)}
    assert (index.meta("n"), index.meta("m"), index.trouble) == ("v", None, "")


def test_two_mounts_share_one_file_and_see_what_the_other_learns(opened):
    one, two = opened(), opened()
    for number, index in enumerate([one, two] * 20):
        index.save_listed(f"syn{number + 10}", f"/{number}", [header(f"syn{number + 100}", "x")])
    for index in (one, two):
        assert index.extent().folders_listed == 40
        assert index.trouble == ""


def test_the_index_of_another_user_or_server_is_another_file():
    paths = {index_path(url, user, "syn1") for url in ("https://a", "https://b") for user in "12"}
    assert len(paths) == 4


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b""])
def test_a_damaged_file_is_begun_anew_and_kept_again(opened, path, damage):
    path.parent.mkdir()
    path.write_bytes(damage)
    index = opened()
    index.set_meta("n", "v")
    assert index.trouble == ""
    assert opened().meta("n") == "v"


def test_tables_of_another_format_are_replaced(opened, path, monkeypatch):
    opened().set_meta("n", "v")
    monkeypatch.setattr(index_file, "FORMAT", index_file.FORMAT + 1)
    newer = opened()
    assert (newer.meta("n"), newer.trouble) == (None, "")
    newer.set_meta("n", "w")
    assert opened().meta("n") == "w"


def test_where_nothing_can_be_kept_the_index_is_in_memory_and_says_so_once(
    tmp_path, opened, caplog
):
    (tmp_path / "file").write_text("")
    index = opened(tmp_path / "file" / "index.sqlite3")
    for _ in range(3):
        index.set_meta("n", "v")
    assert index.meta("n") == "v"
    assert "cannot be used" in index.trouble
    assert len(caplog.records) == 1


async def test_a_disk_that_is_full_costs_what_is_kept_and_nothing_else(opened, caplog):
    index = opened()
    index.set_meta("n", "v")
    index._database.execute("PRAGMA max_page_count = 1")
    many = [header(f"syn{number}", f"name {number}") for number in range(10_000)]
    for folder_id in (ROOT, "syn3"):
        await index.ask(index.save_listed, folder_id, "/", many)
        assert (await index.ask(index.listed, folder_id)).headers == many
    assert "full" in index.trouble
    assert [each.levelno for each in caplog.records] == [logging.WARNING]
    assert opened().meta("n") == "v"


async def test_damage_met_later_costs_requests_and_the_next_index_begins_anew(opened, path):
    index = opened()
    for number in range(500):
        index.save_listed(f"syn{number}", "/", [header(f"syn{number + 1000}", "n" * 200)])
    index.close()
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xff" * (len(data) - 8192))
    index = opened()
    for number in range(500):
        assert await index.ask(index.listed, f"syn{number}") is None
    await index.ask(index.set_meta, "n", "v")
    assert await index.ask(index.meta, "n") == "v"
    assert "malformed" in index.trouble
    assert opened().trouble == ""


@pytest.mark.parametrize(
    "planted",
    [
        "CREATE TRIGGER t BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'it ran'); END",
        "DROP TABLE meta; CREATE VIEW meta AS SELECT 'n' AS name, 'forged' AS value",
        "DROP TABLE meta; CREATE VIEW meta AS SELECT 'n' AS name; PRAGMA user_version = 99",
    ],
)
async def test_an_index_with_more_in_it_than_its_tables_is_begun_anew(opened, path, planted):
    opened().close()
    with sqlite3.connect(path) as other:
        other.executescript(planted)
    other.close()
    index = opened()
    await index.ask(index.set_meta, "n", "v")
    assert await index.ask(index.meta, "n") == "v"
    assert index.trouble == ""


async def test_tables_taken_away_by_another_format_do_not_fail_requests(opened, path):
    index = opened()
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE files")
    other.close()
    assert await index.ask(index.files, [FileKey("syn2", 1, 1.0)]) == {}
    assert index.trouble


def test_a_name_that_is_no_text_is_kept_as_it_is(opened):
    odd = header("syn2", "half\ud800")
    index = opened()
    index.save_listed(ROOT, "/", [odd, header("syn3", "d\udfff", "Folder")])
    assert index.listed(ROOT).headers[0] == odd
    assert index.folder_paths()["syn3"] == "/d?"


def test_what_is_to_be_fetched_is_what_is_known_by_name_only(opened):
    index = opened()
    index.save_listed(ROOT, "/", [FILE, FOLDER, LINK, header("syn5", "t", "TableEntity")])
    index.save_listed("syn3", "/d", [header("syn6", "e", "Folder"), header("syn7", "x")])
    assert index.unlisted_folders(10) == [("syn6", "/d/e")]
    assert {each.entity_id for each in index.unknown_files(10)} == {"syn2", "syn4", "syn7"}
    index.save_files([record("syn2", "k")])
    assert {each.entity_id for each in index.unknown_files(10)} == {"syn4", "syn7"}
    index.save_listed(ROOT, "/", [replace(FILE, version=2), FOLDER])
    assert {each.entity_id for each in index.unknown_files(10)} == {"syn2", "syn7"}
    extent = index.extent()
    assert (extent.folders, extent.folders_listed) == (3, 2)
    assert (extent.files, extent.files_known) == (2, 0)


def test_what_a_query_told_does_not_replace_what_is_known(opened):
    index, known = opened(), record("syn2", "k", annotations={"a": ("1",)})
    index.save_files([known])
    index.save_new_files([record("syn2", "other"), record("syn5", "k5")])
    assert index.files([known.key])[known.key] == known
    assert len(index.files([record("syn5", "").key])) == 1


def test_folders_that_are_gone_are_forgotten_with_all_below_and_moved_ones_are_not(opened):
    index = opened()
    a, b, c = (header(f"syn{n}", name, "Folder") for n, name in ((10, "a"), (11, "b"), (12, "c")))
    index.save_listed(ROOT, "/", [a, b])
    index.save_listed("syn10", "/a", [c])
    index.save_listed("syn12", "/a/c", [FILE])
    index.save_listed("syn11", "/b", [c])
    index.save_listed("syn10", "/a", [])  # c was moved to b
    assert index.listed("syn12").headers == [FILE]
    index.save_listed(ROOT, "/", [a])
    assert index.listed("syn12") is None
    assert index.extent() == replace(index.extent(), folders=2, folders_listed=2, files=0)
    index.forget_folder("syn10")
    assert index.unlisted_folders(10) == []


def test_differences_between_synapse_and_the_bucket_are_counted_and_named(opened):
    index = opened()
    files = [header(f"syn{number}", f"f{number}") for number in range(5)]
    index.save_listed(ROOT, "/", files)
    index.save_files(
        [record(f"syn{number}", f"p/{number}") for number in range(4)] + [record("syn4", "q/4")]
    )
    index.save_objects([("p/0", fact(5)), ("p/1", fact(6)), ("p/preview", fact(1))])
    found = index.differences("b", "p/")
    assert (found.missing, found.other_size, found.unregistered) == (2, 1, 1)
    sizes = {each.entity_id: each.object_bytes for each in found.named}
    assert sizes == {"syn1": 6, "syn2": None, "syn3": None}
    index.forget_object("p/1")
    assert index.differences("b", "p/").missing == 3
    assert index.differences("another", "p/").missing == 0
