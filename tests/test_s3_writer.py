"""Changes over HTTP: repaired and repeated, made once, and told in words when they are refused."""

import hashlib

import pytest
import trio

from stsfs.errors import DeadlineExceeded, PartCopyRefused, StoreFailure, WriteConflict
from stsfs.store import retry
from stsfs.store.object_store import Expected, ObjectVersion, Traits
from stsfs.store.s3_writer import S3Writer
from tests.fakes import BytesBody, pattern
from tests.s3_place import Place

MIB = 1 << 20
ACL = "bucket-owner-full-control"
CHANGES = ["PUT", "COPY", "PART", "PART_COPY", "DELETE", "MULTIPART"]
SOME = Traits({"mtime": "1.5"}, "text/plain", "STANDARD_IA")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "_DELAY_MAX_S", 0.01)
    root = tmp_path / "s3"
    with Place(root, permission="read_write", part_bytes_min=1) as made:
        made.stores = []
        yield made
        assert [seen.verdict for seen in made.gate.denied if seen.verdict == "AccessDenied"] == []
        for store in made.stores:
            store.close()


def writer_of(place, *, conditions=True, **options):
    place.stores.append(place.store(**options))
    return place.stores[-1].writer(acl=ACL, conditions=conditions)


@pytest.fixture
def writer(place):
    return writer_of(place)


async def put(writer, name, data, *, expected=None, write_id="w", traits=SOME):
    key = f"base/{name}"
    etag = await writer.put(key, BytesBody(data), traits, expected=expected, write_id=write_id)
    return ObjectVersion(1, key, etag, len(data))


async def upload(writer, name, *pieces, expected=None, write_id="w"):
    key = f"base/{name}"
    upload_id = await writer.begin_upload(key, SOME, write_id=write_id)
    parts = [
        await writer.upload_part(key, upload_id, number, BytesBody(piece))
        for number, piece in enumerate(pieces, 1)
    ]
    etag = await writer.complete_upload(key, upload_id, parts, expected=expected, write_id=write_id)
    return ObjectVersion(1, key, etag, sum(map(len, pieces)))


def data_at(place, name):
    path = place.folder / name
    return path.read_bytes() if path.exists() else None


async def every_change(writer):
    """One of each; what is left are `new`, `joined` and `copied`."""
    version = await put(writer, "old", b"0123456789", expected=Expected(None))
    version = await put(
        writer, "old", b"9876543210", expected=Expected(version.etag), write_id="w-2"
    )
    key = "base/joined"
    upload_id = await writer.begin_upload(key, SOME, write_id="w-3")
    parts = [
        await writer.upload_part(key, upload_id, 1, BytesBody(b"abc")),
        await writer.copy_part(key, upload_id, 2, version, 2, 5),
    ]
    await writer.complete_upload(key, upload_id, parts, expected=Expected(None), write_id="w-3")
    await writer.copy(version, "base/copied")
    await writer.delete(version.key, expected=Expected(version.etag))
    given_up = await writer.begin_upload("base/never", SOME, write_id="w-4")
    await writer.abort_upload("base/never", given_up)


def all_changed(place):
    found = {path.name: path.read_bytes() for path in place.folder.iterdir()}
    return found == {"joined": b"abc765", "copied": b"9876543210"}


@pytest.mark.parametrize("conditions", [True, False])
async def test_no_change_is_denied_by_the_policy_of_synapse(place, conditions):
    await every_change(writer_of(place, conditions=conditions))
    assert all_changed(place)
    assert {seen.kind for seen in place.gate.requests} - {"LIST", "GET"} == set(CHANGES)


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("fault", [503, 500, 409, "hang up"])
async def test_passing_trouble_is_repeated(place, writer, kind, fault):
    code = {409: "ConditionalRequestConflict"}.get(fault, "")
    if fault == "hang up":
        place.faults.hang_up(limit=2, kinds=[kind])
    else:
        place.faults.every_nth(1, status=fault, code=code, kinds=[kind], limit=2)
    await every_change(writer)
    assert all_changed(place)


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_change_whose_answer_is_lost_happens_once_and_is_no_conflict(place, writer, kind):
    lost = place.faults.lose_answer(limit=3, kinds=[kind])
    await every_change(writer)
    assert all_changed(place)
    assert lost.applied > 0


async def test_the_change_of_another_client_is_a_conflict_also_after_a_lost_answer(place, writer):
    version = await put(writer, "x", b"one")
    place.faults.lose_answer(limit=1, kinds=["PUT"])

    class Other(BytesBody):
        """While this body is read for the second time, another client writes."""

        reads = 0

        async def read(self, offset, size_bytes):
            Other.reads += 1
            if Other.reads == 2:
                replacement = place.folder / "replacement"
                replacement.write_bytes(b"theirs")
                replacement.rename(place.folder / "x")
            return await super().read(offset, size_bytes)

    with pytest.raises(WriteConflict, match="another client"):
        await writer.put(
            "base/x", Other(b"ours"), SOME, expected=Expected(version.etag), write_id="w-9"
        )
    assert data_at(place, "x") == b"theirs"


async def test_sessions_may_end_between_any_two_requests(place, writer):
    place.faults.every_nth(2, status=400, code="ExpiredToken", kinds=CHANGES)
    await every_change(writer)
    assert all_changed(place)
    assert place.lease.renewals > 3


async def test_a_bucket_in_another_region_is_written_there(place, writer):
    place.faults.wrong_region("eu-central-1")
    data = pattern("region", 3 * MIB)
    await put(writer, "x", data)
    assert data_at(place, "x") == data


