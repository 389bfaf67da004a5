"""What tests of crashes, conflicts and recovery do again and again."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from stsfs.demo.file_server import uploads
from stsfs.demo.file_server.store import BucketDirectory
from stsfs.staging.left import what_is_left
from tests.mount.live_mount import POLL_S
from tests.mount.stage import PATIENCE_S
from tests.schemas import checked

RW = ("--rw", "--conditional-writes", "on")
"""A mount as on AWS, where a bucket refuses to replace what it should not."""

MIB = 1 << 20


def touched(size_bytes):
    """So many bytes, in memory that is really there: else the kernel writes page by page."""
    return b"x" * size_bytes


def wait_until(is_so):
    """Its first true answer, to what nobody announces."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (answer := is_so()):
        assert time.monotonic() < deadline_s, "it never came to be"
        select.select([], [], [], POLL_S)
    return answer


def left_in(host):
    """What lies in the staging directory: {path: state}; the state of a rename is a pair."""
    named = host.home / "state/stsfs/staging"
    found = {}
    for each in what_is_left(named) if named.is_dir() else []:
        record = each.record
        if record is None:
            found[each.id] = "damaged"
        elif hasattr(record, "new_path"):
            found[record.path] = (record.state, record.new_path)
        else:
            found[record.path] = record.state
    return found


def copies_noted(host):
    """How many copies of each rename under way are in its journal, by what is renamed."""
    left = what_is_left(host.home / "state/stsfs/staging")
    return {
        each.record.path: len(each.record.copied) for each in left if hasattr(each.record, "copied")
    }


def listed(host, *what):
    """What `stsfs recover --json` tells: {path: its record}."""
    done = host.stsfs("recover", "--json", *what)
    assert done.returncode == 0, done.stderr
    return {each["path"]: each for each in json.loads(done.stdout)["left"]}


def recover(host, *arguments):
    """`stsfs recover` with the stage's Synapse and S3; the completed process."""
    stage = host.stage
    places = ("--synapse-endpoint", stage.synapse.url, "--endpoint-url", stage.gate.url)
    return host.stsfs("recover", *arguments, *places)


def kill(live):
    """kill -9 of the daemon; its mount stays, dead, and is taken away at the end of the test."""
    live.signal(signal.SIGKILL)
    live.wait_for_end()


def unmounted(live, *, left=()):
    """Unmount; the command says what is left for `stsfs recover`, which are these paths."""
    done = live.unmount()
    assert done.returncode == (9 if left else 0), done.stderr
    lines = done.stderr.splitlines()
    told = [line.strip() for line in lines if line.startswith(" ") and line.strip()[:1] == "/"]
    assert sorted(told) == sorted(left)
    live.wait_for_end()


def pending_uploads(folder):
    """Names of files whose uploads the server has to keep, because nobody has ended them."""
    bucket = BucketDirectory(os.fsencode(folder.stage.bucket))
    keys = [key.decode() for key, _ in uploads.pending(bucket)]
    return [
        key.removeprefix(folder.key_of("")) for key in keys if key.startswith(folder.key_of(""))
    ]


def objects(folder, below="."):
    """What S3 has: {name: bytes}."""
    top = folder.path / below
    return {
        str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()
    }


def write(path, data, *, flags=os.O_CREAT | os.O_TRUNC):
    """Write and close; raises what either of them meets."""
    with closing_fd(path, os.O_WRONLY | flags) as descriptor:
        put_all(descriptor, data)


def put_all(descriptor, data):
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def closing_fd(path, flags):
    """An open descriptor, whose close may fail like any other call."""
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)


class Descriptor(int):
    """An open file that is closed once: soon after, its number may be that of a socket."""

    is_open = True

    def close(self):
        if self.is_open:
            self.is_open = False
            os.close(self)


@contextlib.contextmanager
def open_to_write(path, data, flags=os.O_CREAT):
    """A descriptor that has written, and is closed by the test or after it."""
    descriptor = Descriptor(os.open(path, os.O_RDWR | flags, 0o644))
    try:
        put_all(descriptor, data)
        yield descriptor
    finally:
        with contextlib.suppress(OSError):
            descriptor.close()


def refused(call, *arguments):
    """The number that a call fails with; None: it succeeds."""
    try:
        call(*arguments)
    except OSError as exc:
        return exc.errno
    return None


def explained(host, path):
    """The answer of `stsfs explain --json`."""
    return checked("explain", host.stsfs("explain", "--json", path).stdout)


@contextlib.contextmanager
def at_once(calls):
    """All calls run, each in a thread; yields their futures, and ends when they have ended."""
    with ThreadPoolExecutor(max(1, len(calls))) as threads:
        yield [threads.submit(*call) for call in calls]


class Foreground:
    """A mount in the foreground, whose daemon can be killed before the mount is ready."""

    def __init__(self, host, location, *options):
        self.path = host.mount_point()
        places = ["--endpoint-url", host.stage.gate.url]
        places += ["--synapse-endpoint", host.stage.synapse.url]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stsfs", "mount", "-f", location, self.path, *places, *options],
            env=host.environment,
            cwd="/",
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self):
        self.said = self._process.stderr.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._reading.join()
        self._process.stderr.close()
        if os.path.ismount(self.path) or self._is_dead():
            subprocess.run(["fusermount3", "-uzq", "--", str(self.path)], check=False)

    def _is_dead(self):
        """A mount without its daemon answers nothing."""
        try:
            os.stat(self.path)
        except OSError:
            return True
        return False
