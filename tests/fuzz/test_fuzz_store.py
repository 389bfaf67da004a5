"""What a server of objects answers: heads, pages, errors, ranges; read, or an error of ours."""

import contextlib
import re
import socket
from itertools import islice
from unittest.mock import patch
from xml.sax.saxutils import escape

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from stsfs.errors import StsfsError
from stsfs.store import answers, http_connection, paging
from stsfs.store.etags import normal_etag
from stsfs.store.http_connection import Connection, Head, connect
from stsfs.store.http_wire import ConnectionBroken
from stsfs.store.list_page import MARKS_MAX, PAGE_BYTES_MAX, UNCOUNTED_BYTES, ListPageParser
from stsfs.store.object_store import ListedObject, ListPage, ObjectVersion, Traits
from stsfs.store.range_transfer import check_range_head
from stsfs.store.signed_urls import parse_signed_url
from stsfs.store.stored import headers_of, receive_stored
from stsfs.values import KEY_BYTES_MAX, TEXT_CHARS_MAX
from stsfs.vfs.key_listing import KeyListing, pieces
from stsfs.vfs.listing import is_file_name
from stsfs.vfs.nodes import Directory, File, Site
from tests.fakes import MemoryStore
from tests.fuzz.mutations import ODD_TEXTS, bounded, damaged_bytes, fuzz

LIST = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
    b"<Prefix>a/</Prefix><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>"
    b"<NextContinuationToken>t</NextContinuationToken>"
    b"<Contents><Key>a/b</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified>"
    b"<ETag>&quot;e&quot;</ETag><Size>5</Size><StorageClass>STANDARD</StorageClass></Contents>"
    b"<Contents><Key>a/c</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified>"
    b"<ETag>&quot;f&quot;</ETag><Size>6</Size><StorageClass>STANDARD</StorageClass></Contents>"
    b"<CommonPrefixes><Prefix>a/d/</Prefix></CommonPrefixes></ListBucketResult>"
)
ERROR = b"<Error><Code>NoSuchKey</Code><Message>None.</Message><Region>eu-west-1</Region></Error>"
HEAD = (
    b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nETag: \"e\"\r\n"
    b"Content-Range: bytes 0-4/9\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
    b"x-amz-meta-colour: blue\r\nx-amz-bucket-region: eu-west-1\r\n\r\n12345"
)  # fmt: skip

VALUE = ODD_TEXTS.filter(lambda text: len(text) < 1000).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


def swapped(document, place, value):
    return document.replace(place, value, 1)


PLACES = [b"a/b", b"2020-01-01T00:00:00.000Z", b"&quot;e&quot;", b">5<", b"STANDARD", b"a/d/",
          b">true<", b">url<", b">t<", b"<Key>a/b</Key>", b"ListBucketResult"]  # fmt: skip
NUMBERS = st.sampled_from(
    [b">-5<", b">" + b"9" * 30 + b"<", b">" + b"9" * 5000 + b"<", b">1e5<", b"> 5 <", b"><"]
)


def read_page(data, piece_bytes):
    async def run():
        parser = ListPageParser()
        for at in range(0, len(data), piece_bytes):
            parser.feed(data[at : at + piece_bytes])
        return await parser.page()

    with bounded():
        try:
            return trio.run(run)
        except StsfsError:
            return None


def check_page(page):
    for each in page.objects:
        assert len(each.key.encode()) <= KEY_BYTES_MAX
        assert 0 <= each.size_bytes < 2**63
        assert abs(int(each.modified_unix_s * 1e9)) < 2**63 * 10**9
        assert re.fullmatch(r'"[!#-~]{1,256}"|', each.etag)
        assert re.fullmatch(r"[ -~]{0,16384}", each.storage_class)
    for each in page.prefixes:
        assert len(each.encode()) <= KEY_BYTES_MAX
    for key, why in page.unusable.items():
        assert len(key.encode()) <= 4 * KEY_BYTES_MAX
        assert why.isprintable()
        assert 0 < len(why) < 1000
    assert page.next_token is None or 0 < len(page.next_token) <= TEXT_CHARS_MAX


@fuzz
@given(damaged_bytes(LIST, edits=4), st.integers(1, 700))
@example(b"", 1)
@example(b"<a>" * 100_000, 700)
@example(LIST.replace(b"a/d/", b""), 100)
@example(LIST.replace(b"&quot;e", b"\xc2\x80"), 100)
def test_bytes_are_a_page_or_refused(data, piece_bytes):
    page = read_page(data, piece_bytes)
    if page is not None:
        check_page(page)


