"""A threaded, file-backed S3 server for large objects and speed.

A bucket is a directory below the root, most keys are paths in it: put files there and they are
objects. No signature is looked at; the gate does that.
"""

import contextlib
import os
import socket
import ssl
import threading
import time
from email.utils import formatdate
from pathlib import Path
from types import TracebackType

from stsfs.demo.file_server.answers import Answer, Habits, Operations
from stsfs.demo.file_server.socket_reader import PIECE_BYTES, SocketReader
from stsfs.demo.file_server.store import EtagOf, FileStore, Refused, etag_of
from stsfs.demo.file_server.uploads import PART_BYTES_MIN
from stsfs.demo.request_log import RequestLog, SeenRequest
from stsfs.demo.s3_wire import (
    BadRequest,
    Refusal,
    RequestHead,
    parse_request,
    response_bytes,
)

_PACED_PIECE_BYTES = 64 * 1024
_SENDFILE_BYTES_MAX = 2 * 1024 * 1024
"""One sendfile at most: a slow reader must not hold a thread in a system call for long."""

_JOINED_BYTES_MAX = 64 * 1024
"""Up to here head and body leave in one system call."""

_BACKLOG = 512


class FileServer:
    """A context manager; serves in threads while it is entered. `requests` holds what it saw."""

    def __init__(
        self,
        root: Path,
        *,
        first_byte_delay_s: float = 0,
        bytes_per_s: float | None = None,
        part_bytes_min: int = PART_BYTES_MIN,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        etag_of: EtagOf = etag_of,
        habits: Habits | None = None,
    ) -> None:
        """Bind 127.0.0.1, a free port by default.

        `first_byte_delay_s` and `bytes_per_s` (of each connection) imitate a distant S3: 0.02
        and 85e6 are near the real thing. `tls` makes it HTTPS. `etag_of` is for agreeing with
        another server of the same files. `habits` imitate servers of less than S3.
        """
        self.requests = RequestLog()
        self._operations = Operations(
            FileStore(root, etag_of), part_bytes_min=part_bytes_min, habits=habits or Habits()
        )
        self.first_byte_delay_s = first_byte_delay_s
        self.bytes_per_s = bytes_per_s
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "FileServer":
        self._acceptor.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def reset(self) -> None:
        """Forget the requests seen so far."""
        self.requests.reset()

    def stop(self) -> None:
        """Close all connections and wait for the threads."""
        self._stopping.set()
        with self._lock:
            for sock in (self._listener, *self._open):
                _shut(sock)
            threads = list(self._threads)
        if self._acceptor.ident is not None:
            self._acceptor.join()
        self._listener.close()
        for thread in threads:
            thread.join()

    def pause(self, seconds_s: float) -> None:
        """Sleep, but not beyond stop()."""
        self._stopping.wait(seconds_s)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            with self._lock:
                if self._stopping.is_set():
                    sock.close()
                    return
                self._open.add(sock)
                self._threads.add(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        sock = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(plain, server_side=True)
                with self._lock:
                    self._open.discard(plain)
                    self._open.add(sock)
                    if self._stopping.is_set():
                        return
            connection = _Connection(self, sock)
            while connection.answer_one(self._operations):
                pass
        except (OSError, BadRequest, ValueError):
            return  # the client has gone, or does not speak HTTP
        finally:
            with self._lock:
                self._open.discard(sock)
                self._open.discard(plain)
                self._threads.discard(threading.current_thread())
            sock.close()
            plain.close()


class _Connection:
    """One client: reads requests, sends answers."""

    def __init__(self, server: FileServer, sock: socket.socket) -> None:
        self._server = server
        self._socket = sock
        self._reader = SocketReader(sock)

    def answer_one(self, operations: Operations) -> bool:
        """Serve one request; return whether the client may send another."""
        raw_head = self._reader.read_head()
        if raw_head is None:
            return False
        head = parse_request(raw_head)
        record = self._server.requests.see(head)
        body = self._reader.body(head)
        if self._server.first_byte_delay_s:
            self._server.pause(self._server.first_byte_delay_s)
        try:
            answer = operations.answer(head, body)
        except Refused as refused:
            record.verdict = refused.refusal.code
            answer = _refusal_answer(refused.refusal, head)
        except ConnectionError:
            raise
        except OSError as exc:  # the disk, not the client
            record.verdict = "InternalError"
            answer = _refusal_answer(Refusal(500, "InternalError", str(exc)), head)
        for _ in body:  # what the operation has not read would be taken for the next request
            pass
        self._send(head, answer, record)
        return head.keep_alive

    def _send(self, head: RequestHead, answer: Answer, record: SeenRequest) -> None:
        length_bytes = answer.length_bytes if answer.fd is not None else len(answer.body)
        headers = [
            ("x-amz-request-id", f"{id(record):016X}"),
            ("date", formatdate(usegmt=True)),
            ("server", "AmazonS3"),
            *answer.headers,
        ]
        if answer.status != 204:
            headers.append(("content-length", str(length_bytes)))
        raw = response_bytes(answer.status, headers)
        record.status = answer.status
        try:
            if head.method == "HEAD" or answer.status in (204, 304):
                self._socket.sendall(raw)
            elif answer.fd is None:
                record.body_bytes = length_bytes
                self._socket.sendall(raw + answer.body)
            else:
                self._send_file(raw, answer, record)
        finally:
            if answer.fd is not None:
                os.close(answer.fd)

    def _send_file(self, raw: bytes, answer: Answer, record: SeenRequest) -> None:
        fd, start, stop = answer.fd, answer.start_bytes, answer.start_bytes + answer.length_bytes
        assert fd is not None
        rate = self._server.bytes_per_s
        if answer.length_bytes <= _JOINED_BYTES_MAX and not rate:
            record.body_bytes = answer.length_bytes
            self._socket.sendall(raw + os.pread(fd, answer.length_bytes, start))
            return
        by_copy = isinstance(self._socket, ssl.SSLSocket)
        if by_copy:
            self._socket.sendall(raw)
        else:
            self._socket.sendall(raw, socket.MSG_MORE)
        begun_s, piece_bytes = time.monotonic(), PIECE_BYTES if by_copy else _SENDFILE_BYTES_MAX
        if rate:
            piece_bytes = _PACED_PIECE_BYTES
        offset = start
        while offset < stop:
            count = min(piece_bytes, stop - offset)
            record.body_bytes = offset - start + count
            if by_copy:
                piece = os.pread(fd, count, offset)
                self._socket.sendall(piece)
                sent = len(piece)
            else:
                sent = os.sendfile(self._socket.fileno(), fd, offset, count)
            if sent == 0:
                raise ConnectionError("the file was cut short in place")
            offset += sent
            record.body_bytes = offset - start
            if rate:
                ahead_s = (offset - start) / rate - (time.monotonic() - begun_s)
                if ahead_s > 0:
                    self._server.pause(ahead_s)


def _refusal_answer(refusal: Refusal, head: RequestHead) -> Answer:
    headers = [*refusal.headers, ("content-type", "application/xml")]
    return Answer(refusal.status, headers, refusal.body(head.raw_path))


def _shut(sock: socket.socket) -> None:
    """Wake whoever waits in this socket, in whatever state it is."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
