"""Twenty thousand files in two hundred folders, at the pace that Synapse allows."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.mount.entity_folder import entity_folder

pytestmark = pytest.mark.mount

FOLDERS, FILES = 200, 100
TTL = ("--metadata-ttl", "3600")
RESIDENT_MIB_MAX = 300


@pytest.fixture(scope="module")
def large(servers):
    made = entity_folder(servers, managed=True)
    made.fill(FOLDERS, FILES)
    return made


@pytest.fixture
def throttle(stage):
    """Synapse's limits in force: 3 requests at a time, 600 in a minute."""
    limits = stage.synapse.services.throttle
    limits.enabled, limits.refused = True, 0
    yield limits
    limits.enabled = False


def asked(stage, before):
    return {path: n - before.get(path, 0) for path, n in stage.synapse.counts.items()}


def list_long(path):
    done = subprocess.run(["ls", "-l", path], capture_output=True, text=True, check=True)
    return re.findall(r" 11 .* (file\d+\.txt)$", done.stdout, re.MULTILINE)


def test_a_large_folder_is_usable_at_once_and_the_throttle_is_never_hit(
    stage, large, mount, throttle
):
    live = mount(large.syn_id, *TTL)
    assert len(os.listdir(live.path)) == FOLDERS
    for number in (150, 7):
        before = stage.synapse.counts
        folder = live / f"folder{number:03d}"
        assert len(list_long(folder)) == FILES
        ids = {each.syn_id for each in stage.state.children(large.find(folder.name).number)}
        about = {p: n for p, n in asked(stage, before).items() if any(i in p for i in ids)}
        assert sum(about.values()) <= FILES
    told = live.status()["locations"][0]["entities"]
    assert 0 < told["files_known"] <= told["files"]
    assert told["seconds_left"] > 0
    assert throttle.refused == 0
    resident = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{live.pid}/status").read_text())
    assert int(resident.group(1)) < RESIDENT_MIB_MAX * 1024

    before = stage.synapse.counts
    again = mount(large.syn_id, *TTL)
    assert len(list_long(again / "folder007")) == FILES
    ids = {each.syn_id for each in stage.state.children(large.find("folder007").number)}
    assert not [p for p, n in asked(stage, before).items() if n and any(i in p for i in ids)]
    assert throttle.refused == 0
