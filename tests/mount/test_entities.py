"""A folder as Synapse shows it, through real mounts: what is shown, and when changes are seen."""

import errno
import hashlib
import json
import os
import subprocess
from contextlib import contextmanager

import pytest

from stsfs.demo.fake_synapse import seeds
from stsfs.demo.fake_synapse.state import READ
from tests.mount.entity_folder import entity_folder

pytestmark = pytest.mark.mount

SHORT_TTL = ("--metadata-ttl", "0")


@pytest.fixture
def shelf(stage):
    """An empty folder of Synapse, filled by entities."""
    return entity_folder(stage, managed=True)


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def refused(number):
    with pytest.raises(OSError, match=os.strerror(getattr(errno, number))):
        yield


def explained(host, path):
    return json.loads(host.stsfs("explain", "--json", path).stdout)


def hidden(host, live):
    done = host.stsfs("status", "--hidden", "--json", live.path)
    return {each["key"]: each["reason"] for each in json.loads(done.stdout)["hidden"]["keys"]}


def test_managed_storage_is_shown_as_synapse_shows_it(shelf, mount):
    data = shelf.write("cohort/s1.bam", os.urandom(100_000))
    shelf.write("readme.txt", b"hello")
    live = mount(shelf.syn_id)
    assert sorted(os.listdir(live.path)) == ["cohort", "readme.txt"]
    assert (live / "cohort" / "s1.bam").read_bytes() == data
    assert (live / "cohort" / "s1.bam").stat().st_size == len(data)
    assert live.status()["view"] == "entities"


def test_ls_costs_the_pages_of_the_folder_and_no_file(stage, shelf, mount):
    shelf.fill(folders=1, files=120)
    with stage.synapse_background_held():
        live = mount(shelf.syn_id)
        assert len(os.listdir(live / "folder000")) == 120
        # The crawl may have been faster, or list it as well; of no file was anything told.
        assert stage.synapse.counts["POST /repo/v1/entity/children"] <= 8
        assert live.status()["locations"][0]["entities"]["files_known"] == 0


def test_a_new_version_is_seen_and_an_open_file_stays_with_its_own(shelf, mount):
    old = shelf.write("x", os.urandom(300_000))
    live = mount(shelf.syn_id, *SHORT_TTL)
    with open(live / "x", "rb") as file:
        assert file.read(10) == old[:10]
        new = shelf.write("x", os.urandom(400_000))
        assert (live / "x").read_bytes() == new
        assert (live / "x").stat().st_ino != os.fstat(file.fileno()).st_ino
        file.seek(0)
        assert file.read() == old


def test_renamed_moved_and_deleted_entities_are_seen(stage, shelf, mount):
    shelf.write("a/x", b"x of a")
    shelf.write("a/y", b"y of a")
    shelf.write("b/z", b"z of b")
    live = mount(shelf.syn_id, *SHORT_TTL)
    assert sorted(os.listdir(live / "a")) == ["x", "y"]
    seeds.rename(stage.state, shelf.find("a/x"), "renamed", stage.user)
    seeds.move(stage.state, shelf.find("b/z"), shelf.find("a"), stage.user)
    seeds.trash(stage.state, shelf.find("a/y"))
    assert sorted(os.listdir(live / "a")) == ["renamed", "z"]
    assert os.listdir(live / "b") == []
    assert (live / "a" / "renamed").read_bytes() == b"x of a"
    assert (live / "a" / "z").read_bytes() == b"z of b"
    with refused("ENOENT"):
        (live / "a" / "y").stat()


def test_an_object_replaced_without_synapse_is_shown_as_it_is_and_counted(shelf, mount, host):
    shelf.write("x", b"five!")
    shelf.write("missing", b"soon gone")
    live = mount(shelf.syn_id, *SHORT_TTL)
    assert (live / "x").read_bytes() == b"five!"
    shelf.replace_in_place("x", b"quite another length")
    assert (live / "x").read_bytes() == b"quite another length"
    assert (live / "x").stat().st_size == 20
    shelf.delete_object("missing")
    live.allow_in_log("no such object")
    with refused("EIO"):
        (live / "missing").read_bytes()
    assert "no such object" in explained(host, live / "missing")["last_refusal"]["sentence"]


def test_differences_between_synapse_and_the_bucket_are_counted(shelf, mount):
    shelf.write("fine", b"fine")
    shelf.write("missing", b"missing")
    shelf.write("other", b"other")
    shelf.delete_object("missing")
    shelf.replace_in_place("other", b"of another length")
    (shelf.path / "nobody's").write_bytes(b"")
    live = mount(shelf.syn_id)
    found = live.settled_entities()["differences"]
    assert (found["missing"], found["other_size"], found["unregistered"]) == (1, 1, 1)
    assert {each["name"] for each in found["named"]} == {"missing", "other"}


