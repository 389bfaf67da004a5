"""AWS Signature Version 4 for S3, seen from the server: header form and presigned form.

Written from the specification, not from a client's signer, so that the two check each other.
Source: docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html and
sigv4-query-string-auth.html.
"""

import functools
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from stsfs.demo.gate.sessions import KeyRing, Session
from stsfs.demo.s3_wire import Headers, Refusal, RequestHead, plus_unquote

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
SKEW_S_MAX = 15 * 60
"""How far the client's clock may be off."""

PRESIGNED_S_MAX = 7 * 24 * 3600
_UNRESERVED = "-_.~"
_HEADER = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^,\s]+),\s*SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]+)"
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The signature is right; `session` is the one whose key made it."""

    session: Session
    region: str
    """The region in the credential scope."""

    payload_hash: str
    """What the client signed for the body: 64 hex digits, UNSIGNED-PAYLOAD or STREAMING-…"""


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a request says about its own signature."""

    access_key_id: str
    scope_date: str
    region: str
    signed_headers: tuple[str, ...]
    signature: str
    amz_date: str
    token: str
    payload_hash: str
    expires_s: int | None
    """None in header form."""

    @property
    def scope(self) -> str:
        return f"{self.scope_date}/{self.region}/s3/aws4_request"


def verify(head: RequestHead, keys: KeyRing, *, now_unix_s: float) -> Accepted | Refusal:
    """Check who sent the request and whether the signature covers it, as S3 does.

    The body is not looked at: compare it with `payload_hash` where it is at hand.
    """
    claim = _claim(head)
    if isinstance(claim, Refusal):
        return claim
    session = keys.lookup(claim.access_key_id)
    if session is None or (session.session_token and not claim.token):
        return Refusal(
            403, "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            {"AWSAccessKeyId": claim.access_key_id},
        )  # fmt: skip
    refusal = _time_refusal(claim, now_unix_s) or _token_refusal(claim, session, now_unix_s)
    if refusal is not None:
        return refusal
    refusal = _coverage_refusal(head, claim)
    if refusal is not None:
        return refusal
    expected = signature(
        head, session.secret_access_key, amz_date=claim.amz_date, region=claim.region,
        signed_headers=claim.signed_headers, payload_hash=claim.payload_hash,
    )  # fmt: skip
    if not hmac.compare_digest(expected, claim.signature):
        return Refusal(
            403, "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
            {"AWSAccessKeyId": claim.access_key_id},
        )  # fmt: skip
    return Accepted(session, claim.region, claim.payload_hash)


def signature(
    head: RequestHead,
    secret_access_key: str,
    *,
    amz_date: str,
    region: str,
    signed_headers: tuple[str, ...],
    payload_hash: str,
) -> str:
    """Compute the signature, 64 hex digits, that the request must carry."""
    canonical = "\n".join(
        (
            head.method,
            canonical_path(head.raw_path),
            canonical_query(head.raw_query),
            *(f"{name}:{_header_value(head.headers, name)}" for name in signed_headers),
            "",
            ";".join(signed_headers),
            payload_hash,
        )
    )
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    scope = f"{amz_date[:8]}/{region}/s3/aws4_request"
    to_sign = f"{ALGORITHM}\n{amz_date}\n{scope}\n{digest}"
    return hmac.digest(_signing_key(secret_access_key, scope), to_sign.encode(), "sha256").hex()


