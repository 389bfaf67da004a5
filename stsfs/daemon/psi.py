"""Pressure stall information: how long tasks waited for memory, and being told when they do.

Format and triggers: the kernel's documentation of PSI. An ordinary user may set triggers since
Linux 6.5, if their window is a multiple of two seconds.
"""

import logging
import os
import re
import select
from contextlib import suppress
from pathlib import Path

import trio

log = logging.getLogger(__name__)

_TRIGGER = b"some 200000 2000000\0"
"""A tenth of two seconds, in microseconds: in so much of them some task waited. The kernel
overwrites the last byte."""

_SOME_AVG10 = re.compile(r"^some avg10=(\d+\.\d+) ", re.MULTILINE)


def stalled_percent(text: str) -> float:
    """Of the last ten seconds, the share in which some task waited; 0 where the text has none."""
    found = _SOME_AVG10.search(text)
    return float(found[1]) if found else 0.0


def read_stalled_percent(path: Path) -> float:
    """The same from a pressure file; 0 where there is no such file, or the kernel keeps none."""
    try:
        return stalled_percent(path.read_text())
    except OSError:
        return 0.0


class Trigger:
    """A descriptor on which the kernel reports pressure."""

    def __init__(self, file: int) -> None:
        """Takes over the descriptor, which has POLLPRI when there is pressure."""
        self._file = file
        # trio waits for readable and writable only. A set of descriptors is readable when one has
        # anything to tell.
        self._set = select.epoll()
        with suppress(PermissionError):  # the stand-in of a container: nothing to wait on
            self._set.register(file, select.EPOLLPRI)

    def close(self) -> None:
        """Not a checkpoint."""
        self._set.close()
        os.close(self._file)

    async def wait(self) -> None:
        """Return when there is pressure; never, when the kernel has nothing to report any more."""
        while True:
            await trio.lowlevel.wait_readable(self._set.fileno())
            # A trigger is reset by the first look at it, trio's: what counts is having been woken.
            over = select.EPOLLERR | select.EPOLLHUP
            if not any(events & over for _, events in self._set.poll(0)):
                return
            self._set.unregister(self._file)


def open_trigger(path: Path) -> Trigger | None:
    """Ask to be told of pressure; None where the kernel refuses."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        log.debug("no trigger on %s: %s", path, exc)
        return None
    try:
        os.write(file, _TRIGGER)
        return Trigger(file)
    except OSError as exc:
        log.debug("no trigger on %s: %s", path, exc)
        os.close(file)
        return None
