"""kill -9 before each step of what changes the local disk: in real processes."""

import os
import tempfile
from pathlib import Path

import pytest

from stsfs.staging.directory import StagingDirectory
from stsfs.staging.left import part_of_user, what_is_left
from tests.staging_fakes import in_a_child, record
from tests.test_staging_directory import leave, leave_move, move_record


@pytest.fixture
def tmp_path(tmp_path):
    """In memory where that is possible: a process that is killed leaves the same there."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


def each_crash(tmp_path, prepare, work):
    """Run `work` in children that die before step 0, 1, 2 ... until one lives to the end.

    Yields the place, what prepare(place) returned, and what the child said before it died.
    """
    step, steps = 0, None
    while steps is None:
        named = tmp_path / f"step{step}"
        named.mkdir()
        prepared = prepare(named)
        said, steps = in_a_child(lambda tell, at=named: work(at, tell), killed_before=step)
        yield named, prepared, said
        step += 1
    assert step > 5, "the child was killed at no step"


def found_after(named):
    """What the next process finds."""
    directory = StagingDirectory.open(named)
    found = directory.left_behind()
    directory.close()
    left = what_is_left(named)  # with paths that lead there for longer than that directory is open
    assert {each.id for each in left} == {each.id for each in found}
    return left


def test_what_was_kept_is_found_whole_wherever_the_writer_is_killed(tmp_path):
    def write(named, tell):
        staged = StagingDirectory.open(named).create()
        staged.write(0, b"old")
        staged.keep(record(reason="old", size_bytes=3, present=((0, 3),)))
        tell("kept old")
        staged.write(3, b"new")
        staged.keep(record(reason="new", size_bytes=6, present=((0, 6),)), durable=True)
        tell("kept new")

    reasons = set()
    for named, _, said in each_crash(tmp_path, lambda _named: None, write):
        found = found_after(named)
        reason = found[0].record.reason if found and found[0].record else None
        reasons.add(reason)
        if "kept new" in said:
            assert reason == "new"
        elif "kept old" in said:
            assert reason in ("old", "new")
        if reason is not None:
            text = found[0].data_path.read_bytes()
            assert text[: found[0].record.size_bytes] == b"oldnew"[: found[0].record.size_bytes]
            assert found[0].is_certain
    assert reasons == {None, "old", "new"}


def test_a_file_that_is_discarded_is_whole_or_gone_wherever_its_owner_is_killed(tmp_path):
    def discard(named, _tell):
        directory = StagingDirectory.open(named)
        (found,) = directory.left_behind()
        directory.adopt(found).discard()
        directory.close()

    counts = set()
    for named, _, _ in each_crash(tmp_path, leave, discard):
        found = found_after(named)
        counts.add(len(found))
        for each in found:
            assert each.record == record()
            assert each.data_path.read_bytes() == b"data"
        if not found:
            assert list(part_of_user(named).glob("*/*")) == []
    assert counts == {0, 1}


def test_nothing_is_lost_wherever_the_one_who_takes_over_is_killed(tmp_path):
    def take_over(named, _tell):
        directory = StagingDirectory.open(named)
        (found,) = directory.left_behind()
        directory.adopt(found).rest()

    halves = 0
    for named, left, _ in each_crash(tmp_path, leave, take_over):
        (found,) = found_after(named)
        halves += len({path.parent for path in found.parts}) == 2
        assert (found.id, found.record, found.trouble) == (left, record(), "")
        after = StagingDirectory.open(named)
        staged = after.adopt(found)
        assert staged.read(0, 10) == b"data"
        assert staged.load().record == record()
        staged.discard()
        after.close()
        assert list(part_of_user(named).glob("*/*")) == []
    assert halves, "no child died between the two renames"


def test_a_move_says_what_was_done_wherever_the_mover_is_killed(tmp_path):
    def move(named, tell):
        journal = StagingDirectory.open(named).create_move(move_record())
        tell("begun")
        journal.copied(0, '"copy"')
        tell("copied")
        journal.deleting()
        tell("deleting")
        journal.discard()
        tell("done")

    for named, _, said in each_crash(tmp_path, lambda _named: None, move):
        found = found_after(named)
        if "done" in said:
            assert found == []
        elif "deleting" in said and found:
            assert found[0].record.state == "deleting"
        elif "copied" in said and "deleting" not in said:
            assert found[0].record.copied == {0: '"copy"'}
        elif "begun" in said and "deleting" not in said:
            assert found[0].record.objects == move_record().objects


def test_a_move_is_found_wherever_the_one_who_takes_over_is_killed(tmp_path):
    def take_over(named, _tell):
        directory = StagingDirectory.open(named)
        (found,) = directory.left_behind()
        directory.adopt_move(found)

    for named, left, _ in each_crash(tmp_path, leave_move, take_over):
        (found,) = found_after(named)
        assert (found.id, found.record) == (left, move_record())


@pytest.mark.parametrize("count", [1, 3])
def test_owners_that_were_killed_while_they_began_leave_nothing(tmp_path, count):
    def begin(named, _tell):
        StagingDirectory.open(named).create()

    for named, _, _ in each_crash(tmp_path, lambda _named: None, begin):
        for _ in range(count):
            assert found_after(named) == []
        assert list(part_of_user(named).glob("*/*")) == []
