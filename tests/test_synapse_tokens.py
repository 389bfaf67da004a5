"""The token is found where the Synapse clients find it, and found again when it rotates."""

import logging
import traceback

import boto3
import botocore.exceptions
import moto
import pytest

from stsfs.errors import BadArgument, NoSynapseToken, SynapseUnavailable
from stsfs.synapse import tokens
from stsfs.synapse.endpoints import PRODUCTION, Endpoints
from stsfs.synapse.tokens import TokenChain


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home directory, and no variable that names a token."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(path, text):
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def config(home, text):
    return write(home / ".synapseConfig", text)


async def test_the_order_is_that_of_the_synapse_clients(home):
    environ = {
        "SYNAPSE_AUTH_TOKEN": "env",
        "SYNAPSE_TOKEN_AWS_SSM_PARAMETER_NAME": "/p",
        "CREDENTIALS_DIRECTORY": str(home),
    }
    write(home / "synapse-token", "systemd\n")
    file = config(home, "[default]\nauthtoken = default\n[authentication]\nauthtoken=legacy\n")
    argument = write(home / "argument", "argument\n")

    async def first(**arguments):
        chain = TokenChain(environ=environ, ssm_parameter=lambda name: f"ssm{name}", **arguments)
        return await chain.token(), chain.place

    assert await first(token_file=argument) == ("argument", f"file {argument}")
    assert await first() == ("default", str(file))
    file.write_text("[default]\nusername=me\n[authentication]\nauthtoken=legacy\n")
    assert await first() == ("legacy", str(file))
    file.unlink()
    assert await first() == ("env", "variable SYNAPSE_AUTH_TOKEN")
    del environ["SYNAPSE_AUTH_TOKEN"]
    assert await first() == ("ssm/p", "SSM parameter /p")
    del environ["SYNAPSE_TOKEN_AWS_SSM_PARAMETER_NAME"]
    assert await first() == ("systemd", "systemd credential synapse-token")
    del environ["CREDENTIALS_DIRECTORY"]
    with pytest.raises(NoSynapseToken) as raised:
        await first()
    for place in ("--token-file", ".synapseConfig", "SYNAPSE_AUTH_TOKEN", "SSM", "systemd"):
        assert place in raised.value.remedy


@pytest.mark.parametrize("by_variable", [False, True])
async def test_a_named_profile_is_the_only_place(home, by_variable):
    config(home, "[default]\nauthtoken=no\n[profile lab]\nauthtoken=lab%token\n")
    environ = {"SYNAPSE_AUTH_TOKEN": "no"} | ({"SYNAPSE_PROFILE": "lab"} if by_variable else {})
    chain = TokenChain(profile=None if by_variable else "lab", environ=environ)
    assert await chain.token() == "lab%token"
    assert "profile lab" in chain.place


async def test_the_profile_default_is_the_section_default(home):
    config(home, "[default]\nauthtoken=t\n")
    assert await TokenChain(profile="default", environ={}).token() == "t"


@pytest.mark.parametrize("text", ["[default]\nauthtoken=t\n", None])
async def test_a_profile_that_does_not_exist_is_a_bad_argument(home, text):
    if text is not None:
        config(home, text)
    with pytest.raises(BadArgument, match="profile lab"):
        await TokenChain(profile="lab", environ={"SYNAPSE_AUTH_TOKEN": "t"}).token()


async def test_a_profile_without_a_token_does_not_fall_through(home):
    config(home, "[profile lab]\nusername=me\n")
    with pytest.raises(NoSynapseToken, match="profile lab"):
        await TokenChain(profile="lab", environ={"SYNAPSE_AUTH_TOKEN": "t"}).token()


async def test_a_rotated_token_is_seen_at_the_next_call(tmp_path):
    path = write(tmp_path / "t", "one")
    chain = TokenChain(token_file=path, environ={})
    assert await chain.token() == "one"
    path.write_text("two")
    assert await chain.token() == "two"


async def test_a_place_that_lost_its_token_does_not_hand_over_to_another_user(home):
    file = config(home, "[default]\nauthtoken=mine\n")
    chain = TokenChain(environ={"SYNAPSE_AUTH_TOKEN": "other"})
    assert await chain.token() == "mine"
    file.write_text("")
    with pytest.raises(NoSynapseToken, match="gone"):
        await chain.token()
    file.write_text("[default]\nauthtoken=mine2\n")
    assert await chain.token() == "mine2"


