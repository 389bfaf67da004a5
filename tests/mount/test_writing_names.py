"""What making, removing and renaming answers, and what S3 has then."""

import errno
import os
import socket
import stat
import subprocess

import pytest

from tests.mount.writing_stage import (
    LONG_TTL,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RW,
    Desk,
    changes,
    new_desks,
    opened,
    rename2,
    write,
)

pytestmark = pytest.mark.mount
NEW = os.O_RDWR | os.O_CREAT | os.O_TRUNC


@pytest.fixture(scope="module")
def folder(servers):
    made = new_desks(servers)
    made.write("owner.txt", b"Synapse's own")
    return made


@pytest.fixture(scope="module")
def live(folder, module_mount):
    return module_mount(folder.syn_id, *RW, *LONG_TTL)


@pytest.fixture
def desk(live, folder, stage):
    return Desk(live, folder)


def refused(number, call, *arguments):
    """Call, and expect that errno."""
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the number is the answer
        call(*arguments)
    assert errno.errorcode[raised.value.errno] == errno.errorcode[number]


def test_a_directory_is_a_marker_object(desk):
    os.mkdir(desk / "d")
    assert desk.stored_keys() == ["d/"]
    refused(errno.EEXIST, os.mkdir, desk / "d")
    write(desk / "d/f", b"data")
    refused(errno.ENOTEMPTY, os.rmdir, desk / "d")
    os.unlink(desk / "d/f")
    assert desk.stored_keys() == ["d/"]
    os.rmdir(desk / "d")
    assert desk.stored_keys() == []
    assert os.listdir(desk.path) == ["kept"]


def test_rmdir_asks_s3_what_is_there(desk):
    os.mkdir(desk / "d")
    assert os.listdir(desk / "d") == []
    desk.put("d/theirs", b"of another client")
    refused(errno.ENOTEMPTY, os.rmdir, desk / "d")
    assert os.listdir(desk / "d") == ["theirs"]


def test_a_directory_of_keys_that_no_path_shows_is_not_empty(desk):
    desk.put("d//hidden", b"data")
    assert os.listdir(desk / "d") == []
    refused(errno.ENOTEMPTY, os.rmdir, desk / "d")
    assert "d//hidden" in desk.live.host.stsfs("explain", desk / "d").stdout


def test_an_implicit_directory_stays_until_rmdir(desk):
    desk.has("d/e/f", b"data")
    os.unlink(desk / "d/e/f")
    assert desk.stored_keys() == []
    assert (os.listdir(desk / "d"), os.listdir(desk / "d/e")) == (["e"], [])
    write(desk / "d/e/g", b"data")
    assert desk.stored_keys() == ["d/e/g"]
    os.rename(desk / "d/e/g", desk / "g")
    os.rmdir(desk / "d/e")
    assert os.listdir(desk / "d") == []
    os.rmdir(desk / "d")
    assert sorted(os.listdir(desk.path)) == ["g", "kept"]


def test_unlink_deletes_the_object(desk):
    desk.has("f", b"data")
    with desk.asking() as seen:
        os.unlink(desk / "f")
        assert desk.stored("f") is None
        assert os.listdir(desk.path) == ["kept"]
    assert changes(seen) == {"DELETE": 1}
    refused(errno.ENOENT, os.unlink, desk / "f")


def test_a_removed_file_that_never_was_in_s3_is_never_sent(desk):
    desk.path.stat()
    with desk.asking() as seen, opened(desk / "f", NEW) as fd:
        os.write(fd, b"data")
        os.unlink(desk / "f")
        os.write(fd, b" and more")
        os.ftruncate(fd, 8)
        os.utime(fd, (1, 1))
        os.fsync(fd)
        assert os.pread(fd, 100, 0) == b"data and"
        assert (os.fstat(fd).st_size, os.fstat(fd).st_mtime) == (8, 1)
        refused(errno.ENOENT, os.stat, desk / "f")
    assert changes(seen) == {}
    assert desk.stored_keys() == []


