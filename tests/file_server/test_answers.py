"""The file server answers as S3 does: boto3 sees the same from it as from moto."""

import os

import pytest

from stsfs.demo.file_server.answers import byte_range
from stsfs.demo.file_server.server import FileServer
from stsfs.demo.file_server.store import Refused
from tests.file_server.clients import byte_order, listing, outcome, put_all, raw_exchange, s3_client

ODD_KEYS = [
    "a", "a/b", "a//b", "../x", "./y", "a/../z", "/lead", "dir/", "dir/file", "dir/sub/", "a\nb",
    "\x01", "tab\tkey", "plus+sign", "per%41cent", "ü/ö", "sp ace", "a-1", "a.x", "a0", "&<>\"'",
    ".s3-odd/x", "x" * 300 + "/y", "/".join(["k" * 101] * 10), "emoji 😀", "q?a=b#c", "~*'()!",
]  # fmt: skip


def test_odd_keys_round_trip_and_go_one_by_one_beside_all_others(s3, tmp_path):
    put_all(s3, ODD_KEYS)
    left = set(ODD_KEYS)
    for key in ODD_KEYS:
        assert s3.get_object(Bucket="data", Key=key)["Body"].read() == key.encode()
        assert s3.head_object(Bucket="data", Key=key)["ContentLength"] == len(key.encode())
        s3.delete_object(Bucket="data", Key=key)
        left.remove(key)
        assert outcome(s3.get_object, Bucket="data", Key=key) == (404, "NoSuchKey")
        assert listing(s3)[0] == byte_order(left)
    assert os.listdir(tmp_path) == ["data"]


def test_all_odd_keys_can_be_deleted_in_one_request_and_nothing_stays(s3, tmp_path):
    put_all(s3, ODD_KEYS)
    objects = [{"Key": key} for key in ODD_KEYS]
    s3.delete_objects(Bucket="data", Delete={"Objects": objects, "Quiet": True})
    assert listing(s3) == ([], [], [0])
    assert all(name.startswith(".s3-") for name in os.listdir(tmp_path / "data"))


def test_odd_keys_survive_a_restart(tmp_path, s3):
    put_all(s3, ODD_KEYS)
    with FileServer(tmp_path) as again:
        client = s3_client(again.url)
        assert listing(client)[0] == byte_order(ODD_KEYS)
        client.close()


LISTED = ["a", "a-1", "a.x", "a/1", "a/2", "a/b/c", "a0", "b/", "b/x y", "c+d", "é/z", "z"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"Delimiter": "/"},
        {"Prefix": "a"},
        {"Prefix": "a", "Delimiter": "/"},
        {"Prefix": "a/", "Delimiter": "/"},
        {"Prefix": "a/1"},
        {"Prefix": "b/", "Delimiter": "/"},
        {"Prefix": "nothing/"},
        {"Prefix": "../"},
        {"Delimiter": "-"},
        {"StartAfter": "a/1"},
        {"StartAfter": "a"},
        {"StartAfter": "zzz"},
        {"Prefix": "é/"},
        {"MaxKeys": 3},
        {"MaxKeys": 0},
        {"MaxKeys": 100, "Delimiter": "/"},
    ],
    ids=str,
)
def test_a_listing_is_what_moto_says(s3, moto, arguments):
    for client in (s3, moto):
        put_all(client, LISTED)
    assert outcome(s3.list_objects_v2, Bucket="data", **arguments) == outcome(
        moto.list_objects_v2, Bucket="data", **arguments
    )


@pytest.fixture(scope="module")
def populated(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "data").mkdir()
    with FileServer(root) as server:
        client = s3_client(server.url)
        put_all(client, set(ODD_KEYS + LISTED))
        yield client
        client.close()


@pytest.mark.parametrize("delimiter", ["", "/", "-"])
@pytest.mark.parametrize("page_size", [1, 2, 3, 1000])
@pytest.mark.parametrize("prefix", ["", "a", "a/", "dir/"])
def test_pages_join_to_the_whole_listing(populated, delimiter, page_size, prefix):
    keys = set(ODD_KEYS + LISTED)
    plain, common = [], []
    for key in byte_order(key for key in keys if key.startswith(prefix)):
        head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        if not found:
            plain.append(key)
        elif prefix + head + found not in common:
            common.append(prefix + head + found)
    seen_keys, seen_prefixes, counts = listing(
        populated, Prefix=prefix, Delimiter=delimiter, PaginationConfig={"PageSize": page_size}
    )
    assert (seen_keys, seen_prefixes) == (plain, common)
    assert all(count == page_size for count in counts[:-1])
    assert counts[-1] <= page_size


