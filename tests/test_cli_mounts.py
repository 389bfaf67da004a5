"""The commands as real processes, around a file system that holds nothing."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.schemas import checked

STUB = Path(__file__).with_name("stub_stsfs.py")


@pytest.fixture(autouse=True)
def own_directories(tmp_path, monkeypatch):
    # pytest's own directories can be too long for the name of a socket
    with tempfile.TemporaryDirectory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        yield


@pytest.fixture
def run():
    """Run the real command with the stub file system as a process."""

    def start(*arguments, **options):
        return subprocess.run(
            [sys.executable, str(STUB), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        )

    return start


def start_stub(*arguments):
    """Begin to run it."""
    return subprocess.Popen(
        [sys.executable, str(STUB), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def mountpoint(tmp_path):
    path = tmp_path / "m"
    path.mkdir()
    yield path
    subprocess.run(["fusermount3", "-uzq", str(path)], check=False)


@pytest.fixture
def mounted(run, mountpoint):
    done = run("mount", "stub:ok", mountpoint)
    assert done.returncode == 0, done.stderr
    yield mountpoint
    run("unmount", "--lazy", mountpoint)


def daemon_of(run, path):
    mounts = json.loads(run("list", "--json").stdout)
    return next(mount["pid"] for mount in mounts if mount["mount_path"] == str(path))


def is_running(pid):
    """Whether the process has not ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid):
    """Kill a daemon, and wait until it is gone."""
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([process], [], [], 30)[0]
    os.close(process)


@pytest.mark.mount
def test_mount_status_list_unmount(run, mounted):
    listed = json.loads(run("list", "--json").stdout)
    assert [(mount["location"], mount["state"]) for mount in listed] == [("stub:ok", "serving")]
    assert str(mounted) in run("list").stdout
    for arguments in (["status"], ["status", mounted], ["status", mounted / "file"]):
        assert "stub:ok" in run(*arguments).stdout
    assert json.loads(run("status", "--json").stdout)["pid"] == listed[0]["pid"]
    assert run("unmount", mounted).returncode == 0
    assert not is_running(listed[0]["pid"])
    assert not mounted.is_mount()
    assert json.loads(run("list", "--json").stdout) == []


@pytest.mark.mount
@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("stub:ok", "(read-only)."),
        ("stub:silent", "(read-only)."),
        ("stub:entities", "(read-only, as Synapse shows it: so)."),
    ],
)
def test_a_mount_says_what_it_shows_as_far_as_the_daemon_tells(run, mountpoint, location, told):
    done = run("mount", location, mountpoint)
    assert done.stdout == f"{location} is mounted on {mountpoint} {told}\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert run("unmount", mountpoint).returncode == 0


@pytest.mark.mount
def test_a_second_mount_at_the_same_place_is_refused(run, mounted):
    done = run("mount", "stub:ok", mounted)
    assert (done.returncode, "already a mount of stsfs" in done.stderr) == (3, True)


@pytest.mark.mount
def test_a_busy_mount_stays_and_its_users_are_named(run, mounted):
    with open(mounted / "file", "rb"):
        done = run("unmount", "--wait", "0", mounted)
        assert done.returncode == 6
        assert f"({os.getpid()}, open file {mounted / 'file'})" in done.stderr
        assert mounted.is_mount()
    assert run("unmount", mounted, cwd="/").returncode == 0


@pytest.mark.mount
def test_the_command_itself_does_not_keep_the_mount_busy(run, mounted):
    assert run("unmount", ".", cwd=mounted).returncode == 0


@pytest.mark.mount
def test_a_lazy_unmount_takes_the_name_away_and_lets_readers_finish(run, mounted):
    with open(mounted / "file", "rb") as file:
        assert run("unmount", "--lazy", mounted).returncode == 0
        assert not mounted.is_mount()
        assert os.fstat(file.fileno()).st_size == 0
        assert [m["state"] for m in json.loads(run("list", "--json").stdout)] == ["ending"]
    assert run("unmount", mounted).returncode in (0, 5)


