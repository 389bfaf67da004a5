"""Locks and searches through real mounts: a lock shows what was pinned, or says why not."""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from pathlib import Path

import pytest

from stsfs.demo.fake_synapse import seeds
from stsfs.demo.fake_synapse.state import DOWNLOAD, READ
from tests.mount.entity_folder import entity_folder
from tests.mount.live_mount import Host
from tests.schemas import checked

pytestmark = [pytest.mark.mount, pytest.mark.long]

FRIEND_TOKEN = "ben-token-of-another-account"


@pytest.fixture
def shelf(stage):
    """A folder of entities with two files."""
    made = entity_folder(stage, managed=True)
    made.write("cohort/s1.bam", b"one" * 1000)
    made.write("cohort/s2.bam", b"two" * 2000)
    return made


@pytest.fixture
def run(host, stage):
    """Run a command that takes a location, against the stage; it must succeed."""

    def run(command, *arguments, code=0, account=host, **options):
        places = ["--endpoint-url", stage.gate.url, "--synapse-endpoint", stage.synapse.url]
        done = account.stsfs(command, *arguments, *places, **options)
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture
def pinned(run, tmp_path):
    """pinned(location, *options) -> the path of a lock file."""

    def pinned(location, *options):
        path = tmp_path / "data.lock"
        run("pin", location, "--output", path, *options)
        return path

    return pinned


@contextlib.contextmanager
def stale():
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        yield


def sentence(host, path):
    told = json.loads(host.stsfs("explain", "--json", path).stdout)
    return told["last_refusal"]["sentence"]


def content(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in Path(root).rglob("*")
        if path.is_file()
    }


@pytest.fixture
def friend(stage, tmp_path_factory):
    """Another account, with a Synapse user of its own: (host, user id)."""
    user = stage.state.add_user("ben", token=FRIEND_TOKEN)
    with tempfile.TemporaryDirectory(prefix="stsfs-run-") as runtime:
        host = Host(tmp_path_factory.mktemp("friend"), Path(runtime), stage)
        host.environment["SYNAPSE_AUTH_TOKEN"] = FRIEND_TOKEN
        yield host, user.user_id
        assert host.records() == []


def test_a_lock_of_one_account_shows_the_same_to_another(stage, shelf, mount, pinned, friend):
    lock = pinned(shelf.syn_id)
    there = content(mount(shelf.syn_id).path)
    other, user_id = friend
    stage.state.set_permissions(shelf.entity, user_id, DOWNLOAD)
    live = other.mount(lock)
    assert content(live.path) == there
    assert len(there) == 2
    status = live.status()
    assert status["view"] == "lock"
    assert status["view_reason"].endswith(f"from {shelf.syn_id}")
    told = json.loads(other.stsfs("info", "--json", live / "cohort" / "s1.bam").stdout)
    entity = shelf.find("cohort/s1.bam")
    assert told["properties"]["synapse.id"] == entity.syn_id
    assert told["key"] == shelf.key_of("cohort/s1.bam")
    assert live.audit() == []


def test_a_new_version_leaves_the_pinned_one_readable(shelf, mount, pinned):
    lock = pinned(shelf.syn_id)
    shelf.write("cohort/s1.bam", b"another version")
    shelf.write("late", b"after the pin")
    live = mount(lock)
    assert (live / "cohort" / "s1.bam").read_bytes() == b"one" * 1000
    assert os.listdir(live.path) == ["cohort"]


def test_a_replaced_object_is_stale_and_both_versions_are_named(shelf, mount, host, pinned):
    lock = pinned(shelf.syn_id)
    live = mount(lock)
    shelf.write("cohort/s2.bam", b"a second version")
    new = shelf.replace_in_place("cohort/s1.bam", b"other bytes")
    for _ in range(2):
        with stale():
            (live / "cohort" / "s1.bam").read_bytes()
    told = sentence(host, live / "cohort" / "s1.bam")
    assert f"version 1 of {shelf.find('cohort/s1.bam').syn_id}, 3000 bytes, ETag " in told
    assert f"has now 11 bytes, ETag {new['ETag']}" in told
    assert "is at version 1" in told
    assert (live / "cohort" / "s2.bam").read_bytes() == b"two" * 2000


