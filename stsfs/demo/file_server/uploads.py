"""Multipart uploads and copies of the file server.

Requests of one upload come at the same time. What ends it takes its directory away in one step;
whoever works in it then finds no file, and answers that there is no such upload.
"""

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from stsfs.demo.file_server.checksums import Checksum
from stsfs.demo.file_server.store import (
    UPLOADS,
    BucketDirectory,
    Conditions,
    Refused,
    etag_matches,
)
from stsfs.demo.s3_wire import Refusal, xml_values

PART_BYTES_MIN = 5 * 1024 * 1024
"""What S3 demands of every part but the last."""

PART_NUMBER_MAX = 10_000
_COPIED_AT_ONCE_BYTES = 64 * 1024 * 1024
_CHECKSUM_XATTR = "user.s3-crc32c"
_PART = re.compile(rb"<Part>.*?</Part>", re.DOTALL)
_UPLOAD_ID = re.compile("[0-9a-f]{32}")

_NO_SUCH_UPLOAD = Refusal(404, "NoSuchUpload", "The specified multipart upload does not exist.")
_INVALID_PART = Refusal(
    400, "InvalidPart", "One or more of the specified parts could not be found."
)


class _Upload(NamedTuple):
    """What was said when an upload began."""

    directory: bytes
    metadata: Mapping[str, str]
    checked: bool
    """Its parts have checksums, and are completed with them."""


def create(
    bucket: BucketDirectory, key: bytes, metadata: Mapping[str, str], algorithm: str = ""
) -> str:
    """Begin an upload; return its id. Of the checksum algorithms, CRC32C is known."""
    upload_id = uuid.uuid4().hex
    directory = os.path.join(bucket.path, UPLOADS, upload_id.encode())
    os.makedirs(directory)
    with open(os.path.join(directory, b"upload.json"), "w") as file:
        checked = algorithm.upper() == "CRC32C"
        json.dump({"key": key.hex(), "metadata": dict(metadata), "checked": checked}, file)
    return upload_id


def put_part(
    bucket: BucketDirectory,
    key: bytes,
    upload_id: str,
    number: str,
    pieces: Iterable[bytes],
    checksum: Checksum,
) -> str:
    """Store a part, in place of one with the same number; return its ETag. Raises Refused."""
    upload = _upload(bucket, key, upload_id)
    if not number.isdecimal() or not 1 <= int(number) <= PART_NUMBER_MAX:
        message = "Part number must be an integer between 1 and 10000, inclusive"
        raise Refused(Refusal(400, "InvalidArgument", message))
    checksum.wanted = checksum.wanted or upload.checked
    staged = bucket.stage(checksum.over(pieces))
    if checksum.value:
        os.setxattr(staged, _CHECKSUM_XATTR, checksum.value.encode())
    path = _part_path(upload.directory, int(number))
    with _there():
        try:
            os.replace(staged, path)
        except FileNotFoundError:
            os.unlink(staged)
            raise
        return bucket.etag_of(os.stat(path))


def refuse_checked(bucket: BucketDirectory, key: bytes, upload_id: str) -> None:
    """Raise Refused for an upload whose parts have checksums."""
    if _upload(bucket, key, upload_id).checked:
        raise Refused(Refusal(400, "InvalidArgument", "Invalid Argument"))


def parts(bucket: BucketDirectory, key: bytes, upload_id: str) -> list[tuple[int, os.stat_result]]:
    """The parts stored so far, by number. Raises Refused."""
    directory = _upload(bucket, key, upload_id).directory
    with _there():
        numbers = sorted(int(name) for name in os.listdir(directory) if name.isdigit())
        return [(number, os.stat(_part_path(directory, number))) for number in numbers]


def complete(
    bucket: BucketDirectory,
    key: bytes,
    upload_id: str,
    document: bytes,
    conditions: Conditions,
    *,
    part_bytes_min: int,
) -> os.stat_result:
    """Join the parts that the document names into the object. Raises Refused."""
    upload = _upload(bucket, key, upload_id)
    with _there():
        chosen = _chosen_parts(bucket, upload, document, part_bytes_min)
        current = bucket.status(key)
        conditions.check(bucket.etag_of(current) if current else None)
        staged = _joined(bucket, chosen)
    status = bucket.publish(key, staged, upload.metadata, conditions)
    _end(bucket, upload)
    return status


def abort(bucket: BucketDirectory, key: bytes, upload_id: str) -> None:
    """Forget an upload and its parts. Raises Refused."""
    _end(bucket, _upload(bucket, key, upload_id))


