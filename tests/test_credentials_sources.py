import json
import os
import shlex
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trio
import trio.testing
from moto import mock_aws

from stsfs.credentials.aws_chain import AwsChainSource, endpoint_of_chain, region_of_chain
from stsfs.credentials.synapse_sts import SynapseStsSource
from stsfs.errors import AccessDenied, AwsCredentialsMissing, TokenRejected
from stsfs.synapse.client import StsCredentials, SynapseClient

HOUR_S = 3600.0


def grant(**changes):
    values = {
        "bucket": "study-data",
        "base_key": "cohort",
        "access_key_id": "ASIA1",
        "secret_access_key": "s3cret",
        "session_token": "t0ken",
        "expires_at_unix_s": 1_900_000_000.0,
    }
    return StsCredentials(**{**values, **changes})


class ScriptedService:
    """Gives the answers of a list, one per call; exceptions are raised."""

    def __init__(self, *answers):
        self.answers, self.calls = list(answers), []

    async def sts_credentials(self, entity_id, permission, /):
        await trio.lowlevel.checkpoint()
        self.calls.append((entity_id, permission))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def synapse_source(*answers, permission="read_only", expected=None):
    service = ScriptedService(*answers)
    return service, SynapseStsSource(service, lambda: "file tok", "syn1", permission, expected)


# Synapse.


async def test_a_grant_of_synapse_becomes_credentials_with_its_expiry():
    service, source = synapse_source(grant(), permission="read_write")
    credentials = await source.fetch()
    assert service.calls == [("syn1", "read_write")]
    assert credentials.access_key_id == "ASIA1"
    assert credentials.secret_access_key == "s3cret"
    assert credentials.session_token == "t0ken"
    assert credentials.expires_at_unix_s == 1_900_000_000.0
    assert source.bucket_and_base_key == ("study-data", "cohort")
    assert source.description == "Synapse STS for syn1, read-write, token from file tok"


@pytest.mark.parametrize("moved", [{"bucket": "elsewhere"}, {"base_key": ""}])
async def test_a_location_that_moves_while_mounted_is_refused_not_followed(moved):
    _, source = synapse_source(grant(), grant(**moved), grant())
    await source.fetch()
    with pytest.raises(AccessDenied, match="s3://study-data/cohort to s3://"):
        await source.fetch()
    await source.fetch()  # moved back


async def test_the_location_known_beforehand_counts():
    _, source = synapse_source(grant(), expected=("study-data", "other"))
    with pytest.raises(AccessDenied):
        await source.fetch()


async def test_refusals_of_synapse_pass_through():
    _, source = synapse_source(TokenRejected("no"))
    with pytest.raises(TokenRejected):
        await source.fetch()


def test_the_client_is_a_service_for_this_source():
    async def token():
        raise AssertionError

    SynapseStsSource(SynapseClient(token=token), lambda: "", "syn1", "read_only")


