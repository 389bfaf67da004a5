"""AWS Signature Version 4, for the requests that the data plane sends.

Only `host` and the `x-amz-*` headers are signed, so `Range` and `If-Match` can change without a
new signature. A general signer costs twenty times as much per request.

Source of the algorithm: AWS, "Signature Version 4 signing process" and "Authenticating requests:
using the Authorization header" in the S3 API reference.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping
from urllib.parse import quote

from stsfs.credentials.credentials import Credentials

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
"""Instead of a body's SHA-256, where TLS or a checksum protects the body."""

_UNRESERVED = "-_.~"


def encode_path(path: str) -> str:
    """Percent-encode a key or path the way S3 signs it: once, slashes kept, nothing normalised."""
    return quote(path, safe=f"/{_UNRESERVED}")


def encode_query(pairs: Mapping[str, str]) -> str:
    """The canonical query string: encoded, sorted by encoded name, `=` always present."""
    return "&".join(
        sorted(
            f"{quote(k, safe=_UNRESERVED)}={quote(v, safe=_UNRESERVED)}" for k, v in pairs.items()
        )
    )


class Signer:
    """Signs requests for one host and region; remembers the signing key of the day."""

    def __init__(self, host: str, region: str) -> None:
        self._host = host
        self._region = region
        self._key_for: tuple[str, str] = ("", "")
        self._key = b""

    def headers(
        self,
        path: str,
        query: str,
        credentials: Credentials,
        now_unix_s: float,
        *,
        method: str = "GET",
        payload: str = EMPTY_SHA256,
        extra: Mapping[str, str] | None = None,
    ) -> list[tuple[str, str]]:
        """The headers that authenticate `method path?query`, both already encoded.

        payload is the SHA-256 of the body in hexadecimal, or UNSIGNED; extra are the request's
        other `x-amz-*` headers, names in lower case, which are not among those returned.
        now_unix_s is the server's time: our clock, corrected by what we learned of the server's.
        """
        amz_date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_unix_s))
        day = amz_date[:8]
        token = credentials.session_token
        if extra:
            signed, headers = self._canonical(extra, payload, amz_date, token)
        else:  # the same lines, as most requests have them
            signed = "host;x-amz-content-sha256;x-amz-date"
            headers = f"host:{self._host}\nx-amz-content-sha256:{payload}\nx-amz-date:{amz_date}\n"
            if token is not None:
                signed += ";x-amz-security-token"
                headers += f"x-amz-security-token:{token}\n"
        canonical = f"{method}\n{path}\n{query}\n{headers}\n{signed}\n{payload}"
        scope = f"{day}/{self._region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{amz_date}\n{scope}\n{digest}"
        key = self._signing_key(credentials.secret_access_key, day)
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        result = [
            ("x-amz-content-sha256", payload),
            ("x-amz-date", amz_date),
            (
                "Authorization",
                f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope}, "
                f"SignedHeaders={signed}, Signature={signature}",
            ),
        ]
        if token is not None:
            result.append(("x-amz-security-token", token))
        return result

    def _canonical(
        self, extra: Mapping[str, str], payload: str, amz_date: str, token: str | None
    ) -> tuple[str, str]:
        """The names of all signed headers, and their lines."""
        values = {"host": self._host, "x-amz-content-sha256": payload, "x-amz-date": amz_date}
        if token is not None:
            values["x-amz-security-token"] = token
        values |= {name: " ".join(value.split()) for name, value in extra.items()}
        names = sorted(values)
        return ";".join(names), "".join(f"{name}:{values[name]}\n" for name in names)

    def _signing_key(self, secret: str, day: str) -> bytes:
        if self._key_for != (secret, day):
            key = hmac.digest(b"AWS4" + secret.encode(), day.encode(), "sha256")
            for step in (self._region, "s3", "aws4_request"):
                key = hmac.digest(key, step.encode(), "sha256")
            self._key_for, self._key = (secret, day), key
        return self._key
