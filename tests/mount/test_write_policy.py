"""What rules, the policy of a bucket, and a full local disk refuse: each in its own words.

And nothing else is the worse for it.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess

import pytest

from stsfs.rules.table import ROWS
from tests.mount.crash_stage import (
    MIB,
    RW,
    explained,
    kill,
    listed,
    objects,
    open_to_write,
    pending_uploads,
    put_all,
    refused,
    touched,
    unmounted,
    wait_until,
    write,
)
from tests.mount.entity_folder import entity_folder
from tests.mount.writing_stage import RENAME_EXCHANGE, python, rename2
from tests.schemas import checked

pytestmark = pytest.mark.mount

SOMEBODY = 12345
LONG = "/".join(["d" * 255] * 4)

BROKEN = {
    # rule: (errno, what explain is asked about, what is tried); a and b are two locations
    "sts-in-sts": (errno.EPERM, "a", lambda a, b: os.rename(a, b / "in")),
    "outside-locations": (errno.EROFS, "new", lambda a, b: os.mkdir(a.parent / "new")),
    "only-files": (errno.EPERM, "a/l", lambda a, b: os.symlink("f", a / "l")),
    "exchange": (errno.EINVAL, "a/f", lambda a, b: rename2(a / "f", a / "g", RENAME_EXCHANGE)),
    "special-bits": (errno.EPERM, "a/f", lambda a, b: os.chmod(a / "f", 0o4755)),
    "owner": (errno.EPERM, "a/f", lambda a, b: os.chown(a / "f", SOMEBODY, -1)),
    "reserved-name": (errno.EPERM, "a/owner.txt", lambda a, b: write(a / "owner.txt", b"")),
    "utf-8": (errno.EINVAL, "a/\\xff", lambda a, b: os.mkdir(os.fsencode(a) + b"/\xff")),
    "long-key": (errno.ENAMETOOLONG, f"a/{LONG}", lambda a, b: os.makedirs(a / LONG)),
    "other-location": (errno.EXDEV, "a/f", lambda a, b: os.rename(a / "f", b / "f")),
}
"""All that can be broken where two locations are mounted --rw."""

ELSEWHERE = {
    # asked before there is a mount: `test_daemon`, and below
    "whole-bucket", "managed-mount",
    # where nothing can be written: the kernel says EROFS for all of it
    "lock", "managed", "entities", "read-only",
    # the kernel answers, and does not ask us
    "access-list", "attributes", "name", "long-name",
    # directories above the locations cannot even be removed: "outside-locations"
    "folder-into-sts",
}  # fmt: skip


def test_every_rule_of_the_table_is_broken_somewhere():
    assert {rule.name for rule in ROWS} == set(BROKEN) | ELSEWHERE


@pytest.fixture(scope="module")
def two_locations(servers, module_mount):
    """Two locations in one mount; their roots."""
    folders = [servers.folder(), servers.folder()]
    for each in folders:
        each.write("f", b"data")
        each.write("g", b"data")
    live = module_mount(tuple(each.syn_id for each in folders), *RW)
    names = [each.base_key.removeprefix("base/") for each in folders]
    return [live.path / name for name in names]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_has_its_errno_and_its_sentence(module_host, stage, two_locations, name):
    """And S3 is asked for nothing that would change it."""
    a, b = two_locations
    rule = next(rule for rule in ROWS if rule.name == name)
    number, about, attempt = BROKEN[name]
    assert refused(attempt, a, b) == number
    made = {"PUT"} if name == "long-key" else set()  # the directories above it
    assert set(stage.requests) <= {"LIST", "GET"} | made
    told = explained(module_host, a.parent / re.sub("^a(?=/|$)", a.name, about))
    words = told["change"] if name == "long-key" else told["last_refusal"]
    pattern = re.sub(r"\\{\w+\\}", ".*", re.escape(rule.sentence))
    assert re.fullmatch(pattern, words["sentence"]), words
    assert (words["errno"], words["remedy"]) == (errno.errorcode[number], rule.remedy)


def test_storage_of_synapse_itself_is_not_mounted_for_writing(host, stage):
    managed = entity_folder(stage, managed=True)
    path = host.mount_point()
    done = host.try_mount(managed.syn_id, path, *RW)
    assert done.returncode == 17
    assert "managed by Synapse" in done.stderr
    assert not path.is_mount()


def test_a_read_only_mount_says_how_it_could_be_written(host, folder, mount):
    folder.write("f", b"data")
    live = mount(folder.syn_id)
    assert refused(write, live / "f", b"") == errno.EROFS
    told = explained(host, live / "f")["change"]
    assert (told["errno"], "--rw" in told["remedy"]) == ("EROFS", True)


@pytest.fixture
def live(folder, mount):
    """A mount whose role may lose rights in the test: the gate's denials are expected."""
    for name in ("f", "g", "d/f", "d/g"):
        folder.write(name, f"old {name}".encode())
    folder.stage.denials_expected = True
    return mount(folder.syn_id, *RW)


