"""A mount that writes finds out what its server does with conditions, once, and says it."""

import pytest

from stsfs.store.capabilities import Condition
from stsfs.store.probing import PROBE_NAME
from tests.mount.crash_stage import objects, wait_until, write

pytestmark = pytest.mark.mount


def server_of(live):
    (server,) = live.status()["writing"]["servers"]
    return server


def probed(live):
    return wait_until(
        lambda: ((found := server_of(live))["found_by"] != "assumption" and found) or None
    )


def probes(stage):
    return [each for each in stage.gate.requests if f"/{PROBE_NAME}" in f"/{each.key}"]


def test_a_mount_asks_its_server_once_and_the_next_one_knows(stage, folder, host, mount):
    first = mount(folder.syn_id, "--rw")
    found = probed(first)
    assert found["found_by"] == "probe"
    assert found["conditions"] == {str(each): "honoured" for each in Condition}
    assert "do not overwrite each other" in found["two_writers"]
    assert objects(folder) == {}
    told = host.stsfs("status", first.path)
    assert "do not overwrite each other" in " ".join(told.stdout.split()), told
    write(first / "f", b"data")
    assert objects(folder) == {"f": b"data"}
    asked = len(probes(stage))
    assert asked > 10
    second = mount(folder.syn_id, "--rw")
    assert server_of(second)["found_by"] == "memory"
    assert server_of(second)["conditions"] == found["conditions"]
    assert len(probes(stage)) == asked


@pytest.mark.parametrize("options", [(), ("--rw", "--conditional-writes", "on"),
                                     ("--rw", "--conditional-writes", "off")])  # fmt: skip
def test_a_mount_that_does_not_write_or_was_told_asks_nothing(stage, folder, mount, options):
    live = mount(folder.syn_id, *options)
    assert not (live / "f").exists()
    if options:
        assert server_of(live)["found_by"] == "option"
        unseen = "overwrite each other unseen" in server_of(live)["two_writers"]
        assert unseen == ("off" in options)
    else:
        assert live.status()["writing"] is None
    assert probes(stage) == []


def test_where_the_probe_is_denied_the_mount_looks_for_itself_and_says_so(stage, folder, mount):
    stage.denials_expected = True
    stage.gate.faults.every_nth(1, status=403, kinds=["DELETE"])
    live = mount(folder.syn_id, "--rw")
    found = wait_until(lambda: ((each := server_of(live))["reason"] and each) or None)
    assert "s3:DeleteObject" in found["reason"] or "may not delete" in found["reason"]
    assert set(found["conditions"].values()) == {"unknown"}
    assert "may overwrite each other unseen" in found["two_writers"]
    write(live / "f", b"data")
    assert objects(folder) == {"f": b"data"}
