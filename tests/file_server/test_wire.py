"""The file server on the wire: many at once, TLS, framing, pacing, keep-alive, its log."""

import hashlib
import os
import socket
import threading

from stsfs.demo.file_server.server import FileServer
from stsfs.demo.tls import make_local_tls
from tests.file_server.clients import outcome, raw_exchange, s3_client


def test_only_one_of_many_exclusive_creators_wins(server):
    clients = [s3_client(server.url) for _ in range(4)]
    statuses = []

    def create(client):
        seen = outcome(client.put_object, Bucket="data", Key="k", Body=b"", IfNoneMatch="*")
        statuses.append(seen["status"] if isinstance(seen, dict) else seen[0])

    threads = [threading.Thread(target=create, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
    assert sorted(statuses) == [200, 412, 412, 412]


def test_a_large_object_arrives_whole_over_http_and_tls(tmp_path):
    data = os.urandom(3_000_001)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "big").write_bytes(data)
    tls = make_local_tls(tmp_path)
    for context, options in ((None, {}), (tls.server_context, {"verify": str(tls.ca_file)})):
        with FileServer(tmp_path, tls=context) as server:
            client = s3_client(server.url, **options)
            body = client.get_object(Bucket="data", Key="big")["Body"].read()
            client.put_object(Bucket="data", Key="copy", Body=data)
            client.close()
        assert hashlib.sha256(body).digest() == hashlib.sha256(data).digest()
        assert (tmp_path / "data" / "copy").read_bytes() == data


def test_a_streamed_body_is_freed_of_both_framings(tmp_path):
    (tmp_path / "data").mkdir()
    tls = make_local_tls(tmp_path)
    with FileServer(tmp_path, tls=tls.server_context) as server, open(__file__, "rb") as file:
        client = s3_client(server.url, verify=str(tls.ca_file))
        client.put_object(Bucket="data", Key="k", Body=file)
        client.close()
    with open(__file__, "rb") as file:
        assert (tmp_path / "data" / "k").read_bytes() == file.read()


def test_pacing_changes_when_bytes_come_and_not_which(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "k").write_bytes(bytes(range(256)) * 1024)
    with FileServer(tmp_path, first_byte_delay_s=0.001, bytes_per_s=1e9) as server:
        client = s3_client(server.url)
        body = client.get_object(Bucket="data", Key="k", Range="bytes=1-200000")["Body"].read()
        client.close()
    assert body == (bytes(range(256)) * 1024)[1:200_001]


def test_a_connection_serves_requests_that_came_together(server, s3):
    s3.put_object(Bucket="data", Key="k", Body=b"value")
    raw = raw_exchange(server, b"GET /data/k HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    assert raw.count(b"HTTP/1.1 200 OK") == raw.count(b"value") == 3


def test_the_answer_to_a_head_request_has_no_body(server, s3):
    raw = raw_exchange(server, b"HEAD /data/absent HTTP/1.1\r\nHost: x\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert raw.endswith(b"\r\n\r\n")


def test_requests_are_logged_by_kind(server, s3):
    s3.put_object(Bucket="data", Key="k", Body=b"0123")
    s3.get_object(Bucket="data", Key="k", Range="bytes=1-2")["Body"].read()
    s3.list_objects_v2(Bucket="data", Prefix="k")
    outcome(s3.head_object, Bucket="data", Key="absent")
    assert [(r.kind, r.key, r.range, r.status, r.verdict) for r in server.requests] == [
        ("PUT", "k", "", 200, ""),
        ("GET", "k", "bytes=1-2", 206, ""),
        ("LIST", "", "", 200, ""),
        ("HEAD", "absent", "", 404, "NoSuchKey"),
    ]
    assert server.requests.of_kind("GET")[0].body_bytes == 2
    server.reset()
    assert len(server.requests) == server.requests.count("GET") == 0


def test_a_client_that_stays_connected_does_not_hold_up_the_end(tmp_path):
    with FileServer(tmp_path) as server:
        idle = socket.create_connection(("127.0.0.1", server.port))
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 200"
    with idle:
        while idle.recv(65536):
            pass
