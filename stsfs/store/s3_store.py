"""ObjectStore over S3: signed range GETs and LIST pages, repaired and repeated where that helps."""

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar

import trio

from stsfs.credentials.credentials import Credentials
from stsfs.errors import AccessDenied, StaleVersion, StoreFailure, StsfsError
from stsfs.store.answers import Answer, Meaning
from stsfs.store.counters import StoreCounters
from stsfs.store.endpoint import endpoint_for
from stsfs.store.exchange import Attempt, exchange
from stsfs.store.http_connection import Connection, Head
from stsfs.store.http_pool import ConnectionPool
from stsfs.store.list_page import ListPageParser
from stsfs.store.object_store import ListPage, ObjectVersion, RangeSink
from stsfs.store.range_transfer import Confirmation, RangeTransfer
from stsfs.store.retry import Trouble
from stsfs.store.sigv4 import Signer, encode_path, encode_query

log = logging.getLogger(__name__)
T = TypeVar("T")

EXPIRY_SLACK_S = 2.0
"""A Date has whole seconds, and so have some servers' ends of sessions."""

_NO_BUCKET_REMEDY = "Check the endpoint and the bucket."


class Lease(Protocol):
    """What the store needs of the credentials. Implemented by credentials.lease."""

    clock_offset_s: float

    def current(self) -> Credentials:
        """Credentials in force now, or an error. Not a checkpoint."""

    async def valid(self) -> Credentials:
        """Credentials in force, after waiting for a renewal where one is needed."""

    async def renew_after(self, refused: Credentials) -> Credentials:
        """Newer credentials than those that the store refused."""


