"""`stsfs recover` as people call it: a process of its own, a folder of Synapse, a real S3 wire."""

import contextlib
import os
import random
import shutil

import pytest

from stsfs.demo.file_server import uploads
from stsfs.demo.file_server.store import BucketDirectory
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.record import BaseVersion
from stsfs.store.object_store import Expected
from tests.mount.crash_stage import RW, kill, pending_uploads
from tests.schemas import checked
from tests.staging_fakes import record
from tests.test_staging_directory import die

pytestmark = pytest.mark.mount

MIB = 1 << 20


@pytest.fixture
def staging(host):
    return host.home / "state" / "stsfs" / "staging"


@pytest.fixture
def leave(host, folder, staging):
    """What a mount that was killed has left of one file of the folder; its ID."""

    def leave(name, text, **changes):
        directory = StagingDirectory.open(staging)
        staged = directory.create()
        staged.write(0, text)
        values = {
            "location_uri": folder.uri,
            "endpoint_url": host.stage.gate.url,
            "label": folder.syn_id,
            "key": folder.key_of(name),
            "path": name,
            "size_bytes": len(text),
            "present": ((0, len(text)),),
            "state": "closed",
        }
        staged.keep(record(**(values | changes)))
        staged.rest()
        die(directory)
        return staged.id

    return leave


@pytest.fixture
def recover(host, stage):
    """Run the command; the options are those that the mount would have had."""
    places = ("--synapse-endpoint", stage.synapse.url, "--endpoint-url", stage.gate.url)
    return lambda *arguments, **more: host.stsfs("recover", *arguments, *places, **more)


def left(host):
    return [
        each["id"] for each in checked("recover", host.stsfs("recover", "--json").stdout)["left"]
    ]


def test_what_was_left_is_listed_and_uploaded_with_the_users_own_credentials(
    host, folder, leave, recover
):
    small, large = b"small", random.Random(1).randbytes(20 * MIB)
    leave("dir/small", small, expected=Expected(None))
    leave("large", large, expected=Expected(None))
    assert "dir/small" in host.stsfs("recover").stdout
    done = recover("--upload", folder.syn_id)
    assert done.returncode == 0, done.stderr
    assert folder.object_path("dir/small").read_bytes() == small
    assert folder.object_path("large").read_bytes() == large
    assert left(host) == []


def test_what_another_client_changed_meanwhile_stays_on_both_sides(host, folder, leave, recover):
    etag = folder.put("a", b"old")["ETag"]
    file_id = leave("a", b"ours", expected=Expected(etag))
    folder.put("a", b"theirs")
    done = recover("--upload")
    assert done.returncode == 43, done.stderr
    assert folder.object_path("a").read_bytes() == b"theirs"
    assert left(host) == [file_id]
    done = recover("--upload", "--force", file_id)
    assert done.returncode == 0, done.stderr
    assert folder.object_path("a").read_bytes() == b"ours"
    assert left(host) == []


def test_a_file_of_which_only_parts_are_here_is_saved_whole(host, folder, leave, recover):
    base = random.Random(2).randbytes(3 * MIB)
    etag = folder.put("a", base)["ETag"]
    version = BaseVersion(
        key=folder.key_of("a"), etag=etag, size_bytes=len(base), limit_bytes=len(base)
    )
    file_id = leave("a", b"ours", base=version, expected=Expected(etag), size_bytes=len(base))
    done = recover("--save", host.home / "saved")
    assert done.returncode == 0, done.stderr
    assert (host.home / "saved" / "a").read_bytes() == b"ours" + base[4:]
    assert left(host) == [file_id]
    folder.put("a", b"theirs")
    done = recover("--save", host.home / "again")
    assert done.returncode == 9, done.stderr
    assert (host.home / "again" / "a.partial").read_bytes()[:4] == b"ours"


def test_without_a_token_nothing_is_lost(host, folder, leave, recover):
    file_id = leave("a", b"ours")
    done = recover("--upload", env={"SYNAPSE_AUTH_TOKEN": ""})
    assert done.returncode == 10, done.stderr
    assert left(host) == [file_id]
    done = host.stsfs("recover", "--save", host.home / "saved", env={"SYNAPSE_AUTH_TOKEN": ""})
    assert done.returncode == 0, done.stderr  # all of it is here
    assert (host.home / "saved" / "a").read_bytes() == b"ours"


def test_a_staging_directory_that_was_named_at_the_mount_is_remembered(
    host, folder, mount, recover
):
    """From before the first byte until nothing is left there: also after kill -9."""
    disk = host.home / "disk"
    live = mount(folder.syn_id, *RW, "--staging-dir", disk)
    descriptor = os.open(live / "f", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(descriptor, b"accepted")
    os.fsync(descriptor)
    kill(live)
    with contextlib.suppress(OSError):
        os.close(descriptor)
    (file_id,) = left(host)
    assert host.stsfs("unmount", live.path).returncode == 9
    done = host.stsfs("recover")
    assert (done.returncode, file_id in done.stdout) == (0, True)
    done = recover("--upload", file_id)
    assert done.returncode == 0, done.stderr
    assert folder.object_path("f").read_bytes() == b"accepted"
    shutil.rmtree(disk)
    assert host.stsfs("recover").returncode == 0


def test_a_mount_that_leaves_nothing_leaves_no_note(host, folder, mount):
    disk = host.home / "disk"
    live = mount(folder.syn_id, *RW, "--staging-dir", disk)
    assert str(disk) in host.stsfs("recover").stdout
    (live / "f").write_bytes(b"1")
    assert live.unmount().returncode == 0
    live.wait_for_end()
    shutil.rmtree(disk)
    done = host.stsfs("recover")
    assert (done.returncode, str(disk) in done.stdout) == (0, False)


def test_a_mount_that_was_killed_and_left_nothing_is_forgotten(host, folder, mount, recover):
    disk = host.home / "disk"
    live = mount(folder.syn_id, *RW, "--staging-dir", disk)
    kill(live)
    assert host.stsfs("unmount", live.path).returncode == 0
    notes = host.home / "state" / "stsfs" / "staging-dirs"
    assert str(disk) in notes.read_text()
    assert str(disk) in host.stsfs("recover").stdout
    assert notes.read_text() == ""
    assert str(disk) not in host.stsfs("recover").stdout


def test_an_upload_ends_with_what_is_discarded_and_stays_where_nobody_may_end_it(
    host, stage, folder, leave, recover
):
    def begun(name):
        bucket = BucketDirectory(os.fsencode(stage.bucket))
        return uploads.create(bucket, folder.key_of(name).encode(), {})

    left_id = leave("a", b"ours", upload_id=begun("a"))
    done = recover("--discard", left_id)
    assert (done.returncode, "and its upload with it" in done.stdout) == (0, True), done.stderr
    assert pending_uploads(folder) == []
    upload_id = begun("b")
    left_id = leave("b", b"ours", upload_id=upload_id)
    done = recover("--discard", left_id, env={"SYNAPSE_AUTH_TOKEN": ""})
    assert (done.returncode, f"{upload_id} stays in S3" in done.stdout) == (0, True), done.stderr
    assert pending_uploads(folder) == ["b"]
    assert left(host) == []
