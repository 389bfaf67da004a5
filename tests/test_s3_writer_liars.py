"""Servers that say yes and mean no, know less than they should, or answer before they have read."""

from contextlib import asynccontextmanager

import pytest
import trio

from stsfs.credentials.credentials import Credentials
from stsfs.errors import AccessDenied, DeadlineExceeded, StoreFailure, WriteConflict
from stsfs.store import http_sending, retry
from stsfs.store.object_store import Expected, ObjectVersion, Part, Traits
from stsfs.store.s3_store import S3Store
from tests.fakes import BytesBody
from tests.scripted_server import served, with_length

NOTHING = Traits()
DONE = b'HTTP/1.1 200 OK\r\nETag: "new"\r\nContent-Length: 0\r\n\r\n'
LARGE = BytesBody(bytes(24 << 20))
PARTS = [Part(1, '"one"', "AAAAAA=="), Part(2, '"two"')]
SOURCE = ObjectVersion(1, "source", '"old"', 10)


class Kept:
    clock_offset_s = 0.0

    def current(self):
        return Credentials("AKIDEXAMPLE", "secret", "token")

    valid = renew_after = None  # never asked


def error(status, code, message="no", *, extra=""):
    return with_status(
        status, f"<Error><Code>{code}</Code><Message>{message}</Message>{extra}</Error>"
    )


def with_status(status, text):
    body = text.encode()
    return b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def inside(code):
    """An error as S3 sends it once it has said 200: behind blanks."""
    error_text = f"<Error><Code>{code}</Code><Message>late</Message></Error>"
    return with_length(b'  \n \n<?xml version="1.0" encoding="UTF-8"?>\n' + error_text.encode())


def completed(etag):
    return with_length(f"<CompleteMultipartUploadResult><ETag>{etag}</ETag>"
                       "</CompleteMultipartUploadResult>".encode())  # fmt: skip


def stored(write_id, etag='"new"'):
    lines = ["HTTP/1.1 206 Partial Content", "Content-Length: 1", f"ETag: {etag}",
             f"x-amz-meta-stsfs-write: {write_id}", "Content-Range: bytes 0-0/4"]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\nx"


NO_KEYS = with_length(b"<ListBucketResult></ListBucketResult>")


class Server:
    """Gives its answers in turn, then the last one again; keeps the heads of the requests."""

    def __init__(self, *answers):
        self._answers, self.heads = answers, []

    async def play(self, peer):
        while (head := await self._head(peer)) is not None:
            length = [line for line in head if line.lower().startswith("content-length:")]
            answer = self._answers[min(len(self.heads), len(self._answers) - 1)]
            self.heads.append(head)
            early = isinstance(answer, tuple)
            if length and not early:
                await peer.body(int(length[0].partition(":")[2]))
            await peer.send(answer[0] if early else answer)
            if early:
                return  # and closes, with the body unread

    async def _head(self, peer):
        received = b""
        while b"\r\n\r\n" not in received:
            try:
                data = peer._received or await peer.receive()
            except trio.BrokenResourceError:
                return None
            peer._received = b""
            if not data:
                return None
            received += data
        head, _, peer._received = received.partition(b"\r\n\r\n")
        return head.decode().split("\r\n")

    def header(self, request, name):
        """A header of the n-th request; None if it had none."""
        for line in self.heads[request][1:]:
            if line.lower().startswith(f"{name}:"):
                return line.partition(":")[2].strip()
        return None


