"""A user moves the ground away under root's mount, between the check and the mount itself."""

# ruff: noqa: F811 - fixtures are imported, and then arguments

import contextlib
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stsfs.daemon import mountinfo
from stsfs.demo.gate.faults import Hold, Rule
from tests.mount.conftest import folder, host, servers, stage, view  # noqa: F401
from tests.mount.stage import PATIENCE_S
from tests.mount.users import users_of

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts below other users' directories"),
]
USER = 64_001
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")


def as_user(script, *arguments):
    """Run a shell script as the attacker."""
    command = [*AS_USER, "sh", "-euc", script, "sh", *map(str, arguments)]
    subprocess.run(command, check=True, cwd="/")


@pytest.fixture
def home():
    """A directory of the attacker that everybody may enter, and one of root beside it."""
    with tempfile.TemporaryDirectory(prefix="stsfs-attack-") as name:
        base = Path(name)
        base.chmod(0o755)
        (base / "user").mkdir()
        os.chown(base / "user", USER, USER)
        (base / "root" / "m").mkdir(parents=True)
        yield base / "user"
        for entry in reversed(mountinfo.mounts()):
            if entry.path.is_relative_to(base):
                subprocess.run(["umount", "--lazy", entry.path], check=True)


@contextlib.contextmanager
def mounting(host, folder, path):
    """A mount that waits for S3; its end is the caller's to look at."""
    hold = Hold("request")
    host.stage.gate.faults.add(Rule(hold, kinds=frozenset({"LIST"})))
    command = [sys.executable, "-m", "stsfs", "mount", folder.uri, path]
    command = [*map(str, command), "--endpoint-url", host.stage.gate.url]
    with subprocess.Popen(
        command, env=host.environment, cwd="/", stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            hold.wait_reached(PATIENCE_S)
            yield started, hold
        finally:
            hold.let_go()
            started.communicate(timeout=PATIENCE_S)


def ours_below(base):
    return [e.path for e in mountinfo.mounts() if e.is_stsfs and e.path.is_relative_to(base)]


SWAPS = {
    "a parent becomes a link": 'mv "$1/d" "$1/e"; ln -s ../root "$1/d"',
    "the directory becomes a link": 'rmdir "$1/d/m"; ln -s ../../root/m "$1/d/m"',
    "another directory takes its place": 'mv "$1/d" "$1/e"; mkdir -p "$1/d/m"',
    "it is removed": 'rmdir "$1/d/m"',
}


@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
def test_root_mounts_nowhere_else_when_the_directory_is_swapped_meanwhile(host, folder, home, swap):
    as_user('mkdir -p "$1/d/m"', home)
    with mounting(host, folder, home / "d/m") as (started, hold):
        as_user(swap, home)
        hold.let_go()
        said = started.communicate(timeout=PATIENCE_S)[1]
    assert ours_below(home.parent) == []
    assert started.returncode == 3
    assert "is no longer the directory that was checked" in said
    assert "Traceback" not in said
    assert host.records() == []


def test_root_mounts_below_a_users_directory_that_stays_as_it_is(host, folder, home):
    folder.write("x", b"contents")
    as_user('mkdir -p "$1/d/m"', home)
    done = host.try_mount(folder.uri, home / "d/m")
    assert done.returncode == 0, done.stderr
    assert ours_below(home.parent) == [home / "d/m"]
    assert (home / "d/m/x").read_bytes() == b"contents"
    assert host.stsfs("unmount", home / "d/m").returncode == 0


@pytest.mark.parametrize(("mode", "code"), [(0o777, 3), (0o1777, 0)])
def test_root_mounts_below_what_everybody_may_change_only_if_it_is_sticky(
    host, folder, home, mode, code
):
    (home / "d/m").mkdir(parents=True)
    (home / "d").chmod(mode)
    done = host.try_mount(folder.uri, home / "d/m")
    assert done.returncode == code
    if code:
        assert f"everybody may write to {home / 'd'}" in done.stderr
        assert ours_below(home.parent) == []
    else:
        assert host.stsfs("unmount", home / "d/m").returncode == 0


DETACH = """
import sys
from pathlib import Path
from stsfs.daemon.unmount import detach
detach(Path(sys.argv[1]), lazy=True)
"""
"""What `stsfs unmount` and `stsfs mount` (over a dead mount) do once they know the path."""


@pytest.mark.parametrize(
    ("swap", "words"),
    [
        ('mv "$1/d" "$1/e"; ln -s ../root "$1/d"', "leads elsewhere"),
        ('mv "$1/d" "$1/e"; mkdir -p "$1/d/m"', "something else is mounted"),
    ],
)
def test_root_unmounts_nothing_else_when_a_parent_is_swapped_meanwhile(
    host, folder, home, swap, words
):
    as_user('mkdir -p "$1/d/m"', home)
    victim = home.parent / "root/m"
    subprocess.run(["mount", "-t", "tmpfs", "none", victim], check=True)
    assert host.try_mount(folder.uri, home / "d/m").returncode == 0
    as_user(swap, home)
    done = subprocess.run(
        [sys.executable, "-c", DETACH, home / "d/m"],
        env=host.environment, cwd=Path(__file__).parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert words in done.stderr
    assert os.path.ismount(victim)
    assert ours_below(home.parent) == [home / "e/m"]
    assert host.stsfs("unmount", home / "e/m").returncode == 0


def test_a_user_mounts_nowhere_else_when_another_one_swaps_the_directory(stage, folder):
    """By fusermount3, in a directory that everybody may write to."""
    with users_of(stage) as users, ThreadPoolExecutor(1) as threads:
        ada, bob = users.people
        bob.place.chmod(0o777)
        ada.run("mkdir", bob.place / "m", ada.home / "m")
        ada.place = bob.place / "m"
        hold = Hold("request")
        stage.gate.faults.add(Rule(hold, kinds=frozenset({"LIST"})))
        mounting = threads.submit(ada.mount, folder.uri)
        try:
            hold.wait_reached(PATIENCE_S)
            swap = 'mv "$1/m" "$1/e"; ln -s "$2" "$1/m"'
            assert bob.run("sh", "-euc", swap, "sh", bob.place, ada.home / "m").returncode == 0
        finally:
            hold.let_go()
        done = mounting.result()
        assert (done.returncode, "is no longer the directory" in done.stderr) == (3, True)
        assert "fuse.stsfs" not in ada.run("cat", "/proc/self/mounts").stdout
        assert ada.records() == []
