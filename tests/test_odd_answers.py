"""Answers of odd servers and proxies: ETags written otherwise, dates and bodies of no sense."""

import contextlib

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stsfs.errors import StaleVersion, StoreFailure, StsfsError
from stsfs.store import answers, retry, s3_writer
from stsfs.store.etags import normal_etag
from stsfs.store.http_connection import Head
from stsfs.store.object_store import Expected, ObjectVersion, Part, Traits
from stsfs.store.s3_store import S3Store
from tests.fakes import BytesBody, Sink, read_all
from tests.scripted_server import served, with_length
from tests.test_s3_writer_liars import Kept, Server, stored

NOTHING = Traits()
VERSION = ObjectVersion(1, "k", '"e1"', 5)
FORMS = ['"e1"', "e1", 'W/"e1"', ' "e1" ']


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.001)


def listing(etag):
    return with_length(
        f"<ListBucketResult><Contents><Key>k</Key><ETag>{etag}</ETag><Size>5</Size>"
        "<LastModified>2026-01-01T00:00:00Z</LastModified><StorageClass/></Contents>"
        "</ListBucketResult>".encode()
    )


def content(etag, data=b"alpha"):
    span = b"Content-Range: bytes 0-4/5"
    return with_length(data, f"ETag: {etag}".encode(), span).replace(b"200 OK", b"206 OK")


class Opened:
    """A store whose server plays a script, in a loop of its own."""

    def __init__(self, play):
        self._play = play

    async def __aenter__(self):
        self._served = served(self._play, connections=1000)
        host, port = await self._served.__aenter__()
        self._store = S3Store(
            "lab", Kept(), endpoint_url=f"http://{host}:{port}", region="us-east-1"
        )
        return self._store

    async def __aexit__(self, *exc):
        self._store.close()
        await self._served.__aexit__(*exc)


@pytest.mark.parametrize("listed", FORMS)
@pytest.mark.parametrize("answered", FORMS)
async def test_an_object_is_the_same_however_its_etag_is_written(listed, answered):
    server = Server(listing(listed.replace('"', "&quot;")), content(answered))
    async with Opened(server.play) as store:
        found = (await store.list_page("k")).objects[0]
        version = ObjectVersion(1, found.key, found.etag, found.size_bytes)
        assert version == VERSION
        assert await read_all(store, version) == b"alpha"
        assert server.header(1, "if-match") == '"e1"'


@pytest.mark.parametrize("answered", ['"e2"', "e2", 'W/"e2"', ""])
async def test_another_etag_is_another_version_however_it_is_written(answered):
    async with Opened(Server(content(answered)).play) as store:
        with pytest.raises(StaleVersion):
            await read_all(store, VERSION)


@pytest.mark.parametrize("answered", FORMS)
async def test_a_change_tells_its_etag_as_listings_do(answered):
    head = f"HTTP/1.1 200 OK\r\nETag: {answered}\r\nContent-Length: 0\r\n\r\n".encode()
    async with Opened(Server(head, stored("w", answered)).play) as store:
        writer = store.writer()
        etag = await writer.put("k", BytesBody(b"x"), NOTHING, expected=None, write_id="w")
        assert etag == '"e1"'
        assert await writer.written("k", "w") == '"e1"'


@pytest.mark.parametrize("etag", ['"a\r\nx-amz-acl: public-read"', '"a\0"', '"ä"', "tab\t."])
def test_an_etag_cannot_become_a_header_of_its_own(etag):
    with pytest.raises(StoreFailure, match="ETag"):
        normal_etag(etag)


@pytest.mark.parametrize("text", [
    "Sat, 28 Nov 99999 11:00:00 GMT", "Sat, 28 Nov 9999 11:00:00 GMT",
    "Mon, 01 Jan 1900 00:00:00 GMT", "Sat, 28 Nov 2026 99:00:00 GMT", "", "0", "now", ", , ,",
    "Sat, 28 Nov 2026 11:00:00 +999999999",
])  # fmt: skip
async def test_a_date_that_cannot_be_is_no_date(text):
    assert answers.unix_s_of(text) is None
    refusal = b"<Error><Code>RequestTimeTooSkewed</Code></Error>"
    head = f"HTTP/1.1 403 No\r\nDate: {text}\r\nContent-Length: {len(refusal)}\r\n\r\n".encode()
    async with Opened(Server(head + refusal).play) as store:
        with pytest.raises(StoreFailure, match="RequestTimeTooSkewed"):
            await store.confirm(VERSION)


def test_a_date_is_read():
    assert answers.unix_s_of("Sat, 28 Nov 2026 11:00:00 GMT") == 1_795_863_600


