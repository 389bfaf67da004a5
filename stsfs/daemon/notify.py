"""Words to the service manager, as in sd_notify(3); silence where there is none."""

import logging
import os
import socket

log = logging.getLogger(__name__)


def tell_manager(*assignments: str) -> None:
    """Send `READY=1`, `STATUS=...` or `STOPPING=1`; does nothing without NOTIFY_SOCKET.

    Never raises: a manager that does not listen is no reason to end a mount.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # the abstract namespace of unix(7)
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.setblocking(False)
            manager.sendto("\n".join(assignments).encode(), address)
    except OSError as exc:
        log.warning("the service manager cannot be told %s: %s", assignments, exc)
