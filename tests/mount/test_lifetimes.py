"""Beginnings and ends that nobody planned: dead mounts, races, pauses, wrong clocks, restarts."""

import array
import contextlib
import errno
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stsfs.daemon import mountinfo
from stsfs.demo.fake_synapse.guard import Fault
from tests.mount.stage import PATIENCE_S

pytestmark = [pytest.mark.mount, pytest.mark.long]

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.fixture
def live(folder, mount):
    folder.write("x", b"contents")
    return mount(folder.syn_id)


@pytest.fixture
def path(host):
    """A place to mount on; nothing stays mounted there."""
    made = host.mount_point()
    yield made
    while mountinfo.mount_at(made) is not None:
        subprocess.run(["fusermount3", "-uz", "--", made], check=True)


def mounts_at(path):
    return [entry for entry in mountinfo.mounts() if entry.path == path]


def kill(live):
    live.signal(signal.SIGKILL)
    live.wait_for_end()


@contextlib.contextmanager
def foreground(host, location, path, **env):
    """`stsfs mount --foreground` as a service manager starts it."""
    stage = host.stage
    command = [sys.executable, "-m", "stsfs", "mount", "--foreground", location, str(path)]
    places = ["--endpoint-url", stage.gate.url, "--synapse-endpoint", stage.synapse.url]
    with subprocess.Popen(
        [*command, *places], env=host.environment | env, cwd="/", stderr=subprocess.PIPE, text=True
    ) as daemon:
        try:
            yield daemon
        finally:
            daemon.kill()


@contextlib.contextmanager
def manager_of(host):
    """The socket of a service manager, and its address."""
    address = host.runtime.parent / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(PATIENCE_S)
        yield manager, str(address)


def heard(manager, word):
    """What the manager is told, up to this word."""
    return [*iter(lambda: manager.recv(1000).decode(), word), word]


# Dead mounts.


def test_a_mount_over_a_dead_mount_clears_it_away_and_says_so(host, folder, live):
    kill(live)
    done = host.try_mount(folder.syn_id, live.path)
    assert (done.returncode, done.stderr) == (
        0,
        f"stsfs: cleared a dead mount away from {live.path}\n",
    )
    assert (live / "x").read_bytes() == b"contents"
    assert len(mounts_at(live.path)) == 1
    assert host.stsfs("unmount", live.path).returncode == 0


def test_a_dead_mount_is_cleared_away_although_its_files_are_open(host, folder, live):
    file = os.open(live / "x", os.O_RDONLY)
    kill(live)
    assert host.try_mount(folder.syn_id, live.path).returncode == 0
    assert (live / "x").read_bytes() == b"contents"
    with pytest.raises(OSError, match="not connected"):
        os.close(file)
    assert host.stsfs("unmount", live.path).returncode == 0


