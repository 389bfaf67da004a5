"""Records and journals of the staging directory: whatever lies on the disk is read, or damaged."""

import contextlib
import json
import os
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stsfs import values
from stsfs.errors import StagingFailure, StoreFailure
from stsfs.staging import file, left, moves
from stsfs.staging.moves import MovedObject, MoveJournal, MoveRecord
from stsfs.staging.owner import OwnerInfo
from stsfs.staging.record import BaseVersion, DamagedRecord, Record
from stsfs.staging.spans import Spans
from stsfs.store.object_store import Expected, Traits
from stsfs.store.stored import headers_of
from tests.fuzz.mutations import (
    DEEP,
    ODD_VALUES,
    bounded,
    damaged_bytes,
    fuzz,
    memory_below,
    mutated,
)
from tests.staging_fakes import full_record, record

SIZES = st.integers(0, 2**63 - 1)
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20
).filter(lambda name: name not in {".", ".."})
WORDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
PREFIXES = st.sampled_from(["", "base/", "a/b é/"])


@st.composite
def records(draw):
    prefix, size_bytes = draw(PREFIXES), draw(SIZES)
    spans = Spans()
    for start, length in draw(st.lists(st.tuples(SIZES, st.integers(0, 2**40)), max_size=4)):
        spans.add(start, start + length)
    spans.clip(size_bytes)
    base_bytes, base = draw(SIZES), None
    if draw(st.booleans()):
        limit = draw(st.integers(0, min(base_bytes, size_bytes)))
        base = BaseVersion(
            key=prefix + draw(NAMES), etag=draw(WORDS), size_bytes=base_bytes, limit_bytes=limit
        )
    return Record(
        location_uri=f"s3://bucket/{prefix}".rstrip("/"),
        endpoint_url=draw(st.none() | st.just("http://127.0.0.1:1")),
        label=draw(NAMES),
        key=prefix + draw(NAMES),
        path="/".join(draw(st.lists(NAMES, min_size=1, max_size=3))),
        size_bytes=size_bytes,
        present=tuple(spans),
        base=base,
        expected=draw(st.none() | st.builds(Expected, st.none() | WORDS)),
        exclusive=draw(st.booleans()),
        mode=draw(st.none() | st.integers(0, 0o7777)),
        mtime_ns=draw(st.none() | st.integers(-values.TIME_NS_MAX, values.TIME_NS_MAX)),
        traits=Traits({"colour": draw(WORDS)}, draw(WORDS), draw(WORDS)),
        write_id=draw(WORDS),
        upload_id=draw(st.none() | WORDS),
        state=draw(st.sampled_from(["writing", "closed", "failed", "conflict"])),
        reason=draw(st.text(max_size=20)),
        changed_unix_s=draw(st.floats(values.UNIX_S_MIN, values.UNIX_S_MAX)),
    )


@fuzz
@given(records(), st.booleans())
def test_a_record_comes_back_as_it_was_written(tmp_path, one, durable):
    path = tmp_path / "id.json"
    path.write_bytes(file.encode(one, durable=durable))
    assert file.load(path).record == one


def in_order(found):
    """What anybody may rely on who has a record."""
    prefix = values.prefix_of(found.location_uri)
    keys = [found.key] + ([found.base.key] if found.base else [])
    assert all(key.encode() and key.startswith(prefix) and key != prefix for key in keys)
    for inner in [found.path, *(key.removeprefix(prefix) for key in keys)]:
        assert not PurePosixPath(inner).is_absolute()
        assert "\0" not in inner
        assert not {"", ".", ".."} & set(inner.split("/"))
    before = -1
    for start, stop in found.present:
        assert type(start) is type(stop) is int
        assert before < start < stop <= found.size_bytes <= 2**63 - 1
        before = stop
    if found.base:
        assert 0 <= found.base.limit_bytes <= min(found.base.size_bytes, found.size_bytes)
    assert found.mode is None or 0 <= found.mode <= 0o7777
    etags = [found.base.etag] if found.base else []
    etags += [found.expected.etag or ""] if found.expected else []
    for sent in [*etags, found.write_id, found.upload_id or ""]:
        assert sent.isascii()
        assert sent.isprintable()
    with contextlib.suppress(StoreFailure):
        headers = headers_of(found.traits, found.write_id)
        assert not any(set("\r\n\0") & set(name + value) for name, value in headers.items())


def changed(**changes):
    return json.loads(file.encode(full_record(), durable=True)) | changes


