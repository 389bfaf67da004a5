"""A proxy that makes a permissive S3 server strict, and unreliable on demand.

Before moto or the file server it checks signatures, ends of sessions and the Synapse session
policy, and injects faults; bodies pass through as they are.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

import trio

from stsfs.demo.gate.exchange import Exchanges
from stsfs.demo.gate.faults import FaultPlan
from stsfs.demo.gate.sessions import KeyRing, Session
from stsfs.demo.request_log import RequestLog

UPSTREAM_KEYS = Session("upstream", "upstream")
"""moto checks no signature, but treats a request without one as anonymous."""

_BACKLOG = 512


class Gate:
    """A context manager; serves in a trio loop in a thread of its own while it is entered.

    `requests` holds every request, `denied` those that the gate itself refused because of their
    signature, session or policy (not injected faults). `faults` may be changed at any time.
    """

    def __init__(
        self,
        upstream_url: str,
        keys: KeyRing,
        faults: FaultPlan | None = None,
        *,
        upstream_keys: Session | None = UPSTREAM_KEYS,
        upstream_region: str = "us-east-1",
        now_unix_s: Callable[[], float] = time.time,
    ) -> None:
        """Bind a free port of 127.0.0.1; `upstream_keys` None forwards without a signature."""
        upstream = urlsplit(upstream_url)
        assert upstream.scheme == "http", "the gate speaks plain HTTP to what is behind it"
        self.faults = faults or FaultPlan()
        self.requests = RequestLog()
        self.denied = RequestLog()
        self._exchanges = Exchanges(
            upstream_host=upstream.hostname or "127.0.0.1",
            upstream_port=upstream.port or 80,
            keys=keys,
            upstream_keys=upstream_keys,
            upstream_region=upstream_region,
            faults=self.faults,
            requests=self.requests,
            denied=self.denied,
            now_unix_s=now_unix_s,
        )
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run, name=f"gate-{self.port}", daemon=True)
        self._started = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._crash: BaseException | None = None

    def __enter__(self) -> "Gate":
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all connections and the thread. Raises what a bug in the gate has raised."""
        if self._token is not None and self._thread.is_alive():
            with contextlib.suppress(trio.RunFinishedError):  # a bug ended it; raised below
                self._token.run_sync_soon(self._scope.cancel)
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()
        if self._crash is not None:
            crash, self._crash = self._crash, None
            raise crash

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as exc:  # noqa: BLE001 - handed to stop()
            self._crash = exc
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.socket.from_stdlib_socket(self._listener) as listener, self._scope:
            async with trio.open_nursery() as connections:
                self._started.set()
                while True:
                    client, _ = await listener.accept()
                    connections.start_soon(self._exchanges.serve, client)
