"""What the daemon's frequent steps cost by themselves: `python -m tests.bench.micro`.

Each is repeated for a while, several times over; the fastest repeat is nearest to the truth.
"""

import itertools
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import click
import trio
from rich.console import Console
from rich.table import Table

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.credentials.credentials import Credentials
from stsfs.store.list_page import ListPageParser
from stsfs.store.sigv4 import Signer, encode_path
from stsfs.vfs.nodes import ROOT_INODE, Site
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs
from tests.bench.scale import KIB, MIB
from tests.fakes import MemoryStore

_REPEATS = 7
_FILE_BYTES = 8 * MIB
_NAMES = 1000
_PIECE_BYTES = 64 * KIB
_CALLER = 1
_NOW_UNIX_S = 1_700_000_000.0
_CREDENTIALS = Credentials("ASIAEXAMPLE", "secret", "token" * 200, None)

Step = Callable[[], Awaitable[object]]


def list_document(keys: int) -> bytes:
    """A LIST answer with that many keys, as S3 writes it."""
    contents = "".join(
        f"<Contents><Key>base/plate/sample-{number:06}.fastq.gz</Key>"
        f"<LastModified>2026-01-{number % 28 + 1:02}T10:00:00.000Z</LastModified>"
        f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{number * 1000}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for number in range(keys)
    )
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="{space}">'
        f"<Name>bucket</Name><Prefix>base/plate/</Prefix><IsTruncated>false</IsTruncated>"
        f"{contents}</ListBucketResult>"
    ).encode()


@asynccontextmanager
async def _serving(store: MemoryStore) -> AsyncIterator[Vfs]:
    """The file system below the kernel, over a store in memory; listings are trusted."""
    cache = BlockCache(BlockPool(budget_bytes=64 * MIB, block_bytes=MIB), store)
    tree = Tree(Site(1, store, "base/"), metadata_ttl_s=3600.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(cache.run)
        await nursery.start(tree.run)
        yield Vfs(tree, cache, trust_listings=True)
        nursery.cancel_scope.cancel()


def _parse_step(document: bytes) -> Step:
    async def parse() -> None:
        parser = ListPageParser()
        for start in range(0, len(document), _PIECE_BYTES):
            parser.feed(document[start : start + _PIECE_BYTES])
        assert len((await parser.page()).objects) == _NAMES

    return parse


def _sign_step() -> Step:
    signer = Signer("bucket.s3.us-east-1.amazonaws.com", "us-east-1")

    async def sign() -> None:
        path = encode_path("/projects/cohort study/s1.bam")
        signer.headers(path, "", _CREDENTIALS, _NOW_UNIX_S)

    return sign


def _shuffled(file_bytes: int, read_bytes: int) -> list[int]:
    offsets = list(range(0, file_bytes, read_bytes))
    random.Random(1).shuffle(offsets)
    return offsets


async def _read_step(vfs: Vfs, size_bytes: int) -> Step:
    node, _ = await vfs.lookup(ROOT_INODE, b"big", _CALLER)
    assert node is not None
    handle = await vfs.open(node.inode, os.O_RDONLY, _CALLER)
    # In random order: what a stream has passed by is the first to be forgotten.
    for offset in _shuffled(_FILE_BYTES, 64 * KIB):
        await vfs.read(handle, offset, 64 * KIB)
    offsets = itertools.cycle(_shuffled(_FILE_BYTES, size_bytes))

    async def read() -> None:
        assert len(await vfs.read(handle, next(offsets), size_bytes)) == size_bytes

    return read


def _lookup_step(vfs: Vfs, pattern: str) -> Step:
    names = [(pattern % number).encode() for number in range(_NAMES)]
    turn = 0

    async def look_up() -> None:
        nonlocal turn
        turn = (turn + 1) % _NAMES
        node, _ = await vfs.lookup(ROOT_INODE, names[turn], _CALLER)
        if node is not None:
            vfs.forget(node.inode, 1)

    return look_up


async def _repeats_us(step: Step, repeat_s: float) -> list[float]:
    """Microseconds per step, one value per repeat, the fastest first."""
    loops = 1
    while True:
        begun_s = time.perf_counter()
        for _ in range(loops):
            await step()
        elapsed_s = time.perf_counter() - begun_s
        if elapsed_s >= repeat_s / 4:
            break
        loops *= 2
    loops = max(1, round(loops * repeat_s / elapsed_s))
    repeats = []
    for _ in range(_REPEATS):
        begun_s = time.perf_counter()
        for _ in range(loops):
            await step()
        repeats.append((time.perf_counter() - begun_s) / loops * 1e6)
    return sorted(repeats)


async def measure_all(repeat_s: float) -> dict[str, list[float]]:
    """Microseconds of each step, by title; see `_repeats_us`."""
    store = MemoryStore()
    store.put("base/big", os.urandom(_FILE_BYTES))
    for number in range(_NAMES - 1):
        store.put(f"base/sample-{number:04}")
    async with _serving(store) as vfs:
        steps = {
            f"LIST page of {_NAMES} keys, parsed": _parse_step(list_document(_NAMES)),
            "GET signed, with a session token": _sign_step(),
            "read of 4 KiB from the cache": await _read_step(vfs, 4 * KIB),
            "read of 128 KiB from the cache": await _read_step(vfs, 128 * KIB),
            "lookup of a listed name": _lookup_step(vfs, "sample-%04d"),
            "lookup of an absent name": _lookup_step(vfs, "absent-%04d"),
        }
        fetched_bytes = store.fetched_bytes
        measured = {title: await _repeats_us(step, repeat_s) for title, step in steps.items()}
        assert store.fetched_bytes == fetched_bytes, "a read was not from the cache"
        return measured


@click.command()
@click.option("--quick", is_flag=True, help="Does it work, not how fast.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path))
def main(quick: bool, json_path: Path | None) -> None:
    """Measure what the daemon does most often, without kernel and network."""
    measured = trio.run(measure_all, 0.01 if quick else 0.2)
    table = Table("", "fastest, µs", "median, µs")
    for title, repeats_us in measured.items():
        table.add_row(title, f"{repeats_us[0]:.1f}", f"{repeats_us[_REPEATS // 2]:.1f}")
    Console().print(table)
    if json_path is not None:
        json_path.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
