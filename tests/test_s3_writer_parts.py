"""Parts that the server copies, or does not; uploads that stay behind, counted."""

import pytest
import trio

from stsfs.demo.file_server.answers import Habits
from stsfs.errors import AccessDenied, PartCopyRefused, StoreFailure, WriteConflict
from stsfs.store import retry
from stsfs.store.capabilities import Condition
from stsfs.store.object_store import Expected, ObjectVersion, Traits
from stsfs.store.s3_writer import S3Writer
from tests.fakes import BytesBody
from tests.s3_place import Place

ACL = "bucket-owner-full-control"
DATA = b"0123456789"
NOTHING = Traits()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.01)


@pytest.fixture
def place(request, tmp_path):
    """With a writer; its server may have other habits than S3."""
    options = {"part_bytes_min": 1, "habits": Habits(**getattr(request, "param", {}))}
    with Place(tmp_path / "s3", permission="read_write", **options) as made:
        store = made.store()
        made.writer = store.writer(acl=ACL)
        yield made
        store.close()


def never_into_checked(test):
    return pytest.mark.parametrize("place", [{"copies_into_checked": False}], indirect=True)(test)


async def source_of(place):
    etag = await place.writer.put(
        "base/source", BytesBody(DATA), NOTHING, expected=None, write_id="s"
    )
    return ObjectVersion(1, "base/source", etag, len(DATA))


async def patched(place, source, *, with_copies):
    """An object of a sent part and one that is copied, or sent where that is refused."""
    writer, key = place.writer, "base/patched"
    upload_id = await writer.begin_upload(key, NOTHING, write_id="w", with_copies=with_copies)
    parts = [await writer.upload_part(key, upload_id, 1, BytesBody(b"new "))]
    refused = False
    try:
        parts.append(await writer.copy_part(key, upload_id, 2, source, 4, 10))
    except PartCopyRefused:
        refused = True
        parts.append(await writer.upload_part(key, upload_id, 2, BytesBody(DATA[4:])))
    await writer.complete_upload(key, upload_id, parts, expected=None, write_id="w")
    assert (place.folder / "patched").read_bytes() == b"new 456789"
    return refused


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (501, "NotImplemented"),
        (405, "MethodNotAllowed"),
        (403, "AccessDenied"),
        (400, "InvalidArgument"),
        (400, "InvalidRequest"),
    ],
)
async def test_a_refused_copy_of_a_part_is_learnt_and_the_upload_goes_on(place, status, code):
    source = await source_of(place)
    place.faults.every_nth(1, status=status, code=code, kinds=["PART_COPY"])
    assert place.writer.copies_parts
    assert await patched(place, source, with_copies=False)
    assert not place.writer.copies_parts
    asked = place.gate.requests.count("PART_COPY")
    assert await patched(place, source, with_copies=True)
    assert place.gate.requests.count("PART_COPY") == asked == 1
    assert place.writer.capabilities.honours(Condition.COPY_SOURCE_IF_MATCH)


@never_into_checked
async def test_a_server_that_copies_into_uploads_without_checksums_gets_such_ones(place):
    source = await source_of(place)
    assert await patched(place, source, with_copies=True)
    assert place.writer.copies_parts
    assert not await patched(place, source, with_copies=True)
    upload_id = await place.writer.begin_upload("base/x", NOTHING, write_id="x")
    part = await place.writer.upload_part("base/x", upload_id, 1, BytesBody(b"checked"))
    assert part.checksum
    await place.writer.abort_upload("base/x", upload_id)


@never_into_checked
async def test_who_does_not_announce_copies_learns_that_there_are_none(place):
    source = await source_of(place)
    assert await patched(place, source, with_copies=False)
    assert not place.writer.copies_parts


@never_into_checked
async def test_a_copy_in_parts_finds_the_kind_of_upload_that_the_server_takes(place):
    source = await source_of(place)
    writer = place.writer
    large = S3Writer(
        writer.bucket, writer._look, acl=ACL, conditions=True, copy_bytes_max=5, copy_part_bytes=4
    )
    told = []

    async def on_upload(upload_id):
        await trio.lowlevel.checkpoint()
        told.append(upload_id)

    await large.copy(source, "base/copy", expected=Expected(None), on_upload=on_upload)
    assert (place.folder / "copy").read_bytes() == DATA
    assert len(told) == 2
    assert uploads_left(place) == []
    with pytest.raises(WriteConflict):
        await large.copy(source, "base/copy", expected=Expected(None))
    assert uploads_left(place) == []


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (400, "InvalidArgument")])
async def test_a_source_that_is_gone_is_a_conflict_and_teaches_nothing(place, status, code):
    source = await source_of(place)
    (place.folder / "source").unlink()
    place.faults.every_nth(1, status=status, code=code, kinds=["PART_COPY"])
    upload_id = await place.writer.begin_upload("base/x", NOTHING, write_id="x")
    with pytest.raises(WriteConflict):
        await place.writer.copy_part("base/x", upload_id, 1, source, 0, 5)
    assert place.writer.copies_parts
    await place.writer.abort_upload("base/x", upload_id)


