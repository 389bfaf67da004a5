"""The cache directory without an event loop: what is written, verified, given up and begun anew."""

import contextlib
import errno
import gc
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stsfs.cache.content import GRAIN_BYTES
from stsfs.cache.disk import chunk_file, disk_cache
from stsfs.cache.disk.directory import CHUNKS, INDEX, CacheDirectory, OpenDirectory
from stsfs.cache.disk.disk_cache import DiskCache, Lost, Piece, Work
from stsfs.cache.disk.layout import CHUNK_BYTES, bits
from stsfs.errors import ForeignPath
from tests.fakes import pattern

MIB = 1024 * 1024
KEY = b"key"
A, B = b"a" * 16, b"b" * 16
DATA = pattern(4711, 3 * MIB + 12345)
SIZE = len(DATA)


@pytest.fixture
def directory(tmp_path):
    return CacheDirectory.of_user(tmp_path / "cache")


@pytest.fixture
def disk(directory):
    cache = DiskCache(directory, limit_bytes=64 * MIB, key=KEY)
    cache.open()
    yield cache
    cache.close()


def put(disk, version=A, start=0, data=DATA):
    return disk.work(Work([Piece(version, start, memoryview(data))]))


def get(disk, version=A, start=0, stop=SIZE, size_bytes=SIZE):
    buffer = memoryview(bytearray(stop - start + 2 * GRAIN_BYTES))
    found = disk.read(version, size_bytes, start, stop, buffer)
    return found if found is None else bytes(found)


def chunk_files(directory):
    return [path for path in (directory.path / CHUNKS).rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "planted",
    [
        "CREATE TRIGGER t BEFORE INSERT ON chunk BEGIN SELECT RAISE(ABORT, 'it ran'); END",
        "DROP TABLE chunk; CREATE VIEW chunk AS SELECT 1 AS version",
        "CREATE TABLE more (value)",
    ],
)
def test_an_index_with_more_in_it_than_its_tables_is_begun_anew(directory, planted):
    for change in (planted, ""):
        disk = DiskCache(directory, limit_bytes=64 * MIB, key=KEY)
        disk.open()
        put(disk)
        assert get(disk) == DATA
        disk.close()
        with contextlib.closing(sqlite3.connect(directory.path / INDEX)) as index, index:
            index.executescript(change)


def damage_rows(directory):
    with contextlib.closing(sqlite3.connect(directory.path / INDEX)) as connection, connection:
        connection.execute("UPDATE chunk SET held = 'text'")


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, len(DATA)), (1, 2), (GRAIN_BYTES - 1, GRAIN_BYTES + 1), (len(DATA) - 5, len(DATA))],
)
def test_what_was_written_is_read(disk, start, stop):
    put(disk)
    assert get(disk, start=start, stop=stop) == DATA[start:stop]


def test_a_restart_finds_everything_without_looking_at_the_files(disk, directory, monkeypatch):
    put(disk)
    disk.close()
    monkeypatch.setattr(os, "scandir", None)
    again = DiskCache(directory, limit_bytes=64 * MIB, key=KEY)
    assert again.open() >= len(DATA)
    assert get(again) == DATA
    again.close()


def test_a_flipped_byte_ends_what_is_read_before_its_grain(disk, directory):
    put(disk)
    flip(chunk_files(directory)[0], 5 * GRAIN_BYTES + 7)
    assert get(disk) == DATA[: 5 * GRAIN_BYTES]
    assert get(disk, start=6 * GRAIN_BYTES) == DATA[6 * GRAIN_BYTES :]


def test_what_was_lost_is_forgotten_and_can_be_written_again(disk, directory):
    put(disk)
    flip(chunk_files(directory)[0], 0)
    disk.work(Work(lost=[Lost(A, 0, bits(0, GRAIN_BYTES))]))
    assert disk.held(A) == {0: bits(GRAIN_BYTES, len(DATA))}
    put(disk)
    assert get(disk) == DATA