def pending(bucket: BucketDirectory) -> list[tuple[bytes, str]]:
    """Keys and ids of the uploads that are neither completed nor aborted, by key."""
    directory = os.path.join(bucket.path, UPLOADS)
    ids = os.listdir(directory) if os.path.isdir(directory) else []
    found = []
    for upload_id in ids:
        with (
            contextlib.suppress(FileNotFoundError),
            open(os.path.join(directory, upload_id, b"upload.json")) as file,
        ):
            found.append((bytes.fromhex(json.load(file)["key"]), upload_id.decode()))
    return sorted(found)


@contextlib.contextmanager
def _there() -> Iterator[None]:
    """Raises Refused where the directory of an upload is gone meanwhile."""
    try:
        yield
    except FileNotFoundError as exc:
        raise Refused(_NO_SUCH_UPLOAD) from exc


def _end(bucket: BucketDirectory, upload: _Upload) -> None:
    """Take an upload away in one step, and remove what it had."""
    with _there():
        away = bucket.staging_directory()
        os.rename(upload.directory, away)
    shutil.rmtree(away)


def _joined(bucket: BucketDirectory, paths: Iterable[bytes]) -> bytes:
    """The path of a new hidden file with the bytes of all these."""
    fd, staged = bucket.staging_file()
    try:
        with os.fdopen(fd, "wb") as target:
            for path in paths:
                with open(path, "rb") as source:
                    while os.sendfile(
                        target.fileno(), source.fileno(), None, _COPIED_AT_ONCE_BYTES
                    ):
                        pass
    except BaseException:
        os.unlink(staged)
        raise
    return staged


def _chosen_parts(
    bucket: BucketDirectory, upload: _Upload, document: bytes, part_bytes_min: int
) -> list[bytes]:
    paths, last_number = [], 0
    found = _PART.findall(document)
    for position, part in enumerate(found, 1):
        number, etag = int(xml_values(part, "PartNumber")[0]), xml_values(part, "ETag")[0]
        path = _part_path(upload.directory, number)
        if not os.path.exists(path):
            raise Refused(_INVALID_PART)
        status = os.stat(path)
        if not etag_matches(etag, bucket.etag_of(status)):
            raise Refused(_INVALID_PART)
        _check(upload, path, part, number, position)
        if number <= last_number:
            message = "The list of parts was not in ascending order."
            raise Refused(Refusal(400, "InvalidPartOrder", message))
        if position < len(found) and status.st_size < part_bytes_min:
            message = "Your proposed upload is smaller than the minimum allowed size"
            raise Refused(Refusal(400, "EntityTooSmall", message))
        paths.append(path)
        last_number = number
    if not paths:
        raise Refused(Refusal(400, "MalformedXML", "You must specify at least one part"))
    return paths


def _check(upload: _Upload, path: bytes, part: bytes, number: int, position: int) -> None:
    """Refuse a part whose checksum is another one, or is missing where it must be told.

    Sources: CompletedPart in the S3 API reference, on gaps between numbers; "The upload was
    created using a crc32c checksum" is how AWS answers where one is missing.
    """
    told = xml_values(part, "ChecksumCRC32C")
    try:
        stored = os.getxattr(path, _CHECKSUM_XATTR).decode()
    except OSError:
        stored = ""
    if told and told[0] != stored:
        raise Refused(_INVALID_PART)
    if upload.checked and not told:
        message = "The upload was created using a crc32c checksum. The complete request must "
        message += f"include the checksum for each part. It was missing for part {number}."
        raise Refused(Refusal(400, "InvalidRequest", message))
    if upload.checked and number != position:
        message = "Parts with checksums have consecutive numbers."
        raise Refused(Refusal(500, "InternalError", message))


def _upload(bucket: BucketDirectory, key: bytes, upload_id: str) -> _Upload:
    directory = os.path.join(bucket.path, UPLOADS, upload_id.encode())
    if not _UPLOAD_ID.fullmatch(upload_id):
        raise Refused(_NO_SUCH_UPLOAD)
    with _there(), open(os.path.join(directory, b"upload.json")) as file:
        upload = json.load(file)
    if bytes.fromhex(upload["key"]) != key:
        raise Refused(_NO_SUCH_UPLOAD)
    return _Upload(directory, upload["metadata"], upload["checked"])


def _part_path(directory: bytes, number: int) -> bytes:
    return os.path.join(directory, b"%05d" % number)
