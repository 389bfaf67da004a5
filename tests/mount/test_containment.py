"""Callers that are slow, and callers that are killed, keep nobody else from an answer."""

import contextlib
import logging
import re
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pyfuse3
import pytest
import trio

from stsfs.daemon import machine
from stsfs.demo.gate.faults import Hold, Rule
from stsfs.fuse import workers
from stsfs.fuse.mount_point import MountOptions, MountPoint
from stsfs.fuse.operations import change_handler, handler
from stsfs.fuse.session import Session
from tests.mount.stage import PATIENCE_S
from tests.mount.writing_stage import RW

pytestmark = pytest.mark.mount
OPTIONS = MountOptions("x", is_read_only=False)

MANY = 600
"""Requests under way at the same time: more than twice the 256 that were the limit once."""

CLOSE_AT_ONCE = """
import os, sys, threading
directory, count = sys.argv[1], int(sys.argv[2])
threading.stack_size(65536)
files = [os.open(f"{directory}/{number}", os.O_WRONLY) for number in range(count)]
threads = [threading.Thread(target=os.close, args=(file,)) for file in files]
[each.start() for each in threads]
[each.join() for each in threads]
"""
CREATE_AT_ONCE = """
import os, sys, threading
directory, count = sys.argv[1], int(sys.argv[2])
threading.stack_size(65536)
flags = os.O_WRONLY | os.O_CREAT
files = [os.open(f"{directory}/{number}", flags, 0o644) for number in range(count)]
for file in files:
    os.write(file, b"content")
threads = [threading.Thread(target=os.close, args=(file,)) for file in files]
[each.start() for each in threads]
print("closing", flush=True)
[each.join() for each in threads]
"""
CREATED = 300

STATVFS = "import os, sys; os.statvfs(sys.argv[1])"


class SlowToClose(pyfuse3.Operations):
    """Files by number. Closing one takes until `go_on` is set, and all else takes no time."""

    deadline_s = PATIENCE_S

    def __init__(self, closes):
        super().__init__()
        self.under_way, self.changes_under_way, self.served = set(), set(), 0
        self.owners = {}
        self.go_on, self.all_close = trio.Event(), trio.Event()
        self._closes_left = closes

    @handler
    async def getattr(self, inode, ctx):
        return self.entry(inode)

    @handler
    async def lookup(self, parent, name, ctx):
        return self.entry(2 + int(name))

    @handler
    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=inode)

    @change_handler
    async def flush(self, fh):
        self._closes_left -= 1
        if not self._closes_left:
            self.all_close.set()
        await self.go_on.wait()

    async def release(self, fh):
        pass

    async def statfs(self, ctx):
        return pyfuse3.StatvfsData()

    def entry(self, inode):
        made = pyfuse3.EntryAttributes()
        made.st_ino = inode
        made.st_mode = stat.S_IFDIR | 0o755 if inode == 1 else stat.S_IFREG | 0o644
        made.entry_timeout = made.attr_timeout = 0
        return made


@contextlib.asynccontextmanager
async def mounted(path, operations):
    """A session of this process; whoever asks it must be another one."""
    with MountPoint.open(path) as point, contextlib.closing(Session(point)) as session:
        await session.mount(OPTIONS)
        await session.negotiate(operations)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.serve)
                try:
                    yield session
                finally:
                    operations.go_on.set()
                    with trio.CancelScope(shield=True):
                        await session.unmount()


def python(script, *arguments):
    return [sys.executable, "-c", script, *map(str, arguments)]


