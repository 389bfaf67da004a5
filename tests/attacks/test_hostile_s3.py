"""A server of objects that means harm: no growth without a bound, no waiting without an end.

Each server here is a real one, which plays what no S3 would send.
"""

import itertools
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock

from stsfs.credentials.credentials import Credentials
from stsfs.errors import BadArgument, DeadlineExceeded, StoreFailure, StsfsError
from stsfs.store import retry
from stsfs.store.endpoint import endpoint_for
from stsfs.store.http_wire import BODY_S, STALL_S, WORK_S
from stsfs.store.object_store import Expected, ObjectVersion, Traits
from stsfs.store.presigned_store import PresignedStore
from stsfs.store.reach import Reach
from stsfs.store.s3_store import S3Store
from tests.fakes import BytesBody, Sink
from tests.scripted_server import Peer, with_length
from tests.test_s3_store_liars import NO_KEYS, KeptLease

MIB = 1 << 20
VERSION = ObjectVersion(1, "p/a", '"e1"', 100_000)
NOTHING = Traits()
PAGE = NO_KEYS.format("").encode()
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ALL = b"HTTP/1.1 206 OK\r\nContent-Length: 100000\r\nETag: \"e1\"\r\n" \
      b"Content-Range: bytes 0-99999/100000\r\n\r\n"  # fmt: skip


class Hostile:
    """What the server has seen and sent."""

    def __init__(self):
        self.requests, self.sent_bytes = [], 0
        self.store = self.url = None


@asynccontextmanager
async def hostile(answer):
    """A store, and a server that gives `answer(number)`, an iterable of pieces, to each request.

    A number among the pieces is a pause in seconds.
    """
    it = Hostile()

    async def play(stream):
        peer = Peer(stream)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await peer.asked():
                it.requests.append(peer)
                for piece in answer(len(it.requests)):
                    if isinstance(piece, bytes):
                        await peer.send(piece)
                        it.sent_bytes += len(piece)
                    else:
                        await trio.sleep(piece)
                await stream.aclose()
                return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, play, 0)
        it.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        it.store = S3Store("lab", KeptLease(), endpoint_url=it.url, region="us-east-1")
        yield it
        it.store.close()
        nursery.cancel_scope.cancel()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.001)
    monkeypatch.setattr(retry, "FAILURES_MAX", 2)


def endless(head, piece):
    return lambda _: itertools.chain([head], itertools.repeat(piece))


ROWS = b"<ListBucketResult>" + b"<Contents><Key>p/a</Key></Contents>" * 1800
WITHOUT_END = {
    "rows": (CHUNKED + b"%x\r\n%s\r\n" % (len(ROWS), ROWS), b"%x\r\n%s\r\n" % (len(ROWS), ROWS)),
    "one text": (CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    "blanks": (CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "the head of a chunk": (CHUNKED + b"1;", b"a=" + b"x" * 65536),
    "lines behind the last chunk": (
        CHUNKED + b"%x\r\n%s\r\n0\r\n" % (len(PAGE), PAGE), b"x" * 60_000 + b": y\r\n",
    ),
    "one line behind the last chunk": (
        CHUNKED + b"%x\r\n%s\r\n0\r\nx: " % (len(PAGE), PAGE), b"y" * 65536,
    ),
    "chunks of one byte": (CHUNKED, b"1\r\n \r\n" * 10_000),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536),
    "a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n", b" " * 65536),
    "a head": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 10_000),
    "a line of the head": (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 65536),
    "a status line": (b"HTTP/1.1 200 ", b"y" * 65536),
    "heads that are not the last": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
}  # fmt: skip


@pytest.mark.parametrize("kind", WITHOUT_END)
async def test_a_listing_without_end_is_given_up_after_a_bounded_number_of_bytes(kind, quick):
    async with hostile(endless(*WITHOUT_END[kind])) as server:
        with trio.fail_after(120), pytest.raises(StoreFailure):
            await server.store.list_page("p/")
        assert server.sent_bytes < len(server.requests) * 20 * MIB  # ours, and the kernel's buffers
        assert len(server.requests) <= 2


@pytest.mark.parametrize("kind", WITHOUT_END)
async def test_an_error_without_end_is_given_up_after_a_bounded_number_of_bytes(kind, quick):
    head, piece = WITHOUT_END[kind]
    async with hostile(endless(head.replace(b"200", b"403"), piece)) as server:
        with trio.fail_after(120), pytest.raises(StsfsError):
            await server.store.confirm(VERSION)
        assert server.sent_bytes < len(server.requests) * 12 * MIB


