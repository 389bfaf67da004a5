"""Servers that are odd, broken or mean harm: no name is missing unsaid, no answer is another's."""

import pytest
import trio

from stsfs.errors import StoreFailure
from stsfs.store import retry
from stsfs.store.object_store import ObjectVersion, Part, Traits
from stsfs.store.s3_store import S3Store
from tests.fakes import BytesBody, Sink
from tests.scripted_server import chunked, served, with_length
from tests.test_s3_store_liars import KeptLease
from tests.test_s3_writer_liars import Server, stored

VERSION = ObjectVersion(1, "p/a", '"e"', 1)
ROW = (
    "<Contents><Key>p/{}</Key><ETag>e</ETag><Size>1</Size>"
    "<LastModified>2024-01-01T00:00:00Z</LastModified></Contents>"
)
TOKEN = "<NextContinuationToken>t</NextContinuationToken>"
DONE = with_length(b"", b'ETag: "n"')


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.001)
    monkeypatch.setattr(retry, "FAILURES_MAX", 2)


def listing(inner, root="ListBucketResult", before=""):
    return f"{before}<{root}>{inner}</{root.split()[0]}>".encode()


async def asked_of(server, call):
    """What a call makes of the answers of a server."""
    failure = None
    async with served(server.play, connections=20) as (host, port):
        url = f"http://{host}:{port}"
        store = S3Store("lab", KeptLease(), endpoint_url=url, region="us-east-1")
        try:
            return await call(store)
        except StoreFailure as exc:
            failure = exc  # raised below, not in a group
        finally:
            store.close()
    raise failure


async def answered(call, *answers):
    return await asked_of(Server(*answers), call)


def list_it(store):
    return store.list_page("p/")


def copy_it(store):
    return store.writer().copy(VERSION, "p/b")


class TestListings:
    @pytest.mark.parametrize("word", ["true", "True", "TRUE", " true\n", "1", None])
    async def test_a_page_that_more_follows_is_not_the_last_however_that_is_written(self, word):
        truncated = f"<IsTruncated>{word}</IsTruncated>" if word else ""
        page = with_length(listing(ROW.format("a") + truncated + TOKEN))
        assert (await answered(list_it, page)).next_token == "t"

    @pytest.mark.parametrize("word", ["false", "False", "0"])
    async def test_the_last_page_is_the_last_although_it_names_a_continuation(self, word):
        page = with_length(listing(f"<IsTruncated>{word}</IsTruncated>{TOKEN}"))
        assert (await answered(list_it, page)).next_token is None

    async def test_a_page_of_which_that_cannot_be_told_is_an_error(self):
        page = with_length(listing("<IsTruncated>perhaps</IsTruncated>" + TOKEN))
        with pytest.raises(StoreFailure, match="'perhaps', instead of truncated or not"):
            await answered(list_it, page)

    @pytest.mark.parametrize("page", [
        listing(ROW.format("a"), 'ListBucketResult xmlns="http://other.example/"'),
        listing(ROW.format("a"), 's3:ListBucketResult xmlns:s3="http://other.example/"'),
        listing(ROW.format("a").replace("<Contents>", '<Contents xmlns="http://other.example/">')),
        listing(ROW.format("a"), before='\n<?xml version="1.0" encoding="UTF-8"?>\n'),
        listing(ROW.format("a"), before='\ufeff<?xml version="1.0" encoding="UTF-8"?>\n'),
    ])  # fmt: skip
    async def test_rows_are_found_however_the_page_is_written(self, page):
        for answer in (with_length(page), chunked(*(bytes([each]) for each in page))):
            found = await answered(list_it, answer)
            assert [each.key for each in found.objects] == ["p/a"]

    async def test_all_prefixes_are_found_where_they_are_in_one_element(self):
        shared = "<Prefix>p/b/</Prefix><Prefix>p/c/</Prefix>"
        page = with_length(listing(f"<CommonPrefixes>{shared}</CommonPrefixes>{ROW.format('a')}"))
        assert (await answered(list_it, page)).prefixes == ["p/b/", "p/c/"]

    async def test_what_is_not_compressed_may_be_called_so_in_any_case(self):
        page = with_length(listing(ROW.format("a")), b"Content-Encoding: Identity")
        assert len((await answered(list_it, page)).objects) == 1


async def test_bytes_of_a_version_that_cannot_be_told_from_another_are_not_read():
    """A server that lists no ETag, and tells none with the bytes."""

    async def list_and_read(store):
        listed = (await store.list_page("p/")).objects[0]
        version = ObjectVersion(1, listed.key, listed.etag, listed.size_bytes)
        await store.read_range(version, 0, 1, sink)

    sink = Sink(1)
    page = with_length(listing(ROW.format("a").replace("<ETag>e</ETag>", "")))
    with pytest.raises(StoreFailure, match="no ETag of 'p/a', so that a change would go unnoticed"):
        await answered(list_and_read, page, ONE_BYTE.replace(b'ETag: "e"\r\n', b""))
    assert sink.confirmations == 0


