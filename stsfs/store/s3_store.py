"""ObjectStore over S3: signed range GETs and LIST pages, repaired and repeated where that helps."""

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar

import trio

from stsfs.credentials.credentials import Credentials
from stsfs.errors import AccessDenied, StaleVersion, StoreFailure, StsfsError
from stsfs.store import answers
from stsfs.store.answers import Answer, Meaning
from stsfs.store.counters import StoreCounters
from stsfs.store.endpoint import endpoint_for
from stsfs.store.http_connection import TURN_BYTES, Connection, ConnectionBroken, Head
from stsfs.store.http_pool import ConnectionPool
from stsfs.store.list_page import ListPageParser
from stsfs.store.object_store import ListPage, ObjectVersion, RangeSink
from stsfs.store.retry import Trouble
from stsfs.store.sigv4 import Signer, encode_path, encode_query

log = logging.getLogger(__name__)
T = TypeVar("T")

EXPIRY_SLACK_S = 2.0
"""A Date has whole seconds, and so have some servers' ends of sessions."""

_ERROR_BODY_BYTES_MAX = 64 * 1024
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
        assert 0 <= start < stop <= version.size_bytes
        position, confirmed = start, False
        what = f"read {version.key!r}"
        trouble = Trouble(what, deadline_s=self._deadline_s)

        async def receive(connection: Connection, head: Head) -> None:
            nonlocal position, confirmed
            _check_range_head(head, version, position, stop)
            if not confirmed:
                confirmed = True
                sink.confirmed()
            begun, turn_bytes = position, TURN_BYTES
            count = self.counters.of("get")
            while position < stop:
                memory = sink.buffer()
                try:
                    received = await connection.receive_into(memory[: stop - position])
                except ConnectionBroken:
                    if position > begun:
                        trouble.progress()
                    raise
                sink.received(received)
                position += received
                count.received_bytes += received
                turn_bytes -= received
                if turn_bytes <= 0:
                    turn_bytes = TURN_BYTES
                    trouble.progress()
                    await trio.lowlevel.checkpoint()

        def headers() -> str:
            return f"Range: bytes={position}-{stop - 1}\r\nIf-Match: {version.etag}\r\n"

        path = encode_path(f"/{version.key}")
        try:
            await self._exchange("get", path, "", headers, receive, trouble, ahead=ahead)
        except AccessDenied as denied:
            raise await self._denied_or_gone(version, denied) from denied

    async def confirm(self, version: ObjectVersion) -> None:
        """Return when the server still has this very version; raises StaleVersion when not."""
        what = f"confirm {version.key!r}"
        trouble = Trouble(what, deadline_s=self._deadline_s)

        async def receive(connection: Connection, head: Head) -> None:
            if version.size_bytes:
                _check_range_head(head, version, 0, 1)
            else:
                _check_etag(head, version)
            await _whole(connection, head)

        def headers() -> str:
            only_first = "Range: bytes=0-0\r\n" if version.size_bytes else ""
            return f"{only_first}If-Match: {version.etag}\r\n"

        path = encode_path(f"/{version.key}")
        try:
            await self._exchange("confirm", path, "", headers, receive, trouble)
        except AccessDenied as denied:
            raise await self._denied_or_gone(version, denied) from denied

    async def list_page(
        self, prefix: str, *, token: str | None = None, start_after: str = "", keys_max: int = 1000
    ) -> ListPage:
        """See ObjectStore."""
        pairs = {
            "list-type": "2",
            "prefix": prefix,
            "delimiter": "/",
            "encoding-type": "url",
            "max-keys": str(keys_max),
        }
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
        count = self.counters.of(kind)
        fresh = False
        with count.failing():
            while True:
                credentials = await self._credentials()
                try:
                    pool = self._pool
                    connection = await pool.take(ahead=ahead, fresh=fresh)
                    try:
                        count.requests += 1
                        request = self._signed(path, query, headers(), credentials)
                        head = await connection.ask(request)
                        if head.status in {200, 206}:
                            return await receive(connection, head)
                        answer = answers.read(head, await _whole(connection, head))
                    finally:
                        pool.give_back(connection)
                except ConnectionBroken as broken:
                    fresh = broken.unused
                    if not fresh:
                        await trouble.back_off(str(broken))
                else:
                    fresh = False
                    await self._after(answer, credentials, trouble)
                count.retries += 1

    async def _after(self, answer: Answer, credentials: Credentials, trouble: Trouble) -> None:
        """Repair what an answer complains about, or wait; raises when neither helps."""
        meaning = answer.meaning
        ended = credentials.expires_at_unix_s
        said_at = (answer.server_unix_s or 0) + EXPIRY_SLACK_S
        if meaning is Meaning.FORBIDDEN and ended and said_at >= ended:
            meaning = Meaning.EXPIRED  # radosgw answers AccessDenied to a session that is over
        if meaning is Meaning.RETRY:
            self.counters.throttled += answer.status in {429, 503}
            await trouble.back_off(f"{answer.status} {answer.code}")
            return
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


def _check_etag(head: Head, version: ObjectVersion) -> None:
    """Some servers ignore If-Match."""
    if head.headers.get(b"etag", b"").decode("latin-1") != version.etag:
        raise StaleVersion(f"{version.key!r} was replaced.")


def _check_range_head(head: Head, version: ObjectVersion, start: int, stop: int) -> None:
    """Accept only bytes [start, stop) of this version, whatever a server claims to support."""
    _check_etag(head, version)
    whole = start == 0 and stop == version.size_bytes
    expected = f"bytes {start}-{stop - 1}/{version.size_bytes}"
    found = head.headers.get(b"content-range", b"").decode("latin-1")
    right = found == expected or (head.status == 200 and whole)
    if not right or head.length_bytes != stop - start:
        raise StoreFailure(
            f"Asked for {expected} of {version.key!r}, the server sent {found or 'no range'}."
        )


async def _whole(connection: Connection, head: Head) -> bytes:
    body = bytearray()
    async with aclosing(connection.body(head)) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > _ERROR_BODY_BYTES_MAX:
                raise ConnectionBroken("an error answer without end")
    return bytes(body)
