"""The index of entities: rows of a view that go into it, and a file that was damaged."""

import json
import sqlite3

import trio
from hypothesis import example, given
from hypothesis import strategies as st

from stsfs.entities import bulk, index_rows
from stsfs.entities.index import EntityIndex
from stsfs.entities.records import FileKey, key_of
from stsfs.synapse.records import ChildHeader, TableRows
from tests.fuzz.mutations import ODD_TEXTS, bounded, fuzz, fuzz_slowly, mutated
from tests.fuzz.synapse_documents import check_header


@fuzz
@given(st.lists(st.none() | ODD_TEXTS | st.sampled_from(["syn1", "3", "1577836800000"]),
                min_size=8, max_size=8))  # fmt: skip
@example(["syn1", "1", "9" * 400, "h", "b", "k", None, None])
@example(["syn1", "1", "1", "h", "b", "k", "-5", None])
@example(["syn1", "9" * 19, "1", "h", "b", "k", "5", None])
@example(["syn1", "1", "1", "h", "b", "\ud800", "5", None])
def test_rows_of_a_view_are_records_or_left_out_and_counted(row):
    good = ("syn2", "1", "1577836800000", "9", "b", "k", "5", None)
    records, left_out = bulk.records_of(TableRows(bulk.COLUMNS, (tuple(row), good)))
    assert records[-1].key.entity_id == "syn2"
    assert len(records) - 1 + left_out in {0, 1}
    index = EntityIndex(None)
    index.save_files(records)
    assert list(index.files(each.key for each in records).values()) == records
    index.close()


ROW_VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.binary(max_size=5) | (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)  # fmt: skip


@fuzz_slowly
@given(
    st.sampled_from(["folders", "children", "files", "objects", "meta"]),
    st.data(),
)
def test_an_index_with_values_of_other_kinds_is_begun_anew(tmp_path_factory, table, data):
    path = tmp_path_factory.mktemp("index") / "i.sqlite3"
    index = EntityIndex(path)
    header = ChildHeader("syn2", "n", "FileEntity", 3, 1.0, 2.0, "7", "7")
    index.save_listed("syn1", "/", [header])
    columns = [row[1] for row in index._database.execute(f"PRAGMA table_info({table})")]
    row = [data.draw(ROW_VALUES) for _ in columns]
    fixed = {"parent_id": "syn1", "entity_id": "syn1" if table == "folders" else "syn2",
             "version": 3, "modified_unix_s": 2.0, "object_key": "k", "place": 0}  # fmt: skip
    row = [fixed.get(name, value) if data.draw(st.integers(0, 3)) else value
           for name, value in zip(columns, row, strict=True)]  # fmt: skip
    try:
        with index._database:
            marks = ",".join("?" * len(row))
            index._database.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)
    except sqlite3.Error:
        index.close()
        return

    async def run():
        for call in (
            lambda: index.listed("syn1"), lambda: index.files([key_of(header)]),
            lambda: index.objects(["k"]), lambda: index.meta("m"), index.headers, index.extent,
            index.folder_paths, lambda: index.unlisted_folders(9), lambda: index.unknown_files(9),
            lambda: index.differences("b", "k"),
        ):  # fmt: skip
            found = await index.ask(call)
            headers = getattr(found, "headers", found if isinstance(found, list) else [])
            for each in headers:
                if isinstance(each, ChildHeader):
                    check_header(each)

    with bounded():
        trio.run(run)
    index.close()


@fuzz_slowly
@given(st.data())
def test_a_damaged_index_file_is_begun_anew(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("index") / "i.sqlite3"
    index = EntityIndex(path)
    header = ChildHeader("syn2", "n", "FileEntity", 3, 1.0, 2.0, "7", "7")
    index.save_listed("syn1", "/", [header] * 3)
    index.close()
    text = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(text) - 1), max_size=30)):
        text[at] = data.draw(st.integers(0, 255))
    path.write_bytes(text[: data.draw(st.integers(0, len(text)))] if data.draw(st.booleans())
                     else text)  # fmt: skip
    with bounded():
        index = EntityIndex(path)

        async def run():
            await index.ask(index.listed, "syn1")
            await index.ask(index.extent)
            await index.ask(index.save_listed, "syn1", "/", [header])
            assert [each.name for each in (await index.ask(index.listed, "syn1")).headers] == ["n"]

        trio.run(run)
    index.close()


@fuzz
@given(mutated(st.just({"age": ["3", "4"], "tissue": []})).map(json.dumps) | ODD_TEXTS)
@example('{"a":["\\ud800"]}')
@example('{"a":[1,{"b":2}]}')
@example("[" * 100_000)
def test_annotations_in_an_index_are_texts_or_the_index_is_damaged(text):
    row = ("h", "b", "k", 5, "", None, "", text, "")
    try:
        record = index_rows.record(FileKey("syn1", 1, 2.0), row)
    except index_rows.DamagedIndex:
        return
    for name, values in record.annotations.items():
        assert name.encode() is not None
        assert all(each.encode() is not None for each in values)
