"""URLs that somebody else has signed: where they lead, how long they hold, who asks for them.

Whoever has such a URL may read the object. No sentence, log line or repr shows one.
"""

import copy
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

import trio
from cachetools import LRUCache

from stsfs.errors import StoreFailure, StsfsError

LIFE_UNKNOWN_S = 30.0
"""What a URL holds at least that does not say how long: the shortest life Synapse has given."""

SLACK_S = 5.0
"""How long before its end a URL is no longer used: it must arrive in time."""

URLS_MAX = 1000
"""Of files read lately; each is about 2 KiB."""

_PRINTABLE = re.compile(r"[!-~]+")
"""What may stand in a request line."""


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """What a GET of the URL needs. The target holds the signature: a secret."""

    host: str
    port: int
    tls: bool
    host_header: str
    """As the URL spells it, because it is signed."""

    target: str = field(repr=False)
    last_use_unix_s: float

    def in_force(self) -> bool:
        """Whether a request that begins now will be accepted, as far as our clock tells."""
        return time.time() < self.last_use_unix_s


def parse_signed_url(url: str, now_unix_s: float) -> SignedUrl:
    """Read a URL that has come just now. Raises StoreFailure, which does not show it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"} or not _PRINTABLE.fullmatch(url):
        raise StoreFailure("What was given as the URL of a file is not an HTTP URL.")
    tls = parts.scheme == "https"
    path = parts.path or "/"
    return SignedUrl(
        host,
        port or (443 if tls else 80),
        tls,
        parts.netloc.rpartition("@")[2],
        f"{path}?{parts.query}" if parts.query else path,
        now_unix_s + _life_s(parts.query, now_unix_s) - SLACK_S,
    )


def _life_s(query: str, now_unix_s: float) -> float:
    """How long a URL holds from now on: signed by S3's rules, or by CloudFront's (`Expires`).

    A URL that came just now is neither over nor from the future; where it seems so, our clock is
    wrong, and what it says is not used.
    """
    said = {name.lower(): value for name, value in parse_qsl(query)}
    with suppress(KeyError, ValueError, OverflowError):
        whole_s = float(int(said["x-amz-expires"]))
        signed = datetime.strptime(said["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        left_s = signed.timestamp() + whole_s - now_unix_s
        return left_s if 0 < left_s <= whole_s else whole_s
    with suppress(KeyError, ValueError, OverflowError):
        left_s = float(int(said["expires"])) - now_unix_s
        if left_s > 0:
            return left_s
    return LIFE_UNKNOWN_S


class _Flight:
    """A URL that is being asked for. Without url and error at its end: the asker was cancelled."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.url: SignedUrl | None = None
        self.error: StsfsError | None = None


class SignedUrls:
    """The URLs of keys: each one asked for once, however many wait for it, and kept while it holds.

    A caller that is cancelled leaves the asking to the others.
    """

    def __init__(self, url_of: Callable[[str], Awaitable[str]]) -> None:
        self._url_of = url_of
        self._kept: LRUCache[str, SignedUrl] = LRUCache(URLS_MAX)
        self._flights: dict[str, _Flight] = {}

    async def get(self, key: str) -> tuple[SignedUrl, bool]:
        """A URL in force, and whether it was signed for this call.

        Raises what url_of raises, and StoreFailure.
        """
        while True:
            kept = self._kept.get(key)
            if kept is not None and kept.in_force():
                return kept, False
            flight = self._flights.get(key)
            if flight is None:
                return await self._ask(key), True
            await flight.ended.wait()
            if flight.url is not None:
                return flight.url, True
            if flight.error is not None:
                raise copy.copy(flight.error)

    def drop(self, key: str, url: SignedUrl) -> None:
        """This URL was refused; a newer one of the same key stays."""
        if self._kept.get(key) is url:
            del self._kept[key]

    async def _ask(self, key: str) -> SignedUrl:
        flight = self._flights[key] = _Flight()
        try:
            url = parse_signed_url(await self._url_of(key), time.time())
        except StsfsError as error:
            flight.error = copy.copy(error)  # without the frames it came through
            raise
        else:
            flight.url = self._kept[key] = url
            return url
        finally:
            del self._flights[key]
            flight.ended.set()
