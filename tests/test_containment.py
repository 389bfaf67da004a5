"""A bug in a background task is counted, and ends what it worked on only."""

import errno
import os
import resource
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import trio

from stsfs import supervisor
from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.cache.disk import write_behind
from stsfs.cache.disk.directory import CacheDirectory
from stsfs.cache.disk.disk_cache import DiskCache
from stsfs.cache.disk.tier import DiskTier
from stsfs.cache.disk.write_behind import IdleProcessors
from stsfs.daemon import control, machine, pressure, watchdog
from stsfs.daemon.control import serve_control
from stsfs.daemon.control_client import ask
from stsfs.daemon.notify import ServiceManager
from stsfs.daemon.pressure import PressureWatch
from stsfs.daemon.watchdog import keep_watchdog
from stsfs.entities.filler import Filler
from stsfs.entities.location import EntityLocation
from stsfs.entities.objects import Objects
from stsfs.errors import StoreFailure
from stsfs.fuse import session
from stsfs.fuse.mount_point import MountPoint
from stsfs.fuse.session import Session
from tests.fakes import MemoryStore, pattern

MIB = 1 << 20
BLOCK_BYTES = 16


@pytest.fixture
def bugs():
    """How many bugs have been counted since."""
    before = supervisor.BUGS.count
    return lambda: supervisor.BUGS.count - before


class Failing:
    """Stands for a call: a bug the first few times, and what it stands for from then on."""

    def __init__(self, call, times=1):
        self._call, self._times = call, times
        self.calls = 0

    def __call__(self, *arguments, **named):
        self.calls += 1
        if self.calls <= self._times:
            raise KeyError("a bug")
        return self._call(*arguments, **named)


async def test_whoever_waits_for_bytes_hears_of_a_bug_in_their_end(nursery, monkeypatch, bugs):
    store = MemoryStore()
    cache = BlockCache(BlockPool(budget_bytes=48, block_bytes=BLOCK_BYTES), store)
    await nursery.start(cache.run)
    content = cache.enter(store.put("a", pattern("a", 100)))
    store.objects.clear()
    monkeypatch.setattr(content, "fail", Failing(content.fail))
    with trio.fail_after(120), pytest.raises(StoreFailure, match="bug"):
        await cache.read(content, 0, 16, (0, 16))
    assert bugs() == 1
    store.put("b", pattern("b", 100))
    other = cache.enter(store.put("b", pattern("b", 100)))
    assert bytes(await cache.read(other, 0, 16, (0, 16))) == pattern("b", 100)[:16]


async def test_the_writer_of_the_disk_cache_goes_on(tmp_path, monkeypatch, bugs):
    monkeypatch.setattr(IdleProcessors, "idle_share", lambda self: 1.0)
    monkeypatch.setattr(write_behind, "GATHER_S", 0.0)
    monkeypatch.setattr(supervisor, "RESTART_PAUSE_S", 0.0)
    store, pool = MemoryStore(), BlockPool(budget_bytes=32 * MIB, block_bytes=MIB)
    disk = DiskCache(CacheDirectory.of_user(tmp_path / "cache"), limit_bytes=256 * MIB, key=b"key")
    tier = DiskTier(disk, store, {1: "aws/lab"}, pool)
    cache = BlockCache(pool, store, tier)
    monkeypatch.setattr(tier.writer, "_write_batch", Failing(tier.writer._write_batch, times=2))
    written = trio.Event()
    monkeypatch.setattr(tier.writer, "_written", lambda batch: written.set())
    async with trio.open_nursery() as mount:
        await mount.start(tier.writer.run)
        await mount.start(cache.run)
        content = cache.enter(store.put("a", pattern("a", MIB)))
        await cache.read(content, 0, 100, (0, MIB))
        with trio.fail_after(60):
            await written.wait()
        mount.cancel_scope.cancel()
    assert bugs() == 2
    assert tier.status()["written_bytes"] == MIB