odd_texts = st.one_of(
    st.text(max_size=30),
    st.sampled_from([
        "-1", "99999999999999999999999", "1e999", "NaN", "2026-13-01T00:00:00Z", "0001-01-01",
        "9999-12-31T23:59:59-23:59", "&#0;", "\ud7ff", "true", "url", "%zz", "%ff", "\x00",
    ]),
)  # fmt: skip
odd_bytes = st.one_of(
    st.binary(max_size=200),
    odd_texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(
        st.tuples(
            st.sampled_from([
                "Error", "Code", "Message", "Region", "ETag", "UploadId", "Key", "Size", "Contents",
                "LastModified", "ListBucketResult", "IsTruncated", "NextContinuationToken",
                "CommonPrefixes", "Prefix", "EncodingType", "ChecksumCRC32C", "!--", "?x",
            ]),
            odd_texts,
            st.booleans(),
        ),
        max_size=8,
    ).map(
        lambda rows: (
            "<ListBucketResult>"
            + "".join(f"<{name}>{text}" + f"</{name}>" * closed for name, text, closed in rows)
            + "</ListBucketResult>"
        ).encode("utf-8", "surrogatepass")
    ),
)  # fmt: skip
header_values = st.one_of(
    st.binary(max_size=40).filter(lambda value: not set(value) & set(b"\r\n\0")),
    st.sampled_from(
        [b"-1", b"99999999999999999999999", b"Sat, 28 Nov 99999 11:00:00 GMT", b"\xff"]
    ),
)
header_names = st.sampled_from([
    b"Date", b"ETag", b"Content-Range", b"x-amz-bucket-region", b"x-amz-meta-stsfs-write",
    b"x-amz-meta-stsfs-after", b"x-amz-meta-\xff", b"Content-Type", b"x-amz-storage-class",
    b"Transfer-Encoding", b"Content-Encoding", b"Connection",
])  # fmt: skip


@st.composite
def odd_answers(draw):
    """One whole answer, of which most parts make no sense."""
    status = draw(st.sampled_from([b"200", b"204", b"206", b"301", b"400", b"403", b"404", b"412",
                                   b"416", b"500", b"501", b"100", b"999", b"abc"]))  # fmt: skip
    body = draw(odd_bytes)
    lines = [b"HTTP/1.1 %s Odd" % status]
    lines += [b"%s: %s" % pair for pair in draw(st.lists(st.tuples(header_names, header_values),
                                                         max_size=4))]  # fmt: skip
    length = draw(st.sampled_from([b"%d" % len(body), b"", b"-5", b"5, 7", b"x", b"9" * 30]))
    lines += [b"Content-Length: " + length] * (length != b"")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.lists(odd_answers(), min_size=1, max_size=4))
def test_whatever_a_server_answers_it_is_an_error_in_words(script):
    async def once(script):
        for call in CALLS:
            left = list(script)

            async def play(peer, left=left):
                if await peer.asked():
                    await peer.send(left.pop(0) if len(left) > 1 else left[0])
                # and closes

            async with Opened(play) as store:
                with contextlib.suppress(StsfsError):
                    await call(store, store.writer())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "FAILURES_MAX", 3)
        patch.setattr(retry, "_DELAY_MAX_S", 0.001)
        patch.setattr(s3_writer, "RECHECK_S_MIN", 0.0)
        trio.run(once, script)


NEW, PARTS = Expected(None), [Part(1, '"p"')]
CALLS = [
    lambda store, _: store.list_page("k"),
    lambda store, _: store.confirm(VERSION),
    lambda store, _: store.read_range(VERSION, 0, 5, Sink(5)),
    lambda _, writer: writer.put("k", BytesBody(b"x"), NOTHING, expected=NEW, write_id="w"),
    lambda _, writer: writer.begin_upload("k", NOTHING, write_id="w"),
    lambda _, writer: writer.copy_part("k", "u", 1, VERSION, 0, 5),
    lambda _, writer: writer.complete_upload("k", "u", PARTS, expected=NEW, write_id="w"),
    lambda _, writer: writer.copy(VERSION, "k2", expected=NEW),
    lambda _, writer: writer.delete("k", expected=Expected('"e1"')),
    lambda _, writer: writer.abort_upload("k", "u"),
    lambda _, writer: writer.traits(VERSION),
    lambda _, writer: writer.written("k", "w"),
]


@given(odd_bytes, st.dictionaries(header_names.map(bytes.lower), header_values))
def test_whatever_an_error_says_it_has_a_meaning(body, headers):
    answer = answers.read(Head(403, headers), body)
    assert isinstance(answer.error("try"), StsfsError)
