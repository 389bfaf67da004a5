"""Answers of Synapse, or of whatever answers in its place: read, or one of our errors."""

import gzip
import json
import re
import zlib
from urllib.parse import quote

import httpx
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from stsfs import redaction, values
from stsfs.entities.filler import record_of
from stsfs.entities.index import EntityIndex
from stsfs.entities.names import reason_hidden
from stsfs.entities.properties import properties_of
from stsfs.entities.records import key_of
from stsfs.errors import StoreFailure, StsfsError, SynapseUnavailable
from stsfs.store.signed_urls import parse_signed_url
from stsfs.synapse import answers, bodies
from stsfs.synapse.client import SynapseClient
from stsfs.synapse.records import UNREADABLE_KIND, unix_s
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
                if each.kind == UNREADABLE_KIND:
                    assert reason_hidden(each)
                else:
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
            assert all(each is None or 0 <= (each.size_bytes or 0) < 2**63 for each in found)
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
        ("children", CHILDREN | {"page": [HEADER, HEADER | {"versionNumber": float("nan")}]}),
        ("children", CHILDREN | {"page": [HEADER] * 1001}),
        ("path", {"path": [{"id": "syn1", "name": "n", "type": "a.Folder"}] * 201}),
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


@pytest.mark.parametrize(
    "odd",
    [
        {"versionNumber": 2**63}, {"versionNumber": 10**400}, {"versionNumber": -1},
        {"id": "syn1/../2"}, {"id": "\ud800"}, {"id": 5}, {"name": 5}, {"name": "x" * 1001},
        {"createdBy": "\ud800"}, {"createdBy": "1\r\nX: y"}, {"createdBy": "x" * 101},
        {"modifiedOn": "0001-01-01T00:00+23:59"}, {"modifiedOn": "9999-12-31T23:59-23:59"},
        {"type": "a\0b"}, {"type": ["x"]},
    ],
)  # fmt: skip
def test_a_child_that_makes_no_sense_is_hidden_and_the_others_are_not(odd):
    page = [HEADER | {"id": "syn1"}, HEADER | odd, HEADER | {"id": "syn3"}]
    document = json.dumps(CHILDREN | {"page": page}).encode()
    found = answer_to(CALLS["children"][1], document).children
    assert [each.kind for each in found] == ["FileEntity", UNREADABLE_KIND, "FileEntity"]
    assert reason_hidden(found[1])


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


@pytest.mark.parametrize("name", CALLS)
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


PIECES = st.lists(st.binary(max_size=40) | st.just(b"x" * 2000), max_size=5)


ENCODINGS = st.sampled_from(
    ["", "identity", "gzip", "x-gzip", "GZIP", "deflate", "br", "zstd", "gzip, gzip", "\xff"]
)


@fuzz
@given(PIECES, st.sampled_from([200, 404]), st.booleans(), ENCODINGS)
@example([zlib.compress(bytes(1 << 22))], 200, False, "deflate")
@example([gzip.compress(b"{}")[:9], gzip.compress(b"{}")[9:]], 200, False, "gzip")
@example([gzip.compress(b"{}") * 2], 200, False, "gzip")
def test_a_body_is_short_whatever_its_encoding_or_refused(pieces, status, compress, encoding):
    if compress:
        pieces = [gzip.compress(b"".join(pieces))]
    headers = [(b"content-encoding", encoding.encode("latin-1"))] if encoding else []

    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self):
            for each in pieces:
                yield each

    async def run():
        response = httpx.Response(status, headers=headers, stream=Stream())
        return await bodies.received(response)

    with bounded(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "BODY_BYTES_MAX", 4000)
        patch.setattr(bodies, "ERROR_BYTES_MAX", 1000)
        try:
            assert len(trio.run(run)) <= 4001
        except SynapseUnavailable as exc:
            check_error(exc)


