"""Whatever a server claims, wrong bytes are not delivered, and bad answers end in our errors."""

from contextlib import suppress

import pytest
import trio

from stsfs.credentials.credentials import Credentials
from stsfs.errors import AccessDenied, DeadlineExceeded, StaleVersion, StoreFailure
from stsfs.store import http_connection, retry, signed_bucket
from stsfs.store.object_store import ObjectVersion
from stsfs.store.s3_store import S3Store
from tests.fakes import Sink, read_all
from tests.scripted_server import served, with_length

DATA = b"0123456789"
VERSION = ObjectVersion(1, "x", '"right"', len(DATA))
SECRET = "the-secret-key"
NO_KEYS = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{}</ListBucketResult>'


class KeptLease:
    """Credentials that are always in force; notes when others were asked for."""

    def __init__(self):
        self.clock_offset_s, self.renewals = 0.0, 0

    def current(self):
        return Credentials("AKIDEXAMPLE", SECRET, "the-session-token")

    async def valid(self):
        return self.current()

    async def renew_after(self, refused):
        self.renewals += 1
        return self.current()


@pytest.fixture
def quick(monkeypatch):
    """Next to no pause between tries."""
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.001)


def ranged(data, *, etag='"right"', content_range="bytes 0-9/10", status="206 Partial Content"):
    lines = [f"HTTP/1.1 {status}", f"ETag: {etag}", f"Content-Length: {len(data)}"]
    if content_range:
        lines.append(f"Content-Range: {content_range}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def error(status, code, *, extra="", headers=()):
    body = f"<Error><Code>{code}</Code><Message>no</Message>{extra}</Error>".encode()
    lines = [f"HTTP/1.1 {status} No", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Asked:
    """A store whose server answers request after request from a list, and then the last again."""

    def __init__(self, *answers, one_each=False, **options):
        """one_each: the server closes each connection after one answer."""
        self._answers, self._one_each, self._options = answers, one_each, options
        self.count, self.lease = 0, KeptLease()

    async def __aenter__(self):
        async def script(peer):
            with suppress(trio.BrokenResourceError):  # the store has heard enough
                while await peer.asked():
                    answer = self._answers[min(self.count, len(self._answers) - 1)]
                    self.count += 1
                    await peer.send(answer)
                    if self._one_each:
                        return

        self._served = served(script, connections=1000)
        host, port = await self._served.__aenter__()
        self._options.setdefault("region", "us-east-1")
        url = f"http://{host}:{port}"
        self.store = S3Store("lab", self.lease, endpoint_url=url, **self._options)
        return self

    async def __aexit__(self, *exc):
        self.store.close()
        await self._served.__aexit__(*exc)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ranged(DATA, etag='"other"'), StaleVersion),
        (ranged(DATA, etag=""), StaleVersion),
        (ranged(DATA, content_range="bytes 1-10/11"), StoreFailure),
        (ranged(DATA, content_range="bytes 0-9/11"), StoreFailure),
        (ranged(DATA, content_range="bytes 0-9/*"), StoreFailure),
        (ranged(DATA, content_range=""), StoreFailure),
        (ranged(DATA[:-1]), StoreFailure),
        (ranged(DATA + b"more"), StoreFailure),
        (ranged(DATA, content_range="").replace(b"Content-Length: 10\r\n", b""), StoreFailure),
    ],
)
async def test_an_answer_that_is_not_the_range_of_the_version_is_refused(answer, expected):
    async with Asked(answer) as asked:
        sink = Sink(10)
        with pytest.raises(expected):
            await asked.store.read_range(VERSION, 0, 10, sink)
        assert (sink.confirmations, sink.arrived_bytes) == (0, 0)


async def test_a_server_that_ignores_ranges_serves_whole_objects_only():
    whole = ranged(DATA, content_range="", status="200 OK")
    async with Asked(whole) as asked:
        assert await read_all(asked.store, VERSION) == DATA
        with pytest.raises(StoreFailure, match="no range"):
            await read_all(asked.store, VERSION, 3, 5)


async def test_a_resumed_body_must_be_of_the_same_version(quick):
    other = ranged(DATA[6:], etag='"other"', content_range="bytes 6-9/10")
    async with Asked(ranged(DATA)[:-4], other, one_each=True) as asked:
        sink = Sink(10)
        with pytest.raises(StaleVersion):
            await asked.store.read_range(VERSION, 0, 10, sink)
        assert (sink.confirmations, sink.data) == (1, DATA[:6])


async def test_the_sink_hears_of_the_version_once_although_the_body_was_cut(quick):
    rest = ranged(DATA[6:], content_range="bytes 6-9/10")
    async with Asked(ranged(DATA)[:-10], ranged(DATA)[:-4], rest, one_each=True) as asked:
        sink = Sink(10)
        await asked.store.read_range(VERSION, 0, 10, sink)
        assert (sink.confirmations, sink.data) == (1, DATA)


