"""S3's REST dialect as bytes: heads of requests and answers, error bodies.

Names of headers are lower case throughout. Texts are Latin-1 decoded, which keeps every byte.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes
from xml.sax.saxutils import escape

import httptools

HEAD_BYTES_MAX = 64 * 1024
"""Limit for a request or response head; S3's own is 8 KiB of headers plus a long query."""

XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'

Headers = tuple[tuple[str, str], ...]

# XML 1.0 cannot carry these at all; S3 sends them as character references nevertheless.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\r\n\t]")

_REFERENCE = re.compile(r"&(#x[0-9a-fA-F]+|#[0-9]+|amp|lt|gt|quot|apos);")
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}

REASONS = {
    100: "Continue", 200: "OK", 204: "No Content", 206: "Partial Content",
    301: "Moved Permanently", 304: "Not Modified", 400: "Bad Request", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 409: "Conflict", 411: "Length Required",
    412: "Precondition Failed", 416: "Requested Range Not Satisfiable",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable",
}  # fmt: skip


class BadRequest(ValueError):
    """The peer does not speak HTTP/1.1, or not in a way that we understand."""


def plus_unquote(text: str) -> str:
    """Decode percent escapes, and `+` as a space, which S3 does in paths and queries alike."""
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "surrogateescape")


def xml_text(text: str) -> str:
    """Escape for element content; control characters become references, as S3 sends them."""
    return _CONTROL.sub(lambda match: f"&#x{ord(match[0]):X};", escape(text, {'"': "&quot;"}))


def xml_values(document: bytes, element: str) -> list[str]:
    """The texts of all elements of that name, in a document without nesting of the name.

    Real parsers refuse the control characters that keys may hold and clients do send.
    """
    text = document.decode("utf-8", "surrogateescape")
    found = re.findall(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
    return [_REFERENCE.sub(_referred, each) for each in found]


def _referred(match: re.Match[str]) -> str:
    name = match[1]
    if name.startswith("#x"):
        return chr(int(name[2:], 16))
    return chr(int(name[1:])) if name.startswith("#") else _ENTITIES[name]


def parse_params(raw_query: str) -> dict[str, str]:
    """Decode a query; a name without `=` has the value "", and the first of several wins."""
    params: dict[str, str] = {}
    for item in filter(None, raw_query.split("&")):
        name, _, value = item.partition("=")
        params.setdefault(plus_unquote(name), plus_unquote(value))
    return params


@dataclass(slots=True)
class RequestHead:
    """A path-style request as it was sent, and what S3 reads in it."""

    method: str
    raw_path: str
    raw_query: str
    headers: Headers
    keep_alive: bool = True
    bucket: str = field(init=False)
    key: str = field(init=False)
    params: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        bucket, _, key = self.raw_path.removeprefix("/").partition("/")
        self.bucket, self.key = plus_unquote(bucket), plus_unquote(key)
        self.params = parse_params(self.raw_query)

    def header(self, name: str, default: str = "") -> str:
        """Return the first header of that lower-case name."""
        return next((value for each, value in self.headers if each == name), default)

    @property
    def content_length_bytes(self) -> int | None:
        """The announced length; 0 without a body, None when the body is chunked."""
        if "chunked" in self.header("transfer-encoding").lower():
            return None
        return int(self.header("content-length", "0"))

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return self.header("expect").lower() == "100-continue"


@dataclass(slots=True)
class ResponseHead:
    """The status line and headers of an answer."""

    status: int
    headers: Headers
    keep_alive: bool

    def header(self, name: str, default: str = "") -> str:
        """Return the first header of that lower-case name."""
        return next((value for each, value in self.headers if each == name), default)


class _HeadCollector:
    """What httptools calls back while it parses a head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[str, str]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))


def parse_request(head: bytes) -> RequestHead:
    """Parse a request head that ends in an empty line. Raises BadRequest."""
    collector = _HeadCollector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(head)
        method = parser.get_method().decode("ascii")
        keep_alive = parser.should_keep_alive()
    except httptools.HttpParserUpgrade:
        raise BadRequest("upgrade requested") from None
    except httptools.HttpParserError as exc:
        raise BadRequest(str(exc)) from exc
    path, _, query = collector.url.decode("latin-1").partition("?")
    return RequestHead(method, path, query, tuple(collector.headers), keep_alive)


def parse_response(head: bytes) -> ResponseHead:
    """Parse a response head that ends in an empty line. Raises BadRequest."""
    collector = _HeadCollector()
    parser = httptools.HttpResponseParser(collector)
    try:
        parser.feed_data(head)
        status = parser.get_status_code()
    except httptools.HttpParserError as exc:
        raise BadRequest(str(exc)) from exc
    # The parser answers should_keep_alive() for the whole message, which it has not seen yet.
    connection = next((value for name, value in collector.headers if name == "connection"), "")
    keep_alive = head.startswith(b"HTTP/1.1") and connection.lower() != "close"
    return ResponseHead(status, tuple(collector.headers), keep_alive)


def request_bytes(
    method: str, raw_path: str, raw_query: str, headers: Iterable[tuple[str, str]]
) -> bytes:
    """Write a request head."""
    target = f"{raw_path}?{raw_query}" if raw_query else raw_path
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def response_bytes(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Write a response head."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer of S3: status, code and message, and what else the body carries."""

    status: int
    code: str
    message: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    headers: Headers = ()

    def body(self, resource: str = "") -> bytes:
        """The XML document; a HEAD is answered without it."""
        inner = {"Code": self.code, "Message": self.message or self.code, **self.details}
        if resource:
            inner["Resource"] = resource
        elements = "".join(f"<{name}>{xml_text(text)}</{name}>" for name, text in inner.items())
        document = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{elements}</Error>'
        return document.encode("utf-8", "surrogateescape")
