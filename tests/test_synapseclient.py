"""The real Python client works against the fake Synapse: the fake's proof of being faithful.

It runs in an environment of its own, because its pins do not go together with ours.
"""

import hashlib
import json
import os
import subprocess
from contextlib import closing
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from stsfs.demo.fake_synapse.server import FakeSynapse
from stsfs.demo.fake_synapse.storage import Boto3Storage

ROOT = Path(__file__).parents[1]
PYTHON = Path(
    os.environ.get("STSFS_SYNAPSECLIENT_PYTHON", ROOT / ".venv-synapseclient" / "bin" / "python")
)
TIMEOUT_S = 120
"""The client retries for minutes where an answer looks transient; a test must not."""

BUCKET, CONTENT = "lab-data", b"chr20\t1\t2\n" * 1000

SCRIPT = r"""
import hashlib, json, os, sys
import synapseclient, synapseutils
from synapseclient import File, Folder, Project

syn = synapseclient.Synapse(
    configPath=os.environ["CONFIG"], silent=True, skip_checks=True, cache_root_dir=sys.argv[1]
)
syn.login(silent=True)
content = open(sys.argv[2], "rb").read()
told = {"user": syn.getUserProfile()["userName"]}

project = syn.store(Project(name="Project"))
folder, location, _ = syn.create_s3_storage_location(
    parent=project, folder_name="Data", bucket_name=os.environ["BUCKET"], base_key="study",
    sts_enabled=True,
)
told["folder"], told["location"] = folder["id"], location["storageLocationId"]
told["own location"] = syn.getMyStorageLocationSetting(told["location"])["bucket"]
sub = syn.store(Folder(name="cohort", parent=folder))
told["stored again"] = syn.store(Folder(name="cohort", parent=folder))["id"] == sub["id"]
handle = syn.create_external_s3_file_handle(
    os.environ["BUCKET"], "study/s1.bed", sys.argv[2], parent=sub
)
made = syn.store(File(parent=sub, dataFileHandleId=handle["id"], name="s1.bed"))

told["walk"] = [
    [path[0], [d[0] for d in dirs], [f[0] for f in files]]
    for path, dirs, files in synapseutils.walk(syn, folder["id"])
]
told["children"] = [child["name"] for child in syn.getChildren(folder)]
told["found"] = syn.findEntityId("s1.bed", sub) == made["id"]
got = syn.get(made["id"])
told["name"] = os.path.basename(got.path)
told["md5"] = hashlib.md5(open(got.path, "rb").read()).hexdigest()
told["read_only"] = syn.get_sts_storage_token(folder["id"], "read_only")
told["read_write"] = syn.get_sts_storage_token(folder["id"], "read_write", output_format="boto")
told["permissions"] = syn.get_permissions(folder["id"]).can_download

moved = syn.move(made["id"], folder)
told["moved"] = moved["parentId"] == folder["id"]
versions = syn.restGET(f"/entity/{made['id']}/version")["results"]
told["versions"] = [version["versionNumber"] for version in versions]
syn.delete(made["id"])
told["after delete"] = [child["name"] for child in syn.getChildren(folder)]
try:
    syn.get_sts_storage_token(project["id"], "read_only")
except synapseclient.core.exceptions.SynapseHTTPError as exc:
    told["refusal"] = str(exc)
print(json.dumps(told, default=str))
"""


@pytest.fixture(scope="module")
def s3_url():
    """Where an S3 server is, with one object and the owner's file below `study/`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    try:
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="study/owner.txt", Body=b"ada\n")
        client.put_object(Bucket=BUCKET, Key="study/s1.bed", Body=CONTENT)
        yield url
    finally:
        client.close()
        server.stop()


def run_client(fake, tmp_path):
    """Run the script in the client's own environment; what it found out."""
    if not PYTHON.exists():
        pytest.fail(f"no synapseclient: {PYTHON} does not exist; run `make setup-test`")
    config = tmp_path / "synapseConfig"
    config.touch(mode=0o600)
    config.write_text(
        "[authentication]\nauthtoken = pat-of-ada\n[endpoints]\n"
        f"repoEndpoint = {fake.url}/repo/v1\nauthEndpoint = {fake.url}/auth/v1\n"
        f"fileHandleEndpoint = {fake.url}/file/v1\nportalEndpoint = {fake.url}/\n"
    )
    content = tmp_path / "s1.bed"
    content.write_bytes(CONTENT)
    environ = {key: value for key, value in os.environ.items() if "SYNAPSE" not in key}
    done = subprocess.run(
        [str(PYTHON), "-c", SCRIPT, str(tmp_path / "cache"), str(content)],
        env=environ | {"CONFIG": str(config), "BUCKET": BUCKET, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_real_client_logs_in_walks_downloads_and_gets_credentials(s3_url, tmp_path):
    with closing(Boto3Storage(s3_url)) as storage, FakeSynapse(storage=storage) as fake:
        fake.state.add_user("ada", token="pat-of-ada")
        told = run_client(fake, tmp_path)
        sessions = fake.vendor.sessions
    folder = told["folder"]
    assert told["user"] == "ada"
    assert told["own location"] == BUCKET
    assert told["stored again"]
    assert told["walk"] == [["Data", ["cohort"], []], ["Data/cohort", [], ["s1.bed"]]]
    assert told["children"] == ["cohort"]
    assert told["found"]
    assert told["name"] == "s1.bed"
    assert told["md5"] == hashlib.md5(CONTENT).hexdigest()
    assert told["permissions"]
    assert told["moved"]
    assert told["versions"] == [1]
    assert told["after delete"] == ["cohort"]
    assert "must have an STS-enabled storage location" in told["refusal"]
    read_only = told["read_only"]
    assert (read_only["bucket"], read_only["baseKey"]) == (BUCKET, "study")
    session = sessions[read_only["accessKeyId"]]
    assert (session.permission, session.session_token) == (
        "read_only",
        read_only["sessionToken"],
    )
    written = sessions[told["read_write"]["aws_access_key_id"]]
    assert (written.permission, written.session_name.endswith(folder)) == ("read_write", True)
