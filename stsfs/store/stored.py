"""What is stored with an object beside its bytes, as headers, out and back."""

import base64
import logging
import re
from typing import NamedTuple

from stsfs.errors import StoreFailure
from stsfs.store.etags import normal_etag
from stsfs.store.http_connection import Connection, Head
from stsfs.store.object_store import Traits
from stsfs.store.range_transfer import header, whole

log = logging.getLogger(__name__)

_META = "x-amz-meta-"
_WRITE = "stsfs-write"
"""The user metadata that tells which change an object came from."""

_AFTER = "stsfs-after"
"""Which changes were seen before that one; only where the server does not look for us."""

LINEAGE_MAX = 8
_WRITE_ID = re.compile(r"[!-~]{1,64}")
"""Whoever writes the object can write here, and what is long would be sent with each change."""

_NEVER_SENT = re.compile(r"[\0\r\n\ud800-\udfff]")
_UNSIGNABLE = re.compile(r"(?! )[\s\x01-\x1f\x7f]")
"""White space that is no blank, and controls that headers can have: who checks a signature may take
them for blanks, or leave them out."""


class Stored(NamedTuple):
    """An object as it is now, without its bytes."""

    etag: str
    write_id: str
    """Of the change that made it; empty where stsfs did not."""

    traits: Traits

    after: tuple[str, ...] = ()
    """Ids of the changes that it is known to have come after, the latest first."""

    def lineage(self) -> tuple[str, ...]:
        """What the next change of it tells that it came after."""
        return tuple(each for each in (self.write_id, *self.after) if each)[:LINEAGE_MAX]


def headers_of(traits: Traits, write_id: str, after: tuple[str, ...] = ()) -> dict[str, str]:
    """The headers that store traits, the id of a change, and those before it.

    User metadata is sent as it was found. What cannot be signed as it is goes in the form in which
    S3 itself shows it (RFC 2047; "Working with object metadata" in the user guide). Raises
    StoreFailure for what can have come from no answer.
    """
    found = {f"{_META}{name}": value for name, value in traits.metadata.items()}
    found[_META + _WRITE] = write_id
    if after:
        found[_META + _AFTER] = " ".join(after)
    if traits.content_type:
        found["content-type"] = traits.content_type
    if traits.storage_class:
        found["x-amz-storage-class"] = traits.storage_class
    for name, value in found.items():
        if not name.isprintable() or _NEVER_SENT.search(value):
            raise StoreFailure(f"{name!r} cannot be stored with an object: it is {value!r}.")
    return {name: _signable(value) for name, value in found.items()}


def _signable(value: str) -> str:
    """A value in a form that is signed everywhere as here."""
    return _encoded_word("UTF-8", value.encode()) if _UNSIGNABLE.search(value) else value


def _encoded_word(charset: str, value: bytes) -> str:
    return f"=?{charset}?B?{base64.b64encode(value).decode()}?="


def _metadata_text(value: bytes) -> str:
    """A value of user metadata as found, and what is no UTF-8 as it must have been meant."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _encoded_word("ISO-8859-1", value)


def _plain(head: Head, name: bytes) -> str:
    """A header that is printable ASCII by its standard; one that is not cannot be kept."""
    text = " ".join(header(head, name).split("\t"))
    if text.isascii() and text.isprintable():
        return text
    log.warning("an object's %s makes no sense, and is not kept: %r", name.decode(), text[:200])
    return ""


async def receive_stored(connection: Connection, head: Head) -> Stored:
    """What an answer to a GET of at most one byte tells. Raises ConnectionBroken."""
    if head.status == 206:
        await whole(connection, head)
    # else the object is empty, or the server ignores ranges: the body is left where it is
    metadata = {}
    for name, value in head.headers.items():
        text = name.decode("latin-1")
        if text.startswith(_META):
            metadata[text.removeprefix(_META)] = _metadata_text(value)
    write_id, after = metadata.pop(_WRITE, ""), metadata.pop(_AFTER, "")
    traits = Traits(metadata, _plain(head, b"content-type"), _plain(head, b"x-amz-storage-class"))
    etag = normal_etag(header(head, b"etag"))
    ids = [each for each in after.split() if _WRITE_ID.fullmatch(each)]
    write_id = write_id if _WRITE_ID.fullmatch(write_id) else ""
    return Stored(etag, write_id, traits, tuple(ids[:LINEAGE_MAX]))
