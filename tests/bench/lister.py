"""The demo's file server as a process: lists what nginx serves, or serves everything itself.

`python -m tests.bench.lister ROOT DELAY_S BYTES_PER_S ETAGS [PEM]` prints its port; it ends with
its standard input. ETAGS is `nginx` or `own`.
"""

import os
import ssl
import sys
from pathlib import Path

from stsfs.demo.file_server.server import FileServer
from stsfs.demo.file_server.store import etag_of


def nginx_etag_of(status: os.stat_result) -> str:
    """As nginx makes it: time in whole seconds, and size, both in hexadecimal."""
    return f'"{int(status.st_mtime):x}-{status.st_size:x}"'


def main() -> None:
    """Serve until nobody holds our standard input any more."""
    root, delay_s, bytes_per_s, etags, *certificate = sys.argv[1:]
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate[0])
    with FileServer(
        Path(root),
        first_byte_delay_s=float(delay_s),
        bytes_per_s=float(bytes_per_s) or None,
        tls=tls,
        etag_of=nginx_etag_of if etags == "nginx" else etag_of,
    ) as server:
        print(server.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
