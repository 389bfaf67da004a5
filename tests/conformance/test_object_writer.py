"""What ObjectWriter promises, kept by the fake of the tests and by S3Writer over two servers."""

import pytest
import trio

from stsfs.errors import StaleVersion, StoreFailure, WriteConflict
from stsfs.store.object_store import Expected, ObjectVersion, Part, Traits
from tests.conformance.houses import PART_BYTES_MIN, WRITING
from tests.fakes import BytesBody, pattern, read_all

ODD_NAMES = [" a", "%41", "&<>", "+", "a b", "a'b\"", "a+b", "~*()", "ü/ñ", "日本", "🐭", "a//b"]
NOTHING = Traits()
SOME = Traits({"mtime": "1700000000.5", "mode": "33188"}, "text/x-fasta")

pytestmark = pytest.mark.parametrize("made_house", WRITING, indirect=True, scope="module")


async def put(house, name, data, *, expected=None, write_id="w", traits=NOTHING):
    key = house.base + name
    etag = await house.writer().put(
        key, BytesBody(data), traits, expected=expected, write_id=write_id
    )
    return ObjectVersion(1, key, etag, len(data))


async def begun(house, name, *pieces, write_id="w", traits=NOTHING):
    """(writer, key, upload id, parts) of an upload with these bytes as its parts."""
    writer, key = house.writer(), house.base + name
    upload_id = await writer.begin_upload(key, traits, write_id=write_id)
    parts = [
        await writer.upload_part(key, upload_id, number, BytesBody(piece))
        for number, piece in enumerate(pieces, 1)
    ]
    return writer, key, upload_id, parts


def data_at(house, name):
    found = house.found(house.base + name)
    return None if found is None else found[0]


@pytest.mark.parametrize("size_bytes", [0, 1, 65_536, 3_000_001])
async def test_an_object_has_the_bytes_that_were_put_and_the_etag_that_was_told(house, size_bytes):
    version = await put(house, "x", pattern("put", size_bytes))
    assert data_at(house, "x") == pattern("put", size_bytes)
    listed = (await house.store().list_page(version.key)).objects[0]
    assert listed[:3] == (version.key, version.etag, size_bytes)
    if size_bytes:
        assert await read_all(house.store(), version) == pattern("put", size_bytes)


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_an_object_of_an_odd_name_is_put_copied_and_deleted(house, name):
    version = await put(house, name, name.encode())
    assert data_at(house, name) == name.encode()
    writer, target = house.writer(), f"{house.base}to {name}"
    await writer.copy(version, target)
    assert house.found(target)[0] == name.encode()
    await writer.delete(version.key, expected=Expected(version.etag))
    assert data_at(house, name) is None


async def test_traits_are_stored_and_told_without_the_id_of_the_change(house):
    version = await put(house, "x", b"data", traits=SOME, write_id="w-1")
    data, metadata, kind, _ = house.found(version.key)
    assert (data, kind) == (b"data", "text/x-fasta")
    assert metadata == {**SOME.metadata, "stsfs-write": "w-1"}
    told = await house.writer().traits(version)
    assert (told.metadata, told.content_type) == (SOME.metadata, SOME.content_type)
    empty = await put(house, "empty", b"", traits=SOME)
    assert (await house.writer().traits(empty)).metadata == SOME.metadata


async def test_the_storage_class_is_the_one_asked_for(house):
    if not house.has_classes:
        pytest.skip("radosgw has the one class that it is configured with")
    version = await put(house, "x", b"data", traits=Traits(storage_class="STANDARD_IA"))
    assert house.found(version.key)[3] == "STANDARD_IA"
    assert (await house.store().list_page(version.key)).objects[0].storage_class == "STANDARD_IA"
    await house.writer().copy(version, f"{house.base}plain")
    await house.writer().copy(version, f"{house.base}same", storage_class="STANDARD_IA")
    assert house.found(f"{house.base}plain")[3] == "STANDARD"
    assert house.found(f"{house.base}same")[3] == "STANDARD_IA"


async def test_traits_of_another_version_are_stale(house):
    version = await put(house, "x", b"one")
    house.put(version.key, b"two")
    with pytest.raises(StaleVersion):
        await house.writer().traits(version)
    house.delete(version.key)
    with pytest.raises(StaleVersion):
        await house.writer().traits(version)


async def test_what_is_there_is_replaced_if_nothing_is_expected(house):
    house.put(f"{house.base}x", b"other")
    await put(house, "x", b"ours")
    assert data_at(house, "x") == b"ours"