async def test_an_empty_object_is_confirmed_by_its_etag_although_the_server_sends_another():
    empty = ObjectVersion(1, "x", '"right"', 0)
    async with Asked(ranged(b"", content_range="", status="200 OK")) as asked:
        await asked.store.confirm(empty)
    for body in (b"", b"x" * 100):
        other = ranged(body, etag='"other"', content_range="", status="200 OK")
        async with Asked(other) as asked:
            with pytest.raises(StaleVersion):
                await asked.store.confirm(empty)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("", "ended in the middle"),
        ("not XML", "not XML"),
        (NO_KEYS.format("<Contents>")[:-5], "not XML|ended in the middle"),
        ("<Error><Code>Odd</Code></Error>", "is a <Error>"),
        (NO_KEYS.format("<IsTruncated>true</IsTruncated>"), "no continuation"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', "is a <a>|not XML"),
    ],
)
async def test_a_listing_that_makes_no_sense_is_a_store_failure(document, reason):
    async with Asked(with_length(document.encode())) as asked:
        with pytest.raises(StoreFailure, match=reason):
            await asked.store.list_page("")
        assert asked.count == 1


@pytest.mark.parametrize("encoded", [True, False])
async def test_keys_are_decoded_only_if_the_server_says_that_they_are_encoded(encoded):
    contents = (
        "<Contents><Key>a%2Bb+c</Key><ETag>e</ETag><Size>1</Size>"
        "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
        "<CommonPrefixes><Prefix>d+%C3%BC/</Prefix></CommonPrefixes>"
    )
    said = "<EncodingType>url</EncodingType>" if encoded else ""
    async with Asked(with_length(NO_KEYS.format(said + contents).encode())) as asked:
        page = await asked.store.list_page("")
    assert page.objects[0][:3] == ("a+b c" if encoded else "a%2Bb+c", '"e"', 1)
    assert page.prefixes == ["d ü/" if encoded else "d+%C3%BC/"]


@pytest.mark.parametrize("status", ["404 Not Found", "412 Precondition Failed", "416 No"])
async def test_a_listing_refused_as_if_it_were_an_object_is_not_a_stale_version(status):
    answer = with_length(b"<html>a web site</html>").replace(b"200 OK", status.encode())
    async with Asked(answer) as asked:
        with pytest.raises(StoreFailure, match="Check the endpoint"):
            await asked.store.list_page("")


async def test_a_body_that_stays_cut_is_a_store_failure(quick):
    async with Asked(ranged(DATA)[:-10], one_each=True) as asked:
        with pytest.raises(StoreFailure, match="Failed 10 times: read 'x'"):
            await read_all(asked.store, VERSION)


async def test_an_error_answer_without_end_is_not_kept(quick):
    endless = b"HTTP/1.1 403 No\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 200_000
    async with Asked(endless) as asked:
        with pytest.raises(StoreFailure, match="a body longer than 65536 bytes"):
            await read_all(asked.store, VERSION)


@pytest.mark.parametrize("sent", [b"", ranged(DATA)[:-10]], ids=["no head", "no body"])
async def test_a_black_hole_ends_at_the_deadline(sent, monkeypatch):
    monkeypatch.setattr(http_connection, "STALL_S", 0.05)
    async with Asked(sent, deadline_s=0.2) as asked:
        with pytest.raises(DeadlineExceeded, match="No progress within"):
            await read_all(asked.store, VERSION)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "ExpiredToken"), (403, "RequestTimeTooSkewed"), (301, "PermanentRedirect")],
)
async def test_what_does_not_get_better_by_repair_ends(status, code):
    headers = ["Date: Mon, 01 Jan 2024 00:00:00 GMT", "x-amz-bucket-region: eu-north-1"]
    async with Asked(error(status, code, headers=headers)) as asked:
        with pytest.raises(StoreFailure, match=code):
            await read_all(asked.store, VERSION)
        assert asked.count == 4
        assert asked.lease.renewals == (3 if code == "ExpiredToken" else 0)


@pytest.mark.parametrize("region", ["a/../b", "\u00ff", "x" * 64, "evil.example/"])
async def test_a_region_that_can_be_none_is_not_followed(region):
    answer = error(301, "PermanentRedirect", headers=[f"x-amz-bucket-region: {region}"])
    async with Asked(answer) as asked:
        with pytest.raises(StoreFailure, match="PermanentRedirect"):
            await read_all(asked.store, VERSION)
        assert (asked.store.region, asked.count) == ("us-east-1", 1)


