"""The gate lets through what real S3 would, refuses what it would, and fails on demand."""

import http.client
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import boto3
import httpx
import pytest
import trio
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ResponseStreamingError
from moto.server import ThreadedMotoServer

from stsfs.demo.file_server.server import FileServer
from stsfs.demo.gate.gate import Gate
from stsfs.demo.gate.sessions import Session, SessionBook
from stsfs.demo.gate.trio_wire import Wire

ACL = {"ACL": "bucket-owner-full-control"}
ODD_KEYS = ["p/plus+sign", "p/per%41", "p/ü", "p/a//b", "p/sp ace", "p/~*'()!", "p/a/../b", "p/=?&"]
STATIC = Session("AKIASTATIC", "static-secret")


def s3_client(gate, session, *, region="us-east-1"):
    return boto3.client(
        "s3",
        endpoint_url=gate.url,
        region_name=region,
        aws_access_key_id=session.access_key_id,
        aws_secret_access_key=session.secret_access_key,
        aws_session_token=session.session_token,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
        ),
    )


@pytest.fixture(scope="module")
def moto_url():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def files(tmp_path):
    (tmp_path / "data").mkdir()
    with FileServer(tmp_path) as server:
        yield server


@pytest.fixture
def book():
    book = SessionBook()
    book.add(STATIC)
    return book


@pytest.fixture
def gate(files, book):
    with Gate(files.url, book) as gate:
        yield gate