class S3Store:
    """Reads of one bucket, with one lease's credentials.

    Owns its connections; `close` gives back the idle ones.
    """

    def __init__(
        self,
        bucket: str,
        lease: Lease,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        connections_max: int = 64,
        deadline_s: float = 60.0,
        user_agent: str = "stsfs",
    ) -> None:
        self.counters = StoreCounters()
        self._bucket = bucket
        self._lease = lease
        self._endpoint_url = endpoint_url
        self._connections_max = connections_max
        self._deadline_s = deadline_s
        self._user_agent = user_agent
        self._go_to(region)

    @property
    def region(self) -> str:
        """The region requests are signed for: as given, or as the bucket told us."""
        return self._endpoint.region

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()

    async def read_range(
        self, version: ObjectVersion, start: int, stop: int, sink: RangeSink, *, ahead: bool = False
    ) -> None:
        """See ObjectStore. A cut body is taken up again where it ended."""
        trouble = Trouble(f"read {version.key!r}", deadline_s=self._deadline_s)
        count = self.counters.of("get")
        transfer = RangeTransfer(version, start, stop, sink, trouble, count)
        await self._of_version("get", version, transfer, trouble, ahead=ahead)

    async def confirm(self, version: ObjectVersion) -> None:
        """Return when the server still has this very version; raises StaleVersion when not."""
        trouble = Trouble(f"confirm {version.key!r}", deadline_s=self._deadline_s)
        await self._of_version("confirm", version, Confirmation(version), trouble)

    async def _of_version(
        self,
        kind: str,
        version: ObjectVersion,
        asked: RangeTransfer | Confirmation,
        trouble: Trouble,
        *,
        ahead: bool = False,
    ) -> None:
        path = encode_path(f"/{version.key}")
        try:
            await self._exchange(kind, path, "", asked.headers, asked.receive, trouble, ahead=ahead)
        except AccessDenied as denied:
            raise await self._denied_or_gone(version, denied) from denied

    async def list_page(
        self,
        prefix: str,
        *,
        token: str | None = None,
        start_after: str = "",
        keys_max: int = 1000,
        delimiter: str = "/",
    ) -> ListPage:
        """See ObjectStore."""
        pairs = {
            "list-type": "2",
            "prefix": prefix,
            "encoding-type": "url",
            "max-keys": str(keys_max),
        }
        if delimiter:
            pairs["delimiter"] = delimiter
        if token is not None:
            pairs["continuation-token"] = token
        if start_after:
            pairs["start-after"] = start_after
        count = self.counters.of("list")

        async def receive(connection: Connection, head: Head) -> ListPage:
            parser = ListPageParser()
            async with aclosing(connection.body(head)) as pieces:
                async for piece in pieces:
                    count.received_bytes += len(piece)
                    parser.feed(piece)
                    await trio.lowlevel.checkpoint()
            return await parser.page()

        trouble = Trouble(f"list {prefix!r}", deadline_s=self._deadline_s)
        query = encode_query(pairs)
        try:
            return await self._exchange("list", "/", query, lambda: "", receive, trouble)
        except StaleVersion as answered:  # 404, 412 or 416: nothing that answers so is a bucket
            raise StoreFailure(answered.sentence, remedy=_NO_BUCKET_REMEDY) from answered

    async def _exchange(
        self,
        kind: str,
        path: str,
        query: str,
        headers: Callable[[], str],
        receive: Callable[[Connection, Head], Awaitable[T]],
        trouble: Trouble,
        *,
        ahead: bool = False,
    ) -> T:
        """One request until it succeeds or there is no point in going on."""

        async def attempt() -> Attempt:
            credentials = await self._credentials()
            return Attempt(
                self._pool,
                lambda: self._signed(path, query, headers(), credentials),
                lambda answer: self._repair(answer, credentials, trouble),
            )

        return await exchange(kind, attempt, receive, trouble, self.counters, ahead=ahead)

    async def _repair(self, answer: Answer, credentials: Credentials, trouble: Trouble) -> None:
        """Repair what an answer complains about; raises when that does not help."""
        meaning = answer.meaning
        ended = credentials.expires_at_unix_s
        said_at = (answer.server_unix_s or 0) + EXPIRY_SLACK_S
        if meaning is Meaning.FORBIDDEN and ended and said_at >= ended:
            meaning = Meaning.EXPIRED  # radosgw answers AccessDenied to a session that is over
        repairable = meaning in {Meaning.EXPIRED, Meaning.SKEWED, Meaning.ELSEWHERE}
        if not repairable or not trouble.may_repair():
            raise answer.error(trouble.what)
        if meaning is Meaning.EXPIRED:
            await self._lease.renew_after(credentials)
        elif meaning is Meaning.SKEWED and answer.server_unix_s is not None:
            self._lease.clock_offset_s = answer.server_unix_s - time.time()
            log.warning("the clock is %.0f s off the server's", -self._lease.clock_offset_s)
        elif meaning is Meaning.ELSEWHERE and answer.region != self.region:
            self._pool.close()
            self._go_to(answer.region)

    async def _denied_or_gone(self, version: ObjectVersion, denied: AccessDenied) -> StsfsError:
        """What a 403 to a GET means: only a LIST can tell a refusal from a missing key.

        A session that may list below its prefix only, as every Synapse session, gets 403 for a key
        that does not exist.
        """
        if type(denied) is not AccessDenied:
            return denied
        try:
            page = await self.list_page(version.key, keys_max=1)
        except StsfsError:
            return denied
        if page.objects and page.objects[0][:2] == (version.key, version.etag):
            return denied
        return StaleVersion(f"{version.key!r} was deleted or replaced.")

    async def _credentials(self) -> Credentials:
        try:
            return self._lease.current()
        except StsfsError:
            return await self._lease.valid()

    def _signed(self, path: str, query: str, headers: str, credentials: Credentials) -> bytes:
        endpoint = self._endpoint
        full = endpoint.bucket_path + path
        if path == "/" and endpoint.bucket_path:
            full = endpoint.bucket_path
        now_unix_s = time.time() + self._lease.clock_offset_s
        signed = self._signer.headers(full, query, credentials, now_unix_s)
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed)
        target = f"{full}?{query}" if query else full
        return (
            f"GET {target} HTTP/1.1\r\nHost: {endpoint.host_header}\r\n"
            f"User-Agent: {self._user_agent}\r\n{lines}{headers}\r\n"
        ).encode()

    def _go_to(self, region: str | None) -> None:
        self._endpoint = endpoint_for(self._bucket, region, self._endpoint_url)
        self._signer = Signer(self._endpoint.host_header, self._endpoint.region)
        self._pool = ConnectionPool(
            self._endpoint.host,
            self._endpoint.port,
            self._endpoint.tls_context(),
            connections_max=self._connections_max,
            counters=self.counters,
        )