async def test_the_watch_on_memory_goes_on(tmp_path, nursery, autojump_clock, monkeypatch, bugs):
    watch = PressureWatch(
        BlockPool(budget_bytes=64 * MIB, block_bytes=MIB),
        fixed_bytes=64 * MIB,
        proc=tmp_path,
        cgroups=tmp_path,
    )
    looks = Failing(watch.look, times=2)
    monkeypatch.setattr(watch, "look", looks)
    monkeypatch.setattr(pressure.psi, "open_trigger", Failing(lambda path: None))
    await nursery.start(watch.run)
    await trio.sleep(10 * pressure.CHECK_S)
    assert looks.calls > 2
    assert bugs() == 3


async def test_a_bug_of_the_watchdog_is_not_held_against_the_mount(tmp_path, autojump_clock, bugs):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        with trio.move_on_after(6):
            service = ServiceManager(str(tmp_path / "notify"), watchdog_s=10.0)
            await keep_watchdog(service, Failing(None, times=100))
        assert manager.recv(100) == manager.recv(100) == b"WATCHDOG=1"
    assert bugs() == 2


async def test_a_probe_without_a_descriptor_to_wait_with_is_no_verdict(tmp_path, monkeypatch):
    def no_more(pid):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", no_more)
    assert await watchdog.answers(tmp_path, timeout_s=60)


async def test_the_control_socket_is_heard_again(nursery, monkeypatch, bugs):
    async def echo(request):
        return {"heard": True}

    with tempfile.TemporaryDirectory() as directory:  # pytest's own can be too long for a socket
        path = Path(directory) / "s"
        accepting = trio.Event()

        async def accept(listening, server, really=control._accept):
            accepting.set()
            await really(listening, server)

        monkeypatch.setattr(control, "_accept", Failing(accept, times=2))
        monkeypatch.setattr(control, "RESTART_PAUSE_S", 0.0)
        monkeypatch.setattr(supervisor, "RESTART_PAUSE_S", 0.0)
        await nursery.start(serve_control, path, {"echo": echo})
        with trio.fail_after(60):
            await accepting.wait()
        answer = await trio.to_thread.run_sync(lambda: ask(path, "echo", timeout_s=120))
        assert answer == {"heard": True}
        assert bugs() == 2
        nursery.cancel_scope.cancel()


async def test_an_inventory_that_meets_a_bug_leaves_the_location(nursery, bugs):
    location = EntityLocation.__new__(EntityLocation)
    location.filler = Filler(None, None)
    location.objects = Objects(1, "bucket", "prefix/", MemoryStore(), None)
    await nursery.start(location.run)
    await trio.testing.wait_all_tasks_blocked()
    assert bugs() == 2  # of the filler, too, which ends for good
    nursery.cancel_scope.cancel()


async def test_a_mount_that_cannot_start_a_child_ends_all_the_same(monkeypatch, caplog, tmp_path):
    async def no_more(*arguments, **options):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(session.trio, "run_process", no_more)
    with MountPoint.open(tmp_path) as point:
        point.mounted_id = point.below_id
        await Session(point).unmount()
    assert "Too many open files" in caplog.text


LIMITS = """
import resource, sys
from stsfs.daemon.machine import descriptor_budget, raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
print(raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0], descriptor_budget())
"""


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [(256, 4096, (4096, 4096, 3584)), (256, 256, (256, 256, 128)), (800, 800, (800, 800, 400))],
)
def test_a_daemon_takes_all_descriptors_it_may_have(soft, hard, expected):
    command = [sys.executable, "-c", LIMITS, str(soft), str(hard)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert tuple(map(int, said.split())) == expected


def test_a_limit_that_cannot_be_raised_stays(monkeypatch, caplog):
    def refuse(kind, limits):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(machine.resource, "getrlimit", lambda kind: (100, 1000))
    monkeypatch.setattr(machine.resource, "setrlimit", refuse)
    assert machine.raise_descriptor_limit() == 100
    assert "cannot be raised" in caplog.text


def test_without_a_limit_there_is_a_bound_all_the_same(monkeypatch):
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(machine.resource, "getrlimit", lambda kind: infinite)
    assert machine.raise_descriptor_limit() == machine.DESCRIPTORS_MAX
    assert machine.descriptor_budget() == machine.DESCRIPTORS_MAX - machine.DESCRIPTORS_RESERVED
