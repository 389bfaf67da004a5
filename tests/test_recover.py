"""`stsfs recover` without a mount: what it lists, chooses, uploads, saves and gives up."""

import json
import os
import stat

import pytest

from stsfs.cli.recover_view import state
from stsfs.errors import NoSynapseToken
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.left import part_of_user, what_is_left
from stsfs.staging.record import BaseVersion
from stsfs.store.object_store import Expected
from tests.recover_stage import bucket_in_place_of_all, own_directories, run_recover
from tests.schemas import checked
from tests.staging_fakes import LOCATION, record
from tests.test_staging_directory import die, leave, leave_move, move_record

BASE_TEXT = bytes(range(100))


@pytest.fixture
def named(tmp_path, monkeypatch):
    return own_directories(monkeypatch, tmp_path)


@pytest.fixture
def recover(named):
    return run_recover


@pytest.fixture
def bucket(monkeypatch):
    return bucket_in_place_of_all(monkeypatch)


def over_base(bucket, **changes):
    """A record of a file that was staged over an object, with two bytes changed."""
    bucket.store.put("base/old", BASE_TEXT)
    etag = bucket.store.objects["base/old"].etag
    values = {
        "base": BaseVersion(key="base/old", etag=etag, size_bytes=100, limit_bytes=50),
        "size_bytes": 60,
        "present": ((0, 4),),
        "state": "closed",
    }
    return values | changes


# The list.


def test_a_newcomer_is_told_what_there_is_and_what_to_do(named, recover):
    whole = leave(named, state="closed", changed_unix_s=1_700_000_000.0, path="dir/a\x1b[31m")
    failed = leave(named, state="failed", reason="The policy forbids it.")
    conflict = leave(named, state="conflict", reason="It was changed.")
    half = leave(named)
    move = leave_move(named)
    told = recover()
    assert told.exit_code == 0
    lines = {line.split()[0]: line for line in told.stdout.splitlines() if line.strip()}
    assert "syn123: dir/a\\x1b[31m" in lines[whole]
    assert "4 B" in lines[whole]
    assert "2023-11-1" in lines[whole]
    assert "whole, the upload failed: The policy forbids it." in lines[failed]
    assert "another client has changed the object" in lines[conflict]
    assert "half-written" in lines[half]
    assert "a -> b" in lines[move]
    for command in ("--upload", "--save DIR", "--discard ID", "--upload --force ID"):
        assert f"stsfs recover {command}" in told.stdout


def test_where_nothing_is_left_it_says_so(named, recover):
    assert "nothing that is left" in recover().stdout
    StagingDirectory.open(named).close()
    told = recover()
    assert (told.exit_code, told.stdout.splitlines()) == (
        0, ["Everything that was written has reached S3. Nothing is left in", f"    {named}"],
    )  # fmt: skip
    leave(named)
    told = recover("syn999").stdout
    assert "Nothing of what was asked about is left" in told
    assert "Everything" not in told


def test_scripts_get_all_of_it(named, recover):
    leave(named, state="closed", changed_unix_s=5.0)
    leave_move(named)
    hurt = leave(named)
    next(part_of_user(named).glob(f"*/{hurt}.json")).write_bytes(b"")
    first, *rest = checked("recover", recover("--json").stdout)["left"]
    assert (first["path"], first["state"], first["location"]) == ("dir/file", "closed", "syn123")
    assert {each["state"] for each in rest} == {"damaged", "copying"}
    assert checked("recover", recover("--json", "syn999").stdout) == {
        "left": [], "looked_at": [str(named)], "troubles": [],
    }  # fmt: skip


def test_another_staging_directory_can_be_named(named, recover, tmp_path):
    left = leave(tmp_path / "other")
    assert left in recover("--staging-dir", tmp_path / "other").stdout
    assert left not in recover().stdout
    assert recover("--staging-dir", tmp_path / "no-such").exit_code == 2


