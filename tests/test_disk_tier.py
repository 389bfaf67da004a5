"""Memory cache, disk and store together: what is kept, what is asked for again, what goes wrong."""

import contextlib
import errno
import logging
import shutil
import sqlite3
import threading

import pytest
import trio

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.cache.content import GRAIN_BYTES
from stsfs.cache.disk import tier, write_behind
from stsfs.cache.disk.directory import CHUNKS, CacheDirectory
from stsfs.cache.disk.disk_cache import DiskCache
from stsfs.cache.disk.tier import DiskTier
from stsfs.cache.disk.write_behind import IdleProcessors
from stsfs.errors import StoreFailure
from tests.fakes import Fault, MemoryStore, pattern

MIB = 1024 * 1024
DATA = pattern("data", 3 * MIB + 4711)
SITES = {1: "aws/lab"}


class Mount:
    """A memory cache over the disk, as a daemon has it."""

    def __init__(self, directory, store, *, sites=SITES, memory_bytes=32 * MIB):
        self.store = store
        self.disk = DiskCache(directory, limit_bytes=256 * MIB, key=b"key")
        pool = BlockPool(budget_bytes=memory_bytes, block_bytes=MIB)
        self.tier = DiskTier(self.disk, store, sites, pool)
        self.cache = BlockCache(pool, store, self.tier)

    async def read(self, version, start=0, stop=None):
        stop = version.size_bytes if stop is None else stop
        content = self.cache.enter(version)
        data = b""
        for begin in range(start, stop, MIB):
            end = min(stop, begin + MIB)
            fetch = (begin - begin % GRAIN_BYTES, version.size_bytes)
            data += await self.cache.read(content, begin, end, fetch)
        self.cache.leave(content)
        return data

    @property
    def status(self):
        return self.tier.status()


@pytest.fixture
def directory(tmp_path):
    return CacheDirectory.of_user(tmp_path / "cache")


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """The writer is never held back by what else the machine does."""
    monkeypatch.setattr(IdleProcessors, "idle_share", lambda self: 1.0)


@contextlib.asynccontextmanager
async def mounted(directory, store, **options):
    """A mount; at its end all that waited has been written."""
    mount = Mount(directory, store, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.tier.writer.run)
        await nursery.start(mount.cache.run)
        yield mount
        nursery.cancel_scope.cancel()


async def filled(directory, store, key="a", data=DATA):
    """A version that is on disk."""
    version = store.put(key, data)
    async with mounted(directory, store) as mount:
        assert await mount.read(version) == data
    store.reads.clear()
    store.fetched_bytes = 0
    return version


async def test_the_next_mount_reads_from_disk_and_asks_for_nothing(directory, store):
    version = await filled(directory, store)
    async with mounted(directory, store) as mount:
        assert await mount.read(version) == DATA
        assert mount.status["hit_bytes"] == len(DATA)
    assert store.reads == []


async def test_what_comes_from_disk_confirms_no_version_and_the_store_is_asked(directory, store):
    version = await filled(directory, store)
    before = store.calls["confirm"]
    async with mounted(directory, store) as mount:
        content = mount.cache.enter(version)
        await mount.cache.confirm(content, GRAIN_BYTES)
        mount.cache.leave(content)
    assert store.calls["confirm"] == before + 1
    assert store.reads == []


async def test_only_what_the_disk_lacks_is_fetched(directory, store):
    version = store.put("a", DATA)
    async with mounted(directory, store) as mount:
        content = mount.cache.enter(version)
        await mount.cache.read(content, MIB, 2 * MIB, (MIB, 2 * MIB))
    store.reads.clear()
    async with mounted(directory, store) as mount:
        assert await mount.read(version) == DATA
    assert [read[1:3] for read in store.reads] == [(0, MIB), (2 * MIB, len(DATA))]


async def test_small_objects_are_kept_whole(directory, store):
    version = await filled(directory, store, data=b"tiny")
    async with mounted(directory, store) as mount:
        assert await mount.read(version) == b"tiny"
    assert store.reads == []


