"""Readers that open, read and close one file while its object is replaced again and again.

As a program (`storm.py PATH HOW`) it is the readers: threads that record one JSON line per
attempt, told when stdin ends. As a module it is the test's end: replaces, collects, judges.
"""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mount.versions import versions_in

READERS = 4


@dataclass
class Seen:
    """What the readers of a storm saw."""

    whole: int
    """Reads of a whole file."""

    stale: int
    wrong: list
    """Reads that the contract does not allow, with the replacements around them."""


def storm(path, how, replace, count):
    """Replace version 1 by count newer ones, as `replace(version)`, while readers run; judge them.

    A read must show one version, not older than the last that was complete when it began, nor
    newer than the last begun. ESTALE is right only where the object was replaced meanwhile.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "tests.mount.storm", str(path), how],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as readers:
        assert readers.stdout.readline() == b"ready\n"
        replaced = [(float("-inf"), float("-inf"))]
        for version in range(2, count + 2):
            begun_s = time.monotonic()
            replace(version)
            replaced.append((begun_s, time.monotonic()))
        readers.stdin.close()
        attempts = [json.loads(line) for line in readers.stdout]
    assert readers.returncode == 0
    seen = Seen(0, 0, [])
    for attempt in attempts:
        _judge(attempt, replaced, seen)
    return seen


def _judge(attempt, replaced, seen):
    begin_s, end_s = attempt["begin_s"], attempt["end_s"]
    oldest = max(v for v, (_, done_s) in enumerate(replaced, start=1) if done_s <= begin_s)
    newest = max(v for v, (begun_s, _) in enumerate(replaced, start=1) if begun_s <= end_s)
    if attempt["versions"] is not None:
        seen.whole += 1
        good = len(attempt["versions"]) == 1 and oldest <= attempt["versions"][0] <= newest
    else:
        seen.stale += 1
        good = attempt["errno"] == "ESTALE" and newest > oldest
    if not good:
        seen.wrong.append({**attempt, "oldest": oldest, "newest": newest})


def _read(path, how, size_bytes, stopping):
    flags = os.O_RDONLY | (os.O_DIRECT if how == "direct" else 0)
    while not stopping.is_set():
        attempt = {"begin_s": time.monotonic(), "versions": None}
        try:
            descriptor = os.open(path, flags)
            try:
                data = b""
                while len(data) < size_bytes:
                    piece = os.read(descriptor, size_bytes)
                    assert piece, "a file of another size"
                    data += piece
            finally:
                os.close(descriptor)
        except OSError as exc:
            attempt["errno"] = errno.errorcode[exc.errno]
            attempt["end_s"] = time.monotonic()
        else:
            attempt["end_s"] = time.monotonic()
            attempt["versions"] = sorted(versions_in(data))
        yield attempt


def _main(path, how):
    size_bytes, stopping = os.stat(path).st_size, threading.Event()
    ready = threading.Barrier(READERS, action=lambda: print("ready", flush=True))
    attempts = []

    def run():
        attempts_of_one = _read(path, how, size_bytes, stopping)
        attempts.append(next(attempts_of_one))
        ready.wait()
        attempts.extend(attempts_of_one)

    threads = [threading.Thread(target=run) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stopping.set()
    for thread in threads:
        thread.join()
    for attempt in attempts:
        print(json.dumps(attempt))


if __name__ == "__main__":
    _main(*sys.argv[1:])
