"""Answers of Synapse, or of whatever answers in its place: read, or one of our errors."""

import json

import httpx
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from stsfs import values
from stsfs.entities.filler import record_of
from stsfs.entities.index import EntityIndex
from stsfs.entities.properties import properties_of
from stsfs.entities.records import key_of
from stsfs.errors import StsfsError, SynapseUnavailable
from stsfs.synapse import answers, bodies
from stsfs.synapse.client import SynapseClient
from stsfs.synapse.records import unix_s
from tests.fuzz.mutations import DEEP, ODD_TEXTS, ODD_VALUES, bounded, damaged_bytes, fuzz, mutated
from tests.fuzz.synapse_documents import (
    BUNDLE,
    CALLS,
    CHILDREN,
    DESTINATION,
    HANDLE,
    HEADER,
    STS,
    a_token,
    check_header,
    is_text,
)


def check_error(error):
    assert str(error).isprintable()
    assert len(str(error)) < 2000


def answer_to(call, content, status=200, headers=()):
    """What a call makes of an answer that stays the same; virtual time, so that retries end."""

    async def run():
        reply = httpx.MockTransport(
            lambda request: httpx.Response(status, content=content, headers=dict(headers))
        )
        async with SynapseClient(token=a_token, deadline_s=1.0, transport=reply) as client:
            return await call(client)

    with bounded():
        try:
            return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
        except StsfsError as exc:
            check_error(exc)
            return None


def check(name, found):
    match name:
        case "children":
            for each in found.children:
                check_header(each)
                assert each.entity_id[3:].isdigit()
        case "headers":
            for each in found:
                check_header(each)
        case "bundle":
            check_header(found.header)
            record = record_of(found, key_of(found.header))
            for key, value in properties_of(found.header, record, found.annotations).items():
                assert is_text(key + value)
            assert record.size_bytes is None or 0 <= record.size_bytes < 2**63
            assert len(record.object_key.encode()) <= 1024
            index = EntityIndex(None)
            index.save_files([record])
            index.save_listed("syn1", "/", [found.header])
            assert index.listed("syn1").headers == [found.header]
            assert index.files([record.key])[record.key] == record
            index.close()
        case "versions":
            assert all(0 <= (each.size_bytes or 0) < 2**63 for each in found)
        case "sts":
            for word in (found.access_key_id, found.secret_access_key, found.session_token):
                assert word.isascii()
                assert word.isprintable()
            assert "/" not in found.bucket
            assert not found.base_key.startswith("/")
        case "destination":
            assert found.bucket is None or "/" not in found.bucket


@pytest.mark.parametrize("name", CALLS)
@fuzz
@given(st.data())
def test_an_answer_is_read_or_refused(name, data):
    document, call = CALLS[name]
    found = answer_to(call, json.dumps(data.draw(mutated(st.just(document)))).encode())
    if found is not None:
        check(name, found)


def with_entity(**changes):
    return BUNDLE | {"entity": BUNDLE["entity"] | changes}


def with_handle(**changes):
    return BUNDLE | {"fileHandles": [HANDLE | changes]}


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("children", CHILDREN | {"page": [HEADER | {"versionNumber": 2**63}]}),
        ("children", CHILDREN | {"page": [HEADER | {"versionNumber": 10**400}]}),
        ("children", CHILDREN | {"page": [HEADER | {"id": "syn1/../2"}]}),
        ("children", CHILDREN | {"page": [HEADER | {"id": "\ud800"}]}),
        ("children", CHILDREN | {"page": [HEADER | {"createdBy": "\ud800"}]}),
        ("children", CHILDREN | {"page": [HEADER | {"modifiedOn": "0001-01-01T00:00+23:59"}]}),
        ("children", CHILDREN | {"page": [HEADER | {"modifiedOn": "9999-12-31T23:59-23:59"}]}),
        ("bundle", with_entity(createdOn="99999-01-01T00:00:00.000Z")),
        ("bundle", with_handle(contentSize=2**63)),
        ("bundle", with_handle(contentSize=float("nan"))),
        ("bundle", with_handle(key="\udcff")),
        ("sts", STS | {"sessionToken": "a\r\nX-Evil: 1"}),
        ("sts", STS | {"bucket": "evil.example/"}),
        ("sts", STS | {"bucket": {"a": 1}}),
        ("sts", STS | {"baseKey": "\ud800"}),
        ("destination", DESTINATION | {"bucket": ["a"]}),
        ("query", {"token": "\ud800"}),
        ("profile", {"ownerId": "\ud800"}),
    ],
)
def test_what_nobody_downstream_could_use_is_refused(name, document):
    assert answer_to(CALLS[name][1], json.dumps(document).encode()) is None