def test_a_location_a_path_or_ids_choose_what_is_meant(named, recover, tmp_path):
    here = leave(named)
    there = leave(named, label="s3://bucket/other", location_uri="s3://bucket/other")
    mount = tmp_path / "mnt"
    directory = StagingDirectory.open(named, mount_path=mount)
    staged = directory.create()
    staged.write(0, b"x")
    staged.keep(record(label="syn7", location_uri="s3://bucket/7", path="dir/file"))
    staged.rest()
    die(directory)

    def chosen(*what):
        return {each["id"] for each in json.loads(recover("--json", *what).stdout)["left"]}

    assert chosen("syn123") == chosen("SYN123") == chosen(LOCATION) == {here}
    assert chosen("s3://bucket/other/") == {there}
    assert chosen("syn7", here) == {staged.id, here}
    for path in (tmp_path, mount, mount / "dir", mount / "dir" / "file"):
        assert chosen(path) == {staged.id}
    assert chosen(mount / "other") == set()
    assert recover("0123456789ab").exit_code == 2


def test_what_a_mount_has_in_use_is_shown_as_that(named, recover, tmp_path):
    directory = StagingDirectory.open(named, mount_path=tmp_path / "mnt")
    staged = directory.create()
    staged.write(0, b"data")
    staged.keep(record())
    assert f"in use by the mount at {tmp_path / 'mnt'}" in recover().stdout
    for action in (["--upload"], ["--discard"], ["--save", str(tmp_path / "saved")]):
        told = recover(*action, staged.id)
        assert told.exit_code == 2
        assert "in use" in told.stderr
    assert "nothing to do" in recover("--upload").stdout
    staged.discard()
    directory.close()


def test_bytes_that_the_machine_may_have_lost_are_not_called_whole(named, monkeypatch):
    leave(named, state="closed")
    monkeypatch.setattr("stsfs.staging.file.boot_id", lambda: "another")
    (left,) = what_is_left(named)
    assert "the machine went down" in state(left)


@pytest.mark.parametrize(
    "arguments",
    [["--upload", "--discard"], ["--json", "--upload"], ["--force"], ["--discard"],
     ["--discard", "syn123"], ["--save", "x", "--upload"]],
)  # fmt: skip
def test_what_excludes_each_other_or_is_dangerous_by_accident_is_refused(named, recover, arguments):
    left = leave(named, state="closed")
    assert recover(*arguments).exit_code == 2
    assert [each.id for each in what_is_left(named)] == [left]


# Giving up.


def test_what_is_discarded_is_gone_and_nothing_else(named, recover):
    gone, stays, move = leave(named), leave(named), leave_move(named)
    told = recover("--discard", gone, move)
    assert told.exit_code == 0
    assert gone in told.stdout
    assert [each.id for each in what_is_left(named)] == [stays]


# Uploading.


def test_what_is_whole_is_uploaded_and_what_is_not_is_left_alone(named, recover, bucket):
    leave(named, b"closed", state="closed", key="base/a", size_bytes=6, present=((0, 6),))
    leave(named, b"failed", state="failed", key="base/b", size_bytes=6, present=((0, 6),))
    half = leave(named, key="base/c")
    told = recover("--upload")
    assert told.exit_code == 0, told.output
    assert {key: each.data for key, each in bucket.store.objects.items()} == {
        "base/a": b"closed", "base/b": b"failed",
    }  # fmt: skip
    assert [each.id for each in what_is_left(named)] == [half]
    assert half in told.stderr
    assert len(bucket.opened) == 1
    assert bucket.opened[0][1].rw


def test_half_written_bytes_are_uploaded_where_they_are_named(named, recover, bucket):
    half = leave(named, key="base/c")
    assert recover("--upload", half).exit_code == 0
    assert bucket.store.objects["base/c"].data == b"data"
    assert what_is_left(named) == []


def test_what_another_client_has_changed_is_a_conflict_and_both_versions_stay(
    named, recover, bucket
):
    left = leave(named, state="closed", key="base/a", expected=Expected(None))
    bucket.store.put("base/a", b"theirs")
    told = recover("--upload")
    assert told.exit_code == 43
    assert bucket.store.objects["base/a"].data == b"theirs"
    (kept,) = what_is_left(named)
    assert (kept.id, kept.record.state, kept.owner.state) == (left, "conflict", "dead")
    assert kept.data_path.read_bytes() == b"data"
    assert recover("--upload", "--force", left).exit_code == 0
    assert bucket.store.objects["base/a"].data == b"data"
    assert what_is_left(named) == []