def denied(stage):
    """The kinds of request that the policy has refused, with their keys below the folder."""
    return sorted({(each.kind, each.key.split("/", 2)[2]) for each in stage.gate.denied})


def test_a_role_that_may_not_delete_gets_eacces_and_nothing_is_lost(host, folder, stage, live):
    stage.vendor.withheld = frozenset({"DeleteObject"})
    before = objects(folder)
    assert refused(os.unlink, live / "f") == errno.EACCES
    assert "s3:DeleteObject" in explained(host, live / "f")["last_refusal"]["remedy"]
    assert objects(folder) == before
    assert refused(os.rename, live / "f", live / "moved") == errno.EACCES
    told = explained(host, live / "f")["last_refusal"]
    assert (told["operation"], told["errno"]) == ("rename", "EACCES")
    assert "both exist" in told["sentence"]
    assert objects(folder) == before | {"moved": b"old f"}
    assert refused(os.rename, live / "d", live / "e") == errno.EACCES
    assert objects(folder) == before | {"moved": b"old f", "e/f": b"old d/f", "e/g": b"old d/g"}
    write(live / "g", b"new")
    assert objects(folder)["g"] == b"new"
    assert sorted(os.listdir(live.path)) == ["d", "e", "f", "g", "moved"]
    assert {kind for kind, _ in denied(stage)} == {"DELETE"}
    stage.vendor.withheld = frozenset()
    os.unlink(live / "f")
    shutil.rmtree(live / "e")
    assert sorted(objects(folder)) == ["d/f", "d/g", "g", "moved"]


WRITES = frozenset(
    {"PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"}
)


def test_a_role_that_may_not_put_gets_eacces_and_the_bytes_are_kept(host, folder, stage, live):
    stage.vendor.withheld = WRITES
    live.allow_in_log("s3:PutObject")
    before = objects(folder)
    assert refused(write, live / "f", b"new") == errno.EACCES
    assert refused(write, live / "long", touched(17 * MIB)) == errno.EACCES
    assert refused(os.mkdir, live / "made") == errno.EACCES
    assert refused(os.rename, live / "d/f", live / "moved") == errno.EACCES
    assert refused(os.rename, live / "d", live / "e") == errno.EACCES
    assert refused(os.truncate, live / "g", 1) == errno.EACCES
    for name in ("f", "d/f", "d", "g"):
        told = explained(host, live / name)["last_refusal"]
        assert (told["errno"], "s3:PutObject" in told["remedy"]) == ("EACCES", True)
    assert objects(folder) == before
    # Ours is seen here, and is in the list of what S3 has not got.
    assert (live / "f").read_bytes() == b"new"
    left = listed(host)
    assert {path: each["state"] for path, each in left.items()} == dict.fromkeys(
        ("f", "long", "g"), "failed"
    )
    os.unlink(live / "d/g")
    assert (live / "d/f").read_bytes() == b"old d/f"
    stage.vendor.withheld = frozenset()
    unmounted(live)  # tries once more
    assert objects(folder) == {
        "f": b"new", "long": touched(17 * MIB), "g": b"o", "d/f": b"old d/f"
    }  # fmt: skip
    assert pending_uploads(folder) == []


