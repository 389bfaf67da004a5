"""What is stored with an object beside its bytes, as headers, out and back."""

import re
from typing import NamedTuple

from stsfs.errors import StoreFailure
from stsfs.store.etags import normal_etag
from stsfs.store.http_connection import Connection, Head
from stsfs.store.object_store import Traits
from stsfs.store.range_transfer import header, whole

_META = "x-amz-meta-"
_WRITE = "stsfs-write"
"""The user metadata that tells which change an object came from."""

_AFTER = "stsfs-after"
"""Which changes were seen before that one; only where the server does not look for us."""

LINEAGE_MAX = 8
_WRITE_ID = re.compile(r"[!-~]{1,64}")
"""Whoever writes the object can write here, and what is long would be sent with each change."""


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

    Raises StoreFailure.
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
        if not (name + value).isprintable():
            raise StoreFailure(f"{name!r} cannot be stored with an object: it is {value!r}.")
    return found


async def receive_stored(connection: Connection, head: Head) -> Stored:
    """What an answer to a GET of at most one byte tells. Raises ConnectionBroken."""
    if head.status == 206:
        await whole(connection, head)
    # else the object is empty, or the server ignores ranges: the body is left where it is
    metadata = {}
    for name, value in head.headers.items():
        text = name.decode("latin-1")
        if text.startswith(_META):
            metadata[text.removeprefix(_META)] = value.decode(errors="replace")
    write_id, after = metadata.pop(_WRITE, ""), metadata.pop(_AFTER, "")
    traits = Traits(metadata, header(head, b"content-type"), header(head, b"x-amz-storage-class"))
    etag = normal_etag(header(head, b"etag"))
    ids = [each for each in after.split() if _WRITE_ID.fullmatch(each)]
    write_id = write_id if _WRITE_ID.fullmatch(write_id) else ""
    return Stored(etag, write_id, traits, tuple(ids[:LINEAGE_MAX]))