# The AWS chain.


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """An empty AWS world; returns how to write its configuration."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()

    def write(config="", credentials=""):
        (tmp_path / ".aws" / "config").write_text(config)
        (tmp_path / ".aws" / "credentials").write_text(credentials)

    return write


def process_line(path, *, lives_s=None, **changes):
    """A credential_process line that prints the JSON in a file of that name."""
    answer = {"Version": 1, "AccessKeyId": "ASIAP", "SecretAccessKey": "s3cret"} | changes
    if lives_s is not None:
        ends = datetime.now(UTC) + timedelta(seconds=lives_s)
        answer |= {"SessionToken": "t0ken", "Expiration": ends.isoformat()}
    path.write_text(json.dumps(answer))
    return f"credential_process = cat {shlex.quote(str(path))}\n"


async def failure(source):
    with pytest.raises(AwsCredentialsMissing) as raised:
        await source.fetch()
    assert "s3cret" not in str(raised.value)
    return raised.value


async def test_static_keys_of_the_environment_do_not_end(aws, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    source = AwsChainSource()
    credentials = await source.fetch()
    assert (credentials.access_key_id, credentials.session_token) == ("AKIA1", None)
    assert credentials.expires_at_unix_s is None
    assert source.description == "AWS chain (env)"


async def test_the_expiration_in_the_environment_counts(aws, monkeypatch):
    ends = datetime.now(UTC) + timedelta(hours=2)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIA1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t0ken")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", ends.isoformat())
    assert (await AwsChainSource().fetch()).expires_at_unix_s == ends.timestamp()
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2020-01-01T00:00:00Z")
    assert "already expired" in str(await failure(AwsChainSource()))


async def test_keys_changed_in_a_file_are_seen_at_the_next_fetch(aws):
    source = AwsChainSource("work")
    for key_id in ("AKIA1", "AKIA2"):
        aws(credentials=f"[work]\naws_access_key_id={key_id}\naws_secret_access_key=s3cret\n")
        assert (await source.fetch()).access_key_id == key_id
    assert source.description == "AWS chain, profile work (shared-credentials-file)"


async def test_a_profile_goes_before_keys_of_the_environment(aws, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    aws(credentials="[work]\naws_access_key_id=AKIA2\naws_secret_access_key=s3cret\n")
    assert (await AwsChainSource("work").fetch()).access_key_id == "AKIA2"


@pytest.mark.parametrize("lives_s", [20, HOUR_S])
async def test_a_process_says_when_its_credentials_end(aws, tmp_path, lives_s):
    aws(config="[default]\n" + process_line(tmp_path / "out", lives_s=lives_s))
    source = AwsChainSource()
    credentials = await source.fetch()
    expiration = json.loads((tmp_path / "out").read_text())["Expiration"]
    assert credentials.expires_at_unix_s == datetime.fromisoformat(expiration).timestamp()
    assert credentials.session_token == "t0ken"

    process_line(tmp_path / "out", lives_s=HOUR_S, AccessKeyId="ASIANEW")
    assert (await source.fetch()).access_key_id == "ASIANEW"


async def test_a_process_may_give_keys_that_do_not_end(aws, tmp_path):
    aws(config="[default]\n" + process_line(tmp_path / "out"))
    assert (await AwsChainSource().fetch()).expires_at_unix_s is None


@pytest.mark.parametrize(
    "process",
    ["false", "no-such-command", "echo s3cret", "echo '{\"Version\": 1}'", "echo '[\"s3cret\"]'"],
)
async def test_a_process_that_fails_is_missing_credentials(aws, process):
    aws(config=f"[default]\ncredential_process = {process}\n")
    await failure(AwsChainSource())


async def test_a_process_that_gives_old_credentials_is_found_out(aws, tmp_path):
    aws(config="[default]\n" + process_line(tmp_path / "out", lives_s=-5))
    assert "already expired" in str(await failure(AwsChainSource()))


async def test_a_hanging_process_delays_nobody_and_is_not_started_twice(aws, tmp_path):
    for run in ("1", "2"):
        os.mkfifo(tmp_path / run)
    (tmp_path / "process").write_text(
        f"cd {shlex.quote(str(tmp_path))} && echo >> runs && cat $(wc -l < runs)"
    )
    aws(config=f"[default]\ncredential_process = sh {shlex.quote(str(tmp_path / 'process'))}\n")
    source = AwsChainSource()
    fetched = []

    async def fetch(task_status):
        with trio.CancelScope() as scope:
            task_status.started(scope)
            fetched.append(await source.fetch())

    def answer(key_id):  # opening waits until the process reads
        with (tmp_path / "2").open("w") as fifo:
            fifo.write(
                json.dumps({"Version": 1, "AccessKeyId": key_id, "SecretAccessKey": "s3cret"})
            )

    async with trio.open_nursery() as nursery:
        scope = await nursery.start(fetch)
        hanging = await trio.to_thread.run_sync((tmp_path / "1").open, "w")
        scope.cancel()
        await nursery.start(fetch)
        await trio.testing.wait_all_tasks_blocked()
        assert (tmp_path / "runs").read_text() == "\n"
        hanging.close()
        await trio.to_thread.run_sync(answer, "AKIA2")
    assert [c.access_key_id for c in fetched] == ["AKIA2"]


async def test_nothing_anywhere_is_said_with_a_remedy(aws):
    assert "aws sso login" in (await failure(AwsChainSource())).remedy


async def test_a_profile_that_does_not_exist_is_named(aws):
    assert "absent" in str(await failure(AwsChainSource("absent")))
    with pytest.raises(AwsCredentialsMissing, match="absent"):
        region_of_chain("absent")


async def test_a_broken_file_is_named_without_its_lines(aws):
    aws(credentials="[default\naws_secret_access_key s3cret\n")
    error = await failure(AwsChainSource())
    assert ".aws/credentials" in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__


async def test_a_role_of_the_container_gives_a_session(aws, monkeypatch):
    ends = datetime.now(UTC) + timedelta(hours=6)

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(
                {
                    "AccessKeyId": "ASIAC",
                    "SecretAccessKey": "s3cret",
                    "Token": "t0ken",
                    "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Agent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/role"
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
            credentials = await AwsChainSource().fetch()
        finally:
            server.shutdown()
            thread.join()
    assert credentials.access_key_id == "ASIAC"
    assert credentials.expires_at_unix_s == int(ends.timestamp())


async def test_a_role_of_a_profile_is_assumed_anew_at_each_fetch(aws):
    aws(
        config=(
            "[profile reader]\nrole_arn = arn:aws:iam::123456789012:role/reader\n"
            "source_profile = base\nregion = us-east-1\n"
        ),
        credentials="[base]\naws_access_key_id=AKIA1\naws_secret_access_key=s3cret\n",
    )
    source = AwsChainSource("reader")
    with mock_aws():
        first, second = await source.fetch(), await source.fetch()
    assert first.access_key_id != second.access_key_id
    assert 0.9 * HOUR_S < first.expires_at_unix_s - time.time() <= HOUR_S
    assert source.description == "AWS chain, profile reader (assume-role)"


# Region and endpoint.


def test_the_region_comes_from_the_environment_and_then_from_the_profile(aws, monkeypatch):
    assert region_of_chain() is None
    aws(config="[default]\nregion = eu-1\n[profile work]\nregion = eu-2\n")
    assert region_of_chain() == "eu-1"
    assert region_of_chain("work") == "eu-2"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-3")
    assert region_of_chain("work") == "eu-3"
    monkeypatch.setenv("AWS_REGION", "eu-4")
    assert region_of_chain() == "eu-4"


def test_the_endpoint_is_found_in_the_order_of_the_aws_tools(aws, monkeypatch):
    assert endpoint_of_chain() is None
    aws(config="[default]\nendpoint_url = http://profile\n")
    assert endpoint_of_chain() == "http://profile"
    aws(
        config=(
            "[default]\nendpoint_url = http://profile\nservices = local\n"
            "[services local]\ns3 =\n  endpoint_url = http://service\n"
        )
    )
    assert endpoint_of_chain() == "http://service"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://environment")
    assert endpoint_of_chain() == "http://environment"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://environment-s3")
    assert endpoint_of_chain() == "http://environment-s3"
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert endpoint_of_chain() is None


def test_an_ignored_endpoint_of_a_profile_is_not_used(aws):
    aws(config="[default]\nendpoint_url = http://x\nignore_configured_endpoint_urls = true\n")
    assert endpoint_of_chain() is None


def test_importing_the_chain_does_not_import_the_sdk():
    program = (
        "import sys, stsfs.credentials.aws_chain, stsfs.location.resolve;"
        "sys.exit(any(m.split('.')[0] in ('boto3', 'botocore') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