MAP_AND_CHANGE = """
import errno, mmap, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
with mmap.mmap(descriptor, 0) as mapped:
    for start in range(0, len(mapped), 1 << 20):
        mapped[start : start + (1 << 20)] = b"Z" * (1 << 20)
try:
    os.close(descriptor)
except OSError as exc:
    print(errno.errorcode[exc.errno])
"""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, which can be filled."""
    image, path = tmp_path / "image", tmp_path / "disk"
    path.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    for command in (["mkfs.ext4", "-q", "-m", "0", image], ["mount", "-o", "loop", image, path]):
        if shutil.which(command[0]) is None or subprocess.run(command, check=False).returncode:
            pytest.skip("needs the right to mount a file system")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk_is_enospc_to_who_writes_and_nobody_else(
    host, folder, stage, mount, small_disk
):
    folder.write("other", b"read me")
    live = mount(folder.syn_id, *RW, "--staging-dir", small_disk / "staging")
    live.allow_in_log("The disk of .* is full|'large' is incomplete")
    # Nothing goes ahead.
    stage.gate.faults.every_nth(1, status=400, code="Odd", kinds=["MULTIPART"])
    with open_to_write(live / "small", touched(MIB)) as small:
        with open_to_write(live / "large", b"") as large:
            assert refused(put_all, large, touched(100 * MIB)) == errno.ENOSPC
            told = explained(host, live / "large")["last_refusal"]
            # To start a child closes its copy of the descriptor: that is not the time to publish.
            assert (told["operation"], told["errno"]) == ("flush", "ENOSPC")
            written = os.fstat(large).st_size
            assert 0 < written < 64 * MIB
            assert (live / "other").read_bytes() == b"read me"
            assert os.pread(large, 99, written - 9) == b"x" * 9
            os.unlink(live / "large")  # which makes room
        small.close()
    assert objects(folder) == {"other": b"read me", "small": touched(MIB)}
    stage.gate.faults.clear()
    # Nobody waits for the end of a file that was removed.
    wait_until(lambda: shutil.disk_usage(small_disk).free > 50 * MIB)
    write(live / "large", touched(40 * MIB))
    assert objects(folder)["large"] == touched(40 * MIB)
    assert pending_uploads(folder) == []
    unmounted(live)


def test_a_file_that_the_disk_had_no_room_for_does_not_replace_the_object(
    host, folder, stage, mount, small_disk
):
    folder.write("f", b"the good one")
    live = mount(folder.syn_id, *RW, "--staging-dir", small_disk / "staging")
    live.allow_in_log("The disk of .* is full|'f' is incomplete")
    stage.gate.faults.every_nth(1, status=400, code="Odd", kinds=["MULTIPART", "PUT"])
    descriptor = os.open(live / "f", os.O_WRONLY | os.O_TRUNC)
    assert refused(put_all, descriptor, touched(100 * MIB)) == errno.ENOSPC
    assert refused(os.close, descriptor) == errno.ENOSPC
    stage.gate.faults.clear()
    assert objects(folder) == {"f": b"the good one"}
    assert "incomplete" in explained(host, live / "f")["last_refusal"]["sentence"]
    write(live / "f", b"a later one")  # which repairs it
    assert objects(folder) == {"f": b"a later one"}
    unmounted(live)


def test_pages_of_a_mapping_that_could_not_be_written_are_not_shown(
    host, folder, stage, mount, small_disk
):
    old = touched(80 * MIB)
    folder.write("f", old)
    live = mount(folder.syn_id, *RW, "--staging-dir", small_disk / "staging")
    live.allow_in_log("The disk of .* is full|'f' is incomplete")
    # In a process of its own: a page fault holds up all threads of this one, S3's included.
    assert python(MAP_AND_CHANGE, live / "f").split() == ["ENOSPC"]
    wait_until(lambda: (live / "f").read_bytes() != b"Z" * len(old))
    assert objects(folder) == {"f": old}
    unmounted(live, left=["/f"])


def test_a_file_larger_than_the_staging_disk_is_written_through_it(
    host, folder, stage, mount, small_disk
):
    folder.write("f", b"old")
    live = mount(folder.syn_id, *RW, "--staging-dir", small_disk / "staging")
    data = os.urandom(MIB) * 200
    with open_to_write(live / "f", b"") as descriptor:
        put_all(descriptor, data)
        assert objects(folder) == {"f": b"old"}
        assert os.pwrite(descriptor, b"header", 0) == 6
    assert folder.object_path("f").read_bytes() == b"header" + data[6:]
    with open_to_write(live / "g", b"") as descriptor:
        put_all(descriptor, data)
        assert os.pread(descriptor, MIB, 30 * MIB) == data[30 * MIB : 31 * MIB]
        assert os.pwrite(descriptor, b"back", 50 * MIB) == 4
        put_all(descriptor, b"tail")
    expected = data[: 50 * MIB] + b"back" + data[50 * MIB + 4 :] + b"tail"
    assert folder.object_path("g").read_bytes() == expected
    assert pending_uploads(folder) == []
    unmounted(live)


def test_bytes_of_a_killed_mount_that_only_an_upload_has_are_missing_until_it_is_completed(
    host, folder, stage, mount, small_disk
):
    live = mount(folder.syn_id, *RW, "--staging-dir", small_disk / "staging")
    data = os.urandom(MIB) * 200
    descriptor = os.open(live / "f", os.O_WRONLY | os.O_CREAT, 0o644)
    put_all(descriptor, data)
    os.fsync(descriptor)
    kill(live)
    with contextlib.suppress(OSError):
        os.close(descriptor)
    host.stsfs("unmount", live.path)
    (left,) = checked("recover", host.stsfs("recover", "--json").stdout)["left"]
    assert left["parked_bytes"] > 0
    done = host.stsfs("recover", "--save", host.home / "saved")
    assert done.returncode == 9, done.stdout
    assert f"stsfs recover --upload {left['id']}" in done.stderr
    assert not (host.home / "saved" / "f").exists()
    missing = json.loads((host.home / "saved" / "f.partial.missing.json").read_text())["missing"]
    assert sum(stop - start for start, stop in missing) == left["parked_bytes"]
    saved = bytearray((host.home / "saved" / "f.partial").read_bytes())
    for start, stop in missing:
        saved[start:stop] = data[start:stop]
    assert saved == data
    places = ("--synapse-endpoint", stage.synapse.url, "--endpoint-url", stage.gate.url)
    done = host.stsfs("recover", "--upload", left["id"], *places)
    assert done.returncode == 0, done.stderr
    assert folder.object_path("f").read_bytes() == data
    assert pending_uploads(folder) == []


def test_a_long_upload_outlives_many_tokens(host, folder, stage, mount):
    """Tokens of a few seconds: a part that is on its way when they end is sent again."""
    stage.vendor.lifetime_s = 2
    live = mount(folder.syn_id, *RW)
    stage.gate.faults.stall(seconds_s=1, kinds=["PART"])
    data = os.urandom(MIB) * 100
    vended = stage.vendor.vended
    with open_to_write(live / "long", b"") as descriptor:
        put_all(descriptor, data)
    assert folder.object_path("long").read_bytes() == data
    assert stage.vendor.vended > vended + 1
    assert pending_uploads(folder) == []