@fuzz
@given(mutated(st.sampled_from([changed(), json.loads(file.encode(record(), durable=False))])))
@example(changed(changed_unix_s=10**400))
@example(changed(changed_unix_s=float("nan")))
@example(changed(changed_unix_s=1e300))
@example(changed(size_bytes=-1))
@example(changed(size_bytes=2**63))
@example(changed(present=[[0, 2**63]]))
@example(changed(present=[[False, True]]))
@example(changed(mode=-1))
@example(changed(mode=0o100644))
@example(changed(mtime_ns=10**30))
@example(changed(path="../../home/user/.bashrc"))
@example(changed(path="/etc/passwd"))
@example(changed(key="elsewhere/secret"))
@example(changed(key="base/../other/secret"))
@example(changed(key="base/\udcff"))
@example(changed(expected={"etag": '"a"\r\nX-Evil: 1'}))
@example(changed(write_id="a\nb"))
@example(changed(location_uri="s3://"))
@example(changed(endpoint_url="http://a\r\nb"))
def test_a_record_is_in_order_or_damaged(tmp_path, document):
    path = tmp_path / "id.json"
    path.write_text(json.dumps(document))
    with bounded():
        try:
            kept = file.load(path)
        except DamagedRecord:
            return
    in_order(kept.record)
    os.utime(path, ns=(kept.record.mtime_ns or 0,) * 2)
    assert Record.from_json(kept.record.to_json()) == kept.record


@fuzz
@given(damaged_bytes(file.encode(full_record(), durable=False), edits=4))
def test_bytes_are_a_record_or_damaged(tmp_path, data):
    path = tmp_path / "id.json"
    path.write_bytes(data)
    with bounded():
        try:
            in_order(file.load(path).record)
        except DamagedRecord:
            return


@pytest.mark.parametrize("data", DEEP)
def test_json_without_end_is_a_damaged_record_journal_or_owner(tmp_path, data):
    path = tmp_path / "id.json"
    path.write_bytes(data)
    with pytest.raises(DamagedRecord):
        file.load(path)
    with pytest.raises(DamagedRecord):
        moves.load(path)
    assert not moves.is_void(path)
    assert OwnerInfo.read(path) is None


def test_a_record_of_millions_of_values_is_refused_before_it_takes_memory(tmp_path):
    path = tmp_path / "id.json"
    for value, count in ((b"[],", 6_000_000), (b'{"a":1},', 200_000), (b"[1,2],", 3_000_000)):
        path.write_bytes(b'{"present":[' + value * count + b"[]]}")
        with memory_below(1.3 * path.stat().st_size), pytest.raises(DamagedRecord):
            file.load(path)
    with path.open("wb") as sparse:
        sparse.truncate(1 << 40)
    with memory_below(1 << 20), pytest.raises(DamagedRecord, match="too large"):
        file.load(path)


def test_a_file_written_at_more_places_than_can_be_read_back_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(file, "SPANS_MAX", 2)
    spans = tuple((4 * n, 4 * n + 1) for n in range(3))
    staged = file.StagingFile.create(tmp_path / "id", file.Room(tmp_path))
    staged.keep(record(size_bytes=100, present=spans[:2]))
    with pytest.raises(StagingFailure, match="too many places"):
        staged.keep(record(size_bytes=100, present=spans))
    assert staged.load().record.present == spans[:2]


@fuzz
@given(st.lists(st.lists(st.integers(-5, 40) | ODD_VALUES, max_size=3) | ODD_VALUES, max_size=5))
@example([[0, 2], [1, 3]])
@example([[-2, -1]])
@example([[0.0, 1.0]])
@example([[True, 2]])
def test_spans_are_in_order_or_refused(document):
    try:
        spans = Spans.from_list(document, 30)
    except ValueError:
        return
    assert spans == Spans(spans)
    assert all(0 <= start < stop <= 30 for start, stop in spans)
    assert spans.to_list() == document


def test_more_spans_than_a_record_may_have_are_refused(monkeypatch):
    monkeypatch.setattr("stsfs.staging.spans.SPANS_MAX", 10)
    with pytest.raises(ValueError, match="more than 10"):
        Spans.from_list([[2 * n, 2 * n + 1] for n in range(11)])


# Journals of renames.

MOVES = st.builds(
    lambda prefix, names, **more: MoveRecord(
        location_uri=f"s3://bucket/{prefix}".rstrip("/"),
        objects=tuple(
            MovedObject(
                source_key=f"{prefix}old/{name}", etag='"e"', size_bytes=len(name),
                target_key=f"{prefix}new/{name}",
            )
            for name in names
        ),
        **more,
    ),
    PREFIXES,
    st.lists(NAMES, min_size=1, max_size=4, unique=True),
    endpoint_url=st.none() | st.just("https://s3.example"),
    label=NAMES,
    path=NAMES,
    new_path=NAMES,
    changed_unix_s=st.floats(values.UNIX_S_MIN, values.UNIX_S_MAX),
)  # fmt: skip
MOVE = MoveRecord(
    location_uri="s3://bucket/base", endpoint_url=None, label="syn1", path="old", new_path="new",
    objects=tuple(
        MovedObject(
            source_key=f"base/old/{n}", etag='"e"', size_bytes=n, target_key=f"base/new/{n}"
        )
        for n in range(3)
    ),
)  # fmt: skip


def fresh_journal(tmp_path, move):
    (tmp_path / "id.move").unlink(missing_ok=True)
    return MoveJournal.create(tmp_path / "id", move)


