"""What a running daemon keeps to itself, and whom it gives its token to."""

# ruff: noqa: F811 - fixtures are imported, and then arguments

import contextlib
import json
import os
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from stsfs.demo.tls import make_local_tls
from tests.mount.conftest import folder, host, mount, servers, stage, view  # noqa: F401
from tests.mount.stage import PATIENCE_S, STATIC_KEYS, TOKEN

pytestmark = pytest.mark.mount

OTHER = 64_002
AS_OTHER = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")

ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as asking:
    asking.settimeout(60)
    asking.connect(sys.argv[1])
    try:
        asking.sendall(b'{"command": "unmount"}\\n')
    except BrokenPipeError:
        pass  # it was answered before
    print(asking.makefile().readline())
"""


@pytest.fixture
def live(folder, mount):
    folder.write("x", b"contents")
    return mount(folder.syn_id)


def as_other(*command):
    return subprocess.run(
        [*AS_OTHER, *map(str, command)], capture_output=True, text=True, cwd="/", timeout=PATIENCE_S
    )


def test_no_secret_is_among_the_arguments_of_the_daemon(live):
    said = Path(f"/proc/{live.pid}/cmdline").read_bytes()
    for secret in (TOKEN, STATIC_KEYS.secret_access_key):
        assert secret.encode() not in said


@needs_root
@pytest.mark.parametrize("name", ["environ", "mem", "maps", "fd", "cwd"])
def test_another_user_reads_nothing_of_its_memory(live, name):
    look = {"fd": ["ls"], "cwd": ["readlink"]}.get(name, ["head", "-c", "1"])
    done = as_other(*look, f"/proc/{live.pid}/{name}")
    assert done.returncode != 0
    assert done.stdout == ""


def test_what_it_creates_is_private(live):
    status = Path(f"/proc/{live.pid}/status").read_text()
    assert "Umask:\t0077" in status
    runtime, logs = live.host.runtime, live.log_file.parent
    for directory in (runtime, logs):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for each in directory.iterdir():
            assert not each.stat().st_mode & 0o077, each


@needs_root
def test_it_obeys_nobody_but_its_user_and_root_even_where_the_socket_can_be_reached(live):
    """By a directory that was opened by mistake."""
    (record,) = live.host.records()
    address = Path(record["control_socket"])
    opened = [address, *address.parents][:-2]
    modes = {each: stat.S_IMODE(each.stat().st_mode) for each in opened}
    for each in opened:
        each.chmod(modes[each] | 0o077)
    try:
        done = as_other(sys.executable, "-c", ASK, address)
    finally:
        for each, mode in modes.items():
            each.chmod(mode)
    assert done.stdout, done.stderr
    assert "Only the user who made this mount" in json.loads(done.stdout)["error"]["sentence"]
    assert (live / "x").read_bytes() == b"contents"


class _Elsewhere(BaseHTTPRequestHandler):
    """A server that sends everybody to another one, if it has an address; and notes who came."""

    def do_GET(self):
        self.server.heard.append(dict(self.headers))
        if self.server.leads_to:
            self.send_response(302)
            self.send_header("Location", f"{self.server.leads_to}{self.path}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT = do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def listening(leads_to="", tls=None):
    """(url, what was heard) of such a server."""
    with HTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        server.heard, server.leads_to = [], leads_to
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda *_: None  # handshakes that fail
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", server.heard
        finally:
            server.shutdown()
            thread.join()


def failing_mount(host, *arguments):
    done = host.stsfs("mount", *arguments[:1], host.mount_point(), *arguments[1:])
    assert done.returncode not in (0, 70), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("kind", ["synapse", "s3"])
def test_no_redirection_takes_a_token_or_a_signature_elsewhere(host, kind):
    with listening() as (thief, stolen), listening(thief) as (server, heard):
        if kind == "synapse":
            failing_mount(host, "syn123", "--synapse-endpoint", server)
        else:
            failing_mount(host, "s3://bucket/prefix", "--endpoint-url", server, "--deadline", "5")
    assert heard
    assert stolen == []


@pytest.mark.parametrize("kind", ["synapse", "s3"])
def test_a_server_whose_certificate_nobody_vouches_for_hears_nothing(host, kind, tmp_path):
    with listening(tls=make_local_tls(tmp_path).server_context) as (server, heard):
        if kind == "synapse":
            failing_mount(host, "syn123", "--synapse-endpoint", server, "--deadline", "5")
        else:
            said = failing_mount(
                host, "s3://bucket/prefix", "--endpoint-url", server, "--deadline", "5"
            )
            assert "certificate" in said
    assert heard == []
