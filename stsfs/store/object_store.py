"""What stsfs asks of an object store, and the values that travel there."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

NO_TIME_UNIX_S = 0.0
"""The time of an object of which the server tells none."""


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

    unusable: Mapping[str, str] = MappingProxyType({})
    """Keys of rows that make no sense, and why: what is there cannot be shown, read or replaced."""


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
        """One page of the keys below prefix, rolled up at the next delimiter; empty: none are.

        A page without rows is the last one. Names are in byte order, begin with prefix, and are
        hardly more than keys_max; `paging` has what holds from page to page. Of a row that makes no
        sense only the key is told, as unusable; the others are as if it were not there.
        """


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be at a key for a change of it to happen: a version, or nothing at all."""

    etag: str | None
    """As the server writes it, quotes included; None: no object may be there.

    Empty where the server tells none: nothing can be expected then, and the change is not made.
    """


@dataclass(frozen=True, slots=True)
class Traits:
    """What is stored with an object beside its bytes."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    """User metadata: lower-case names without `x-amz-meta-`, ASCII values."""

    content_type: str = ""
    storage_class: str = ""
    """Empty: the bucket's own choice."""


class Part(NamedTuple):
    """One part of a multipart upload, as the server has accepted it."""

    number: int
    etag: str
    checksum: str = ""
    """CRC32C in base64; empty where none was sent."""


class Body(Protocol):
    """Bytes to be sent, as often as it takes."""

    @property
    def size_bytes(self) -> int:
        """How many there are."""

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """Exactly these bytes. Raises StagingFailure."""


class ObjectWriter(Protocol):
    """Changes to the objects of one location.

    Every method retries what is worth retrying, and then raises WriteConflict (what was expected is
    not there), AccessDenied, NotFound (the bucket), TokenRejected, SynapseRefusal, SessionExpired,
    DeadlineExceeded (no progress for that long) or StoreFailure. A change whose answer was lost is
    recognised by `write_id`, a text of its own for each change: it is stored with the object.

    Where a server ignores conditions, it is looked before a change what is there, and once more a
    little later whether the change has lasted: WriteConflict may thus come after it has happened.
    """

    @property
    def copies_parts(self) -> bool:
        """Whether copy_part is worth a try: False once the server has refused it."""

    async def put(
        self, key: str, body: Body, traits: Traits, *, expected: Expected | None, write_id: str
    ) -> str:
        """Make or replace an object; returns its ETag. expected None: whatever is there."""

    async def begin_upload(
        self, key: str, traits: Traits, *, write_id: str, with_copies: bool = False
    ) -> str:
        """Begin a multipart upload; returns its id. with_copies: copy_part will be used in it."""

    async def upload_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        """Send one part, in place of one with the same number."""

    async def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectVersion, start: int, stop: int
    ) -> Part:
        """Make bytes [start, stop) of exactly this version a part, without moving them.

        Raises WriteConflict if source is gone, and PartCopyRefused where the server does not do
        that: then the bytes have to be sent, with upload_part.
        """

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        expected: Expected | None,
        write_id: str,
    ) -> str:
        """Make the object of these parts, numbered 1, 2, 3 …; returns its ETag.

        Without gaps, which S3 refuses where parts have checksums (API reference, CompletedPart).
        """

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Give an upload up; one that is gone is no error."""

    async def copy(
        self,
        source: ObjectVersion,
        key: str,
        *,
        storage_class: str = "",
        expected: Expected | None = None,
        on_upload: Callable[[str], Awaitable[None]] | None = None,
        on_unchecked: Callable[[float], None] | None = None,
    ) -> str:
        """Copy exactly this version, with what is stored beside it; returns the copy's ETag.

        Replaces what is at key if it is what is expected; None: whatever it is. In parts above
        5 GiB: on_upload is told the id of that upload before anything is copied. Raises
        WriteConflict if source is gone, or something else than expected is at key.

        Where the server ignores conditions, on_unchecked may be told, in place of the look whether
        the copy has lasted, in how many seconds the caller is to look for himself.
        """

    async def delete(
        self, key: str, *, expected: Expected | None = None, seen: str | None = None
    ) -> None:
        """Delete an object; one that is gone is no error.

        With expected, another version stays and is WriteConflict. seen is the ETag of what was
        there a moment ago, where any version is to go: a request that is carried out late, after
        its answer was given up, then takes nothing that was made after this call.
        """

    async def traits(self, version: ObjectVersion) -> Traits:
        """What is stored beside exactly this version. Raises StaleVersion."""

    async def written(self, key: str, write_id: str) -> str | None:
        """The ETag of what is at key, if the change of this write_id made it; else None.

        For a change that may have happened although it failed, once it cannot be repeated.
        """

    async def copied(self, source: ObjectVersion, key: str) -> str | None:
        """The ETag of what is at key, if it is a copy of exactly this version; else None.

        Where copies have ETags of their own, only a source that stsfs has made is recognised.
        """