@pytest.mark.parametrize("piece", [
    b"<b/>", b"<b c=\"\" d='' e=''/>", b"&a;", b"<!--b-->", b"<b>&a;</b>", b"x" * 65_536,
])  # fmt: skip
def test_a_page_of_nothing_but_markup_is_refused_before_it_takes_memory(piece):
    """The memory is lxml's own: what was parsed of the page says how much that can be."""
    parser, many, fed = ListPageParser(), piece * (65_536 // len(piece)), []
    parser.feed(b'<!DOCTYPE a [<!ENTITY a "b">]><ListBucketResult>')

    def feed_without_end():
        while True:
            parser.feed(many)
            fed.append(len(many))

    with pytest.raises(StsfsError, match=r"page of the listing has more|is not XML"):
        feed_without_end()
    assert sum(fed) <= PAGE_BYTES_MAX
    assert piece.startswith(b"x") or (sum(fed) - UNCOUNTED_BYTES) // len(piece) <= MARKS_MAX


@fuzz
@given(st.sampled_from(PLACES), VALUE | NUMBERS)
@example(b">5<", b">-5<")
@example(b">5<", b">" + b"9" * 30 + b"<")
@example(b"&quot;e&quot;", b"a&#13;&#10;X-Evil: 1")
@example(b"2020-01-01T00:00:00.000Z", b"0001-01-01T00:00:00+23:59")
@example(b"2020-01-01T00:00:00.000Z", b"2020-01-01T00:00:00")
@example(b"a/b", b"%00")
@example(b">t<", b"> <")
def test_a_page_with_another_value_is_in_order_or_refused(place, value):
    page = read_page(swapped(LIST, place, value), 10_000)
    if page is not None:
        check_page(page)


FIELDS = {
    "Key": ["a/b", "a/b%2Bc", "a/%FF", "a/%00", "a/" + "x" * 1200, "a/%C3%A9", "a/\ufffd", "b"],
    "ETag": ['"e"', "e", 'W/"e"', "", '"a", "b"', "x" * 300, '"', "a b"],
    "Size": ["0", "5", "-0", "+1", " 1", "1_0", "\u0661", "\u00b2", str(2**63 - 1), str(2**63)],
    "LastModified": ["2020-01-01T00:00:00.000Z", "2020-01-01", "20200101T000000Z", "2020-W01-1",
                     "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"],
    "StorageClass": ["STANDARD", "", "a\tb", "\u00e9"],
}  # fmt: skip
"""Values that are right, and those that are nearly right."""

ROWS = st.lists(
    st.fixed_dictionaries({}, optional={
        name: st.sampled_from(values) | ODD_TEXTS for name, values in FIELDS.items()
    }),
    min_size=1, max_size=6,
)  # fmt: skip


@fuzz
@given(ROWS, st.lists(st.sampled_from(["a/d/", "a/%FF/", "a/"]) | ODD_TEXTS, max_size=2),
       st.booleans())  # fmt: skip
@example([{"Key": "a/" + "%FF" * 400_000, "Size": "1"}], [], True)
def test_rows_of_any_texts_are_objects_or_hidden_with_a_reason(rows, prefixes, is_encoded):
    """None is lost: each is shown, or among the unusable ones, or the page is refused."""
    said = "".join(
        "<Contents>"
        + "".join(f"<{n}>{escape(text)}</{n}>" for n, text in row.items())
        + "</Contents>"
        for row in rows
    ) + "".join(f"<CommonPrefixes><Prefix>{escape(x)}</Prefix></CommonPrefixes>" for x in prefixes)
    said += "<EncodingType>url</EncodingType>" * is_encoded
    page = read_page(f"<ListBucketResult>{said}</ListBucketResult>".encode("utf-8", "replace"), 999)
    if page is None:
        return
    check_page(page)
    shown_count = len(page.objects) + len(page.prefixes)
    assert shown_count <= len(rows) + len(prefixes)
    assert shown_count == len(rows) + len(prefixes) or page.unusable
    with contextlib.suppress(StsfsError):
        paging.check_page(page, "a/", token=None, keys_max=1000, delimiter="/")
        names = shown([page], 3)
        assert len(names) <= shown_count


def is_text(text):
    return not any("\ud800" <= char <= "\udfff" for char in text)


KEYS = ODD_TEXTS.filter(is_text)  # pages are decoded before
LISTED = st.builds(
    ListedObject,
    st.sampled_from(["a/", "a/b", "a/b/", "a/c", "a/\0", "a/..", "a", "", "b", "a//"])
    | KEYS,
    st.just('"e"'), st.integers(0, 9), st.just(1.0), st.just("STANDARD"),
)  # fmt: skip
PAGES = st.builds(
    ListPage,
    st.lists(LISTED, max_size=6),
    st.lists(st.sampled_from(["a/d/", "a/b/", "a/", "", "b/", "a/x"]) | KEYS, max_size=4),
    st.none() | st.just("t"),
    st.dictionaries(KEYS, st.just("why"), max_size=2),
)


@fuzz
@given(st.lists(PAGES, min_size=1, max_size=3), st.integers(1, 4))
@example([ListPage([ListedObject(key, '"e"', 1, 1.0, "") for key in "cba"], [], None)], 2)
@example([ListPage([], [""], None)], 1)
@example([ListPage([], ["b/", "b/"], None)], 1)
@example([ListPage([], ["a/\ufffd/", "a/\ufffd/"], None)], 9)
@example([ListPage([], [], None), ListPage([ListedObject("a/b", '"e"', 1, 1.0, "")], [], None)], 4)
def test_pages_of_any_keys_give_entries_or_an_error_of_ours(pages, keys_max):
    with bounded():
        try:
            names = shown(pages, keys_max)
        except StsfsError:
            return
    assert len(set(names)) == len(names)
    assert all(is_file_name(name) for name in names)


def shown(pages, keys_max):
    site = Site(1, MemoryStore(), "a/", frozenset())
    directory = Directory(1, site, "a/", None, b"")

    def make(name, listed):
        if listed is None:
            return Directory(2, site, f"a/{name.decode()}/", directory, name)
        version = ObjectVersion(1, listed.key, listed.etag, listed.size_bytes)
        return File(3, directory, name, version, 0, "")

    listing = KeyListing(directory, make, expires_s=1e9)
    for page in pages:
        parts = list(islice(pieces(page, keys_max), 1000))
        assert len(parts) < 1000
        for count, part in enumerate(parts, 1):
            listing.add(part, to_be_continued=count < len(parts))
        if listing.complete:
            break
    return [node.name for node in listing.entries]


HEADERS = st.dictionaries(
    st.sampled_from([b"date", b"x-amz-bucket-region", b"content-range", b"etag", b"content-type",
                     b"x-amz-meta-a", b"x-amz-meta-stsfs-write"]),
    VALUE,
)  # fmt: skip


@fuzz
@given(st.integers(100, 999), HEADERS, damaged_bytes(ERROR, edits=4))
@example(403, {b"date": b"Mon, 01 Jan 0000 00:00:00 GMT"}, ERROR)
@example(403, {b"date": b"Mon, 01 Jan 99999 00:00:00 GMT"}, ERROR)
@example(403, {b"date": b"Mon, 01 Jan 2024 00:00:00 +9999999999"}, ERROR)
@example(403, {b"date": b""}, ERROR)
@example(403, {}, ERROR.replace(b"None.", b"a&#10;b\xc2\x9b2J"))
@example(403, {}, b"<Error><Message>" + b"x" * 60_000 + b"</Message></Error>")
def test_an_error_answer_is_read_into_one_line(status, headers, body):
    with bounded():
        check_answer(answers.read(Head(status, headers), body))
        answers.read_inside(Head(200, headers), body)


def check_answer(found):
    text = str(found.error("read 'k'", "s3:PutObject"))
    text.encode()
    assert text.isprintable()
    assert len(text) < 5000
    assert re.fullmatch(r"[A-Za-z0-9_-]{0,63}", found.region)
    assert found.server_unix_s is None or 0 < found.server_unix_s < 2**33


@contextlib.contextmanager
def refused_in_words():
    """What is around the reading of every error answer."""
    with contextlib.suppress(StsfsError), answers.understood("read 'k'"):
        yield


@fuzz
@given(ODD_TEXTS | ODD_TEXTS.map(lambda text: f'"e"{text}') | st.just('"e"\x01'))
def test_an_etag_is_in_its_normal_form_or_refused(text):
    try:
        found = normal_etag(text)
    except StsfsError:
        return
    assert found == "" or re.fullmatch(r'"[ -~]+"', found)
    assert normal_etag(found) == found


@fuzz
@given(HEADERS, st.none() | st.integers(-1, 2**64))
def test_a_head_of_a_range_fits_or_is_refused(headers, length_bytes):
    version = ObjectVersion(1, "k", '"e"', 9)
    try:
        check_range_head(Head(206, headers, length_bytes), version, 0, 5)
    except StsfsError:
        return
    assert length_bytes == 5


def asked(data):
    """What comes of an answer of these bytes: head, stored values and body; None: broken."""

    async def run():
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            connection = Connection(ours)
            try:
                theirs.sendall(data)
                theirs.shutdown(socket.SHUT_WR)
                head = await connection.ask(b"GET / HTTP/1.1\r\n\r\n")
                stored = await receive_stored(connection, head)
                body = b""
                async for piece in connection.body(head, 1 << 20):
                    body += piece
                return head, stored, body
            finally:
                connection.close()

    # It is answered before it has asked, which no success may be.
    with bounded(), patch.object(http_connection, "unacknowledged_bytes", return_value=0):
        try:
            return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0.05))
        except (ConnectionBroken, StsfsError):
            return None


