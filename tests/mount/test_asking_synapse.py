"""What a mount says when it is asked about a folder of Synapse, and about several locations."""

import os

import pytest

from stsfs.demo.fake_synapse import seeds
from tests.mount.entity_folder import entity_folder
from tests.schemas import checked

pytestmark = pytest.mark.mount


@pytest.fixture
def ask(host):
    """ask(command, path) -> the JSON of a command, as its schema says."""

    def run(command, path):
        done = host.stsfs(command, "--json", path)
        assert done.returncode == 0, done.stderr
        return checked(command, done.stdout)

    return run


@pytest.fixture
def shelf(stage):
    """A folder as Synapse shows it: two files, one without its object."""
    shelf = entity_folder(stage, managed=True)
    shelf.write("dir/file", b"0123456789")
    shelf.write("gone", b"x")
    shelf.delete_object("gone")
    return shelf


def test_what_is_told_of_a_folder_of_synapse_is_as_the_schemas_say(shelf, mount, host, ask):
    live = mount(shelf.syn_id)
    found = live.settled_entities()["differences"]
    assert [each["name"] for each in found["named"]] == ["gone"]
    told = ask("status", live.path)
    assert (told["view"], told["locations"][0]["entities"]["files_known"]) == ("entities", 2)
    (live / "dir/file").read_bytes()
    file, directory = ask("info", live / "dir/file"), ask("info", live / "dir")
    assert file["properties"]["synapse.id"] == shelf.find("dir/file").syn_id
    assert file["uri"] == f"s3://{file['bucket']}/{shelf.key_of('dir/file')}"
    assert (directory["uri"], directory["etag"]) == (None, None)
    assert directory["properties"]["synapse.id"] == shelf.find("dir").syn_id
    assert ask("explain", live / "dir")["kind"] == "directory"
    shown = host.stsfs("status", "--differences", live.path).stdout
    assert "1 file has no object" in shown
    assert shelf.find("gone").syn_id in shown


def test_what_is_hidden_or_absent_in_synapse_has_a_reason_and_no_key(stage, shelf, mount, ask):
    shelf.write("dir/odd", b"slashed")
    odd = shelf.find("dir/odd")
    seeds.rename(stage.state, odd, "a/b", stage.user)
    seeds.add_table(stage.state, "table", shelf.entity, stage.user)
    live = mount(shelf.syn_id)
    for path, kind, words in (
        ("table", "hidden", "a table is not a file"),
        ("dir/a/b", "hidden", odd.syn_id),
        ("dir/nothing", "absent", "Nothing"),
    ):
        answer = ask("explain", live / path)
        assert (answer["kind"], answer["key"], answer["uri"]) == (kind, "", None)
        assert answer["read"]["errno"] == "ENOENT"
        assert words in answer["what"]


def test_several_locations_are_told_one_by_one(folder, shelf, host):
    folder.write("plain", b"x")
    path = host.mount_point()
    done = host.try_mount(f"{shelf.syn_id},{folder.syn_id}", path, "--consistency", "ttl")
    try:
        assert done.returncode == 0, done.stderr
        assert "(read-only): 2 locations, 1 by its keys, 1 as Synapse shows it;" in done.stdout
        (listed,) = checked("list", host.stsfs("list", "--json").stdout)
        assert listed["location"] == f"{shelf.syn_id},{folder.syn_id}"
        told = checked("status", host.stsfs("status", "--json", path).stdout)["locations"]
        assert [each["label"] for each in told] == [shelf.syn_id, folder.syn_id]
        assert sorted(os.listdir(path)) == sorted(each["path"].strip("/") for each in told)
        shown = host.stsfs("status", path).stdout
        for each in told:
            assert f"{each['label']} on {each['path']}" in shown
    finally:
        assert host.stsfs("unmount", path).returncode == 0
