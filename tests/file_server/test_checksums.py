"""The file server and what travels beside the bytes: checksums, storage classes."""

import base64

import crc32c
import pytest

from tests.file_server.clients import outcome

DATA, MORE = b"0123456789", b"abcdefghij"


def checksum(data):
    return base64.b64encode(crc32c.crc32c(data).to_bytes(4, "big")).decode()


def begun(s3, **options):
    made = s3.create_multipart_upload(Bucket="data", Key="k", **options)
    return {"Bucket": "data", "Key": "k", "UploadId": made["UploadId"]}


def part(s3, upload, number, data, told=None):
    sent = s3.upload_part(
        **upload, PartNumber=number, Body=data, ChecksumCRC32C=told or checksum(data)
    )
    return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumCRC32C": sent["ChecksumCRC32C"]}


def completed(s3, upload, *parts):
    return outcome(s3.complete_multipart_upload, **upload, MultipartUpload={"Parts": list(parts)})


def test_an_object_with_another_checksum_is_not_stored(s3):
    put = {"Bucket": "data", "Key": "k", "Body": DATA}
    assert outcome(s3.put_object, **put, ChecksumCRC32C=checksum(MORE)) == (400, "BadDigest")
    assert outcome(s3.get_object, Bucket="data", Key="k") == (404, "NoSuchKey")
    assert s3.put_object(**put, ChecksumCRC32C=checksum(DATA))["ChecksumCRC32C"] == checksum(DATA)


def test_a_part_with_another_checksum_is_not_stored(s3):
    upload = begun(s3, ChecksumAlgorithm="CRC32C")
    wrong = {"PartNumber": 1, "Body": DATA, "ChecksumCRC32C": checksum(MORE)}
    assert outcome(s3.upload_part, **upload, **wrong) == (400, "BadDigest")
    assert s3.list_parts(**upload).get("Parts", []) == []


def test_parts_are_completed_with_their_checksums(s3):
    upload = begun(s3, ChecksumAlgorithm="CRC32C")
    parts = [part(s3, upload, 1, DATA), part(s3, upload, 2, MORE)]
    bare = [{name: each[name] for name in ("PartNumber", "ETag")} for each in parts]
    assert completed(s3, upload, *bare) == (400, "InvalidRequest")
    swapped = [each | {"ChecksumCRC32C": checksum(b"?")} for each in parts]
    assert completed(s3, upload, *swapped) == (400, "InvalidPart")
    assert completed(s3, upload, *parts)["status"] == 200
    assert s3.get_object(Bucket="data", Key="k")["Body"].read() == DATA + MORE


def test_numbers_of_parts_with_checksums_have_no_gaps(s3):
    upload = begun(s3, ChecksumAlgorithm="CRC32C")
    parts = [part(s3, upload, 1, DATA), part(s3, upload, 3, MORE)]
    assert completed(s3, upload, *parts) == (500, "InternalError")


@pytest.mark.parametrize("algorithm", [{}, {"ChecksumAlgorithm": "CRC32C"}])
def test_a_copied_part_has_the_checksum_of_its_bytes_where_the_upload_has_them(s3, algorithm):
    s3.put_object(Bucket="data", Key="base", Body=DATA)
    upload = begun(s3, **algorithm)
    copied = s3.upload_part_copy(
        **upload, PartNumber=1, CopySource="data/base", CopySourceRange="bytes=2-6"
    )["CopyPartResult"]
    assert copied.get("ChecksumCRC32C") == (checksum(DATA[2:7]) if algorithm else None)


def test_a_storage_class_is_shown_and_does_not_travel_with_a_copy(s3):
    s3.put_object(Bucket="data", Key="d/plain", Body=DATA)
    s3.put_object(Bucket="data", Key="d/rare", Body=DATA, StorageClass="STANDARD_IA")
    upload = begun(s3, StorageClass="GLACIER_IR")
    parts = [part(s3, upload, 1, DATA)]
    completed(s3, upload, *parts)
    source = {"Bucket": "data", "Key": "d/rare"}
    s3.copy_object(Bucket="data", Key="d/copied", CopySource=source)
    s3.copy_object(Bucket="data", Key="d/kept", CopySource=source, StorageClass="STANDARD_IA")
    shown = {
        entry["Key"]: entry["StorageClass"]
        for entry in s3.list_objects_v2(Bucket="data")["Contents"]
    }
    assert shown == {
        "d/copied": "STANDARD", "d/kept": "STANDARD_IA", "d/plain": "STANDARD",
        "d/rare": "STANDARD_IA", "k": "GLACIER_IR",
    }  # fmt: skip
    assert s3.head_object(Bucket="data", Key="d/rare")["StorageClass"] == "STANDARD_IA"
    assert "StorageClass" not in s3.head_object(Bucket="data", Key="d/plain")