async def test_what_one_mount_keeps_another_finds_at_its_next_open(directory, store):
    version = store.put("a", DATA)
    async with mounted(directory, store) as second:
        assert await second.read(version, 0, 1) == DATA[:1]
        async with mounted(directory, store) as first:
            assert await first.read(version) == DATA
        store.reads.clear()
        second.cache.contents[version].forget()
        assert await second.read(version) == DATA
    assert store.reads == []


async def test_a_replaced_object_is_another_version_on_disk(directory, store):
    await filled(directory, store)
    other = store.put("a", DATA[::-1])
    async with mounted(directory, store) as mount:
        assert await mount.read(other) == DATA[::-1]
    assert store.fetched_bytes == len(DATA)


async def test_the_same_key_in_another_bucket_is_another_version(directory, store):
    version = await filled(directory, store)
    store.objects["a"] = store.objects["a"].__class__(DATA[::-1], version.etag)
    async with mounted(directory, store, sites={1: "aws/other"}) as mount:
        assert await mount.read(version) == DATA[::-1]


async def test_a_damaged_grain_is_fetched_again_and_repaired(directory, store):
    version = await filled(directory, store)
    (path,) = [path for path in (directory.path / CHUNKS).rglob("*") if path.is_file()]
    damaged = bytearray(path.read_bytes())
    damaged[MIB + 5] ^= 1
    path.write_bytes(damaged)
    async with mounted(directory, store) as mount:
        assert await mount.read(version) == DATA
        assert mount.status["damaged"] == 1
    assert store.fetched_bytes == MIB
    store.reads.clear()
    async with mounted(directory, store) as mount:
        assert await mount.read(version) == DATA
    assert store.reads == []


async def test_a_cut_body_leaves_nothing_wrong_behind(directory, store):
    version = store.put("a", DATA)
    store.script("read_range", Fault(StoreFailure("cut"), after_bytes=MIB + 77))
    async with mounted(directory, store) as mount:
        with pytest.raises(StoreFailure):
            await mount.read(version)
    async with mounted(directory, store) as mount:
        assert await mount.read(version) == DATA


@pytest.mark.parametrize(
    ("trouble", "state"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "read-only"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only"),
        (OSError(errno.EIO, "Input/output error"), "off"),
        (sqlite3.OperationalError("database is locked"), "off"),
    ],
)
async def test_trouble_with_writing_costs_no_reader_anything_and_is_said_once(
    directory, store, monkeypatch, caplog, trouble, state
):
    version = store.put("a", DATA)
    tried = threading.Event()

    def fail(self, work):
        tried.set()
        raise trouble

    monkeypatch.setattr(DiskCache, "work", fail)
    monkeypatch.setattr(write_behind, "GATHER_S", 0.0)
    with caplog.at_level(logging.WARNING):
        async with mounted(directory, store) as mount:
            assert await mount.read(version) == DATA
            await trio.to_thread.run_sync(tried.wait, 10)
            while mount.status["state"] == "on":
                await trio.sleep(0)
            mount.cache.contents[version].forget()
            assert await mount.read(version) == DATA
            assert mount.status["state"] == state
            assert str(trouble.args[-1]) in mount.status["reason"]
            assert mount.status["dropped_bytes"] >= len(DATA)
            assert mount.cache.pool.pinned_count <= 1
    assert len(caplog.records) == 1


async def test_a_directory_that_cannot_be_made_costs_only_speed(tmp_path, store, caplog):
    (tmp_path / "file").write_bytes(b"")
    directory = CacheDirectory.of_user(tmp_path / "file")
    version = store.put("a", DATA)
    async with mounted(directory, store) as mount:
        assert await mount.read(version) == DATA
        assert mount.status["state"] == "off"
    assert len(caplog.records) == 1