def test_a_removed_file_works_on_for_who_has_it_open(desk):
    desk.has("f", b"0123456789")
    with opened(desk / "f", os.O_RDWR) as fd, opened(desk / "f", os.O_RDONLY) as reader:
        os.pwrite(fd, b"new3456789", 0)
        os.unlink(desk / "f")
        write(desk / "f", b"another")
        os.pwrite(fd, b"er", 3)
        assert os.pread(reader, 100, 0) == b"newer56789"
    assert desk.stored("f") == b"another"


def test_what_is_cached_of_a_removed_object_stays_readable_to_who_has_it_open(desk):
    desk.has("f", b"0123456789")
    with opened(desk / "f", os.O_RDONLY) as fd:
        assert os.pread(fd, 4, 0) == b"0123"
        os.unlink(desk / "f")
        assert os.pread(fd, 100, 0) == b"0123456789"


def test_renaming_copies_within_s3_and_deletes(desk):
    headers = {"x-amz-meta-origin": "lab 7", "content-type": "text/x-notes"}
    desk.put("f", b"data", headers)
    before = (desk / "f").stat()
    with desk.asking() as seen:
        os.rename(desk / "f", desk / "g")
        assert (desk.stored("f"), desk.stored("g")) == (None, b"data")
        refused(errno.ENOENT, os.stat, desk / "f")
    assert changes(seen) == {"COPY": 1, "DELETE": 1}
    after = (desk / "g").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    head = desk.head("g")
    assert {name: head[name] for name in headers} == headers


def test_renaming_over_a_file_replaces_it_and_its_readers_keep_theirs(desk):
    desk.has("f", b"new")
    desk.has("g", b"old")
    with opened(desk / "g", os.O_RDONLY) as fd:
        assert os.pread(fd, 100, 0) == b"old"
        os.rename(desk / "f", desk / "g")
        assert os.pread(fd, 100, 0) == b"old"
    assert desk.stored_keys() == ["g"]
    assert (desk / "g").read_bytes() == desk.stored("g") == b"new"


def test_renaming_over_a_file_that_is_being_written_gives_its_bytes_up(desk):
    desk.has("f", b"new")
    with opened(desk / "g", NEW) as fd:
        os.write(fd, b"half")
        os.rename(desk / "f", desk / "g")
        os.write(fd, b" a line")
        assert os.pread(fd, 100, 0) == b"half a line"
    assert (desk / "g").read_bytes() == desk.stored("g") == b"new"


def test_a_file_that_is_not_in_s3_yet_is_renamed_without_a_request(desk):
    desk.path.stat()
    with opened(desk / "f", NEW) as fd:
        os.write(fd, b"one")
        with desk.asking() as seen:
            os.rename(desk / "f", desk / "g")
        assert (desk / "g").read_bytes() == b"one"
        os.write(fd, b" two")
    assert seen == {}
    assert desk.stored_keys() == ["g"]
    assert desk.stored("g") == b"one two"


def test_a_file_that_is_not_in_s3_yet_replaces_one_that_is(desk):
    desk.has("g", b"old")
    with opened(desk / "g", os.O_RDONLY) as reader, opened(desk / "f", NEW) as fd:
        assert os.pread(reader, 100, 0) == b"old"
        os.write(fd, b"one")
        os.rename(desk / "f", desk / "g")
        assert desk.stored_keys() == ["g"]
        assert (desk / "g").read_bytes() == desk.stored("g") == b"one"
        os.write(fd, b" two")
        assert os.pread(reader, 100, 0) == b"old"
    assert desk.stored("g") == b"one two"


def test_a_changed_file_is_published_and_then_renamed(desk):
    desk.has("f", b"old")
    with opened(desk / "f", os.O_RDWR) as fd:
        os.write(fd, b"new")
        os.rename(desk / "f", desk / "g")
        assert (desk.stored("f"), desk.stored("g")) == (None, b"new")
        os.write(fd, b"er")
    assert desk.stored("g") == b"newer"
    assert desk.stored_keys() == ["g"]