class TestSlowly:
    """A byte a second, by a clock that jumps."""

    @pytest.fixture
    def clock(self):
        return MockClock(autojump_threshold=0.02)

    @staticmethod
    def dripping(begin, drop, pause_s):
        def answer(_):
            yield begin
            while True:
                yield pause_s
                yield drop

        return answer

    async def over_within(self, begin, drop, call, error, seconds, pause_s=1.0):
        async with hostile(self.dripping(begin, drop, pause_s)) as server:
            begun_s = trio.current_time()
            with pytest.raises(error):
                await call(server.store)
            assert trio.current_time() - begun_s < seconds
            return server

    async def test_a_page_ends_in_time(self, clock):
        begin = b"HTTP/1.1 200 OK\r\n\r\n"
        ask = lambda store: store.list_page("p/")  # noqa: E731
        await self.over_within(begin, b" ", ask, DeadlineExceeded, 60 + STALL_S + 6)

    async def test_a_page_ends_in_time_that_comes_faster_than_that_is_worth_nothing(self, clock):
        begin = b"HTTP/1.1 200 OK\r\n\r\n"
        ask = lambda store: store.list_page("p/")  # noqa: E731
        await self.over_within(begin, b" " * 1000, ask, DeadlineExceeded, BODY_S + 6)

    async def test_an_error_ends_in_time(self, clock):
        begin = b"HTTP/1.1 403 No\r\nContent-Length: 60000\r\n\r\n<Error>"
        ask = lambda store: store.confirm(VERSION)  # noqa: E731
        await self.over_within(begin, b" ", ask, DeadlineExceeded, 60 + STALL_S + 6)

    async def test_a_head_ends_in_time(self, clock):
        ask = lambda store: store.list_page("p/")  # noqa: E731
        await self.over_within(b"HTTP/1.1 200 OK\r\nx: ", b"y", ask, DeadlineExceeded, 60 + 16)

    async def test_a_range_ends_in_time_though_each_byte_of_it_is_progress(self, clock):
        ask = lambda store: store.read_range(VERSION, 0, 100_000, Sink(100_000))  # noqa: E731
        await self.over_within(ALL, b"x", ask, StsfsError, 60 + STALL_S + 6)

    async def test_blanks_of_a_server_that_copies_are_awaited_but_not_for_ever(self, clock):
        def done(_):
            yield b"HTTP/1.1 200 OK\r\n\r\n"
            for _ in range(60):
                yield from (10.0, b" ")
            yield b"<CopyObjectResult><ETag>&quot;c&quot;</ETag></CopyObjectResult>"

        async with hostile(done) as server:
            assert await server.store.writer().copy(VERSION, "p/b") == '"c"'
        begin = b"HTTP/1.1 200 OK\r\n\r\n"
        ask = lambda store: store.writer().copy(VERSION, "p/b")  # noqa: E731
        await self.over_within(begin, b" ", ask, DeadlineExceeded, WORK_S + 10, pause_s=10.0)


@pytest.mark.parametrize("head", [
    b"ETag: \"e1\"\r\nETag: \"e2\"",
    b"Content-Range: bytes 0-99999/100000\r\nContent-Range: bytes 0-99999/100001",
    b"Content-Length: 18446744073709551615",
    b"x: " + b"y" * 20_000,
    b"\r\n".join(b"x%d: y" % number for number in range(1000)),
    b"ETag: \"e1\r\x0bX: y\"",
])  # fmt: skip
async def test_a_head_that_cannot_be_one_is_no_answer(head, quick):
    whole = ALL.replace(b"\r\n\r\n", b"\r\n" + head + b"\r\n\r\n") + b"x" * 100_000
    async with hostile(lambda _: [whole]) as server:
        sink = Sink(100_000)
        with pytest.raises(StoreFailure):
            await server.store.read_range(VERSION, 0, 100_000, sink)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status):
    async with hostile(lambda _: [with_length(b"")]) as other:
        body = b"<Error><Code>TemporaryRedirect</Code><Endpoint>%s</Endpoint></Error>"
        body %= other.url.encode()
        answer = with_length(body, b"Location: " + other.url.encode() + b"/lab")
        answer = answer.replace(b"200 OK", b"%d Moved" % status)
        async with hostile(lambda _: [answer]) as server:
            for ask in (server.store.list_page("p/"), server.store.confirm(VERSION),
                        server.store.writer().delete("p/a")):  # fmt: skip
                with pytest.raises(StsfsError):
                    await ask
        assert other.requests == []


def made(root, **fields):
    inner = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    return with_length(f"<{root}>{inner}</{root}>".encode())


@pytest.mark.parametrize("answer", [
    made("InitiateMultipartUploadResult", UploadId="a b"),
    made("InitiateMultipartUploadResult", UploadId="a&#10;X-Evil: 1"),
    made("InitiateMultipartUploadResult", UploadId="\u00e9"),
    made("InitiateMultipartUploadResult", UploadId="x" * 5000),
    made("InitiateMultipartUploadResult", UploadId=""),
    made("Error", Code="InternalErrorOfAKind", Message="x" * 50_000),
])  # fmt: skip
async def test_an_upload_has_an_id_that_can_be_sent_and_written_down_or_none(answer, quick):
    async with hostile(lambda _: [answer]) as server:
        with pytest.raises(StoreFailure):
            await server.store.writer().begin_upload("p/a", NOTHING, write_id="w")