@pytest.mark.parametrize("size_bytes", [0, 5, 300_000, 5 * MIB + 3])
async def test_a_checksum_travels_with_the_bytes_and_is_verified(place, writer, size_bytes):
    data = pattern("sum", size_bytes)
    await put(writer, "x", data)
    assert data_at(place, "x") == data
    assert place.gate.requests.count("PUT") == 1

    class Changing(BytesBody):
        """Is another one when it is read for the second time, and then stays as it is."""

        passes = 0

        async def read(self, offset, count_bytes):
            found = bytearray(await super().read(offset, count_bytes))
            Changing.passes += offset == 0
            if offset == 0 and Changing.passes == 1:
                found[0] ^= 1
            return bytes(found)

    if size_bytes > MIB:  # smaller ones are read once for each try
        body = Changing(data)
        await writer.put("base/y", body, SOME, expected=None, write_id="w")
        assert data_at(place, "y") == data
        assert [seen.status for seen in place.gate.requests.of_kind("PUT")] == [200, 400, 200]


async def test_bytes_that_differ_from_their_checksum_are_not_taken(place, writer, monkeypatch):
    monkeypatch.setattr("stsfs.store.outgoing.encoded", lambda crc: "AAAAAA==")
    with pytest.raises(StoreFailure, match="BadDigest"):
        await put(writer, "x", b"data")
    upload_id = await writer.begin_upload("base/x", SOME, write_id="w")
    with pytest.raises(StoreFailure, match="BadDigest"):
        await writer.upload_part("base/x", upload_id, 1, BytesBody(b"data"))
    assert data_at(place, "x") is None


async def test_a_large_body_is_sent_again_when_the_session_had_ended(place, writer):
    place.book.expire_all()
    data = pattern("early", 40 * MIB)
    version = await put(writer, "x", data)
    assert hashlib.sha256(data_at(place, "x")).digest() == hashlib.sha256(data).digest()
    assert version.size_bytes == len(data)
    assert place.lease.renewals == 1


@pytest.mark.parametrize("part_bytes", [3, 4, 10, 100])
async def test_what_is_too_large_for_one_copy_is_copied_in_parts(place, writer, part_bytes):
    version = await put(writer, "x", b"0123456789")
    large = S3Writer(
        writer.bucket,
        writer._look,
        acl=ACL,
        conditions=True,
        copy_bytes_max=9,
        copy_part_bytes=part_bytes,
    )
    etag = await large.copy(version, "base/y", storage_class="STANDARD_IA")
    assert data_at(place, "y") == b"0123456789"
    assert place.gate.requests.count("PART_COPY") == -(-10 // part_bytes)
    assert place.gate.requests.count("COPY") == 0
    assert await writer.traits(ObjectVersion(1, "base/y", etag, 10)) == SOME


@pytest.mark.parametrize("change", ["replaced", "denied"])
async def test_a_copy_in_parts_that_fails_leaves_no_upload(place, writer, change):
    version = await put(writer, "x", b"0123456789")
    large = S3Writer(
        writer.bucket, writer._look, acl=ACL, conditions=True, copy_bytes_max=9, copy_part_bytes=3
    )
    code = {"replaced": (412, "PreconditionFailed"), "denied": (403, "AccessDenied")}[change]
    place.faults.every_nth(3, status=code[0], code=code[1], kinds=["PART_COPY"])
    with pytest.raises(WriteConflict if change == "replaced" else PartCopyRefused):
        await large.copy(version, "base/y")
    assert data_at(place, "y") is None
    assert uploads_left(place) == []


def uploads_left(place):
    folder = place.folder.parent / ".s3-uploads"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


async def test_counters_tell_requests_and_bytes_of_changes(place, writer):
    place.faults.every_nth(1, status=503, kinds=["PUT"], limit=1)
    await put(writer, "x", bytes(100_000))
    await upload(writer, "y", bytes(5), bytes(7))
    counters = place.stores[-1].counters
    assert (counters.of("put").requests, counters.of("put").retries) == (2, 1)
    assert counters.of("put").sent_bytes == 200_000
    assert (counters.of("part").requests, counters.of("part").sent_bytes) == (2, 12)
    assert counters.of("begin").requests == counters.of("complete").requests == 1


class Slow(BytesBody):
    """A body of which each piece takes a while."""

    async def read(self, offset, size_bytes):
        await trio.sleep(0.02)
        return await super().read(offset, size_bytes)


async def test_an_upload_ends_when_nothing_moves_for_the_deadline_and_not_before(place):
    writer = writer_of(place, deadline_s=0.3)
    data = pattern("slow", 20 * MIB)
    await writer.put("base/x", Slow(data), SOME, expected=None, write_id="w")
    assert data_at(place, "x") == data
    place.faults.every_nth(1, status=503, kinds=["PUT"])
    with pytest.raises(DeadlineExceeded):
        await put(writer_of(place, deadline_s=0.02), "y", b"data")


async def test_a_server_that_takes_each_body_and_fails_is_not_asked_for_ever(place, writer):
    place.faults.every_nth(1, status=500, kinds=["PUT"])
    with pytest.raises(StoreFailure, match="Failed 10 times"):
        await put(writer, "x", bytes(100_000))


@pytest.mark.parametrize("conditions", [True, False])
async def test_a_target_that_is_gone_is_a_conflict_although_the_session_gets_403(place, conditions):
    writer = writer_of(place, conditions=conditions)
    version = await put(writer, "x", b"one")
    (place.folder / "x").unlink()
    place.faults.every_nth(1, status=403, kinds=["PUT"])
    with pytest.raises(WriteConflict):
        await put(writer, "x", b"two", expected=Expected(version.etag), write_id="w-2")
