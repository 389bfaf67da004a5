"""The gate's view of SigV4 agrees with botocore's signer, and sees every change."""

import hashlib
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from stsfs.demo.gate.sessions import Session, SessionBook
from stsfs.demo.gate.sigv4_check import Accepted, payload_matches, signing_headers, verify
from stsfs.demo.s3_wire import Refusal, RequestHead

HOST = "127.0.0.1:9000"
KEYS = [
    "k",
    "a+b",
    "a%41",
    "ü",
    "a//b",
    "/lead",
    "sp ace",
    "~*'()!@$,;:=&?#",
    "dir/",
    "a/../b",
    "\n",
]
SESSION = Session("ASIAX", "secret/+=", "token/+=", 2e9, "data", "p", "read_only")
STATIC = Session("AKIAX", "static")


@pytest.fixture(scope="module")
def book():
    book = SessionBook()
    book.add(SESSION)
    book.add(STATIC)
    return book


def url_of(key, params=()):
    query = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in params)
    return f"http://{HOST}/data/{quote(key, safe='/~')}" + (f"?{query}" if query else "")


def signed(signer, url, *, method="GET", headers=None, body=b"", session=SESSION, **options):
    credentials = Credentials(
        session.access_key_id, session.secret_access_key, session.session_token
    )
    request = AWSRequest(method, url, headers=headers or {}, data=body)
    signer(credentials, "s3", "us-east-1", **options).add_auth(request)
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    sent = [("host", HOST)]
    for name, value in prepared.headers.items():
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        sent.append((name.lower(), text))
    return RequestHead(method, parts.path, parts.query, tuple(sent))


def in_header(url, **kwargs):
    return signed(auth.S3SigV4Auth, url, **kwargs)


def presigned(url, expires_s=60, **kwargs):
    return signed(auth.S3SigV4QueryAuth, url, expires=expires_s, **kwargs)


def now_unix_s():
    return datetime.now(UTC).timestamp()


def verdict(head, book, at_unix_s=None):
    result = verify(head, book, now_unix_s=at_unix_s or now_unix_s())
    if isinstance(result, Refusal):
        return result.status, result.code
    return result.session.access_key_id


@pytest.mark.parametrize("form", [in_header, presigned])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize("key", KEYS)
def test_botocores_signature_is_accepted(book, form, method, key):
    assert verdict(form(url_of(key), method=method), book) == "ASIAX"


@pytest.mark.parametrize("form", [in_header, presigned])
@given(
    key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    params=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        max_size=4,
    ),
)
def test_any_key_and_query_that_botocore_signs_is_accepted_and_read_back(book, form, key, params):
    head = form(url_of(key, list(params.items())))
    assert verdict(head, book) == "ASIAX"
    assert (head.bucket, head.key) == ("data", key)
    assert params.items() <= head.params.items()


@pytest.mark.parametrize("key", KEYS)
def test_our_own_signer_agrees_with_botocore(book, key):
    theirs = in_header(url_of(key), session=STATIC)
    plain = RequestHead("GET", theirs.raw_path, "", (("host", HOST),))
    at = now_unix_s()
    ours = RequestHead(
        "GET", plain.raw_path, "", signing_headers(plain, SESSION, region="x", now_unix_s=at)
    )
    assert verdict(ours, book) == "ASIAX"


@pytest.mark.parametrize("form", [in_header, presigned])
@pytest.mark.parametrize(
    "changes",
    [
        {"method": "HEAD"},
        {"raw_path": "/data/other"},
        {"raw_path": "/data//k"},
        {"raw_query": "x=2"},
        {"raw_query": ""},
    ],
    ids=str,
)
def test_a_changed_request_is_not_the_signed_one(book, form, changes):
    head = form(url_of("k", [("x", "1")]))
    was = {"method": "GET", "raw_path": head.raw_path, "raw_query": head.raw_query}
    query = changes.get("raw_query")
    if query is not None:
        changes = {"raw_query": head.raw_query.replace("x=1", query)}
    changed = RequestHead(**{**was, **changes}, headers=head.headers)
    assert verdict(changed, book) == (403, "SignatureDoesNotMatch")


def replaced(head, name, value):
    headers = tuple((n, value if n == name else v) for n, v in head.headers)
    return RequestHead(head.method, head.raw_path, head.raw_query, headers)


def test_a_changed_header_is_seen(book):
    head = in_header(url_of("k"), headers={"x-amz-acl": "private"})
    assert verdict(head, book) == "ASIAX"
    assert verdict(replaced(head, "x-amz-acl", "public-read"), book) == (
        403,
        "SignatureDoesNotMatch",
    )
    assert verdict(replaced(head, "host", "elsewhere"), book) == (403, "SignatureDoesNotMatch")


