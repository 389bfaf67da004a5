"""The staging directory: who owns what, what is found of the dead, what is passed over."""

import errno
import json
import os
import stat

import pytest

from stsfs.errors import BadArgument, StagingFailure, StagingFull
from stsfs.staging import owner as owner_module
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.left import part_of_user, what_is_left
from stsfs.staging.moves import MovedObject, MoveRecord
from stsfs.staging.owner import OWNER_FILE, OwnerInfo, is_local
from tests.staging_fakes import LOCATION, base_key, record


@pytest.fixture
def named(tmp_path):
    return tmp_path / "state" / "staging"


@pytest.fixture
def ours(named):
    directory = StagingDirectory.open(named)
    yield directory
    directory.close()


def die(directory):
    """End as a process does that is killed: its lock goes, its files stay."""
    directory._ownership.end()


def leave(named, text=b"data", **changes):
    """What a process that was killed has left of one file; its id."""
    directory = StagingDirectory.open(named)
    staged = directory.create()
    staged.write(0, text)
    staged.keep(record(**changes))
    staged.rest()
    die(directory)
    return staged.id


def leave_move(named, *, upload=None, **changes):
    directory = StagingDirectory.open(named)
    journal = directory.create_move(move_record(**changes))
    if upload is not None:
        journal.upload(0, upload)
    die(directory)
    return journal.id


def move_record(**changes):
    base = base_key(changes.get("location_uri", LOCATION))
    moved = MovedObject(source_key=f"{base}/a", etag='"e"', size_bytes=1, target_key=f"{base}/b")
    values = {
        "location_uri": LOCATION, "endpoint_url": None, "label": "syn123",
        "path": "a", "new_path": "b", "objects": (moved,),
    }  # fmt: skip
    return MoveRecord(**(values | changes))


def owners(named):
    return [path for path in part_of_user(named).iterdir() if path.is_dir()]


