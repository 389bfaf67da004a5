"""The running mount's word to the service manager: what it does, and that it still does it."""

import contextlib
import logging
import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from stsfs.credentials.lease import LeaseStatus
from stsfs.daemon.mount_probe import LAST_WAIT_S, start_probe
from stsfs.daemon.notify import ServiceManager
from stsfs.redaction import redact
from stsfs.supervisor import BUGS

log = logging.getLogger(__name__)

STATUS_PERIOD_S = 5.0
"""How old the status text may be when something has changed."""


def status_line(location: str, lease: LeaseStatus, *, open_files: int) -> str:
    """One line for `systemctl status`; trouble with the credentials is named, without secrets."""
    said = [location, _credentials(lease), f"{open_files} open file{'s' * (open_files != 1)}"]
    if lease.last_error:
        said.append(f"renewal fails: {lease.last_error}")
    return " ".join(redact("; ".join(said)).split())


async def keep_status(
    manager: ServiceManager, line: Callable[[], str], *, period_s: float = STATUS_PERIOD_S
) -> None:
    """Tell the manager the status line, and tell it again whenever it has changed."""
    told = ""
    while manager.listens:
        if (now := line()) != told:
            manager.tell(f"STATUS={now}")
            told = now
        await trio.sleep(period_s)


async def keep_watchdog(
    manager: ServiceManager, answers: Callable[[float], Awaitable[bool]]
) -> None:
    """Ping the manager at half its interval, as long as the mount answers.

    `answers` gets a time limit in seconds. Where it says no, it is asked again at once: the
    manager loses patience after as long a time again. A bug in it says nothing about the mount.
    """
    if manager.watchdog_s is None:
        return
    half_s = manager.watchdog_s / 2
    while True:
        started_s = trio.current_time()
        try:
            is_alive = await answers(half_s)
        except Exception as bug:  # noqa: BLE001 - without a word the manager would end the mount
            BUGS.note("watchdog", bug)
            is_alive = True
        if is_alive:
            manager.tell("WATCHDOG=1")
        await trio.sleep_until(started_s + half_s)


async def answers(path: Path, *, timeout_s: float) -> bool:
    """Whether the mount at `path`, which this process itself may serve, answers in time.

    An error is an answer. A child that cannot be started says nothing about the mount.
    """
    try:
        child = start_probe(path)
    except OSError as exc:
        log.warning("the mount cannot be probed: %s", exc)
        return True
    try:
        descriptor = os.pidfd_open(child.pid)
    except OSError as exc:
        log.warning("the mount cannot be probed: %s", exc)
        child.kill()
        with trio.CancelScope(shield=True), contextlib.suppress(subprocess.TimeoutExpired):
            await trio.to_thread.run_sync(child.wait, LAST_WAIT_S)
        return True
    try:
        with trio.move_on_after(timeout_s):
            await trio.lowlevel.wait_readable(descriptor)
        return child.poll() is not None
    finally:
        if child.poll() is None:
            child.kill()
            with trio.move_on_after(LAST_WAIT_S, shield=True):
                await trio.lowlevel.wait_readable(descriptor)
            child.poll()
        os.close(descriptor)


def _credentials(lease: LeaseStatus) -> str:
    if not lease.in_force:
        return "no credentials in force"
    if lease.seconds_left is None:
        return "credentials without end"
    ends = time.localtime(time.time() + lease.seconds_left)
    return f"credentials until {time.strftime('%H:%M %Z', ends)}"
