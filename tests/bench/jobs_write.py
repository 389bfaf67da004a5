"""Jobs that write. What counts is the time until S3 has the bytes, looked up on the server's disk.

The bytes are compared with what was to be written after every run.
"""

import os
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench.measure import Figure, Job, RawTarget, Sample, Target
from tests.bench.objects import BUCKET
from tests.bench.processes import JobFailed, in_processes
from tests.bench.scale import MIB, SMALL_BYTES, Scale, size

_WRITE_BYTES = MIB
_PART_BYTES = 8 * MIB
_WRITERS = 8
_DIRECTORY = "fresh"
_BIG = f"{_DIRECTORY}/big"
_POOL = memoryview(random.Random(6).randbytes(8 * MIB))
"""Written contents are windows of it: no two alike, and made at no cost."""

_WINDOW_STEP_BYTES = 4099
"""A prime number, so that windows that are not far from each other begin at different places."""

_LOOK_S = 0.005
_STORED_S = 240.0
"""When bytes that S3 does not have count as lost."""


_BESIDE = 300
"""Files that lie in a directory before."""


def _content(number: int, size_bytes: int) -> memoryview:
    start = number * _WINDOW_STEP_BYTES % (len(_POOL) - size_bytes)
    return _POOL[start : start + size_bytes]


