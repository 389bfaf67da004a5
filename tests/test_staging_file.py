"""One staging file: bytes, records, and a disk that is full or fails."""

import contextlib
import dataclasses
import errno
import json
import os
import threading

import pytest

from stsfs.errors import StagingFailure, StagingFull
from stsfs.staging import file as file_module
from stsfs.staging import room as room_module
from stsfs.staging.file import StagingFile, boot_id
from stsfs.staging.record import DamagedRecord, Record
from stsfs.staging.room import Room
from tests.staging_fakes import full_record, record


@pytest.fixture
def staged(tmp_path):
    made = StagingFile.create(tmp_path / "abc", Room(tmp_path))
    yield made
    made.rest()


def test_bytes_are_read_as_they_were_written_in_any_order(staged):
    staged.write(5, b"later")
    staged.write(0, memoryview(b"first"))
    assert staged.read(0, 10) == b"firstlater"
    assert staged.read(3, 100) == b"stlater"
    assert staged.read(10, 5) == b""


def test_what_nobody_wrote_reads_as_zeros_and_takes_no_room(staged):
    staged.write(1 << 30, b"x")
    assert staged.read(1 << 20, 3) == bytes(3)
    assert staged.stored_bytes() < 1 << 20


def test_a_file_that_was_cut_and_grown_reads_as_zeros_there(staged):
    staged.write(0, b"secret")
    staged.truncate(2)
    staged.truncate(6)
    assert staged.read(0, 6) == b"se\0\0\0\0"


def test_a_write_that_the_kernel_shortens_is_completed(staged, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:3], at))
    staged.write(2, b"0123456789")
    assert staged.read(0, 12) == b"\0\x000123456789"


def test_a_read_that_the_kernel_shortens_is_completed(staged, monkeypatch):
    staged.write(0, b"0123456789")
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: real(fd, min(size, 3), at))
    assert staged.read(1, 100) == b"123456789"


def test_a_record_comes_back_with_everything_that_was_in_it(staged):
    kept = full_record()
    filled = {name for name in Record.__slots__ if getattr(kept, name) not in (None, "", (), 0)}
    assert filled == set(Record.__slots__)
    staged.keep(kept)
    assert staged.load().record == kept


@pytest.mark.parametrize("durable", [False, True])
def test_a_record_replaces_the_one_before(staged, durable):
    staged.keep(record(reason="old"), durable=durable)
    staged.keep(record(reason="new"), durable=durable)
    assert staged.load().record.reason == "new"
    assert sorted(os.listdir(staged.path.parent)) == ["abc.data", "abc.json"]


def test_no_record_is_none(staged):
    assert staged.load() is None


def test_bytes_are_forced_to_the_disk_before_the_record_that_speaks_of_them(staged, monkeypatch):
    order = []
    data_inode, directory_inode = staged.path.stat().st_ino, staged.path.parent.stat().st_ino

    def noting(name, real):
        def call(*args):
            if name == "rename":
                order.append("record in place")
            else:
                inode = os.fstat(args[0]).st_ino
                names = {data_inode: "data", directory_inode: "directory"}
                order.append(names.get(inode, "record"))
            return real(*args)

        return call

    for name in ("fsync", "fdatasync", "rename"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    staged.keep(record(), durable=True)
    assert order == ["data", "record", "record in place", "directory"]


def test_a_durable_record_is_never_replaced_by_one_that_is_not_on_the_disk(staged, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), real(fd)))
    staged.keep(record())
    assert not synced
    staged.keep(record(), durable=True)
    synced.clear()
    staged.keep(record(reason="later"))
    assert synced


def test_only_what_was_forced_to_the_disk_is_certain_after_the_machine_went_down(
    staged, monkeypatch
):
    staged.keep(record())
    assert staged.load().is_certain
    monkeypatch.setattr(file_module, "boot_id", lambda: "another run of the machine")
    assert not staged.load().is_certain
    staged.keep(record(), durable=True)
    monkeypatch.setattr(file_module, "boot_id", lambda: "a third one")
    assert staged.load().is_certain


def test_the_machine_has_a_boot_id():
    assert len(boot_id()) == 36


def test_discard_leaves_nothing(staged):
    staged.write(0, b"data")
    staged.keep(record())
    staged.discard()
    assert os.listdir(staged.path.parent) == []
    with pytest.raises(StagingFailure):
        staged.read(0, 1)


