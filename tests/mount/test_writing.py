"""What writing to a file answers, and what S3 has then."""

import errno
import hashlib
import json
import os
import stat
import subprocess

import pytest

from tests.mount.sequences.programs import MAPPING_WITHOUT_DESCRIPTOR
from tests.mount.stage import PATIENCE_S
from tests.mount.writing_stage import (
    LONG_TTL,
    RW,
    Desk,
    changes,
    new_desks,
    opened,
    python,
    uploaded,
    write,
)

pytestmark = pytest.mark.mount
MIB = 1 << 20
NEW = os.O_RDWR | os.O_CREAT | os.O_TRUNC
BIG = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(24 * MIB // 32))
"""An object of 24 MiB in which no two places are the same."""


@pytest.fixture(scope="module")
def folder(servers):
    return new_desks(servers)


@pytest.fixture(scope="module")
def live(folder, module_mount):
    return module_mount(folder.syn_id, *RW, *LONG_TTL)


@pytest.fixture
def desk(live, folder, stage):
    return Desk(live, folder)


def test_what_is_written_in_any_order_is_in_s3_as_one_object_when_close_returns(desk):
    desk.path.stat()
    with desk.asking() as seen:
        with opened(desk / "f", NEW) as fd:
            os.pwrite(fd, b"end", 2 * MIB)
            os.pwrite(fd, b"begin", 0)
            os.pwrite(fd, b"B", 0)
            assert os.pread(fd, 5, 0) == b"Begin"
            assert os.pread(fd, 10, 2 * MIB - 2) == b"\0\0end"
            assert os.fstat(fd).st_size == 2 * MIB + 3
            assert desk.stored("f") is None
        assert desk.stored("f") == b"Begin" + bytes(2 * MIB - 5) + b"end"
    assert changes(seen) == {"PUT": 1}
    assert (desk / "f").read_bytes() == desk.stored("f")


def test_a_long_stream_is_sent_while_it_grows_and_may_be_changed_behind(desk):
    stage = desk.stage
    with desk.asking() as seen, opened(desk / "f", NEW) as fd:
        os.write(fd, BIG)
        stage.gate.requests.wait_for(1, "PART", timeout_s=PATIENCE_S)
        assert desk.stored("f") is None
        os.pwrite(fd, b"changed", 3)
        assert os.pread(fd, 10, 0) == BIG[:3] + b"changed"
    assert desk.stored("f") == BIG[:3] + b"changed" + BIG[10:]
    assert seen["PUT"] == 0


def test_appending_sends_what_is_new_and_s3_copies_the_rest(desk):
    desk.has("f", BIG)
    with desk.asking() as seen:
        write(desk / "f", b"more", os.O_WRONLY | os.O_APPEND)
    assert desk.stored("f") == BIG + b"more"
    assert seen["PART_COPY"] >= 1
    assert desk.bytes_of("PART", "PUT")[0] < 100
    assert desk.bytes_of("GET")[1] < 100


def test_a_change_in_the_middle_sends_the_part_around_it(desk):
    desk.has("f", BIG)
    with desk.asking() as seen, opened(desk / "f", os.O_RDWR) as fd:
        os.pwrite(fd, b"changed", 12 * MIB)
        assert (
            os.pread(fd, 9, 12 * MIB - 1)
            == BIG[12 * MIB - 1 :][:1] + b"changed" + (BIG[12 * MIB + 7 :][:1])
        )
    assert desk.stored("f") == BIG[: 12 * MIB] + b"changed" + BIG[12 * MIB + 7 :]
    assert seen["PART_COPY"] == 2
    assert desk.bytes_of("PART", "PUT")[0] < 6 * MIB
    assert desk.bytes_of("GET")[1] < 7 * MIB


def test_a_small_object_is_changed_in_any_place(desk):
    desk.has("f", b"0123456789")
    with opened(desk / "f", os.O_RDWR) as fd:
        os.pwrite(fd, b"xx", 4)
        os.pwrite(fd, b"yy", 12)
        os.ftruncate(fd, 13)
    assert desk.stored("f") == b"0123xx6789\0\0y"
    assert (desk / "f").read_bytes() == desk.stored("f")


def test_truncating_at_open_fetches_nothing_and_keeps_the_old_object_until_close(desk):
    desk.has("f", BIG)
    with desk.asking() as seen:
        with opened(desk / "f", os.O_RDWR | os.O_TRUNC) as fd:
            assert os.fstat(fd).st_size == 0
            os.write(fd, b"new")
            assert desk.stored("f") == BIG
        assert desk.stored("f") == b"new"
    assert changes(seen) == {"PUT": 1}
    assert desk.bytes_of("GET")[1] <= 1  # whether it is still that version


def test_truncating_by_name_is_in_s3_when_it_returns(desk):
    desk.has("f", b"0123456789")
    os.truncate(desk / "f", 4)
    assert desk.stored("f") == b"0123"
    os.truncate(desk / "f", 6)
    assert desk.stored("f") == b"0123\0\0"
    with desk.asking() as seen:
        os.truncate(desk / "f", 6)
        with opened(desk / "f", os.O_RDWR) as fd:
            os.ftruncate(fd, 6)
    assert changes(seen) == {}, "it has this size"


def test_touch_makes_an_empty_object(desk):
    subprocess.run(["touch", desk / "f"], check=True)
    assert desk.stored("f") == b""
    write(desk / "g", b"")
    uploaded(desk.live)
    assert desk.stored("g") == b""


def test_exclusive_creation_is_exclusive_at_once(desk):
    desk.has("there", b"1")
    exclusive = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with pytest.raises(FileExistsError):
        os.open(desk / "there", exclusive)
    with opened(desk / "f", exclusive), pytest.raises(FileExistsError):
        os.open(desk / "f", exclusive)


def test_exclusive_creation_is_exclusive_between_hosts_at_publication(mount, folder, desk, host):
    own = mount(folder.syn_id, *RW, *LONG_TTL)
    own.allow_in_log("was made by another client")
    path = own.path / desk.name / "f"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(fd, b"ours")
    desk.put("f", b"theirs")
    with pytest.raises(FileExistsError):
        os.close(fd)
    assert desk.stored("f") == b"theirs"
    assert path.read_bytes() == b"theirs"
    (left,) = json.loads(host.stsfs("recover", "--json").stdout)["left"]
    assert (left["state"], left["size_bytes"]) == ("conflict", 4)
    assert own.unmount().returncode == 9
    own.wait_for_end()


def test_fsync_asks_s3_nothing(desk):
    with desk.asking() as seen, opened(desk / "f", NEW) as fd:
        os.write(fd, b"safe")
        os.fsync(fd)
        os.fdatasync(fd)
        assert changes(desk.stage.requests) == {}
        assert desk.stored("f") is None
    assert changes(seen) == {"PUT": 1}


def test_fsync_publishes_where_that_was_asked_for(mount, folder, desk):
    own = mount(folder.syn_id, *RW, "--fsync", "s3")
    with opened(own.path / desk.name / "f", NEW) as fd:
        os.write(fd, b"one")
        os.fsync(fd)
        assert desk.stored("f") == b"one"
        os.write(fd, b"two")
        assert desk.stored("f") == b"one"
        os.fdatasync(fd)
        assert desk.stored("f") == b"onetwo"


def test_closing_what_was_not_written_costs_nothing(desk):
    desk.has("f", BIG)
    (desk / "f").stat()
    with desk.asking() as seen:
        os.close(os.open(desk / "f", os.O_RDWR))
        with opened(desk / "new", NEW) as fd:
            os.write(fd, b"a")
            os.close(os.dup(fd))
            assert desk.stored("new") == b"a"
    assert changes(seen) == {"PUT": 1}, "the second descriptor has nothing new"
    assert desk.bytes_of("GET")[1] <= 1


def test_a_shared_descriptor_publishes_at_the_first_and_at_the_last_close(desk):
    with desk.asking() as seen:
        script = "( echo a; /bin/echo b; /bin/echo c; /bin/echo d ) > f"
        subprocess.run(["sh", "-c", script], cwd=desk.path, check=True)
        uploaded(desk.live)
    assert desk.stored("f") == b"a\nb\nc\nd\n"
    assert changes(seen) == {"PUT": 2}


def test_no_command_of_a_redirected_shell_replaces_the_old_object_by_an_empty_one(desk):
    desk.has("f", b"old")
    script = f"( true; mkdir d; cat '{desk.folder.object_path(desk.name)}/f'; echo new ) > f"
    with desk.asking() as seen:
        subprocess.run(["sh", "-c", script], cwd=desk.path, check=True)
        uploaded(desk.live)
    assert desk.stored("f") == b"oldnew\n"
    assert seen["PUT"] <= 3, "a directory, and what cat and echo wrote"


def test_pages_that_are_dirty_after_the_last_close_are_published(desk):
    desk.has("f", b"x" * 12288)
    python(MAPPING_WITHOUT_DESCRIPTOR, cwd=desk.path)
    uploaded(desk.live)
    assert desk.stored("f") == b"\7" + b"x" * 12287


def test_readers_see_what_is_being_written(desk):
    desk.has("f", b"0123456789")
    with opened(desk / "f", os.O_RDONLY) as reader, opened(desk / "f", os.O_RDWR) as writer:
        assert os.pread(reader, 10, 0) == b"0123456789"
        os.pwrite(writer, b"new", 8)
        assert os.pread(reader, 20, 0) == b"01234567new"
        assert (desk / "f").stat().st_size == 11
        assert (desk / "f").read_bytes() == b"01234567new"
        assert desk.stored("f") == b"0123456789"
    assert desk.stored("f") == b"01234567new"


def test_a_file_keeps_its_number_and_its_time_when_it_is_published(desk):
    with opened(desk / "f", NEW) as fd:
        os.write(fd, b"a")
        before = os.fstat(fd)
    assert set(os.listdir(desk.path)) == {"f", "kept"}
    after = (desk / "f").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_modes_and_times_are_kept_over_a_remount(mount, folder, desk):
    desk.has("before", b"1")
    own = mount(folder.syn_id, *RW)
    place = own.path / desk.name
    write(place / "f", b"data")
    os.chmod(place / "f", 0o640)
    os.utime(place / "f", ns=(0, 1_234_567_890_123_456_789))
    with opened(place / "g", NEW, 0o600) as fd:
        os.write(fd, b"data")
        os.utime(fd, ns=(0, 1_000_000_000_000_000_000))
    os.chmod(place / "before", 0o755)
    shown = [
        ("f", 0o640, 1_234_567_890_123_456_789),
        ("g", 0o600, 10**18),
        ("before", 0o755, (place / "before").stat().st_mtime_ns),
    ]
    assert [look(place, name) for name, *_ in shown] == shown
    assert own.unmount().returncode == 0
    own.wait_for_end()
    again = mount(folder.syn_id, *RW)
    assert [look(again.path / desk.name, name) for name, *_ in shown] == shown


def look(place, name):
    status = (place / name).stat()
    return name, stat.S_IMODE(status.st_mode), status.st_mtime_ns


def test_modes_and_times_known_before_the_end_are_metadata_of_the_object(desk):
    with opened(desk / "f", NEW, 0o600) as fd:
        os.write(fd, b"data")
        os.fchmod(fd, 0o640)
        os.utime(fd, ns=(0, 1_234_567_890_500_000_000))
    head = desk.head("f")
    assert head["x-amz-meta-mode"] == str(0o100640)
    assert float(head["x-amz-meta-mtime"]) == 1_234_567_890.5


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777])
def test_special_bits_are_refused(desk, mode):
    write(desk / "f", b"data")
    with pytest.raises(PermissionError) as refused:
        os.chmod(desk / "f", mode)
    assert refused.value.errno == errno.EPERM
    assert stat.S_IMODE((desk / "f").stat().st_mode) == 0o644


