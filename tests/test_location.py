import functools
import os

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stsfs.errors import (
    AwsCredentialsMissing,
    BadArgument,
    EntityNotFound,
    ManagedStorageReadOnly,
    NoSynapseToken,
    TokenRejected,
    WholeBucketRefused,
)
from stsfs.location.parse import S3Target, SynapseTarget, parse_target
from stsfs.location.resolve import ResolveOptions, SynapseAccess, resolve
from stsfs.synapse.client import SynapseClient

GRANT = {
    "bucket": "study-data",
    "baseKey": "cohort/a",
    "accessKeyId": "ASIA1",
    "secretAccessKey": "s3cret",
    "sessionToken": "t0ken",
    "expiration": "2030-01-01T00:00:00.000Z",
}


class FakeSynapse:
    """Answers STS requests from a list of (status, body); the last one goes on."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return httpx.Response(status, json=body)

    async def resolve(self, options, synapse_id="syn123"):
        client = functools.partial(SynapseClient, transport=httpx.MockTransport(self))
        access = SynapseAccess(options, make_client=client)
        return await resolve(SynapseTarget(synapse_id), options=options, synapse=access)


@pytest.fixture(autouse=True)
def clean_home(monkeypatch, tmp_path):
    """No configuration but what a test makes."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "SYNAPSE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("tok-1")
    return path


# What users type.


@pytest.mark.parametrize(
    "typed",
    [
        "syn123",
        "SYN123",
        " syn123\n",
        "https://www.synapse.org/Synapse:syn123",
        "https://www.synapse.org/#!Synapse:syn123",
        "http://www.synapse.org/Synapse:Syn123",
        "www.synapse.org/Synapse:syn123/",
        "https://www.synapse.org/Synapse:syn123/files/",
        "https://www.synapse.org/#!Synapse:syn123/wiki/456",
        "https://www.synapse.org/Synapse:syn123?tab=files#x",
        "https://staging.synapse.org/Synapse:syn123",
    ],
)
def test_a_synapse_entity_is_known_by_id_or_page(typed):
    assert parse_target(typed) == SynapseTarget("syn123")


@pytest.mark.parametrize(
    ("typed", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://bucket/prefix", "bucket", "prefix"),
        ("s3://bucket/prefix/", "bucket", "prefix"),
        ("S3://my.dotted-bucket.1/a/b c/", "my.dotted-bucket.1", "a/b c"),
        ("s3://bucket/100%/a?b#c/ü+", "bucket", "100%/a?b#c/ü+"),
        ("s3://bucket/.hidden/...", "bucket", ".hidden/..."),
        ("s3://bucket/syn123", "bucket", "syn123"),
    ],
)
def test_an_s3_uri_names_a_bucket_and_a_prefix_as_it_stands(typed, bucket, prefix):
    assert parse_target(typed) == S3Target(bucket, prefix)


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("", "s3://bucket/prefix"),
        ("123", "syn123"),
        ("syn", "syn12345"),
        ("syn12x", "syn12345"),
        ("syn123.4", "Type syn123."),
        ("https://www.synapse.org/Synapse:syn123.4", "Type syn123."),
        ("https://www.synapse.org/Profile:1", "syn12345"),
        ("https://evil.example/Synapse:syn1", "syn12345"),
        ("https://synapse.org.example/Synapse:syn1", "syn12345"),
        ("syn\u0661\u0662", "syn12345"),
        ("bucket/prefix", "s3://bucket/prefix"),
        ("gs://bucket", "s3://bucket/prefix"),
        ("s3://", "empty"),
        ("s3:///prefix", "empty"),
        ("s3://ab", "3 to 63"),
        ("s3://" + "a" * 64, "3 to 63"),
        ("s3://My_Bucket/x", "lower-case"),
        ("s3://-bucket", "begin"),
        ("s3://buc..ket", "two dots"),
        ("s3://192.168.5.4/x", "IP address"),
        ("s3://bucket//x", "//"),
        ("s3://bucket/a//b", "//"),
        ("s3://bucket/a//", "//"),
        ("s3://bucket/../x", ".."),
        ("s3://bucket/a/./b", "component"),
        ("s3://bucket/a\0b", "NUL"),
        ("s3://bucket/\udcff", "UTF-8"),
        ("s3://bucket/" + "ü" * 512, "1024"),
    ],
)
def test_anything_else_is_refused_with_what_to_type(typed, hint):
    with pytest.raises(BadArgument) as raised:
        parse_target(typed)
    assert hint in str(raised.value)


@given(st.one_of(st.text(), st.text().map("s3://bucket/{}".format), st.text().map("syn{}".format)))
@example("s3://bucket/a ")
def test_whatever_is_typed_is_a_target_that_reads_back_or_a_bad_argument(typed):
    try:
        target = parse_target(typed)
    except BadArgument:
        return
    assert parse_target(str(target)) == target


# Synapse.


