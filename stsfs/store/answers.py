"""What an S3 answer that is not the wanted one means. The one table from S3's codes to ours."""

import enum
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime

from lxml import etree

from stsfs import errors
from stsfs.store.http_connection import Head
from stsfs.values import one_line, region_name


class Meaning(enum.Enum):
    """What to do about an answer."""

    RETRY = "passing trouble: the same request may succeed a little later"
    EXPIRED = "the session token is over: renew, repeat"
    SKEWED = "our clock is wrong: correct it, repeat"
    ELSEWHERE = "the bucket is in another region: go there, repeat"
    STALE = "this version of the object is gone"
    FORBIDDEN = "denied, or the key is missing and may not be asked for"
    FINAL = "an error to report"


@dataclass(frozen=True, slots=True)
class Answer:
    """An error answer: status, S3 code and what follows from them."""

    status: int
    code: str
    message: str
    meaning: Meaning
    region: str = ""
    server_unix_s: float | None = None
    header: str = ""
    """The header that the server says it does not know, in lower case."""

    def error(self, what: str, right: str = "") -> errors.StsfsError:
        """The exception that tells a user about this answer; what names the request.

        right is the permission that a change needs.
        """
        told = f"S3 answered {self.status} {self.code} to {what}"
        detail = f": {self.message}" if self.message else "."
        kind, remedy = _FINAL.get(self.code, (errors.StoreFailure, ""))
        if self.meaning is Meaning.FORBIDDEN and self.code not in _FINAL:
            kind, remedy = errors.AccessDenied, _DENIED_REMEDY
            if right:
                told = f"The credentials may not {what} (S3 answered {self.status} {self.code})"
                remedy = f"{right} is missing; ask the owner of the bucket."
        if self.meaning is Meaning.STALE:
            kind = errors.StaleVersion
        return kind(told + detail, remedy=remedy)


_DENIED_REMEDY = (
    "The bucket's policy or the credentials' own policy does not allow it; "
    "ask the owner of the bucket."
)
_DATE_UNIX_S_MIN, _DATE_UNIX_S_MAX = 946_684_800.0, 4_102_444_800.0
"""The years 2000 to 2099: any other date is a mistake."""

MESSAGE_CHARS_MAX = 1000
"""Of what a server says in words: AWS names who may not do what to which resource."""

_CODE = re.compile(r"[!-~]{1,100}")
_RETRY = {
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling",
    "ThrottlingException", "RequestThrottled", "TooManyRequests", "BandwidthLimitExceeded",
    # Another change of the same key at the same moment; a body that changed on its way.
    "ConditionalRequestConflict", "OperationAborted", "BadDigest", "IncompleteBody",
}  # fmt: skip
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_ELSEWHERE = {
    "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}  # fmt: skip
_STATUS_INSIDE = {
    "PreconditionFailed": 412, "NoSuchKey": 404, "NoSuchUpload": 404, "AccessDenied": 403,
}  # fmt: skip
"""With which status an error comes that is not inside an answer with status 200."""

_FINAL: dict[str, tuple[type[errors.StsfsError], str]] = {
    "NoSuchBucket": (errors.NotFound, "Check the name of the bucket and its endpoint."),
    "InvalidObjectState": (
        errors.ArchivedObject,
        "The object is in an archive storage class; restore it before reading.",
    ),
    "InvalidAccessKeyId": (errors.AccessDenied, "Check the AWS credentials."),
    "SignatureDoesNotMatch": (errors.AccessDenied, "Check the AWS secret key and the endpoint."),
    "InvalidToken": (errors.AccessDenied, "Check the AWS session token."),
    "KMS.DisabledException": (errors.AccessDenied, "The object's KMS key is disabled."),
    "KMS.AccessDenied": (errors.AccessDenied, "The credentials may not use the object's KMS key."),
}


def read(head: Head, body: bytes) -> Answer:
    """Classify an error answer by its status and its XML body."""
    _, fields = document(body)
    code, region = fields.get("Code", ""), fields.get("Region", "")
    if not _CODE.fullmatch(code):
        code = ""
    region = head.headers.get(b"x-amz-bucket-region", b"").decode("latin-1") or region
    try:
        region_name(region)
    except ValueError:
        region = ""
    server_unix_s = unix_s_of(head.headers.get(b"date", b"").decode("latin-1"))
    meaning = _meaning(head.status, code, region)
    code = code or f"status {head.status}"
    named = one_line(fields.get("Header", "")).lower()
    message = one_line(fields.get("Message", ""), MESSAGE_CHARS_MAX)
    return Answer(head.status, code, message, meaning, region, server_unix_s, named)


def unix_s_of(date: str) -> float | None:
    """Seconds since 1970 of an HTTP date, UTC without a zone; None for one that cannot be right."""
    try:
        time = parsedate_to_datetime(date)
        unix_s = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):  # the parser of mail has gaps
        return None
    return unix_s if _DATE_UNIX_S_MIN <= unix_s <= _DATE_UNIX_S_MAX else None


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Around what reads a server's answer: nonsense there is a StoreFailure, and no bug of ours."""
    try:
        yield
    except (ValueError, ArithmeticError, LookupError, AssertionError, etree.LxmlError) as exc:
        raise errors.StoreFailure(
            f"The server's answer cannot be understood: {what} ({one_line(str(exc))}).",
            remedy="Check the endpoint, and what lies between it and here.",
        ) from exc


def _meaning(status: int, code: str, region: str) -> Meaning:
    if code in _EXPIRED:
        return Meaning.EXPIRED
    if code == "RequestTimeTooSkewed":
        return Meaning.SKEWED
    if code in _ELSEWHERE and region:
        return Meaning.ELSEWHERE
    if status == 412 or code in {"NoSuchKey", "InvalidRange"} or status == 416:
        return Meaning.STALE
    if code in _FINAL:
        return Meaning.FINAL
    if code in _RETRY or status in {429, 500, 502, 503, 504}:
        return Meaning.RETRY
    if status in {401, 403}:
        return Meaning.FORBIDDEN
    if status == 404:
        return Meaning.STALE
    return Meaning.FINAL


def read_inside(head: Head, body: bytes) -> Answer | None:
    """The error in an answer with status 200, which S3 sends before a long work is done.

    Source: CopyObject and CompleteMultipartUpload in the S3 API reference: an error that comes up
    later is written into the body, behind blanks that keep the connection open.
    """
    root, fields = document(body)
    if root != "Error":
        return None
    return read(replace(head, status=_STATUS_INSIDE.get(fields.get("Code", ""), 400)), body)


def document(body: bytes) -> tuple[str, dict[str, str]]:
    """Name of the root of a small XML document, and texts by element; empty if it is no XML."""
    if not body:
        return "", {}
    try:
        parser = etree.XMLParser(resolve_entities=False, no_network=True)
        root = etree.fromstring(body.strip(), parser)
    except (etree.XMLSyntaxError, ValueError):
        return "", {}
    fields = {etree.QName(e).localname: e.text or "" for e in root.iter("*") if len(e) == 0}
    return etree.QName(root).localname, fields
