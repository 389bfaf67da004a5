"""The objects of the benchmark: files made once per machine, kept below the temporary directory.

| tree | what for |
|---|---|
| `stream/big`, `stream/part-N` | streams, random reads |
| `random/N` | random reads of many files under little memory |
| `small/N` | many small files |
| `flat/…` | one directory of very many keys (hard links) |
| `tree/D/N` | many directories of some keys (hard links) |
"""

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.scale import MIB, SMALL_BYTES, Scale

BUCKET = "bench"
_VERSION = 1
"""Raise it when the objects change, so that old ones are made anew."""

_LINKS_MAX = 30_000
"""Below the limit of every file system (ext4 has 65 000)."""


def cache_directory() -> Path:
    """Our private directory for what is worth keeping between runs."""
    path = Path(tempfile.gettempdir()) / f"stsfs-bench-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or path.is_symlink():
        raise SystemExit(f"{path} belongs to somebody else; set TMPDIR.")
    return path


def make_once(name: str, build: Callable[[Path], None]) -> Path:
    """The directory that `build` fills, from the cache if it was built before."""
    path = cache_directory() / f"{name}-v{_VERSION}"
    if path.is_dir():
        return path
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        build(partial)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return path


def make_objects(scale: Scale) -> Path:
    """The server's root: a directory with the bucket in it."""
    return make_once(scale.name, lambda root: _build(root, scale))


def _build(root: Path, scale: Scale) -> None:
    bucket = root / BUCKET
    for tree in ("stream", "random", "small", "flat", "tree"):
        (bucket / tree).mkdir(parents=True)
    _write_random(bucket / "stream/big", scale.stream_bytes)
    for number in range(scale.part_count):
        _write_random(bucket / f"stream/part-{number}", scale.part_bytes)
    for number in range(scale.random_count):
        _write_random(bucket / f"random/{number:02}", scale.random_bytes)
    for number in range(scale.small_count):
        _write_random(bucket / f"small/{number:05}", SMALL_BYTES)
    links = _links(root)
    for number in range(scale.flat_count):
        os.link(next(links), bucket / f"flat/sample-{number:06}.txt")
    for directory in range(scale.tree_directories):
        path = bucket / f"tree/plate-{directory:04}"
        path.mkdir()
        for number in range(scale.tree_files):
            os.link(next(links), path / f"well-{number:03}.txt")


def _write_random(path: Path, size_bytes: int) -> None:
    """Bytes that no other file has, and that do not compress."""
    generator = random.Random(path.name + str(size_bytes))
    with path.open("wb") as file:
        for start in range(0, size_bytes, MIB):
            file.write(generator.randbytes(min(MIB, size_bytes - start)))


def _links(root: Path) -> Iterator[Path]:
    """Tiny files to link to, each not more often than a file system allows."""
    number = 0
    while True:
        source = root / f"link-source-{number}"
        source.write_text("well\n")
        for _ in range(_LINKS_MAX):
            yield source
        number += 1


def warm(paths: list[Path]) -> None:
    """Bring files into the page cache, so that no system pays for the server's disk."""
    buffer = bytearray(MIB)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
