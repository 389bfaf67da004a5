import dataclasses
import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stsfs.daemon import mountinfo, runtime_dir
from stsfs.daemon.mountinfo import MountEntry
from stsfs.daemon.runtime_dir import MountRecord
from stsfs.errors import BadArgument


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "stsfs"


@pytest.fixture
def mounted(monkeypatch):
    """Paths of mounts of ours that the kernel is said to have."""
    paths = []
    monkeypatch.setattr(
        mountinfo, "mounts", lambda: [MountEntry(p, "fuse.stsfs", "stub", "0:50") for p in paths]
    )
    return paths


@pytest.fixture
def listen():
    """Make a socket answer, as a living daemon's does."""
    sockets = []

    def start(path):
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sockets.append(listening)
        listening.bind(str(path))
        listening.listen(8)
        return listening

    yield start
    for listening in sockets:
        listening.close()


def record_of(path):
    return MountRecord(
        location="syn1",
        uri="s3://b/k",
        mount_path=path,
        pid=os.getpid(),
        control_socket=runtime_dir.control_socket(path),
        started_at_unix_s=1.5,
        log_file=Path("/log"),
    )


def test_directories_and_records_are_private(directory):
    record = record_of(Path("/data"))
    runtime_dir.write_record(record)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(runtime_dir.log_dir().stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_an_open_directory_of_ours_is_closed(directory):
    directory.mkdir()
    directory.chmod(0o755)
    runtime_dir.runtime_dir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_symbolic_link_in_place_of_the_directory_is_refused(directory, tmp_path):
    directory.symlink_to(tmp_path)
    with pytest.raises(BadArgument, match="is a symbolic link"):
        runtime_dir.runtime_dir()


def test_a_directory_of_another_user_is_refused(directory, monkeypatch):
    directory.mkdir()
    other = os.geteuid() + 1
    monkeypatch.setattr(runtime_dir, "_owner", lambda path: other)
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(BadArgument, match="and not to us"):
        runtime_dir.runtime_dir()


def test_a_name_too_long_for_a_socket_is_refused_with_a_remedy(directory, monkeypatch):
    long = directory.parent / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(BadArgument, match="XDG_RUNTIME_DIR"):
        runtime_dir.control_socket(Path("/data"))


def test_a_record_comes_back_as_it_was_written(directory, mounted, listen):
    odd = Path(os.fsdecode(b"/data/a b\n\xff\xc3\xbc"))
    mounted.append(odd)
    record = record_of(odd)
    listen(record.control_socket)
    runtime_dir.write_record(record)
    assert [known.record for known in runtime_dir.records()] == [record]


def test_states_tell_what_is_mounted_and_what_answers(directory, mounted, listen):
    serving, dead, ending, gone = (record_of(Path(p)) for p in ("/a", "/b", "/c", "/d"))
    mounted += [serving.mount_path, dead.mount_path]
    listen(serving.control_socket)
    listen(ending.control_socket)
    listen(dead.control_socket).close()
    listen(gone.control_socket).close()
    for record in (serving, dead, ending, gone):
        runtime_dir.write_record(record)
    states = {str(known.record.mount_path): known.state for known in runtime_dir.records()}
    assert states == {"/a": "serving", "/b": "dead", "/c": "ending"}
    assert not gone.control_socket.exists()
    assert len(list(directory.glob("*.json"))) == 3


def test_an_old_daemon_does_not_remove_the_record_of_a_new_one(directory, mounted):
    old = record_of(Path("/a"))
    new = dataclasses.replace(old, pid=old.pid + 1)
    mounted.append(old.mount_path)
    runtime_dir.write_record(new)
    runtime_dir.remove_record(old)
    assert [known.record for known in runtime_dir.records()] == [new]
    runtime_dir.remove_record(new)
    assert runtime_dir.records() == []


def test_files_that_are_no_records_are_passed_over(directory, mounted):
    runtime_dir.runtime_dir()
    (directory / "a.json").write_text("{")
    (directory / "b.json").write_text('{"location": "x"}')
    (directory / "c.json").write_text("[]")
    assert runtime_dir.records() == []


def test_many_writers_and_readers_never_see_half_a_record(directory, mounted):
    paths = [Path(f"/m{number}") for number in range(8)]
    mounted += paths

    def work(path):
        for _ in range(10):
            runtime_dir.write_record(record_of(path))
            assert path in [known.record.mount_path for known in runtime_dir.records()]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, paths))
    assert len(runtime_dir.records()) == 8
    assert not list(directory.glob("*.tmp"))


def test_find_takes_the_innermost_mount(directory, mounted):
    for path in (Path("/a"), Path("/a/b")):
        mounted.append(path)
        runtime_dir.write_record(record_of(path))
    assert runtime_dir.find(Path("/a/b/c")).record.mount_path == Path("/a/b")
    assert runtime_dir.find(Path("/a/bc")).record.mount_path == Path("/a")
    assert runtime_dir.find(Path("/ab")) is None


def test_mountinfo_with_escapes_optional_fields_and_bytes_that_are_no_text():
    text = (
        b"36 35 98:0 / /mnt rw,noatime shared:1 master:2 - ext3 /dev/root rw\n"
        b"37 36 0:52 / /mnt/a\\040b\\134\xff ro - fuse.stsfs syn1 ro,user_id=0\n"
        b"garbage\n"
    )
    root, ours = mountinfo.parse(text)
    assert (root.path, root.filesystem_type, root.is_stsfs) == (Path("/mnt"), "ext3", False)
    assert ours.path == Path(os.fsdecode(b"/mnt/a b\\\xff"))
    assert (ours.device, ours.source, ours.is_stsfs) == ("0:52", "syn1", True)


def test_resolve_follows_links_but_not_into_a_mount(tmp_path, mounted):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert mountinfo.resolve(tmp_path / "link") == tmp_path / "real"
    mounted.append(tmp_path / "real")
    assert mountinfo.resolve(tmp_path / "link" / ".") == tmp_path / "real"
    assert mountinfo.resolve(tmp_path / "real" / "x" / "..") == tmp_path / "real"