def test_a_deleted_object_is_stale_too(shelf, mount, host, pinned):
    live = mount(pinned(shelf.syn_id))
    entity = shelf.find("cohort/s1.bam")
    shelf.delete("cohort/s1.bam")
    with stale():
        (live / "cohort" / "s1.bam").read_bytes()
    told = sentence(host, live / "cohort" / "s1.bam")
    assert "there is no object" in told
    assert f"of {entity.syn_id} Synapse says" in told


def test_keys_are_pinned_by_their_etags(folder, mount, host, pinned):
    folder.write("d/x", b"x as it was")
    folder.write("d.txt", b"beside")
    lock = pinned(folder.uri)
    live = mount(lock)
    assert content(live.path) == {"d/x": b"x as it was", "d.txt": b"beside"}
    folder.put("d/x", b"x as it is")
    with stale():
        (live / "d" / "x").read_bytes()
    assert "has now 10 bytes" in sentence(host, live / "d" / "x")


def test_a_past_day_can_be_pinned_and_so_can_what_links_show(stage, shelf, mount, pinned, run):
    seeds.add_link(stage.state, "link", shelf.entity, stage.user, shelf.find("cohort"))
    lock = pinned(shelf.syn_id)
    assert sorted(content(mount(lock).path)) == [
        "cohort/s1.bam", "cohort/s2.bam", "link/s1.bam", "link/s2.bam",
    ]  # fmt: skip
    entity = shelf.find("cohort/s1.bam")
    for each in (shelf.find("cohort"), entity):
        each.created_on_unix_s = each.current.modified_on_unix_s = 1_700_000_000
    shelf.write("cohort/s1.bam", b"the version of today")
    lock = pinned(shelf.syn_id, "--as-of", "2023-11-20")
    assert content(mount(lock).path) == {"cohort/s1.bam": b"one" * 1000}
    past = mount(shelf.syn_id, "--as-of", "2023-11-20")
    told = checked("find", run("find", past.path, "size = 3000", "--json").stdout)
    assert [(each["path"], each["version"]) for each in told["files"]] == [
        (f"{past.path}/cohort/s1.bam", 1)
    ]


def test_an_incomplete_lock_is_not_written_unless_that_was_asked_for(stage, shelf, run, tmp_path):
    stage.state.set_permissions(shelf.find("cohort/s1.bam"), stage.user.user_id, READ)
    lock = tmp_path / "data.lock"
    done = run("pin", shelf.syn_id, "--output", lock, code=33)
    assert "One file cannot be read" in done.stderr
    assert "cohort/s1.bam: You lack the DOWNLOAD permission" in done.stderr
    assert not lock.exists()
    done = run("pin", shelf.syn_id, "--skip-unreadable")
    assert "pinned 1 file, 5.9 KiB; left out 1 file" in done.stderr
    assert "s2.bam" in done.stdout
    assert "s1.bam" not in done.stdout


def test_files_outside_the_location_are_pinned_by_their_entities(stage, shelf, mount, pinned):
    (stage.bucket / "elsewhere").mkdir(exist_ok=True)
    data = b"bytes outside"
    (stage.bucket / "elsewhere" / "o").write_bytes(data)
    md5 = hashlib.md5(data).hexdigest()
    stage.state.add_file("outside", shelf.entity, stage.user, key="elsewhere/o",
                         size_bytes=len(data), md5=md5)  # fmt: skip
    lock = pinned(shelf.syn_id)
    assert (mount(lock) / "outside").read_bytes() == data


def test_a_lock_of_another_service_or_place_is_refused(host, shelf, folder, pinned, stage):
    lock = pinned(shelf.syn_id)
    path = host.mount_point()
    text = lock.read_text()
    for old, new, word in (
        (f"base_key\t{shelf.base_key}\n", "base_key\tbase\n", "is s3://"),
        (f"endpoint\t{stage.gate.url}", "endpoint\thttps://s3.example.org", "s3.example.org"),
        (f"synapse\t{stage.synapse.url}", "synapse\thttps://synapse.example.org",
         "synapse.example.org"),
    ):  # fmt: skip
        assert old in text
        lock.write_text(text.replace(old, new))
        done = host.try_mount(lock, path)
        assert done.returncode == 2, done.stderr
        assert word in done.stderr
    lock.write_text(text)
    done = host.try_mount(lock, path, "--as-of", "2026-01-01")
    assert "--as-of is for what changes" in done.stderr


