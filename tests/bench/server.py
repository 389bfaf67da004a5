"""The S3 that all systems read from: nginx for the bytes, our file server for listings behind it.

nginx answers GET and HEAD of objects by sendfile, faster than any client here can read; whatever
needs more than a file name goes to the file server. Both make the same ETags. Without nginx, or
without its Lua module where there is a delay to make, the file server does everything.

What is written goes to a file server of its own with nothing before it: a proxy would only take
time from those who write, and nginx knows neither metadata nor the markers of directories. It
speaks no TLS, at which it is slower than who writes.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from stsfs.demo.tls import make_local_tls
from tests.bench import processes

_LUA_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")
_MODULE_DIRECTORIES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules")
_START_S = 20.0
_REFUSALS = {404: "NoSuchKey", 412: "PreconditionFailed", 416: "InvalidRange"}


@dataclass(frozen=True, slots=True)
class Flavour:
    """How distant the server seems."""

    name: str
    first_byte_delay_s: float = 0.0
    bytes_per_s: int = 0
    """Of each connection; 0 is no limit."""

    raw_processes: int = 4
    """How many plain GETs at once fill the network."""


FAST = Flavour("fast")
SLOW = Flavour("slow", first_byte_delay_s=0.02, bytes_per_s=85_000_000, raw_processes=16)
"""Near the real S3, seen from an instance in its region."""


@dataclass(frozen=True, slots=True)
class ObjectServer:
    """A running server."""

    root: Path
    """Buckets are directories in it."""

    flavour: Flavour
    url: str
    tls_url: str
    ca_file: Path
    software: str
    request_log: Path | None
    """One line per request for an object: method and bytes of the body."""

    def requests_seen(self) -> tuple[int, int]:
        """Requests for objects, and bytes sent for them, so far; zeros where nobody counts."""
        if self.request_log is None:
            return 0, 0
        lines = self.request_log.read_text().splitlines()
        return len(lines), sum(int(line.rpartition(" ")[2]) for line in lines)

    def forget_requests(self) -> None:
        """Begin counting anew."""
        if self.request_log is not None:
            os.truncate(self.request_log, 0)  # nginx appends, so it writes at the front again


@contextlib.contextmanager
def serve(root: Path, flavour: Flavour, directory: Path) -> Iterator[ObjectServer]:
    """Start the server; its own files lie in `directory`, a new one. Raises JobFailed."""
    directory.mkdir()
    tls = make_local_tls(directory)
    certificate = directory / "server.pem"
    modules = _lua_modules()
    with contextlib.ExitStack() as stack:
        if shutil.which("nginx") and (modules or not flavour.first_byte_delay_s):
            lister_port = stack.enter_context(_lister(root, directory))
            ports = _free_ports(2)
            load = modules if flavour.first_byte_delay_s else []
            text = _nginx_config(root, flavour, directory, ports, lister_port, load)
            stack.enter_context(_nginx(text, directory, ports))
            software, request_log = "nginx, file server for listings", directory / "requests.log"
        else:
            ports = [
                stack.enter_context(_lister(root, directory, flavour)),
                stack.enter_context(_lister(root, directory, flavour, certificate)),
            ]
            software, request_log = "file server (no nginx, or no Lua in it)", None
        yield ObjectServer(
            root,
            flavour,
            f"http://127.0.0.1:{ports[0]}",
            f"https://127.0.0.1:{ports[1]}",
            tls.ca_file,
            software,
            request_log,
        )


@contextlib.contextmanager
def serve_new(bucket: str, like: ObjectServer, directory: Path) -> Iterator[ObjectServer]:
    """Start a server to write to, as distant as another one, with one empty bucket.

    Its objects lie in `directory`, a new one, and go with it. Raises JobFailed.
    """
    root = directory / "objects"
    (root / bucket).mkdir(parents=True)
    try:
        with _lister(root, directory, like.flavour, etags="own") as port:
            yield replace(
                like,
                root=root,
                url=f"http://127.0.0.1:{port}",
                tls_url="",
                software="file server",
                request_log=None,
            )
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def _lister(
    root: Path,
    directory: Path,
    flavour: Flavour | None = None,
    certificate: Path | None = None,
    etags: str = "nginx",
) -> Iterator[int]:
    """Run the file server, with a delay of its own only where no nginx stands before it."""
    pace = flavour or Flavour("behind nginx")
    command = [sys.executable, "-m", "tests.bench.lister", str(root)]
    command += [str(pace.first_byte_delay_s), str(pace.bytes_per_s), etags]
    command += [str(certificate)] if certificate else []
    log = directory / "lister.log"
    pipe = subprocess.PIPE
    process = processes.start(command, log, stdout=pipe, stdin=pipe)
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdout, process.stdin:
        try:
            line = process.stdout.readline()
            if not line:
                raise processes.JobFailed(f"the file server did not start: {log.read_text()}")
            yield int(line)
        finally:
            processes.stop(process)


@contextlib.contextmanager
def _nginx(config: str, directory: Path, ports: list[int]) -> Iterator[None]:
    path, log = directory / "nginx.conf", directory / "nginx.log"
    path.write_text(config)
    process = processes.start(["nginx", "-p", str(directory), "-c", str(path), "-e", str(log)], log)
    try:
        processes.wait_for(
            lambda: process.poll() is not None or all(map(_answers, ports)), "nginx", _START_S
        )
        if process.poll() is not None:
            raise processes.JobFailed(f"nginx did not start: {log.read_text()}")
        yield
    finally:
        processes.stop(process)


def _lua_modules() -> list[str]:
    for directory in _MODULE_DIRECTORIES:
        paths = [f"{directory}/{name}" for name in _LUA_MODULES]
        if all(map(os.path.exists, paths)):
            return paths
    return []


def _nginx_config(
    root: Path,
    flavour: Flavour,
    directory: Path,
    ports: list[int],
    lister_port: int,
    modules: list[str],
) -> str:
    """One worker, as the other core belongs to the reader. Named pieces: see the module."""
    load = "".join(f"load_module {path};\n" for path in modules)
    delay_s = flavour.first_byte_delay_s
    delay = f"access_by_lua_block {{ ngx.sleep({delay_s}) }}" if delay_s else ""
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"  {kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # A client that gets HTML instead of the S3 code tries again, and again.
    refusals = "".join(
        f"""\
    location @{code} {{
      access_log {directory}/requests.log counted;
      default_type application/xml;
      return {status} '<?xml version="1.0"?><Error><Code>{code}</Code></Error>';
    }}