def test_a_location_that_cannot_be_opened_costs_nothing_of_another(named, recover, bucket):
    left = leave(named, state="closed")
    bucket.trouble = NoSynapseToken("No token.", remedy="Get one.")
    told = recover("--upload")
    assert told.exit_code == 10
    assert "No token. Get one." in told.stderr
    assert [each.id for each in what_is_left(named)] == [left]
    bucket.trouble = None
    assert recover("--upload").exit_code == 0


def test_a_rename_that_was_cut_short_is_put_right(named, recover, bucket):
    bucket.store.put("base/a", b"1")
    bucket.store.put("base/b", b"1")
    etag = bucket.store.objects["base/a"].etag
    directory = StagingDirectory.open(named)
    moved = (move_record().objects[0].__class__(
        source_key="base/a", etag=etag, size_bytes=1, target_key="base/b"),)  # fmt: skip
    journal = directory.create_move(move_record(objects=moved))
    journal.copied(0, etag)
    journal.deleting()
    die(directory)
    told = recover("--upload")
    assert told.exit_code == 0, told.output
    assert list(bucket.store.objects) == ["base/b"]
    assert what_is_left(named) == []


def test_damaged_bytes_are_not_uploaded_and_nothing_else_suffers(named, recover, bucket):
    hurt = leave(named)
    leave(named, state="closed", key="base/a")
    next(part_of_user(named).glob(f"*/{hurt}.json")).write_bytes(b"")
    told = recover("--upload", hurt, "syn123")
    assert told.exit_code == 2
    assert "--save" in told.stderr
    assert list(bucket.store.objects) == ["base/a"]
    assert [each.id for each in what_is_left(named)] == [hurt]


# Saving.


def test_saved_files_are_there_as_they_were_written_and_stay_in_the_list(
    named, recover, bucket, tmp_path
):
    left = leave(named, b"DA\0\0T", size_bytes=8, present=((0, 2), (4, 5)), mode=0o640,
                 mtime_ns=1_700_000_000_123_456_789)  # fmt: skip
    told = recover("--save", tmp_path / "saved")
    assert told.exit_code == 0, told.output
    saved = tmp_path / "saved" / "dir" / "file"
    assert saved.read_bytes() == b"DA\0\0T\0\0\0"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert saved.stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert os.listdir(saved.parent) == ["file"]
    assert [each.id for each in what_is_left(named)] == [left]
    assert bucket.opened == []  # nothing of it is in S3


def test_what_only_s3_has_of_a_file_is_fetched(named, recover, bucket, tmp_path):
    leave(named, b"data", **over_base(bucket))
    told = recover("--save", tmp_path / "saved")
    assert told.exit_code == 0, told.output
    saved = (tmp_path / "saved" / "dir" / "file").read_bytes()
    assert saved == b"data" + BASE_TEXT[4:50] + bytes(10)
    assert not bucket.opened[0][1].rw


@pytest.mark.parametrize("trouble", ["no token", "replaced"])
def test_what_cannot_be_fetched_is_told_range_by_range(named, recover, bucket, tmp_path, trouble):
    leave(named, b"data", **over_base(bucket))
    leave(named, b"data", path="whole")
    if trouble == "no token":
        bucket.trouble = NoSynapseToken("No token.")
    else:
        bucket.store.put("base/old", b"something else")
    told = recover("--save", tmp_path / "saved")
    assert told.exit_code == 9
    partial = tmp_path / "saved" / "dir" / "file.partial"
    assert partial.read_bytes() == b"data" + bytes(56)
    missing = json.loads((partial.parent / "file.partial.missing.json").read_text())
    assert missing == {"missing": [[4, 50]]}
    assert not (partial.parent / "file").exists()
    assert (tmp_path / "saved" / "whole").read_bytes() == b"data"


def test_data_that_are_shorter_than_their_record_are_told(named, recover, bucket, tmp_path):
    leave(named, b"da")
    assert recover("--save", tmp_path / "saved").exit_code == 9
    missing = (tmp_path / "saved" / "dir" / "file.partial.missing.json").read_text()
    assert json.loads(missing) == {"missing": [[2, 4]]}


def test_what_is_there_already_is_never_replaced(named, recover, bucket, tmp_path):
    left = leave(named)
    place = tmp_path / "saved" / "dir"
    place.mkdir(parents=True)
    (place / "file").write_text("mine")
    assert recover("--save", tmp_path / "saved").exit_code == 0
    assert (place / "file").read_text() == "mine"
    assert (place / f"file.{left}").read_bytes() == b"data"
    assert recover("--save", tmp_path / "saved").exit_code == 56
    assert (place / f"file.{left}").read_bytes() == b"data"


