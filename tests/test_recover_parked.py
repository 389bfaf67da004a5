"""`stsfs recover` and files of which bytes are only in an upload that was not completed."""

import json

import pytest
import trio

from stsfs.errors import NoSynapseToken, StoreFailure
from stsfs.staging.left import what_is_left
from stsfs.staging.record import BaseVersion
from stsfs.store.object_store import Part, Traits
from tests.fakes import Fault
from tests.recover_stage import bucket_in_place_of_all, own_directories, run_recover
from tests.schemas import checked
from tests.test_staging_directory import leave, leave_move

UPLOAD = {
    "upload_id": "u1",
    "upload_write_id": "w1",
    "parts": (Part(1, '"p1"', "AAAA"),),
}
PARKED = UPLOAD | {
    "state": "closed",
    "key": "base/a",
    "size_bytes": 8,
    "present": ((0, 2), (6, 8)),
    "parked": ((2, 6),),
}
DATA = b"ab\0\0\0\0gh"


@pytest.fixture
def named(tmp_path, monkeypatch):
    return own_directories(monkeypatch, tmp_path)


@pytest.fixture
def bucket(monkeypatch):
    return bucket_in_place_of_all(monkeypatch)


def partly_saved(saved):
    """What was written of dir/file, and the ranges that it lacks."""
    partial = saved / "dir" / "file.partial"
    assert not (saved / "dir" / "file").exists()
    return partial.read_bytes(), json.loads(
        (partial.parent / "file.partial.missing.json").read_text()
    )["missing"]


# Saving.


def test_bytes_that_only_an_upload_has_are_missing_and_never_zeros_of_a_whole_file(
    named, bucket, tmp_path
):
    left = leave(named, DATA, **PARKED)
    told = run_recover("--save", tmp_path / "saved")
    assert told.exit_code == 9, told.output
    assert partly_saved(tmp_path / "saved") == (DATA, [[2, 6]])
    assert "4 of them are only in an upload that was not completed" in told.stderr
    assert f"stsfs recover --upload {left}" in told.stderr
    assert bucket.opened == []  # nobody could read them there
    assert [each.id for each in what_is_left(named)] == [left]


def test_the_base_has_other_bytes_where_some_are_only_in_an_upload(named, bucket, tmp_path):
    bucket.store.put("base/a", b"OLD-OLD-")
    etag = bucket.store.objects["base/a"].etag
    base = BaseVersion(key="base/a", etag=etag, size_bytes=8, limit_bytes=8)
    leave(named, DATA, **(PARKED | {"base": base, "present": ((0, 2),)}))
    assert run_recover("--save", tmp_path / "saved").exit_code == 9
    assert partly_saved(tmp_path / "saved") == (b"ab\0\0\0\0D-", [[2, 6]])


def test_a_conflict_is_told_how_its_upload_is_completed_all_the_same(named, bucket, tmp_path):
    left = leave(named, DATA, **(PARKED | {"state": "conflict"}))
    told = run_recover("--save", tmp_path / "saved")
    assert told.exit_code == 9
    assert f"stsfs recover --upload --force {left}" in told.stderr


# The list.


def test_the_list_says_what_depends_on_an_upload_and_how_it_is_completed(named):
    whole = leave(named, DATA, **PARKED)
    half = leave(named, DATA, **(PARKED | {"state": "writing"}))
    plain = leave(named, state="closed")
    told = run_recover()
    lines = {line.split()[0]: line for line in told.stdout.splitlines() if line.strip()}
    depends = "4 B of it are only in an upload that S3 keeps: --upload completes it"
    assert f"whole; {depends}" in lines[whole]
    assert depends in lines[half]
    assert "upload" not in lines[plain]


def test_scripts_are_told_how_much_depends_on_an_upload(named):
    leave(named, DATA, changed_unix_s=1.0, **PARKED)
    leave(named, state="closed", changed_unix_s=2.0)
    leave_move(named)
    found = checked("recover", run_recover("--json").stdout)["left"]
    assert [(each["parked_bytes"], each["upload_id"]) for each in found] == [
        (4, "u1"), (0, None), (None, None),
    ]  # fmt: skip


def test_a_write_that_failed_is_told_with_its_reason_and_not_as_left_open(named):
    left = leave(named, reason="The local disk is full.")
    half = leave(named)
    lines = {line.split()[0]: line for line in run_recover().stdout.splitlines() if line.strip()}
    assert "nobody closed it" not in lines[left]
    assert "half-written: The local disk is full." in lines[left]
    assert "half-written: nobody closed it" in lines[half]


# Giving up.


async def begun(bucket):
    return await bucket.store.writer.begin_upload("base/a", Traits(), write_id="w1")


@pytest.mark.parametrize("kind", ["parked", "not parked"])
async def test_what_is_discarded_takes_its_upload_along(named, bucket, kind):
    upload_id = await begun(bucket)
    fields = PARKED if kind == "parked" else {"key": "base/a"}
    left = leave(named, DATA, **(fields | {"upload_id": upload_id}))
    told = await in_thread("--discard", left)
    assert told.exit_code == 0, told.output
    assert "given up, and its upload with it" in told.stdout
    assert bucket.store.writer.uploads == {}
    assert bucket.opened[0][1].rw
    assert what_is_left(named) == []


async def test_a_rename_that_is_discarded_takes_the_uploads_of_its_copies_along(named, bucket):
    upload_id = await begun(bucket)
    left = leave_move(named, upload=upload_id)
    told = await in_thread("--discard", left)
    assert "given up, and its upload with it" in told.stdout
    assert bucket.store.writer.uploads == {}
    assert what_is_left(named) == []


@pytest.mark.parametrize("trouble", ["no token", "refused"])
async def test_an_upload_that_cannot_be_given_up_is_told_and_the_bytes_here_are_gone(
    named, bucket, trouble
):
    upload_id = await begun(bucket)
    if trouble == "no token":
        bucket.trouble = NoSynapseToken("No way in.")
    else:
        bucket.store.script("abort_upload", Fault(error=StoreFailure("No way in.")))
    left = leave(named, DATA, **(PARKED | {"upload_id": upload_id}))
    other = leave(named)
    told = await in_thread("--discard", left, other)
    assert told.exit_code == 0, told.output
    assert f"its upload {upload_id} stays in S3: No way in." in told.stdout
    assert what_is_left(named) == []


def test_nothing_is_opened_to_discard_what_has_no_upload(named, bucket):
    left = leave(named)
    assert run_recover("--discard", left).exit_code == 0
    assert bucket.opened == []


async def in_thread(*arguments):
    """Run the command where no other event loop is."""
    return await trio.to_thread.run_sync(lambda: run_recover(*arguments))
