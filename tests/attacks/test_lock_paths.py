"""A lock file from somebody else takes no more memory than its size explains.

Each runs in a process of its own, whose peak of memory the kernel counts.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stsfs.entities.lock_file import (
    COLUMNS,
    DEPTH_MAX,
    PATH_BYTES_MAX,
    parse,
)
from stsfs.errors import BadArgument

ROOT = Path(__file__).parents[2]
HEAD = (
    "stsfs-lock 1\nlocation\tsyn1\nbucket\tb\nbase_key\tc\nview\tentities\n"
    "pinned_on\t2026-11-24T10:46:15.000Z\n" + "\t".join(COLUMNS) + "\n"
)
GROWTH_MAX = 80
"""Bytes of memory per byte of the lock, and some for nothing."""

MIB = 1 << 20

SHOW = """
import json, resource, sys
from pathlib import Path
from stsfs.entities.lock_file import load
from stsfs.entities.lock_view import LockSource, LockView
from stsfs.errors import BadArgument

def peak_bytes():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10

resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
before_bytes, said = peak_bytes(), ""
try:
    LockView(LockSource(load(Path(sys.argv[1])), 1, None))
except BadArgument as exc:
    said = str(exc)
print(json.dumps([peak_bytes() - before_bytes, said]))
"""


def row(path, etag="-", key="-"):
    return f"{path}\tsyn2\t1\t1\t-\t{etag}\t{key}\t2026-11-24T10:46:15.000Z\n"


def lock_of(*rows):
    return f"{HEAD}{''.join(rows)}end\t{len(rows)}\n"


def shown(tmp_path, text):
    """How much memory it takes to show a lock, and what is said of it."""
    path = tmp_path / "x.lock"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", SHOW, path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    return json.loads(done.stdout)


def paths(count, depth):
    return (f"{number:x}/{'a/' * (depth - 2)}f" for number in range(count))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (map(row, paths(500, 2048)), "has more than 512 names"),
        (map(row, paths(2000, DEPTH_MAX)), "lie in more than"),
        (map(row, paths(20_000, 60)), "lie in more than"),
        (map(row, (f"{n:04}{'n/' * 2044}f" for n in range(400))), "has more than 512 names"),
        (map(row, ("/".join(["n" * 250] * 60) for _ in range(10))), "or 4096 bytes"),
        ((row("f", key=f"c/{'k' * 2000}", etag="e"),), "1024 bytes"),
        ((row("f", key="c/k", etag="e" * 2000),), "is not an ETag"),
        (("x" * 50 * MIB,), "columns"),
        (("\t" * 20 * MIB,), "a column is empty"),
        (("\\x" * 10 * MIB,), "escaped"),
    ],
)
def test_what_would_take_much_memory_is_refused_in_one_short_line(tmp_path, rows, words):
    text = lock_of(*rows)
    grown_bytes, said = shown(tmp_path, text)
    assert words in said
    assert len(said) < 2000
    assert said.isprintable()
    assert grown_bytes < 32 * MIB + 2 * len(text)


@pytest.mark.parametrize(
    "rows",
    [
        [row(f"{number}") for number in range(40_000)],
        [row(f"{number}/f") for number in range(40_000)],
        [row(path) for path in paths(8000, 4)],
        [row(f"{number:05}{'n' * 245}/f") for number in range(10_000)],
    ],
)
def test_what_is_accepted_takes_memory_by_its_size(tmp_path, rows):
    text = lock_of(*rows)
    grown_bytes, said = shown(tmp_path, text)
    assert said == ""
    assert grown_bytes < 8 * MIB + GROWTH_MAX * len(text)


def test_the_deepest_and_the_longest_path_are_as_the_system_and_the_keys_have_them():
    deep = "/".join("d" * DEPTH_MAX)
    long = "/".join(["n" * 255] * 16)
    assert len(long) == PATH_BYTES_MAX - 1
    assert [each.path for each in parse(lock_of(row(deep), row(long)), "x").files] == [deep, long]
    for path in (f"d/{deep}", f"{long}nn"):
        with pytest.raises(BadArgument):
            parse(lock_of(row(path)), "x")


def test_a_pipe_in_place_of_a_lock_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "x.lock")
    (tmp_path / "m").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "stsfs", "mount", tmp_path / "x.lock", tmp_path / "m"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "is not a lock file" in done.stderr
