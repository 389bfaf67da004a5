"""ObjectWriter over S3: changes that happen once, and only to what was expected there.

Sources: the S3 API reference (PutObject, CreateMultipartUpload, UploadPart, UploadPartCopy,
CompleteMultipartUpload, AbortMultipartUpload, CopyObject, DeleteObject), and in the user guide
"Add preconditions to S3 operations with conditional requests" and "Checking object integrity".
"""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from stsfs.errors import AccessDenied, StaleVersion, StoreFailure, WriteConflict
from stsfs.store.answers import Answer
from stsfs.store.change import Change, Gone
from stsfs.store.dialect import ALGORITHM, Dialect
from stsfs.store.large_copy import PART_BYTES, copy_in_parts
from stsfs.store.look import Look, is_gone
from stsfs.store.object_store import Body, Expected, ObjectVersion, Part, Traits
from stsfs.store.outgoing import Document
from stsfs.store.signed_bucket import Asked, SignedBucket
from stsfs.store.sigv4 import encode_path
from stsfs.store.stored import Stored, headers_of, receive_stored

COPY_BYTES_MAX = 5 << 30
"""What one CopyObject may copy."""

_PUT, _DELETE = "s3:PutObject", "s3:DeleteObject"
_COPY = f"{_PUT}, or s3:GetObject of what is copied,"
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class S3Writer:
    """Changes to one bucket; made by S3Store.writer.

    Where the server knows no conditions, it is looked before a change what is there. Another
    client's change between that look and ours is lost: the race that such a server leaves.
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
        """Objects of more than copy_bytes_max are copied in parts of copy_part_bytes."""
        self._bucket = bucket
        self._look = look
        self._dialect = Dialect(acl=acl, conditions=conditions)
        self._copy_bytes_max = copy_bytes_max
        self._copy_part_bytes = copy_part_bytes

    async def put(
        self, key: str, body: Body, traits: Traits, *, expected: Expected | None, write_id: str
    ) -> str:
        """See ObjectWriter."""
        change = self._change("put", "PUT", key, _PUT)
        change.expected, change.body = expected, body
        change.headers = lambda: headers_of(traits, write_id) | self._acl()
        change.patience_s = self._bucket.deadline_s / 2
        return await self._once(change, write_id)

    async def begin_upload(self, key: str, traits: Traits, *, write_id: str) -> str:
        """See ObjectWriter. One whose answer is lost stays behind, without parts."""

        def headers() -> dict[str, str]:
            checked = {ALGORITHM: "CRC32C"} if self._dialect.checksums else {}
            return headers_of(traits, write_id) | self._acl() | checked

        change = self._change("begin", "POST", key, _PUT, {"uploads": ""})
        change.headers = headers
        return (await change.made()).upload_id

    async def upload_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        """See ObjectWriter."""
        change = self._change("part", "PUT", key, _PUT, _part_of(upload_id, number))
        change.body = body
        change.patience_s = self._bucket.deadline_s / 2
        made = await change.made()
        return Part(number, made.etag, made.checksum)

    async def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectVersion, start: int, stop: int
    ) -> Part:
        """See ObjectWriter."""
        assert 0 <= start < stop <= source.size_bytes
        ranged = {"x-amz-copy-source-range": f"bytes={start}-{stop - 1}"}
        change = self._change("part_copy", "PUT", key, _COPY, _part_of(upload_id, number))
        change.source = source
        change.headers = lambda: ranged
        change.patience_s = self._bucket.deadline_s
        made = await change.made()
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
        change = self._change("complete", "POST", key, _PUT, {"uploadId": upload_id})
        change.expected = expected
        change.document = Document(_joined(parts))
        change.patience_s = self._bucket.deadline_s
        return await self._once(change, write_id)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """See ObjectWriter."""
        right = "s3:AbortMultipartUpload"
        change = self._change("abort", "DELETE", key, right, {"uploadId": upload_id})
        try:
            await change.made()
        except Gone:
            return

    async def copy(
        self,
        source: ObjectVersion,
        key: str,
        *,
        storage_class: str = "",
        expected: Expected | None = None,
    ) -> str:
        """See ObjectWriter."""
        if source.size_bytes > self._copy_bytes_max:
            return await copy_in_parts(self, source, key, storage_class, self._copy_part_bytes)
        stored_as = {"x-amz-storage-class": storage_class} if storage_class else {}
        change = self._change("copy", "PUT", key, _COPY)
        change.source, change.expected = source, expected
        change.headers = lambda: stored_as | self._acl()
        change.patience_s = self._bucket.deadline_s
        return (await change.made()).etag

    async def delete(self, key: str, *, expected: Expected | None = None) -> None:
        """See ObjectWriter."""
        assert expected is None or expected.etag is not None
        change = self._change("delete", "DELETE", key, _DELETE)
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

    def _change(
        self, kind: str, method: str, key: str, right: str, query: Mapping[str, str] | None = None
    ) -> Change:
        return Change(self._bucket, self._dialect, self._look, kind, method, key, right, query)

    def _acl(self) -> dict[str, str]:
        return {"x-amz-acl": self._dialect.acl} if self._dialect.acl else {}

    async def _once(self, change: Change, write_id: str) -> str:
        """The ETag of what a change has made, also if it did so when an answer was lost."""
        try:
            etag = (await change.made()).etag
        except (WriteConflict, Gone):
            written = await self.written(change.key, write_id)
            if written is None:
                raise
            return written
        if not etag:
            written = await self.written(change.key, write_id)
            if written is None:
                raise StoreFailure(f"The server does not tell what became of {change.key!r}.")
            return written
        return etag

    async def _stored(self, key: str, version: ObjectVersion | None = None) -> Stored:
        """What is stored with an object as it is now, or with this version of it.

        Raises StaleVersion or AccessDenied if there is none.
        """
        ranged = version is None or version.size_bytes > 0
        matched = f"If-Match: {version.etag}\r\n" if version is not None else ""

        async def ask() -> Asked:
            only_first = "Range: bytes=0-0\r\n" if ranged else ""
            return Asked(encode_path(f"/{key}"), "", only_first + matched)

        def again(answer: Answer) -> bool:
            nonlocal ranged
            was, ranged = ranged, ranged and answer.status != 416
            return was and not ranged  # an empty object has no first byte

        trouble = self._bucket.trouble(f"look at {key!r}")
        return await self._bucket.exchange("traits", ask, receive_stored, trouble, again=again)


def _part_of(upload_id: str, number: int) -> dict[str, str]:
    return {"partNumber": str(number), "uploadId": upload_id}


def _joined(parts: Sequence[Part]) -> str:
    """The document that names the parts of a whole."""
    numbers = [part.number for part in parts]
    assert numbers == list(range(1, len(parts) + 1)), "S3 wants no gaps where parts have checksums"
    return (
        f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">'
        + "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag>"
            + (f"<ChecksumCRC32C>{part.checksum}</ChecksumCRC32C>" if part.checksum else "")
            + "</Part>"
            for part in parts
        )
        + "</CompleteMultipartUpload>"
    )