@fuzz
@given(damaged_bytes(HEAD, edits=4))
@example(HEAD.replace(b"5\r\n", b"-5\r\n", 1))
@example(HEAD.replace(b"5\r\n", b"18446744073709551616\r\n", 1))
@example(HEAD.replace(b"5\r\n", b"5\r\nContent-Length: 6\r\n", 1))
@example(HEAD.replace(b"Content-Length: 5", b"Content-Length: +5"))
@example(HEAD.replace(b"Content-Length: 5", b"Content-Length: 5\r\nTransfer-Encoding: chunked"))
@example(HEAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"))
@example(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD)
@example(HEAD.replace(b"206", b"099"))
def test_bytes_are_an_answer_or_a_broken_connection(data):
    found = asked(data)
    if found is not None:
        head = found[0]
        assert head.length_bytes is None or 0 <= head.length_bytes < 2**63


NAMES = st.sampled_from([
    b"ETag", b"Content-Range", b"Date", b"Last-Modified", b"Content-Length", b"Transfer-Encoding",
    b"Connection", b"Content-Encoding", b"x-amz-meta-stsfs-after", b"x-amz-meta-stsfs-write",
    b"x-amz-meta-a", b"x-amz-storage-class", b"Content-Type", b"Upgrade",
])  # fmt: skip
FRAMES = st.sampled_from(
    [b"chunked", b"gzip, chunked", b"close", b"keep-alive", b"5", b"0", b'"e"']
)


@fuzz
@given(st.lists(st.tuples(NAMES, VALUE | FRAMES), max_size=5),
       st.sampled_from([b"", b"12345", b"5\r\n12345\r\n0\r\n\r\n", b"5;a=b\r\n12345\r\n0\r\nx"]),
       st.sampled_from([b"200", b"204", b"206", b"304", b"100", b"500"]))  # fmt: skip
def test_a_head_of_any_headers_is_an_answer_or_a_broken_connection(headers, body, status):
    lines = [b"HTTP/1.1 " + status + b" Odd", *(b"%s: %s" % pair for pair in headers)]
    found = asked(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    if found is None:
        return
    head, stored, _ = found
    assert head.length_bytes is None or 0 <= head.length_bytes < 2**63
    for name, value in head.headers.items():
        assert not set(name + value) & set(b"\r\n\0")
        assert len(value) <= TEXT_CHARS_MAX
    assert re.fullmatch(r'"[!#-~]{1,256}"|', stored.etag)
    assert all(re.fullmatch(r"[!-~]{1,64}", each) for each in stored.lineage())


@fuzz
@given(st.dictionaries(ODD_TEXTS, ODD_TEXTS, max_size=2), ODD_TEXTS, ODD_TEXTS, ODD_TEXTS)
@example({"a\r\nb": "c"}, "", "", "")
@example({"a": "\u4e2d"}, "", "", "w")
def test_what_is_stored_with_an_object_can_be_sent_or_is_refused(
    metadata, content_type, storage_class, write_id
):
    try:
        found = headers_of(Traits(metadata, content_type, storage_class), write_id)
    except StsfsError:
        return
    for name, value in found.items():
        f"{name}: {value}".encode()
        assert not set("\r\n\0") & set(name + value)


@fuzz
@given(ODD_TEXTS | ODD_TEXTS.map(lambda text: f"https://h/{text}")
       | st.tuples(ODD_TEXTS, ODD_TEXTS).map(
           lambda two: f"https://h/k?X-Amz-Expires={two[0]}&X-Amz-Date={two[1]}"))  # fmt: skip
@example("https://h/k?X-Amz-Expires=" + "9" * 400 + "&X-Amz-Date=20200101T000000Z")
@example("https://h/k?Expires=" + "9" * 5000)
@example("https://h:99999/")
@example("https://[::1/")
def test_a_signed_url_leads_somewhere_or_is_refused(url):
    try:
        found = parse_signed_url(url, 1e9)
    except StsfsError:
        return
    assert 0 <= found.port < 65536
    assert not set("\r\n \0") & set(found.target + found.host_header + found.host)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b", "\ud800", "a\0b"])
async def test_a_host_that_cannot_be_one_is_a_broken_connection(host):
    with pytest.raises(ConnectionBroken):
        await connect(host, 80, None)