def test_an_amazon_header_that_is_not_signed_is_refused(book):
    head = in_header(url_of("k"))
    more = (*head.headers, ("x-amz-acl", "private"))
    added = RequestHead(head.method, head.raw_path, head.raw_query, more)
    assert verdict(added, book) == (403, "AccessDenied")


def test_range_and_if_match_need_not_be_signed(book):
    head = in_header(url_of("k"))
    more = (*head.headers, ("range", "bytes=0-1"), ("if-match", '"e"'))
    assert verdict(RequestHead("GET", head.raw_path, "", more), book) == "ASIAX"


def test_a_plus_in_the_path_is_a_space_to_s3(book):
    head = in_header(url_of("a b"))
    raw_plus = RequestHead("GET", "/data/a+b", "", head.headers)
    assert (raw_plus.key, verdict(raw_plus, book)) == ("a b", "ASIAX")
    head = in_header(url_of("a+b"))
    assert verdict(RequestHead("GET", "/data/a+b", "", head.headers), book) == (
        403,
        "SignatureDoesNotMatch",
    )


@pytest.mark.parametrize("form", [in_header, presigned])
def test_unknown_keys_and_tokens_are_told_apart(book, form):
    for session, expected in (
        (Session("AKIANO", "x"), (403, "InvalidAccessKeyId")),
        (Session("ASIAX", "secret/+="), (403, "InvalidAccessKeyId")),
        (Session("ASIAX", "secret/+=", "other"), (400, "InvalidToken")),
        (Session("AKIAX", "static", "token"), (400, "InvalidToken")),
        (Session("AKIAX", "guess"), (403, "SignatureDoesNotMatch")),
        (STATIC, "AKIAX"),
    ):
        assert verdict(form(url_of("k"), session=session), book) == expected


def test_an_expired_session_is_400_expired_token():
    book = SessionBook()
    session = book.vend("data", "p", "read_only", 100)
    head = in_header(url_of("k"), session=session)
    assert verdict(head, book, session.expires_at_unix_s - 1) == session.access_key_id
    assert verdict(head, book, session.expires_at_unix_s) == (400, "ExpiredToken")


@pytest.mark.parametrize("ahead", [timedelta(minutes=16), timedelta(minutes=-16)])
def test_a_clock_that_is_off_by_a_quarter_of_an_hour_is_refused(book, ahead):
    head = in_header(url_of("k"))
    at = now_unix_s() + ahead.total_seconds()
    assert verdict(head, book, at) == (403, "RequestTimeTooSkewed")
    assert verdict(head, book, at - ahead.total_seconds() / 8) == "ASIAX"


def test_a_presigned_url_ends(book):
    head = presigned(url_of("k"), expires_s=120)
    assert verdict(head, book, now_unix_s() + 110) == "ASIAX"
    assert verdict(head, book, now_unix_s() + 125) == (403, "AccessDenied")
    longest = presigned(url_of("k"), expires_s=604_801)
    assert verdict(longest, book) == (400, "AuthorizationQueryParametersError")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), (403, "AccessDenied")),
        ((("authorization", "AWS AKIAX:sig"),), (400, "AuthorizationHeaderMalformed")),
        (
            (("authorization", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=h, Signature=0"),),
            (400, "AuthorizationHeaderMalformed"),
        ),
    ],
    ids=str,
)
def test_missing_and_malformed_authorizations(book, headers, expected):
    assert verdict(RequestHead("GET", "/data/k", "", headers), book) == expected


def test_the_payload_hash_is_demanded_and_reported(book):
    body = b"content"
    head = in_header(url_of("k"), method="PUT", body=body)
    accepted = verify(head, book, now_unix_s=now_unix_s())
    assert isinstance(accepted, Accepted)
    assert accepted.payload_hash == hashlib.sha256(body).hexdigest()
    assert payload_matches(accepted.payload_hash, body)
    assert not payload_matches(accepted.payload_hash, b"other")
    assert payload_matches("UNSIGNED-PAYLOAD", b"anything")
    bare = tuple(item for item in head.headers if item[0] != "x-amz-content-sha256")
    assert verdict(RequestHead("PUT", head.raw_path, "", bare), book) == (400, "InvalidRequest")


def test_an_error_body_names_what_it_knows():
    refusal = Refusal(403, "RequestTimeTooSkewed", "a < b", {"ServerTime": "now"})
    body = refusal.body("/data/\x01").decode()
    assert "<Code>RequestTimeTooSkewed</Code><Message>a &lt; b</Message>" in body
    assert "<ServerTime>now</ServerTime><Resource>/data/&#x1;</Resource>" in body
