"""What the file server answers to each S3 operation, apart from sending it."""

import base64
import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Literal, get_args

from stsfs.demo.file_server import uploads
from stsfs.demo.file_server.checksums import ALGORITHM, HEADER, Checksum
from stsfs.demo.file_server.listing import Lister, iso_time, list_objects_v2
from stsfs.demo.file_server.store import (
    PRECONDITION_FAILED,
    STORAGE_CLASS,
    BucketDirectory,
    Conditions,
    FileStore,
    Refused,
    etag_matches,
    read_metadata,
)
from stsfs.demo.s3_wire import XMLNS, Refusal, RequestHead, plus_unquote, xml_text, xml_values

Condition = Literal["put", "complete", "copy", "copy-source", "delete"]
"""Changes that can be conditional."""

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_COPY_PIECE_BYTES = 1024 * 1024
_NOT_IMPLEMENTED = Refusal(
    501, "NotImplemented", "A header you provided implies functionality that is not implemented"
)


@dataclass(slots=True)
class Answer:
    """Status, headers, and a body in memory or a piece of an open file."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    fd: int | None = None
    """Open file to send [start, start + length) of; whoever sends closes it."""

    start_bytes: int = 0
    length_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Habits:
    """What servers of less than S3 do otherwise."""

    ignored_conditions: frozenset[Condition] = frozenset()
    """Changes that happen whatever their conditions say."""

    copies_into_checked: bool = True
    """UploadPartCopy is done in uploads that have a checksum algorithm."""


EVERY_CONDITION: frozenset[Condition] = frozenset(get_args(Condition))


class Operations:
    """Decides and stores; `body` yields the request's body, already unframed."""

    def __init__(self, store: FileStore, *, part_bytes_min: int, habits: Habits) -> None:
        self._store, self._habits = store, habits
        self._lister = Lister()
        self._part_bytes_min = part_bytes_min

    def answer(self, head: RequestHead, body: Iterator[bytes]) -> Answer:
        """Carry the request out. Raises Refused."""
        params = head.params
        if not head.key:
            return self._bucket(head, body)
        bucket, key = self._store.bucket(head.bucket), _utf8(head.key)
        match head.method:
            case "GET" if "uploadId" in params:
                return _xml("ListPartsResult", _parts(bucket, key, params["uploadId"]))
            case "GET" | "HEAD":
                return _get(bucket, key, head)
            case "PUT":
                return self._put(bucket, key, head, body)
            case "DELETE" if "uploadId" in params:
                uploads.abort(bucket, key, params["uploadId"])
                return Answer(204)
            case "DELETE":
                if_match = self._conditions(head, "delete").if_match
                bucket.delete(key, Conditions(if_match))
                return Answer(204)
            case "POST" if "uploads" in params:
                algorithm = head.header(ALGORITHM)
                upload_id = uploads.create(bucket, key, _metadata(head), algorithm)
                return _xml("InitiateMultipartUploadResult", _named(head, UploadId=upload_id))
            case "POST" if "uploadId" in params:
                conditions = self._conditions(head, "complete")
                status = uploads.complete(
                    bucket, key, params["uploadId"], b"".join(body), conditions,
                    part_bytes_min=self._part_bytes_min,
                )  # fmt: skip
                return _xml(
                    "CompleteMultipartUploadResult", _named(head, ETag=bucket.etag_of(status))
                )
        raise Refused(_NOT_IMPLEMENTED)

    def _bucket(self, head: RequestHead, body: Iterator[bytes]) -> Answer:
        params = head.params
        if not head.bucket:
            names = "".join(f"<Bucket><Name>{xml_text(n)}</Name></Bucket>"
                            for n in self._store.names())  # fmt: skip
            return _xml("ListAllMyBucketsResult", f"<Buckets>{names}</Buckets>")
        if head.method == "PUT":
            self._store.create(head.bucket)
            return Answer()
        bucket = self._store.bucket(head.bucket)
        match head.method:
            case "HEAD":
                return Answer(headers=[("x-amz-bucket-region", "us-east-1")])
            case "GET" if "location" in params:
                return _xml("LocationConstraint", "")
            case "GET" if "versioning" in params:
                return _xml("VersioningConfiguration", "")
            case "GET" if "uploads" in params:
                return _xml("ListMultipartUploadsResult", _pending(bucket))
            case "GET" if params.get("list-type") == "2":
                document = list_objects_v2(self._lister, bucket, head.bucket, params)
                return Answer(headers=[("content-type", "application/xml")], body=document)
            case "POST" if "delete" in params:
                return _delete_many(bucket, b"".join(body))
        raise Refused(_NOT_IMPLEMENTED)

    def _put(
        self, bucket: BucketDirectory, key: bytes, head: RequestHead, body: Iterator[bytes]
    ) -> Answer:
        if len(key) > 1024:
            raise Refused(Refusal(400, "KeyTooLongError", "Your key is too long"))
        pieces, part = _checked(body, head.header("content-md5")), "partNumber" in head.params
        stored, copies = _metadata(head), bool(head.header("x-amz-copy-source"))
        if copies:
            pieces, copied = self._source(head)
            if head.header("x-amz-metadata-directive").upper() != "REPLACE":
                copied.pop(STORAGE_CLASS, None)  # does not travel, other than the rest
                stored = copied | {n: v for n, v in stored.items() if n == STORAGE_CLASS}
        checksum = Checksum(head.header(HEADER))
        if part:
            if copies and not self._habits.copies_into_checked:
                uploads.refuse_checked(bucket, key, head.params.get("uploadId", ""))
            number, upload_id = head.params["partNumber"], head.params.get("uploadId", "")
            etag = uploads.put_part(bucket, key, upload_id, number, pieces, checksum)
        else:
            staged = bucket.stage(checksum.over(pieces))
            conditions = self._conditions(head, "copy" if copies else "put")
            etag = bucket.etag_of(bucket.publish(key, staged, stored, conditions))
        if not copies:
            return Answer(headers=[("etag", etag), *checksum.headers()])
        element = "CopyPartResult" if part else "CopyObjectResult"
        modified = f"<LastModified>{iso_time(int(time.time()))}</LastModified>"
        return _xml(element, f"<ETag>{xml_text(etag)}</ETag>{modified}{checksum.element()}")

    def _conditions(self, head: RequestHead, change: Condition) -> Conditions:
        if change in self._habits.ignored_conditions:
            return Conditions()
        return Conditions(head.header("if-match"), head.header("if-none-match"))

    def _source(self, head: RequestHead) -> tuple[Iterator[bytes], dict[str, str]]:
        """The bytes and metadata a copy reads. Raises Refused."""
        value = plus_unquote(head.header("x-amz-copy-source").partition("?")[0]).removeprefix("/")
        bucket_name, _, key = value.partition("/")
        bucket = self._store.bucket(bucket_name)
        fd, status = bucket.open(_utf8(key))
        match_header = head.header("x-amz-copy-source-if-match")
        if "copy-source" in self._habits.ignored_conditions:
            match_header = ""
        if match_header and not etag_matches(match_header, bucket.etag_of(status)):
            os.close(fd)
            raise Refused(PRECONDITION_FAILED)
        found = _RANGE.fullmatch(head.header("x-amz-copy-source-range"))
        start, stop = (int(found[1]), int(found[2]) + 1) if found else (0, status.st_size)
        if stop > status.st_size:
            os.close(fd)
            raise Refused(Refusal(400, "InvalidArgument", "Range specified is not valid"))
        return _file_pieces(fd, start, stop), read_metadata(fd)