def test_what_is_staged_is_closed_to_others(named, ours):
    staged = ours.create()
    staged.keep(record())
    staged.rest()
    assert stat.S_IMODE(part_of_user(named).stat().st_mode) == 0o700
    assert stat.S_IMODE(ours.path.stat().st_mode) == 0o700
    for path in (staged.path, staged.record_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_directory_without_files_goes_with_its_owner(named):
    directory = StagingDirectory.open(named)
    directory.create().discard()
    directory.close()
    assert owners(named) == []
    directory.close()


def test_a_directory_with_files_stays_and_is_found_by_the_next(named):
    directory = StagingDirectory.open(named, mount_path=named / "mnt")
    staged = directory.create()
    staged.write(0, b"data")
    staged.keep(record(reason="why"))
    staged.rest()
    directory.close()
    after = StagingDirectory.open(named)
    (found,) = after.left_behind()
    assert (found.id, found.record.reason, found.is_certain) == (staged.id, "why", True)
    assert found.owner.info.mount_path == str(named / "mnt")
    adopted = after.adopt(found)
    assert adopted.path.parent.samefile(after.path)
    assert adopted.read(0, 10) == b"data"
    assert adopted.load().record == found.record
    assert owners(named) == [after.path]
    adopted.discard()
    after.close()


def test_what_a_living_process_has_is_not_left_behind_and_cannot_be_taken(named, ours):
    living = StagingDirectory.open(named)
    staged = living.create()
    staged.write(0, b"data")
    staged.keep(record())
    assert ours.left_behind() == []
    (seen,) = what_is_left(named)
    assert seen.owner.state == "living"
    assert ours.adopt(seen) is None
    assert staged.read(0, 4) == b"data"
    staged.discard()
    living.close()


def test_of_two_that_take_over_one_file_one_gets_it(named, ours):
    leave(named)
    other = StagingDirectory.open(named)
    (found,) = ours.left_behind()
    (same,) = other.left_behind()
    assert ours.adopt(found) is not None
    assert other.adopt(same) is None
    other.close()


def test_only_one_file_of_several_is_taken_over(named, ours):
    directory = StagingDirectory.open(named)
    for text in (b"one", b"two"):
        staged = directory.create()
        staged.write(0, text)
        staged.keep(record(path=text.decode()))
        staged.rest()
    die(directory)
    first, _ = ours.left_behind()
    ours.adopt(first)
    (second,) = ours.left_behind()
    assert {first.record.path, second.record.path} == {"one", "two"}
    assert second.owner.path.samefile(directory.path)


def test_what_is_left_is_found_by_location_and_endpoint(named, ours):
    here = leave(named)
    leave(named, location_uri="s3://bucket/other")
    elsewhere = leave(named, endpoint_url="https://s3.example")
    move = leave_move(named)
    leave_move(named, location_uri="s3://bucket/other")
    assert {each.id for each in ours.left_behind(LOCATION)} == {here, move}
    (found,) = ours.left_behind(LOCATION, "https://s3.example")
    assert found.id == elsewhere
    assert len(ours.left_behind()) == 5


def test_what_was_changed_first_comes_first(named, ours):
    late, early = leave(named, changed_unix_s=2e9), leave(named, changed_unix_s=1e9)
    assert [each.id for each in ours.left_behind()] == [early, late]


@pytest.mark.parametrize("damage", [b"", b"{}", b"\0" * 4096, b'{"format": 7}'])
def test_a_damaged_record_hides_nothing_and_is_listed_with_what_is_wrong(named, ours, damage):
    whole, hurt = leave(named, changed_unix_s=2.0), leave(named, changed_unix_s=1.0)
    (path,) = part_of_user(named).glob(f"*/{hurt}.json")
    path.write_bytes(damage)
    by_id = {each.id: each for each in ours.left_behind()}
    assert by_id[whole].record is not None
    assert by_id[hurt].record is None
    assert by_id[hurt].trouble
    assert by_id[hurt].data_path.read_bytes() == b"data"
    assert [each.id for each in ours.left_behind(LOCATION)] == [whole]
    ours.adopt(by_id[hurt]).discard()
    assert [each.id for each in ours.left_behind()] == [whole]


def test_a_record_that_cannot_be_opened_hides_nothing(named, ours):
    whole, hurt = leave(named), leave(named)
    (path,) = part_of_user(named).glob(f"*/{hurt}.json")
    path.unlink()
    path.mkdir()
    by_id = {each.id: each for each in ours.left_behind()}
    assert by_id[whole].trouble == ""
    assert by_id[hurt].trouble.endswith(f"{hurt}.json is a directory and not a file")


def test_a_damaged_journal_is_listed(named, ours):
    hurt = leave_move(named)
    (path,) = part_of_user(named).glob(f"*/{hurt}.move")
    path.write_bytes(b"{}")
    (found,) = ours.left_behind()
    assert found.record is None
    assert found.trouble
    ours.adopt_move(found).discard()
    assert ours.left_behind() == []


def test_a_journal_that_the_machine_did_not_outlive_is_not_followed(named, ours, monkeypatch):
    leave_move(named)
    assert len(ours.left_behind()) == 1
    monkeypatch.setattr("stsfs.staging.moves.boot_id", lambda: "another run of the machine")
    assert what_is_left(named) == []
    assert ours.left_behind() == []
    assert owners(named) == [ours.path]


def test_foreign_files_stop_nothing_and_stay(named, ours):
    left = leave(named)
    (home,) = part_of_user(named).glob(f"*/{left}.data")
    (home.parent / "notes.txt").write_text("mine")
    (part_of_user(named) / "letter").write_text("mine")
    (part_of_user(named) / "link").symlink_to(named)
    (part_of_user(named) / "attic").mkdir()
    (part_of_user(named) / "attic" / "x").write_text("mine")
    (found,) = ours.left_behind()
    ours.adopt(found).discard()
    assert ours.left_behind() == []
    assert (home.parent / "notes.txt").exists()
    assert (part_of_user(named) / "attic" / "x").exists()
    assert (part_of_user(named) / "letter").exists()


def test_bytes_without_a_record_are_listed_and_an_empty_file_without_one_is_not(named, ours):
    directory = StagingDirectory.open(named)
    directory.create().rest()
    staged = directory.create()
    staged.write(0, b"data")
    staged.rest()
    die(directory)
    (found,) = ours.left_behind()
    assert found.id == staged.id
    assert found.record is None
    assert "nothing was noted" in found.trouble


def test_the_halves_of_a_file_are_put_together_whoever_has_them(named, ours):
    left = leave(named)
    (found,) = ours.left_behind()
    other = StagingDirectory.open(named)
    found.data_path.rename(other.path / found.data_path.name)
    die(other)
    (again,) = ours.left_behind()
    assert again.id == left
    assert again.record == found.record
    assert ours.adopt(again).read(0, 10) == b"data"
    assert owners(named) == [ours.path]


def test_a_half_that_a_living_process_has_is_not_taken(named, ours):
    leave(named)
    (found,) = ours.left_behind()
    living = StagingDirectory.open(named)
    (taken,) = living.left_behind()
    living.adopt(taken)
    assert ours.adopt(found) is None
    assert ours.left_behind() == []
    living.close()


def test_take_over_that_fails_halfway_is_undone(named, ours, monkeypatch):
    leave(named)
    (found,) = ours.left_behind()
    real = os.rename

    def fail(source, target):
        if str(source).endswith(".json"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(StagingFailure):
            ours.adopt(found)
    assert ours.left_behind() == [found]


def test_on_a_shared_file_system_the_files_of_another_machine_are_not_left_behind(
    named, ours, monkeypatch
):
    left = leave(named)
    (path,) = part_of_user(named).glob(f"*/{left}.data")
    info = json.loads((path.parent / OWNER_FILE).read_text()) | {"host": "another"}
    (path.parent / OWNER_FILE).write_text(json.dumps(info))
    assert [each.owner.state for each in ours.left_behind()] == ["dead"]  # locks are true here
    monkeypatch.setattr("stsfs.staging.left.is_local", lambda _path: False)
    assert ours.left_behind() == []
    seen = next(each for each in what_is_left(named) if each.id == left)
    assert seen.owner.state == "elsewhere"
    assert seen.owner.info.host == "another"
    assert ours.adopt(seen) is not None  # somebody has named it, and knows that it is dead


@pytest.mark.parametrize(
    ("lines", "local"),
    [
        ("1 0 8:1 / / rw - ext4 /dev/sda rw", True),
        ("1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / {here} rw - nfs4 server:/ rw", False),
        ("1 0 0:9 / / rw - nfs4 server:/ rw\n2 1 8:1 / {here} rw - xfs /dev/sda rw", True),
        ("1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 8:1 / {here}er rw - nfs server:/ rw", True),
        ("1 0 0:5 / / rw - strange none rw", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_locks_are_enough_where_only_this_machine_sees_the_files(
    tmp_path, monkeypatch, lines, local
):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(lines.format(here=tmp_path))
    monkeypatch.setattr(owner_module, "_MOUNTINFO", mountinfo)
    assert is_local(tmp_path / "x") is local


def test_an_owner_that_died_before_it_said_who_it_is_is_dead(named, ours):
    left = leave(named)
    (path,) = part_of_user(named).glob(f"*/{left}.data")
    (path.parent / OWNER_FILE).write_text("")
    (found,) = ours.left_behind()
    assert (found.owner.state, found.owner.info) == ("dead", None)
    (path.parent / OWNER_FILE).unlink()
    (found,) = ours.left_behind()
    assert ours.adopt(found).read(0, 10) == b"data"


def test_an_owner_tells_who_and_where_it_is(named):
    directory = StagingDirectory.open(named, mount_path=named / "mnt")
    info = OwnerInfo.read(directory.path / OWNER_FILE)
    assert (info.pid, info.host, info.mount_path) == (
        os.getpid(), os.uname().nodename, str(named / "mnt"),
    )  # fmt: skip
    directory.close()


def test_to_look_changes_nothing(named):
    leave(named)
    directory = StagingDirectory.open(named)
    directory.create().rest()
    die(directory)
    before = sorted(part_of_user(named).rglob("*"))
    assert len(what_is_left(named)) == 1
    assert sorted(part_of_user(named).rglob("*")) == before


def test_where_nothing_was_ever_staged_nothing_is_left(tmp_path):
    assert what_is_left(tmp_path) == []
    with pytest.raises(BadArgument, match="no-such"):
        what_is_left(tmp_path / "no-such")


@pytest.mark.parametrize("place", ["file", "file/below", "read-only"])
def test_a_place_that_cannot_hold_files_is_refused(tmp_path, place, monkeypatch):
    (tmp_path / "file").write_text("")
    if place == "read-only":

        def refuse(*_args, **_kwargs):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(BadArgument) as caught:
        StagingDirectory.open(tmp_path / place)
    assert "--staging-dir" in caught.value.remedy


def test_a_directory_of_somebody_else_is_refused(named):
    named.mkdir(parents=True)
    part_of_user(named).symlink_to("/tmp")
    with pytest.raises(BadArgument, match="is a symbolic link and not a directory"):
        StagingDirectory.open(named)


def test_a_disk_without_room_refuses_new_files_and_records(named, ours, monkeypatch):
    def fail(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(StagingFull):
        ours.create()
    with pytest.raises(StagingFull):
        ours.create_move(move_record())