async def test_a_new_object_does_not_replace_another_clients(house):
    await put(house, "x", b"ours", expected=Expected(None))
    house.put(f"{house.base}y", b"theirs")
    with pytest.raises(WriteConflict):
        await put(house, "y", b"ours", expected=Expected(None), write_id="w-2")
    assert (data_at(house, "x"), data_at(house, "y")) == (b"ours", b"theirs")


@pytest.mark.parametrize("change", ["replaced", "deleted"])
async def test_a_version_that_is_not_there_any_more_is_not_written_over(house, change):
    version = house.put(f"{house.base}x", b"one")
    second = await put(house, "x", b"two", expected=Expected(version.etag))
    if change == "replaced":
        house.put(version.key, b"three")
    else:
        house.delete(version.key)
    before = data_at(house, "x")
    with pytest.raises(WriteConflict):
        await put(house, "x", b"four", expected=Expected(second.etag), write_id="w-4")
    assert data_at(house, "x") == before


@pytest.mark.parametrize("expected", ["nothing", "the first"])
async def test_a_change_that_has_happened_is_not_a_conflict_when_it_is_asked_for_again(
    house, expected
):
    condition = Expected(None)
    if expected == "the first":
        condition = Expected(house.put(f"{house.base}x", b"first").etag)
    first = await put(house, "x", b"ours", expected=condition, write_id="w-1")
    again = await put(house, "x", b"ours", expected=condition, write_id="w-1")
    assert again == first
    with pytest.raises(WriteConflict):
        await put(house, "x", b"other", expected=condition, write_id="w-2")
    assert await house.writer().written(first.key, "w-1") == first.etag
    assert await house.writer().written(first.key, "w-2") is None
    assert await house.writer().written(f"{house.base}missing", "w-1") is None


async def test_parts_become_one_object_in_the_order_of_their_numbers(house):
    one, two = pattern("one", PART_BYTES_MIN), pattern("two", 1234)
    writer, key, upload_id, parts = await begun(house, "x", one, two, traits=SOME, write_id="w-1")
    assert data_at(house, "x") is None
    etag = await writer.complete_upload(
        key, upload_id, parts, expected=Expected(None), write_id="w-1"
    )
    data, metadata, kind, _ = house.found(key)
    assert data == one + two
    assert metadata == {**SOME.metadata, "stsfs-write": "w-1"}
    assert kind == SOME.content_type
    assert etag.startswith('"')
    version = ObjectVersion(1, key, etag, len(data))
    assert await read_all(house.store(), version) == data


async def test_a_part_replaces_the_one_with_its_number(house):
    writer, key, upload_id, _ = await begun(house, "x", b"first thought")
    part = await writer.upload_part(key, upload_id, 1, BytesBody(b"second"))
    await writer.complete_upload(key, upload_id, [part], expected=None, write_id="w")
    assert data_at(house, "x") == b"second"


async def test_a_part_is_copied_from_a_version(house):
    if not house.copies_parts:
        pytest.skip("radosgw 16 refuses this to every session")
    base = pattern("base", PART_BYTES_MIN + 5000)
    version = house.put(f"{house.base}base", base)
    writer, key, upload_id, _ = await begun(house, "x")
    first = await writer.copy_part(key, upload_id, 1, version, 5000, PART_BYTES_MIN + 5000)
    last = await writer.upload_part(key, upload_id, 2, BytesBody(b"tail"))
    await writer.complete_upload(key, upload_id, [first, last], expected=None, write_id="w")
    assert data_at(house, "x") == base[5000:] + b"tail"


@pytest.mark.parametrize("change", ["replaced", "deleted"])
async def test_a_version_that_is_gone_is_not_copied(house, change):
    version = house.put(f"{house.base}base", b"one")
    writer, key, upload_id, _ = await begun(house, "x")
    if change == "replaced":
        house.put(version.key, b"two")
    else:
        house.delete(version.key)
    if house.copies_parts:
        with pytest.raises(WriteConflict):
            await writer.copy_part(key, upload_id, 1, version, 0, 3)
    await writer.abort_upload(key, upload_id)
    with pytest.raises(WriteConflict):
        await writer.copy(version, f"{house.base}copy")
    assert (data_at(house, "x"), data_at(house, "copy")) == (None, None)


async def test_an_upload_does_not_replace_another_clients_object(house):
    version = house.put(f"{house.base}x", b"one")
    writer, key, upload_id, parts = await begun(house, "x", b"ours")
    house.put(key, b"theirs")
    for expected in (Expected(version.etag), Expected(None)):
        with pytest.raises(WriteConflict):
            await writer.complete_upload(key, upload_id, parts, expected=expected, write_id="w")
    assert data_at(house, "x") == b"theirs"
    await writer.abort_upload(key, upload_id)