def _get(bucket: BucketDirectory, key: bytes, head: RequestHead) -> Answer:
    fd, status = bucket.open(key)
    try:
        etag, stored = bucket.etag_of(status), read_metadata(fd)
        answer = Answer(fd=fd, length_bytes=status.st_size)
        answer.headers = [
            ("last-modified", formatdate(int(status.st_mtime), usegmt=True)),
            ("etag", etag),
            ("accept-ranges", "bytes"),
            ("content-type", stored.pop("content-type", "binary/octet-stream")),
            *stored.items(),
        ]
        if head.header("if-match") and not etag_matches(head.header("if-match"), etag):
            raise Refused(PRECONDITION_FAILED)
        if head.header("if-none-match") and etag_matches(head.header("if-none-match"), etag):
            os.close(fd)
            answer.status, answer.fd, answer.length_bytes = 304, None, 0
            return answer
        wanted = byte_range(head.header("range"), status.st_size)
        if wanted is not None:
            start, stop = wanted
            answer.status, answer.start_bytes, answer.length_bytes = 206, start, stop - start
            content_range = f"bytes {start}-{stop - 1}/{status.st_size}"
            answer.headers.append(("content-range", content_range))
    except Refused:
        os.close(fd)
        raise
    return answer


def byte_range(header: str, size_bytes: int) -> tuple[int, int] | None:
    """Read a Range header as [start, stop); None where S3 ignores it. Raises Refused(416)."""
    found = _RANGE.fullmatch(header)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, stop = max(0, size_bytes - int(found[2])), size_bytes
        satisfiable = int(found[2]) > 0 and size_bytes > 0
    else:
        start = int(found[1])
        if found[2] and int(found[2]) < start:
            return None
        stop = min(size_bytes, int(found[2]) + 1) if found[2] else size_bytes
        satisfiable = start < size_bytes
    if satisfiable:
        return start, stop
    raise Refused(
        Refusal(
            416, "InvalidRange", "The requested range is not satisfiable",
            {"RangeRequested": header, "ActualObjectSize": str(size_bytes)},
            (("content-range", f"bytes */{size_bytes}"),),
        )
    )  # fmt: skip


