"""What reads answer when bytes cannot be had: one errno for each reason, and its sentence."""

import errno
import os
import random
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from moto.server import ThreadedMotoServer

from stsfs.demo.gate.gate import Gate
from stsfs.demo.gate.sessions import SessionBook
from tests.mount.reader_client import BusError
from tests.mount.stage import STATIC_KEYS

pytestmark = pytest.mark.mount
VIEWS = ("keys", "entities")

MIB = 1 << 20
BIG_BYTES = 5 * MIB
FAR = 4 * MIB
"""A place that opening the file does not fetch."""


@pytest.fixture
def big(folder):
    return folder.write("big", random.Random(3).randbytes(BIG_BYTES))


def read_at(path, offset, size_bytes=4096):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size_bytes, offset)
    finally:
        os.close(descriptor)


def errno_of(call, *arguments):
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the number is the answer
        call(*arguments)
    return errno.errorcode[raised.value.errno]


def break_reads(stage, folder, name="big", *, status, code):
    """S3 answers so to reads of one object from now on; returns the rule."""
    key = folder.key_of(name)
    return stage.gate.faults.every_nth(1, status=status, code=code, kinds=["GET"], key_prefix=key)


def test_an_archived_object_is_eacces(stage, folder, mount, big):
    """ "archived object (Glacier): EACCES"."""
    live = mount(folder.syn_id)
    break_reads(stage, folder, status=403, code="InvalidObjectState")
    assert errno_of(os.open, live / "big", os.O_RDONLY) == "EACCES"
    (error,) = live.status()["errors"]
    assert error["path"] == "/big"
    assert "InvalidObjectState" in error["sentence"]
    assert "archive" in error["remedy"]


def test_an_object_in_glacier_is_eacces_and_its_neighbour_readable(stage, mount):
    """The same with a server that knows storage classes; the listing shows the file."""
    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    keys = SessionBook()
    keys.add(STATIC_KEYS)
    try:
        host, port = moto.get_host_and_port()
        with Gate(f"http://{host}:{port}", keys) as gate:
            s3 = boto3.client(
                "s3",
                endpoint_url=gate.url,
                region_name="us-east-1",
                aws_access_key_id=STATIC_KEYS.access_key_id,
                aws_secret_access_key=STATIC_KEYS.secret_access_key,
            )
            s3.create_bucket(Bucket="cold")
            for name, storage_class in (("ice", "GLACIER"), ("water", "STANDARD")):
                body = name.encode()
                s3.put_object(Bucket="cold", Key=name, Body=body, StorageClass=storage_class)
            live = mount("s3://cold", "--endpoint-url", gate.url)
            assert sorted(os.listdir(live.path)) == ["ice", "water"]
            assert (live / "water").read_bytes() == b"water"
            assert errno_of(os.open, live / "ice", os.O_RDONLY) == "EACCES"
            assert live.errors() == [("/ice", "EACCES")]
            assert len(gate.denied) == 0
            s3.close()
    finally:
        moto.stop()


def test_a_policy_that_says_no_is_eacces(stage, folder, mount, big):
    """ "a policy or permission says no: EACCES", told apart from a missing key by a LIST."""
    live = mount(folder.syn_id)
    rule = break_reads(stage, folder, status=403, code="AccessDenied")
    assert errno_of(os.open, live / "big", os.O_RDONLY) == "EACCES"
    assert live.errors() == [("/big", "EACCES")]
    stage.gate.faults.remove(rule)


def test_no_answer_within_the_deadline_is_etimedout(stage, folder, mount, big, view):
    """ "no answer within the deadline (reads): ETIMEDOUT", of open, of read and of a listing."""
    folder.write("dir/x", b"x")
    live = mount(folder.syn_id, "--deadline", "2")
    live.allow_in_log("No answer within 2 s")
    faults = stage.gate.faults
    asks_s3 = view == "keys"  # a folder of entities is listed by Synapse
    descriptor = os.open(live / "big", os.O_RDONLY)
    try:
        faults.stall(seconds_s=600, kinds=["GET", "LIST"])
        with ThreadPoolExecutor(3) as pool:
            waiting = [
                pool.submit(errno_of, os.open, live / "big", os.O_RDONLY),
                pool.submit(errno_of, os.pread, descriptor, 4096, FAR),
                *([pool.submit(errno_of, os.listdir, live / "dir")] if asks_s3 else []),
            ]
            assert {each.result() for each in waiting} == {"ETIMEDOUT"}
    finally:
        os.close(descriptor)
    faults.clear()
    failed = {"/big", "/dir"} if asks_s3 else {"/big"}
    assert set(live.errors()) == {(path, "ETIMEDOUT") for path in failed}


def test_a_body_that_stalls_is_etimedout_and_nothing_else_waits_for_it(stage, folder, mount, big):
    """One read hangs in the middle of its bytes; another file is read meanwhile."""
    folder.write("other", b"other")
    live = mount(folder.syn_id, "--deadline", "2")
    live.allow_in_log("No answer within 2 s")
    key = folder.key_of("big")
    descriptor = os.open(live / "big", os.O_RDONLY)
    try:
        stage.gate.faults.stall(seconds_s=600, after_bytes=100, kinds=["GET"], key_prefix=key)
        stage.forget_requests()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(errno_of, os.pread, descriptor, 100_000, FAR)
            stage.gate.requests.wait_for(1, "GET")
            assert (live / "other").read_bytes() == b"other"
            assert waiting.result() == "ETIMEDOUT"
    finally:
        os.close(descriptor)


