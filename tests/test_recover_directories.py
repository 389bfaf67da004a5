"""`stsfs recover`, and the staging directories that mounts were given; what is old in them."""

import shutil
import time

import pytest

from stsfs.daemon import staging_dirs
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.left import what_is_left
from tests.recover_stage import bucket_in_place_of_all, own_directories, run_recover
from tests.schemas import checked
from tests.staging_fakes import record
from tests.test_staging_directory import die, leave


@pytest.fixture
def named(tmp_path, monkeypatch):
    return own_directories(monkeypatch, tmp_path)


@pytest.fixture
def recover(named):
    return run_recover


@pytest.fixture
def bucket(monkeypatch):
    return bucket_in_place_of_all(monkeypatch)


@pytest.fixture
def disk(named, tmp_path):
    """A directory that a mount was given, and in which it has left something: path and ID."""
    path = tmp_path / "disk" / "staging"
    left = leave(path, state="closed", key="base/disk")
    staging_dirs.remember(path)
    return path, left


def test_what_lies_in_a_directory_that_was_named_at_the_mount_is_found(named, recover, disk):
    path, left = disk
    here = leave(named)
    told = checked("recover", recover("--json").stdout)
    assert {each["id"] for each in told["left"]} == {left, here}
    assert told["looked_at"] == [str(named), str(path)]
    assert "4.0 KiB of the disk in " + str(path) in recover().stdout


def test_files_of_several_directories_are_uploaded_and_given_up(named, recover, disk, bucket):
    leave(named, state="closed", key="base/here")
    half = leave(named)
    told = recover("--upload")
    assert told.exit_code == 0, told.output
    assert sorted(bucket.store.objects) == ["base/disk", "base/here"]
    other = leave(disk[0])
    staging_dirs.remember(disk[0])
    assert recover("--discard", half, other).exit_code == 0
    assert what_is_left(named) == what_is_left(disk[0]) == []


@pytest.mark.parametrize("is_there", [False, True], ids=["gone", "not mounted"])
def test_a_directory_that_cannot_be_looked_at_is_named_and_nothing_is_promised(
    named, recover, disk, is_there
):
    path, _ = disk
    shutil.rmtree(path)
    if is_there:
        path.mkdir()
    StagingDirectory.open(named).close()
    told = recover()
    assert told.exit_code == 46
    assert str(path) in told.stderr
    assert "Everything" not in told.stdout
    assert str(named) in told.stdout
    (trouble,) = checked("recover", recover("--json").stdout)["troubles"]
    assert str(path) in trouble
    told = recover("--forget-dir", path)
    assert (told.exit_code, recover().exit_code) == (0, 0)


def test_what_cannot_be_looked_at_does_not_keep_the_rest_from_being_uploaded(
    named, recover, disk, bucket
):
    leave(named, state="closed", key="base/here")
    shutil.rmtree(disk[0])
    assert recover("--upload").exit_code == 46
    assert list(bucket.store.objects) == ["base/here"]


def test_a_list_of_directories_that_is_damaged_is_told(named, recover, disk):
    _, left = disk
    notes = named.with_name("staging-dirs")
    notes.write_bytes(b'"/torn' + notes.read_bytes() + b"[1]\n")
    for _ in range(2):
        told = recover()
        assert (told.exit_code, left in told.stdout) == (46, True)
        assert str(notes) in told.stderr


def test_a_list_of_directories_that_cannot_be_read_is_told(named, recover, monkeypatch):
    here = leave(named)
    notes = named.with_name("staging-dirs")
    notes.mkdir()
    told = recover()
    assert (told.exit_code, here in told.stdout) == (46, True)
    assert f"{notes} cannot be read" in told.stderr


def test_who_has_another_state_directory_than_the_mount_finds_it_too(
    named, recover, disk, monkeypatch, tmp_path
):
    """As in a cron job, or after ssh: the variable of the shell is not set there."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    assert disk[1] in recover().stdout


def test_a_directory_in_which_nothing_is_left_is_forgotten(named, recover, disk, bucket, tmp_path):
    path, left = disk
    staging_dirs.remember(path)
    staging_dirs.forget_if_unused(path)
    assert left in recover().stdout
    directory = StagingDirectory.open(path)
    assert recover("--discard", left).exit_code == 0
    staging_dirs.forget_if_unused(path)
    assert str(path) in recover().stdout  # another mount still uses it
    directory.close()
    staging_dirs.forget_if_unused(path)
    shutil.rmtree(path)
    told = recover()
    assert (told.exit_code, str(path) in told.output) == (0, False)


def test_a_note_that_cannot_be_made_is_logged(named, tmp_path, caplog):
    named.parent.mkdir(parents=True)
    named.with_name("staging-dirs").mkdir()
    staging_dirs.remember(tmp_path / "disk")
    assert f"--staging-dir {tmp_path / 'disk'}" in caplog.text


# What is old.


def test_what_is_old_is_given_up_at_once_where_that_is_asked_for(named, recover):
    now_s = time.time()
    old = leave(named, state="failed", changed_unix_s=now_s - 31 * 86400)
    young = leave(named, state="failed", changed_unix_s=now_s - 29 * 86400)
    listed = recover("--older-than", "30d").stdout
    assert (old in listed, young in listed) == (True, False)
    told = recover("--discard", "--older-than", "30d")
    assert told.exit_code == 0
    assert [each.id for each in what_is_left(named)] == [young]
    assert "nothing to do" in recover("--discard", "--older-than", "30d").stdout
    assert recover("--discard", "--older-than", "1y").exit_code == 2


def test_what_a_mount_has_in_use_is_not_given_up_however_old_it_is(named, recover):
    directory = StagingDirectory.open(named)
    staged = directory.create()
    staged.write(0, b"data")
    staged.keep(record(state="conflict", changed_unix_s=5.0))
    assert "nothing to do" in recover("--discard", "--older-than", "1m").stdout
    assert staged.id in recover().stdout
    staged.discard()
    directory.close()


def test_a_directory_in_which_a_killed_mount_has_left_nothing_is_forgotten(
    named, recover, tmp_path
):
    killed, in_use = tmp_path / "killed", tmp_path / "in-use"
    for path in (killed, in_use):
        path.mkdir()
    directory = StagingDirectory.open(killed)
    staging_dirs.remember(killed)
    directory.create()  # and nothing was written to it
    die(directory)
    living = StagingDirectory.open(in_use)
    staging_dirs.remember(in_use)
    assert checked("recover", recover("--json").stdout)["looked_at"] == [str(killed), str(in_use)]
    assert checked("recover", recover("--json").stdout)["looked_at"] == [str(in_use)]
    shutil.rmtree(killed)  # as that of a job on a cluster
    assert recover().exit_code == 0
    living.close()
