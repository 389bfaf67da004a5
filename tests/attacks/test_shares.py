"""One user of a mount asks for hundreds of slow objects; another one is answered meanwhile."""

# ruff: noqa: F811 - fixtures are imported, and then arguments

import contextlib
import fcntl
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from stsfs.demo.gate.faults import Hold, Rule
from tests.mount.conftest import folder, mount, servers, stage, view  # noqa: F401
from tests.mount.live_mount import Host
from tests.mount.stage import PATIENCE_S

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
]
MANY = 400
CONNECTIONS = 64
ATTACKER, OTHER = 64_001, 64_002
POLL_S = 0.05

READ_ALL = """
for n in $(seq "$2"); do
    (
        exec 3< "$1/$n"
        head -c 1 <&3
        flock --shared "$3" true
        exec dd iflag=skip_bytes skip=1572864 bs=4096 count=1 status=none <&3
    ) > /dev/null &
done
wait
"""
"""All files are open before the first is read."""

OPEN_ALL = 'for n in $(seq "$2"); do cat "$1/$n" > /dev/null & done; wait'


def as_user(uid, *command):
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *map(str, command)]


def shell(uid, script, *arguments):
    return as_user(uid, "sh", "-c", script, "sh", *arguments)


def said(uid, *command):
    """What a command of a user says; it has to end, and to succeed."""
    done = subprocess.run(
        as_user(uid, *command), capture_output=True, text=True, timeout=PATIENCE_S / 2
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def host(stage):
    """An account whose mount points everybody can reach."""
    with (
        tempfile.TemporaryDirectory(prefix="stsfs-home-") as home,
        tempfile.TemporaryDirectory(prefix="stsfs-run-") as runtime,
    ):
        Path(home).chmod(0o755)
        yield Host(Path(home), Path(runtime), stage)


@pytest.fixture
def shared(folder, host, mount):
    """A mount for all users: slow objects of one, and what the other one asks for."""
    for number in range(1, MANY + 1):
        folder.write(f"slow/{number}", b"x")
    for name in ("seen/a", "seen/b", "fresh/a", "fresh/b"):
        folder.write(name, name.encode())
    live = mount(folder.uri, "--allow-other", "--deadline", "120")
    said(ATTACKER, "ls", live / "slow")
    said(OTHER, "ls", "-l", live / "seen")
    return live


def waiting_below(pid):
    """How many children of a process wait for a file system."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    waits = 0
    for each in children:
        with contextlib.suppress(OSError):  # it has just ended
            wchan = Path(f"/proc/{each}/wchan").read_text()
            waits += "folio" in wchan or "request" in wchan or "fuse" in wchan
    return waits


@contextlib.contextmanager
def attack(stage, folder, live):
    """Hundreds of opens that S3 does not answer, on all connections that one user can have."""
    with (
        held(stage, folder, "GET", "HEAD") as rule,
        subprocess.Popen(shell(ATTACKER, OPEN_ALL, live / "slow", MANY)) as opening,
    ):
        try:
            until(lambda: rule.matched >= CONNECTIONS and waiting_below(opening.pid) >= MANY)
            yield
            assert opening.poll() is None, "the attack was over"
        finally:
            rule.effect.let_go()
            opening.wait(PATIENCE_S)


@contextlib.contextmanager
def held(stage, folder, *kinds):
    """S3 does not answer requests of these kinds for slow objects."""
    hold = Hold("request")
    rule = Rule(hold, kinds=frozenset(kinds), key_prefix=folder.key_of("slow"))
    stage.gate.faults.add(rule)
    try:
        yield rule
    finally:
        hold.let_go()


def until(fact):
    """Wait for what nobody announces."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < deadline_s
        select.select([], [], [], POLL_S)


def test_names_of_a_directory_that_is_known_wait_for_nobody(stage, folder, shared):
    with attack(stage, folder, shared):
        assert said(OTHER, "stat", "-c", "%s", shared / "seen/a") == "6\n"
        assert "b" in said(OTHER, "ls", "-l", shared / "seen")
        said(OTHER, "stat", "-f", shared.path)


def test_a_directory_that_is_not_known_is_listed_meanwhile(stage, folder, shared):
    with attack(stage, folder, shared):
        assert said(OTHER, "ls", shared / "fresh") == "a\nb\n"


def test_a_file_of_the_other_user_is_read_meanwhile(stage, folder, shared):
    with attack(stage, folder, shared):
        assert said(OTHER, "cat", shared / "seen/a", shared / "fresh/b") == "seen/afresh/b"


def test_pages_that_the_kernel_waits_for_keep_no_other_pages_waiting(
    stage, folder, shared, tmp_path
):
    """The kernel has one queue for reads ahead; where it is full, pages are asked for singly."""
    for number in range(1, MANY + 1):
        os.truncate(folder.object_path(f"slow/{number}"), 2 << 20)
    shared.host.stsfs("refresh", shared.path)
    said(OTHER, "ls", "-l", shared / "fresh")
    with open(shared.host.home / "barrier", "w") as barrier:
        fcntl.flock(barrier, fcntl.LOCK_EX)
        command = shell(ATTACKER, READ_ALL, shared / "slow", MANY, barrier.name)
        with subprocess.Popen(command) as reading:
            try:
                until(lambda: shared.status()["open_files"] >= MANY)
                with held(stage, folder, "GET"):
                    fcntl.flock(barrier, fcntl.LOCK_UN)
                    until(lambda: waiting_below(reading.pid) >= MANY)
                    assert said(OTHER, "cat", shared / "fresh/a") == "fresh/a"
                    assert reading.poll() is None, "the attack was over"
            finally:
                fcntl.flock(barrier, fcntl.LOCK_UN)
                reading.wait(PATIENCE_S)
