"""What the service manager hears, and what the probe of a mount says."""

import errno
import logging
import os
import socket
import sys

import pytest
import trio

from stsfs.credentials.lease import LeaseStatus
from stsfs.daemon import mount_probe, watchdog
from stsfs.daemon.notify import ServiceManager
from stsfs.daemon.watchdog import keep_status, keep_watchdog, status_line
from stsfs.redaction import register_secret


@pytest.fixture
def listening(tmp_path):
    """(socket, address) of a manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        yield manager, str(tmp_path / "notify")


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(tmp_path, abstract):
    name = f"@stsfs-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        ServiceManager(name).tell("READY=1", "STATUS=serving")
        assert manager.recv(100) == b"READY=1\nSTATUS=serving"


def test_no_manager_or_a_deaf_one_is_no_error(tmp_path, caplog):
    ServiceManager().tell("READY=1")
    assert caplog.records == []
    ServiceManager(str(tmp_path / "nobody")).tell("READY=1")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_children_do_not_inherit_the_manager():
    environ = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}
    manager = ServiceManager.from_environment(environ)
    assert (manager.listens, manager.watchdog_s) == (True, 4.0)
    assert environ == {}


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("2500000", "", 2.5),
        ("2500000", "1", None),  # meant for another process
        ("0", "", None),
        ("", "", None),
        ("many", "", None),
        ("2500000", "ours", None),
    ],
)
def test_the_watchdog_is_kept_by_the_process_that_it_watches(usec, pid, expected):
    environ = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    assert ServiceManager.from_environment(environ).watchdog_s == expected


def lease(**changes):
    values = {
        "source": "s",
        "seconds_left": 600.0,
        "in_force": True,
        "renewals": 0,
        "failures": 0,
        "last_error": "",
        "last_renewal_unix_s": None,
    }
    return LeaseStatus(**values | changes)


def test_the_status_line_names_location_credentials_files_and_trouble():
    register_secret("a-secret-of-the-status-line")
    assert status_line("syn1", lease(seconds_left=None), open_files=1) == (
        "syn1; credentials without end; 1 open file"
    )
    assert "; credentials until " in status_line("syn1", lease(), open_files=0)
    said = status_line(
        "syn1",
        lease(in_force=False, last_error="No:\n a-secret-of-the-status-line"),
        open_files=2,
    )
    assert said == ("syn1; no credentials in force; 2 open files; renewal fails: No: [redacted]")


async def test_the_status_is_told_when_it_changes(listening, autojump_clock):
    manager, address = listening
    lines = iter(["one", "one", "two", "two", "two"])
    with pytest.raises(RuntimeError):  # what a coroutine makes of StopIteration
        await keep_status(ServiceManager(address), lambda: next(lines))
    assert [manager.recv(100), manager.recv(100)] == [b"STATUS=one", b"STATUS=two"]
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


async def test_without_a_manager_nothing_runs():
    await keep_status(ServiceManager(), lambda: "")
    await keep_watchdog(ServiceManager("/n"), lambda limit_s: None)


async def test_the_watchdog_is_pinged_at_half_its_interval_while_the_mount_answers(
    listening, autojump_clock
):
    manager, address = listening
    asked = []

    async def answers(limit_s):
        asked.append((trio.current_time(), limit_s))
        if len(asked) == 2:
            await trio.sleep(limit_s)
            return False
        return True

    start_s = trio.current_time()
    with trio.move_on_after(16):
        await keep_watchdog(ServiceManager(address, watchdog_s=10.0), answers)
    assert asked == [(start_s + at_s, 5.0) for at_s in (0, 5, 10, 15)]
    manager.setblocking(False)
    for _ in range(3):  # all but the second
        assert manager.recv(100) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def child(monkeypatch, program):
    monkeypatch.setattr(mount_probe, "_PROGRAM", program)


async def test_a_probe_that_comes_back_is_an_answer_one_that_hangs_is_none(tmp_path, monkeypatch):
    assert await watchdog.answers(tmp_path, timeout_s=60)
    child(monkeypatch, f"import os; os._exit({errno.EIO})")
    assert await watchdog.answers(tmp_path, timeout_s=60)
    child(monkeypatch, "import time; time.sleep(600)")
    assert not await watchdog.answers(tmp_path, timeout_s=0.2)


async def test_a_probe_that_cannot_run_is_not_held_against_the_mount(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    assert await watchdog.answers(tmp_path, timeout_s=60)


def test_only_enotconn_is_dead(tmp_path, monkeypatch):
    assert not mount_probe.is_dead(tmp_path, timeout_s=60)
    child(monkeypatch, f"import os; os._exit({errno.ENOTCONN})")
    assert mount_probe.is_dead(tmp_path, timeout_s=60)
    child(monkeypatch, "import time; time.sleep(600)")
    assert not mount_probe.is_dead(tmp_path, timeout_s=0.2)


def test_the_status_period_is_shorter_than_a_minute():
    assert watchdog.STATUS_PERIOD_S <= 60
