"""What others, or a copy, have put into a cache directory of ours is not read or followed."""

import contextlib
import errno
import fcntl
import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio
import trio.testing

from stsfs.cache.content import GRAIN_BYTES
from stsfs.cache.disk import layout
from stsfs.cache.disk.cache_key import KEY_BYTES, kept_key, load_key
from stsfs.cache.disk.directory import CHUNKS, INDEX, INDEX_FILES, LOCK, CacheDirectory
from stsfs.cache.disk.disk_cache import DiskCache, Piece, Work
from stsfs.cache.disk.layout import chunk_name
from stsfs.errors import ForeignPath
from stsfs.store.object_store import ObjectVersion
from tests.attacks.neighbour import MIB, UID, neighbour
from tests.fakes import pattern
from tests.hangs import bounded

KEY, THEIRS = b"ours" * 8, b"them" * 8
VERSION = b"v" * 16
DATA = pattern(11, 5 * GRAIN_BYTES + 100)


@pytest.fixture
def part(place):
    return CacheDirectory.of_user(place)


@contextlib.contextmanager
def opened(part, key=KEY, limit_bytes=64 * MIB):
    disk = DiskCache(part, limit_bytes=limit_bytes, key=key)
    disk.open()
    try:
        yield disk
    finally:
        disk.close()


def put(disk, data=DATA, version=VERSION):
    return disk.work(Work([Piece(version, 0, memoryview(data))]))


def get(disk, version=VERSION):
    buffer = memoryview(bytearray(len(DATA) + 2 * GRAIN_BYTES))
    found = disk.read(version, len(DATA), 0, len(DATA), buffer)
    return found if found is None else bytes(found)


def chunk_path(part):
    return part.path / CHUNKS / chunk_name(VERSION, 0)


def test_bytes_written_with_another_key_are_not_right(part):
    with opened(part, THEIRS) as forger:
        put(forger, DATA[::-1])
    with opened(part) as disk:
        assert get(disk) == b""


def test_nobody_without_the_key_can_name_a_version(part):
    version = ObjectVersion(1, "cohort/s1.bam", '"abc"', 10)
    assert layout.version_id("aws/lab", version, KEY) != layout.version_id(
        "aws/lab", version, THEIRS
    )


@pytest.mark.parametrize("kind", ["their file", "link", "pipe"])
def test_a_chunk_that_is_no_file_of_ours_is_not_read_and_is_replaced(part, place, kind):
    with opened(part) as disk:
        put(disk)
        chunk = chunk_path(part)
        if kind == "their file":
            os.chown(chunk, UID, UID)  # with the right bytes, even
        elif kind == "link":
            chunk.rename(place / "elsewhere")
            chunk.symlink_to(place / "elsewhere")
        else:
            chunk.unlink()
            os.mkfifo(chunk)
        assert get(disk) is None
        disk.work(Work([Piece(VERSION, 8 * GRAIN_BYTES, memoryview(DATA))]))
        assert get(disk) == b"", "what was there is lost"
        status = chunk.lstat()
        assert (stat.S_ISREG(status.st_mode), status.st_uid) == (True, os.getuid())
        if kind == "link":
            assert (place / "elsewhere").read_bytes() == DATA, "nothing was written through it"


@pytest.mark.parametrize("name", [*INDEX_FILES, LOCK, CHUNKS])
@pytest.mark.parametrize("kind", ["their file", "link", "pipe"])
def test_what_others_put_beside_the_chunks_is_put_away(part, place, name, kind):
    """The directory was open for everybody once."""
    aim = place / "aim"
    aim.write_bytes(b"not theirs to change")
    part.path.mkdir(mode=0o777)
    part.path.chmod(0o777)
    planted = part.path / name
    if kind == "their file":
        neighbour("sh", "-c", f"echo forged > {planted}")
    elif kind == "link":
        neighbour("ln", "-s", aim, planted)
    else:
        neighbour("mkfifo", planted)
    with opened(part) as disk:
        put(disk)
        assert get(disk) == DATA
    assert aim.read_bytes() == b"not theirs to change"
    assert stat.S_IMODE(part.path.stat().st_mode) == 0o700
    assert not list(part.path.glob("gone-*"))
    assert {each.lstat().st_uid for each in part.path.rglob("*")} == {os.getuid()}


def test_a_cache_of_another_user_under_our_name_is_refused(part, place):
    place.chmod(0o777)
    neighbour("mkdir", part.path)
    place.chmod(0o755)
    with pytest.raises(ForeignPath, match=f"uid {UID}"), opened(part):
        pass


def forged_row(part, **columns):
    row = {"version": VERSION, "number": 0, "held": b"\1", "digests": b"", "stored_bytes": 9}
    row |= {"used_unix_s": 0} | columns
    with contextlib.closing(sqlite3.connect(part.path / INDEX)) as index, index:
        index.execute(
            "INSERT INTO chunk VALUES (:version, :number, :held, :digests, :stored_bytes, "
            ":used_unix_s)",
            row,
        )


