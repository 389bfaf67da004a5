"""Two users mount one location side by side; the kernel keeps them apart."""

import json
import os

import pytest

from tests.mount.users import users_of

pytestmark = pytest.mark.mount

DATA = b"what they both may read\n"


@pytest.fixture(scope="module")
def namespace(servers):
    with users_of(servers) as made:
        yield made


@pytest.fixture
def users(namespace):
    """Ada and Bob, without mounts before and after."""
    namespace.allow_other(False)
    yield namespace
    for user in namespace.people:
        user.end()
        assert user.records() == []


@pytest.fixture
def ada(users):
    return users.people[0]


@pytest.fixture
def bob(users):
    return users.people[1]


@pytest.fixture
def shared(folder):
    folder.write("x", DATA)
    return folder


def test_two_users_mount_one_location_and_each_reads_it(ada, bob, shared):
    for user in (ada, bob):
        done = user.mount(shared.syn_id)
        assert done.returncode == 0, done.stderr
    for user in (ada, bob):
        assert user.run("cat", user.place / "x").stdout.encode() == DATA
        seen = user.run("stat", "-c", "%u %g %a", user.place / "x").stdout
        assert seen == f"{user.uid} {user.uid} 444\n"
        assert user.stsfs("list").stdout.count(str(user.place)) == 1
    assert str(bob.place) not in ada.stsfs("list").stdout
    assert ada.stsfs("unmount", ada.place).returncode == 0
    assert bob.run("cat", bob.place / "x").stdout.encode() == DATA, "of no concern to Bob"


def test_what_belongs_to_a_mount_is_private_to_its_user(ada, shared):
    assert ada.mount(shared.syn_id).returncode == 0
    (record,) = ada.records()
    runtime = ada.runtime / "stsfs"
    for path in (runtime, *runtime.iterdir()):
        status = path.stat()
        assert status.st_uid == ada.uid
        assert not status.st_mode & 0o077, path
    log = os.stat(record["log_file"])
    assert (log.st_uid, log.st_mode & 0o777) == (ada.uid, 0o600)
    assert os.stat(os.path.dirname(record["log_file"])).st_mode & 0o777 == 0o700
    assert os.path.dirname(record["control_socket"]) == str(runtime)


def test_the_kernel_refuses_everyone_else_even_root(ada, bob, users, shared):
    assert ada.mount(shared.syn_id).returncode == 0
    for uid in (bob.uid, 0):
        for command in (["cat", ada.place / "x"], ["ls", ada.place]):
            done = users.run(uid, *command)
            assert done.returncode != 0
            assert "Permission denied" in done.stderr
    assert ada.run("cat", ada.place / "x").stdout.encode() == DATA


def test_another_user_can_neither_ask_nor_unmount(ada, bob, shared):
    assert ada.mount(shared.syn_id).returncode == 0
    for command in ("status", "unmount"):
        done = bob.stsfs(command, ada.place)
        assert done.returncode not in (0, 70), done
        assert "Traceback" not in done.stderr
    assert ada.run("cat", ada.place / "x").stdout.encode() == DATA


def test_a_location_for_all_needs_the_administrators_word(ada, users, shared):
    done = ada.mount(shared.syn_id, "--allow-other")
    assert done.returncode == 4
    assert "user_allow_other" in done.stderr
    assert ada.records() == []


def test_with_allow_other_the_permission_bits_decide(ada, bob, users, shared):
    users.allow_other(True)
    assert ada.mount(shared.syn_id, "--allow-other").returncode == 0
    for uid in (ada.uid, bob.uid, 0):
        assert users.run(uid, "cat", ada.place / "x").stdout.encode() == DATA
    assert ada.stsfs("unmount", ada.place).returncode == 0
    assert ada.mount(shared.syn_id, "--allow-other", "--umask", "077").returncode == 0
    assert ada.run("cat", ada.place / "x").stdout.encode() == DATA
    assert "Permission denied" in users.run(bob.uid, "cat", ada.place / "x").stderr


def test_three_mounts_of_two_users_share_a_cache_directory_and_no_bytes(
    ada, bob, users, shared, mount
):
    disk = users.directory / "cache"
    disk.mkdir()
    disk.chmod(0o1777)
    for user in (ada, bob):
        assert user.mount(shared.syn_id, "--cache-dir", disk).returncode == 0
    third = mount(shared.syn_id, "--cache-dir", disk)
    assert (third / "x").read_bytes() == DATA
    for user, other in ((ada, bob), (bob, ada)):
        assert user.run("cat", user.place / "x").stdout.encode() == DATA
        part = disk / f"stsfs-{user.uid}"
        assert part.stat().st_uid == user.uid
        assert "Permission denied" in other.run("ls", part).stderr
    for user in (ada, bob):  # the end of a mount writes what waits
        assert user.stsfs("unmount", user.place).returncode == 0
        told = json.loads(user.stsfs("cache", "info", disk, "--json").stdout)
        assert told["stored_bytes"] >= len(DATA)
        assert told["directory"] == str(disk / f"stsfs-{user.uid}")