def test_a_file_cut_short_or_gone_is_a_miss(disk, directory):
    put(disk)
    path = chunk_files(directory)[0]
    os.truncate(path, 3 * GRAIN_BYTES + 100)
    assert get(disk) == DATA[: 3 * GRAIN_BYTES]
    path.unlink()
    assert get(disk) is None
    path.mkdir()
    assert get(disk) is None


def test_a_file_of_another_version_is_a_miss(disk, directory):
    put(disk)
    mine = chunk_files(directory)[0]
    put(disk, version=B, data=bytes(len(DATA)))
    other = next(path for path in chunk_files(directory) if path != mine)
    os.replace(other, mine)
    assert get(disk) == b""


def test_what_is_there_is_not_written_again(disk):
    assert put(disk).written_bytes == len(DATA)
    assert put(disk).written_bytes == 0


def test_the_limit_holds_and_what_was_used_last_stays(directory):
    disk = DiskCache(directory, limit_bytes=41 * MIB, key=KEY)
    disk.open()
    data = pattern(4711, CHUNK_BYTES)
    versions = [bytes([n]) * 16 for n in range(8)]
    clock = iter(range(1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_cache, "SLACK_BYTES", 0)
        patch.setattr("time.time", lambda: next(clock))
        for version in versions[:5]:
            put(disk, version, data=data)
        disk.work(Work(used={(versions[0], 0)}))
        outcome = put(disk, versions[5], data=data)
    assert outcome.evicted_bytes == CHUNK_BYTES + disk_cache.ROW_BYTES
    assert outcome.stored_bytes <= disk.limit_bytes
    assert [bool(disk.held(version)) for version in versions[:6]] == [True, False] + [True] * 4
    assert len(chunk_files(directory)) == 5
    disk.close()


def test_the_last_tenth_of_the_file_system_is_left_alone(disk, directory, monkeypatch):
    put(disk)
    monkeypatch.setattr(OpenDirectory, "free_bytes", lambda self: -MIB)
    outcome = put(disk, B)
    assert outcome.written_bytes == 0
    assert outcome.evicted_bytes >= len(DATA)  # others need the space more
    assert not chunk_files(directory)
    assert put(disk, B).no_room


def test_free_space_is_what_lies_above_the_last_tenth(disk, directory, monkeypatch):
    class Filesystem:
        f_frsize, f_blocks, f_bavail = 4096, 1000, 130

    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: Filesystem)
    assert disk.free_bytes() == 30 * 4096


def test_a_file_that_is_no_index_is_begun_anew(disk, directory):
    put(disk)
    disk.close()
    (directory.path / INDEX).write_bytes(b"not a database at all" * 1000)
    again = DiskCache(directory, limit_bytes=64 * MIB, key=KEY)
    assert again.open() == 0
    assert not chunk_files(directory)
    put(again)
    assert get(again) == DATA
    again.close()


def test_an_index_found_damaged_is_begun_anew_at_the_next_opening(disk, directory):
    put(disk)
    damage_rows(directory)
    with pytest.raises(sqlite3.DatabaseError, match="damaged"):
        disk.held(A)
    assert disk.open() == 0
    assert not chunk_files(directory)
    put(disk)
    assert get(disk) == DATA


def test_a_mount_notices_that_another_began_anew(disk, directory):
    put(disk)
    damage_rows(directory)
    other = DiskCache(directory, limit_bytes=64 * MIB, key=KEY)
    with pytest.raises(sqlite3.DatabaseError):
        other.held(A)
    assert other.open() == 0
    put(other, B)
    assert disk.held(A) == {}
    assert get(disk, B) == DATA
    other.close()


def test_a_write_that_fails_leaves_no_file_that_nobody_counts(disk, directory, monkeypatch):
    def fail(descriptor, path, parts):
        place = directory.path / path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(chunk_file, "write", fail)
    with pytest.raises(OSError, match="No space"):
        put(disk)
    assert not chunk_files(directory)