@pytest.fixture
def connect(gate):
    clients = []

    def make(session, **options):
        clients.append(s3_client(gate, session, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def writer(connect, book):
    return connect(book.vend("data", "p", "read_write", 3600))


def refusal(call, **kwargs):
    with pytest.raises(ClientError) as raised:
        call(**kwargs)
    response = raised.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


@pytest.mark.parametrize("upstream", ["files", "moto"])
def test_a_session_works_below_its_base_key(request, files, book, upstream):
    url = files.url if upstream == "files" else request.getfixturevalue("moto_url")
    with Gate(url, book) as gate:
        owner = s3_client(gate, STATIC)
        owner.create_bucket(Bucket="data")
        s3 = s3_client(gate, book.vend("data", "p", "read_write", 3600))
        for key in ODD_KEYS:
            s3.put_object(Bucket="data", Key=key, Body=key.encode(), **ACL)
        for key in ODD_KEYS:
            assert s3.get_object(Bucket="data", Key=key)["Body"].read() == key.encode()
            ranged = s3.get_object(Bucket="data", Key=key, Range="bytes=1-2")
            assert ranged["Body"].read() == key.encode()[1:3]
        s3.copy_object(
            Bucket="data", Key="p/copy", CopySource={"Bucket": "data", "Key": ODD_KEYS[0]}, **ACL
        )
        page = s3.list_objects_v2(Bucket="data", Prefix="p/", Delimiter="/")
        assert "p/copy" in [entry["Key"] for entry in page["Contents"]]
        s3.delete_objects(Bucket="data", Delete={"Objects": [{"Key": k} for k in ODD_KEYS]})
        s3.delete_object(Bucket="data", Key="p/copy")
        assert s3.list_objects_v2(Bucket="data", Prefix="p/")["KeyCount"] == 0
        assert len(gate.denied) == 0
        s3.close()
        owner.close()


def test_multipart_and_large_bodies_pass_whole(gate, writer):
    data = os.urandom(5 * 1024 * 1024)
    ask = {"Bucket": "data", "Key": "p/big"}
    upload = writer.create_multipart_upload(**ask, **ACL)["UploadId"]
    parts = [
        {"PartNumber": n, "ETag": writer.upload_part(**ask, UploadId=upload, PartNumber=n,
                                                     Body=body)["ETag"]}
        for n, body in enumerate((data, b"end"), 1)
    ]  # fmt: skip
    writer.complete_multipart_upload(**ask, UploadId=upload, MultipartUpload={"Parts": parts})
    assert writer.get_object(**ask)["Body"].read() == data + b"end"
    assert gate.requests.of_kind("GET")[0].body_bytes == len(data) + 3


def fetch(url):
    """GET without the normalising of paths that friendlier clients do."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", f"{parts.path}?{parts.query}")
    with connection.getresponse() as answer:
        body = answer.read()
    connection.close()
    return answer.status, body


def test_presigned_urls_are_checked_and_end(gate, connect, book, files):
    s3 = connect(book.vend("data", "p", "read_only", 3600))
    owner = connect(STATIC)
    for key in ODD_KEYS:
        owner.put_object(Bucket="data", Key=key, Body=key.encode())
        url = s3.generate_presigned_url(
            "get_object", Params={"Bucket": "data", "Key": key}, ExpiresIn=60
        )
        assert fetch(url) == (200, key.encode())
        assert fetch(url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"))[0] == 403
    assert gate.denied.count("SignatureDoesNotMatch") == len(ODD_KEYS)
    with Gate(files.url, book, now_unix_s=lambda: time.time() + 61) as later:
        answer = httpx.get(url.replace(gate.url, later.url), headers={"host": gate.url[7:]})
        assert answer.status_code == 403
        assert "Request has expired" in answer.text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"secret_access_key": "wrong"}, (403, "SignatureDoesNotMatch")),
        ({"access_key_id": "ASIAUNKNOWN"}, (403, "InvalidAccessKeyId")),
        ({"session_token": "wrong"}, (400, "InvalidToken")),
        ({"session_token": None}, (403, "InvalidAccessKeyId")),
    ],
    ids=str,
)
def test_keys_that_are_not_right_are_refused(gate, connect, book, change, expected):
    s3 = connect(replace(book.vend("data", "p", "read_only", 3600), **change))
    assert refusal(s3.list_objects_v2, Bucket="data", Prefix="p/") == expected
    assert gate.denied.count() == gate.denied.count(expected[1]) == 1


def test_a_session_ends(connect, book):
    s3 = connect(book.vend("data", "p", "read_write", 3600))
    s3.list_objects_v2(Bucket="data", Prefix="p/")
    book.expire_all()
    assert refusal(s3.list_objects_v2, Bucket="data", Prefix="p/") == (400, "ExpiredToken")
    assert refusal(s3.put_object, Bucket="data", Key="p/k", Body=b"x", **ACL) == (
        400,
        "ExpiredToken",
    )
    assert refusal(s3.head_object, Bucket="data", Key="p/k") == (400, "400")
    connect(STATIC).list_objects_v2(Bucket="data")


def test_a_wrong_clock_is_told(files, book):
    with Gate(files.url, book, now_unix_s=lambda: time.time() + 1000) as gate:
        s3 = s3_client(gate, STATIC)
        assert refusal(s3.list_objects_v2, Bucket="data") == (403, "RequestTimeTooSkewed")
        s3.close()


def test_a_request_without_a_signature_is_denied(gate):
    answer = httpx.get(f"{gate.url}/data?list-type=2")
    assert answer.status_code == 403
    assert "<Code>AccessDenied</Code>" in answer.text
    head = httpx.head(f"{gate.url}/data/k")
    assert (head.status_code, head.content) == (403, b"")


def test_what_the_policy_denies_is_denied(gate, writer, files):
    denied = (403, "AccessDenied")
    assert refusal(writer.list_objects_v2, Bucket="data") == denied
    assert refusal(writer.list_objects_v2, Bucket="data", Prefix="px/") == denied
    assert refusal(writer.put_object, Bucket="data", Key="p/k", Body=b"") == denied
    assert refusal(writer.get_bucket_location, Bucket="data") == denied
    assert refusal(writer.get_object, Bucket="data", Key="p/owner.txt") == denied
    assert refusal(writer.head_bucket, Bucket="data") == (403, "403")
    outside = {"Objects": [{"Key": "p/a"}, {"Key": "q/b"}]}
    assert refusal(writer.delete_objects, Bucket="data", Delete=outside) == denied
    assert len(gate.denied) == len(gate.requests) == 7
    assert len(files.requests) == 0


def test_a_missing_key_looks_forbidden_to_a_session_and_missing_to_the_owner(gate, writer, connect):
    assert refusal(writer.get_object, Bucket="data", Key="p/no") == (403, "AccessDenied")
    assert refusal(writer.head_object, Bucket="data", Key="p/no") == (403, "403")
    owner = connect(STATIC)
    assert refusal(owner.get_object, Bucket="data", Key="p/no") == (404, "NoSuchKey")
    assert len(gate.denied) == 0


def test_a_body_other_than_the_signed_one_is_refused(gate, book):
    session = book.vend("data", "p", "read_write", 3600)
    s3 = s3_client(gate, session)
    s3.meta.events.register("before-send.s3.PutObject", tamper)
    assert refusal(s3.put_object, Bucket="data", Key="p/k", Body=b"true", **ACL) == (
        400,
        "XAmzContentSHA256Mismatch",
    )
    s3.close()


def tamper(request, **_):
    request.body = b"fake"


def test_every_nth_request_of_a_kind_fails(gate, connect, writer):
    writer.put_object(Bucket="data", Key="p/k", Body=b"v", **ACL)
    rule = gate.faults.every_nth(3, status=503, code="SlowDown", kinds=("GET",))
    seen = []
    for _ in range(6):
        try:
            seen.append(writer.get_object(Bucket="data", Key="p/k")["Body"].read())
        except ClientError as exc:
            seen.append(exc.response["Error"]["Code"])
        writer.list_objects_v2(Bucket="data", Prefix="p/")
    assert seen == [b"v", b"v", "SlowDown"] * 2
    assert (rule.matched, rule.applied) == (6, 2)
    gate.faults.clear()
    assert writer.get_object(Bucket="data", Key="p/k")["Body"].read() == b"v"
    assert len(gate.denied) == 0


def test_one_status_for_one_prefix(gate, writer):
    for key in ("p/a/k", "p/b/k"):
        writer.put_object(Bucket="data", Key=key, Body=b"v", **ACL)
    gate.faults.status_once(412, kinds=("GET", "HEAD"), key_prefix="p/b")
    writer.get_object(Bucket="data", Key="p/a/k")["Body"].read()
    assert refusal(writer.head_object, Bucket="data", Key="p/b/k") == (412, "412")
    writer.head_object(Bucket="data", Key="p/b/k")


def test_random_faults_repeat_with_their_seed(gate, writer):
    def pattern():
        gate.faults.clear()
        gate.faults.randomly(0.5, seed=7, status=500, kinds=("LIST",))
        statuses = []
        for _ in range(12):
            try:
                writer.list_objects_v2(Bucket="data", Prefix="p/")
                statuses.append(200)
            except ClientError as exc:
                statuses.append(exc.response["ResponseMetadata"]["HTTPStatusCode"])
        return statuses

    first = pattern()
    assert {200, 500} == set(first)
    assert pattern() == first


def test_a_body_is_cut_short_of_its_length(gate, writer):
    writer.put_object(Bucket="data", Key="p/k", Body=bytes(500_000), **ACL)
    gate.faults.cut_body(2, after_bytes=300_000)
    assert len(writer.get_object(Bucket="data", Key="p/k")["Body"].read()) == 500_000
    with pytest.raises(ResponseStreamingError):
        writer.get_object(Bucket="data", Key="p/k")["Body"].read()
    assert [r.body_bytes for r in gate.requests.of_kind("GET")] == [500_000, 300_000]


def test_a_hangup_gives_no_answer(gate, writer):
    gate.faults.hang_up(limit=1)
    with pytest.raises(ConnectionClosedError):
        writer.list_objects_v2(Bucket="data", Prefix="p/")
    writer.list_objects_v2(Bucket="data", Prefix="p/")


@pytest.mark.parametrize("after_bytes", [None, 10])
async def test_a_stalled_request_is_seen_and_does_not_hold_up_the_end(
    files, book, tmp_path, after_bytes
):
    (tmp_path / "data" / "k").write_bytes(bytes(100))
    with Gate(files.url, book) as gate:
        gate.faults.stall(seconds_s=3600, after_bytes=after_bytes, kinds=("GET",))
        s3 = s3_client(gate, STATIC)
        url = s3.generate_presigned_url("get_object", Params={"Bucket": "data", "Key": "k"})
        s3.close()
        async with httpx.AsyncClient() as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.get, url)
            await gate.requests.seen(1, "GET")
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("status", "code"), [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")]
)
def test_only_the_right_region_is_served(gate, connect, status, code):
    gate.faults.wrong_region("eu-central-1", status=status)
    url = connect(STATIC).generate_presigned_url("list_objects_v2", Params={"Bucket": "data"})
    answer = httpx.get(url)
    assert (answer.status_code, answer.headers["x-amz-bucket-region"]) == (status, "eu-central-1")
    assert f"<Code>{code}</Code>" in answer.text
    connect(STATIC, region="eu-central-1").list_objects_v2(Bucket="data")
    connect(STATIC).list_objects_v2(Bucket="data")
    assert gate.requests.of_kind("LIST")[-1].status == 200


def test_the_gate_waits_for_the_nth_request(gate, writer):
    writer.list_objects_v2(Bucket="data", Prefix="p/")
    gate.requests.wait_for(1, "LIST", timeout_s=1)
    with pytest.raises(TimeoutError):
        gate.requests.wait_for(2, "LIST", timeout_s=0.01)


def test_upstream_gone_is_service_unavailable(book, tmp_path):
    with FileServer(tmp_path) as files:
        url = files.url
    with Gate(url, book) as gate:
        s3 = s3_client(gate, STATIC)
        assert refusal(s3.list_objects_v2, Bucket="data") == (503, "ServiceUnavailable")
        s3.close()


def test_upstream_that_has_restarted_is_found_again(book, tmp_path):
    (tmp_path / "data").mkdir()
    with FileServer(tmp_path) as first:
        port = first.port
        gate = Gate(first.url, book).__enter__()
        s3 = s3_client(gate, STATIC)
        s3.list_objects_v2(Bucket="data")
    with FileServer(tmp_path, port=port):
        s3.list_objects_v2(Bucket="data")
        s3.close()
        gate.stop()


def test_secrets_stay_out_of_repr(book):
    session = book.vend("data", "p", "read_only", 60)
    assert session.secret_access_key not in repr(session)
    assert session.session_token not in repr(session)


@pytest.mark.parametrize(("before", "kept"), [("request", False), ("answer", True)])
@pytest.mark.parametrize("goes_on", [True, False])
def test_a_held_request_waits_before_or_after_it_has_happened(
    gate, writer, tmp_path, before, kept, goes_on
):
    """It is the second of its kind that waits; then it gets its answer, or none."""
    path = tmp_path / "data/p/k"
    held = gate.faults.hold(before, 2, kinds=["PUT"], key_prefix="p/")
    writer.put_object(Bucket="data", Key="p/first", Body=b"x", **ACL)
    with ThreadPoolExecutor(1) as thread:
        putting = thread.submit(writer.put_object, Bucket="data", Key="p/k", Body=b"y", **ACL)
        held.wait_reached(10)
        assert (path.exists(), putting.done()) == (kept, False)
        held.let_go(goes_on=goes_on)
        failure = putting.exception()
    assert (failure is None, path.exists()) == (goes_on, kept or goes_on)


def test_what_is_held_ends_with_its_rules(gate, writer):
    held = gate.faults.hold("request", kinds=["PUT"])
    with ThreadPoolExecutor(1) as thread:
        putting = thread.submit(writer.put_object, Bucket="data", Key="p/k", Body=b"y", **ACL)
        held.wait_reached(10)
        gate.faults.clear()
        assert isinstance(putting.exception(), ConnectionClosedError)


@pytest.mark.parametrize("linger", [None, b"\1\0\0\0\0\0\0\0"], ids=["closed", "reset"])
async def test_a_client_that_has_reset_its_connection_wants_no_answer(linger):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        peer, _ = listening.accept()
        with trio.socket.from_stdlib_socket(peer) as theirs:
            assert not Wire(theirs).is_reset()
            if linger is not None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.close()
            await trio.lowlevel.wait_readable(theirs)
            assert Wire(theirs).is_reset() == (linger is not None)
