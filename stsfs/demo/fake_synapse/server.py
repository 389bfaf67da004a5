"""A Synapse server in memory, faithful enough for the real Python client.

It speaks the part of the REST API around STS storage locations: users, folders and files, storage
locations, file handles, STS credentials, queries of entity views. Below `/_test/` stands what only
tests and the gate ask:

    POST   /_test/fault              put a `Fault`, given as JSON, in force
    DELETE /_test/fault              behave again
    GET    /_test/counts             requests so far, by "METHOD /path"
    GET    /_test/sessions           every session that the vendor made, by access key id
    GET    /_test/sessions/<key id>  one of them; 404 for keys never vended
"""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from stsfs.demo.fake_synapse import entities as fake_synapse_entities
from stsfs.demo.fake_synapse import files as fake_synapse_files
from stsfs.demo.fake_synapse import guard as fake_synapse_guard
from stsfs.demo.fake_synapse import locations as fake_synapse_locations
from stsfs.demo.fake_synapse import lookup as fake_synapse_lookup
from stsfs.demo.fake_synapse import tables as fake_synapse_tables
from stsfs.demo.fake_synapse.answers import Refused
from stsfs.demo.fake_synapse.guard import Fault, Faults, Services, Throttle
from stsfs.demo.fake_synapse.state import State
from stsfs.demo.fake_synapse.storage import Storage
from stsfs.demo.fake_synapse.sts import LocalVendor, Vendor

HOST = "127.0.0.1"
STOP_POLL_S = 0.02
"""How often the serving thread looks whether it should end."""


def make_app(services: Services) -> Flask:
    """Build the WSGI application around these services."""
    app = Flask("fake_synapse")
    app.url_map.strict_slashes = False
    app.extensions["fake_synapse"] = services
    for module in (
        fake_synapse_lookup,
        fake_synapse_entities,
        fake_synapse_locations,
        fake_synapse_files,
        fake_synapse_tables,
    ):
        app.register_blueprint(module.blueprint)
    app.before_request(fake_synapse_guard.before)
    app.after_request(_set_session_cookie)
    app.teardown_request(fake_synapse_guard.after)
    app.register_error_handler(Refused, fake_synapse_guard.refused)
    _add_test_routes(app, services)
    return app


def _set_session_cookie(response: Response) -> Response:
    if "sessionID" not in request.cookies:
        response.set_cookie("sessionID", str(uuid.uuid4()), httponly=True)
    return response


def _add_test_routes(app: Flask, services: Services) -> None:
    """Add what tests and the gate ask for; none of it is counted, throttled or disturbed."""

    @app.post("/_test/fault")
    def add_fault() -> ResponseReturnValue:
        try:
            services.faults.add(Fault(**request.get_json(force=True)))
        except (TypeError, ValueError) as exc:
            return {"reason": str(exc)}, 400
        return Response(status=204)

    @app.delete("/_test/fault")
    def clear_faults() -> ResponseReturnValue:
        services.faults.clear()
        return Response(status=204)

    @app.get("/_test/counts")
    def counts() -> ResponseReturnValue:
        with services.counts_lock:
            return jsonify(dict(services.counts))

    @app.get("/_test/sessions")
    def sessions() -> ResponseReturnValue:
        vendor = services.vendor
        known = vendor.sessions if isinstance(vendor, LocalVendor) else {}
        return jsonify({key: session.as_json() for key, session in known.items()})

    @app.get("/_test/sessions/<access_key_id>")
    def one_session(access_key_id: str) -> ResponseReturnValue:
        vendor = services.vendor
        session = vendor.session(access_key_id) if isinstance(vendor, LocalVendor) else None
        if session is None:
            return {"reason": "no such session"}, 404
        return jsonify(session.as_json())


class _SilentHandler(WSGIRequestHandler):
    """Handles requests without writing about them on stderr."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        pass


@contextmanager
def serve(app: Flask, port: int = 0) -> Iterator[str]:
    """Serve in a thread and give the base URL; port 0 takes any free one.

    Requests still running at the end are not waited for; nothing listens afterwards.
    """
    server: BaseWSGIServer = make_server(
        HOST, port, app, threaded=True, request_handler=_SilentHandler
    )
    thread = threading.Thread(
        target=server.serve_forever, args=(STOP_POLL_S,), name="fake-synapse", daemon=True
    )
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class FakeSynapse:
    """A running fake Synapse; a context manager, and one that can be entered again.

    Leaving makes it unreachable; entering again brings it back at the same port with all that it
    knew, as a server after an outage.
    """

    def __init__(
        self,
        *,
        state: State | None = None,
        vendor: Vendor | None = None,
        storage: Storage | None = None,
        throttle: bool = True,
        port: int = 0,
    ) -> None:
        self.state = state or State()
        self.vendor = vendor or LocalVendor()
        self.services = Services(self.state, self.vendor, storage, Throttle(enabled=throttle))
        self.app = make_app(self.services)
        self._port = port
        self._serving: Any = None
        self._url = ""

    @property
    def url(self) -> str:
        """The base URL, for `--synapse-endpoint`."""
        assert self._url, "the server was never started"
        return self._url

    @property
    def faults(self) -> Faults:
        """What goes wrong."""
        return self.services.faults

    @property
    def counts(self) -> dict[str, int]:
        """How many requests there were, by `METHOD /path`; a copy."""
        with self.services.counts_lock:
            return dict(self.services.counts)

    def __enter__(self) -> Self:
        self.faults.stopped.clear()
        self._serving = serve(self.app, self._port)
        self._url = self._serving.__enter__()
        self._port = int(self._url.rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        self.faults.stopped.set()
        self._serving.__exit__(None, None, None)
