"""ObjectStore over URLs that Synapse signs: for objects that no credentials of ours open."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple, TypeVar

from stsfs.errors import StoreFailure
from stsfs.store.answers import Answer, Meaning, unix_s_of
from stsfs.store.counters import StoreCounters
from stsfs.store.endpoint import checked_tls
from stsfs.store.etags import normal_etag
from stsfs.store.exchange import Attempt, exchange
from stsfs.store.http_connection import Connection, Head
from stsfs.store.http_pool import HostPools
from stsfs.store.object_store import NO_TIME_UNIX_S, ListPage, ObjectVersion, RangeSink
from stsfs.store.range_transfer import Confirmation, RangeTransfer, header, whole
from stsfs.store.reach import Reach
from stsfs.store.retry import Trouble
from stsfs.store.signed_urls import SignedUrl, SignedUrls

T = TypeVar("T")

HOSTS_MAX = 8
"""Buckets of Synapse's users and a CloudFront distribution: rarely more in one mount."""

_FIRST_OF = re.compile(r"bytes 0-0/([0-9]{1,18})")


class Probed(NamedTuple):
    """What a server tells about an object as it is now."""

    etag: str
    size_bytes: int
    modified_unix_s: float
    """NO_TIME_UNIX_S when the server does not tell."""


class PresignedStore:
    """Reads of objects by name, where a name is whatever url_of can make a URL of.

    url_of is asked once per name and life of a URL; what it raises comes out of every method.
    The time it takes is not part of deadline_s. Owns its connections, up to connections_max for
    each host that the URLs lead to; `close` gives back the idle ones. A URL that leads out of
    reach is AccessDenied, and nothing is sent there; redirects are not followed.
    """

    def __init__(
        self,
        url_of: Callable[[str], Awaitable[str]],
        *,
        reach: Reach,
        connections_max: int = 16,
        deadline_s: float = 60.0,
        user_agent: str = "stsfs",
    ) -> None:
        self.counters = StoreCounters()
        self._urls = SignedUrls(url_of)
        self._reach = reach
        self._deadline_s = deadline_s
        self._user_agent = user_agent
        self._pools = HostPools(
            checked_tls,
            hosts_max=HOSTS_MAX,
            connections_max=connections_max,
            counters=self.counters,
            reach=reach,
        )

    def close(self) -> None:
        """Close idle connections."""
        self._pools.close()

    async def read_range(
        self, version: ObjectVersion, start: int, stop: int, sink: RangeSink, *, ahead: bool = False
    ) -> None:
        """See ObjectStore. A cut body is taken up again where it ended, with a new URL if need be.

        AccessDenied may also mean that there is no such object: only a LIST could tell.
        """
        trouble = Trouble(f"read {version.key!r}", deadline_s=self._deadline_s)
        count = self.counters.of("get")
        transfer = RangeTransfer(version, start, stop, sink, trouble, count)
        await self._exchange(
            "get", version.key, transfer.headers, transfer.receive, trouble, ahead=ahead
        )

    async def confirm(self, version: ObjectVersion) -> None:
        """Return when the server still has this very version; raises StaleVersion when not."""
        trouble = Trouble(f"confirm {version.key!r}", deadline_s=self._deadline_s)
        asked = Confirmation(version)
        await self._exchange("confirm", version.key, asked.headers, asked.receive, trouble)

    async def list_page(
        self,
        prefix: str,
        *,
        token: str | None = None,
        start_after: str = "",
        keys_max: int = 1000,
        delimiter: str = "/",
    ) -> ListPage:
        """Raises StoreFailure: a URL signed for one object lists nothing."""
        raise StoreFailure(f"Cannot list {prefix!r}: a pre-signed URL shows one object only.")

    async def probe(self, key: str) -> Probed:
        """ETag, size and time of the object as it is now: by one request, two if it is empty.

        Counted as `confirm`, for which the same is asked: one byte.
        Raises StaleVersion when there is none, and StoreFailure when the server does not tell
        enough to know the object again.
        """
        trouble = Trouble(f"look at {key!r}", deadline_s=self._deadline_s)
        ranged = True

        def headers() -> str:
            return "Range: bytes=0-0\r\n" if ranged else ""

        def again(answer: Answer) -> bool:
            nonlocal ranged
            if not ranged or answer.status != 416:
                return False
            ranged = False  # an empty object has no first byte
            return True

        async def receive(connection: Connection, head: Head) -> Probed:
            return await _probed(key, connection, head)

        return await self._exchange("confirm", key, headers, receive, trouble, again=again)

    async def _exchange(
        self,
        kind: str,
        key: str,
        headers: Callable[[], str],
        receive: Callable[[Connection, Head], Awaitable[T]],
        trouble: Trouble,
        *,
        ahead: bool = False,
        again: Callable[[Answer], bool] = lambda _: False,
    ) -> T:
        """One request until it succeeds or there is no point in going on.

        again tells of an answer that the headers are others now, which may help.
        """

        async def attempt() -> Attempt:
            url, new = await self._urls.get(key)
            self._reach.check_scheme(tls=url.tls)

            async def repair(answer: Answer) -> None:
                if not again(answer):
                    self._renew_after(answer, key, url, new, trouble)

            return Attempt(
                self._pools.of(url.host, url.port, tls=url.tls),
                lambda: self._request(url, headers()),
                repair,
            )

        return await exchange(kind, attempt, receive, trouble, self.counters, ahead=ahead)

    def _renew_after(
        self, answer: Answer, key: str, url: SignedUrl, new: bool, trouble: Trouble
    ) -> None:
        """Forget a URL that is refused. Raises unless one that is newer may be better."""
        if 300 <= answer.status < 400:
            raise StoreFailure(
                f"The server answered {answer.status} to {trouble.what}: a redirect, which is"
                " not followed from a pre-signed URL."
            )
        if answer.status in {401, 403} or answer.meaning is Meaning.EXPIRED:
            self._urls.drop(key, url)
            outlived = not (new and url.in_force())
            if outlived and trouble.may_repair():
                return
        # Servers like to quote the request that they refuse, and ours is a secret.
        raise replace(answer, message="").error(trouble.what)

    def _request(self, url: SignedUrl, headers: str) -> bytes:
        return (
            f"GET {url.target} HTTP/1.1\r\nHost: {url.host_header}\r\n"
            f"User-Agent: {self._user_agent}\r\n{headers}\r\n"
        ).encode()


async def _probed(key: str, connection: Connection, head: Head) -> Probed:
    etag = header(head, b"etag")
    if not etag or etag.startswith("W/"):
        raise StoreFailure(
            f"The server tells no strong ETag of {key!r}, so that a change would go unnoticed."
        )
    if head.status == 206:
        first = _FIRST_OF.fullmatch(header(head, b"content-range"))
        size_bytes = int(first[1]) if first else None
        await whole(connection, head)
    else:  # the server ignores ranges, or the object is empty: the body is left where it is
        size_bytes = head.length_bytes
    if size_bytes is None:
        raise StoreFailure(f"The server does not tell how long {key!r} is.")
    modified = unix_s_of(header(head, b"last-modified")) or NO_TIME_UNIX_S
    return Probed(normal_etag(etag), size_bytes, modified)
