"""Multipart uploads and copies of the file server."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping

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
_PART = re.compile(rb"<Part>.*?</Part>", re.DOTALL)
_UPLOAD_ID = re.compile("[0-9a-f]{32}")

_NO_SUCH_UPLOAD = Refusal(404, "NoSuchUpload", "The specified multipart upload does not exist.")
_INVALID_PART = Refusal(
    400, "InvalidPart", "One or more of the specified parts could not be found."
)


def create(bucket: BucketDirectory, key: bytes, metadata: Mapping[str, str]) -> str:
    """Begin an upload; return its id."""
    upload_id = uuid.uuid4().hex
    directory = os.path.join(bucket.path, UPLOADS, upload_id.encode())
    os.makedirs(directory)
    with open(os.path.join(directory, b"upload.json"), "w") as file:
        json.dump({"key": key.hex(), "metadata": dict(metadata)}, file)
    return upload_id


def put_part(
    bucket: BucketDirectory, key: bytes, upload_id: str, number: str, pieces: Iterable[bytes]
) -> str:
    """Store a part, in place of one with the same number; return its ETag. Raises Refused."""
    directory, _ = _upload(bucket, key, upload_id)
    if not number.isdecimal() or not 1 <= int(number) <= PART_NUMBER_MAX:
        message = "Part number must be an integer between 1 and 10000, inclusive"
        raise Refused(Refusal(400, "InvalidArgument", message))
    staged = bucket.stage(pieces)
    path = _part_path(directory, int(number))
    os.replace(staged, path)
    return bucket.etag_of(os.stat(path))


def parts(bucket: BucketDirectory, key: bytes, upload_id: str) -> list[tuple[int, os.stat_result]]:
    """The parts stored so far, by number. Raises Refused."""
    directory, _ = _upload(bucket, key, upload_id)
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
    directory, metadata = _upload(bucket, key, upload_id)
    chosen = _chosen_parts(bucket, directory, document, part_bytes_min)
    current = bucket.status(key)
    conditions.check(bucket.etag_of(current) if current else None)
    fd, staged = bucket.staging_file()
    with os.fdopen(fd, "wb") as target:
        for path in chosen:
            with open(path, "rb") as source:
                shutil.copyfileobj(source, target, 1024 * 1024)
    status = bucket.publish(key, staged, metadata, conditions)
    shutil.rmtree(directory)
    return status


def abort(bucket: BucketDirectory, key: bytes, upload_id: str) -> None:
    """Forget an upload and its parts. Raises Refused."""
    directory, _ = _upload(bucket, key, upload_id)
    shutil.rmtree(directory)


def pending(bucket: BucketDirectory) -> list[tuple[bytes, str]]:
    """Keys and ids of the uploads that are neither completed nor aborted, by key."""
    directory = os.path.join(bucket.path, UPLOADS)
    ids = os.listdir(directory) if os.path.isdir(directory) else []
    found = []
    for upload_id in ids:
        with open(os.path.join(directory, upload_id, b"upload.json")) as file:
            found.append((bytes.fromhex(json.load(file)["key"]), upload_id.decode()))
    return sorted(found)


def _chosen_parts(
    bucket: BucketDirectory, directory: bytes, document: bytes, part_bytes_min: int
) -> list[bytes]:
    paths, last_number = [], 0
    found = _PART.findall(document)
    for position, part in enumerate(found, 1):
        number, etag = int(xml_values(part, "PartNumber")[0]), xml_values(part, "ETag")[0]
        path = _part_path(directory, number)
        if not os.path.exists(path):
            raise Refused(_INVALID_PART)
        status = os.stat(path)
        if not etag_matches(etag, bucket.etag_of(status)):
            raise Refused(_INVALID_PART)
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


def _upload(bucket: BucketDirectory, key: bytes, upload_id: str) -> tuple[bytes, Mapping[str, str]]:
    directory = os.path.join(bucket.path, UPLOADS, upload_id.encode())
    if not _UPLOAD_ID.fullmatch(upload_id) or not os.path.isdir(directory):
        raise Refused(_NO_SUCH_UPLOAD)
    with open(os.path.join(directory, b"upload.json")) as file:
        upload = json.load(file)
    if bytes.fromhex(upload["key"]) != key:
        raise Refused(_NO_SUCH_UPLOAD)
    metadata: dict[str, str] = upload["metadata"]
    return directory, metadata


def _part_path(directory: bytes, number: int) -> bytes:
    return os.path.join(directory, b"%05d" % number)