@pytest.mark.parametrize(
    "columns",
    [
        {"number": "x/../../../../aim"},
        {"version": "text"},
        {"version": b"short"},
        {"number": -1},
        {"number": 1.5},
        {"stored_bytes": "many"},
        {"stored_bytes": float("inf")},
        {"stored_bytes": -(2**62)},
        {"held": bytes(10**6)},
        {"digests": bytes(10**6)},
        {"used_unix_s": "long ago"},
    ],
    ids=str,
)
def test_a_copied_index_can_neither_remove_files_nor_break_the_cache(part, place, columns):
    """Eviction removes what the rows name."""
    with opened(part):
        pass
    aim = place / "aim"
    aim.write_bytes(b"precious")
    (part.path / CHUNKS / VERSION.hex()[:2] / f"{VERSION.hex()}-x").mkdir(parents=True)
    forged_row(part, **columns)
    disk = DiskCache(part, limit_bytes=1, key=KEY)
    for _ in range(3):  # what it finds damaged is thrown away when it is opened again
        with contextlib.suppress(sqlite3.Error):
            disk.open()
            disk.totals()
            put(disk)
            disk.held(VERSION)
            get(disk)
    assert aim.read_bytes() == b"precious"
    disk.limit_bytes = 64 * MIB
    disk.open()
    put(disk)
    assert get(disk) == DATA
    disk.close()


def test_the_key_is_a_secret_of_the_user_and_not_in_the_cache(tmp_path, part):
    path = tmp_path / "state" / "stsfs" / "cache-key"
    key = load_key(path)
    assert len(key) == KEY_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with opened(part, key) as disk:
        put(disk)
    assert not [
        each for each in part.path.rglob("*") if each.is_file() and key in each.read_bytes()
    ]


def test_mounts_that_start_at_once_have_one_key(tmp_path):
    with ThreadPoolExecutor(8) as mounts:
        keys = set(mounts.map(lambda _: load_key(tmp_path / "cache-key"), range(8)))
    assert len(keys) == 1


@pytest.mark.parametrize("mode", [0o644, 0o620])
def test_a_key_that_others_could_read_or_write_is_replaced_and_said_so(tmp_path, mode, caplog):
    path = tmp_path / "cache-key"
    key = load_key(path)
    assert caplog.text == ""
    path.chmod(mode)
    other = load_key(path)
    assert "could be read or written by others" in caplog.text
    assert other != key
    assert load_key(path) == other
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_is_kept_where_the_file_system_has_no_locks(tmp_path, monkeypatch):
    def no_lock(*_):
        raise OSError(errno.ENOSYS, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_lock)
    assert load_key(tmp_path / "cache-key") == load_key(tmp_path / "cache-key")


def test_where_a_file_has_no_permissions_no_key_is_kept_and_that_is_said(
    tmp_path, monkeypatch, caplog
):
    """As on CIFS and vfat: all files have the mode that the mount was given."""
    path = tmp_path / "cache-key"
    path.write_bytes(THEIRS)
    path.chmod(0o755)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    keys = {load_key(path) for _ in range(2)}
    assert len(keys) == 2
    assert path.read_bytes() == THEIRS
    assert THEIRS not in keys
    assert caplog.text.count("Later mounts will not find what this one caches.") == 2
    assert "XDG_STATE_HOME" in caplog.text


async def test_who_waits_for_the_key_keeps_nothing_else_waiting(tmp_path, nursery):
    path = tmp_path / "cache-key"
    key = load_key(path)
    found = []
    ended = trio.Event()

    async def find():
        found.append(await kept_key(path))
        ended.set()

    with bounded(120):
        with open(path, "rb") as other_mount:
            fcntl.flock(other_mount, fcntl.LOCK_EX)
            nursery.start_soon(find)
            await trio.testing.wait_all_tasks_blocked()
            assert found == []
        await ended.wait()
    assert found == [key]


def test_a_key_that_a_crash_cut_short_is_replaced_and_said_so(tmp_path, caplog):
    path = tmp_path / "cache-key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    assert len(load_key(path)) == KEY_BYTES
    assert "is incomplete" in caplog.text
    assert load_key(path) == path.read_bytes()


@pytest.mark.parametrize("kind", ["file", "link", "pipe", "directory that they can exchange"])
def test_a_key_that_others_have_put_there_is_not_used(place, kind, caplog):
    path = place / "cache-key"
    known = place / "known"
    known.write_bytes(THEIRS)
    known.chmod(0o644)
    place.chmod(0o777)
    plant = {"link": ["ln", "-s", known], "pipe": ["mkfifo"]}.get(kind, ["cp", known])
    neighbour(*plant, path)
    if kind != "directory that they can exchange":
        place.chmod(0o755)
    keys = {load_key(path) for _ in range(2)}
    assert len(keys) == 2
    assert THEIRS not in keys
    assert "will not find" in caplog.text


def test_where_no_key_can_be_kept_there_is_one_for_this_mount(caplog):
    keys = {load_key(Path("/proc/cache-key")) for _ in range(2)}
    assert len(keys) == 2
    assert "will not find" in caplog.text
