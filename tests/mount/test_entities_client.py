"""What the real Synapse client stores, renames, moves, versions and deletes is seen in a mount."""

import json
import os
import subprocess

import pytest

from tests.mount.stage import BUCKET, TOKEN
from tests.test_synapseclient import PYTHON

pytestmark = pytest.mark.mount

SERVE = r"""
import json, sys
import synapseclient
from synapseclient import File, Folder

syn = synapseclient.Synapse(configPath=sys.argv[1], silent=True, skip_checks=True)
syn.login(silent=True)

def store(parent, name, key, path, **more):
    handle = syn.create_external_s3_file_handle(sys.argv[2], key, path, parent=parent)
    return syn.store(File(parent=parent, dataFileHandleId=handle["id"], name=name, **more))["id"]

def new_version(entity_id, key, path):
    entity = syn.get(entity_id, downloadFile=False)
    handle = syn.create_external_s3_file_handle(sys.argv[2], key, path, parent=entity.parentId)
    entity.dataFileHandleId = handle["id"]
    return syn.store(entity)["versionNumber"]

def rename(entity_id, name):
    entity = syn.get(entity_id, downloadFile=False)
    entity.name = name
    syn.store(entity)

def folder(parent, name):
    return syn.store(Folder(name=name, parent=parent))["id"]

for line in sys.stdin:
    name, *arguments = json.loads(line)
    call = {"move": syn.move, "delete": syn.delete}.get(name) or globals()[name]
    told = call(*arguments)
    print(json.dumps(told if isinstance(told, (str, int)) else None), flush=True)
"""


@pytest.fixture
def client(stage, tmp_path):
    """call(name, *arguments) -> what the function of that name in SERVE returned."""
    if not PYTHON.exists():
        pytest.fail(f"no synapseclient: {PYTHON} does not exist; run `make setup-test`")
    config = tmp_path / "synapseConfig"
    config.touch(mode=0o600)
    url = stage.synapse.url
    config.write_text(
        f"[authentication]\nauthtoken = {TOKEN}\n[endpoints]\nrepoEndpoint = {url}/repo/v1\n"
        f"authEndpoint = {url}/auth/v1\nfileHandleEndpoint = {url}/file/v1\n"
        f"portalEndpoint = {url}/\n"
    )
    environ = {key: value for key, value in os.environ.items() if "SYNAPSE" not in key}
    with subprocess.Popen(
        [str(PYTHON), "-c", SERVE, str(config), BUCKET],
        env=environ | {"HOME": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def call(name, *arguments):
            process.stdin.write(json.dumps([name, *arguments]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield call
        process.stdin.close()


def test_the_mount_follows_what_the_real_client_does(stage, folder, client, mount, tmp_path):
    def upload(name, data):
        """Bytes in the bucket under a key that says nothing; the key, and a local copy."""
        folder.write(f"uuid-{name}", data)
        (tmp_path / name).write_bytes(data)
        return folder.key_of(f"uuid-{name}"), str(tmp_path / name)

    live = mount(folder.syn_id, "--view", "entities", "--metadata-ttl", "0")
    assert os.listdir(live.path) == []
    cohort = client("folder", folder.syn_id, "cohort")
    file = client("store", cohort, "s1.bed", *upload("one", b"version one"))
    assert (live / "cohort" / "s1.bed").read_bytes() == b"version one"
    with open(live / "cohort" / "s1.bed", "rb") as opened:
        assert client("new_version", file, *upload("two", b"version two!")) == 2
        assert (live / "cohort" / "s1.bed").read_bytes() == b"version two!"
        assert opened.read() == b"version one"
    client("rename", file, "renamed.bed")
    assert os.listdir(live / "cohort") == ["renamed.bed"]
    client("move", file, folder.syn_id)
    assert sorted(os.listdir(live.path)) == ["cohort", "renamed.bed"]
    assert os.listdir(live / "cohort") == []
    assert (live / "renamed.bed").read_bytes() == b"version two!"
    client("delete", file)
    assert os.listdir(live.path) == ["cohort"]
