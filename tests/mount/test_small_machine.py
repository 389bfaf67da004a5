"""Daemon and readers within 512 MiB: streams, random reads and a huge directory, all at once."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.fakes import pattern
from tests.mount.live_mount import Host
from tests.mount.small_cgroup import small_cgroup
from tests.mount.stage import PATIENCE_S

pytestmark = [pytest.mark.mount, pytest.mark.long]

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
LIMIT_BYTES = 512 * MIB
STREAM_BYTES = 256 * MIB
NAMES = 100_000
STREAMS = ("s1", "s2", "r")

RANDOM_READS = """
import os, random, sys
from concurrent.futures import ThreadPoolExecutor
mounted, original = (os.open(path, os.O_RDONLY) for path in sys.argv[1:3])
size = os.fstat(original).st_size
places = random.Random(4711)
spans = [(places.randrange(size), places.randrange(1, 400_000)) for _ in range(400)]
def same(span):
    offset, length = span
    return os.pread(mounted, length, offset) == os.pread(original, length, offset)
with ThreadPoolExecutor(8) as threads:
    assert all(threads.map(same, spans))
"""

LISTING = """
import os, sys
with os.scandir(sys.argv[1]) as entries:
    print(sum(entry.stat().st_size for entry in entries))
"""


HOG = """
import sys
from stsfs.daemon.machine import MIB, read_memory
held = []
while read_memory().available_bytes > 26 * MIB:
    held.append(bytearray(b"x" * MIB))
print("full", flush=True)
sys.stdin.read()
"""


class ConfinedHost(Host):
    """Its daemons run in the control group."""

    def __init__(self, home, runtime, stage, cgroup):
        super().__init__(home, runtime, stage)
        self.cgroup = cgroup

    def stsfs(self, *arguments, env=None, cwd="/"):
        command = [sys.executable, "-m", "stsfs", *map(str, arguments)]
        return subprocess.run(
            self.cgroup.command(*command) if arguments[0] == "mount" else command,
            env=self.environment | (env or {}),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
        )


@pytest.fixture(scope="module")
def small():
    with small_cgroup(LIMIT_BYTES) as made:
        yield made


@pytest.fixture
def confined(small, tmp_path, stage):
    with tempfile.TemporaryDirectory(prefix="stsfs-run-") as runtime:
        yield ConfinedHost(tmp_path, Path(runtime), stage, small)


@pytest.fixture
def many(folder):
    """A directory with more names than anyone wants."""
    path = folder.path / "many"
    path.mkdir()
    for number in range(NAMES):
        os.close(os.open(path / f"object-{number:06}", os.O_CREAT | os.O_WRONLY))
    (path / "last").write_bytes(b"12345")
    return path


@pytest.fixture
def live(confined, folder):
    """A mount of large files, straight on the file server: the gate would be the bottleneck."""
    for name in STREAMS:
        make_stream(folder.path / name)
    made = confined.mount(folder.uri, "--endpoint-url", folder.stage.server.url)
    yield made
    assert made.audit() == []


def make_stream(path):
    """A large file that differs everywhere it is likely to be confused, made quickly."""
    with path.open("wb") as file:
        file.truncate(STREAM_BYTES)
        for offset in range(0, STREAM_BYTES, 64 * 1024):
            os.pwrite(file.fileno(), pattern((path.name, offset), 64), offset)


def start(small, *command):
    return subprocess.Popen(
        small.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    said, _ = process.communicate(timeout=4 * PATIENCE_S)
    assert process.returncode == 0, said
    return said


def test_streams_random_reads_and_a_huge_listing_fit_into_half_a_gibibyte(
    small, folder, many, live
):
    running = [start(small, "cmp", live / name, folder.path / name) for name in ("s1", "s2")]
    random = (sys.executable, "-c", RANDOM_READS, live / "r", folder.path / "r")
    running.append(start(small, *random))
    listing = start(small, sys.executable, "-c", LISTING, live / "many")
    for process in running:
        assert finish(process) == ""
    assert finish(listing) == "5\n"

    assert small.kills == 0
    assert str(live.pid) in small.processes
    cache = live.status()["cache"]
    assert cache["full_budget_bytes"] <= LIMIT_BYTES // 8, "the default follows the limit"
    assert cache["used_bytes"] <= cache["full_budget_bytes"]


def test_when_others_take_the_memory_the_cache_shrinks_and_status_says_why(small, folder, live):
    finish(start(small, "cmp", live / "s1", folder.path / "s1"))
    full = live.status()["cache"]["full_budget_bytes"]
    with subprocess.Popen(
        small.command(sys.executable, "-c", HOG),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as hog:
        assert hog.stdout.readline() == b"full\n"
        cache = wait_for(lambda: live.status()["cache"], lambda cache: cache["shrunk_because"])
        assert "of memory" in cache["shrunk_because"]
        assert cache["budget_bytes"] < full
        assert cache["used_bytes"] <= cache["budget_bytes"]
        finish(start(small, "cmp", "-n", str(64 * MIB), live / "s2", folder.path / "s2"))
        shown = live.host.stsfs("status", live.path).stdout
        hog.stdin.close()
    assert "memory was cut" in shown
    assert small.kills == 0


def wait_for(look, is_so):
    """What is seen once it is so; the daemon looks every few seconds, and tells nobody."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so(seen := look()):
        assert time.monotonic() < deadline_s, seen
        time.sleep(0.2)
    return seen
