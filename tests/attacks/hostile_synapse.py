"""A Synapse that answers with any bytes it likes, and a client in a process of its own."""

import http.client
import json
import socketserver
import subprocess
import sys
import threading
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple
from urllib.parse import urlsplit

MIB = 1 << 20

CLIENT = """
import json, resource, sys, trio
from stsfs.errors import StsfsError
from stsfs.synapse.client import SynapseClient
from stsfs.synapse.endpoints import Endpoints

def high_water_bytes():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024

async def token():
    return "token-of-the-client"

async def main(url, calls):
    async with SynapseClient(Endpoints.single(url), token=token, deadline_s=1.5) as client:
        before_bytes = high_water_bytes()
        said = ""
        for _ in range(calls):
            try:
                await client.user_profile()
            except StsfsError as exc:
                said = f"{type(exc).__name__}: {exc}"
    grown_bytes = high_water_bytes() - before_bytes
    print(json.dumps({"said": said, "grown_bytes": grown_bytes}))

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
trio.run(main, sys.argv[1], int(sys.argv[2]))
"""


class Request(NamedTuple):
    """What the client asks."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@contextmanager
def serving(script, host="127.0.0.1"):
    """The address of a server that sends the pieces that script(request) makes of each request."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            with suppress(OSError):
                while (request := self._request()) is not None:
                    for piece in script(request):
                        self.wfile.write(piece)
                        if stopping.is_set():
                            return

        def _request(self):
            line = self.rfile.readline().split()
            if len(line) < 2:
                return None
            headers = {}
            while (field := self.rfile.readline().strip()) != b"":
                name, _, value = field.decode().partition(":")
                headers[name.lower()] = value.strip()
            body = self.rfile.read(int(headers.get("content-length", "0")))
            return Request(line[0].decode(), line[1].decode(), headers, body)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    stopping = threading.Event()
    with Server((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://{host}:{server.server_address[1]}"
        finally:
            stopping.set()
            server.shutdown()
            thread.join()


def answer(body, *fields, status=200):
    """A whole answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = (f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", *fields)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


class Outcome(NamedTuple):
    """How a client fared."""

    said: str
    grown_bytes: int


def asked_by_a_process(url, calls=1):
    """What a client in a process of its own says of this server, and how much it grew."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, url, str(calls)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Outcome(**json.loads(done.stdout))


@contextmanager
def between(url, spoil, host="127.0.0.1"):
    """The address of a server that asks another one, and sends what spoil makes of its answer.

    spoil(request, status, body) returns a body, a whole answer as a list of pieces, or None where
    the body stays as it is.
    """
    asked = urlsplit(url).netloc

    def script(request):
        connection = http.client.HTTPConnection(asked, timeout=60)
        with closing(connection):
            headers = {k: v for k, v in request.headers.items() if k != "content-length"}
            connection.request(request.method, request.path, request.body or None, headers)
            response = connection.getresponse()
            body = response.read()
        found = spoil(request, response.status, body)
        if isinstance(found, list):
            return found
        fields = ("Content-Type: application/json",)
        return [answer(body if found is None else found, *fields, status=response.status)]

    with serving(script, host) as made:
        yield made