NOT_RESULTS = [
    b"<Error><Code>InternalErr", b"\0<Error><Code>AccessDenied</Code></Error>",
    b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>",
    b"<html>no</html>", b'{"error": "no"}', b"   \n",
]  # fmt: skip


class TestChanges:
    @pytest.mark.parametrize("body", NOT_RESULTS)
    async def test_a_copy_is_made_only_if_the_body_says_so(self, body):
        """Else the source would be deleted by a rename, and there would be no copy."""
        with pytest.raises(StoreFailure, match="does not tell what became of it"):
            await answered(copy_it, with_length(body, b'ETag: "n"'))

    @pytest.mark.parametrize("body", NOT_RESULTS)
    @pytest.mark.parametrize("is_there", [False, True])
    async def test_a_file_is_complete_only_if_the_body_says_so_or_it_is_there(self, body, is_there):
        def complete(store):
            parts = [Part(1, '"p"')]
            return store.writer().complete_upload("k", "u", parts, expected=None, write_id="w")

        answers = with_length(body, b'ETag: "n"'), stored("w" if is_there else "of others")
        if is_there:
            assert await answered(complete, *answers) == '"new"'
        else:
            with pytest.raises(StoreFailure, match="does not tell what became of 'k'"):
                await answered(complete, *answers)


class TestHeadsThatOnlyAnnounce:
    @pytest.mark.parametrize("announced", [
        b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3,
    ])  # fmt: skip
    @pytest.mark.parametrize("apart", [False, True])
    async def test_the_answer_behind_them_is_the_answer(self, announced, apart):
        requests = 0

        class Announcing:
            async def play(self, peer):
                nonlocal requests
                while await peer.asked():
                    requests += 1
                    await peer.body(1)
                    await peer.send(announced if apart else announced + DONE)
                    if apart:
                        await trio.sleep(0.02)
                        await peer.send(DONE)

        async def put_twice(store):
            writer = store.writer()
            for _ in range(2):
                body = BytesBody(b"x")
                etag = await writer.put("k", body, Traits(), expected=None, write_id="w")
            return etag, store.counters.connections_opened

        assert await asked_of(Announcing(), put_twice) == ('"n"', 1)
        assert requests == 2

    async def test_there_are_not_many_of_them(self):
        page = with_length(listing(ROW.format("a")))
        with pytest.raises(StoreFailure, match="heads without end"):
            await answered(list_it, b"HTTP/1.1 100 Continue\r\n\r\n" * 21 + page)


PAGE, EVIL = (listing(ROW.format(name)) for name in ("a", "evil"))
ONE_BYTE = (
    b'HTTP/1.1 206 P\r\nETag: "e"\r\nContent-Range: bytes 0-0/1\r\nContent-Length: 1\r\n\r\nx'
)
FIRST = {
    "a page": (with_length(PAGE), list_it),
    "chunks": (chunked(PAGE), list_it),
    "a range": (ONE_BYTE, lambda store: store.read_range(VERSION, 0, 1, Sink(1))),
    "nothing": (b"HTTP/1.1 204 No\r\n\r\n", lambda store: store.writer().delete("p/a")),
}
NOTHING = b"HTTP/1.1 204 No\r\n\r\n"
NEXT = {
    "a page": (with_length(EVIL), with_length(PAGE), list_it),
    "a deletion": (NOTHING, NOTHING, lambda store: store.writer().delete("p/a")),
}
"""What is sent too early, what is sent when it was asked, and the call."""


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("following", NEXT)
@pytest.mark.parametrize("apart", ["together", "later", "cut"])
async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one(
    first, following, apart
):
    (answer, ask), (smuggled, honest, ask_next) = FIRST[first], NEXT[following]
    requests = 0

    class Smuggling:
        async def play(self, peer):
            nonlocal requests
            while await peer.asked():
                requests += 1
                if requests > 1:
                    await peer.send(honest)
                elif apart == "together":
                    await peer.send(answer + smuggled)
                else:
                    cut = 0 if apart == "later" else 20
                    await peer.send(answer[:50])
                    await trio.sleep(0.02)
                    await peer.send(answer[50:] + smuggled[:cut])
                    await trio.sleep(0.02)
                    await peer.send(smuggled[cut:])

    async def both(store):
        await ask(store)
        await trio.sleep(0.1)
        found = await ask_next(store)
        assert store.counters.connections_opened == 2
        return found

    with_next = await asked_of(Smuggling(), both)
    assert requests == 2
    assert with_next is None or [each.key for each in with_next.objects] == ["p/a"]