async def test_a_directory_that_vanishes_is_made_again_later(directory, store, monkeypatch):
    version = await filled(directory, store)
    opened = trio.Event()
    open_again = write_behind.WriteBehind._open

    async def open_and_tell(self):
        await open_again(self)
        opened.set()

    monkeypatch.setattr(write_behind, "RETRY_S", 0.0)
    async with mounted(directory, store) as mount:
        shutil.rmtree(directory.path)
        monkeypatch.setattr(write_behind.WriteBehind, "_open", open_and_tell)
        assert await mount.read(version) == DATA
        await opened.wait()
        assert mount.status["state"] == "on"
        mount.cache.contents[version].forget()
        assert await mount.read(version) == DATA
    async with mounted(directory, store) as mount:
        store.reads.clear()
        assert await mount.read(version) == DATA
    assert store.reads == []


async def test_a_disk_that_hangs_is_left_alone(directory, store, monkeypatch):
    version = await filled(directory, store)
    release = threading.Event()
    monkeypatch.setattr(tier, "READ_DEADLINE_S", 0.01)
    async with mounted(directory, store) as mount:
        monkeypatch.setattr(mount.disk, "read", lambda *arguments: release.wait())
        assert await mount.read(version) == DATA
        assert mount.status["state"] == "off"
        assert "no answer from the disk" in mount.status["reason"]
        release.set()
    assert store.fetched_bytes == len(DATA)


@pytest.mark.parametrize("call", ["held", "read", "work"])
async def test_a_bug_in_the_disk_cache_costs_only_speed(directory, store, monkeypatch, call):
    version = await filled(directory, store)

    def broken(*arguments):
        raise TypeError("a bug")

    monkeypatch.setattr(DiskCache, call, broken)
    async with mounted(directory, store) as mount:
        assert await mount.read(version) == DATA
        other = store.put("b", DATA[::-1])
        assert await mount.read(other) == DATA[::-1]
    assert mount.status["reason"] == "a bug"


async def test_what_another_mount_gave_up_is_fetched_in_whole_ranges(directory, store):
    long = pattern("long", 16 * MIB)
    version = await filled(directory, store, data=long)
    async with mounted(directory, store) as mount:
        content = mount.cache.enter(version)
        await mount.cache.read(content, 0, 1, (0, 1))
        other = DiskCache(directory, limit_bytes=256 * MIB, key=b"key")
        other.clear()
        other.close()
        read = await mount.cache.read(content, MIB, 2 * MIB, (MIB, len(long)))
        assert bytes(read) == long[MIB : 2 * MIB]
        assert await mount.read(version) == long
        assert mount.status["damaged"] == 0
    assert len(store.reads) <= 3


async def test_what_waits_to_be_written_makes_way_for_readers(directory, store, monkeypatch):
    version = store.put("a", pattern("long", 40 * MIB))
    release = threading.Event()
    begin = DiskCache.work
    monkeypatch.setattr(DiskCache, "work", lambda self, work: release.wait() and begin(self, work))
    async with mounted(directory, store, memory_bytes=16 * MIB) as mount:
        assert await mount.read(version) == store.objects["a"].data
        assert mount.status["dropped_bytes"] > 0
        release.set()
    assert mount.status["waiting_bytes"] == 0
    assert mount.cache.pool.pinned_count <= 1


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ("cpu 100 0 100 800 0 0 0 0 0 0", "cpu 150 0 150 900 0 0 0 0 0 0", 0.5),
        ("cpu 100 0 100 800 0 0 0 0 0 0", "cpu 200 0 200 800 0 0 0 0 0 0", 0.0),
        ("cpu 1 1 1 1 1 1 1 1 0 0", "cpu 1 1 1 1 1 1 1 1 0 0", 1.0),
        ("nonsense", "nonsense", 1.0),
    ],
)
def test_the_idle_share_is_that_of_the_time_since_the_last_look(tmp_path, before, after, share):
    path = tmp_path / "stat"
    path.write_text(before + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.undo()
        processors = IdleProcessors(path)
        path.write_text(after + "\n")
        assert IDLE_SHARE(processors) == share


IDLE_SHARE = IdleProcessors.idle_share
