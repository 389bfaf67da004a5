"""Jobs about the disk cache: filled by one mount, read by the next, beside a local file."""

import os
import time
from collections.abc import Iterator

from tests.bench.jobs_data import read_whole, stsfs_status
from tests.bench.measure import MEGA, Figure, Job, RawTarget, Sample, Target
from tests.bench.objects import BUCKET, cache_directory
from tests.bench.scale import MIB, STREAM_READ_BYTES, Scale, size

_NAME = "stream/big"
_STEP_BYTES = 32 * MIB
_LOOK_S = 0.05


def _fill(target: Target) -> Iterator[Sample]:
    """Read slowly enough for the disk to keep everything, as a program that computes does."""
    if not target.is_stsfs:
        yield Sample("disk.filled", read_whole(target, _NAME) / MIB)
        return
    fd = os.open(target.root / _NAME, os.O_RDONLY)
    try:
        for offset in range(0, target.scale.stream_bytes, _STEP_BYTES):
            for begin in range(offset, offset + _STEP_BYTES, STREAM_READ_BYTES):
                os.pread(fd, STREAM_READ_BYTES, begin)
            while stsfs_status(target)["disk_cache"]["waiting_bytes"]:
                time.sleep(_LOOK_S)
    finally:
        os.close(fd)
    yield Sample("disk.filled", stsfs_status(target)["disk_cache"]["stored_bytes"] / MIB)


def _remount(target: Target) -> Iterator[Sample]:
    with target.meter.measure() as reading:
        count_bytes = read_whole(target, _NAME)
    yield reading.sample("disk.remount", count_bytes / reading.elapsed_s / MEGA)


def _local_file(target: RawTarget) -> Iterator[Sample]:
    memory = memoryview(bytearray(STREAM_READ_BYTES))
    path = target.server.root / BUCKET / _NAME
    count_bytes = 0
    with target.meter.measure() as reading, path.open("rb", buffering=0) as file:
        while count_bytes < target.scale.stream_bytes:
            count_bytes += file.readinto(memory) or 0
    yield reading.sample("disk.remount", count_bytes / reading.elapsed_s / MEGA)


def disk_jobs(scale: Scale) -> list[Job]:
    """First the one that fills, then the one that reads; only stsfs keeps blocks on disk."""
    big = size(scale.stream_bytes)
    options = ("--cache-dir", str(cache_directory() / "disk-cache"))
    return [
        Job("disk-fill", (
            Figure("disk.filled", "disk cache holds", "MiB", comparable=False),
        ), _fill, trees=(_NAME,), stsfs_options=options),
        Job("disk-again", (
            Figure("disk.remount", f"{big} after a remount (raw: a local file)", "MB/s"),
        ), _remount, _local_file, stsfs_options=options),
    ]  # fmt: skip