@pytest.mark.parametrize("where", ["here", "in s3"])
def test_renaming_without_replacing_finds_what_is_there(desk, where):
    desk.has("f", b"1")
    if where == "in s3":
        desk.has("g", b"2")
        refused(errno.EEXIST, rename2, desk / "f", desk / "g", RENAME_NOREPLACE)
    else:
        with opened(desk / "g", NEW) as fd:
            os.write(fd, b"2")
            refused(errno.EEXIST, rename2, desk / "f", desk / "g", RENAME_NOREPLACE)
    assert (desk.stored("f"), desk.stored("g")) == (b"1", b"2")
    rename2(desk / "f", desk / "h", RENAME_NOREPLACE)
    assert desk.stored_keys() == ["g", "h"]


def test_two_names_cannot_be_exchanged(desk):
    desk.has("f", b"1")
    desk.has("g", b"2")
    refused(errno.EINVAL, rename2, desk / "f", desk / "g", RENAME_EXCHANGE)
    assert (desk.stored("f"), desk.stored("g")) == (b"1", b"2")


def test_renaming_a_directory_moves_each_object_hidden_ones_too(desk):
    os.mkdir(desk / "d")
    desk.put("d/sub/a", b"a")
    desk.put("d/sub//hidden", b"hidden")
    desk.put("d/b", b"b")
    with opened(desk / "d/new", NEW) as fd:
        os.write(fd, b"begun")
        os.rename(desk / "d", desk / "e")
        os.write(fd, b" here, ended there")
    assert desk.stored_keys() == ["e/", "e/b", "e/new", "e/sub//hidden", "e/sub/a"]
    assert (desk / "e/sub/a").read_bytes() == b"a"
    assert desk.stored("e/new") == b"begun here, ended there"
    refused(errno.ENOENT, os.stat, desk / "d")


def test_a_directory_is_renamed_over_an_empty_one_only(desk):
    desk.has("d/f", b"data")
    desk.has("full/f", b"data")
    os.mkdir(desk / "empty")
    refused(errno.ENOTEMPTY, os.rename, desk / "d", desk / "full")
    refused(errno.ENOTDIR, os.rename, desk / "d", desk / "kept")
    refused(errno.EISDIR, os.rename, desk / "kept", desk / "d")
    refused(errno.EINVAL, os.rename, desk / "d", desk / "d/in itself")
    os.rename(desk / "d", desk / "empty")
    assert "empty/f" in desk.stored_keys()
    assert not [key for key in desk.stored_keys() if key.startswith("d/")]


def test_more_objects_than_the_limit_are_not_moved(mount, folder, desk):
    for number in range(4):
        desk.has(f"d/{number}", b"data")
    own = mount(folder.syn_id, *RW, "--rename-limit", "3")
    place = own.path / desk.name
    with desk.asking() as seen:
        refused(errno.E2BIG, os.rename, place / "d", place / "e")
    assert changes(seen) == {}
    assert desk.stored_keys() == [f"d/{number}" for number in range(4)]
    explained = own.host.stsfs("explain", place / "d").stdout
    assert "--rename-limit" in explained
    os.unlink(place / "d/0")
    os.rename(place / "d", place / "e")
    assert desk.stored_keys() == [f"e/{number}" for number in range(1, 4)]


def test_nothing_is_moved_to_another_location_and_mv_copies(mount, stage):
    one, two = stage.folder(), stage.folder()
    one.write("f", b"data")
    one.write("d/g", b"below")
    two.write("there", b"")
    own = mount((one.syn_id, two.syn_id), *RW)
    names = {name: own.path / name for name in os.listdir(own.path)}
    first, second = (names[each.base_key.removeprefix("base/")] for each in (one, two))
    refused(errno.EXDEV, os.rename, first / "f", second / "f")
    assert two.object_path("f").exists() is False
    subprocess.run(["mv", first / "f", first / "d", second], check=True)
    assert two.object_path("f").read_bytes() == b"data"
    assert two.object_path("d/g").read_bytes() == b"below"
    assert not one.object_path("f").exists()
    assert not one.object_path("d/g").exists()
    refused(errno.EPERM, os.rename, first, second / "inside")
    refused(errno.EROFS, os.mkdir, own.path / "beside")
    refused(errno.EROFS, os.rmdir, first)