def test_find_answers_the_same_by_query_and_by_walk(stage, shelf, run):
    shelf.write("normal.bam", b"12345")
    seeds.annotate(stage.state, shelf.find("cohort/s1.bam"), stage.user,
                   {"tissue": ["blood"], "age": [40]})  # fmt: skip
    seeds.annotate(stage.state, shelf.find("normal.bam"), stage.user,
                   {"tissue": ["liver"], "age": [7]})  # fmt: skip
    view = seeds.add_entity_view(
        stage.state, "v", shelf.entity, stage.user, [stage.project], ["tissue", "age"]
    )
    for condition, paths in (
        ("tissue = blood", ["cohort/s1.bam"]),
        ("age > 8 and size > 1K", ["cohort/s1.bam"]),
        ("tissue != blood", ["cohort/s2.bam", "normal.bam"]),
        ("has tissue and created_on > 2020-01-01", ["cohort/s1.bam", "normal.bam"]),
    ):
        walked = run("find", shelf.syn_id, condition)
        asked = run("find", shelf.syn_id, condition, "--index-view", view.syn_id)
        assert walked.stdout.split() == asked.stdout.split() == paths
        assert "looked at instead" not in asked.stderr
    done = run("find", shelf.syn_id, "name ~ n*", "--index-view", view.syn_id)
    assert done.stdout == "normal.bam\n"
    assert "every file is looked at instead" in done.stderr
    done = run("find", shelf.syn_id, "tissue = bone", "--index-view", view.syn_id)
    assert (done.stdout, done.stderr) == ("", "stsfs: Nothing was found.\n")


def test_find_searches_a_directory_of_a_mount_a_lock_and_a_bucket(shelf, mount, pinned, run, host):
    live = mount(shelf.syn_id)
    shelf.write("top.bam", b"top")
    paths = [f"{live.path}/cohort/s1.bam", f"{live.path}/cohort/s2.bam"]
    done = run("find", live / "cohort", "name ~ *.bam", "-0")
    assert done.stdout.rstrip("\0").split("\0") == paths
    done = run("find", ".", "size < 4000", cwd=str(live / "cohort"))
    assert done.stdout == "./s1.bam\n"
    lock = pinned(shelf.syn_id)
    told = checked("find", run("find", lock, "name = top.bam", "--json").stdout)
    entity = shelf.find("top.bam")
    assert [(each["path"], each["id"], each["size_bytes"]) for each in told["files"]] == [
        ("top.bam", entity.syn_id, 3)
    ]
    locked = mount(lock)
    assert run("find", locked.path, "name = top.bam").stdout == f"{locked.path}/top.bam\n"
    assert run("find", shelf.uri, "name = top.bam").stdout.endswith("/top.bam\n")
    assert "not 'tissue'" in run("find", lock, "tissue = blood", code=2).stderr
    assert "not 'md5'" in run("find", shelf.uri, "md5 = 0", code=2).stderr


def test_locks_and_locations_lie_beside_each_other_and_are_searched_together(
    shelf, folder, mount, pinned, run
):
    folder.write("d/key.bam", b"by its key")
    lock = pinned(shelf.syn_id)
    live = mount((shelf.syn_id, folder.uri, lock))
    names = sorted(os.listdir(live.path))
    assert len(names) == 3
    assert "data" in names
    assert content(live / "data") == content(live / shelf.entity.name)
    done = run("find", live.path, "name ~ *.bam")
    assert len(done.stdout.splitlines()) == 5
    assert all(Path(each).is_file() for each in done.stdout.splitlines())
    assert run("find", live / "data", "size = 3000").stdout == f"{live.path}/data/cohort/s1.bam\n"
