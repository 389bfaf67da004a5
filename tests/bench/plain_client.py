"""Plain requests over one kept connection: what the network and the server can do by themselves."""

import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

_BUFFER_BYTES = 1024 * 1024
_LENGTH = re.compile(r"content-length: *(\d+)", re.IGNORECASE)
_ETAG = re.compile(r"\r\netag: *(\S+)", re.IGNORECASE)
_UPLOAD_ID = re.compile(r"<UploadId>(.*?)</UploadId>")
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
            page = self._whole(*self._ask(f"/{bucket}?{query}"))
            count += page.count("<Contents>") + page.count("<CommonPrefixes>")
            found = _NEXT.search(page)
            if found is None:
                return count
            token = found[1]

    def put(self, target: str, *pieces: memoryview) -> str:
        """Make an object, or a part of one, of these bytes; its ETag."""
        size_bytes = sum(map(len, pieces))
        self._send("PUT", target, f"Content-Length: {size_bytes}\r\n", *pieces)
        head, body = self._head()
        self._whole(_length(head), body)
        found = _ETAG.search(head)
        if found is None:
            raise ConnectionError(head)
        return found[1]

    def begin_upload(self, target: str) -> str:
        """Begin a multipart upload; its id."""
        found = _UPLOAD_ID.search(self._post(f"{target}?uploads=", b""))
        assert found is not None
        return found[1]

    def complete_upload(self, target: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Make the object of its parts, whose ETags are given by number."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etags[number]}</ETag></Part>"
            for number in sorted(etags)
        )
        document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        self._post(f"{target}?uploadId={upload_id}", document.encode())

    def _post(self, target: str, body: bytes) -> str:
        self._send("POST", target, f"Content-Length: {len(body)}\r\n", memoryview(body))
        head, early = self._head()
        return self._whole(_length(head), early)

    def _whole(self, length_bytes: int, early: bytes) -> str:
        """The body of an answer, of which some has come already."""
        pieces, left_bytes = [early], length_bytes - len(early)
        while left_bytes:
            pieces.append(self._socket.recv(left_bytes))
            left_bytes -= len(pieces[-1])
        return b"".join(pieces).decode()

    def _ask(self, target: str, headers: str = "") -> tuple[int, bytes]:
        """Send a request; the length of the answer's body, and what has come of it already."""
        self._send("GET", target, headers)
        head, body = self._head()
        return _length(head), body

    def _send(self, method: str, target: str, headers: str, *body: memoryview) -> None:
        request = f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\n{headers}\r\n"
        self._socket.sendall(request.encode())
        for piece in body:
            self._socket.sendall(piece)

    def _head(self) -> tuple[str, bytes]:
        """The head of an answer, and what has come of its body already."""
        received = b""
        while b"\r\n\r\n" not in received:
            piece = self._socket.recv(_BUFFER_BYTES)
            if not piece:
                raise ConnectionError("closed instead of an answer")
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        text = head.decode("latin-1")
        if text.split(" ", 2)[1] not in {"200", "206"}:
            raise ConnectionError(text)
        return text, body


def _length(head: str) -> int:
    found = _LENGTH.search(head)
    if found is None:
        raise ConnectionError(head)
    return int(found[1])
