"""Jobs that read bytes: streams, random reads, many small files."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tests.bench.measure import MEGA, Figure, Job, RawTarget, Reading, Sample, Target
from tests.bench.processes import in_processes
from tests.bench.scale import (
    KIB,
    MIB,
    PRESSURE_MEMORY,
    PRESSURE_READ_BYTES,
    RANDOM_READ_BYTES,
    STREAM_READ_BYTES,
    Scale,
    size,
)

_RAW_RANGE_BYTES = 8 * MIB
_GRID_SHIFT_BYTES = 20 * KIB
"""Random reads lie on a grid, so that none is asked for twice, but not on anybody's blocks."""

FETCHED_AIM = 1.05
"""Bytes fetched per byte read: nothing twice, but some for the kernel's read-ahead."""


def read_whole(target: Target, name: str) -> int:
    """Read a file as dd does; its size."""
    memory = memoryview(bytearray(STREAM_READ_BYTES))
    position = 0
    fd = os.open(target.root / name, os.O_RDONLY)
    try:
        while count := os.readv(fd, [memory]):
            target.check(name, position, memory[:count])
            position += count
    finally:
        os.close(fd)
    return position


def _start(target: Target) -> Iterator[Sample]:
    yield Sample("mount.ready", target.ready_s * 1000)
    with target.meter.measure() as reading:
        fd = os.open(target.root / "stream/big", os.O_RDONLY)
        data = os.read(fd, 1)
    os.close(fd)
    target.check("stream/big", 0, data)
    yield reading.sample("mount.first_byte", reading.elapsed_s * 1000)


def _start_raw(target: RawTarget) -> Iterator[Sample]:
    with target.meter.measure() as reading:
        client = target.client()
        client.read(target.target("stream/big"), 0, 1)
    client.close()
    yield reading.sample("mount.first_byte", reading.elapsed_s * 1000)


def _megabytes_per_s(count_bytes: int, seconds_s: float) -> float:
    return count_bytes / seconds_s / MEGA


def _stream(target: Target) -> Iterator[Sample]:
    for figure in ("stream.cold", "stream.again"):
        with target.meter.measure() as reading:
            count = read_whole(target, "stream/big")
        assert count == target.scale.stream_bytes
        yield reading.sample(figure, _megabytes_per_s(count, reading.elapsed_s))


def _tls(target: Target) -> Iterator[Sample]:
    with target.meter.measure() as reading:
        count = read_whole(target, "stream/big")
    assert count == target.scale.stream_bytes
    yield reading.sample("tls.cold", _megabytes_per_s(count, reading.elapsed_s))


def _raw_stream(figure: str, target: RawTarget) -> Iterator[Sample]:
    yield _read_ranges(figure, target, [("stream/big", target.scale.stream_bytes)])


def _raw_parts(target: RawTarget) -> Iterator[Sample]:
    names = _part_names(target.scale)
    yield _read_ranges("parts.cold", target, [(name, target.scale.part_bytes) for name in names])


def _read_ranges(figure: str, target: RawTarget, files: Sequence[tuple[str, int]]) -> Sample:
    ranges = [
        (name, start, min(start + _RAW_RANGE_BYTES, file_bytes))
        for name, file_bytes in files
        for start in range(0, file_bytes, _RAW_RANGE_BYTES)
    ]

    def work(number: int) -> int:
        client = target.client()
        mine = ranges[number :: target.processes]
        return sum(client.read(target.target(name), start, stop) for name, start, stop in mine)

    with target.meter.measure() as reading:
        counts, elapsed_s = in_processes(target.processes, work)
    return reading.sample(figure, _megabytes_per_s(sum(counts), elapsed_s))


def _part_names(scale: Scale) -> list[str]:
    return [f"stream/part-{number}" for number in range(scale.part_count)]


def _parts(target: Target) -> Iterator[Sample]:
    names = _part_names(target.scale)
    with ThreadPoolExecutor(len(names)) as threads, target.meter.measure() as reading:
        count = sum(threads.map(partial(read_whole, target), names))
    yield reading.sample("parts.cold", _megabytes_per_s(count, reading.elapsed_s))


