"""`stsfs rules` of a mount, and of a folder that nobody has mounted."""

import pytest

from tests.mount.entity_folder import entity_folder
from tests.schemas import checked

pytestmark = pytest.mark.mount


@pytest.fixture
def rules(host, stage):
    """rules(location) -> what `stsfs rules --json` knows of it."""

    def run(location):
        done = host.stsfs("rules", "--json", location, "--synapse-endpoint", stage.synapse.url)
        assert done.returncode == 0, done.stderr
        answer = checked("rules", done.stdout)
        assert [rule["name"] for rule in answer["rules"]] == answer["place"]["rules"]
        return answer["place"]

    return run


def test_a_folder_is_known_to_be_managed_before_and_after_it_is_mounted(stage, mount, rules):
    managed = entity_folder(stage, managed=True)
    managed.write("file", b"x")
    before = rules(managed.syn_id)
    assert (before["storage"], before["writable"]) == ("managed", None)
    after = rules(mount(managed.syn_id).path)
    assert (after["storage"], after["writable"]) == ("managed", False)
    assert before["rules"] == after["rules"] == ["managed-mount", "managed"]


def test_a_mount_of_two_locations_has_rules_for_each_and_for_what_leads_to_them(
    stage, folder, host, rules
):
    folder.write("plain", b"x")
    shelf = entity_folder(stage, managed=True)
    shelf.write("file", b"x")
    path = host.mount_point()
    done = host.try_mount(f"{shelf.syn_id},{folder.syn_id}", path)
    try:
        assert done.returncode == 0, done.stderr
        assert rules(path)["storage"] == "none"
        told = {rules(each)["label"]: rules(each) for each in path.iterdir()}
        assert told[folder.syn_id]["rules"] == ["read-only"]
        assert told[folder.syn_id]["reserved_names"] == ["owner.txt"]
        assert told[shelf.syn_id]["storage"] == "managed"
        (change,) = {
            checked("explain", host.stsfs("explain", "--json", each).stdout)["change"]["errno"]
            for each in (path, *path.iterdir())
        }
        assert change == "EROFS"
    finally:
        assert host.stsfs("unmount", path).returncode == 0
