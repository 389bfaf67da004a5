"""Words to the service manager, as in sd_notify(3); silence where there is none."""

import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping

from stsfs.shown import shown

log = logging.getLogger(__name__)


class ServiceManager:
    """Whoever started us and wants to hear of it; perhaps nobody."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """Take the address of the manager's socket, empty for no manager."""
        self._address = address
        self.watchdog_s = watchdog_s
        """It ends us when it has not heard `WATCHDOG=1` for so long; None: it does not."""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> "ServiceManager":
        """Take the manager from the environment, in which no child of ours shall find it.

        To be called by the process that the manager started, before it forks: WATCHDOG_PID names
        that one.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        watchdog_s = None
        with contextlib.suppress(ValueError, OverflowError):
            if address and int(usec) > 0 and (not pid or int(pid) == os.getpid()):
                watchdog_s = int(usec) / 1e6
        return cls(address, watchdog_s)

    @property
    def listens(self) -> bool:
        """Whether there is somebody to tell."""
        return bool(self._address)

    def tell(self, *assignments: str) -> None:
        """Send `READY=1`, `STATUS=...`, `WATCHDOG=1` or `STOPPING=1`.

        Never raises: a manager that does not listen is no reason to end a mount.
        """
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # the abstract namespace of unix(7)
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
                manager.setblocking(False)
                # A line feed in the words of a server would begin an assignment of its own.
                manager.sendto("\n".join(map(shown, assignments)).encode(), address)
        except OSError as exc:
            log.warning("the service manager cannot be told %s: %s", assignments, exc)