def _offsets(file_bytes: int, read_bytes: int, shift_bytes: int, seed: int) -> list[int]:
    """Places for reads that do not overlap, in random order."""
    offsets = list(range(shift_bytes, file_bytes - read_bytes + 1, read_bytes))
    random.Random(seed).shuffle(offsets)
    return offsets


def _random_offsets(scale: Scale) -> list[int]:
    return _offsets(scale.stream_bytes, RANDOM_READ_BYTES, _GRID_SHIFT_BYTES, seed=1)


def _random(thread_count: int, target: Target) -> Iterator[Sample]:
    offsets = _random_offsets(target.scale)
    fd = os.open(target.root / "stream/big", os.O_RDONLY)
    until_s = time.monotonic() + target.scale.random_s

    def work(number: int) -> int:
        count = 0
        for offset in offsets[number::thread_count]:
            if time.monotonic() > until_s:
                break
            target.check("stream/big", offset, os.pread(fd, RANDOM_READ_BYTES, offset))
            count += 1
        return count

    with ThreadPoolExecutor(thread_count) as threads, target.meter.measure() as reading:
        count = sum(threads.map(work, range(thread_count)))
    os.close(fd)
    asked_bytes = count * RANDOM_READ_BYTES
    yield _rate(f"random.{thread_count}", count, asked_bytes, reading.elapsed_s, reading)


def _rate(figure: str, count: int, asked_bytes: int, elapsed_s: float, reading: Reading) -> Sample:
    per_byte = reading.fetched_bytes / asked_bytes if reading.fetched_bytes is not None else None
    return reading.sample(figure, count / elapsed_s, reads=count, fetched_per_byte_read=per_byte)


def _random_raw(connections: int, target: RawTarget) -> Iterator[Sample]:
    offsets = _random_offsets(target.scale)

    def work(number: int) -> int:
        client, count = target.client(), 0
        until_s = time.monotonic() + target.scale.random_s
        for offset in offsets[number::connections]:
            if time.monotonic() > until_s:
                break
            client.read(target.target("stream/big"), offset, offset + RANDOM_READ_BYTES)
            count += 1
        return count

    with target.meter.measure() as reading:
        counts, elapsed_s = in_processes(connections, work)
    yield reading.sample(f"random.{connections}", sum(counts) / elapsed_s, reads=sum(counts))


def _pressure_name(number: int) -> str:
    return f"random/{number:02}"


def _pressure(target: Target) -> Iterator[Sample]:
    """One process per file; each reads its file in random order, and again when it is through."""

    def work(number: int) -> int:
        name, count, passes = _pressure_name(number), 0, 0
        fd = os.open(target.root / name, os.O_RDONLY)
        until_s = time.monotonic() + target.scale.pressure_s
        while True:
            seed = 1000 * passes + number
            for offset in _offsets(target.scale.random_bytes, PRESSURE_READ_BYTES, 0, seed):
                if time.monotonic() > until_s:
                    return count
                target.check(name, offset, os.pread(fd, PRESSURE_READ_BYTES, offset))
                count += 1
            # The next pass is of the file system, not of the kernel's page cache.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            passes += 1

    with target.meter.measure() as reading:
        counts, elapsed_s = in_processes(target.scale.random_count, work)
    count = sum(counts)
    asked_bytes = count * PRESSURE_READ_BYTES
    sample = _rate("pressure.reads", count, asked_bytes, elapsed_s, reading)
    if target.is_stsfs:
        sample.details["status"] = status = stsfs_status(target)
        fetched_bytes = status["requests"]["get"]["bytes"]
        sample.details["fetched_per_byte_read"] = fetched_bytes / asked_bytes
    yield sample
    if sample.details["fetched_per_byte_read"] is not None:
        yield Sample("pressure.fetched", sample.details["fetched_per_byte_read"])
    if sample.rss_peak_bytes is not None:
        yield Sample("pressure.rss", sample.rss_peak_bytes / MIB)


