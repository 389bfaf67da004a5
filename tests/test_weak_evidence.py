"""No change is made on an ETag that nobody told, and none counts as made on weak evidence."""

import pytest

from stsfs.errors import StoreFailure
from stsfs.store.object_store import Expected, ObjectVersion, Part
from stsfs.store.s3_store import S3Store
from tests.fakes import BytesBody, Sink
from tests.scripted_server import served
from tests.test_s3_writer_liars import NOTHING, Kept, Server, completed, stored, writing

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