async def test_an_upload_that_was_completed_is_found_when_it_is_completed_again(house):
    writer, key, upload_id, parts = await begun(house, "x", b"ours", write_id="w-1")
    whole = {"expected": Expected(None), "write_id": "w-1"}
    etag = await writer.complete_upload(key, upload_id, parts, **whole)
    assert await writer.complete_upload(key, upload_id, parts, **whole) == etag


async def test_an_upload_that_was_given_up_is_gone(house):
    writer, key, upload_id, parts = await begun(house, "x", b"ours")
    await writer.abort_upload(key, upload_id)
    await writer.abort_upload(key, upload_id)
    if house.knows_uploads:
        with pytest.raises(StoreFailure):
            await writer.complete_upload(key, upload_id, parts, expected=None, write_id="w")
        with pytest.raises(StoreFailure):
            await writer.upload_part(key, upload_id, 1, BytesBody(b"more"))
    assert data_at(house, "x") is None


async def test_a_part_that_was_never_sent_completes_nothing(house):
    writer, key, upload_id, parts = await begun(house, "x", b"ours")
    wrong = Part(1, '"0123456789abcdef0123456789abcdef"', parts[0].checksum)
    with pytest.raises(StoreFailure):
        await writer.complete_upload(key, upload_id, [wrong], expected=None, write_id="w")
    assert data_at(house, "x") is None
    await writer.abort_upload(key, upload_id)


async def test_a_copy_takes_along_what_is_stored_with_the_object(house):
    version = await put(house, "x", b"data", traits=SOME)
    house.put(f"{house.base}y", b"is replaced")
    etag = await house.writer().copy(version, f"{house.base}y")
    copied = ObjectVersion(1, f"{house.base}y", etag, 4)
    assert await read_all(house.store(), copied) == b"data"
    told = await house.writer().traits(copied)
    assert (told.metadata, told.content_type) == (SOME.metadata, SOME.content_type)
    assert data_at(house, "x") == b"data"


@pytest.mark.parametrize("target", ["missing", "there"])
async def test_a_copy_replaces_what_is_expected_and_nothing_else(house, target):
    source = await put(house, "x", b"data")
    writer, key = house.writer(), f"{house.base}y"
    wrong, right = Expected(source.etag), Expected(None)
    if target == "there":
        wrong, right = right, Expected(house.put(key, b"theirs").etag)
    before = data_at(house, "y")
    with pytest.raises(WriteConflict):
        await writer.copy(source, key, expected=wrong)
    assert data_at(house, "y") == before
    etag = await writer.copy(source, key, expected=right)
    assert data_at(house, "y") == b"data"
    listed = (await house.store().list_page(key)).objects[0]
    assert listed.etag == etag


async def test_a_delete_spares_another_version_and_does_not_mind_a_missing_one(house):
    version = house.put(f"{house.base}x", b"one")
    house.put(version.key, b"two")
    writer = house.writer()
    with pytest.raises(WriteConflict):
        await writer.delete(version.key, expected=Expected(version.etag))
    assert data_at(house, "x") == b"two"
    await writer.delete(version.key)
    assert data_at(house, "x") is None
    await writer.delete(version.key)
    await writer.delete(version.key, expected=Expected(version.etag))


async def test_of_many_who_make_one_object_at_once_one_wins(house):
    if not house.decides_races:
        pytest.skip("between a look and a change anything can happen")
    made, refused = [], []

    async def work(number):
        try:
            await put(house, "x", b"%d" % number, expected=Expected(None), write_id=f"w-{number}")
            made.append(number)
        except WriteConflict:
            refused.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(work, number)
    assert (len(made), len(refused)) == (1, 7)
    assert data_at(house, "x") == b"%d" % made[0]


async def test_changes_side_by_side_all_happen(house):
    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(put, house, f"d/{number}", pattern(number, 90_000 + number))
    for number in range(12):
        assert data_at(house, f"d/{number}") == pattern(number, 90_000 + number)


async def test_a_change_in_a_cancelled_scope_is_not_made(house):
    version = house.put(f"{house.base}x", b"one")
    writer = house.writer()
    for change in (
        lambda: put(house, "y", b"two"),
        lambda: writer.copy(version, f"{house.base}y"),
        lambda: writer.delete(version.key),
    ):
        with trio.CancelScope() as scope:
            scope.cancel()
            await change()
        assert scope.cancelled_caught
    assert (data_at(house, "x"), data_at(house, "y")) == (b"one", None)