@asynccontextmanager
async def writing(server, **options):
    async with served(server.play, connections=1000) as (host, port):
        store = S3Store("lab", Kept(), endpoint_url=f"http://{host}:{port}", region="us-east-1")
        yield store.writer(**options)
        store.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Next to no pause between tries."""
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.001)


def put(writer, body=None, expected=None):
    body = body or BytesBody(b"data")
    return writer.put("k", body, NOTHING, expected=expected, write_id="w")


def complete(writer, expected=None):
    return writer.complete_upload("k", "u", PARTS, expected=expected, write_id="w")


async def test_a_completion_that_fails_after_200_is_tried_again():
    server = Server(inside("InternalError"), inside("SlowDown"), completed("&quot;new-2&quot;"))
    async with writing(server) as writer:
        assert await complete(writer) == '"new-2"'
    assert len(server.heads) == 3


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("PreconditionFailed", WriteConflict),
        ("NoSuchKey", WriteConflict),
        ("AccessDenied", AccessDenied),
        ("InvalidRequest", StoreFailure),
    ],
)
async def test_a_copy_that_fails_after_200_is_an_error(code, expected):
    listed = with_length(
        b"<ListBucketResult><Contents><Key>source</Key><ETag>&quot;old&quot;</ETag><Size>10</Size>"
        b"<LastModified>2026-01-01T00:00:00Z</LastModified><StorageClass/></Contents>"
        b"</ListBucketResult>"
    )
    async with writing(Server(inside(code), listed)) as writer:
        with pytest.raises(expected):
            await writer.copy(SOURCE, "k")


async def test_a_completion_names_each_part_with_its_checksum():
    server = Server(completed("&quot;new-2&quot;"))
    seen = []
    read = server.play

    async def play(peer):
        body = peer.body

        async def noted(size_bytes):
            seen.append(await body(size_bytes))
            return seen[-1]

        peer.body = noted
        await read(peer)

    server.play = play
    async with writing(server) as writer:
        await complete(writer, Expected('"old"'))
    (document,) = seen
    assert document.count(b"<Part>") == 2
    assert document.count(b"<ChecksumCRC32C>AAAAAA==</ChecksumCRC32C>") == 1
    assert server.header(0, "if-match") == '"old"'


async def test_a_whole_object_may_have_a_checksum_of_checksums():
    """As AWS and MinIO tell it: with the number of parts."""
    fields = b"<ETag>&quot;new-2&quot;</ETag><ChecksumCRC32C>9tPmLw==-2</ChecksumCRC32C>"
    name = b"CompleteMultipartUploadResult"
    answer = with_length(b"<%b>%b</%b>" % (name, fields, name))
    async with writing(Server(answer)) as writer:
        assert await complete(writer) == '"new-2"'


async def test_an_etag_that_is_not_told_is_looked_up():
    server = Server(completed(""), stored("w", '"new-2"'))
    async with writing(server) as writer:
        assert await complete(writer) == '"new-2"'
    async with writing(Server(completed(""), stored("another"))) as writer:
        with pytest.raises(StoreFailure, match="does not tell"):
            await complete(writer)
    async with writing(Server(with_length(b""))) as writer:
        with pytest.raises(StoreFailure, match="does not tell"):
            await put(writer)


async def test_an_upload_that_is_gone_is_looked_for_at_the_key():
    missing = error(404, "NoSuchUpload")
    async with writing(Server(missing, stored("w"))) as writer:
        assert await complete(writer) == '"new"'
    for found in (stored("another"), error(404, "NoSuchKey"), error(403, "AccessDenied")):
        async with writing(Server(missing, found)) as writer:
            with pytest.raises(StoreFailure, match="not there any more"):
                await complete(writer)


async def test_a_conflict_that_cannot_be_looked_into_is_trouble_and_no_conflict():
    trouble = [error(503, "SlowDown")] * 20
    async with writing(Server(error(412, "PreconditionFailed"), *trouble)) as writer:
        with pytest.raises(StoreFailure):
            await put(writer, expected=Expected(None))


@pytest.mark.parametrize("refusal", [error(400, "AccessControlListNotSupported"), None])
async def test_an_acl_is_sent_unless_the_bucket_knows_none(refusal):
    server = Server(*([refusal] if refusal else []), DONE)
    async with writing(server, acl="bucket-owner-full-control") as writer:
        await put(writer)
        await put(writer)
    sent = [server.header(n, "x-amz-acl") for n in range(len(server.heads))]
    kept = "bucket-owner-full-control"
    assert sent == ([kept, None, None] if refusal else [kept, kept])


async def test_an_acl_is_sent_with_what_makes_an_object_only():
    said = ["", "InitiateMultipartUpload", "CopyObject", "", "CopyPart", "CompleteMultipartUpload"]
    fields = "<UploadId>u</UploadId><ETag>e</ETag>"
    told = [f"<{each}Result>{fields}</{each}Result>" if each else "" for each in (*said, "", "")]
    server = Server(*(with_length(each.encode(), b"ETag: e") for each in told))
    async with writing(server, acl="bucket-owner-full-control") as writer:
        await put(writer)
        await writer.begin_upload("k", NOTHING, write_id="w")
        await writer.copy(SOURCE, "k")
        await writer.upload_part("k", "u", 1, BytesBody(b"data"))
        await writer.copy_part("k", "u", 2, SOURCE, 0, 10)
        await complete(writer)
        await writer.abort_upload("k", "u")
        await writer.delete("k")
    with_acl = [server.header(n, "x-amz-acl") is not None for n in range(8)]
    assert with_acl == [True, True, True, False, False, False, False, False]


async def test_a_server_without_conditions_is_looked_at_before_and_after_each_change(caplog):
    unknown = error(501, "NotImplemented", extra="<Header>If-None-Match</Header>")
    server = Server(unknown, NO_KEYS, DONE, stored("w"), NO_KEYS, DONE, stored("w"))
    async with writing(server) as writer:
        for _ in range(2):
            assert await put(writer, expected=Expected(None)) == '"new"'
    assert [head[0].partition(" ")[0] for head in server.heads] == [
        "PUT", "GET", "PUT", "GET", "GET", "PUT", "GET",
    ]  # fmt: skip
    assert [server.header(n, "if-none-match") for n in (0, 2, 5)] == ["*", None, None]
    assert all(server.header(n, "x-amz-checksum-crc32c") for n in (0, 2, 5))
    assert sum("knows no conditional" in record.message for record in caplog.records) == 1


async def test_a_server_without_checksums_gets_none(caplog):
    refusal = error(400, "InvalidRequest", "Unsupported checksum algorithm")
    server = Server(refusal, DONE)
    async with writing(server) as writer:
        await put(writer)
        await writer.upload_part("k", "u", 1, BytesBody(b"data"))
    assert [bool(server.header(n, "x-amz-checksum-crc32c")) for n in range(3)] == [
        True, False, False,
    ]  # fmt: skip
    assert sum("CRC32C" in record.message for record in caplog.records) == 1


async def test_a_refusal_before_the_end_of_a_body_is_heard_and_told():
    async with writing(Server((error(403, "AccessDenied"),))) as writer:
        with pytest.raises(AccessDenied, match="may not write 'k'"):
            await put(writer, LARGE)


async def test_trouble_before_the_end_of_a_body_is_repeated():
    server = Server((error(503, "SlowDown"),), (error(503, "SlowDown"),), DONE)
    async with writing(server) as writer:
        assert await put(writer, LARGE) == '"new"'
    assert len(server.heads) == 3


async def test_success_before_the_end_of_a_body_is_none_and_the_change_in_doubt():
    async with writing(Server((DONE,), (DONE,), DONE)) as writer:
        assert await put(writer, LARGE) == '"new"'
    async with writing(Server((DONE,), DONE)) as writer:
        part = await writer.upload_part("k", "u", 1, LARGE)
        assert part.etag == '"new"'
    server = Server((DONE,), error(412, "PreconditionFailed"), stored("w", '"made"'))
    async with writing(server) as writer:
        assert await put(writer, LARGE, Expected(None)) == '"made"'
    async with writing(Server((DONE,))) as writer:
        with pytest.raises(StoreFailure, match="before"):
            await put(writer, LARGE)


async def test_a_server_that_takes_a_body_too_slowly_is_not_asked_again(monkeypatch):
    monkeypatch.setattr(http_sending, "UPLOAD_PACE_S", 0.0)
    monkeypatch.setattr(http_sending, "UPLOAD_PACE_BYTES", 1 << 30)
    server = Server(DONE)
    async with writing(server) as writer:
        with pytest.raises(DeadlineExceeded, match="Too slow: write 'k'"):
            await put(writer, LARGE)
    assert len(server.heads) <= 1


@pytest.mark.parametrize("value", ["a\r\nx-amz-acl: public-read", "tab\t\n", "null\0"])
async def test_metadata_cannot_become_a_header_of_its_own(value):
    server = Server(DONE)
    async with writing(server) as writer:
        with pytest.raises(StoreFailure, match="cannot be stored"):
            await writer.put("k", BytesBody(b""), Traits({"a": value}), expected=None, write_id="w")
    assert server.heads == []


async def test_a_source_that_was_replaced_meanwhile_is_noticed_where_the_server_does_not_look():
    def listed(etag):
        return with_length(
            f"<ListBucketResult><Contents><Key>source</Key><ETag>&quot;{etag}&quot;</ETag>"
            "<Size>10</Size><LastModified>2026-01-01T00:00:00Z</LastModified><StorageClass/>"
            "</Contents></ListBucketResult>".encode()
        )

    made = with_length(b"<CopyPartResult><ETag>e</ETag></CopyPartResult>")
    async with writing(Server(made, listed("old")), conditions=False) as writer:
        assert await writer.copy_part("k", "u", 1, SOURCE, 0, 10) == Part(1, '"e"')
    async with writing(Server(made, listed("newer")), conditions=False) as writer:
        with pytest.raises(WriteConflict):
            await writer.copy_part("k", "u", 1, SOURCE, 0, 10)
