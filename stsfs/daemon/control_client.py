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


SILENCE_S = 8.0
"""Without a word of the answer, before the daemon is asked whether it answers anything."""

SIGN_OF_LIFE_S = 2.0
"""For the answer to that, which costs the daemon nothing."""


class DaemonSilent(DeadlineExceeded):
    """A daemon gives no sign of life, whatever it is asked."""


def ask(
    path: Path,
    command: str,
    *,
    timeout_s: float,
    silence_s: float = SILENCE_S,
    arguments: Mapping[str, Any] | None = None,
    name: str = "The daemon",
    remedy: str = "`stsfs unmount --lazy PATH` takes its mount away all the same.",
) -> dict[str, Any]:
    """Send one command to the daemon that listens at `path`, and return its answer.

    Raises NoSuchMount if nobody listens or the daemon ended without an answer, DeadlineExceeded
    after `timeout_s` seconds in all, DaemonSilent where `silence_s` seconds have brought no word
    and it gives no sign of life, and whatever error the daemon answered. `name` is what errors
    call it, `remedy` what they advise where it does not answer.
    """
    deadline_s = time.monotonic() + timeout_s
    request = json.dumps({**(arguments or {}), "command": command}).encode("ascii") + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(timeout_s)
            try:
                connection.connect(str(path))
            except BlockingIOError:  # so many wait to be accepted
                raise DaemonSilent("") from None
            # a daemon that refuses us does not wait for our request: its reason is already here
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
            line = _receive_line(connection, path, deadline_s, silence_s)
        except DaemonSilent:
            raise DaemonSilent(
                f"{name} does not answer: it hangs, or was stopped.", remedy=remedy
            ) from None
        except (TimeoutError, BlockingIOError) as exc:
            raise DeadlineExceeded(
                f"{name} did not answer within {timeout_s:g} s.", remedy=remedy
            ) from exc
        except OSError as exc:
            raise NoSuchMount(f"No daemon answers on {path} ({exc.strerror}).") from exc
    if not line:
        raise NoSuchMount(f"The daemon on {path} ended without an answer.")
    return _parse(line)


def is_answering(path: Path) -> bool:
    """Whether the daemon that listens at `path` is at work: it hangs up on who asks nothing.

    False after SIGN_OF_LIFE_S, and where nobody listens.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(SIGN_OF_LIFE_S)
        try:
            connection.connect(str(path))
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)  # its end, or why it does not hear us
        except ConnectionResetError:
            return True
        except OSError:
            return False
    return True


def _receive_line(
    connection: socket.socket, path: Path, deadline_s: float, silence_s: float
) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n") and len(received) < ANSWER_BYTES_MAX:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(min(left_s, silence_s))
        try:
            data = connection.recv(1 << 20)
        except TimeoutError:
            if time.monotonic() >= deadline_s:
                raise
            if not is_answering(path):
                raise DaemonSilent("") from None
            continue
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
