"""What stsfs asks of an object store, and the values that travel there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One immutable state of one object of one location. Cached bytes belong to a version.

    A key alone names something that changes; key and ETag together do not, so nothing may be
    cached, joined or resumed under a bare key.
    """

    location_id: int
    key: str
    etag: str
    """As the server writes it, quotes included."""

    size_bytes: int


class ListedObject(NamedTuple):
    """One object as a LIST page shows it."""

    key: str
    etag: str
    size_bytes: int
    modified_unix_s: float
    storage_class: str


class ListPage(NamedTuple):
    """One page of a LIST: objects and common prefixes, each in byte order of their keys."""

    objects: Sequence[ListedObject]
    prefixes: Sequence[str]
    next_token: str | None
    """None on the last page."""


class RangeSink(Protocol):
    """Where the bytes of a range go. Owned by the store, implemented by the cache.

    The store calls `confirmed` once, when the server has agreed to the version, and then `buffer`
    and `received` in turn until all bytes are there. All three are synchronous: a sink never makes
    the wire wait.
    """

    def confirmed(self) -> None:
        """The server serves this very version."""

    def buffer(self) -> memoryview:
        """Writable memory for the next bytes; not empty while bytes are missing."""

    def received(self, count_bytes: int) -> None:
        """count_bytes more bytes lie in the memory that `buffer` gave last."""


class ObjectStore(Protocol):
    """Range reads and listings of one location.

    Every method retries what is worth retrying, within the caller's deadline, and then raises
    StaleVersion, AccessDenied, ArchivedObject, NotFound (the bucket), TokenRejected,
    SynapseRefusal, SessionExpired or StoreFailure; nothing else. Every method is a checkpoint and
    leaves nothing behind when cancelled.
    """

    async def read_range(
        self, version: ObjectVersion, start: int, stop: int, sink: RangeSink, *, ahead: bool = False
    ) -> None:
        """Deliver bytes [start, stop) of exactly this version to sink.

        ahead marks bytes nobody waits for yet; they leave connections free for those who do.
        """

    async def confirm(self, version: ObjectVersion) -> None:
        """Return when the server still has this very version; one request for one byte."""

    async def list_page(
        self,
        prefix: str,
        *,
        token: str | None = None,
        start_after: str = "",
        keys_max: int = 1000,
        delimiter: str = "/",
    ) -> ListPage:
        """One page of the keys below prefix, rolled up at the next delimiter; empty: none are."""
