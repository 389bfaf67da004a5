"""The gate and what changes objects: roles that lack a right, and answers that get lost."""

from dataclasses import replace

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from stsfs.demo.file_server.server import FileServer
from stsfs.demo.gate.gate import Gate
from stsfs.demo.gate.session_policy import classify, decide
from stsfs.demo.gate.sessions import Session, SessionBook
from tests.test_gate import ACL, s3_client

WRITER = Session("W", "s", "t", None, "data", "p", "read_write")
HEADERS = (("x-amz-acl", "bucket-owner-full-control"),)


@pytest.fixture
def gate(tmp_path):
    (tmp_path / "data").mkdir()
    with FileServer(tmp_path) as files, Gate(files.url, SessionBook()) as gate:
        yield gate


@pytest.fixture
def connect(gate):
    clients = []

    def connect(*withheld):
        book = gate._exchanges.keys
        book.withheld = frozenset(withheld)
        clients.append(s3_client(gate, book.vend("data", "p", "read_write", 3600)))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def refusal(call, **arguments):
    with pytest.raises(ClientError) as raised:
        call(Bucket="data", **arguments)
    return raised.value.response["Error"]["Code"]


@pytest.mark.parametrize(
    ("name", "method", "query"),
    [("DeleteObject", "DELETE", ""), ("PutObject", "PUT", ""),
     ("CreateMultipartUpload", "POST", "uploads")],
)  # fmt: skip
def test_what_is_withheld_is_denied_and_nothing_else(name, method, query):
    action = classify(method, "/data/p/k", query, HEADERS)
    assert decide(action, WRITER) is None
    assert decide(action, replace(WRITER, withheld=frozenset({"CopyObject"}))) is None
    denied = decide(action, replace(WRITER, withheld=frozenset({name})))
    assert denied is not None
    assert denied.code == "AccessDenied"


def test_a_role_without_delete_puts_and_does_not_delete(gate, connect):
    s3 = connect("DeleteObject")
    s3.put_object(Bucket="data", Key="p/k", Body=b"x", **ACL)
    assert refusal(s3.delete_object, Key="p/k") == "AccessDenied"
    assert gate.denied.count("AccessDenied") == 1
    connect().delete_object(Bucket="data", Key="p/k")


def test_a_change_whose_answer_is_lost_has_happened(gate, connect, tmp_path):
    s3 = connect()
    gate.faults.lose_answer(kinds=["PUT"], limit=1)
    with pytest.raises(ConnectionClosedError):
        s3.put_object(Bucket="data", Key="p/k", Body=b"x", **ACL)
    assert (tmp_path / "data/p/k").read_bytes() == b"x"
    assert [seen.status for seen in gate.requests.of_kind("PUT")] == [200]


def test_a_copy_of_a_missing_object_is_denied(gate, connect):
    source = {"Bucket": "data", "Key": "p/missing"}
    assert refusal(connect().copy_object, Key="p/k", CopySource=source, **ACL) == "AccessDenied"
    assert len(gate.denied) == 0
