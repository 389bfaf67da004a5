"""Our signatures are those of AWS's own library."""

from datetime import UTC, datetime
from unittest import mock

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given
from hypothesis import strategies as st

from stsfs.credentials.credentials import Credentials
from stsfs.store.sigv4 import UNSIGNED, Signer, encode_path, encode_query

HOST = "bucket.s3.eu-west-1.amazonaws.com"
NOW_UNIX_S = 1_790_000_000.0
ODD_KEYS = ["a b", "a+b", "100%", "ü/ñ", "a//b", "~x*y'()", "a\nb", "=&?#;", "日本", "%41", ".../."]


def theirs(url, token, method="GET", headers=None):
    """The Authorization header botocore makes for the same request at the same moment."""
    request = AWSRequest(method, url, headers=headers)
    request.context["client_config"] = None
    auth = S3SigV4Auth(BotoCredentials("AKIDEXAMPLE", "secret", token), "s3", "eu-west-1")
    moment = datetime.fromtimestamp(NOW_UNIX_S, UTC)
    with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
        auth.add_auth(request)
    return request.headers["Authorization"]


def ours(path, query, token):
    credentials = Credentials("AKIDEXAMPLE", "secret", token)
    return dict(Signer(HOST, "eu-west-1").headers(path, query, credentials, NOW_UNIX_S))


@pytest.mark.parametrize("token", [None, "session/token+=="])
@pytest.mark.parametrize("key", ODD_KEYS)
def test_an_odd_key_is_signed_as_botocore_signs_it(key, token):
    assert signature_is_theirs(f"/{key}", {}, token)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_key_is_signed_as_botocore_signs_it(key):
    assert signature_is_theirs(f"/{key}", {}, "token")


@given(
    st.dictionaries(
        st.sampled_from(["prefix", "delimiter", "list-type", "max-keys", "continuation-token"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    )
)
def test_any_query_is_signed_as_botocore_signs_it(pairs):
    assert signature_is_theirs("/", pairs, None)


def signature_is_theirs(path, pairs, token):
    """Compare whole signatures, with the payload hash that we send."""
    query = encode_query(pairs)
    url = f"http://{HOST}{encode_path(path)}" + (f"?{query}" if query else "")
    return ours(encode_path(path), query, token)["Authorization"] == theirs(url, token)


HEADERS = {
    "x-amz-acl": "bucket-owner-full-control",
    "x-amz-checksum-crc32c": "AAAAAA==",
    "x-amz-copy-source": "/lab/a%20b%2Bc",
    "x-amz-copy-source-if-match": '"0123-4"',
    "x-amz-meta-mtime": "1700000000.5",
    "x-amz-meta-note": "two  blanks ",
    "x-amz-storage-class": "STANDARD_IA",
    "content-type": "text/plain; charset=utf-8",
    "if-none-match": "*",
}


@pytest.mark.parametrize("token", [None, "session/token+=="])
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("payload", [UNSIGNED, "0123456789abcdef" * 4])
@given(names=st.sets(st.sampled_from(sorted(HEADERS))))
def test_a_change_is_signed_as_botocore_signs_it(token, method, payload, names):
    extra = {name: HEADERS[name] for name in names}
    path, query = encode_path("/a b+ü"), encode_query({"uploadId": "a/b=", "partNumber": "7"})
    headers = {**extra, "X-Amz-Content-SHA256": payload}
    with mock.patch.object(S3SigV4Auth, "payload", return_value=payload):
        expected = theirs(f"http://{HOST}{path}?{query}", token, method, headers)
    found = Signer(HOST, "eu-west-1").headers(
        path,
        query,
        Credentials("AKIDEXAMPLE", "secret", token),
        NOW_UNIX_S,
        method=method,
        payload=payload,
        extra=extra,
    )
    assert dict(found)["Authorization"] == expected


def test_the_signing_key_follows_the_day_and_the_secret():
    signer = Signer(HOST, "eu-west-1")
    day_s = 86_400
    one, two = Credentials("A", "one"), Credentials("A", "two")
    seen = {
        dict(signer.headers("/k", "", credentials, now))["Authorization"]
        for credentials in (one, two)
        for now in (NOW_UNIX_S, NOW_UNIX_S + day_s)
    }
    assert len(seen) == 4
