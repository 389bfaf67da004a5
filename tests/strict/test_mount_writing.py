"""Writing through a real mount on a real S3: sessions of seconds, under Synapse's policies."""

import hashlib
import os
import subprocess

import pytest
from botocore.exceptions import ClientError

from tests.fakes import pattern
from tests.mount.stage import TOKEN
from tests.strict.conftest import BUCKET, MIB, SECONDS
from tests.strict.radosgw import ADMIN

pytestmark = pytest.mark.strict

BASE_KEY = "projects/mounted"
BIG_BYTES = 20 * MIB
PIECES = 4
WRITING = ("--rw", "--conditional-writes", "off")
"""radosgw 16 answers 412 to a PUT whose If-Match does match."""

OWNER = {"AWS_ACCESS_KEY_ID": ADMIN[0], "AWS_SECRET_ACCESS_KEY": ADMIN[1]}


@pytest.fixture(scope="module")
def writable_id(writers_stage):
    state = writers_stage.synapse.state
    user = state.add_user("ada", token=TOKEN)
    project = state.add_project("P", user)
    made = state.add_sts_folder("f", project, user, bucket=BUCKET, base_key=BASE_KEY)
    return made.syn_id


@pytest.fixture
def in_s3(s3):
    """in_s3(name) -> the bytes of an object, None where there is none."""

    def in_s3(name):
        try:
            return s3.get_object(Bucket=BUCKET, Key=f"{BASE_KEY}/{name}")["Body"].read()
        except ClientError:
            return None

    return in_s3


def refused(radosgw, before):
    """What radosgw has refused since so many requests, but the looks of `in_s3`."""
    found = [access for access in radosgw.accesses()[before:] if access.status >= 400]
    return [access for access in found if (access.method, access.status) != ("GET", 404)]


def test_files_are_made_replaced_moved_and_removed(
    writers_mount, writable_id, writers_vendor, radosgw, in_s3
):
    writers_vendor.lifetime_s, before = SECONDS, len(radosgw.accesses())
    live = writers_mount(writable_id, *WRITING)
    (live / "a.txt").write_bytes(b"one")
    assert in_s3("a.txt") == b"one"
    (live / "a.txt").write_bytes(b"another one")
    assert in_s3("a.txt") == b"another one"
    with open(live / "a.txt", "ab") as file:
        file.write(b" and more")
    assert in_s3("a.txt") == b"another one and more"
    os.rename(live / "a.txt", live / "b+ü %41.txt")
    assert (in_s3("a.txt"), in_s3("b+ü %41.txt")) == (None, b"another one and more")
    (live / "d").mkdir()
    (live / "d/x").write_bytes(b"x")
    os.rename(live / "d", live / "e")
    assert (in_s3("d/x"), in_s3("e/x")) == (None, b"x")
    assert sorted(os.listdir(live.path)) == ["b+ü %41.txt", "e"]
    subprocess.run(["rm", "-r", live / "e", live / "b+ü %41.txt"], check=True)
    assert os.listdir(live.path) == []
    assert (in_s3("e/x"), in_s3("e/"), in_s3("b+ü %41.txt")) == (None, None, None)
    assert refused(radosgw, before) == []


def test_a_large_file_is_written_while_sessions_end(
    writers_mount, writable_id, writers_vendor, radosgw, in_s3
):
    writers_vendor.lifetime_s, before = SECONDS, len(radosgw.accesses())
    data = pattern("written", BIG_BYTES)
    live = writers_mount(writable_id, *WRITING, "--memory", "32MiB")
    with open(live / "big", "wb", buffering=0) as file:
        for start in range(0, BIG_BYTES, BIG_BYTES // PIECES):
            if start:
                writers_vendor.wait_for(writers_vendor.vended + 1)
            file.write(data[start : start + BIG_BYTES // PIECES])
    assert hashlib.sha256(in_s3("big")).digest() == hashlib.sha256(data).digest()
    assert live.status()["credentials"]["failures"] == 0
    os.unlink(live / "big")
    assert refused(radosgw, before) == []


def test_what_does_not_change_of_a_large_file_is_copied_in_s3(writers_mount, radosgw, s3, in_s3):
    before, data = len(radosgw.accesses()), bytearray(pattern("changed", BIG_BYTES))
    s3.put_object(Bucket=BUCKET, Key=f"{BASE_KEY}/owned/big", Body=bytes(data))
    live = writers_mount(f"s3://{BUCKET}/{BASE_KEY}/owned", *WRITING, env=OWNER)
    with open(live / "big", "r+b", buffering=0) as file:
        file.seek(BIG_BYTES // 2)
        file.write(b"here")
    data[BIG_BYTES // 2 : BIG_BYTES // 2 + 4] = b"here"
    assert hashlib.sha256(in_s3("owned/big")).digest() == hashlib.sha256(data).digest()
    assert live.status()["requests"]["part_copy"]["count"] >= 1
    os.unlink(live / "big")
    assert refused(radosgw, before) == []
