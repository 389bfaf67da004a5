"""`stsfs credentials`: its formats in the hands of the programs they are for, and who may share."""

import ast
import configparser
import contextlib
import json
import os
import stat
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import boto3
import pytest

from tests.mount.stage import BUCKET, PATIENCE_S, STATIC_KEYS, TOKEN
from tests.schemas import checked

AWS = Path(sys.executable).parent / "aws"
BOTO3_READS = """
import boto3, sys
s3 = boto3.client("s3")
for key in sys.argv[2:]:
    print(s3.get_object(Bucket=sys.argv[1], Key=key)["Body"].read().decode())
"""


@pytest.fixture
def ask(host, stage):
    """Run `stsfs credentials LOCATION ...` against the stage."""

    def ask(*arguments, env=None):
        places = ["--endpoint-url", stage.gate.url, "--synapse-endpoint", stage.synapse.url]
        return host.stsfs("credentials", *arguments, *places, env=env)

    return ask


@pytest.fixture
def printed(ask):
    """What it prints in a format, where it must succeed."""

    def printed(location, form, *arguments, env=None):
        done = ask(location, "--format", form, *arguments, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return printed


@pytest.fixture
def profile_of(host, stage, tmp_path):
    """A function: environment of the AWS tools with a profile that asks stsfs for a location."""

    def profile_of(location, *options):
        command = [sys.executable, "-m", "stsfs", "credentials", location, "--format", "process"]
        command += ["--synapse-endpoint", stage.synapse.url, *options]
        config = tmp_path / "aws-config"
        config.write_text(
            f"[profile lab]\nregion = us-east-1\ncredential_process = {' '.join(command)}\n"
        )
        kept = {k: v for k, v in host.environment.items() if not k.startswith("AWS_")}
        return {
            **kept,
            "AWS_CONFIG_FILE": str(config),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_PROFILE": "lab",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_S3": stage.gate.url,
            "AWS_PAGER": "",
        }

    return profile_of


def output(command, env):
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=2 * PATIENCE_S, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names_below(folder, **arguments):
    """What boto3 lists of the folder with these arguments of its client."""
    with contextlib.closing(boto3.client("s3", **arguments)) as s3:
        found = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{folder.base_key}/")["Contents"]
    return [each["Key"].removeprefix(f"{folder.base_key}/") for each in found]


def kept_files(host):
    return sorted((host.runtime / "credentials").glob("*.json"))


# One STS call, whoever asks.


def test_boto3_and_the_aws_cli_share_one_session_through_a_profile(stage, folder, profile_of):
    """ "`credential_process` in an AWS profile makes one STS call an hour"."""
    folder.write("a.txt", b"alpha")
    folder.write("b.txt", b"beta")
    environment = profile_of(folder.syn_id)
    keys = [f"{folder.base_key}/a.txt", f"{folder.base_key}/b.txt"]
    for _ in range(2):
        said = output([sys.executable, "-c", BOTO3_READS, BUCKET, *keys], environment)
        assert said.split() == ["alpha", "beta"]
    for _ in range(2):
        listed = output([AWS, "s3", "ls", f"{folder.uri}/"], environment)
        assert [line.split()[-1] for line in listed.splitlines()] == ["a.txt", "b.txt"]
        assert output([AWS, "s3", "cp", f"{folder.uri}/a.txt", "-"], environment) == "alpha"
    assert folder.sts_calls == 1
    # The gate has verified the signature and the session of each.
    assert stage.requests["GET"] + stage.requests["LIST"] == 2 * 2 + 2 + 2


def test_twenty_processes_at_once_make_one_call(host, stage, folder):
    command = [sys.executable, "-m", "stsfs", "credentials", folder.syn_id, "--format", "process"]
    command += ["--synapse-endpoint", stage.synapse.url]
    running = [
        subprocess.Popen(command, env=host.environment, stdout=subprocess.PIPE, text=True)
        for _ in range(20)
    ]
    said = {each.communicate(timeout=2 * PATIENCE_S)[0] for each in running}
    assert [each.returncode for each in running] == [0] * 20
    assert len(said) == 1
    assert json.loads(said.pop())["Version"] == 1
    assert folder.sts_calls == 1


def test_a_session_near_its_end_is_renewed(stage, folder, host, printed):
    first = json.loads(printed(folder.syn_id, "json"))
    [path] = kept_files(host)
    values = json.loads(path.read_text())
    for moment in (values, values["credentials"]):
        for name in moment.keys() & {"fetched_unix_s", "expires_at_unix_s"}:
            moment[name] -= 3600 - 17 * 60  # 17 minutes left: an SDK would ask again in two
    path.write_text(json.dumps(values))
    second = json.loads(printed(folder.syn_id, "json"))
    assert first["access_key_id"] != second["access_key_id"]
    assert folder.sts_calls == 2


def test_the_same_folder_by_another_address_is_the_same_set(folder, printed):
    number = folder.syn_id.removeprefix("syn")
    page = f"https://www.synapse.org/Synapse:syn{number}"
    assert printed(folder.syn_id, "process") == printed(page, "process")
    assert folder.sts_calls == 1


# Who may share.


def test_another_token_is_never_answered_with_what_is_kept(stage, folder, ask, printed):
    printed(folder.syn_id, "process")
    stage.state.add_user("bob", token="bobs-token-0815")
    done = ask(folder.syn_id, "--format", "process", env={"SYNAPSE_AUTH_TOKEN": "bobs-token-0815"})
    assert done.returncode == 18
    assert done.stdout == ""
    assert folder.sts_calls == 2


def test_a_revoked_token_put_in_its_place_is_noticed(stage, folder, ask, printed, tmp_path):
    """The token is looked up each time, and its digest is part of the name of what is kept."""
    token_file = tmp_path / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(TOKEN)
    by_file = {"env": {"SYNAPSE_AUTH_TOKEN": ""}}
    first = printed(folder.syn_id, "process", "--token-file", token_file, **by_file)
    token_file.write_text("a-token-nobody-knows")
    done = ask(folder.syn_id, "--format", "process", "--token-file", token_file, **by_file)
    assert (done.returncode, done.stdout) == (11, "")
    stage.state.add_token(stage.user, "rotated-token-0816")
    token_file.write_text("rotated-token-0816")
    assert printed(folder.syn_id, "process", "--token-file", token_file, **by_file) != first


def test_only_the_owner_can_read_what_is_kept(host, folder, printed):
    printed(folder.syn_id, "process")
    [path] = kept_files(host)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert TOKEN not in path.name
    assert TOKEN not in path.read_text()


def test_nothing_is_kept_unless_wanted(host, folder, printed):
    for _ in range(2):
        printed(folder.syn_id, "process", "--no-cache")
    assert folder.sts_calls == 2
    assert kept_files(host) == []


def test_what_is_kept_can_be_forgotten(host, stage, folder, ask, printed):
    other = stage.folder()
    for each in (folder, other):
        printed(each.syn_id, "process")
    assert ask(folder.syn_id, "--forget").stdout == "Forgotten: 1 set of credentials.\n"
    assert len(kept_files(host)) == 1
    printed(folder.syn_id, "process")
    assert folder.sts_calls == 2
    assert host.stsfs("credentials", "--forget").stdout == "Forgotten: 2 sets of credentials.\n"
    assert kept_files(host) == []


def test_without_a_place_to_keep_it_costs_calls_and_says_so(host, folder, ask):
    host.runtime.mkdir(mode=0o700)
    (host.runtime / "credentials").touch()
    for count in (1, 2):
        done = ask(folder.syn_id, "--format", "process")
        assert done.returncode == 0
        assert "not kept" in done.stderr
        assert folder.sts_calls == count


def test_a_whole_bucket_is_refused_from_what_is_kept_too(stage, host, ask):
    made = stage.state.add_sts_folder("whole", stage.project, stage.user, bucket=BUCKET)
    asked = f"GET /repo/v1/entity/{made.syn_id}/sts"
    for _ in range(2):
        done = ask(made.syn_id, "--format", "json")
        assert (done.returncode, done.stdout) == (7, "")
        assert "--whole-bucket" in done.stderr
    done = ask(made.syn_id, "--format", "json", "--whole-bucket")
    assert json.loads(done.stdout)["prefix"] == ""
    assert stage.synapse.counts[asked] == 1


# Formats, each read by what it is for.


def test_json_has_everything(stage, folder, printed):
    folder.write("x", b"x")
    said = checked("credentials", printed(folder.syn_id, "json", "--region", "us-east-1"))
    session = stage.vendor.session(said["access_key_id"])
    assert said == {
        "location": folder.syn_id,
        "bucket": BUCKET,
        "prefix": f"{folder.base_key}/",
        "region": "us-east-1",
        "endpoint_url": stage.gate.url,
        "access_key_id": session.access_key_id,
        "secret_access_key": session.secret_access_key,
        "session_token": session.session_token,
        "expiration": said["expiration"],
    }
    assert (
        0 <= session.expires_at_unix_s - datetime.fromisoformat(said["expiration"]).timestamp() < 1
    )


def test_env_is_for_the_shell(folder, printed, host):
    folder.write("x.txt", b"content")
    said = printed(folder.syn_id, "env", "--region", "us-east-1")
    script = f'eval "$CREDENTIALS"; exec {AWS} s3 cp {folder.uri}/x.txt -'
    kept = {k: v for k, v in host.environment.items() if not k.startswith("AWS_")}
    assert output(["sh", "-euc", script], kept | {"CREDENTIALS": said}) == "content"


def test_ini_is_a_section_of_a_credentials_file(stage, folder, printed, host, tmp_path):
    folder.write("x.txt", b"content")
    path = tmp_path / "credentials"
    path.write_text(printed(folder.syn_id, "ini", "--section", "lab data"))
    kept = {k: v for k, v in host.environment.items() if not k.startswith("AWS_")}
    environment = kept | {
        "AWS_SHARED_CREDENTIALS_FILE": str(path),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_PROFILE": "lab data",
        "AWS_ENDPOINT_URL_S3": stage.gate.url,
    }
    assert output([AWS, "s3", "cp", f"{folder.uri}/x.txt", "-"], environment) == "content"
    parsed = configparser.RawConfigParser()
    parsed.read(path)
    assert parsed["lab data"]["expiry_time"].endswith("Z")  # htslib reads the file again by it


def test_boto_is_arguments_for_boto3(folder, printed):
    folder.write("x.txt", b"content")
    said = printed(folder.syn_id, "boto", "--region", "us-east-1")
    assert ast.literal_eval(said) == json.loads(said)
    assert names_below(folder, **json.loads(said)) == ["x.txt"]


def test_s3_gives_what_the_aws_chain_gives_and_keeps_nothing(host, folder, ask):
    said = checked("credentials", ask(folder.uri, "--format", "json").stdout)
    assert said["access_key_id"] == STATIC_KEYS.access_key_id
    assert (said["session_token"], said["expiration"]) == (None, None)
    assert said["prefix"] == f"{folder.base_key}/"
    assert "unset AWS_SESSION_TOKEN" in ask(folder.uri, "--format", "env").stdout
    assert "Expiration" not in json.loads(ask(folder.uri, "--format", "process").stdout)
    assert kept_files(host) == []


# Refusals.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["syn1"], "--format"),
        ([], "location is missing"),
        (["syn1", "--format", "ini", "--section", "a]\n[b"], "section"),
        (["1", "--format", "json"], "syn1"),
    ],
)
def test_what_cannot_be_meant_prints_no_secret(host, arguments, says):
    done = host.stsfs("credentials", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_failure_prints_nothing_but_its_sentence(folder, ask):
    done = ask(folder.syn_id, "--format", "process", env={"SYNAPSE_AUTH_TOKEN": ""})
    assert (done.returncode, done.stdout) == (10, "")
    assert done.stderr.startswith("stsfs: There is no Synapse token.\n")


def test_a_profile_that_asks_stsfs_in_a_circle_is_told_so(host, profile_of):
    """Or each process would start the next, for ever."""
    done = subprocess.run(
        [sys.executable, "-m", "stsfs", "credentials", f"s3://{BUCKET}", "--format", "json"],
        env=profile_of(f"s3://{BUCKET}"),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (30, "")
    assert "needs that profile to answer" in done.stderr


def test_a_profile_may_ask_stsfs_for_another_location(folder, profile_of):
    said = output(
        [sys.executable, "-m", "stsfs", "credentials", folder.uri, "--format", "json"],
        profile_of(folder.syn_id),
    )
    assert json.loads(said)["access_key_id"].startswith("ASIA")
    assert folder.sts_calls == 1