def test_a_name_that_is_not_text_and_annotations_that_are_not_are_kept_as_far_as_they_go():
    odd = {"annotations": {"\ud800": {"value": ["\udcff"]}}}
    found = answer_to(CALLS["bundle"][1], json.dumps(BUNDLE | {"annotations": odd}).encode())
    assert found.annotations == {"?": ("?",)}
    document = json.dumps(with_entity(name="a\ud800/b")).encode()
    check("bundle", answer_to(CALLS["bundle"][1], document))


def test_an_md5_that_somebody_made_up_is_unknown():
    for written, read in (("none of your business", ""), ("AB" * 16, "ab" * 16), ("", "")):
        document = json.dumps(with_handle(contentMd5=written)).encode()
        assert answer_to(CALLS["bundle"][1], document).handle.md5 == read


@pytest.mark.parametrize("name", ["children", "bundle", "sts", "profile"])
@fuzz
@given(st.data(), st.sampled_from([200, 200, 201, 204, 302, 400, 401, 403, 404, 429, 500, 503]))
def test_bytes_are_an_answer_or_refused(name, data, status):
    document, call = CALLS[name]
    answer_to(call, data.draw(damaged_bytes(json.dumps(document).encode())), status)


@pytest.mark.parametrize("data", DEEP)
def test_json_without_end_is_refused(data):
    for status in (200, 404):
        assert answer_to(CALLS["bundle"][1], data, status) is None


def test_an_answer_without_end_is_refused_before_it_takes_memory(monkeypatch):
    monkeypatch.setattr(bodies, "BODY_BYTES_MAX", 1000)
    sent, asked = 0, 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self):
            nonlocal sent, asked
            asked += 1
            while True:
                sent += 100
                await trio.lowlevel.checkpoint()
                yield b"x" * 100

    async def run():
        reply = httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless()))
        async with SynapseClient(token=a_token, deadline_s=1.0, transport=reply) as client:
            await client.user_profile()

    with bounded(), pytest.raises(SynapseUnavailable):
        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    assert sent <= asked * 1200


# Refusals.


@fuzz
@given(
    st.integers(200, 599),
    st.dictionaries(st.just("location"), ODD_TEXTS),
    ODD_VALUES
    | st.fixed_dictionaries({"reason": ODD_VALUES, "error": ODD_VALUES})
    | st.sampled_from([
        "insufficient_scope: a_b", "You lack DOWNLOAD access",
        "X was not found. Please reference API",
    ]),
)  # fmt: skip
@example(403, {}, {"reason": "\x1b[2J\ud800"})
@example(302, {"location": "x" * 100_000}, None)
def test_a_refusal_is_one_line_of_bounded_length(status, headers, body):
    text = str(answers.error_from(status, headers, body, entity_id="syn1"))
    assert text.isprintable()
    assert 0 < len(text) < 1500
    assert is_text(text)


# Times.


@fuzz
@given(ODD_VALUES | st.datetimes().map(lambda time: time.isoformat()))
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59.999999-23:59")
def test_a_time_can_be_shown_or_is_refused(written):
    from stsfs.entities.properties import iso

    try:
        found = unix_s(written)
    except (ValueError, TypeError):
        return
    assert iso(found)
    assert abs(int(found * 1e9)) <= values.TIME_NS_MAX