def _pressure_raw(target: RawTarget) -> Iterator[Sample]:
    def work(number: int) -> int:
        client, count = target.client(), 0
        until_s = time.monotonic() + target.scale.random_s
        name = target.target(_pressure_name(number))
        for offset in _offsets(target.scale.random_bytes, PRESSURE_READ_BYTES, 0, number):
            if time.monotonic() > until_s:
                break
            client.read(name, offset, offset + PRESSURE_READ_BYTES)
            count += 1
        return count

    with target.meter.measure() as reading:
        counts, elapsed_s = in_processes(target.scale.random_count, work)
    yield reading.sample("pressure.reads", sum(counts) / elapsed_s, reads=sum(counts))


def stsfs_status(target: Target) -> dict[str, Any]:
    """What the daemon says of itself."""
    command = [sys.executable, "-m", "stsfs", "status", "--json", str(target.root)]
    done = subprocess.run(command, env=target.env, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _small(figure: str, listed: bool, target: Target) -> Iterator[Sample]:
    names = [f"small/{number:05}" for number in range(target.scale.small_count)]
    if listed:
        assert len(os.listdir(target.root / "small")) == len(names)
    with target.meter.measure() as reading:
        for name in names:
            with (target.root / name).open("rb", buffering=0) as file:
                target.check(name, 0, file.readall())
    yield reading.sample(figure, len(names) / reading.elapsed_s)


def _small_raw(figure: str, target: RawTarget) -> Iterator[Sample]:
    count = target.scale.small_count
    with target.meter.measure() as reading:
        client = target.client()
        for number in range(count):
            client.read(target.target(f"small/{number:05}"))
    client.close()
    yield reading.sample(figure, count / reading.elapsed_s)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def data_jobs(scale: Scale) -> list[Job]:
    """The jobs, with titles that say the sizes."""
    big, kib = size(scale.stream_bytes), size(RANDOM_READ_BYTES)
    parts = f"{scale.part_count} files of {size(scale.part_bytes)} at once"
    small = f"{scale.small_count} files of 64 KiB one by one"
    pressure = f"random 64 KiB, {scale.random_count} processes and files, {PRESSURE_MEMORY}"
    return [
        Job("start", (
            Figure("mount.ready", "mount ready", "ms", more_is_better=False),
            Figure("mount.first_byte", "first byte after mount", "ms", more_is_better=False),
        ), _start, _start_raw, trees=("stream/big",)),
        Job("stream", (
            Figure("stream.cold", f"{big} cold", "MB/s"),
            Figure("stream.again", f"{big} read again", "MB/s"),
        ), _stream, partial(_raw_stream, "stream.cold"), trees=("stream/big",)),
        Job("parts", (Figure("parts.cold", parts, "MB/s"),), _parts, _raw_parts,
            trees=("stream",)),
        *(Job(f"random{count}", (
            Figure(f"random.{count}", f"random {kib}, {_threads(count)}", "reads/s"),
        ), partial(_random, count), partial(_random_raw, count), trees=("stream/big",))
          for count in (1, 16)),
        Job("pressure", (
            Figure("pressure.reads", pressure, "reads/s"),
            Figure("pressure.fetched", "  bytes fetched per byte read", "", more_is_better=False,
                   comparable=False, aim_at_most=FETCHED_AIM),
            Figure("pressure.rss", "  peak resident memory", "MiB", more_is_better=False,
                   comparable=False),
        ), _pressure, _pressure_raw, trees=("random",),
            stsfs_options=("--memory", PRESSURE_MEMORY)),
        Job("small", (Figure("small.listed", f"{small}, listed first", "files/s"),),
            partial(_small, "small.listed", True), partial(_small_raw, "small.listed"),
            trees=("small",)),
        Job("small-cold", (Figure("small.cold", f"{small}, cold", "files/s"),),
            partial(_small, "small.cold", False), partial(_small_raw, "small.cold"),
            trees=("small",)),
        Job("tls", (Figure("tls.cold", f"{big} cold, TLS", "MB/s"),), _tls,
            partial(_raw_stream, "tls.cold"), trees=("stream/big",), tls=True),
    ]  # fmt: skip
