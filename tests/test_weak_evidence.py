"""No change is made on an ETag that nobody told, and none counts as made on weak evidence."""

import pytest

from stsfs.errors import StoreFailure, WriteConflict
from stsfs.store.object_store import Expected, ObjectVersion, Part
from stsfs.store.s3_store import S3Store
from tests.fakes import BytesBody, Sink
from tests.scripted_server import served, with_length
from tests.test_s3_writer_liars import (
    NO_KEYS,
    NOTHING,
    Kept,
    Server,
    completed,
    error,
    stored,
    writing,
)

UNTOLD = Expected("")
KNOWN = ObjectVersion(1, "source", '"old"', 10)
NAMELESS = ObjectVersion(1, "source", "", 10)
PARTS = [Part(1, '"one"')]
ON_AN_UNTOLD_ETAG = [
    lambda writer: writer.delete("k", expected=UNTOLD),
    lambda writer: writer.put("k", BytesBody(b"x"), NOTHING, expected=UNTOLD, write_id="w"),
    lambda writer: writer.complete_upload("k", "u", PARTS, expected=UNTOLD, write_id="w"),
    lambda writer: writer.copy(KNOWN, "k", expected=UNTOLD),
    lambda writer: writer.copy(NAMELESS, "k"),
    lambda writer: writer.copy_part("k", "u", 1, NAMELESS, 0, 10),
    lambda writer: writer.traits(NAMELESS),
    lambda writer: writer.copied(NAMELESS, "k"),
]


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("change", ON_AN_UNTOLD_ETAG)
async def test_what_has_no_etag_is_not_changed_and_not_even_asked_for(change, conditions):
    server = Server(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with writing(server, conditions=conditions) as writer:
        with pytest.raises(StoreFailure, match="tells no ETag"):
            await change(writer)
    assert server.heads == []


async def test_what_has_no_etag_is_not_read():
    server = Server(b"HTTP/1.1 204 No Content\r\n\r\n")
    async with served(server.play, connections=1000) as (host, port):
        store = S3Store("lab", Kept(), endpoint_url=f"http://{host}:{port}", region="us-east-1")
        with pytest.raises(StoreFailure, match="tells no ETag of 'source'"):
            await store.read_range(NAMELESS, 0, 10, Sink(10))
        with pytest.raises(StoreFailure, match="tells no ETag of 'source'"):
            await store.confirm(NAMELESS)
        store.close()
    assert server.heads == []


async def test_a_change_whose_object_shows_no_etag_is_not_told_as_made():
    async with writing(Server(completed(""), stored("w", ""))) as writer:
        with pytest.raises(StoreFailure, match="tells no ETag of 'k'"):
            await writer.complete_upload("k", "u", PARTS, expected=None, write_id="w")


HTML = b"<!DOCTYPE html><html><head><title>Log in</title></head><body><p>Wi-Fi<br></body></html>"
XHTML = b'<html xmlns="http://www.w3.org/1999/xhtml"><body><UploadId>u</UploadId></body></html>'
ETAG = b'ETag: "new"'
PAGES = [with_length(text, ETAG) for text in (HTML, XHTML, b'{"ok": true}', b"OK")]
CHANGES = {
    "put": lambda writer: writer.put("k", BytesBody(b"x"), NOTHING, expected=None, write_id="w"),
    "begin": lambda writer: writer.begin_upload("k", NOTHING, write_id="w"),
    "part": lambda writer: writer.upload_part("k", "u", 1, BytesBody(b"x")),
    "part_copy": lambda writer: writer.copy_part("k", "u", 1, KNOWN, 0, 10),
    "complete": lambda writer: writer.complete_upload("k", "u", PARTS, expected=None, write_id="w"),
    "copy": lambda writer: writer.copy(KNOWN, "k"),
    "delete": lambda writer: writer.delete("k"),
    "abort": lambda writer: writer.abort_upload("k", "u"),
}
TOLD_IN_BODY = {
    "copy": "CopyObjectResult", "part_copy": "CopyPartResult",
    "complete": "CompleteMultipartUploadResult", "begin": "InitiateMultipartUploadResult",
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("kind", CHANGES)
async def test_a_page_in_place_of_an_answer_makes_no_change(kind, page):
    """A login page of a network, a proxy that means well: they answer 200 to everything."""
    async with writing(Server(page, stored("another"))) as writer:
        with pytest.raises(StoreFailure, match="does not tell what became of"):
            await CHANGES[kind](writer)


def done(kind):
    """What S3 says when it has done what was asked."""
    root, fields = TOLD_IN_BODY.get(kind), "<ETag>new</ETag><UploadId>u</UploadId>"
    return with_length(f"<{root}>{fields}</{root}>".encode() if root else b"", ETAG)


ROOTS = [*TOLD_IN_BODY.values(), "ListBucketResult", "DeleteResult", "Result", "CopyResult"]


@pytest.mark.parametrize("kind", CHANGES)
async def test_the_answer_to_another_request_makes_no_change(kind):
    for root in ROOTS:
        body = f"<{root}><ETag>new</ETag><UploadId>u</UploadId></{root}>".encode()
        async with writing(Server(with_length(body, ETAG), stored("another"))) as writer:
            if root == TOLD_IN_BODY.get(kind) or (kind, root) == ("part_copy", "CopyObjectResult"):
                await CHANGES[kind](writer)
                continue
            with pytest.raises(StoreFailure, match="does not tell what became of"):
                await CHANGES[kind](writer)


@pytest.mark.parametrize("kind", CHANGES)
async def test_only_the_status_that_means_done_does(kind):
    for status in (200, 201, 202, 203, 204, 205, 206, 207, 226, 299):
        answer = done(kind).replace(b"200", b"%d" % status, 1)
        if status in {204, 205}:
            answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        server = Server(answer)
        async with writing(server) as writer:
            if status == 200 or (status == 204 and kind in {"delete", "abort"}):
                await CHANGES[kind](writer)
                continue
            with pytest.raises(StoreFailure, match=f"answered {status} to"):
                await CHANGES[kind](writer)
            assert len(server.heads) == 1
            assert writer.uploads.in_doubt_count == (kind in {"begin", "abort"})


async def test_only_the_status_of_a_range_or_a_whole_is_read():
    for status in (201, 202, 203, 204, 299):
        answer = with_length(b"x" * 10, b'ETag: "old"').replace(b"200", b"%d" % status, 1)
        async with served(Server(answer).play, connections=1000) as (host, port):
            store = S3Store("lab", Kept(), endpoint_url=f"http://{host}:{port}", region="us-east-1")
            with pytest.raises(StoreFailure, match=f"answered {status} to"):
                await store.read_range(KNOWN, 0, 10, Sink(10))
            with pytest.raises(StoreFailure, match=f"answered {status} to"):
                await store.confirm(KNOWN)
            with pytest.raises(StoreFailure, match=f"answered {status} to"):
                await store.list_page("base/")
            store.close()


@pytest.mark.parametrize("kind", TOLD_IN_BODY)
@pytest.mark.parametrize("body", [b"", b" \n ", b"<ListBucketResult></ListBucketResult>"])
async def test_what_is_told_in_the_body_is_not_told_by_the_head(kind, body):
    async with writing(Server(with_length(body, ETAG), stored("another"))) as writer:
        with pytest.raises(StoreFailure, match="does not tell what became of"):
            await CHANGES[kind](writer)


async def test_a_completion_that_is_not_told_is_looked_up():
    for page in (*PAGES, with_length(b"", ETAG)):
        async with writing(Server(page, stored("w", '"made"'))) as writer:
            assert await CHANGES["complete"](writer) == '"made"'


@pytest.mark.parametrize("kind", CHANGES)
async def test_answers_as_servers_give_them_are_believed(kind):
    answers = [done(kind)]
    if kind not in TOLD_IN_BODY:
        answers.append(with_length(b"\n", ETAG))
    if kind in {"delete", "abort"}:
        answers.append(b"HTTP/1.1 204 No Content\r\n\r\n")
    for answer in answers:
        async with writing(Server(answer)) as writer:
            await CHANGES[kind](writer)


async def test_only_the_servers_own_word_says_that_something_is_gone():
    async with writing(Server(error(404, "NoSuchKey"))) as writer:
        await writer.delete("k")
    async with writing(Server(error(404, "NoSuchUpload"))) as writer:
        await writer.abort_upload("k", "u")
        assert writer.uploads.in_doubt_count == 0
    page = with_length(HTML).replace(b"200 OK", b"404 Not Found")
    async with writing(Server(page)) as writer:
        with pytest.raises(StoreFailure, match="404"):
            await writer.delete("k")
        with pytest.raises(StoreFailure, match="404"):
            await writer.abort_upload("k", "u")
        assert writer.uploads.in_doubt_count == 1


async def test_where_a_404_does_not_say_what_is_missing_a_listing_does():
    page = with_length(b"").replace(b"200 OK", b"404 Not Found")
    async with writing(Server(page, NO_KEYS, page, NO_KEYS)) as writer:
        await writer.delete("k", expected=Expected('"old"'))
        with pytest.raises(WriteConflict):
            await writer.copy(KNOWN, "k")
    listed = with_length(
        b"<ListBucketResult><Contents><Key>source</Key><ETag>old</ETag><Size>10</Size>"
        b"<LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
    )
    async with writing(Server(page, listed, page, listed)) as writer:
        with pytest.raises(StoreFailure, match="404"):
            await writer.copy(KNOWN, "k")
        with pytest.raises(StoreFailure, match="404"):
            await writer.delete("source", expected=Expected('"old"'))