def signing_headers(head: RequestHead, keys: Session, *, region: str, now_unix_s: float) -> Headers:
    """Return the request's headers with a fresh signature in header form.

    The payload hash that the request carries is kept; without one the payload is not signed.
    """
    auth = {"authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"}
    payload_hash = head.header("x-amz-content-sha256", UNSIGNED)
    amz_date = datetime.fromtimestamp(now_unix_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    fresh = [("x-amz-content-sha256", payload_hash), ("x-amz-date", amz_date)]
    if keys.session_token:
        fresh.append(("x-amz-security-token", keys.session_token))
    headers = (*(item for item in head.headers if item[0] not in auth), *fresh)
    signed = tuple(sorted({name for name, _ in headers if name[:6] == "x-amz-" or name == "host"}))
    unsigned = RequestHead(head.method, head.raw_path, head.raw_query, headers)
    digest = signature(
        unsigned, keys.secret_access_key, amz_date=amz_date, region=region,
        signed_headers=signed, payload_hash=payload_hash,
    )  # fmt: skip
    credential = f"{keys.access_key_id}/{amz_date[:8]}/{region}/s3/aws4_request"
    authorization = (
        f"{ALGORITHM} Credential={credential}, SignedHeaders={';'.join(signed)}, Signature={digest}"
    )
    return (*headers, ("authorization", authorization))


def canonical_path(raw_path: str) -> str:
    """Encode the decoded path once more, and leave `//`, `.` and `..` as they are: S3's way."""
    return quote(plus_unquote(raw_path), safe="/" + _UNRESERVED, errors="surrogateescape") or "/"


def canonical_query(raw_query: str) -> str:
    """Decode, encode and sort the query, without the signature itself."""
    pairs = []
    for item in filter(None, raw_query.split("&")):
        name, _, value = (plus_unquote(part) for part in item.partition("="))
        if name != "X-Amz-Signature":
            pairs.append((_encode(name), _encode(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def without_presigning(raw_query: str) -> str:
    """Drop the parameters that presigning has added; the others keep their bytes and order."""
    own = {f"x-amz-{word}" for word in
           ("algorithm", "credential", "date", "expires", "signedheaders", "signature",
            "security-token")}  # fmt: skip
    return "&".join(i for i in raw_query.split("&") if i.partition("=")[0].lower() not in own)


def payload_matches(payload_hash: str, body: bytes) -> bool:
    """Whether a body is the one that was signed; unsigned and streamed ones always are."""
    if payload_hash == UNSIGNED or payload_hash.startswith("STREAMING-"):
        return True
    return hashlib.sha256(body).hexdigest() == payload_hash


@functools.lru_cache(maxsize=256)
def _signing_key(secret_access_key: str, scope: str) -> bytes:
    key = f"AWS4{secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _encode(text: str) -> str:
    return quote(text, safe=_UNRESERVED, errors="surrogateescape")


def _header_value(headers: Headers, name: str) -> str:
    return ",".join(" ".join(value.split()) for each, value in headers if each == name)


def _claim(head: RequestHead) -> _Claim | Refusal:
    if "X-Amz-Signature" in head.params or "X-Amz-Algorithm" in head.params:
        return _presigned_claim(head)
    authorization = head.header("authorization")
    if not authorization:
        return Refusal(403, "AccessDenied", "Access Denied")
    found = _HEADER.fullmatch(authorization)
    credential = found[1].rsplit("/", 4) if found else []
    if found is None or len(credential) != 5 or credential[3:] != ["s3", "aws4_request"]:
        return Refusal(
            400, "AuthorizationHeaderMalformed", "The authorization header is malformed."
        )
    payload_hash = head.header("x-amz-content-sha256")
    if not payload_hash:
        missing = "Missing required header for this request: x-amz-content-sha256"
        return Refusal(400, "InvalidRequest", missing)
    return _Claim(
        access_key_id=credential[0],
        scope_date=credential[1],
        region=credential[2],
        signed_headers=tuple(found[2].split(";")),
        signature=found[3],
        amz_date=head.header("x-amz-date"),
        token=head.header("x-amz-security-token"),
        payload_hash=payload_hash,
        expires_s=None,
    )


def _presigned_claim(head: RequestHead) -> _Claim | Refusal:
    params = head.params
    credential = params.get("X-Amz-Credential", "").rsplit("/", 4)
    expires = params.get("X-Amz-Expires", "")
    malformed = Refusal(
        400, "AuthorizationQueryParametersError", "Error parsing the query-string authorization"
    )
    if params.get("X-Amz-Algorithm") != ALGORITHM or len(credential) != 5:
        return malformed
    if credential[3:] != ["s3", "aws4_request"] or not expires.isdecimal():
        return malformed
    if int(expires) > PRESIGNED_S_MAX:
        return malformed
    return _Claim(
        access_key_id=credential[0],
        scope_date=credential[1],
        region=credential[2],
        signed_headers=tuple(params.get("X-Amz-SignedHeaders", "").split(";")),
        signature=params.get("X-Amz-Signature", ""),
        amz_date=params.get("X-Amz-Date", ""),
        token=params.get("X-Amz-Security-Token", ""),
        payload_hash=head.header("x-amz-content-sha256", UNSIGNED),
        expires_s=int(expires),
    )


def _time_refusal(claim: _Claim, now_unix_s: float) -> Refusal | None:
    try:
        signed = datetime.strptime(claim.amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return Refusal(403, "AccessDenied", "AWS authentication requires a valid Date")
    if claim.scope_date != claim.amz_date[:8]:
        return Refusal(403, "SignatureDoesNotMatch", "The date in the credential scope differs.")
    age_s = now_unix_s - signed.timestamp()
    if claim.expires_s is None:
        if abs(age_s) <= SKEW_S_MAX:
            return None
        now = datetime.fromtimestamp(now_unix_s, UTC)
        return Refusal(
            403, "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            {"RequestTime": claim.amz_date, "ServerTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
             "MaxAllowedSkewMilliseconds": str(SKEW_S_MAX * 1000)},
        )  # fmt: skip
    if age_s > claim.expires_s:
        return Refusal(403, "AccessDenied", "Request has expired")
    if age_s < -SKEW_S_MAX:
        return Refusal(403, "AccessDenied", "Request is not valid yet")
    return None


def _token_refusal(claim: _Claim, session: Session, now_unix_s: float) -> Refusal | None:
    if claim.token != (session.session_token or ""):
        return Refusal(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")
    if session.expired(now_unix_s):
        return Refusal(400, "ExpiredToken", "The provided token has expired.")
    return None


def _coverage_refusal(head: RequestHead, claim: _Claim) -> Refusal | None:
    signed = set(claim.signed_headers)
    bare = sorted({n for n, _ in head.headers if n.startswith("x-amz-")} - signed)
    if claim.expires_s is not None:
        bare = [name for name in bare if name != "x-amz-content-sha256"]
    if "host" not in signed or bare or list(claim.signed_headers) != sorted(signed):
        return Refusal(
            403, "AccessDenied",
            "There were headers present in the request which were not signed",
            {"HeadersNotSigned": ", ".join(bare or ["host"])},
        )  # fmt: skip
    return None