def test_there_are_only_files_and_directories(desk):
    desk.has("f", b"data")
    with desk.asking() as seen:
        refused(errno.EPERM, os.symlink, "f", desk / "x")
        refused(errno.EPERM, os.link, desk / "f", desk / "x")
        refused(errno.EPERM, os.mkfifo, desk / "x")
        refused(errno.EPERM, os.mknod, desk / "x", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(desk.path)
            try:
                refused(errno.EPERM, listener.bind, "x")
            finally:
                os.chdir("/")
    assert changes(seen) == {}
    assert sorted(os.listdir(desk.path)) == ["f", "kept"]


def test_mknod_of_a_file_makes_the_empty_object(desk):
    os.mknod(desk / "f", stat.S_IFREG | 0o600)
    assert desk.stored("f") == b""
    assert stat.S_IMODE((desk / "f").stat().st_mode) == 0o600


def test_owner_txt_of_the_location_can_neither_be_seen_nor_made(desk, live, folder):
    assert "owner.txt" not in os.listdir(live.path)
    for look in (os.stat, os.unlink, os.listdir):
        refused(errno.ENOENT, look, live / "owner.txt")
    refused(errno.EPERM, os.open, live / "owner.txt", NEW)
    refused(errno.EPERM, os.mkdir, live / "owner.txt")
    desk.has("f", b"data")
    refused(errno.EPERM, os.rename, desk / "f", live / "owner.txt")
    assert folder.object_path("owner.txt").read_bytes() == b"Synapse's own"
    write(desk / "owner.txt", b"of no concern")
    assert desk.stored("owner.txt") == b"of no concern"


def test_names_and_keys_have_their_limits(desk):
    refused(errno.ENAMETOOLONG, os.open, desk / ("n" * 256), NEW)
    at, name = desk.path, "d" * 200
    for _ in range(4):
        at /= name
        os.mkdir(at)
    room = 1024 - len(desk.key("/".join([name] * 4))) - 1
    refused(errno.ENAMETOOLONG, os.open, at / ("f" * (room + 1)), NEW)
    refused(errno.ENAMETOOLONG, os.mkdir, at / ("f" * room))
    write(at / ("f" * room), b"data")
    assert (at / ("f" * room)).read_bytes() == b"data"
    refused(errno.EINVAL, os.open, bytes(desk.path) + b"/not \xff utf-8", NEW)
    write(desk / "ü\n%+ *", b"data")
    assert "ü\n%+ *" in desk.stored_keys()


def test_what_was_done_here_is_seen_without_a_list(desk):
    desk.has("f", b"data")
    desk.has("d/a", b"a")
    (desk / "f").stat()
    os.listdir(desk.path)
    os.listdir(desk / "d")
    with desk.asking() as seen:
        write(desk / "new", b"123")
        os.mkdir(desk / "made")
        write(desk / "made/below", b"")
        os.rename(desk / "f", desk / "g")
        os.rename(desk / "new", desk / "made/moved")
        os.unlink(desk / "d/a")
        assert sorted(os.listdir(desk.path)) == ["d", "g", "kept", "made"]
        assert sorted(os.listdir(desk / "made")) == ["below", "moved"]
        assert os.listdir(desk / "d") == []
        assert (desk / "made/moved").stat().st_size == 3
        refused(errno.ENOENT, os.stat, desk / "new")
    assert seen["LIST"] == 0


def test_another_clients_newer_object_survives_a_rename_of_the_older_one(desk):
    desk.has("f", b"older")
    (desk / "f").stat()
    desk.put("f", b"newer, and longer")
    os.rename(desk / "f", desk / "g")
    assert (desk.stored("f"), desk.stored("g")) == (None, b"newer, and longer")
    assert (desk / "g").read_bytes() == b"newer, and longer"