def test_a_dead_mount_of_another_program_is_not_touched(host, folder, path):
    """Made and abandoned as any FUSE program does it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(
            ["fusermount3", "-o", "subtype=other", "--", path],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            check=True,
        )
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
        os.close(array.array("i", ancillary[0][2])[0])
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the number is the answer
        os.listdir(path)
    assert raised.value.errno == errno.ENOTCONN
    done = host.try_mount(folder.syn_id, path)
    assert (done.returncode, "already a mount (fuse.other)" in done.stderr) == (3, True)
    assert len(mounts_at(path)) == 1


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_mount_that_hangs_is_not_touched(host, folder, live, tmp_path, forgotten):
    """Also if its record is lost, so that only the mount itself can be asked."""
    live.signal(signal.SIGSTOP)
    kept = [*host.runtime.glob("*.json"), *host.runtime.glob("*.sock")] if forgotten else []
    for file in kept:
        file.rename(tmp_path / file.name)
    try:
        done = host.try_mount(folder.syn_id, live.path)
    finally:
        for file in kept:
            (tmp_path / file.name).rename(file)
        live.signal(signal.SIGCONT)
    assert (done.returncode, "already a mount of stsfs" in done.stderr) == (3, True)
    assert (live / "x").read_bytes() == b"contents"


# Races.


def test_while_one_command_mounts_another_is_refused(stage, host, folder, path):
    folder.write("x", b"contents")
    with ThreadPoolExecutor(1) as pool:
        with stage.s3_holding():
            first = pool.submit(host.try_mount, folder.syn_id, path)
            stage.server.requests.wait_for(1, "LIST")
            second = host.try_mount(folder.syn_id, path)
        assert first.result().returncode == 0, first.result().stderr
    assert second.returncode == 3
    assert second.stderr.startswith(f"stsfs: Another stsfs is just mounting on {path}.")
    assert (path / "x").read_bytes() == b"contents"
    assert host.stsfs("unmount", path).returncode == 0
    assert list(host.runtime.glob(".*.claim")) == []


def test_of_many_commands_at_once_one_mounts_and_the_dead_mount_is_cleared_once(host, folder, live):
    kill(live)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: host.try_mount(folder.syn_id, live.path), range(4)))
    assert sorted(each.returncode for each in done) == [0, 3, 3, 3]
    assert len(mounts_at(live.path)) == 1
    assert (live / "x").read_bytes() == b"contents"
    assert host.stsfs("unmount", live.path).returncode == 0


def test_sigterm_right_after_the_mount_appears_leaves_nothing(host, folder, path):
    """The kernel tells of a new mount before the daemon has done anything with it."""
    with open("/proc/self/mountinfo") as table:
        changes = select.poll()
        changes.register(table, select.POLLPRI)
        with foreground(host, folder.syn_id, path) as daemon:
            while not mounts_at(path):
                assert changes.poll(PATIENCE_S * 1000)
            daemon.send_signal(signal.SIGTERM)
            said = daemon.communicate(timeout=PATIENCE_S)[1]
    assert (daemon.returncode, mounts_at(path)) == (0, []), said
    assert host.records() == []


# Unmounting.


def test_unmount_waits_for_open_files_and_names_who_holds_them(host, live):
    with open(live / "x", "rb") as file:
        command = [sys.executable, "-m", "stsfs", "unmount", "--wait", str(PATIENCE_S)]
        with subprocess.Popen(
            [*command, live.path], env=host.environment, cwd="/", stderr=subprocess.PIPE, text=True
        ) as unmounting:
            said = unmounting.stderr.readline()
            assert f"({os.getpid()}, open file {file.name})" in said
            assert "Waiting" in said
            assert file.read() == b"contents"
            file.close()
            assert unmounting.wait(PATIENCE_S) == 0
    live.wait_for_end()


# The service manager.


def test_the_manager_hears_of_readiness_trouble_and_life(stage, host, folder, path):
    with manager_of(host) as (manager, address):
        variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}
        variables["STSFS_MOUNT_METADATA_TTL"] = "0"
        with foreground(host, folder.syn_id, path, **variables) as daemon:
            told = heard(manager, "READY=1") + heard(manager, "WATCHDOG=1")
            assert any(re.match(rf"STATUS={folder.syn_id}; .*; 0 open files", t) for t in told)
            stage.denials_expected = True
            stage.synapse.faults.add(Fault("token_revoked"))
            stage.vendor.revoke_all()
            with pytest.raises(OSError, match="rejected"):
                os.listdir(path / "nowhere")
            while not any("renewal fails: Synapse rejects the token" in line for line in told):
                told += heard(manager, "WATCHDOG=1")
            daemon.send_signal(signal.SIGTERM)
            heard(manager, "STOPPING=1")
            daemon.communicate(timeout=PATIENCE_S)
    assert daemon.returncode == 0


def test_a_watchdog_that_aborts_the_daemon_learns_where_it_was(host, folder, path):
    """SIGABRT, as a service manager sends it, shows the stack; the next mount clears the way."""
    with manager_of(host) as (manager, address):
        variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}
        with foreground(host, folder.syn_id, path, **variables) as daemon:
            heard(manager, "WATCHDOG=1")
            daemon.send_signal(signal.SIGABRT)
            said = daemon.communicate(timeout=PATIENCE_S)[1]
    assert daemon.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in said
    assert len(mounts_at(path)) == 1  # dead, not empty
    assert host.try_mount(folder.syn_id, path).returncode == 0
    assert host.stsfs("unmount", path).returncode == 0


# What a core file would hold.


def test_the_memory_of_a_daemon_is_kept_out_of_core_files(folder, live, mount):
    def facts(pid):
        limits = Path(f"/proc/{pid}/limits").read_text()
        size = re.search(r"Max core file size +(\S+) +(\S+)", limits).groups()
        return size, int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16)

    assert facts(live.pid) == (("0", "0"), 0)
    assert facts(mount(folder.syn_id, "--debug").pid)[1] != 0


# Time.


def test_a_daemon_that_was_paused_beyond_its_credentials_goes_on(stage, folder, mount):
    """As after suspending a machine: no timer ran, and the session is over."""
    folder.write("x", b"contents")
    stage.vendor.lifetime_s = 3.0
    live = mount(folder.syn_id)
    live.signal(signal.SIGSTOP)
    *_, newest = stage.vendor.sessions.values()
    while (left_s := newest.expires_at_unix_s - time.time()) >= 0:
        select.select([], [], [], left_s)
    live.signal(signal.SIGCONT)
    assert (live / "x").read_bytes() == b"contents"
    assert live.status()["credentials"]["in_force"]


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime")
@pytest.mark.parametrize("jump", ["+2d", "-2d"])
def test_a_clock_that_jumps_is_survived(stage, folder, mount, tmp_path, jump):
    """By days, in both directions, and back: no wrong byte, no error, no remount."""
    stage.denials_expected = True  # a request with the wrong time tells what the right one is
    clock = tmp_path / "clock"
    clock.write_text("+0")
    live = mount(
        folder.syn_id,
        "--metadata-ttl=0",
        env={
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
    )
    for number, offset in enumerate((jump, "+0")):
        clock.write_text(offset)
        folder.put(f"new{number}", b"new")
        assert (live / f"new{number}").read_bytes() == b"new"
        assert live.status()["credentials"]["in_force"]


# After a reboot.


def test_what_an_earlier_boot_left_is_no_hindrance(host, folder, live):
    """The mount is gone, record and socket are still there, and the pid belongs to another."""
    kill(live)
    (record,) = host.runtime.glob("*.json")
    values = json.loads(record.read_text())
    record.write_text(json.dumps(values | {"pid": os.getpid()}))
    subprocess.run(["fusermount3", "-uz", "--", live.path], check=True)
    assert Path(values["control_socket"]).exists()
    assert host.try_mount(folder.syn_id, live.path).returncode == 0
    assert (live / "x").read_bytes() == b"contents"
    (listed,) = json.loads(host.stsfs("list", "--json").stdout)
    assert listed["pid"] not in (os.getpid(), live.pid)
    assert host.stsfs("unmount", live.path).returncode == 0


def test_a_dead_mount_whose_pid_was_given_to_another_is_unmounted_without_waiting(host, live):
    kill(live)
    (record,) = host.runtime.glob("*.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"pid": os.getpid()}))
    assert live.unmount().returncode == 0
    assert not live.is_mounted()


def test_a_runtime_directory_that_vanished_does_not_hide_a_dead_mount(host, folder, live):
    kill(live)
    shutil.rmtree(host.runtime)
    assert host.try_mount(folder.syn_id, live.path).returncode == 0
    assert (live / "x").read_bytes() == b"contents"
    assert live.log_file.exists()
    assert host.stsfs("unmount", live.path).returncode == 0


# mount(8).


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")
@pytest.mark.parametrize("kind", ["stsfs", "fuse.stsfs"])
def test_mount_finds_the_helper_for_a_line_of_fstab(stage, host, folder, path, tmp_path, kind):
    """`mount -t stsfs`, in a mount namespace where /usr/sbin has the helper."""
    folder.write("x", b"contents")
    helper = tmp_path / "sbin" / f"mount.{kind}"
    helper.parent.mkdir()
    program = "from stsfs.cli.mount_helper import main; main()"
    root = Path(__file__).parents[2]
    helper.write_text(f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -c "{program}" "$@"\n')
    helper.chmod(0o755)
    sbin = Path("/sbin").resolve()
    where = f"_netdev,endpoint_url={stage.gate.url},synapse_endpoint={stage.synapse.url}"
    script = f"""
        mount -t overlay overlay -o lowerdir={helper.parent}:{sbin} {sbin}
        for options in ro,write defaults rw rw,write; do
            mount -t {kind} -o {where},$options {folder.syn_id} {path} >&2
            findmnt --noheadings --output OPTIONS {path} | cut -d , -f 1
            umount {path}
        done
        mount -t {kind} -o ro,{where} {folder.syn_id} {path}
        cat {path}/x
        findmnt --noheadings --output SOURCE,FSTYPE {path}
        umount {path}
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script],
        env=host.environment,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    if "overlay" in done.stderr:
        pytest.skip("needs overlayfs")
    assert done.returncode == 0, done.stderr
    *options, _, line = done.stdout.splitlines()
    assert options == ["ro", "ro", "ro", "rw"]  # mount(8) says `rw` where nobody has said `ro`
    assert line == f"contents{folder.syn_id} fuse.stsfs"
    assert not path.is_mount()