def test_what_cannot_be_shown_is_hidden_with_a_reason_and_found_by_id(stage, shelf, mount, host):
    slashed = shelf.write("odd", b"slashed") and shelf.find("odd")
    shelf.write("twin", b"first")
    twin = shelf.write("twin2", b"second") and shelf.find("twin2")
    seeds.rename(stage.state, slashed, "a/b", stage.user)
    seeds.rename(stage.state, twin, "twin", stage.user)
    seeds.add_table(stage.state, "table", shelf.entity, stage.user)
    live = mount(shelf.syn_id)
    assert os.listdir(live.path) == ["twin"]
    reasons = hidden(host, live)
    assert len(reasons) == 3
    assert any("slash" in why and slashed.syn_id in why for why in reasons.values())
    assert any("another entity" in why for why in reasons.values())
    assert any("table" in why for why in reasons.values())
    assert (live / ".synapse" / "by-id" / slashed.syn_id).read_bytes() == b"slashed"
    told = explained(host, live / "table")
    assert told["kind"] == "hidden"
    assert "a table is not a file" in told["what"]


def test_a_file_that_may_not_be_downloaded_is_listed_with_its_size(stage, shelf, mount, host):
    shelf.write("secret", b"twelve bytes")
    stage.state.set_permissions(shelf.find("secret"), stage.user.user_id, READ)
    live = mount(shelf.syn_id)
    assert (live / "secret").stat().st_size == 12
    with refused("EACCES"):
        (live / "secret").read_bytes()
    assert "DOWNLOAD" in explained(host, live / "secret")["last_refusal"]["sentence"]


def test_links_show_what_they_lead_to(stage, shelf, mount, host):
    shelf.write("d/file", b"version one")
    shelf.write("d/file", b"version two")
    file, folder = shelf.find("d/file"), shelf.find("d")
    for name, target, version in (("f", file, None), ("f1", file, 1), ("d2", folder, None)):
        seeds.add_link(stage.state, name, shelf.entity, stage.user, target, version)
    seeds.add_link(stage.state, "loop", folder, stage.user, shelf.entity)
    live = mount(shelf.syn_id)
    assert (live / "f").read_bytes() == (live / "d2" / "file").read_bytes() == b"version two"
    assert (live / "f1").read_bytes() == b"version one"
    found = subprocess.run(["find", "."], cwd=live.path, capture_output=True, text=True, check=True)
    assert sorted(found.stdout.split()) == [
        ".",
        "./d",
        "./d/file",
        "./d2",
        "./d2/file",
        "./f",
        "./f1",
    ]
    assert any("a folder that it lies in" in why for why in hidden(host, live).values())


def test_ids_and_versions_are_below_dot_synapse_which_is_not_listed(shelf, mount):
    shelf.write("x", b"one")
    shelf.write("x", b"two!")
    syn_id = shelf.find("x").syn_id
    live = mount(shelf.syn_id)
    magic = live / ".synapse"
    assert os.listdir(live.path) == ["x"]
    assert sorted(os.listdir(magic)) == ["by-id", "versions"]
    assert (magic / "by-id" / syn_id).read_bytes() == b"two!"
    assert sorted(os.listdir(magic / "versions" / syn_id)) == ["1", "2"]
    assert (magic / "versions" / syn_id / "1").read_bytes() == b"one"
    for absent in ("by-id/syn1", "versions/syn1", f"versions/{syn_id}/3", "other"):
        with refused("ENOENT"):
            (magic / absent).stat()


def test_attributes_and_info_tell_what_synapse_knows(stage, shelf, mount, host):
    shelf.write("x", b"some bytes")
    entity = shelf.find("x")
    seeds.annotate(stage.state, entity, stage.user, {"tissue": ["blood"], "ages": [1, 2]})
    live = mount(shelf.syn_id, "--xattrs")
    told = {n: os.getxattr(live / "x", n).decode() for n in os.listxattr(live / "x")}
    assert told["user.synapse.id"] == entity.syn_id
    assert told["user.synapse.version"] == "1"
    assert told["user.synapse.md5"] == hashlib.md5(b"some bytes").hexdigest()
    assert told["user.synapse.annotation.tissue"] == "blood"
    assert json.loads(told["user.synapse.annotation.ages"]) == ["1", "2"]
    info = json.loads(host.stsfs("info", "--json", live / "x").stdout)["properties"]
    assert info == {n.removeprefix("user."): v for n, v in told.items() if "synapse" in n}


