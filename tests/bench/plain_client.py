"""Plain GETs over one kept connection: what the network and the server can do by themselves."""

import re
import socket
import ssl
from pathlib import Path
from urllib.parse import quote, urlsplit

_BUFFER_BYTES = 1024 * 1024
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_NEXT = re.compile(r"<NextContinuationToken>(.*?)</NextContinuationToken>")


class PlainClient:
    """One connection; `close` ends it."""

    def __init__(self, url: str, ca_file: Path | None = None) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self._socket = socket.create_connection((address.hostname, address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.scheme == "https":
            context = ssl.create_default_context(cafile=ca_file)
            self._socket = context.wrap_socket(self._socket, server_hostname=address.hostname)
        self._host = address.netloc
        self._memory = memoryview(bytearray(_BUFFER_BYTES))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def read(self, target: str, start: int = 0, stop: int | None = None) -> int:
        """Bytes received for `[start, stop)` of an object, or all of it; they are dropped."""
        wanted = "" if stop is None else f"Range: bytes={start}-{stop - 1}\r\n"
        left_bytes, early = self._ask(target, wanted)
        count = left_bytes
        left_bytes -= len(early)
        while left_bytes:
            received = self._socket.recv_into(self._memory)
            if not received:
                raise ConnectionError("cut short")
            left_bytes -= received
        return count

    def list_all(self, bucket: str, prefix: str, delimiter: str = "") -> int:
        """List a prefix to its end; how many keys and common prefixes there were."""
        count, token = 0, ""
        while True:
            query = f"list-type=2&max-keys=1000&prefix={quote(prefix)}&delimiter={delimiter}"
            if token:
                query += f"&continuation-token={quote(token, safe='')}"
            left_bytes, body = self._ask(f"/{bucket}?{query}")
            pieces = [body]
            left_bytes -= len(body)
            while left_bytes:
                pieces.append(self._socket.recv(left_bytes))
                left_bytes -= len(pieces[-1])
            page = b"".join(pieces).decode()
            count += page.count("<Contents>") + page.count("<CommonPrefixes>")
            found = _NEXT.search(page)
            if found is None:
                return count
            token = found[1]

    def _ask(self, target: str, headers: str = "") -> tuple[int, bytes]:
        """Send a request; the length of the answer's body, and what has come of it already."""
        request = f"GET {target} HTTP/1.1\r\nHost: {self._host}\r\n{headers}\r\n"
        self._socket.sendall(request.encode())
        received = b""
        while b"\r\n\r\n" not in received:
            piece = self._socket.recv(_BUFFER_BYTES)
            if not piece:
                raise ConnectionError("closed instead of an answer")
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        if found is None or head.split(b" ", 2)[1] not in {b"200", b"206"}:
            raise ConnectionError(head.decode("latin-1"))
        return int(found[1]), body
