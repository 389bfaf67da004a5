"""What is written waits in the directory that was opened, whatever is done to the path to it."""
# ruff: noqa: F811 - fixtures are arguments

import os

import pytest

from tests.attacks.neighbour import REMEDY, UID, neighbour
from tests.mount.conftest import folder, host, mount, servers, stage, view  # noqa: F401

pytestmark = pytest.mark.mount


def object_of(folder, name):
    return folder.object_path(name).read_bytes()


def test_a_directory_that_is_exchanged_under_a_mount_gets_nothing(place, mount, folder):
    live = mount(folder.syn_id, "--rw", "--staging-dir", place / "staging")
    with open(live / "first", "wb", buffering=0) as first:
        first.write(b"before, ")
        place.chmod(0o777)  # too late for anybody to refuse it
        neighbour("mv", place / "staging", place / "away")
        neighbour("mkdir", "-m", "777", place / "staging", place / "staging" / "stsfs-staging-0")
        first.write(b"and after")
    (live / "second").write_bytes(b"begun afterwards")
    os.rename(live / "second", live / "third")
    assert object_of(folder, "first") == b"before, and after"
    assert object_of(folder, "third") == b"begun afterwards"
    assert list((place / "staging" / "stsfs-staging-0").iterdir()) == []
    assert live.status()["writing"]["files"] == 0
    (place / "staging").rename(place / "planted")
    (place / "away").rename(place / "staging")  # where unmounting looks for what is left
    place.chmod(0o755)


def test_what_is_not_uploaded_is_found_where_it_was_moved_to(place, host, mount, stage, folder):
    live = mount(folder.syn_id, "--rw", "--staging-dir", place / "staging", "--fsync", "local")
    with open(live / "kept", "wb", buffering=0) as file:
        file.write(b"in S3 when the next program has ended, and ")
        place.chmod(0o777)
        neighbour("mv", place / "staging", place / "away")
        place.chmod(0o755)
        file.write(b"only here")
        os.fsync(file.fileno())
        listed = host.stsfs("recover", "--staging-dir", place / "away").stdout
        assert "kept" in listed, listed
        (place / "away").rename(place / "staging")  # the audit compares names
    assert live.unmount().returncode == 0
    live.wait_for_end()
    assert object_of(folder, "kept").endswith(b"only here")


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_staging_directory_where_others_can_exchange_it_is_refused(place, host, folder, mode):
    os.chown(place, 0, UID)
    place.chmod(mode)
    point = host.mount_point()
    options = ("--rw", "--staging-dir", place / "staging")
    done = host.try_mount(folder.syn_id, point, *options)
    assert (done.returncode, done.stderr.count("\n")) == (48, 2), host.stsfs("unmount", point)
    said = (
        f"--staging-dir {place / 'staging'} cannot be used: {place} can be written by other users"
    )
    assert said in done.stderr
    assert REMEDY in done.stderr
    assert list(place.iterdir()) == []


def test_a_home_that_a_group_can_exchange_needs_a_staging_directory_and_is_told_so(
    place, tmp_path, host, folder
):
    """Homes below the directory of a project are often so."""
    os.chown(place, 0, UID)
    place.chmod(0o2775)
    home = {"XDG_STATE_HOME": str(place / "ada" / "state")}
    (place / "ada").mkdir()
    point = host.mount_point()
    done = host.try_mount(folder.syn_id, point, "--rw", env=home)
    assert done.returncode == 48, host.stsfs("unmount", point)
    staging = place / "ada" / "state" / "stsfs" / "staging"
    assert f"--staging-dir {staging} cannot be used: {place} can be written" in done.stderr
    assert f"{REMEDY}, with --staging-dir DIRECTORY" in done.stderr
    elsewhere = ("--rw", "--staging-dir", tmp_path / "staging")
    done = host.try_mount(folder.syn_id, point, *elsewhere, env=home)
    assert done.returncode == 0, done.stderr
    (point / "x").write_bytes(b"written")
    assert host.stsfs("unmount", point).returncode == 0
    assert object_of(folder, "x") == b"written"


def test_a_shared_directory_that_is_sticky_serves_everybody(place, mount, folder):
    place.chmod(0o1777)
    live = mount(folder.syn_id, "--rw", "--staging-dir", place)
    (live / "x").write_bytes(b"written")
    assert object_of(folder, "x") == b"written"
