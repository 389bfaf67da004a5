"""What is stored with an object, whatever others have written there, goes along with its bytes."""

import email.header

import pytest

from stsfs.store.object_store import ObjectVersion, Traits
from stsfs.store.stored import headers_of
from tests.fakes import BytesBody
from tests.scripted_server import with_length
from tests.test_s3_writer_liars import DONE, Server, writing

VERSION = ObjectVersion(1, "k", '"e"', 1)


def object_with(*lines):
    head = with_length(b"x", b'ETag: "e"', b"Content-Range: bytes 0-0/1", *lines)
    return head.replace(b"200 OK", b"206 OK")


async def written_again(*lines):
    """The headers of a change that keeps what is stored with an object."""
    server = Server(object_with(*lines), DONE)
    async with writing(server) as writer:
        traits = await writer.traits(VERSION)
        await writer.put("k", BytesBody(b"xy"), traits, expected=None, write_id="w")
    return lambda name: server.header(1, name)


@pytest.mark.parametrize(
    "value",
    ["plain", "two  blanks", "=?UTF-8?Q?as_S3_shows_it?=", "\u00e9\u4e2d", "zero\u200bwidth",
     "\U0001f40d", "x" * 15_000],
)  # fmt: skip
async def test_user_metadata_is_kept_as_it_is(value):
    sent = await written_again(b"x-amz-meta-note: " + value.encode())
    assert sent("x-amz-meta-note") == value


@pytest.mark.parametrize(
    "value",
    [b"a\tb", "no\u00a0break".encode(), "line\u2028end".encode(), "em\u2003space".encode(),
     b"latin\xe9", b"a\x80b\xff"],
)  # fmt: skip
async def test_what_cannot_be_signed_as_it_is_is_kept_in_the_form_of_s3(value):
    """Whoever decodes it has the very same again."""
    sent = await written_again(b"x-amz-meta-note: " + value)
    word = sent("x-amz-meta-note")
    assert word.isascii()
    assert word.isprintable()
    ((text, charset),) = email.header.decode_header(word)
    assert text == value
    text.decode(charset)
    again = await written_again(b"x-amz-meta-note: " + word.encode())
    assert again("x-amz-meta-note") == word


@pytest.mark.parametrize(
    ("told", "kept"),
    [(b"text/plain;\tcharset=x", "text/plain; charset=x"), (b"text/plain", "text/plain"),
     (b"text/\xe4", None), ("text/\u200b".encode(), None)],
)  # fmt: skip
async def test_a_content_type_that_is_none_is_left_out_and_told(told, kept, caplog):
    sent = await written_again(b"Content-Type: " + told)
    assert sent("content-type") == kept
    assert ("makes no sense" in caplog.text) == (kept is None)


def test_what_a_record_has_kept_can_be_sent():
    """Records of earlier versions hold values as they came."""
    assert headers_of(Traits({"a": "x\ty"}), "w")["x-amz-meta-a"] == "=?UTF-8?B?eAl5?="