async def test_requests_sent_away_side_by_side_move_the_store_once(monkeypatch):
    pools = []
    make = signed_bucket.ConnectionPool
    monkeypatch.setattr(
        signed_bucket, "ConnectionPool", lambda *a, **k: pools.append(make(*a, **k)) or pools[-1]
    )
    moved = error(301, "PermanentRedirect", headers=["x-amz-bucket-region: eu-north-1"])
    listing = with_length(NO_KEYS.format("").encode())
    async with Asked(*[moved] * 8, listing) as asked:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(asked.store.list_page, "")
        assert asked.store.region == "eu-north-1"
        assert len(pools) == 2


@pytest.mark.parametrize("date", ["nonsense", "Mon, 99 Foo 2024", "\u00ff"])
async def test_a_date_that_is_none_does_not_hide_the_refusal(date):
    async with Asked(error(403, "AccessDenied", headers=[f"Date: {date}"])) as asked:
        with pytest.raises(AccessDenied, match="AccessDenied"):
            await read_all(asked.store, VERSION)


async def test_no_secret_is_part_of_an_error(quick):
    answers = error(403, "SignatureDoesNotMatch"), error(400, "ExpiredToken"), b""
    for answer in answers:
        async with Asked(answer, one_each=True) as asked:
            with pytest.raises((AccessDenied, StoreFailure)) as caught:
                await read_all(asked.store, VERSION)
            shown = str(caught.value) + repr(caught.value.__cause__)
            assert SECRET not in shown
            assert "the-session-token" not in shown


def unannounced(data, *, content_range="bytes 0-9/10", chunks=True, status="206 Partial Content"):
    """The same without a length: in chunks, or ended by the end of the connection."""
    head, _, _ = ranged(b"", content_range=content_range, status=status).partition(b"\r\n\r\n")
    head = head.replace(b"\r\nContent-Length: 0", b"")
    if not chunks:
        return head + b"\r\nConnection: close\r\n\r\n" + data
    pieces = [data[at : at + 3] for at in range(0, len(data), 3)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


UNANNOUNCED = [{"chunks": True}, {"chunks": False}]


@pytest.mark.parametrize("how", UNANNOUNCED)
@pytest.mark.parametrize("buffer_bytes", [1, 4, 100])
async def test_a_range_without_a_length_is_counted(how, buffer_bytes):
    async with Asked(unannounced(DATA, **how), one_each=not how["chunks"]) as asked:
        sink = Sink(10, buffer_bytes)
        await asked.store.read_range(VERSION, 0, 10, sink)
        assert sink.data == DATA
    part = unannounced(DATA[3:5], content_range="bytes 3-4/10", **how)
    async with Asked(part, one_each=not how["chunks"]) as asked:
        assert await read_all(asked.store, VERSION, 3, 5) == DATA[3:5]
    whole = unannounced(DATA, content_range="", status="200 OK", **how)
    async with Asked(whole, one_each=not how["chunks"]) as asked:
        assert await read_all(asked.store, VERSION) == DATA
    first = unannounced(DATA[:1], content_range="bytes 0-0/10", **how)
    async with Asked(first, one_each=not how["chunks"]) as asked:
        await asked.store.confirm(VERSION)


@pytest.mark.parametrize("how", UNANNOUNCED)
async def test_more_bytes_than_the_range_are_refused_before_the_last_is_delivered(how):
    async with Asked(unannounced(DATA + b"more", **how), one_each=True) as asked:
        sink = Sink(10)
        with pytest.raises(StoreFailure, match="sent more than bytes 0-9/10 of 'x'"):
            await asked.store.read_range(VERSION, 0, 10, sink)
        assert sink.arrived_bytes < 10
    two = unannounced(DATA[:2], content_range="bytes 0-0/10", **how)
    async with Asked(two, one_each=True) as asked:
        with pytest.raises(StoreFailure, match="sent more than bytes 0-0/10 of 'x'"):
            await asked.store.confirm(VERSION)


@pytest.mark.parametrize("how", UNANNOUNCED)
async def test_fewer_bytes_than_the_range_are_taken_up_again_where_they_ended(how, quick):
    rest = ranged(DATA[6:], content_range="bytes 6-9/10")
    async with Asked(unannounced(DATA[:6], **how), rest, one_each=True) as asked:
        sink = Sink(10)
        await asked.store.read_range(VERSION, 0, 10, sink)
        assert (sink.confirmations, sink.data) == (1, DATA)
    none = unannounced(b"", content_range="bytes 0-0/10", **how)
    async with Asked(none, one_each=True) as asked:
        with pytest.raises(StoreFailure, match="Failed 10 times"):
            await asked.store.confirm(VERSION)


async def test_a_range_of_another_length_than_its_own_is_refused_in_words():
    async with Asked(ranged(DATA[:-1])) as asked:
        with pytest.raises(StoreFailure, match="sent bytes 0-9/10 in 9 bytes"):
            await read_all(asked.store, VERSION)