def test_a_file_outside_the_location_is_fetched_or_refused(stage, shelf, mount, host):
    (stage.bucket / "elsewhere").mkdir(exist_ok=True)
    (stage.bucket / "elsewhere" / "o").write_bytes(b"from elsewhere")
    md5 = hashlib.md5(b"from elsewhere").hexdigest()
    facts = {"key": "elsewhere/o", "size_bytes": 14, "md5": md5, "bucket": "lab"}
    stage.state.add_file("o", shelf.entity, stage.user, **facts)
    assert (mount(shelf.syn_id) / "o").read_bytes() == b"from elsewhere"
    live = mount(shelf.syn_id, "--outside", "refuse")
    assert (live / "o").stat().st_size == 14
    with refused("EACCES"):
        (live / "o").read_bytes()
    assert "outside the storage location" in explained(host, live / "o")["last_refusal"]["sentence"]


def test_as_of_shows_the_versions_of_that_day(stage, shelf, mount):
    shelf.write("old", b"old one")
    shelf.write("changed", b"before")
    for name in ("old", "changed"):
        entity = shelf.find(name)
        entity.created_on_unix_s = entity.current.modified_on_unix_s = 1_700_000_000
    shelf.write("changed", b"after!!")
    shelf.write("new", b"new")
    live = mount(shelf.syn_id, "--as-of", "2023-11-20")
    assert sorted(os.listdir(live.path)) == ["changed", "old"]
    assert (live / "changed").read_bytes() == b"before"


def test_a_second_mount_asks_synapse_almost_nothing(stage, shelf, mount):
    shelf.fill(folders=3, files=20)
    first = mount(shelf.syn_id, "--metadata-ttl", "600")
    first.settled_entities()
    before = stage.synapse.counts
    second = mount(shelf.syn_id, "--metadata-ttl", "600")
    subprocess.run(["ls", "-lR"], cwd=second.path, stdout=subprocess.DEVNULL, check=True)
    after = stage.synapse.counts
    asked = {path: n - before.get(path, 0) for path, n in after.items() if n != before.get(path, 0)}
    assert sum(asked.values()) <= 4
    assert not any("children" in path or "/version/" in path for path in asked)


def test_a_matching_location_is_shown_by_its_keys_and_says_why(stage, folder, mount):
    folder.write("d/x", b"by key")
    parent = stage.state.add_folder("d", stage.state.entities[int(folder.syn_id[3:])], stage.user)
    md5 = hashlib.md5(b"by key").hexdigest()
    key = f"{folder.base_key}/d/x"
    stage.state.add_file("x", parent, stage.user, key=key, size_bytes=6, md5=md5)
    live = mount(folder.syn_id)
    status = live.status()
    assert status["view"] == "keys"
    assert "are their paths" in status["view_reason"] or "is its path" in status["view_reason"]
    both = mount(folder.syn_id, "--view", "entities")
    assert sha(both / "d" / "x") == sha(live / "d" / "x")


def test_a_project_shows_each_storage_location_at_its_place(stage, mount):
    project = stage.state.add_project("Study", stage.user)
    way = stage.state.add_folder("way", project, stage.user)
    stage.state.add_folder("empty", project, stage.user)
    made = {}
    for name, parent in (("one", project), ("two", way)):
        shelf = entity_folder(stage)
        stage.state.move(shelf.entity, parent.number)
        seeds.rename(stage.state, shelf.entity, name, stage.user)
        made[name] = shelf.write(f"{name}.txt", name.encode()) and shelf
    live = mount(project.syn_id)
    assert sorted(os.listdir(live.path)) == ["one", "way"]
    assert (live / "one" / "one.txt").read_bytes() == b"one"
    assert (live / "way" / "two" / "two.txt").read_bytes() == b"two"
    assert [each["path"] for each in live.status()["locations"]] == ["/one", "/way/two"]
    assert {name: shelf.sts_calls for name, shelf in made.items()} == {"one": 1, "two": 1}


def test_several_locations_are_shown_beside_each_other(stage, shelf, folder, mount):
    shelf.write("x", b"by entity")
    folder.write("y", b"by key")
    plain = stage.folder()
    plain.write("z", b"by S3")
    live = mount((shelf.syn_id, folder.syn_id, plain.uri))
    names = {os.path.basename(shelf.base_key), os.path.basename(folder.base_key)}
    assert set(os.listdir(live.path)) == names | {os.path.basename(plain.base_key)}
    assert (live / os.path.basename(shelf.base_key) / "x").read_bytes() == b"by entity"
    assert (live / os.path.basename(folder.base_key) / "y").read_bytes() == b"by key"
    assert (live / os.path.basename(plain.base_key) / "z").read_bytes() == b"by S3"


def test_locations_that_overlap_are_refused(folder, host):
    folder.write("d/x", b"x")
    done = host.try_mount((folder.uri, f"{folder.uri}/d"), host.mount_point())
    assert done.returncode == 2
    assert "overlap" in done.stderr
