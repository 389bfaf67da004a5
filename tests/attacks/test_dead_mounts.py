"""A mount whose daemon ended unexpectedly is shown as dead, until somebody clears it away."""

# ruff: noqa: F811 - fixtures are imported, and then arguments

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stsfs.daemon import mountinfo
from tests.mount.conftest import folder, host, servers, stage, view  # noqa: F401
from tests.mount.stage import PATIENCE_S

pytestmark = pytest.mark.mount

CONNECTIONS = Path("/sys/fs/fuse/connections")

BREAKING = """
import signal, sys
import trio
from stsfs.cli.main import main
from stsfs.fuse.session import Session

async def serve(self):
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            raise OSError(5, "the connection is broken")

Session.serve = serve
main(prog_name="stsfs")
"""
"""The command, with a connection to the kernel that breaks on a signal."""


@pytest.fixture
def path(host):
    made = host.mount_point()
    yield made
    while mountinfo.mount_at(made) is not None:
        subprocess.run(["fusermount3", "-uz", "--", made], check=True)


@pytest.fixture
def break_by(host, folder, path):
    """Mount, and end the daemon in one of several ways; returns once it has ended."""
    folder.write("x", b"contents")

    def end(how):
        command = [
            sys.executable,
            *(["-c", BREAKING] if how == "an exception" else ["-m", "stsfs"]),
        ]
        arguments = ["mount", folder.uri, str(path), "--read-ahead-kib", "0"]
        arguments += ["--endpoint-url", host.stage.gate.url]
        subprocess.run([*command, *arguments], env=host.environment, cwd="/", check=True)
        (record,) = host.records()
        process = os.pidfd_open(record["pid"])
        try:
            if how == "an abort of the connection":
                device = mountinfo.mount_at(path).device.partition(":")[2]
                (CONNECTIONS / device / "abort").write_text("1")
            else:
                number = signal.SIGUSR1 if how == "an exception" else signal.SIGKILL
                signal.pidfd_send_signal(process, number)
            assert select.select([process], [], [], PATIENCE_S)[0]
        finally:
            os.close(process)

    return end


def states(host):
    return [each["state"] for each in json.loads(host.stsfs("list", "--json").stdout)]


ENDS = ["an exception", "SIGKILL", "an abort of the connection"]


@pytest.fixture
def fuse_connections():
    """The kernel's list of them, mounted for the test where it is not."""
    if os.geteuid() != 0:
        pytest.skip("only root aborts connections")
    is_there = os.path.ismount(CONNECTIONS)
    if not is_there:
        done = subprocess.run(["mount", "-t", "fusectl", "none", CONNECTIONS], check=False)
        if done.returncode:
            pytest.skip("no fusectl here")
    yield
    if not is_there:
        subprocess.run(["umount", "--lazy", CONNECTIONS], check=True)


@pytest.mark.usefixtures("fuse_connections")
@pytest.mark.parametrize("how", ENDS)
def test_a_mount_that_ended_is_listed_as_dead_until_it_is_unmounted(host, path, break_by, how):
    break_by(how)
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(path)
    assert states(host) == ["dead"]
    assert states(host) == ["dead"], "told again, because nobody has cleared it away"
    told = " ".join(host.stsfs("list").stdout.split())  # a long path is on a line of its own
    assert f"stsfs unmount {path}" in told
    assert host.stsfs("unmount", path).returncode == 0
    assert states(host) == []
    assert host.records() == []


@pytest.mark.parametrize("how", ["an exception", "SIGKILL"])
def test_the_next_mount_takes_the_place_of_a_dead_one(host, folder, path, break_by, how):
    break_by(how)
    done = host.try_mount(folder.uri, path)
    assert (done.returncode, "cleared a dead mount away" in done.stderr) == (0, True)
    assert states(host) == ["serving"]
    assert (path / "x").read_bytes() == b"contents"
    assert host.stsfs("unmount", path).returncode == 0
    assert host.records() == []


def test_a_mount_that_is_ended_leaves_no_record(host, folder, path):
    for end in ("unmount", "SIGTERM", "umount"):
        assert host.try_mount(folder.uri, path).returncode == 0
        (record,) = host.records()
        process = os.pidfd_open(record["pid"])
        try:
            if end == "unmount":
                assert host.stsfs("unmount", path).returncode == 0
            elif end == "SIGTERM":
                signal.pidfd_send_signal(process, signal.SIGTERM)
            else:
                subprocess.run(["fusermount3", "-u", "--", path], check=True)
            assert select.select([process], [], [], PATIENCE_S)[0]
        finally:
            os.close(process)
        assert host.records() == []
