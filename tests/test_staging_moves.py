"""The journal of renames: what it says after each step, and after a crash in the middle of one."""

import errno
import io
import os

import pytest

from stsfs.errors import StagingFailure, StagingFull
from stsfs.staging.moves import MovedObject, MoveJournal, MoveRecord, is_void
from stsfs.staging.record import DamagedRecord


def moved(number):
    return MovedObject(
        source_key=f"base/old/{number}\n\u00fc",
        etag=f'"{number}"',
        size_bytes=number,
        target_key=f"base/new/{number}",
        storage_class="STANDARD_IA",
    )


def move(count=3):
    return MoveRecord(
        location_uri="s3://bucket/base",
        endpoint_url="https://s3.example",
        label="syn123",
        path="old",
        new_path="new",
        objects=tuple(moved(number) for number in range(count)),
        changed_unix_s=1_700_000_000.25,
    )


@pytest.fixture
def journal(tmp_path):
    return MoveJournal.create(tmp_path / "abc", move())


def test_a_journal_says_what_is_moved(journal):
    assert journal.id == "abc"
    assert journal.load() == move()


def test_a_journal_says_how_far_the_move_has_come(journal):
    journal.copied(1, '"copy"')
    assert (journal.load().state, journal.load().copied) == ("copying", {1: '"copy"'})
    journal.copied(0, '"other"')
    journal.deleting()
    assert journal.load().state == "deleting"
    assert journal.load().copied == {1: '"copy"', 0: '"other"'}
    assert journal.load().objects == move().objects


def test_a_journal_names_the_uploads_that_were_begun_for_copies(journal):
    journal.upload(1, "upload-1")
    journal.copied(1, '"copy"')
    journal.upload(2, 'upload-"2"')
    journal.upload(7, "of no object")
    assert journal.load().uploads == {"upload-1": 1, 'upload-"2"': 2}
    assert journal.load().copied == {1: '"copy"'}


def test_a_line_that_was_torn_counts_as_missing_and_hurts_no_other(journal):
    journal.copied(0, '"zero"')
    whole = journal.path.read_bytes()
    journal.copied(1, '"one"')
    longer = journal.path.read_bytes()
    for length in range(len(whole), len(longer)):
        journal.path.write_bytes(longer[:length])
        assert journal.load().copied.keys() - {1} == {0}
        journal.copied(2, '"two"')
        assert journal.load().copied.keys() - {1} == {0, 2}


def test_a_move_is_deleting_only_when_all_of_that_line_is_there(journal):
    whole = journal.path.read_bytes()
    journal.deleting()
    longer = journal.path.read_bytes()
    assert journal.load().state == "deleting"
    for length in range(len(whole), len(longer)):
        journal.path.write_bytes(longer[:length])
        assert journal.load().state == "copying"


def test_a_large_move_fits(tmp_path):
    journal = MoveJournal.create(tmp_path / "abc", move(10_000))
    for number in range(0, 10_000, 100):
        journal.copied(number, '"e"')
    found = journal.load()
    assert len(found.objects) == 10_000
    assert len(found.copied) == 100


def test_a_move_is_on_the_disk_before_it_begins_and_before_it_deletes(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def note(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    journal = MoveJournal.create(tmp_path / "abc", move())
    inode = journal.path.stat().st_ino
    assert synced == [inode, tmp_path.stat().st_ino]
    synced.clear()
    journal.deleting()
    assert synced == [inode]


def test_a_move_of_one_object_forces_nothing_to_the_disk(tmp_path, monkeypatch):
    def fail(_descriptor):
        raise AssertionError

    monkeypatch.setattr(os, "fsync", fail)
    journal = MoveJournal.create(tmp_path / "abc", move(1))
    journal.copied(0, '"copy"')
    assert journal.load().copied == {0: '"copy"'}
    journal.discard()


def test_only_a_journal_that_is_on_the_disk_outlives_the_machine(tmp_path, monkeypatch):
    several = MoveJournal.create(tmp_path / "several", move(2))
    one = MoveJournal.create(tmp_path / "one", move(1))
    torn = tmp_path / "torn.move"
    torn.touch()
    assert [is_void(path) for path in (several.path, one.path, torn)] == [False, False, True]
    monkeypatch.setattr("stsfs.staging.moves.boot_id", lambda: "another run of the machine")
    assert [is_void(path) for path in (several.path, one.path)] == [False, True]


def test_discard_leaves_nothing(journal):
    journal.discard()
    journal.discard()
    assert os.listdir(journal.path.parent) == []


def test_a_note_that_cannot_be_forced_to_the_disk_is_taken_back(journal, monkeypatch):
    def fail(*_args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StagingFailure):
            journal.deleting()
    assert journal.load() == move()


def test_a_note_that_the_disk_takes_in_part_only_is_taken_back(journal, monkeypatch):
    before = journal.path.read_bytes()
    monkeypatch.setattr("builtins.open", lambda descriptor, *_args: Half(descriptor))
    with pytest.raises(StagingFull):
        journal.copied(0, '"e"')
    with pytest.raises(StagingFull):
        journal.deleting()
    monkeypatch.undo()
    assert journal.path.read_bytes() == before


class Half(io.FileIO):
    """A file on a disk that is nearly full."""

    def __init__(self, descriptor):
        super().__init__(descriptor, "wb")

    def write(self, data):
        return super().write(data[: len(data) // 2])


def test_a_journal_that_cannot_be_written_is_not_there(tmp_path, monkeypatch):
    def fail(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(StagingFull):
            MoveJournal.create(tmp_path / "abc", move())
    assert not (tmp_path / "abc.move").exists()


@pytest.mark.parametrize("damage", [
    lambda lines: [],
    lambda lines: [b"{}"],
    lambda lines: lines[:2],
    lambda lines: [lines[0].replace(b'"format":1', b'"format":2'), *lines[1:]],
    lambda lines: [lines[0].replace(b'"objects":3', b'"objects":-1'), *lines[1:]],
    lambda lines: [lines[0], b"{}", *lines[2:]],
    lambda lines: [lines[0], lines[1][:20], *lines[2:]],
])  # fmt: skip
def test_what_is_no_journal_is_damaged(journal, damage):
    journal.path.write_bytes(b"\n".join(damage(journal.path.read_bytes().split(b"\n"))))
    with pytest.raises(DamagedRecord):
        journal.load()