@fuzz
@given(MOVES, st.lists(st.tuples(st.integers(0, 3), WORDS), max_size=4), st.booleans())
def test_a_journal_comes_back_as_it_was_written(tmp_path, move, copies, deleting):
    journal = fresh_journal(tmp_path, move)
    copies = [(index, etag) for index, etag in copies if index < len(move.objects)]
    for index, etag in copies:
        journal.copied(index, etag)
    if deleting:
        journal.deleting()
    found = journal.load()
    assert (found.objects, found.path, found.copied) == (move.objects, move.path, dict(copies))
    assert (found.state == "deleting") == deleting


def moves_in_order(found):
    prefix = values.prefix_of(found.location_uri)
    sources, targets = (
        [getattr(o, n) for o in found.objects] for n in ("source_key", "target_key")
    )
    assert found.objects
    assert all(key.startswith(prefix) and key.encode() != prefix for key in [*sources, *targets])
    assert len({*sources, *targets}) == 2 * len(found.objects)
    assert all(each.size_bytes >= 0 and each.etag.isascii() for each in found.objects)
    assert set(found.copied) <= set(range(len(found.objects)))
    for text in [found.path, found.new_path]:
        assert not {"", ".", ".."} & set(text.split("/"))


def read_journal(path):
    with bounded():
        moves.is_void(path)
        try:
            found = moves.load(path)
        except DamagedRecord:
            return
    moves_in_order(found)


def lines_of(move):
    return [json.loads(line) for line in moves.encode(move, durable=False).splitlines()]


def one_move(**changes):
    """A journal of one object, some values of which somebody has changed."""
    header, moved, *_ = lines_of(MOVE)
    return [header | {"objects": 1}, moved | changes]


@fuzz
@given(mutated(st.just([*lines_of(MOVE), {"copied": 1, "etag": '"c"'}, {"state": "deleting"}])))
@example([lines_of(MOVE)[0] | {"objects": 0}])
@example([lines_of(MOVE)[0] | {"objects": 10**400}])
@example([lines_of(MOVE)[0] | {"changed_unix_s": 10**400}])
@example(one_move(source_key="base/a", target_key="base/a"))
@example(one_move(source_key="other/a"))
@example(one_move(target_key="base/\ud800"))
@example(one_move(etag='"\r\n"'))
@example(one_move(size_bytes=-1))
def test_a_journal_is_in_order_or_damaged(tmp_path, lines):
    path = tmp_path / "id.move"
    lines = lines if isinstance(lines, list) else [lines]
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    read_journal(path)


@fuzz
@given(damaged_bytes(moves.encode(MOVE, durable=False) + b'{"copied":1,"etag":"c"}\n', edits=4))
def test_bytes_are_a_journal_or_damaged(tmp_path, data):
    path = tmp_path / "id.move"
    path.write_bytes(data)
    read_journal(path)


def test_a_journal_with_a_key_that_s3_has_refused_can_be_undone(tmp_path):
    path = tmp_path / "id.move"
    lines = one_move(target_key="base/" + "x" * 1100)
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    assert len(moves.load(path).objects) == 1


def test_a_journal_of_empty_lines_takes_no_memory(tmp_path):
    path = tmp_path / "id.move"
    header = json.dumps(lines_of(MOVE)[0]).encode()
    path.write_bytes(header + b"\n" + b"\n" * 1_000_000)
    with memory_below(4 << 20), pytest.raises(DamagedRecord):
        moves.load(path)
    path.write_bytes(b'{"a":"' + b"x" * 30_000_000)
    with memory_below(4 << 20), pytest.raises(DamagedRecord):
        moves.load(path)


# Owners, and a directory of all of it.

OWNER = {"host": "h", "pid": 1, "mount_path": "/m", "started_unix_s": 1.5}


@fuzz
@given(mutated(st.just(OWNER)))
@example(OWNER | {"started_unix_s": 10**400})
def test_an_owner_is_read_or_unknown(tmp_path, document):
    path = tmp_path / "owner.json"
    path.write_text(json.dumps(document))
    OwnerInfo.read(path)


@fuzz
@given(
    st.dictionaries(
        st.sampled_from(["aa.data", "aa.json", "bb.move", "bb.json", "owner.json", "cc.json.new"]),
        damaged_bytes(file.encode(full_record(), durable=False))
        | damaged_bytes(moves.encode(MOVE, durable=True))
        | damaged_bytes(json.dumps(OWNER).encode()),
        max_size=5,
    )
)
def test_a_staging_directory_of_anything_is_listed(tmp_path_factory, contents):
    from stsfs.cli import recover_view

    named = tmp_path_factory.mktemp("staging")
    owner = left.part_of_user(named) / "0123"
    owner.mkdir(parents=True)
    for name, data in contents.items():
        (owner / name).write_bytes(data)
    with bounded():
        found = left.what_is_left(named)
        recover_view.table(found)
        list(recover_view.advice(found))
        json.dumps([recover_view.record(each) for each in found])
