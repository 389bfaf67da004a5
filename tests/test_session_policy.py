"""What a Synapse session may do, request by request."""

import pytest

from stsfs.demo.gate.session_policy import classify, decide, decide_deletes, hides_missing_keys
from stsfs.demo.gate.sessions import Session

ACL = ("x-amz-acl", "bucket-owner-full-control")
WRITER = Session("W", "s", "t", None, "data", "base/key", "read_write")
READER = Session("R", "s", "t", None, "data", "base/key", "read_only")
WHOLE = Session("B", "s", "t", None, "data", "", "read_write")
OWNER = Session("O", "s")


def copy_from(source):
    return ("x-amz-copy-source", source)


REQUESTS = [
    # operation, method, path below the bucket, query, headers, who may: reader, writer, whole
    ("GetObject", "GET", "/base/key/a", "", (), "rwb"),
    ("GetObject", "HEAD", "/base/key/a", "", (), "rwb"),
    ("GetObject", "GET", "/base/key", "", (), "rwb"),
    ("GetObject", "GET", "/base/key2/a", "", (), "b"),
    ("GetObject", "GET", "/base/key/owner.txt", "", (), "b"),
    ("GetObject", "GET", "/base/key/x/owner.txt", "", (), "rwb"),
    ("GetObject", "HEAD", "/owner.txt", "", (), ""),
    ("GetObject", "GET", "/base%2Fkey/a", "", (), "rwb"),
    ("GetObject", "GET", "/base/key//a+b", "partNumber=1", (), "rwb"),
    ("GetObjectVersion", "GET", "/base/key/a", "versionId=1", (), ""),
    ("GetObjectAcl", "GET", "/base/key/a", "acl", (), ""),
    ("GetObject:tagging", "GET", "/base/key/a", "tagging", (), ""),
    ("GetObject:attributes", "GET", "/base/key/a", "attributes", (), ""),
    ("ListParts", "GET", "/base/key/a", "uploadId=u", (), "wb"),
    ("ListObjectsV2", "GET", "", "list-type=2&prefix=base/key/", (), "rwb"),
    ("ListObjectsV2", "GET", "/", "list-type=2&prefix=base%2Fkey%2Fx", (), "rwb"),
    ("ListObjectsV2", "GET", "", "list-type=2&prefix=base/key", (), "rwb"),
    ("ListObjectsV2", "GET", "", "list-type=2&prefix=base/keyx/", (), "b"),
    ("ListObjectsV2", "GET", "", "list-type=2&prefix=base/", (), "b"),
    ("ListObjectsV2", "GET", "", "list-type=2&prefix=", (), "b"),
    ("ListObjectsV2", "GET", "", "list-type=2", (), "b"),
    ("ListObjects", "GET", "", "prefix=base/key/", (), "rwb"),
    ("HeadBucket", "HEAD", "", "", (), "b"),
    ("GetBucketLocation", "GET", "", "location", (), ""),
    ("ListObjectVersions", "GET", "", "versions&prefix=base/key/", (), ""),
    ("ListMultipartUploads", "GET", "", "uploads&prefix=base/key/", (), "b"),
    ("GetBucket:versioning", "GET", "", "versioning", (), ""),
    ("PutBucket", "PUT", "", "", (), ""),
    ("DeleteBucket", "DELETE", "", "", (), ""),
    ("PutObject", "PUT", "/base/key/a", "", (ACL,), "wb"),
    ("PutObject", "PUT", "/base/key/a", "", (), ""),
    ("PutObject", "PUT", "/base/key/a", "", (("x-amz-acl", "private"),), ""),
    ("PutObject", "PUT", "/base/key/owner.txt", "", (ACL,), "b"),
    ("PutObject", "PUT", "/base/keyx", "", (ACL,), "b"),
    ("PutObject:tagged", "PUT", "/base/key/a", "", (ACL, ("x-amz-tagging", "a=b")), ""),
    ("PutObject:tagging", "PUT", "/base/key/a", "tagging", (), ""),
    ("PutObjectAcl", "PUT", "/base/key/a", "acl", (ACL,), "wb"),
    ("PutObjectAcl", "PUT", "/base/key/a", "acl", (("x-amz-acl", "public-read"),), ""),
    ("CopyObject", "PUT", "/base/key/a", "", (ACL, copy_from("data/base/key/%C3%BC")), "wb"),
    ("CopyObject", "PUT", "/base/key/a", "", (copy_from("/data/base/key/b"),), ""),
    ("CopyObject", "PUT", "/base/key/a", "", (ACL, copy_from("data/other")), "b"),
    ("CopyObject", "PUT", "/base/key/a", "", (ACL, copy_from("elsewhere/base/key/b")), ""),
    ("CopyObject", "PUT", "/base/key/a", "", (ACL, copy_from("data/base/key/owner.txt")), "b"),
    ("CreateMultipartUpload", "POST", "/base/key/a", "uploads", (ACL,), "wb"),
    ("CreateMultipartUpload", "POST", "/base/key/a", "uploads", (), ""),
    ("UploadPart", "PUT", "/base/key/a", "uploadId=u&partNumber=1", (), "wb"),
    ("UploadPart", "PUT", "/base/key/a", "uploadId=u&partNumber=1", (ACL,), ""),
    ("UploadPartCopy", "PUT", "/base/key/a", "uploadId=u&partNumber=1",
     (copy_from("data/base/key/b"),), "wb"),
    ("CompleteMultipartUpload", "POST", "/base/key/a", "uploadId=u", (), "wb"),
    ("AbortMultipartUpload", "DELETE", "/base/key/a", "uploadId=u", (), "wb"),
    ("DeleteObject", "DELETE", "/base/key/a", "", (), "wb"),
    ("DeleteObject", "DELETE", "/base/key/owner.txt", "", (), "b"),
    ("DeleteObjectVersion", "DELETE", "/base/key/a", "versionId=1", (), ""),
    ("DeleteObjects", "POST", "", "delete", (), "wb"),
    ("PostObject:restore", "POST", "/base/key/a", "restore", (), ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "method", "path", "query", "headers", "who"),
    REQUESTS,
    ids=[f"{r[1]} {r[2]}?{r[3]} {len(r[4])}" for r in REQUESTS],
)
def test_each_request_is_named_and_granted_to_who_may(operation, method, path, query, headers, who):
    action = classify(method, f"/data{path}", query, headers)
    assert action.name == operation
    sessions = {"r": READER, "w": WRITER, "b": WHOLE}
    granted = "".join(name for name, session in sessions.items() if decide(action, session) is None)
    assert granted == who
    assert decide(action, OWNER) is None
    for session in sessions.values():
        refusal = decide(action, session)
        assert refusal is None or (refusal.status, refusal.code) == (403, "AccessDenied")


@pytest.mark.parametrize("path", ["/other/base/key/a", "/other", "/"])
def test_other_buckets_and_the_list_of_buckets_are_denied(path):
    action = classify("GET", path, "prefix=base/key/", ())
    assert decide(action, READER) is not None
    assert decide(action, WHOLE) is not None


def test_many_deletes_are_judged_key_by_key():
    keys = ["base/key/a", "base/keyx", "base/key/owner.txt", "owner.txt"]
    assert decide_deletes(keys, WRITER) == keys[1:]
    assert decide_deletes(keys, WHOLE) == ["owner.txt"]
    assert decide_deletes(keys, OWNER) == []


def test_only_a_session_below_a_base_key_cannot_tell_missing_from_forbidden():
    assert hides_missing_keys(READER)
    assert not hides_missing_keys(WHOLE)
    assert not hides_missing_keys(OWNER)