@pytest.mark.mount
def test_a_dead_mount_is_shown_and_cleared_away(run, mounted):
    kill(daemon_of(run, mounted))
    assert "dead" in run("list").stdout
    done = run("status", mounted)
    assert (done.returncode, f"stsfs unmount {mounted}" in done.stderr) == (5, True)
    done = run("mount", "stub:ok", mounted / "below")
    assert (done.returncode, f"stsfs unmount {mounted}" in done.stderr) == (3, True)
    assert run("unmount", mounted).returncode == 0
    assert list(Path(os.environ["XDG_RUNTIME_DIR"], "stsfs").glob("[!.]*")) == []
    assert run("mount", "stub:ok", mounted).returncode == 0


@pytest.mark.mount
def test_several_mounts_are_told_apart_by_the_working_directory(run, mounted, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    assert run("mount", "stub:ok", other).returncode == 0
    try:
        done = run("status", cwd="/")
        assert (done.returncode, str(other) in done.stderr) == (2, True)
        assert str(other) in run("status", cwd=other).stdout
    finally:
        assert run("unmount", other).returncode == 0


@pytest.mark.mount
@pytest.mark.parametrize("mode", [[], ["--foreground"]])
@pytest.mark.parametrize(
    ("location", "code", "words"),
    [("stub:refused", 11, "rejects the token"), ("stub:bug", 70, "KeyError: 'surprise'")],
)
def test_a_failed_start_is_told_alike_in_both_modes(run, mountpoint, mode, location, code, words):
    done = run("mount", *mode, location, mountpoint)
    assert (done.returncode, words in done.stderr) == (code, True)
    assert "Traceback (most" not in done.stderr


@pytest.mark.mount
def test_a_killed_start_is_told_with_its_last_words(run, mountpoint):
    done = run("mount", "stub:killed", mountpoint)
    assert done.returncode == 71
    assert "SIGKILL" in done.stderr
    assert "last words" in done.stderr


@pytest.mark.mount
@pytest.mark.parametrize("mode", [[], ["--foreground"]])
def test_the_service_manager_hears_of_readiness(run, mountpoint, monkeypatch, mode):
    path = Path(os.environ["XDG_RUNTIME_DIR"], "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(30)
        command = [sys.executable, str(STUB), "mount", *mode, "stub:ok", str(mountpoint)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as started:
            heard = manager.recv(1000).decode().splitlines()
            assert mountpoint.is_mount()
            pid = started.pid if mode else daemon_of(run, mountpoint)
            assert heard == (["READY=1"] if mode else ["READY=1", f"MAINPID={pid}"])
            assert run("unmount", mountpoint).returncode == 0
            assert started.wait(120) == 0


@pytest.mark.mount
def test_no_command_waits_for_a_daemon_that_was_stopped(run, mounted):
    pid = daemon_of(run, mounted)
    inside = mounted / "d" / "x"
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGSTOP)
    commands = [["status", mounted], ["status", inside], ["info", inside], ["explain", inside],
                ["refresh", inside], ["list"], ["list", "--json"]]  # fmt: skip
    running = [start_stub(*command) for command in commands]
    try:
        told = [(each.wait(60), *each.communicate()) for each in running]
        lazy = run("unmount", "--lazy", "--timeout", "0", mounted)
        assert not os.path.ismount(mounted)
    finally:
        os.kill(pid, signal.SIGCONT)
        for each in running:
            each.kill()
            each.wait()
    *asked, table, rows = told
    for code, _, words in asked:
        assert code == 37
        assert words.startswith(f"stsfs: The daemon of {mounted} (pid {pid}) does not answer")
        assert f"stsfs unmount --lazy {mounted}" in words
    assert "not answering" in table[1]
    assert [each["state"] for each in checked("list", rows[1])] == ["not answering"]
    assert lazy.returncode == 0, lazy.stderr
    assert f"its daemon (pid {pid}) does not answer" in lazy.stderr
    assert select.select([process], [], [], 30)[0]  # it goes on, and ends without its mount
    os.close(process)


@pytest.mark.mount
def test_an_unmount_says_that_the_daemon_was_stopped_and_takes_the_mount_away(run, mounted):
    pid = daemon_of(run, mounted)
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGSTOP)
    try:
        done = run("unmount", "--timeout", "0", "--wait", "0", mounted)
        assert not os.path.ismount(mounted)
        again = run("unmount", "--timeout", "0", mounted)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (done.returncode, again.returncode) == (37, 37)
    assert f"its daemon ({pid}) does not answer" in done.stderr
    assert f"kill -KILL {pid}" in done.stderr
    assert f"kill -KILL {pid}" in again.stderr
    assert select.select([process], [], [], 30)[0]
    os.close(process)