def test_owners_cannot_be_changed_and_asking_for_the_same_succeeds(desk):
    write(desk / "f", b"data")
    owner = (desk / "f").stat()
    os.chown(desk / "f", owner.st_uid, owner.st_gid)
    os.chown(desk / "f", -1, -1)
    for uid, gid in ((4711, -1), (-1, 4711)):
        with pytest.raises(PermissionError) as refused:
            os.chown(desk / "f", uid, gid)
        assert refused.value.errno == errno.EPERM


@pytest.mark.parametrize("name", ["user.x", "system.posix_acl_access", "user.stsfs.etag"])
def test_attributes_and_access_lists_cannot_be_set(desk, name):
    write(desk / "f", b"data")
    access_list = bytes.fromhex("02000000 01000600ffffffff 04000400ffffffff 20000400ffffffff")
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the number is the answer
        os.setxattr(desk / "f", name, access_list)
    assert refused.value.errno == errno.ENOTSUP


def test_the_file_system_looks_large_and_nearly_empty(desk):
    said = os.statvfs(desk.path)
    assert said.f_bavail * said.f_frsize > 1 << 50
    assert said.f_namemax == 255
    assert not said.f_flag & os.ST_RDONLY


def test_locks_hold_on_this_host_and_space_is_reserved_by_writing(desk):
    script = """
import fcntl, os, subprocess, sys
f = open("f", "wb")
fcntl.flock(f, fcntl.LOCK_EX)
done = subprocess.run(["flock", "-n", "f", "true"])
assert done.returncode == 1, done
os.posix_fallocate(f.fileno(), 0, 10000)
a, b = os.open("f", os.O_RDONLY), os.open("g", os.O_WRONLY | os.O_CREAT)
assert os.copy_file_range(a, b, 100) == 100
"""
    python(script, cwd=desk.path)
    uploaded(desk.live)
    assert desk.stored("f") == bytes(10000)
    assert desk.stored("g") == bytes(100)
