"""Checks of values from outside: from files on disk, answers of servers, requests.

Pure. Each check returns the value, or raises ValueError whose text says what is wrong with it.
"""

import math
import re
from urllib.parse import urlsplit

from stsfs.redaction import redact

SIZE_BYTES_MAX = (1 << 63) - 1
"""The largest offset that a file can have (off_t)."""

MODE_MAX = 0o7777
TIME_NS_MAX = (1 << 63) * 1_000_000_000 - 1
"""The last time that stat(2) and utimensat(2) can hold: its seconds have 64 bits."""

UNIX_S_MIN, UNIX_S_MAX = -62_135_000_000.0, 253_402_000_000.0
"""The years 1 to 9999, less a day for time zones: what can be shown as a date."""

KEY_BYTES_MAX = 1024
TEXT_CHARS_MAX = 16 * 1024
"""Of a path, a label or a header; the longest path of a mount has about 5000 characters."""

SHOWN_CHARS_MAX = 300
"""Of what others wrote, in a message: the error page of a proxy must not fill a screen."""

_LOCATION = re.compile(r"s3://[^/\x00-\x20\x7f]+(?:/(.*[^/])?)?", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_REGION = re.compile(r"[A-Za-z0-9_-]{1,63}")
_URL = re.compile(r"https?://[!-~]+")
_HEADER = re.compile(r"[ -~]*")
_WORD = re.compile(r"[!-~]*")
_HEADER_NAME = re.compile(r"[!-9;-~]+")
_CONTROL = re.compile(r"[\0\r\n]")


def prefix_of(location_uri: str) -> str:
    """What the keys of `s3://bucket/prefix` begin with: `prefix/`, or nothing."""
    match = _LOCATION.fullmatch(utf8(location_uri))
    if match is None:
        raise ValueError("it is not a location")
    return f"{match[1]}/" if match[1] else ""


def utf8(text: str) -> str:
    """Text that can be encoded as UTF-8: JSON may hold lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it is not text") from None
    return text


def label(text: str) -> str:
    """What a user typed for a location."""
    if "\0" in utf8(text) or len(text) > TEXT_CHARS_MAX:
        raise ValueError("it has a NUL, or is too long")
    return text


def path(text: str) -> str:
    """A path below a directory, which leads neither out of it nor to itself."""
    label(text)
    if not {"", ".", ".."}.isdisjoint(text.split("/")):
        raise ValueError("it leads elsewhere")
    return text


def url(text: str) -> str:
    """The address of a service."""
    if not _URL.fullmatch(text) or len(text) > TEXT_CHARS_MAX:
        raise ValueError("it is not an address")
    return text


def server_url(text: str) -> str:
    """The address of a server: a host that can have one, and a port that can be one."""
    parts = urlsplit(url(text))  # raises ValueError, as the port does
    if not parts.hostname or parts.port == 0:
        raise ValueError("it names no host, or the port 0")
    parts.hostname.encode("idna")  # labels that are empty or too long: UnicodeError, a ValueError
    return text


def one_line(text: str, chars_max: int = SHOWN_CHARS_MAX) -> str:
    """What somebody else wrote, as a part of a message: one printable line of bounded length.

    It has no secrets: a server may quote the request that it refuses.
    """
    # Cut first, because a text may have megabytes; blanks at its beginning do not count. What is
    # redacted has the whole of any secret that begins in what is shown.
    whole = redact(text.lstrip()[: 2 * chars_max + TEXT_CHARS_MAX])
    line = " ".join(whole[: 2 * chars_max].split())
    shown = "".join(char if char.isprintable() else "?" for char in line[:chars_max])
    return shown if len(line) < chars_max else f"{shown}..."


def key(text: str, prefix: str, *, is_shown: bool = True, bytes_max: int = KEY_BYTES_MAX) -> str:
    """The key of an object below prefix; is_shown: one that a path can name."""
    if len(utf8(text).encode()) > bytes_max:
        raise ValueError(f"it has more than {bytes_max} bytes")
    if not text.startswith(prefix) or text == prefix:
        raise ValueError("it lies outside the location")
    if is_shown:
        path(text.removeprefix(prefix))
    return text


def bucket_name(text: str) -> str:
    """The name of a bucket, by S3's rules of today or of its first years."""
    if not _BUCKET.fullmatch(text) or set(text) == {"."}:
        raise ValueError("it is not the name of a bucket")
    return text


def region_name(text: str) -> str:
    """The name of a region of AWS, which may become a part of a host's name."""
    if not _REGION.fullmatch(text):
        raise ValueError("it is not the name of a region")
    return text


def header(text: str) -> str:
    """What is sent as the value of a header, such as an ETag: printable ASCII."""
    if not _HEADER.fullmatch(text) or len(text) > TEXT_CHARS_MAX:
        raise ValueError("it cannot be sent in a header")
    return text


def word(text: str) -> str:
    """An identifier: printable ASCII without blanks."""
    if not _WORD.fullmatch(text) or len(text) > TEXT_CHARS_MAX:
        raise ValueError("it is not a word")
    return text


def header_name(text: str) -> str:
    """The name of a header, or the end of one."""
    if not _HEADER_NAME.fullmatch(text) or len(text) > TEXT_CHARS_MAX:
        raise ValueError("it cannot be the name of a header")
    return text


def stored_text(text: str) -> str:
    """What a server has stored with an object. It may hold what cannot be sent; `headers_of` of
    the store says so. It may not hold what would end a header."""
    if _CONTROL.search(utf8(text)) or len(text) > TEXT_CHARS_MAX:
        raise ValueError("it cannot come from a header")
    return text


def size_bytes(value: int, most: int = SIZE_BYTES_MAX) -> int:
    """A number of bytes, or an offset; `most` is the largest that makes sense."""
    if not 0 <= value <= min(most, SIZE_BYTES_MAX):
        raise ValueError("it is out of range")
    return value


def mode(value: int) -> int:
    """Permission bits."""
    if not 0 <= value <= MODE_MAX:
        raise ValueError("it is out of range")
    return value


def time_ns(value: int) -> int:
    """Nanoseconds since 1970."""
    if abs(value) > TIME_NS_MAX:
        raise ValueError("it is out of range")
    return value


def unix_s(value: float) -> float:
    """Seconds since 1970, of a time that can be shown as a date."""
    if not math.isfinite(value) or not UNIX_S_MIN <= value <= UNIX_S_MAX:
        raise ValueError("it is no time")
    return value
