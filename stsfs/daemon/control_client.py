"""The asking end of the control socket, for commands: synchronous, and free of trio."""

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stsfs.daemon.error_record import from_record
from stsfs.errors import DeadlineExceeded, NoSuchMount, StoreFailure

ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""Room for a status with a long list of hidden keys; more means that the peer is not ours."""


def ask(
    path: Path, command: str, *, timeout_s: float, arguments: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Send one command to the daemon that listens at `path`, and return its answer.

    Raises NoSuchMount if nobody listens or the daemon ended without an answer, DeadlineExceeded
    after `timeout_s` seconds in all, and whatever error the daemon answered.
    """
    deadline_s = time.monotonic() + timeout_s
    request = json.dumps({**(arguments or {}), "command": command}).encode("ascii") + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            # a daemon that refuses us does not wait for our request: its reason is already here
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
            line = _receive_line(connection, deadline_s)
        except (TimeoutError, BlockingIOError) as exc:
            raise DeadlineExceeded(
                f"The daemon did not answer within {timeout_s:g} s.",
                remedy="`stsfs unmount --lazy PATH` detaches a mount that hangs.",
            ) from exc
        except OSError as exc:
            raise NoSuchMount(f"No daemon answers on {path} ({exc.strerror}).") from exc
    if not line:
        raise NoSuchMount(f"The daemon on {path} ended without an answer.")
    return _parse(line)


def _receive_line(connection: socket.socket, deadline_s: float) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n") and len(received) < ANSWER_BYTES_MAX:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        data = connection.recv(1 << 20)
        if not data:
            break
        received += data
    return bytes(received)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise StoreFailure("What answers on the control socket is not an stsfs daemon.")
    if isinstance(error := answer.get("error"), dict):
        raise from_record(error)
    return answer