async def test_trouble_with_copied_parts_is_trouble_and_no_refusal(place):
    source = await source_of(place)
    place.faults.every_nth(1, status=503, kinds=["PART_COPY"])
    upload_id = await place.writer.begin_upload("base/x", NOTHING, write_id="x")
    with pytest.raises(StoreFailure) as failure:
        await place.writer.copy_part("base/x", upload_id, 1, source, 0, 5)
    assert type(failure.value) is StoreFailure
    assert place.writer.copies_parts
    await place.writer.abort_upload("base/x", upload_id)


def uploads_left(place):
    folder = place.folder.parent / ".s3-uploads"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


async def test_an_upload_whose_creation_was_not_answered_is_counted(place):
    place.faults.lose_answer(limit=2, kinds=["MULTIPART"])
    upload_id = await place.writer.begin_upload("base/x", NOTHING, write_id="x")
    await place.writer.abort_upload("base/x", upload_id)
    assert len(uploads_left(place)) == place.writer.uploads.in_doubt_count == 2
    place.faults.every_nth(1, status=503, kinds=["MULTIPART"], limit=2)
    upload_id = await place.writer.begin_upload("base/y", NOTHING, write_id="y")
    await place.writer.abort_upload("base/y", upload_id)
    assert place.writer.uploads.in_doubt_count == 2


async def test_so_is_one_that_was_sent_over_a_connection_that_was_used_before(place):
    """Not every one that ends then had been closed while nothing was asked of it."""
    upload_id = await place.writer.begin_upload("base/x", NOTHING, write_id="x")
    await place.writer.abort_upload("base/x", upload_id)
    lost = place.faults.lose_answer(limit=1, kinds=["MULTIPART"])
    upload_id = await place.writer.begin_upload("base/x", NOTHING, write_id="x")
    await place.writer.abort_upload("base/x", upload_id)
    assert lost.applied == 1
    assert len(uploads_left(place)) == place.writer.uploads.in_doubt_count == 1


@pytest.mark.parametrize("status", [502, 504])
async def test_so_is_one_of_which_a_proxy_has_heard_nothing(place, status):
    place.faults.every_nth(1, status=status, kinds=["MULTIPART"], limit=1)
    upload_id = await place.writer.begin_upload("base/x", NOTHING, write_id="x")
    await place.writer.abort_upload("base/x", upload_id)
    assert place.writer.uploads.in_doubt_count == 1


async def test_an_upload_whose_creation_was_cancelled_is_counted(place):
    held = place.faults.hold("answer", kinds=["MULTIPART"])
    async with trio.open_nursery() as nursery:

        async def begin():
            await place.writer.begin_upload("base/x", NOTHING, write_id="x")

        nursery.start_soon(begin)
        await trio.to_thread.run_sync(held.wait_reached, 10)
        nursery.cancel_scope.cancel()
    held.let_go(goes_on=False)
    assert len(uploads_left(place)) == place.writer.uploads.in_doubt_count == 1


async def test_an_upload_that_could_not_be_aborted_is_counted_until_it_is(place):
    upload_id = await place.writer.begin_upload("base/x", NOTHING, write_id="x")
    denial = place.faults.every_nth(1, status=403, kinds=["MULTIPART"])
    with pytest.raises(AccessDenied):
        await place.writer.abort_upload("base/x", upload_id)
    assert place.writer.uploads.in_doubt_count == 1
    place.faults.remove(denial)
    await place.writer.abort_upload("base/x", upload_id)
    assert place.writer.uploads.in_doubt_count == 0


@pytest.mark.parametrize("expected", ["absent", "version"])
async def test_a_copy_replaces_only_what_is_expected(place, expected):
    source = await source_of(place)
    put = place.writer.put
    target = await put("base/x", BytesBody(b"old"), NOTHING, expected=None, write_id="t")
    wrong, right = Expected(None), Expected(target)
    if expected == "absent":
        await place.writer.delete("base/x")
        wrong, right = right, wrong
    with pytest.raises(WriteConflict, match="base/x"):
        await place.writer.copy(source, "base/x", expected=wrong)
    await place.writer.copy(source, "base/x", expected=right)
    assert (place.folder / "x").read_bytes() == DATA
    with pytest.raises(WriteConflict, match="base/x"):
        await place.writer.copy(source, "base/x", expected=right)


async def test_a_copy_whose_answer_was_lost_is_no_conflict_with_itself(place):
    source = await source_of(place)
    lost = place.faults.lose_answer(limit=1, kinds=["COPY"])
    etag = await place.writer.copy(source, "base/x", expected=Expected(None))
    assert lost.applied == 1
    assert (place.folder / "x").read_bytes() == DATA
    await place.writer.delete("base/x", expected=Expected(etag))
    assert not (place.folder / "x").exists()