def _pieces(count_bytes: int) -> Iterator[memoryview]:
    """What is written to the large file, write by write."""
    return (_content(number, _WRITE_BYTES) for number in range(count_bytes // _WRITE_BYTES))


def _small_names(scale: Scale) -> list[str]:
    return [f"{_DIRECTORY}/{number:05}" for number in range(scale.written_count)]


def _stored(bucket: Path, sizes: Mapping[str, int]) -> bool:
    """Whether all objects are there, and as large as they shall be."""
    try:
        if len(os.listdir(bucket / _DIRECTORY)) < len(sizes):
            return False
        return all(os.stat(bucket / name).st_size == sizes[name] for name in sizes)
    except FileNotFoundError:
        return False


def _wait_until_stored(bucket: Path, sizes: Mapping[str, int]) -> None:
    """Return when S3 has all bytes. Raises JobFailed when it does not get them."""
    give_up_s = time.monotonic() + _STORED_S
    while not _stored(bucket, sizes):
        if time.monotonic() > give_up_s:
            raise JobFailed(f"S3 has not got all bytes after {_STORED_S:.0f} s")
        time.sleep(_LOOK_S)


def _check_big(bucket: Path, count_bytes: int) -> None:
    with (bucket / _BIG).open("rb", buffering=0) as file:
        for number, expected in enumerate(_pieces(count_bytes)):
            if file.read(_WRITE_BYTES) != expected:
                raise JobFailed(f"S3 has wrong bytes in MiB {number}")
        if file.read(1):
            raise JobFailed("S3 has too many bytes")


def _check_small(bucket: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        if (bucket / name).read_bytes() != _content(number, SMALL_BYTES):
            raise JobFailed(f"S3 has wrong bytes in {name}")


def _write_big(target: Target) -> Iterator[Sample]:
    """As dd does it, with the blocks that cp uses, too."""
    count_bytes = target.scale.stream_bytes
    (target.root / _DIRECTORY).mkdir()
    with target.meter.measure() as reading:
        begun_s = time.perf_counter()
        with (target.root / _BIG).open("wb", buffering=0) as file:
            for piece in _pieces(count_bytes):
                file.write(piece)
        closed_s = time.perf_counter() - begun_s
        _wait_until_stored(target.local, {_BIG: count_bytes})
    _check_big(target.local, count_bytes)
    yield reading.sample("write.big", reading.elapsed_s)
    yield Sample("write.big_closed", closed_s)


def _write_listed(target: Target) -> Iterator[Sample]:
    """The same into a directory that exists, and that somebody has looked into."""
    (target.root / _DIRECTORY).mkdir()
    for number in range(_BESIDE):
        (target.root / _DIRECTORY / f"beside-{number:03}").write_bytes(b"x")
    os.listdir(target.root / _DIRECTORY)
    yield from _write_small(target, "write.listed", exists=True)


def _write_small(
    target: Target, key: str = "write.small", *, exists: bool = False
) -> Iterator[Sample]:
    names = _small_names(target.scale)
    if not exists:
        (target.root / _DIRECTORY).mkdir()

    def work(writer: int) -> None:
        for number in range(writer, len(names), _WRITERS):
            with (target.root / names[number]).open("wb", buffering=0) as file:
                file.write(_content(number, SMALL_BYTES))

    with target.meter.measure() as reading:
        _, closed_s = in_processes(_WRITERS, work)
        last_closed_s = time.perf_counter()
        _wait_until_stored(target.local, dict.fromkeys(names, SMALL_BYTES))
        stored_s = closed_s + time.perf_counter() - last_closed_s
    _check_small(target.local, names)
    yield reading.sample(key, stored_s)
    yield Sample(f"{key}_closed", closed_s)


def _write_big_raw(target: RawTarget) -> Iterator[Sample]:
    """A multipart upload over several connections, from memory."""
    count_bytes, name = target.scale.stream_bytes, target.target(_BIG)
    pieces = list(_pieces(count_bytes))
    per_part = _PART_BYTES // _WRITE_BYTES
    parts = [pieces[start : start + per_part] for start in range(0, len(pieces), per_part)]

    def work(writer: int, upload_id: str) -> dict[int, str]:
        client = target.client()
        return {
            number + 1: client.put(f"{name}?partNumber={number + 1}&uploadId={upload_id}", *part)
            for number, part in enumerate(parts)
            if number % _WRITERS == writer
        }

    with target.meter.measure() as reading:
        client = target.client()
        upload_id = client.begin_upload(name)
        sent, _ = in_processes(_WRITERS, lambda writer: work(writer, upload_id))
        client.complete_upload(
            name, upload_id, {n: etag for some in sent for n, etag in some.items()}
        )
    client.close()
    _check_big(target.server.root / BUCKET, count_bytes)
    yield reading.sample("write.big", reading.elapsed_s)


def _write_small_raw(target: RawTarget) -> Iterator[Sample]:
    names = _small_names(target.scale)

    def work(writer: int) -> None:
        client = target.client()
        for number in range(writer, len(names), _WRITERS):
            client.put(target.target(names[number]), _content(number, SMALL_BYTES))

    with target.meter.measure() as reading:
        _, elapsed_s = in_processes(_WRITERS, work)
    _check_small(target.server.root / BUCKET, names)
    yield reading.sample("write.small", elapsed_s)


def write_jobs(scale: Scale) -> list[Job]:
    """The jobs, with titles that say the sizes."""
    big, kib = size(scale.stream_bytes), size(SMALL_BYTES)
    small = f"{scale.written_count} files of {kib} written by {_WRITERS} processes"
    return [
        Job("write-1g", (
            Figure("write.big", f"{big} written, until S3 has it", "s", more_is_better=False),
            _closed("write.big_closed"),
        ), _write_big, _write_big_raw, writes=True),
        Job("write-small", (
            Figure("write.small", f"{small}, until S3 has them", "s", more_is_better=False),
            _closed("write.small_closed"),
        ), _write_small, _write_small_raw, writes=True),
        Job("write-listed", (
            Figure("write.listed", f"{small}, in a listed directory", "s", more_is_better=False),
            _closed("write.listed_closed"),
        ), _write_listed, writes=True),
    ]  # fmt: skip


def _closed(key: str) -> Figure:
    """No measure of speed: a close may return before S3 has anything."""
    title = "  the last close returned"
    return Figure(key, title, "s", more_is_better=False, comparable=False)