def test_a_failure_that_no_retry_helps_is_eio_and_said_once(stage, folder, mount, big):
    """ "S3 failure: EIO". The kernel asks a failing buffered read twice: "a failed range is
    remembered for a second", so S3 is asked once."""
    live = mount(folder.syn_id)
    live.allow_in_log("ERROR stsfs.fuse.operations: read /big: S3 answered 400 Unheard")
    descriptor = os.open(live / "big", os.O_RDONLY)
    try:
        break_reads(stage, folder, status=400, code="Unheard")
        stage.forget_requests()
        assert errno_of(os.pread, descriptor, 4096, FAR) == "EIO"
        assert stage.requests["GET"] == 1
        assert os.pread(descriptor, 4096, 0) == big[:4096]
    finally:
        os.close(descriptor)
    assert set(live.errors()) == {("/big", "EIO")}


def test_what_fails_for_good_is_eio_after_retries(stage, folder, mount, big):
    """ "S3 failure after retries, a cut body that stays cut: EIO"; three ways to fail at once."""
    for name in ("throttled", "cut", "hung-up"):
        folder.write(name, b"never seen")
    live = mount(folder.syn_id)
    live.allow_in_log("Failed 10 times")
    faults = stage.gate.faults
    faults.every_nth(1, status=503, key_prefix=folder.key_of("throttled"))
    faults.cut_body(after_bytes=0, key_prefix=folder.key_of("cut"))
    faults.hang_up(key_prefix=folder.key_of("hung-up"))
    paths = [live / name for name in ("throttled", "cut", "hung-up")]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda p: errno_of(p.read_bytes), paths)) == ["EIO"] * 3
    assert (live / "big").read_bytes() == big
    assert set(live.errors()) == {("/throttled", "EIO"), ("/cut", "EIO"), ("/hung-up", "EIO")}


def test_a_body_that_is_cut_again_and_again_is_read_to_its_end(stage, folder, mount, big):
    """ "a cut body that stays cut: EIO"; one that goes a little further each time does not."""
    live = mount(folder.syn_id)
    stage.gate.faults.cut_body(after_bytes=20_000, key_prefix=folder.key_of("big"), limit=60)
    assert (live / "big").read_bytes() == big


def test_passing_trouble_is_not_seen_by_the_reader(stage, folder, mount, big):
    """503, 500, hang-ups and cuts now and then: the bytes are right, and nobody is told."""
    live = mount(folder.syn_id)
    faults = stage.gate.faults
    faults.every_nth(3, status=503)
    faults.every_nth(5, status=500)
    faults.hang_up(7)
    faults.cut_body(4, after_bytes=10_000)
    assert (live / "big").read_bytes() == big
    assert os.listdir(live.path) == ["big"]
    assert live.errors() == []


def test_a_page_of_a_mapping_that_cannot_be_had_is_sigbus(stage, folder, mount, big, reader):
    """ "data of a mapping that cannot be had: SIGBUS"; status has the reason."""
    live = mount(folder.syn_id)
    mapped = reader.open(live / "big", "mmap")
    assert mapped.read(0, 4096) == big[:4096]
    break_reads(stage, folder, status=403, code="AccessDenied")
    with pytest.raises(BusError):
        mapped.read(FAR, 1)
    assert set(live.errors()) == {("/big", "EACCES")}


def test_a_read_works_again_once_the_trouble_is_over(stage, folder, mount, big):
    """Failures are remembered for a second, not longer: nothing needs a remount."""
    live = mount(folder.syn_id)
    rule = break_reads(stage, folder, status=403, code="AccessDenied")
    assert errno_of(read_at, live / "big", 0) == "EACCES"
    stage.gate.faults.remove(rule)
    failure = None
    for _ in range(200):
        try:
            assert read_at(live / "big", 0) == big[:4096]
            break
        except PermissionError as exc:
            failure = exc
            live.status()
    else:
        raise AssertionError("still refused") from failure


def test_a_reader_killed_in_mid_read_leaves_nothing_behind(stage, folder, mount, big, reader):
    """The audit at the end finds no open file and no pinned memory of a killed process."""
    live = mount(folder.syn_id)
    file = reader.open(live / "big")
    assert file.read(0, 10) == big[:10]
    reader.kill()
    with open(live / "big", "rb") as other:
        assert other.read() == big


def test_an_unmount_does_not_wait_for_what_a_killed_reader_asked_for(
    stage, folder, mount, big, reader
):
    """The kernel lets go of a killed reader at once, and its mount too; so must the daemon."""
    live = mount(folder.syn_id)
    file = reader.open(live / "big")
    assert file.read(0, 10) == big[:10]
    with stage.s3_holding():
        asked = stage.server.requests.count("GET")
        reader.begin("read", file.number, FAR, 100_000)
        stage.server.requests.wait_for(asked + 1, "GET")
        reader.kill()
        assert live.unmount("--timeout", "20").returncode == 0
        live.wait_for_end()