def _delete_many(bucket: BucketDirectory, document: bytes) -> Answer:
    keys = xml_values(document, "Key")
    for key in keys:
        bucket.delete(_utf8(key), Conditions())
    quiet = xml_values(document, "Quiet") == ["true"]
    deleted = "".join(f"<Deleted><Key>{xml_text(key)}</Key></Deleted>" for key in keys)
    return _xml("DeleteResult", "" if quiet else deleted)


def _parts(bucket: BucketDirectory, key: bytes, upload_id: str) -> str:
    return "<IsTruncated>false</IsTruncated>" + "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{xml_text(bucket.etag_of(status))}</ETag>"
        f"<LastModified>{iso_time(int(status.st_mtime))}</LastModified>"
        f"<Size>{status.st_size}</Size></Part>"
        for number, status in uploads.parts(bucket, key, upload_id)
    )


def _pending(bucket: BucketDirectory) -> str:
    return "<IsTruncated>false</IsTruncated>" + "".join(
        f"<Upload><Key>{xml_text(os.fsdecode(key))}</Key><UploadId>{upload_id}</UploadId></Upload>"
        for key, upload_id in uploads.pending(bucket)
    )


def _xml(element: str, inner: str) -> Answer:
    document = f'<?xml version="1.0" encoding="UTF-8"?>\n<{element} {XMLNS}>{inner}</{element}>'
    return Answer(
        headers=[("content-type", "application/xml")],
        body=document.encode("utf-8", "surrogateescape"),
    )


def _named(head: RequestHead, **elements: str) -> str:
    everything = {"Bucket": head.bucket, "Key": head.key, **elements}
    return "".join(f"<{name}>{xml_text(text)}</{name}>" for name, text in everything.items())


def _metadata(head: RequestHead) -> dict[str, str]:
    return {
        name: value for name, value in head.headers
        if name == "content-type" or name.startswith("x-amz-meta-")
        or (name == STORAGE_CLASS and value != "STANDARD")
    }  # fmt: skip


def _checked(pieces: Iterator[bytes], content_md5: str) -> Iterator[bytes]:
    if not content_md5:
        yield from pieces
        return
    digest = hashlib.md5(usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
        yield piece
    if base64.b64encode(digest.digest()).decode() != content_md5:
        message = "The Content-MD5 you specified did not match what we received."
        raise Refused(Refusal(400, "BadDigest", message))


def _file_pieces(fd: int, start: int, stop: int) -> Iterator[bytes]:
    with os.fdopen(fd, "rb") as file:
        file.seek(start)
        while start < stop:
            piece = file.read(min(_COPY_PIECE_BYTES, stop - start))
            if not piece:
                return
            start += len(piece)
            yield piece


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