async def test_one_sts_call_gives_location_and_first_credentials(token_file):
    synapse = FakeSynapse((200, GRANT))
    resolved = await synapse.resolve(ResolveOptions(token_file=token_file))
    (request,) = synapse.requests
    assert request.url.path == "/repo/v1/entity/syn123/sts"
    assert request.url.params["permission"] == "read_only"
    assert request.headers["authorization"] == "Bearer tok-1"
    location = resolved.location
    assert (location.label, location.synapse_id) == ("syn123", "syn123")
    assert location.uri == "s3://study-data/cohort/a"
    assert (location.region, location.endpoint_url) == (None, None)
    assert location.reserved_names == {b"owner.txt"}
    assert resolved.first.access_key_id == "ASIA1"
    assert resolved.warnings == []


async def test_the_source_goes_on_with_the_token_of_the_moment(token_file):
    synapse = FakeSynapse((200, GRANT), (200, {**GRANT, "accessKeyId": "ASIA2"}))
    resolved = await synapse.resolve(ResolveOptions(token_file=token_file))
    token_file.write_text("tok-2")
    assert (await resolved.source.fetch()).access_key_id == "ASIA2"
    assert synapse.requests[-1].headers["authorization"] == "Bearer tok-2"
    assert str(token_file) in resolved.source.description
    assert "tok-" not in resolved.source.description


async def test_rw_asks_for_write_permission(token_file):
    synapse = FakeSynapse((200, GRANT))
    await synapse.resolve(ResolveOptions(token_file=token_file, rw=True))
    assert synapse.requests[0].url.params["permission"] == "read_write"


async def test_another_synapse_and_another_store_can_be_named(token_file):
    synapse = FakeSynapse((200, GRANT))
    resolved = await synapse.resolve(
        ResolveOptions(
            token_file=token_file,
            synapse_endpoint="http://127.0.0.1:9",
            endpoint_url="http://127.0.0.1:8",
            region="eu-west-1",
        )
    )
    assert synapse.requests[0].url.netloc == b"127.0.0.1:9"
    assert resolved.location.endpoint_url == "http://127.0.0.1:8"
    assert resolved.location.region == "eu-west-1"


async def test_settings_of_the_aws_tools_do_not_redirect_a_synapse_location(
    token_file, monkeypatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    resolved = await FakeSynapse((200, GRANT)).resolve(ResolveOptions(token_file=token_file))
    assert (resolved.location.region, resolved.location.endpoint_url) == (None, None)


async def test_a_location_without_base_key_needs_the_word_whole_bucket(token_file):
    grant = {key: value for key, value in GRANT.items() if key != "baseKey"}
    with pytest.raises(WholeBucketRefused, match="--whole-bucket"):
        await FakeSynapse((200, grant)).resolve(ResolveOptions(token_file=token_file))
    resolved = await FakeSynapse((200, grant)).resolve(
        ResolveOptions(token_file=token_file, whole_bucket=True)
    )
    assert resolved.location.prefix == ""
    assert "whole bucket" in resolved.warnings[0]


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (401, "invalid", TokenRejected),
        (404, "Resource: 'syn123' does not exist", EntityNotFound),
        (400, "STS write access is not allowed in Synapse storage", ManagedStorageReadOnly),
    ],
)
async def test_what_synapse_refuses_is_raised_as_it_is(token_file, status, reason, error):
    with pytest.raises(error):
        await FakeSynapse((status, {"reason": reason})).resolve(
            ResolveOptions(token_file=token_file)
        )


async def test_without_a_token_synapse_is_not_asked():
    synapse = FakeSynapse((200, GRANT))
    with pytest.raises(NoSynapseToken):
        await synapse.resolve(ResolveOptions())
    assert synapse.requests == []


# S3.


async def test_an_s3_target_takes_credentials_region_and_endpoint_of_the_aws_tools(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:8")
    resolved = await resolve(S3Target("bucket", ""), options=ResolveOptions())
    assert resolved.first.access_key_id == "AKIA1"
    location = resolved.location
    assert (location.label, location.bucket, location.base_key) == ("s3://bucket", "bucket", "")
    assert (location.region, location.endpoint_url) == ("eu-west-1", "http://127.0.0.1:8")
    assert (location.synapse_id, location.reserved_names) == (None, frozenset())
    assert resolved.warnings == []


async def test_options_go_before_the_settings_of_the_aws_tools(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIA1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8")
    options = ResolveOptions(region="us-east-2", endpoint_url="http://127.0.0.1:9")
    resolved = await resolve(S3Target("bucket", "a/b"), options=options)
    location = resolved.location
    assert (location.region, location.endpoint_url) == ("us-east-2", "http://127.0.0.1:9")
    assert location.prefix == "a/b/"


async def test_temporary_credentials_without_end_are_warned_about(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIA1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t0ken")
    resolved = await resolve(S3Target("bucket", "a"), options=ResolveOptions())
    assert "do not say when they end" in resolved.warnings[0]


async def test_an_s3_target_without_credentials_says_where_they_may_be():
    with pytest.raises(AwsCredentialsMissing, match="AWS_ACCESS_KEY_ID"):
        await resolve(S3Target("bucket", ""), options=ResolveOptions())
