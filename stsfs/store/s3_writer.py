"""ObjectWriter over S3: changes that happen once, and only to what was expected there.

Sources: the S3 API reference (PutObject, CreateMultipartUpload, UploadPart, UploadPartCopy,
CompleteMultipartUpload, AbortMultipartUpload, CopyObject, DeleteObject), and in the user guide
"Add preconditions to S3 operations with conditional requests" and "Checking object integrity".
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from xml.sax.saxutils import escape

import trio

from stsfs.errors import (
    AccessDenied,
    PartCopyRefused,
    StaleVersion,
    StoreFailure,
    StsfsError,
    WriteConflict,
)
from stsfs.store.answers import Answer
from stsfs.store.capabilities import ALGORITHM, Condition, ServerCapabilities
from stsfs.store.change import Change, Gone
from stsfs.store.etags import told_etag
from stsfs.store.large_copy import PART_BYTES, copy_in_parts
from stsfs.store.look import Look, is_gone
from stsfs.store.object_store import Body, Expected, ObjectVersion, Part, Traits
from stsfs.store.outgoing import Document
from stsfs.store.range_transfer import if_match
from stsfs.store.signed_bucket import Asked, SignedBucket
from stsfs.store.sigv4 import encode_path
from stsfs.store.stored import Stored, headers_of, receive_stored
from stsfs.store.uploads import UploadBook, why_not_copied

COPY_BYTES_MAX = 5 << 30
"""What one CopyObject may copy."""

_PUT, _DELETE = "s3:PutObject", "s3:DeleteObject"
_COPY = f"{_PUT}, or s3:GetObject of what is copied,"
_CHECKSUM = "<ChecksumCRC32C>{}</ChecksumCRC32C>"
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


SUCCESSORS_MAX = 5
"""How often another client may replace what is to be removed, until it is removed unseen."""

RECHECK_S_MIN, RECHECK_S_MAX = 0.05, 2.0
"""When it is looked whether a change has lasted, on a server without conditions."""


class S3Writer:
    """Changes to one bucket; made by S3Store.writer.

    Where the server does not honour the condition of a change, it is looked before it what is
    there, and afterwards whether the change has lasted: as long after it as another client of the
    same speed can have been between its own look and its own change. A client that is slower than
    that can still replace ours unseen: this is the race that such a server leaves.
    """

    def __init__(
        self,
        bucket: SignedBucket,
        look: Look,
        *,
        acl: str,
        conditions: bool,
        copy_bytes_max: int = COPY_BYTES_MAX,
        copy_part_bytes: int = PART_BYTES,
    ) -> None:
        """conditions: they are believed in until more is known, see ServerCapabilities.

        Objects of more than copy_bytes_max are copied in parts of copy_part_bytes.
        """
        self.bucket = bucket
        self.capabilities = ServerCapabilities(acl=acl, conditions=conditions)
        self.uploads = UploadBook()
        self._look = look
        self._copy_bytes_max = copy_bytes_max
        self._copy_part_bytes = copy_part_bytes

    @property
    def copies_parts(self) -> bool:
        """See ObjectWriter."""
        return self.capabilities.copies_parts

    async def put(
        self, key: str, body: Body, traits: Traits, *, expected: Expected | None, write_id: str
    ) -> str:
        """See ObjectWriter."""
        change = self.change("put", "PUT", key, _PUT)
        change.expected, change.body, change.stored = expected, body, self._stored
        change.headers = lambda: headers_of(traits, write_id, change.lineage) | self.acl()
        change.patience_s = self.bucket.deadline_s / 2
        return await self._once(change, write_id)

    async def begin_upload(
        self, key: str, traits: Traits, *, write_id: str, with_copies: bool = False
    ) -> str:
        """See ObjectWriter. One whose answer is lost stays behind, without parts: it is counted."""
        is_checked = False

        def headers() -> dict[str, str]:
            nonlocal is_checked
            known = self.capabilities
            is_checked = known.checksums and (known.checks_copied_parts or not with_copies)
            checked = {ALGORITHM: "CRC32C"} if is_checked else {}
            return headers_of(traits, write_id) | self.acl() | checked

        change = self.change("begin", "POST", key, _PUT, {"uploads": ""})
        change.headers = headers
        change.lost = self.uploads.lost
        upload_id = (await change.made()).upload_id
        self.uploads.begun(upload_id, is_checked=is_checked, with_copies=with_copies)
        return upload_id

    async def upload_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        """See ObjectWriter."""
        change = self.change("part", "PUT", key, _PUT, _part_of(upload_id, number))
        change.body = body
        change.is_checked = self.uploads.is_checked(upload_id)
        change.patience_s = self.bucket.deadline_s / 2
        made = await change.made()
        return Part(number, made.etag, made.checksum)

    async def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectVersion, start: int, stop: int
    ) -> Part:
        """See ObjectWriter."""
        assert 0 <= start < stop <= source.size_bytes
        if not self.copies_parts:
            raise PartCopyRefused(f"The server does not copy parts of {source.key!r}.")
        ranged = {"x-amz-copy-source-range": f"bytes={start}-{stop - 1}"}
        change = self.change("part_copy", "PUT", key, _COPY, _part_of(upload_id, number))
        change.source = source
        change.headers = lambda: ranged
        change.patience_s = self.bucket.deadline_s
        try:
            made = await change.made()
        except (AccessDenied, StoreFailure) as failure:
            why_not = why_not_copied(change.refusal)
            if why_not is None:
                raise
            await change.look_at_source()  # a range of what was replaced may be refused like that
            self.uploads.learn(upload_id, why_not, self.capabilities)
            raise PartCopyRefused(failure.sentence, remedy=failure.remedy) from failure
        return Part(number, made.etag, made.checksum)

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        expected: Expected | None,
        write_id: str,
    ) -> str:
        """See ObjectWriter."""
        change = self.change("complete", "POST", key, _PUT, {"uploadId": upload_id})
        change.expected = expected
        change.document = document_of(parts)
        change.patience_s = self.bucket.deadline_s
        etag = await self._once(change, write_id)
        self.uploads.ended(upload_id)
        return etag

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """See ObjectWriter."""
        right = "s3:AbortMultipartUpload"
        change = self.change("abort", "DELETE", key, right, {"uploadId": upload_id})
        try:
            await change.made()
        except Gone:
            pass
        except StsfsError:
            self.uploads.left(upload_id)
            raise
        self.uploads.ended(upload_id)

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
        """See ObjectWriter."""
        if source.size_bytes > self._copy_bytes_max:
            part_bytes = self._copy_part_bytes
            return await copy_in_parts(
                self, source, key, storage_class, part_bytes, expected=expected, on_upload=on_upload
            )
        stored_as = {"x-amz-storage-class": storage_class} if storage_class else {}
        change = self.change("copy", "PUT", key, _COPY)
        change.source, change.expected = source, expected
        change.headers = lambda: stored_as | self.acl()
        change.patience_s = self.bucket.deadline_s
        try:
            etag = (await change.made()).etag
        except WriteConflict:
            if expected is None:
                raise
            found = await self.copied(source, key) if change.tries_before else None
            if found is None:
                await change.look_at_target(expected.etag)  # else it is the source
                raise
            etag = found
        if change.is_unguarded and on_unchecked is not None:
            on_unchecked(_pause_s(change))
        elif change.is_unguarded:
            await self._pause_since(change)
            await change.look_at_target(etag)
        return etag

    async def delete(
        self, key: str, *, expected: Expected | None = None, seen: str | None = None
    ) -> None:
        """See ObjectWriter. Where the server does not honour the condition, seen means nothing."""
        assert expected is None or expected.etag is not None
        for _ in range(SUCCESSORS_MAX):
            if seen is None or not self.capabilities.honours(Condition.DELETE_IF_MATCH):
                break
            try:
                await self._delete(key, Expected(seen))
                return
            except WriteConflict:
                found = await self._look(key)
                if found is None:
                    return
                seen = found.etag
        await self._delete(key, expected)

    async def _delete(self, key: str, expected: Expected | None) -> None:
        change = self.change("delete", "DELETE", key, _DELETE)
        change.expected = expected
        try:
            await change.made()
        except Gone:
            return

    async def traits(self, version: ObjectVersion) -> Traits:
        """See ObjectWriter."""
        replaced = StaleVersion(f"{version.key!r} was deleted or replaced.")
        try:
            stored = await self._stored(version.key, version)
        except StaleVersion as stale:
            raise replaced from stale
        except AccessDenied as denied:
            if await is_gone(self._look, version.key, version.etag, denied):
                raise replaced from denied
            raise
        if stored.etag != version.etag:  # some servers ignore If-Match
            raise replaced
        return stored.traits

    async def written(self, key: str, write_id: str) -> str | None:
        """See ObjectWriter."""
        try:
            stored = await self._stored(key)
        except (StaleVersion, AccessDenied):
            return None
        return stored.etag if stored.write_id == write_id else None

    async def copied(self, source: ObjectVersion, key: str) -> str | None:
        """See ObjectWriter. A copy takes along what is stored beside the bytes."""
        told_etag(source.etag, source.key)
        try:
            found = await self._stored(key)
            if found.etag == source.etag:
                return found.etag
            stored = await self._stored(source.key, source)
        except (StaleVersion, AccessDenied):
            return None
        return found.etag if stored.write_id and found.write_id == stored.write_id else None

    def change(
        self, kind: str, method: str, key: str, right: str, query: Mapping[str, str] | None = None
    ) -> Change:
        """A request that changes something, to be filled in."""
        return Change(self.bucket, self.capabilities, self._look, kind, method, key, right, query)

    def acl(self) -> dict[str, str]:
        """The header that what makes an object is sent with."""
        return {"x-amz-acl": self.capabilities.acl} if self.capabilities.acl else {}

    async def _once(self, change: Change, write_id: str) -> str:
        """The ETag of what a change has made, also if it did so when an answer was lost."""
        try:
            etag = (await change.made()).etag
        except (WriteConflict, Gone):
            written = await self.written(change.key, write_id)
            if written is None:
                raise
            etag = written
        if not etag:
            written = await self.written(change.key, write_id)
            if written is None:
                raise StoreFailure(f"The server does not tell what became of {change.key!r}.")
            etag = written
        if change.is_unguarded:
            await self._check_that_it_lasts(change, etag, write_id)
        return etag

    async def _check_that_it_lasts(self, change: Change, etag: str, write_id: str) -> None:
        """Raise WriteConflict if somebody has replaced the change who had not seen it."""
        await self._pause_since(change)
        try:
            stored = await self._stored(change.key)
        except (StaleVersion, AccessDenied):  # gone, or it may not be read
            await change.look_at_target(etag)
            return
        if write_id not in stored.lineage():
            raise WriteConflict(
                f"{change.key!r} was overwritten by another client at the same moment; "
                "the server does not prevent that."
            )

    async def _pause_since(self, change: Change) -> None:
        """Until another client that had looked before the change has most likely made its own."""
        await trio.sleep(_pause_s(change))

    async def _stored(self, key: str, version: ObjectVersion | None = None) -> Stored:
        """What is stored with an object as it is now, or with this version of it.

        Raises StaleVersion or AccessDenied if there is none, StoreFailure without an ETag.
        """
        ranged = version is None or version.size_bytes > 0
        matched = if_match(version) if version is not None else ""

        async def ask() -> Asked:
            only_first = "Range: bytes=0-0\r\n" if ranged else ""
            return Asked(encode_path(f"/{key}"), "", only_first + matched)

        def again(answer: Answer) -> bool:
            nonlocal ranged
            was, ranged = ranged, ranged and answer.status != 416
            return was and not ranged  # an empty object has no first byte

        trouble = self.bucket.trouble(f"look at {key!r}")
        stored = await self.bucket.exchange("traits", ask, receive_stored, trouble, again=again)
        told_etag(stored.etag, key)
        return stored


def _pause_s(change: Change) -> float:
    """As long as another client of the same speed can be between its look and its change."""
    taken_s = trio.current_time() - change.looked_at_s
    return min(RECHECK_S_MAX, max(RECHECK_S_MIN, 2 * taken_s))


def _part_of(upload_id: str, number: int) -> dict[str, str]:
    return {"partNumber": str(number), "uploadId": upload_id}


def document_of(parts: Sequence[Part]) -> Document:
    """What names the parts of a whole."""
    numbers = [part.number for part in parts]
    assert numbers == list(range(1, len(parts) + 1)), "S3 wants no gaps where parts have checksums"
    return Document(
        f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">'
        + "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag>"
            + (_CHECKSUM.format(escape(part.checksum)) if part.checksum else "")
            + "</Part>"
            for part in parts
        )
        + "</CompleteMultipartUpload>"
    )
