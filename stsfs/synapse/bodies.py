"""Bodies of answers, from bytes of a stranger to JSON values that are bounded in every direction.

What gets past here is text in UTF-8 of at most BODY_BYTES_MAX bytes, inflated, and JSON of at most
JSON_VALUES_MAX values nested JSON_DEPTH_MAX deep, without the numbers that JSON does not have.
"""

import json
import zlib

import httpx
import trio

from stsfs.synapse import answers

BODY_BYTES_MAX = 8 * 1024 * 1024
"""Of a body, inflated. Pages of rows have up to 2 MB; all others are far shorter."""

ERROR_BYTES_MAX = 64 * 1024
"""Of a body that only says why the answer is no: the rest of it is not read."""

JSON_VALUES_MAX = 500_000
"""Small values take twenty times the memory of the text that they are written as."""

JSON_DEPTH_MAX = 50
"""Synapse's own answers have about eight levels."""

NOT_ENCODED = {"Accept-Encoding": "identity"}
"""What requests say. Answers are short: inflating what a stranger sends is not worth the risk."""

_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
_INFLATED = frozenset({"gzip", "x-gzip", "deflate"})
"""What proxies use who compress without being asked."""


class _TooLong(Exception):
    """The body has more bytes than may be received."""


async def received(response: httpx.Response) -> bytes:
    """The body of an answer, or the beginning of one that says no.

    Raises SynapseUnavailable for one that is too long or in an encoding that nobody asked for, and
    what httpx raises.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower() or "identity"
    bytes_max = BODY_BYTES_MAX if response.is_success else ERROR_BYTES_MAX
    if encoding == "identity":
        body: _Plain | _Inflated = _Plain(bytes_max)
    elif encoding in _INFLATED:
        body = _Inflated(bytes_max)
    else:
        raise answers.not_understood("a request")
    stream, is_wrong = response.stream, False
    assert isinstance(stream, httpx.AsyncByteStream)
    with trio.CancelScope() as scope:
        async for piece in stream:  # and not what httpx makes of it, which inflates without a limit
            try:
                body.add(piece)
            except (_TooLong, zlib.error) as exc:
                is_wrong = response.is_success or isinstance(exc, zlib.error)
                # Cancelled where it waits, httpx closes its generators; left alone they stay open.
                scope.cancel()
    if is_wrong:
        raise answers.not_understood("a request")
    return bytes(body.data)


def decoded(data: bytes) -> object:
    """JSON values; the text of what is no JSON, or more of it than anybody sends."""
    text = data.decode("utf-8", "replace")
    # Each value but the first has a comma or a bracket in front of it, or a name.
    if data.count(b",") + data.count(b"[") + data.count(b"{") > JSON_VALUES_MAX:
        return text[:ERROR_BYTES_MAX]
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text[:ERROR_BYTES_MAX]
    return value if _is_flat(value) else text[:ERROR_BYTES_MAX]


class _Plain:
    """Pieces, put together as far as they may go."""

    def __init__(self, bytes_max: int) -> None:
        self.data = bytearray()
        self._bytes_max = bytes_max

    def add(self, piece: bytes) -> None:
        self.data += piece[: self._bytes_max - len(self.data) + 1]
        if len(self.data) > self._bytes_max:
            raise _TooLong


class _Inflated(_Plain):
    """Pieces of a compressed body: inflated no further than they may go."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(bytes_max)
        self._inflate = zlib.decompressobj(_ZLIB_OR_GZIP)

    def add(self, piece: bytes) -> None:
        super().add(self._inflate.decompress(piece, self._bytes_max - len(self.data) + 1))


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _is_flat(value: object) -> bool:
    """Whether values are nested at most JSON_DEPTH_MAX deep; level by level, without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(JSON_DEPTH_MAX + 1):
        level = [
            below
            for each in level
            for below in (each.values() if isinstance(each, dict) else each)
            if isinstance(below, dict | list)
        ]
        if not level:
            return True
    return False
