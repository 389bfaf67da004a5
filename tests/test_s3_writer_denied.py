"""Rights that a role lacks: each refusal names what may not be done, and the right for it."""

import pytest

from stsfs.errors import AccessDenied, WriteConflict
from stsfs.store.object_store import Expected, ObjectVersion, Traits
from tests.fakes import BytesBody
from tests.s3_place import Place

NOTHING = Traits()


@pytest.fixture
def place(tmp_path):
    with Place(tmp_path / "s3", permission="read_write") as made:
        yield made


def writer_without(place, *actions):
    """A writer whose session lacks these operations."""
    place.book.withheld = frozenset(actions)
    place.lease._renew()
    place.opened = place.store()
    return place.opened.writer(acl="bucket-owner-full-control")


def there(place, name, data=b"data"):
    place.write(name, data)
    return place.version(place.opened, name)


async def test_a_role_without_delete_is_told_so(place):
    writer = writer_without(place, "DeleteObject")
    version = await there(place, "x")
    for expected in (None, Expected(version.etag)):
        with pytest.raises(AccessDenied, match="may not delete 'base/x'") as denied:
            await writer.delete(version.key, expected=expected)
        assert "s3:DeleteObject is missing" in denied.value.remedy
    assert (place.folder / "x").exists()
    await writer.copy(version, "base/y")
    assert (place.folder / "y").read_bytes() == b"data"
    place.opened.close()


async def test_without_delete_a_missing_object_is_deleted_already_and_another_one_a_conflict(place):
    writer = writer_without(place, "DeleteObject")
    version = await there(place, "x")
    (place.folder / "x").unlink()
    await writer.delete(version.key, expected=Expected(version.etag))
    await there(place, "x", b"other")
    with pytest.raises(WriteConflict):
        await writer.delete(version.key, expected=Expected(version.etag))
    place.opened.close()


@pytest.mark.parametrize("expected", [None, Expected(None)])
async def test_a_role_without_put_is_told_so(place, expected):
    writer = writer_without(place, "PutObject", "CreateMultipartUpload")
    with pytest.raises(AccessDenied, match="may not write 'base/x'") as denied:
        await writer.put("base/x", BytesBody(b"data"), NOTHING, expected=expected, write_id="w")
    assert "s3:PutObject is missing" in denied.value.remedy
    with pytest.raises(AccessDenied, match="may not begin to write"):
        await writer.begin_upload("base/x", NOTHING, write_id="w")
    place.opened.close()


async def test_a_role_that_may_not_copy_is_told_so_and_a_missing_source_is_a_conflict(place):
    writer = writer_without(place, "CopyObject")
    version = await there(place, "x")
    with pytest.raises(AccessDenied, match="may not copy 'base/x' to 'base/y'"):
        await writer.copy(version, "base/y")
    place.opened.close()
    writer = writer_without(place)
    (place.folder / "x").unlink()
    with pytest.raises(WriteConflict):
        await writer.copy(version, "base/y")
    assert place.gate.requests.of_kind("COPY")[-1].status == 403
    place.opened.close()


async def test_what_lies_outside_the_base_key_is_denied(place):
    writer = writer_without(place)
    version = await there(place, "x")
    with pytest.raises(AccessDenied):
        await writer.put("other/x", BytesBody(b""), NOTHING, expected=None, write_id="w")
    with pytest.raises(AccessDenied):
        await writer.copy(version, "other/x")
    with pytest.raises(AccessDenied):
        await writer.traits(ObjectVersion(1, "other/x", '"0"', 5))
    place.opened.close()
