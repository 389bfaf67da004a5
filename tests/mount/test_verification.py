"""Content that is not what Synapse has on record, found while reading and by `stsfs verify`."""

import errno
import json
import os

import pytest

from tests.mount.entity_folder import entity_folder

pytestmark = pytest.mark.mount

MIB = 1 << 20


@pytest.fixture
def shelf(stage):
    """Two good files and one whose object was damaged: same size, one byte flipped."""
    made = entity_folder(stage, managed=True)
    made.write("good", os.urandom(3 * MIB))
    made.write("d/also good", os.urandom(10))
    data = bytearray(made.write("d/bad", os.urandom(3 * MIB)))
    data[2 * MIB] ^= 1
    made.object_path("d/bad").write_bytes(data)
    return made


def test_verify_finds_the_damaged_file_and_goes_on_from_its_report(shelf, mount, host, tmp_path):
    live, report = mount(shelf.syn_id), tmp_path / "report.jsonl"
    done = host.stsfs("verify", live.path, "--report", report, "--json")
    assert done.returncode == 38, done.stderr
    rows = {
        each["path"]: each
        for each in map(json.loads, report.read_text().splitlines())
        if "path" in each
    }
    results = {os.path.relpath(path, live.path): each["outcome"] for path, each in rows.items()}
    assert results == {"good": "ok", "d/also good": "ok", "d/bad": "mismatch"}
    shelf.write("d/bad", b"a new version, which is right")
    host.stsfs("refresh", live.path)
    again = host.stsfs("verify", live.path, "--report", report, "--resume", "--json")
    assert again.returncode == 0, again.stderr + again.stdout


def test_a_full_read_of_the_damaged_file_is_eio_with_both_digests(shelf, mount, host):
    live = mount(shelf.syn_id, "--verify", "on-full-read")
    live.allow_in_log("MD5")
    assert len((live / "good").read_bytes()) == 3 * MIB
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error") as raised:
            (live / "d" / "bad").read_bytes()
        assert raised.value.errno == errno.EIO
    told = json.loads(host.stsfs("explain", "--json", live / "d" / "bad").stdout)
    digest = shelf.state.handles[shelf.find("d/bad").current.file_handle_id].content_md5
    assert digest in told["last_refusal"]["sentence"]


@pytest.mark.parametrize("options", [(), ("--view", "keys"), ("--rw",)])
def test_a_mount_that_has_no_digests_is_refused_where_they_are_asked_for(
    folder, host, tmp_path, options
):
    path = tmp_path / "m"
    path.mkdir()
    done = host.try_mount(folder.syn_id, path, "--verify", "on-full-read", *options)
    assert done.returncode == 2
    assert "--verify needs the entities view" in done.stderr
    assert not path.is_mount()


def test_a_mount_of_keys_has_nothing_to_compare_with(folder, mount, host):
    folder.write("x", b"x")
    live = mount(folder.syn_id)
    done = host.stsfs("verify", live.path)
    assert done.returncode == 2
    assert "--view entities" in done.stderr