def test_a_space_is_a_plus_in_an_encoded_listing(server, s3):
    s3.put_object(Bucket="data", Key="sp ace+plus", Body=b"")
    raw = raw_exchange(
        server, b"GET /data?list-type=2&encoding-type=url HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    assert b"<Key>sp+ace%2Bplus</Key>" in raw


def test_a_file_put_into_the_directory_is_an_object(s3, tmp_path):
    (tmp_path / "data" / "deep" / "er").mkdir(parents=True)
    assert listing(s3, Delimiter="/") == ([], [], [0])
    (tmp_path / "data" / "deep" / "er" / "file").write_bytes(b"content")
    assert listing(s3, Delimiter="/") == ([], ["deep/"], [1])
    assert listing(s3)[0] == ["deep/er/file"]
    assert s3.get_object(Bucket="data", Key="deep/er/file")["Body"].read() == b"content"


def test_a_name_added_to_a_cached_directory_is_listed(s3, tmp_path):
    os.utime(tmp_path / "data", (1_000_000_000, 1_000_000_000))
    assert listing(s3)[0] == []
    s3.put_object(Bucket="data", Key="new", Body=b"")
    assert listing(s3)[0] == ["new"]


RANGES = ["bytes=0-0", "bytes=2-4", "bytes=3-", "bytes=-4", "bytes=0-999", "bytes=9-9",
          "bytes=10-", "bytes=-0", "bytes=-999", "bytes=5-2", "items=0-1"]  # fmt: skip


@pytest.mark.parametrize("wanted", RANGES)
def test_a_range_is_answered_as_s3_does(s3, wanted):
    s3.put_object(Bucket="data", Key="k", Body=b"0123456789")
    expected = {
        "bytes=0-0": b"0", "bytes=2-4": b"234", "bytes=3-": b"3456789", "bytes=-4": b"6789",
        "bytes=0-999": b"0123456789", "bytes=9-9": b"9", "bytes=-999": b"0123456789",
    }.get(wanted)  # fmt: skip
    seen = outcome(s3.get_object, Bucket="data", Key="k", Range=wanted)
    if expected is not None:
        assert (seen["status"], seen["body"]) == (206, expected)
        assert seen["ContentRange"].endswith("/10")
    elif wanted in ("bytes=10-", "bytes=-0"):
        assert seen == (416, "InvalidRange")
    else:
        assert (seen["status"], seen["body"]) == (200, b"0123456789")


def test_every_range_of_an_empty_object_is_unsatisfiable():
    for wanted in ("bytes=0-", "bytes=-1", "bytes=0-0"):
        with pytest.raises(Refused):
            byte_range(wanted, 0)


def test_conditional_reads_are_answered_as_moto_does(s3, moto):
    outcomes = []
    for client in (s3, moto):
        etag = client.put_object(Bucket="data", Key="k", Body=b"v")["ETag"]
        ask = {"Bucket": "data", "Key": "k"}
        outcomes.append(
            [
                outcome(client.get_object, **ask, IfMatch=etag)["status"],
                outcome(client.get_object, **ask, IfMatch='"other"'),
                outcome(client.head_object, **ask, IfMatch='"other"'),
                outcome(client.get_object, **ask, IfNoneMatch=etag)[0],
                outcome(client.get_object, **ask, IfNoneMatch='"other"')["status"],
                outcome(client.head_object, Bucket="data", Key="absent"),
                outcome(client.get_object, Bucket="data", Key="absent"),
                outcome(client.get_object, Bucket="no-such-bucket", Key="k"),
            ]
        )
    assert outcomes[0] == outcomes[1]


def test_conditional_writes_are_answered_as_moto_does(s3, moto):
    outcomes = []
    for client in (s3, moto):
        put = {"Bucket": "data", "Key": "k", "Body": b"v"}
        seen = [outcome(client.put_object, **put, IfNoneMatch="*")]
        etag = client.head_object(Bucket="data", Key="k")["ETag"]
        seen += [
            outcome(client.put_object, **put, IfNoneMatch="*"),
            outcome(client.put_object, **put, IfMatch=etag),
            outcome(client.put_object, **put, IfMatch='"other"'),
            outcome(client.put_object, Bucket="data", Key="absent", Body=b"", IfMatch='"x"'),
        ]
        outcomes.append(seen)
    assert outcomes[0] == outcomes[1]


def test_a_replacement_of_the_same_size_has_another_etag(s3, tmp_path):
    etags = [s3.put_object(Bucket="data", Key="k", Body=b"same")["ETag"] for _ in range(20)]
    assert len(set(etags)) == 20
    staged = tmp_path / "staged"
    staged.write_bytes(b"swap")
    os.replace(staged, tmp_path / "data" / "k")
    assert s3.head_object(Bucket="data", Key="k")["ETag"] not in etags


def test_copy_and_metadata_are_what_moto_says(s3, moto):
    outcomes = []
    for client in (s3, moto):
        client.put_object(
            Bucket="data", Key="src é+", Body=b"v", Metadata={"mode": "33188"}, ContentType="text/x"
        )
        source = {"Bucket": "data", "Key": "src é+"}
        client.copy_object(Bucket="data", Key="kept", CopySource=source)
        client.copy_object(
            Bucket="data", Key="new", CopySource=source, MetadataDirective="REPLACE",
            Metadata={"mtime": "1"},
        )  # fmt: skip
        heads = [client.head_object(Bucket="data", Key=key) for key in ("kept", "new")]
        outcomes.append([(h["Metadata"], h["ContentLength"]) for h in heads])
    assert outcomes[0] == outcomes[1]


def test_a_copy_on_condition_copies_only_that_version(s3):
    etag = s3.put_object(Bucket="data", Key="k", Body=b"v")["ETag"]
    ask = {"Bucket": "data", "Key": "copy", "CopySource": "data/k"}
    assert outcome(s3.copy_object, **ask, CopySourceIfMatch='"other"') == (
        412,
        "PreconditionFailed",
    )
    s3.copy_object(**ask, CopySourceIfMatch=etag)
    assert s3.head_object(Bucket="data", Key="copy")["ETag"] != etag


def test_a_multipart_upload_joins_its_parts(s3, server):
    ask = {"Bucket": "data", "Key": "a//big"}
    s3.put_object(Bucket="data", Key="src", Body=b"0123456789")
    upload = s3.create_multipart_upload(**ask, Metadata={"m": "1"})["UploadId"]
    first = s3.upload_part(**ask, UploadId=upload, PartNumber=1, Body=b"hello")
    second = s3.upload_part_copy(
        **ask, UploadId=upload, PartNumber=3, CopySource="data/src", CopySourceRange="bytes=2-7"
    )
    listed = s3.list_parts(**ask, UploadId=upload)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, 5), (3, 6)]
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket="data")["Uploads"]] == [upload]
    parts = [
        {"PartNumber": 1, "ETag": first["ETag"]},
        {"PartNumber": 3, "ETag": second["CopyPartResult"]["ETag"]},
    ]
    finish = {**ask, "UploadId": upload}
    for wrong, code in (
        (parts[::-1], "InvalidPartOrder"),
        ([{"PartNumber": 2, "ETag": '"x"'}], "InvalidPart"),
    ):
        seen = outcome(s3.complete_multipart_upload, **finish, MultipartUpload={"Parts": wrong})
        assert seen == (400, code)
    s3.complete_multipart_upload(**finish, MultipartUpload={"Parts": parts})
    answer = s3.get_object(**ask)
    assert (answer["Body"].read(), answer["Metadata"]) == (b"hello234567", {"m": "1"})
    assert outcome(s3.list_parts, **finish) == (404, "NoSuchUpload")
    assert server.requests.count("PART") == server.requests.count("PART_COPY") == 1


def test_an_aborted_upload_leaves_nothing(s3, tmp_path):
    ask = {"Bucket": "data", "Key": "k"}
    upload = s3.create_multipart_upload(**ask)["UploadId"]
    s3.upload_part(**ask, UploadId=upload, PartNumber=1, Body=b"hello")
    s3.abort_multipart_upload(**ask, UploadId=upload)
    assert os.listdir(tmp_path / "data" / ".s3-uploads") == []
    assert outcome(s3.get_object, **ask) == (404, "NoSuchKey")
