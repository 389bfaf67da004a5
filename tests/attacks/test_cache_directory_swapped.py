"""Nobody else's bytes are read from a disk cache, whatever is done to the path that leads to it.

The neighbour has mounted the same location: they know every object, and can write a cache directory
that holds other bytes for them, with an index that says that these are right.
"""
# ruff: noqa: F811 - fixtures are arguments

import os
import random
import shutil

import pytest

from tests.attacks.neighbour import MIB, REMEDY, UID, forge, given_away, neighbour
from tests.mount.conftest import folder, host, mount, servers, stage, view  # noqa: F401

pytestmark = pytest.mark.mount


@pytest.fixture
def files(folder):
    return {name: folder.write(name, random.Random(name).randbytes(2 * MIB)) for name in "abcd"}


@pytest.fixture
def forged(mount, folder, files, tmp_path):
    """A cache directory of the neighbour's mount, with bytes that are not the objects'."""
    named = tmp_path / "forged"
    state = tmp_path / "neighbours-state"
    live = mount(folder.syn_id, "--cache-dir", named, env={"XDG_STATE_HOME": str(state)})
    assert wrong_files(live, files) == []
    assert live.unmount().returncode == 0
    live.wait_for_end()
    forge(named, (state / "stsfs" / "cache-key").read_bytes())
    given_away(named)
    return named


def wrong_files(live, files):
    return [name for name, data in files.items() if (live / name).read_bytes() != data]


def test_a_part_that_is_exchanged_under_a_mount_is_not_read(place, mount, folder, files, forged):
    place.chmod(0o755)
    live = mount(folder.syn_id, "--cache-dir", place / "cache")
    place.chmod(0o777)  # too late for anybody to refuse it
    forged.rename(place / "new")
    neighbour("mv", place / "cache", place / "away")
    neighbour("mv", place / "new", place / "cache")
    assert wrong_files(live, files) == []
    disk = live.settled_status()["disk_cache"]
    assert (disk["hit_bytes"], disk["state"]) == (0, "on")
    assert disk["written_bytes"] == sum(map(len, files.values()))
    held = [path for path in (place / "away").rglob("chunks-*/*/*") if path.is_file()]
    assert len(held) == len(files), "what was opened at the start is used to the end"


def test_a_part_that_is_exchanged_between_two_mounts_is_not_read(
    place, mount, folder, files, forged
):
    """By a directory of ours that they could write to, so that its owner is the right one."""
    place.chmod(0o777)
    ours = place / "for-everybody"
    ours.mkdir()
    ours.chmod(0o777)
    for each in (forged / "stsfs-0").iterdir():
        each.rename(ours / each.name)
    (place / "cache").mkdir()
    (place / "cache").chmod(0o777)
    neighbour("mv", ours, place / "cache" / "stsfs-0")
    for each in (place, place / "cache"):
        each.chmod(0o755)
    live = mount(folder.syn_id, "--cache-dir", place / "cache", "--memory", "16MiB")
    assert wrong_files(live, files) == []
    assert live.settled_status()["disk_cache"]["hit_bytes"] == 0


def test_what_is_copied_into_a_part_while_nothing_is_mounted_is_not_read(
    place, mount, folder, files, forged
):
    """With the owner and the modes that ours would have: only the key is the neighbour's."""
    place.chmod(0o755)
    shutil.copytree(forged, place / "cache")
    live = mount(folder.syn_id, "--cache-dir", place / "cache")
    assert wrong_files(live, files) == []
    assert live.settled_status()["disk_cache"]["hit_bytes"] == 0


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_cache_where_others_can_exchange_it_is_refused(place, host, folder, mode):
    place.chmod(mode)
    os.chown(place, 0, UID)
    point = host.mount_point()
    done = host.try_mount(folder.syn_id, point, "--cache-dir", place / "cache")
    assert (done.returncode, done.stderr.count("\n")) == (48, 2), host.stsfs("unmount", point)
    said = f"--cache-dir {place / 'cache'} cannot be used: {place} can be written by other users"
    assert said in done.stderr
    assert REMEDY in done.stderr
    assert list(place.iterdir()) == []


def test_a_cache_in_a_directory_of_somebody_else_is_refused(place, host, folder):
    place.chmod(0o1777)
    neighbour("mkdir", place / "cache")
    point = host.mount_point()
    done = host.try_mount(folder.syn_id, point, "--cache-dir", place / "cache")
    assert (done.returncode, done.stderr.count("\n")) == (48, 2), host.stsfs("unmount", point)
    assert f"uid {UID}" in done.stderr
    assert REMEDY in done.stderr


def test_a_shared_directory_that_is_sticky_serves_everybody(place, mount, folder, files):
    place.chmod(0o1777)
    live = mount(folder.syn_id, "--cache-dir", place)
    assert wrong_files(live, files) == []
    assert live.settled_status()["disk_cache"]["state"] == "on"


def test_other_users_caches_are_neither_shown_nor_cleared(host, forged):
    """A neighbour's part under the name of ours."""
    for command in ("info", "clear"):
        done = host.stsfs("cache", command, forged)
        assert done.returncode == 48, done
        assert f"uid {UID}" in done.stderr
    assert [path for path in forged.rglob("chunks-*/*/*") if path.is_file()]
