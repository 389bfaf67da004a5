"""What a test server has seen: a bounded list, counters, and a way to wait for the n-th request."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import trio

from stsfs.demo.s3_wire import RequestHead

RECORDS_MAX = 100_000
"""Records kept; the oldest go first. Counters are not affected."""


@dataclass(slots=True)
class SeenRequest:
    """One request.

    `status` is set before the answer's head goes out, `body_bytes` before each piece does: who has
    read an answer finds both complete.
    """

    kind: str
    """GET, HEAD, LIST, PUT, COPY, PART, PART_COPY, DELETE, DELETE_MANY, MULTIPART or OTHER."""

    method: str
    bucket: str
    key: str
    query: str
    range: str
    """The Range header, or empty."""

    sent_bytes: int = 0
    """Content-Length of the request: its body, in whatever framing."""

    status: int = 0
    body_bytes: int = 0
    verdict: str = ""
    """The error code of a refusal made here, or empty."""


def kind_of(head: RequestHead) -> str:
    """Name the sort of request, as counters and fault filters use it."""
    params, has_source = head.params, bool(head.header("x-amz-copy-source"))
    match head.method:
        case "GET" if head.key:
            return "OTHER" if params.keys() & {"uploadId", "acl", "tagging"} else "GET"
        case "GET" if head.bucket:
            listed = {"location", "uploads", "versions", "versioning", "acl", "tagging", "policy"}
            return "OTHER" if params.keys() & listed else "LIST"
        case "HEAD":
            return "HEAD"
        case "PUT" if head.key and "partNumber" in params:
            return "PART_COPY" if has_source else "PART"
        case "PUT" if head.key and not params.keys() & {"acl", "tagging"}:
            return "COPY" if has_source else "PUT"
        case "DELETE" if head.key:
            return "MULTIPART" if "uploadId" in params else "DELETE"
        case "POST" if "delete" in params:
            return "DELETE_MANY"
        case "POST" if params.keys() & {"uploads", "uploadId"}:
            return "MULTIPART"
    return "OTHER"


class RequestLog:
    """Thread-safe: written by the server's threads, read by the test. Iterates a snapshot."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._records: deque[SeenRequest] = deque(maxlen=RECORDS_MAX)
        self._counts: Counter[str] = Counter()
        self._waiters: list[tuple[int, str | None, Callable[[], None]]] = []

    def __iter__(self) -> Iterator[SeenRequest]:
        with self._changed:
            return iter(list(self._records))

    def __len__(self) -> int:
        with self._changed:
            return len(self._records)

    @property
    def counts(self) -> Counter[str]:
        """A copy of the counters by kind, and by verdict where there is one."""
        with self._changed:
            return Counter(self._counts)

    def count(self, kind: str | None = None) -> int:
        """Requests of that kind (or verdict) since the last reset; of all kinds if None."""
        with self._changed:
            return self._count(kind)

    def of_kind(self, kind: str) -> list[SeenRequest]:
        """The kept records of one kind, oldest first."""
        return [record for record in self if record.kind == kind]

    def reset(self) -> None:
        """Forget all records and counts."""
        with self._changed:
            self._records.clear()
            self._counts.clear()

    def add(self, record: SeenRequest) -> SeenRequest:
        """Remember a request that has just arrived, and wake who waits for it; return it."""
        with self._changed:
            self._records.append(record)
            self._counts[record.kind] += 1
            if record.verdict:
                self._counts[record.verdict] += 1
            self._counts[""] += 1
            self._changed.notify_all()
            due = [w for w in self._waiters if self._count(w[1]) >= w[0]]
            self._waiters = [w for w in self._waiters if w not in due]
        for _, _, wake in due:
            wake()
        return record

    def see(self, head: RequestHead, kind: str = "", verdict: str = "") -> SeenRequest:
        """Remember a request by its head; return the record, to be completed by the server."""
        kind = kind or kind_of(head)
        return self.add(
            SeenRequest(
                kind, head.method, head.bucket, head.key, head.raw_query, head.header("range"),
                _length_bytes(head), verdict=verdict,
            )
        )  # fmt: skip

    def wait_for(self, count: int, kind: str | None = None, *, timeout_s: float = 120) -> None:
        """Block until that many requests of the kind have arrived. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count(kind) >= count, timeout_s):
                raise TimeoutError(f"{self._count(kind)} of {count} requests after {timeout_s} s")

    async def seen(self, count: int, kind: str | None = None) -> None:
        """Wait in trio until that many requests of the kind have arrived."""
        token, event = trio.lowlevel.current_trio_token(), trio.Event()

        def wake() -> None:
            try:
                token.run_sync_soon(event.set)
            except trio.RunFinishedError:
                return  # who waited was cancelled, and its loop is gone

        with self._changed:
            if self._count(kind) >= count:
                event.set()
            else:
                self._waiters.append((count, kind, wake))
        await event.wait()

    def _count(self, kind: str | None) -> int:
        return self._counts[kind or ""]


def _length_bytes(head: RequestHead) -> int:
    length = head.header("content-length")
    return int(length) if length.isdecimal() else 0
