"""More names than `--memory` has room for: each is shown once, and the daemon stays small."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.mount, pytest.mark.long]

MIB = 1 << 20
MEMORY = ("--memory", "16M")
LIMIT_BYTES = 8 * MIB
SLACK_BYTES = 8 * MIB
"""A few pages, on their way and just read, and what the kernel has not forgotten yet."""

GROWTH_MAX_BYTES = 48 * MIB
"""Beside what a new daemon has: names, and what Python needs to read pages."""

NAMES = 20_000
DIRECTORIES, NAMES_EACH = 60, 500

WALK = """
import os, sys
found = [entry.name for entry in os.scandir(sys.argv[1]) if entry.stat().st_size == 1]
print(len(found), len(set(found)))
"""


def make_files(path, names):
    path.mkdir()
    for name in names:
        (path / name).write_bytes(b"x")


@pytest.fixture
def many(folder):
    make_files(folder.path / "kept", ["a", "b"])
    make_files(folder.path / "many", (f"object-{number:06}" for number in range(NAMES)))
    return NAMES


@pytest.fixture
def wide(folder):
    for number in range(DIRECTORIES):
        names = (f"object-{each:04}" for each in range(NAMES_EACH))
        make_files(folder.path / f"d{number:03}", names)


@pytest.fixture
def live(host, folder):
    """A mount straight on the file server: the gate would be the bottleneck."""
    made = host.mount(folder.uri, *MEMORY, "--endpoint-url", folder.stage.server.url)
    yield made
    assert made.audit() == []


def peak_bytes(live):
    """The most memory that the daemon has ever had."""
    lines = Path(f"/proc/{live.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def walked(path):
    """How many names a walk with stat has seen, and how many different ones."""
    done = subprocess.run(
        [sys.executable, "-c", WALK, path], capture_output=True, text=True, check=True
    )
    return tuple(map(int, done.stdout.split()))


def found(path):
    """What find(1) shows."""
    return subprocess.run(["find", path], capture_output=True, text=True, check=True).stdout.split()


def assert_small(live, before_bytes):
    names = live.status()["names"]
    assert names["limit_bytes"] == LIMIT_BYTES
    assert names["held_bytes"] <= LIMIT_BYTES + SLACK_BYTES
    assert peak_bytes(live) - before_bytes <= GROWTH_MAX_BYTES


def test_a_directory_larger_than_the_memory_is_read_whole(many, live):
    before_bytes = peak_bytes(live)
    assert walked(live / "many") == (many, many)
    names = found(live / "many")
    assert len(names) == len(set(names)) == many + 1
    assert walked(live / "many") == (many, many)
    assert_small(live, before_bytes)
    assert live.status()["inodes"] < many // 2
    assert (live / "many/object-000007").read_bytes() == b"x"
    assert not (live / "many/object-000007x").exists()


def test_more_directories_than_the_memory_has_room_for_are_walked(wide, live):
    before_bytes = peak_bytes(live)
    for _ in range(2):
        names = found(live.path)
        assert len(names) == len(set(names)) == 1 + DIRECTORIES * (NAMES_EACH + 1)
    assert_small(live, before_bytes)


def test_what_is_in_use_is_not_forgotten(many, live):
    script = """
import os, sys
os.chdir(sys.argv[1])
inode = os.stat(".").st_ino
with open("a", "rb") as file:
    print(flush=True)
    sys.stdin.readline()
    assert file.read() == b"x"
    assert os.fstat(file.fileno()).st_ino == os.stat("a").st_ino
assert os.getcwd() == sys.argv[1]
assert os.stat(".").st_ino == inode
assert sorted(os.listdir(".")) == ["a", "b"]
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, live / "kept"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as user:
        user.stdout.readline()
        assert walked(live / "many") == (many, many)
        user.communicate("\n")
    assert user.returncode == 0


def test_two_readers_and_a_seek_back(many, live):
    names = [[], []]
    with os.scandir(live / "many") as first, os.scandir(live / "many") as second:
        for _ in range(many // 3):
            names[0].append(next(first).name)
        for _ in range(many):
            names[1].append(next(second).name)
        names[0] += [entry.name for entry in first]
        assert next(second, None) is None
    assert sorted(names[0]) == sorted(names[1]) == sorted(set(names[0]))
    assert len(names[0]) == many