async def test_who_is_killed_before_his_request_is_read_delays_nobody(
    tmp_path, monkeypatch, caplog, nursery
):
    """With a long close under way; it ends only after the others have been answered."""
    caplog.set_level(logging.INFO)
    operations, victims = SlowToClose(1), []
    armed, started, killed = threading.Event(), threading.Event(), threading.Event()
    is_readable = workers._is_readable

    def kill_the_victim(descriptor):
        """Between the event, which the victim's request has caused, and pyfuse3's reading."""
        found = is_readable(descriptor)
        if found and armed.is_set() and not killed.is_set():
            assert started.wait(PATIENCE_S)
            victims[0].kill()
            victims[0].wait()
            killed.set()
        return found

    def start_victim():
        armed.set()
        victims.append(subprocess.Popen(["stat", tmp_path / "7"]))
        started.set()
        assert killed.wait(PATIENCE_S)

    async with mounted(tmp_path, operations):
        closing = python(CLOSE_AT_ONCE, tmp_path, 1)
        nursery.start_soon(trio.run_process, closing)
        await operations.all_close.wait()
        monkeypatch.setattr(workers, "_is_readable", kill_the_victim)
        await trio.to_thread.run_sync(start_victim)
        done = await trio.run_process(["stat", str(tmp_path / "8")], capture_stdout=True)
        assert done.returncode == 0
        assert "a request was withdrawn" in caplog.text
        assert not operations.go_on.is_set()


async def test_hundreds_of_slow_closes_leave_statvfs_answered(tmp_path, nursery):
    operations = SlowToClose(MANY)
    async with mounted(tmp_path, operations):
        nursery.start_soon(trio.run_process, python(CLOSE_AT_ONCE, tmp_path, MANY))
        await operations.all_close.wait()
        await trio.run_process(python(STATVFS, tmp_path))
        await trio.run_process(["stat", str(tmp_path / "8")], capture_stdout=True)
        assert not operations.go_on.is_set()


@contextlib.contextmanager
def soft_limit(count):
    """Few descriptors for what is started meanwhile, unless it takes more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_daemon_takes_all_descriptors_it_may_have(folder, mount):
    with soft_limit(512) as hard:
        live = mount(folder.syn_id)
    limits = Path(f"/proc/{live.pid}/limits").read_text()
    soft, hard_of_daemon = re.search(r"Max open files +(\d+) +(\d+)", limits).groups()
    assert int(soft) == int(hard_of_daemon) == min(hard, machine.DESCRIPTORS_MAX)


def test_more_files_are_written_at_the_same_time_than_there_are_descriptors(folder, host, mount):
    """A hard limit, which cannot be raised: files that nobody writes to just now do without."""
    host.limited_by = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    live = mount(folder.syn_id, *RW)
    (live / "many").mkdir()
    with contextlib.ExitStack() as opened:
        names = [live / "many" / str(number) for number in range(CREATED)]
        files = [opened.enter_context(each.open("wb", buffering=0)) for each in names]
        for word in (b"first", b"second"):
            for number, each in enumerate(files):
                each.write(b"%s %d;" % (word, number))
        assert len(live.descriptors()) < 256
    for number, each in enumerate(names):
        assert each.read_bytes() == b"first %d;second %d;" % (number, number)
    assert live.status()["bugs"]["count"] == 0


def test_programs_that_wait_for_s3_leave_everybody_else_answered(folder, mount, stage):
    """As many as were answered at once in the past, and more: a watchdog that got none aborted."""
    live = mount(folder.syn_id, *RW)
    (live / "many").mkdir()
    hold = Hold("request")
    stage.gate.faults.add(Rule(hold, kinds=frozenset({"PUT"})))  # all of them
    command = python(CREATE_AT_ONCE, live / "many", CREATED)
    closing = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert closing.stdout.readline() == b"closing\n"
        hold.wait_reached(PATIENCE_S)
        done = subprocess.run(python(STATVFS, live.path), timeout=PATIENCE_S)
        assert done.returncode == 0
        assert live.status()["writing"]["files"] == CREATED
        assert len(list((live / "many").iterdir())) == CREATED
        assert closing.poll() is None
    finally:
        hold.let_go()
        closing.communicate(timeout=PATIENCE_S)
    assert closing.returncode == 0
    assert live.status()["bugs"]["count"] == 0
    assert live.status()["writing"]["files"] == 0