"""
        for status, code in _REFUSALS.items()
    )
    return f"""\
{load}{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  log_format counted '$request_method $body_bytes_sent';
  access_log off;
  default_type application/octet-stream;
  sendfile on;
  sendfile_max_chunk 2m;
  tcp_nodelay on;
  keepalive_requests 100000000;
  keepalive_timeout 300s;
{temporary}
  upstream lister {{ server 127.0.0.1:{lister_port}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{ports[0]} backlog=1024;
    listen 127.0.0.1:{ports[1]} ssl backlog=1024;
    ssl_certificate {directory}/server.pem;
    ssl_certificate_key {directory}/server.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    root {root};
    merge_slashes off;
    limit_rate {flavour.bytes_per_s};
    if ($request_method !~ ^(GET|HEAD)$) {{ rewrite ^ /-lister- last; }}
    if ($args) {{ rewrite ^ /-lister- last; }}
    location ~ ^/[^/]*/?$ {{ rewrite ^ /-lister- last; }}
    location / {{
      {delay}
      access_log {directory}/requests.log counted;
      error_page 412 @PreconditionFailed;
      error_page 416 @InvalidRange;
      try_files $uri @NoSuchKey;
    }}
{refusals}    location = /-lister- {{
      internal;
      {delay}
      proxy_pass http://lister$request_uri;
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      proxy_set_header Host $http_host;
    }}
  }}
}}
"""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [listener.getsockname()[1] for listener in listeners]


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
