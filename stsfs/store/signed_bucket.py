"""Requests to one bucket: signed, repaired, and sent to where the bucket is."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar

from stsfs.credentials.credentials import Credentials
from stsfs.errors import StsfsError
from stsfs.store.answers import Answer, Meaning
from stsfs.store.counters import StoreCounters
from stsfs.store.endpoint import endpoint_for
from stsfs.store.exchange import Attempt, exchange, ignored
from stsfs.store.http_connection import Connection, Head
from stsfs.store.http_pool import ConnectionPool
from stsfs.store.http_sending import OutgoingBody
from stsfs.store.retry import Trouble
from stsfs.store.sigv4 import EMPTY_SHA256, Signer

log = logging.getLogger(__name__)
T = TypeVar("T")

EXPIRY_SLACK_S = 2.0
"""A Date has whole seconds, and so have some servers' ends of sessions."""


class Lease(Protocol):
    """What the store needs of the credentials. Implemented by credentials.lease."""

    clock_offset_s: float

    def current(self) -> Credentials:
        """Credentials in force now, or an error. Not a checkpoint."""

    async def valid(self) -> Credentials:
        """Credentials in force, after waiting for a renewal where one is needed."""

    async def renew_after(self, refused: Credentials) -> Credentials:
        """Newer credentials than those that the store refused."""


class Asked(NamedTuple):
    """One request, before it is signed."""

    path: str
    """Below the bucket, encoded."""

    query: str = ""
    """In canonical form."""

    headers: str = ""
    """Whole lines of headers that are not signed."""

    method: str = "GET"
    signed: Mapping[str, str] | None = None
    """Headers by name in lower case."""

    payload: str = EMPTY_SHA256
    body: OutgoingBody | None = None
    patience_s: float | None = None
    """How long the server may work before it answers; None: as for a read."""

    lost: Callable[[], None] = ignored
    """See exchange.Attempt."""


def _never(_: Answer) -> bool:
    return False


class SignedBucket:
    """One bucket, with one lease's credentials. Owns the connections to it."""

    def __init__(
        self,
        name: str,
        lease: Lease,
        *,
        region: str | None,
        endpoint_url: str | None,
        connections_max: int,
        deadline_s: float,
        user_agent: str,
    ) -> None:
        self.name = name
        self.deadline_s = deadline_s
        self.counters = StoreCounters()
        self._lease = lease
        self._endpoint_url = endpoint_url
        self._connections_max = connections_max
        self._user_agent = user_agent
        self._go_to(region)

    @property
    def region(self) -> str:
        """The region requests are signed for: as given, or as the bucket told us."""
        return self._endpoint.region

    def trouble(self, what: str) -> Trouble:
        """For one request; what is a verb and its object."""
        return Trouble(what, deadline_s=self.deadline_s)

    async def exchange(
        self,
        kind: str,
        ask: Callable[[], Awaitable[Asked]],
        receive: Callable[[Connection, Head], Awaitable[T]],
        trouble: Trouble,
        *,
        ahead: bool = False,
        again: Callable[[Answer], bool] = _never,
        right: str = "",
    ) -> T:
        """One request until it succeeds or there is no point in going on.

        ask makes each try of it. again tells of an answer that the next try is another one, which
        may help; it may raise what the answer means. right is the permission that a change needs.
        """

        async def attempt() -> Attempt:
            asked = await ask()  # may take a while
            credentials = await self._credentials()

            async def repair(answer: Answer) -> None:
                if not (again(answer) and trouble.may_repair()):
                    await self._repair(answer, credentials, trouble, right)

            return Attempt(
                self.pool,
                lambda: self._signed(asked, credentials),
                repair,
                asked.body,
                asked.patience_s,
                asked.lost,
            )

        return await exchange(kind, attempt, receive, trouble, self.counters, ahead=ahead)

    async def _repair(
        self, answer: Answer, credentials: Credentials, trouble: Trouble, right: str
    ) -> None:
        """Repair what an answer complains about; raises when that does not help."""
        meaning = answer.meaning
        ended = credentials.expires_at_unix_s
        said_at = (answer.server_unix_s or 0) + EXPIRY_SLACK_S
        if meaning is Meaning.FORBIDDEN and ended and said_at >= ended:
            meaning = Meaning.EXPIRED  # radosgw answers AccessDenied to a session that is over
        repairable = meaning in {Meaning.EXPIRED, Meaning.SKEWED, Meaning.ELSEWHERE}
        if not repairable or not trouble.may_repair():
            raise replace(answer, meaning=meaning).error(trouble.what, right)
        if meaning is Meaning.EXPIRED:
            await self._lease.renew_after(credentials)
        elif meaning is Meaning.SKEWED and answer.server_unix_s is not None:
            self._lease.clock_offset_s = answer.server_unix_s - time.time()
            log.warning("the clock is %.0f s off the server's", -self._lease.clock_offset_s)
        elif meaning is Meaning.ELSEWHERE and answer.region != self.region:
            self.pool.close()
            self._go_to(answer.region)

    async def _credentials(self) -> Credentials:
        try:
            return self._lease.current()
        except StsfsError:
            return await self._lease.valid()

    def _signed(self, asked: Asked, credentials: Credentials) -> bytes:
        endpoint = self._endpoint
        path, query = endpoint.bucket_path + asked.path, asked.query
        if asked.path == "/" and endpoint.bucket_path:
            path = endpoint.bucket_path
        signed = self._signer.headers(
            path,
            query,
            credentials,
            time.time() + self._lease.clock_offset_s,
            method=asked.method,
            payload=asked.payload,
            extra=asked.signed,
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed)
        if asked.signed:
            lines += "".join(f"{name}: {value}\r\n" for name, value in asked.signed.items())
        if asked.method in {"PUT", "POST"}:
            lines += f"Content-Length: {asked.body.size_bytes if asked.body else 0}\r\n"
        target = f"{path}?{query}" if query else path
        return (
            f"{asked.method} {target} HTTP/1.1\r\nHost: {endpoint.host_header}\r\n"
            f"User-Agent: {self._user_agent}\r\n{lines}{asked.headers}\r\n"
        ).encode()

    def _go_to(self, region: str | None) -> None:
        self._endpoint = endpoint_for(self.name, region, self._endpoint_url)
        self._signer = Signer(self._endpoint.host_header, self._endpoint.region)
        self.pool = ConnectionPool(
            self._endpoint.host,
            self._endpoint.port,
            self._endpoint.tls_context(),
            connections_max=self._connections_max,
            counters=self.counters,
        )