@fuzz
@given(
    damaged_bytes(json.dumps(BUNDLE).encode()) | ODD_VALUES.map(lambda v: json.dumps(v).encode())
)
@example(b"[" * bodies.JSON_DEPTH_MAX + b"]" * bodies.JSON_DEPTH_MAX)
@example(b"[" * (bodies.JSON_DEPTH_MAX + 1) + b"]" * (bodies.JSON_DEPTH_MAX + 1))
@example(b"[" + b"0," * (bodies.JSON_VALUES_MAX + 1) + b"0]")
@example(b'{"a": NaN}')
@example(b"9" * 5000)
def test_what_is_decoded_is_flat_and_has_no_numbers_that_are_none(data):
    with bounded():
        found = bodies.decoded(data)
    if isinstance(found, str):
        assert len(found) <= bodies.ERROR_BYTES_MAX
        return
    level, depth = [found], 0
    while level := [
        below
        for each in level
        if isinstance(each, dict | list)
        for below in (each.values() if isinstance(each, dict) else each)
    ]:
        depth += 1
    assert depth <= bodies.JSON_DEPTH_MAX + 1


@fuzz
@given(st.lists(st.sampled_from(["sessionID=", "sessionID", ";", "=", "x" * 300, "a-1", "\t", " "])
                | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=5),
                max_size=4).map("".join))  # fmt: skip
def test_a_cookie_is_sent_back_as_a_session_or_not_at_all(field):
    seen = []

    def handle(request):
        seen.append(request.headers.get("cookie"))
        raw = [(b"set-cookie", field.encode("latin-1"))]
        return httpx.Response(200, json={"ownerId": "7"}, headers=raw)

    async def run():
        transport = httpx.MockTransport(handle)
        async with SynapseClient(token=a_token, transport=transport) as client:
            for _ in range(2):
                await client.user_profile()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    assert seen[0] is None
    assert seen[1] is None or re.fullmatch(r"sessionID=[A-Za-z0-9._~-]{1,200}", seen[1])


# Addresses of files.


@fuzz
@given(ODD_TEXTS | st.tuples(
    st.sampled_from(["http", "https", "HTTPS", "ftp", "file"]),
    st.sampled_from(["h", "127.0.0.1", "[::1]", "[fe80::1%251]", "u:p@h", "a@b@h", "h:0", "h:1:2",
                     "h:99999", "\u2024", "xn--a", "h\\@evil", "[v1.a]"]) | ODD_TEXTS,
    ODD_TEXTS,
).map(lambda parts: f"{parts[0]}://{parts[1]}/{parts[2]}"))  # fmt: skip
def test_the_address_of_a_file_is_sent_as_one_request_or_refused(url):
    try:
        found = parse_signed_url(url, 1.7e9)
    except StoreFailure:
        return
    lines = f"GET {found.target} HTTP/1.1\r\nHost: {found.host_header}"
    assert len(lines.split()) == 5
    assert lines.isascii()
    assert lines.isprintable() or lines.count("\r\n") == 1
    assert 0 < found.port < 65536
    assert found.last_use_unix_s > 0


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


SECRET = "tok-3n.of/the+client=="


QUOTED = [
    SECRET, quote(SECRET, safe=""), f"Bearer {SECRET}", f"'{SECRET}'",
    f"x-amz-security-token: {SECRET}", SECRET * 50,
]  # fmt: skip


@fuzz
@given(ODD_TEXTS, ODD_TEXTS, st.integers(200, 599), st.sampled_from(QUOTED))
@example(" " * 590, "", 403, SECRET)
@example("x" * 295, "", 403, SECRET * 50)
def test_a_refusal_that_quotes_a_secret_does_not_show_it(before, after, status, quoted):
    redaction.register_secret(SECRET)
    for body in ({"reason": f"{before}{quoted}{after}"}, f"{before}{quoted}{after}"):
        error = answers.error_from(status, {"location": quoted}, body, entity_id="syn1")
        for text in (str(error), repr(error), error.sentence, error.remedy):
            assert SECRET not in text
            assert SECRET[:12] not in text
            assert quote(SECRET, safe="") not in text


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