@pytest.mark.parametrize("content", [None, "", " \n"])
async def test_a_token_file_without_a_token_is_named(tmp_path, content):
    path = tmp_path / "t"
    if content is not None:
        write(path, content)
    with pytest.raises(NoSynapseToken, match=str(path)):
        await TokenChain(token_file=path, environ={"SYNAPSE_AUTH_TOKEN": "x"}).token()


async def test_a_token_file_that_cannot_be_read_is_a_bad_argument(tmp_path):
    with pytest.raises(BadArgument, match="Is a directory"):
        await TokenChain(token_file=tmp_path, environ={}).token()


async def test_the_text_before_the_first_notebook_visit_is_not_a_token(home):
    environ = {"SYNAPSE_TOKEN_AWS_SSM_PARAMETER_NAME": "/p"}
    chain = TokenChain(environ=environ, ssm_parameter=lambda _: "to be replaced by EC2")
    with pytest.raises(NoSynapseToken, match="not a Synapse token") as raised:
        await chain.token()
    assert "notebook" in raised.value.remedy


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 1), (0o604, 1)])
async def test_a_file_that_others_can_read_is_warned_about_once(tmp_path, caplog, mode, warnings):
    path = write(tmp_path / "t", "secret")
    path.chmod(mode)
    chain = TokenChain(token_file=path, environ={})
    with caplog.at_level(logging.WARNING):
        await chain.token()
        assert await chain.token() == "secret"
    assert len(caplog.records) == warnings
    assert "secret" not in caplog.text


async def test_a_broken_configuration_does_not_leak_its_lines(home):
    config(home, "authtoken = hunter2\n")
    with pytest.raises(BadArgument) as raised:
        await TokenChain(environ={}).token()
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_nothing_shows_the_token(home):
    chain = TokenChain(environ={"SYNAPSE_AUTH_TOKEN": "hunter2"})
    assert "hunter2" not in repr(chain)
    assert chain.place == "not found yet"


@pytest.fixture
def aws(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with moto.mock_aws():
        yield


async def test_an_ssm_parameter_is_decrypted(aws, home):
    ssm = boto3.client("ssm")
    ssm.put_parameter(Name="/cred/token", Value="from-ssm", Type="SecureString")
    environ = {"SYNAPSE_TOKEN_AWS_SSM_PARAMETER_NAME": "/cred/token"}
    chain = TokenChain(environ=environ)
    assert await chain.token() == "from-ssm"
    ssm.put_parameter(Name="/cred/token", Value="again", Type="SecureString", Overwrite=True)
    assert await chain.token() == "again"


def test_an_ssm_parameter_that_does_not_exist_says_so(aws):
    with pytest.raises(NoSynapseToken, match="ParameterNotFound"):
        tokens.ssm_parameter("/absent")


def test_without_a_region_ssm_says_what_is_missing(monkeypatch):
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(NoSynapseToken) as raised:
        tokens.ssm_parameter("/p")
    assert "AWS_DEFAULT_REGION" in raised.value.remedy


def test_ssm_out_of_reach_may_pass(monkeypatch):
    class Unreachable:
        def get_parameter(self, **_):
            raise botocore.exceptions.EndpointConnectionError(endpoint_url="https://ssm")

    monkeypatch.setattr(boto3, "client", lambda _: Unreachable())
    with pytest.raises(SynapseUnavailable, match="/p"):
        tokens.ssm_parameter("/p")


def test_endpoints_of_the_configuration_replace_production_one_by_one(home):
    config(home, "[endpoints]\nrepoEndpoint = http://localhost:8/repo/v1/\nauthEndpoint =\n")
    found = Endpoints.from_config()
    assert found.repo_url == "http://localhost:8/repo/v1"
    assert (found.auth_url, found.file_url) == (PRODUCTION.auth_url, PRODUCTION.file_url)


def test_without_a_configuration_the_endpoints_are_production(home):
    assert Endpoints.from_config() == PRODUCTION


def test_a_single_endpoint_serves_all_three():
    found = Endpoints.single("http://127.0.0.1:9/")
    assert found.repo_url == "http://127.0.0.1:9/repo/v1"
    assert found.file_url == "http://127.0.0.1:9/file/v1"


@pytest.mark.parametrize(
    "url", ["", "synapse.org", "ftp://x", "http://", "http://[x", "http://h:99999"]
)
def test_what_is_not_an_address_is_a_bad_argument(url):
    with pytest.raises(BadArgument):
        Endpoints.single(url)


def test_a_token_in_clear_text_is_warned_about(caplog):
    Endpoints.single("http://synapse.example")
    assert "without encryption" in caplog.text
