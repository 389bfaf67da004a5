"""The daemon's end of the control socket: status, unmount and whatever else it offers.

One line of JSON asks, one line answers: `{"command": "status"}`, and the dict of the handler or
`{"error": {...}}`. Only the owner of the mount and root are heard. The other end is
`control_client`.
"""

import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from stsfs.daemon.error_record import InternalError, to_record
from stsfs.errors import AccessDenied, BadArgument, MountPointUnusable, StsfsError
from stsfs.supervisor import BUGS, RESTART_PAUSE_S, contained, kept_running
from stsfs.values import one_line

REQUEST_BYTES_MAX = 64 * 1024
"""A command with a path or two; more is a mistake or malice."""

CLIENT_DEADLINE_S = 30.0
"""For one client, from its connection to the end of its answer."""

REQUEST_S = 5.0
"""For a request to arrive: those who ask send it at once."""

CLIENTS_MAX = 16
"""Whose requests are being answered at once; each costs a task and a descriptor that the mount
itself may need. As many more may be about to ask; one more takes the place of the slowest."""

LAST_WORDS_S = 1.0
"""An answer still goes out when its own command has ended the daemon."""

_TASK = "control socket"

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

log = logging.getLogger(__name__)


async def serve_control(
    path: Path,
    handlers: Mapping[str, Handler],
    *,
    client_deadline_s: float = CLIENT_DEADLINE_S,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on the socket at `path` until cancelled; started once it listens.

    A handler gets the whole request and returns JSON values; what it raises becomes the answer.
    Raises MountPointUnusable if another daemon listens there. A socket left behind by a daemon
    that died is replaced.
    """
    server = _Server(handlers, client_deadline_s)
    with _Listening(path) as first:
        task_status.started()
        if await contained(_TASK, _accept, first, server):
            return
    # A bug: whoever waited to be accepted is turned away, and everyone after that is heard.
    await kept_running(_TASK, _serve_anew, path, server)


async def _serve_anew(path: Path, server: "_Server") -> None:
    await trio.sleep(RESTART_PAUSE_S)
    with _Listening(path) as listening:
        await _accept(listening, server)


async def _accept(listening: socket.socket, server: "_Server") -> None:
    """Serve clients until cancelled."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    await trio.serve_listeners(server.serve_client, [listener])


def peer_uid(connection: trio.SocketStream) -> int:
    """Who is at the other end, as the kernel recorded it at connect(2) (SO_PEERCRED)."""
    packed = connection.socket.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _pid, uid, _gid = struct.unpack("3i", packed)
    return int(uid)


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listening.setblocking(False)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise MountPointUnusable(f"Another daemon already listens on {path}.")
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(CLIENTS_MAX)
    except BaseException:
        listening.close()
        raise
    return listening


class _Listening:
    """A context with a socket that listens at a path; afterwards neither is there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> socket.socket:
        self._socket = _listen(self._path)
        self._number = _inode(self._path)
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        _remove(self._path, self._number)


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def _remove(path: Path, inode: int | None) -> None:
    """Remove the socket, unless the next daemon of this mount point already listens there."""
    if inode is not None and _inode(path) == inode:
        path.unlink(missing_ok=True)


class _Server:
    """Serves clients, each in a task of its own, and survives whatever they send."""

    def __init__(self, handlers: Mapping[str, Handler], client_deadline_s: float) -> None:
        self._handlers = handlers
        self._client_deadline_s = client_deadline_s
        self._answered_count = 0
        self._awaited: dict[trio.CancelScope, None] = {}
        """Those whose requests have not arrived yet, the first come first."""

    async def serve_client(self, connection: trio.SocketStream) -> None:
        """One request, one answer. Never raises but Cancelled."""
        await contained("a client of the control socket", self._serve_client, connection)

    async def _serve_client(self, connection: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(self._client_deadline_s):
                answer = await self._answer(connection)
                if answer is not None:
                    line = json.dumps(answer).encode("ascii") + b"\n"
                    with trio.move_on_after(LAST_WORDS_S) as last_words:
                        last_words.shield = True
                        await connection.send_all(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a client of the control socket left before its answer")

    async def _answer(self, connection: trio.SocketStream) -> dict[str, Any] | None:
        """What to send back; None to a client that only looked whether we are alive."""
        try:
            if peer_uid(connection) not in (os.geteuid(), 0):
                raise AccessDenied("Only the user who made this mount, and root, may ask.")
            line = await self._request(connection)
            if not line:
                return None
            answer = await self._answer_to(_parse(line))
            json.dumps(answer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception as exc:  # noqa: BLE001 - the answer to this client
            record = to_record(exc)
            if record["class"] == InternalError.__name__:
                BUGS.note("a control command", exc)
            return {"error": record}
        return answer

    async def _request(self, connection: trio.SocketStream) -> bytes:
        """The line that a client sends; nothing from one that has only looked."""
        if len(self._awaited) >= CLIENTS_MAX:
            next(iter(self._awaited)).cancel()
        with trio.move_on_after(REQUEST_S) as scope:
            self._awaited[scope] = None
            try:
                return await _read_line(connection)
            finally:
                del self._awaited[scope]
        raise BadArgument(f"No whole request has come within {REQUEST_S:g} s, or others ask.")

    async def _answer_to(self, request: dict[str, Any]) -> dict[str, Any]:
        handler = self._handlers.get(request["command"])
        if handler is None:
            raise BadArgument(f"This daemon knows no command {one_line(request['command'])!r}.")
        if self._answered_count >= CLIENTS_MAX:
            raise StsfsError(f"More than {CLIENTS_MAX} clients ask at once.", remedy="Try again.")
        self._answered_count += 1
        try:
            return await handler(request)
        finally:
            self._answered_count -= 1


async def _read_line(connection: trio.SocketStream) -> bytes:
    received = bytearray()
    while b"\n" not in received:
        data = await connection.receive_some(REQUEST_BYTES_MAX)
        if not data:
            return b"" if not received else bytes(received)
        received += data
        if len(received) > REQUEST_BYTES_MAX:
            raise BadArgument(f"A request has at most {REQUEST_BYTES_MAX} bytes.")
    return bytes(received.partition(b"\n")[0])


def _parse(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise BadArgument('A request is one line of JSON such as {"command": "status"}.')
    return request
