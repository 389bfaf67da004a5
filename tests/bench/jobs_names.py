"""Jobs about names: long listings, wide trees, and readers that must not wait for them."""

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from tempfile import TemporaryFile

from tests.bench.measure import Figure, Job, RawTarget, Sample, Target
from tests.bench.objects import BUCKET
from tests.bench.processes import running
from tests.bench.scale import LATENCY_READ_BYTES, MIB, SMALL_BYTES, Scale

_CACHED_BYTES = 8 * MIB
"""What the latency job has read before; small enough for every cache."""

LATENCY_AIM_MS = 10.0
"""For the 99th percentile of reads from the cache, while listings and streams run."""


def _timed_lines(target: Target, figure: str, command: list[str], lines_expected: int) -> Sample:
    """How long a command took; it must have written that many lines."""
    with TemporaryFile() as output:
        with target.meter.measure() as reading:
            subprocess.run(command, stdout=output, check=True, env=os.environ | {"LC_ALL": "C"})
        output.seek(0)
        lines = output.read().count(b"\n")
    assert lines == lines_expected, f"{lines} lines instead of {lines_expected}"
    return reading.sample(figure, reading.elapsed_s)


def _ls(target: Target) -> Iterator[Sample]:
    command = ["ls", "-l", str(target.root / "flat")]
    yield _timed_lines(target, "names.ls", command, target.scale.flat_count + 1)


def _find(target: Target) -> Iterator[Sample]:
    scale = target.scale
    lines = 1 + scale.tree_directories + scale.tree_count
    yield _timed_lines(target, "names.find", ["find", str(target.root / "tree")], lines)


def _ls_raw(target: RawTarget) -> Iterator[Sample]:
    yield _list_raw(target, "names.ls", "flat/", "/", target.scale.flat_count)


def _find_raw(target: RawTarget) -> Iterator[Sample]:
    yield _list_raw(target, "names.find", "tree/", "", target.scale.tree_count)


def _list_raw(target: RawTarget, figure: str, prefix: str, delimiter: str, keys: int) -> Sample:
    with target.meter.measure() as reading:
        client = target.client()
        count = client.list_all(BUCKET, prefix, delimiter)
    client.close()
    assert count == keys, f"{count} keys instead of {keys}"
    return reading.sample(figure, reading.elapsed_s)


def _latency(target: Target) -> Iterator[Sample]:
    """Reads from the file system's own cache, one after the other, beside heavy traffic."""
    lister = [sys.executable, "-c", _LISTER, str(target.root)]
    streamer = [sys.executable, "-c", _STREAMER, str(target.root / "stream")]
    fd = os.open(target.root / "random/00", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    # In random order: what a stream has passed by need not stay in a cache.
    for offset in random.sample(range(0, _CACHED_BYTES, SMALL_BYTES), _CACHED_BYTES // SMALL_BYTES):
        os.pread(fd, SMALL_BYTES, offset)
    waits_ms: list[float] = []
    with (
        target.meter.measure() as reading,
        running(lister, subprocess.DEVNULL) as listing,
        running(streamer, subprocess.DEVNULL),
    ):
        until_s = time.monotonic() + target.scale.latency_s
        while listing.poll() is None and time.monotonic() < until_s:
            waits_ms.append(_one_wait_ms(target, fd))
    os.close(fd)
    assert listing.returncode in {0, -9}, "the listing failed"
    cuts = statistics.quantiles(waits_ms, n=100)
    count = len(waits_ms)
    yield reading.sample("latency.p50", cuts[49], reads=count)
    yield reading.sample("latency.p99", cuts[98], reads=count)
    yield reading.sample("latency.max", max(waits_ms), reads=count)


def _one_wait_ms(target: Target, fd: int) -> float:
    offset = random.randrange(_CACHED_BYTES // LATENCY_READ_BYTES) * LATENCY_READ_BYTES
    # Out of the kernel's page cache, so that the file system is asked.
    os.posix_fadvise(fd, offset, LATENCY_READ_BYTES, os.POSIX_FADV_DONTNEED)
    begun_s = time.perf_counter()
    data = os.pread(fd, LATENCY_READ_BYTES, offset)
    waited_ms = (time.perf_counter() - begun_s) * 1000
    target.check("random/00", offset, data)
    time.sleep(0.0005)  # a reader that never pauses is a load of its own
    return waited_ms


_LISTER = """\
import os, sys
root = sys.argv[1]
for entry in os.scandir(f"{root}/flat"):
    entry.stat()
for _ in os.walk(f"{root}/tree"):
    pass
"""

_STREAMER = """\
import os, sys
memory = bytearray(1 << 20)
while True:
    for name in sorted(os.listdir(sys.argv[1])):
        with open(f"{sys.argv[1]}/{name}", "rb", buffering=0) as file:
            while file.readinto(memory):
                pass
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
"""


def names_jobs(scale: Scale) -> list[Job]:
    """The jobs, with titles that say the sizes."""
    flat, tree = f"{scale.flat_count:,}", f"{scale.tree_count:,}"
    beside = "cached 4 KiB read beside a listing and a stream"
    return [
        Job("ls", (
            Figure("names.ls", f"ls -l, {flat} keys in one directory", "s",
                   more_is_better=False),
        ), _ls, _ls_raw),
        Job("find", (
            Figure("names.find", f"find, {tree} keys in {scale.tree_directories} directories",
                   "s", more_is_better=False),
        ), _find, _find_raw),
        Job("latency", (
            Figure("latency.p50", f"{beside}: median", "ms", more_is_better=False),
            Figure("latency.p99", "  99th percentile", "ms", more_is_better=False,
                   aim_at_most=LATENCY_AIM_MS),
            Figure("latency.max", "  longest", "ms", more_is_better=False),
        ), _latency, trees=("stream", "random/00")),
    ]  # fmt: skip