def test_a_file_at_rest_has_no_descriptor_and_is_opened_again_when_used(staged):
    staged.write(0, b"data")
    before = len(os.listdir("/proc/self/fd"))
    staged.rest()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert staged.read(0, 4) == b"data"


def test_rest_does_not_take_the_descriptor_from_a_read_under_way(staged, monkeypatch):
    staged.write(0, b"data")
    reading, may_go_on = threading.Event(), threading.Event()
    real = os.pread

    def slow(*args):
        reading.set()
        may_go_on.wait()
        return real(*args)

    monkeypatch.setattr(os, "pread", slow)
    got = []
    reader = threading.Thread(target=lambda: got.append(staged.read(0, 4)))
    reader.start()
    reading.wait()
    staged.rest()
    may_go_on.set()
    reader.join()
    assert got == [b"data"]
    assert staged._descriptor == -1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_staging_full_and_says_what_to_do(staged, monkeypatch, number):
    def fail(*_args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(StagingFull) as caught:
        staged.write(0, b"data")
    assert str(staged.path.parent) in caught.value.sentence
    assert "--staging-dir" in caught.value.remedy


def test_any_other_error_of_the_disk_is_a_staging_failure(staged, monkeypatch):
    def fail(*_args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(StagingFailure):
        staged.write(0, b"data")


def test_a_record_that_cannot_be_written_leaves_the_one_before(staged, monkeypatch):
    staged.keep(record(reason="old"))

    def fail(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(StagingFull):
            staged.keep(record(reason="new"))
    assert staged.load().record.reason == "old"


@pytest.mark.parametrize("name", [*(each.name for each in dataclasses.fields(Record)), "boot_id"])
def test_a_record_with_a_value_of_another_kind_is_damaged(staged, name):
    staged.keep(record())
    values = json.loads(staged.record_path.read_text())
    values[name] = [["x"]] if name == "present" else 17.5 if name != "changed_unix_s" else "x"
    staged.record_path.write_text(json.dumps(values))
    with pytest.raises(DamagedRecord):
        staged.load()


@pytest.mark.parametrize("text", [b"", b"\0" * 100, b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_record_is_damaged(staged, text):
    staged.record_path.write_bytes(text)
    with pytest.raises(DamagedRecord):
        staged.load()


def test_a_record_of_another_format_is_left_alone(staged):
    staged.keep(record())
    values = json.loads(staged.record_path.read_text()) | {"format": 2}
    staged.record_path.write_text(json.dumps(values))
    with pytest.raises(DamagedRecord, match="format 2"):
        staged.load()


class Disk:
    """A file system that says what statvfs says of it, and how often it was asked."""

    def __init__(self, total_bytes, free_bytes):
        self.total_bytes, self.free_bytes, self.asked = total_bytes, free_bytes, 0

    def statvfs(self, _path):
        self.asked += 1
        frsize = 4096
        values = [frsize, frsize, self.total_bytes // frsize, 0, self.free_bytes // frsize]
        return os.statvfs_result([*values, 0, 0, 0, 0, 255, 0])

    def take(self, room, count_bytes):
        room.take(count_bytes)
        self.free_bytes -= count_bytes


@pytest.mark.parametrize("total_bytes", [32 << 20, 1 << 30, 100 << 30, 10 << 40])
def test_a_part_of_the_disk_stays_free_and_the_disk_is_seldom_asked(
    tmp_path, monkeypatch, total_bytes
):
    reserve = min(total_bytes // 20, 1 << 30)
    disk = Disk(total_bytes, reserve + (200 << 20 if total_bytes > 1 << 30 else total_bytes // 10))
    room = Room(tmp_path)
    monkeypatch.setattr(room_module.os, "statvfs", disk.statvfs)
    writes = 0
    with contextlib.suppress(StagingFull):
        while True:
            disk.take(room, 4096)
            writes += 1
    assert disk.free_bytes >= reserve * 3 // 4
    assert disk.asked < max(20, writes // 20)


def test_room_that_others_make_is_used_at_once(tmp_path, monkeypatch):
    disk = Disk(1 << 30, 0)
    room = Room(tmp_path)
    monkeypatch.setattr(room_module.os, "statvfs", disk.statvfs)
    with pytest.raises(StagingFull):
        room.take(1)
    disk.free_bytes = 1 << 29
    room.take(1)