def test_small_objects_are_counted_with_what_they_take_on_disk(disk):
    for number in range(10):
        put(disk, bytes([number]) * 16, data=b"tiny")
    assert disk.stored_bytes() == 10 * (disk_cache.ROW_BYTES + disk_cache.DISK_BLOCK_BYTES)


def test_a_directory_that_is_removed_is_an_error_and_not_an_empty_cache(disk, directory):
    put(disk)
    shutil.rmtree(directory.path)
    with pytest.raises(FileNotFoundError):
        get(disk)
    with pytest.raises(FileNotFoundError):
        put(disk, B)
    assert disk.open() == 0
    put(disk, B)
    assert get(disk, B) == DATA


def test_a_directory_that_is_renamed_is_used_as_before(disk, directory, tmp_path):
    put(disk)
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    assert get(disk) == DATA
    put(disk, B)
    with ThreadPoolExecutor(4) as threads:  # connections of their own
        assert list(threads.map(lambda _: get(disk, B), range(8))) == [DATA] * 8
    assert disk.open() > 2 * len(DATA)
    assert not (tmp_path / "cache").exists()


def test_a_directory_opened_anew_gives_the_old_descriptor_back(disk, directory):
    opened = Path("/proc/self/fd")
    shutil.rmtree(directory.path)
    disk.open()
    gc.collect()
    links = [os.readlink(each) for each in opened.iterdir() if each.is_symlink()]
    assert links.count(str(directory.path)) == 1
    assert f"{directory.path} (deleted)" not in links


def test_clearing_gives_everything_up_and_the_others_go_on(disk, directory):
    put(disk)
    put(disk, B)
    other = DiskCache(directory, limit_bytes=64 * MIB, key=KEY)
    assert other.clear() >= 2 * len(DATA)
    assert not chunk_files(directory)
    assert not list(directory.path.glob("gone-*"))
    assert get(disk) is None
    put(disk)
    assert get(other) == DATA
    other.close()


def test_only_the_owner_can_look_into_it(disk, directory):
    put(disk)
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    index = [each for each in directory.path.iterdir() if each.name.startswith(INDEX)]
    files = [*chunk_files(directory), *index]
    assert len(files) >= 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_directory_of_somebody_else_is_refused(directory, monkeypatch):
    directory.path.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ForeignPath, match="not to us"):
        directory.create()


def test_each_user_has_a_part_of_his_own(tmp_path, monkeypatch):
    mine = CacheDirectory.of_user(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert CacheDirectory.of_user(tmp_path).path != mine.path


def test_many_threads_read_and_write_the_same_chunk(disk):
    def work(number):
        for grain in range(number, len(DATA) // GRAIN_BYTES, 4):
            start = grain * GRAIN_BYTES
            stop = start + GRAIN_BYTES
            put(disk, start=start, data=DATA[start:stop])
            assert get(disk, start=start, stop=stop) == DATA[start:stop]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert get(disk, stop=3 * MIB) == DATA[: 3 * MIB]


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pathlib import Path
from stsfs.cache.disk.directory import CacheDirectory
from stsfs.cache.disk.disk_cache import DiskCache, Piece, Work
from tests.fakes import pattern
disk = DiskCache(CacheDirectory.of_user(Path(sys.argv[1])), limit_bytes=1 << 26, key=b"key")
disk.open()
data = pattern(4711, 1 << 20)
n = 0
while True:
    print(n, flush=True)
    disk.work(Work([Piece(bytes([n % 50]) * 16, 0, memoryview(data))]))
    n += 1
"""


def test_a_writer_killed_at_any_moment_leaves_only_right_bytes(directory, tmp_path):
    data = pattern(4711, MIB)
    for kill in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "cache")],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        ) as writer:
            for _ in range(3 + 5 * kill):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        disk = DiskCache(directory, limit_bytes=64 * MIB, key=KEY)
        disk.open()
        assert disk.totals().chunks >= min(2 + 5 * kill, 49)
        for number in range(50):
            version = bytes([number]) * 16
            held = disk.held(version)
            found = get(disk, version, stop=MIB, size_bytes=MIB)
            assert found == (data if held else None)
        disk.close()