@pytest.mark.parametrize("path", ["../../evil", "/etc/evil", "dir/../../evil", ".."])
def test_no_path_leads_out_of_the_directory(named, recover, bucket, tmp_path, path):
    leave(named, path=path)
    assert recover("--save", tmp_path / "saved").exit_code == 0
    made = [p for p in tmp_path.rglob("*") if p.is_file() and "evil" in p.name]
    assert all(p.is_relative_to(tmp_path / "saved") for p in made)
    assert not os.path.exists("/etc/evil")


def test_bytes_that_nothing_is_known_of_can_be_saved(named, recover, bucket, tmp_path):
    hurt = leave(named, b"something")
    next(part_of_user(named).glob(f"*/{hurt}.json")).write_bytes(b"")
    assert recover("--save", tmp_path / "saved").exit_code == 0
    assert (tmp_path / "saved" / hurt).read_bytes() == b"something"


def test_ours_can_be_saved_after_a_conflict_while_the_mount_lives(named, recover, bucket, tmp_path):
    directory = StagingDirectory.open(named, mount_path=tmp_path / "mnt")
    staged = directory.create()
    staged.write(0, b"ours")
    staged.keep(record(state="conflict"))
    assert "another client" in recover().stdout
    assert recover("--save", tmp_path / "saved").exit_code == 0
    assert (tmp_path / "saved" / "dir" / "file").read_bytes() == b"ours"
    staged.discard()
    directory.close()


def test_a_directory_that_cannot_be_written_to_is_told(named, recover, bucket, tmp_path):
    left = leave(named)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dir").write_text("a file in the way")
    told = recover("--save", tmp_path / "saved")
    assert told.exit_code == 46
    assert str(tmp_path / "saved" / "dir") in told.stderr
    assert [each.id for each in what_is_left(named)] == [left]


def test_what_would_replace_whatever_is_at_its_key_is_uploaded_only_where_it_is_named(
    named, recover, bucket
):
    left = leave(named, state="closed", key="base/a", expected=None)
    bucket.store.put("base/a", b"theirs")
    told = recover("--upload")
    assert "it would replace whatever is at its key" in told.stderr
    assert bucket.store.objects["base/a"].data == b"theirs"
    assert recover("--upload", left).exit_code == 0
    assert bucket.store.objects["base/a"].data == b"data"


# Data that are shorter than their record says: a copy that broke off, or a repaired file system.


@pytest.fixture
def short(named):
    """The id of a file of 8 bytes of which the last 5 are gone."""
    left = leave(named, b"12345678", size_bytes=8, present=((0, 8),), state="closed")
    (data,) = part_of_user(named).glob(f"*/{left}.data")
    os.truncate(data, 3)
    return left


def test_a_file_of_which_bytes_are_gone_is_listed_as_damaged(named, recover, short):
    what = "5 bytes that were written are not in the data file any more"
    assert f"damaged: {what}" in recover().stdout
    (listed,) = checked("recover", recover("--json").stdout)["left"]
    assert (listed["state"], listed["reason"], listed["path"]) == ("damaged", what, "dir/file")


@pytest.mark.parametrize("named_too", [False, True])
def test_a_file_of_which_bytes_are_gone_is_not_uploaded(named, recover, bucket, short, named_too):
    told = recover("--upload", *[short] * named_too)
    assert (told.exit_code != 0) == named_too
    assert "damaged" in told.stderr
    assert bucket.store.objects == {}
    assert [each.id for each in what_is_left(named)] == [short]


def test_a_file_of_which_bytes_are_gone_is_saved_with_a_note_of_what_it_lacks(
    recover, bucket, tmp_path, short
):
    told = recover("--save", tmp_path / "saved")
    assert told.exit_code == 9
    assert "lacks 5 bytes" in told.stderr
    assert "damaged" in told.stderr
    partial = tmp_path / "saved" / "dir" / "file.partial"
    assert partial.read_bytes()[:3] == b"123"
    missing = (tmp_path / "saved" / "dir" / "file.partial.missing.json").read_text()
    assert json.loads(missing) == {"missing": [[3, 8]]}
