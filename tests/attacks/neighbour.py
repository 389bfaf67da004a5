"""Another user of this machine, who may do what the permissions of files let them, and a directory
that both can reach."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import pytest

from stsfs.cache.disk.directory import CHUNKS, INDEX, LOCK, CacheDirectory
from stsfs.cache.disk.disk_cache import DiskCache, Lost, Piece, Work
from stsfs.cache.disk.layout import CHUNK_BYTES, chunk_name

UID = 1000
MIB = 1 << 20
REMEDY = "Name a directory that only you can write to"
"""What is said of a directory that others can exchange."""


def neighbour(*command):
    """Run a command as the other user; it must succeed."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be several users")
    become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    done = subprocess.run(
        [*become, *map(str, command)], cwd="/", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def shared_place(mode):
    """A directory of ours that everybody can reach, with this mode."""
    with tempfile.TemporaryDirectory(prefix="stsfs-shared-") as name:
        place = Path(name)
        place.chmod(mode)
        yield place


def given_away(path):
    """Make all of it the neighbour's."""
    for each in (path, *path.rglob("*")):
        os.chown(each, UID, UID, follow_symlinks=False)


def forge(named, key):
    """Turn the bytes of all that a cache directory holds; its index says that they are right.

    key is that of whoever forges.
    """
    directory = CacheDirectory.of_user(named)
    with contextlib.closing(sqlite3.connect(directory.path / INDEX)) as index:
        rows = index.execute("SELECT version, number, held FROM chunk").fetchall()
    disk = DiskCache(directory, limit_bytes=512 * MIB, key=key)
    disk.open()
    for version, number, held in rows:
        data = (directory.path / CHUNKS / chunk_name(version, number)).read_bytes()
        turned = data.translate(bytes(range(255, -1, -1)))
        disk.work(Work(lost=[Lost(version, number, int.from_bytes(held, "little"))]))
        disk.work(Work([Piece(version, number * CHUNK_BYTES, memoryview(turned))]))
    disk.close()
    os.utime(directory.path / LOCK)  # another era: connections to the index before it are given up
    assert rows