@pytest.mark.parametrize(("etag", "checksum"), [
    ("a&#10;X-Evil: 1", ""), ('"a", "b"', ""), ("a b", ""), ("x" * 300, ""),
    ("e", "&lt;x/&gt;"), ("e", "AAAAAA==\u00e9"), ("e", "x" * 9000),
])  # fmt: skip
async def test_a_copied_part_has_an_etag_and_a_checksum_that_can_be_sent(etag, checksum, quick):
    answer = made("CopyPartResult", ETag=etag, ChecksumCRC32C=checksum)
    async with hostile(lambda _: [answer]) as server:
        writer = server.store.writer()
        with pytest.raises(StoreFailure):
            await writer.copy_part("p/b", "u", 1, VERSION, 0, 100)


async def test_what_others_wrote_beside_an_object_is_not_sent_with_our_next_change():
    """A text of their own in the place where stsfs notes which changes came before."""
    evil = b"x" * 3000
    headers = (b'ETag: "e1"', b"x-amz-meta-stsfs-write: " + evil, b"x-amz-meta-stsfs-after: "
               + b" ".join([evil, b"a-change", evil]))  # fmt: skip
    asked = []

    def answer(_):
        return [with_length(b"", *headers)]

    async with hostile(answer) as server:
        writer = server.store.writer(conditions=False)
        stored = await writer._stored("p/a")
        asked.append(stored.lineage())
    assert asked == [("a-change",)]


async def test_a_length_that_no_file_can_have_is_no_size():
    answer = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 18446744073709551615\r\n\r\n'

    async with hostile(lambda _: [answer]) as server:

        async def url_of(_):
            return f"{server.url}/k"

        store = PresignedStore(url_of, reach=Reach(loopback=True), deadline_s=0.1)
        with pytest.raises(StsfsError):
            await store.probe("k")
        store.close()


@pytest.mark.parametrize("bucket", [
    "lab\r\nX-Evil: 1", "lab /x", "lab?x=", "lab#", "lab@evil.example", "a/b", "..", "", "b" * 300,
    "l\u00e4b", "lab\0",
])  # fmt: skip
async def test_a_bucket_becomes_no_line_and_no_other_host_of_a_request(bucket):
    for url in (None, "http://127.0.0.1:1"):
        with pytest.raises(BadArgument, match="not the name of a bucket"):
            endpoint_for(bucket, "us-east-1", url)


@pytest.mark.parametrize("evil", ["a\r\nX-Evil: 1", "a b", "a\0", "\u00e9", "\ud800", "", "a\tb"])
@pytest.mark.parametrize("place", range(3))
def test_credentials_hold_nothing_that_a_head_or_a_file_of_settings_could_not(evil, place):
    texts = ["AKID", "SECRETSECRET", "TOKENTOKEN"]
    texts[place] = evil
    with pytest.raises(ValueError, match=r"word|empty") as caught:
        Credentials(*texts)
    assert "SECRETSECRET" not in str(caught.value)


@pytest.mark.parametrize("end", [1e300, float("nan"), float("inf"), -1e300])
def test_credentials_end_at_a_time_that_can_be_one(end):
    with pytest.raises(ValueError, match="no time"):
        Credentials("AKID", "SECRETSECRET", "TOKENTOKEN", end)


@pytest.mark.parametrize("variable", ["AWS_SESSION_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"])
@pytest.mark.parametrize("form", ["ini", "env"])
def test_no_line_of_its_own_comes_into_what_stsfs_credentials_prints(tmp_path, variable, form):
    evil = "us\ncredential_process = touch /tmp/evil"
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token", "AWS_EC2_METADATA_DISABLED": "true", variable: evil,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "stsfs", "credentials", "s3://lab/base", "--format", form],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode > 0
    assert done.stdout == ""
    assert re.fullmatch(r"[^\n]*\n?(?:[^\n]*\n)?", done.stderr)
    assert "Traceback" not in done.stderr


async def test_a_change_is_not_made_over_what_cannot_be_told():
    """An object whose row makes no sense is no absent one."""
    row = (
        "<Contents><Key>p/a</Key><ETag>e</ETag><Size>-1</Size>"
        "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
    )
    listing = with_length(NO_KEYS.format(row).encode())
    async with hostile(lambda _: [listing]) as server:
        writer = server.store.writer(conditions=False)
        with pytest.raises(StoreFailure, match="'p/a' cannot be told"):
            await writer.put("p/a", BytesBody(b"x"), NOTHING, expected=Expected(None), write_id="w")
        assert len(server.requests) == 1
