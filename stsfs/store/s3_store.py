"""ObjectStore over S3: signed range GETs and LIST pages, repaired and repeated where that helps."""

from contextlib import aclosing

import trio

from stsfs.errors import AccessDenied, StaleVersion, StoreFailure
from stsfs.store.answers import understood
from stsfs.store.counters import StoreCounters
from stsfs.store.http_connection import Connection, Head
from stsfs.store.list_page import PAGE_BYTES_MAX, ListPageParser
from stsfs.store.look import is_gone
from stsfs.store.object_store import ListedObject, ListPage, ObjectVersion, RangeSink
from stsfs.store.paging import check_page, filled, object_at
from stsfs.store.range_transfer import Confirmation, RangeTransfer
from stsfs.store.retry import Trouble
from stsfs.store.s3_writer import S3Writer
from stsfs.store.signed_bucket import Asked, Lease, SignedBucket
from stsfs.store.sigv4 import encode_path, encode_query

_PLAIN = {b"identity", b"aws-chunked", b""}
_NO_BUCKET_REMEDY = "Check the endpoint and the bucket."


class S3Store:
    """Reads of one bucket, with one lease's credentials.

    Owns its connections; `close` gives back the idle ones. `writer` changes the same bucket.
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
        self._bucket = SignedBucket(
            bucket,
            lease,
            region=region,
            endpoint_url=endpoint_url,
            connections_max=connections_max,
            deadline_s=deadline_s,
            user_agent=user_agent,
        )

    @property
    def counters(self) -> StoreCounters:
        """Requests and bytes, those of the writers included."""
        return self._bucket.counters

    @property
    def region(self) -> str:
        """The region requests are signed for: as given, or as the bucket told us."""
        return self._bucket.region

    def close(self) -> None:
        """Close idle connections."""
        self._bucket.pool.close()

    def writer(self, *, acl: str = "", conditions: bool = True) -> S3Writer:
        """Changes to the same bucket, over the same connections and with the same lease.

        acl is the canned ACL of what is made, empty for none. conditions: the server knows If-Match
        and If-None-Match for changes, as AWS does.
        """
        return S3Writer(self._bucket, self._listed, acl=acl, conditions=conditions)

    async def read_range(
        self, version: ObjectVersion, start: int, stop: int, sink: RangeSink, *, ahead: bool = False
    ) -> None:
        """See ObjectStore. A cut body is taken up again where it ended."""
        trouble = self._bucket.trouble(f"read {version.key!r}")
        count = self.counters.of("get")
        transfer = RangeTransfer(version, start, stop, sink, trouble, count)
        await self._of_version("get", version, transfer, trouble, ahead=ahead)

    async def confirm(self, version: ObjectVersion) -> None:
        """Return when the server still has this very version; raises StaleVersion when not."""
        trouble = self._bucket.trouble(f"confirm {version.key!r}")
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

        async def ask() -> Asked:
            return Asked(path, "", asked.headers())

        try:
            await self._bucket.exchange(kind, ask, asked.receive, trouble, ahead=ahead)
        except AccessDenied as denied:
            if await is_gone(self._listed, version.key, version.etag, denied):
                raise StaleVersion(f"{version.key!r} was deleted or replaced.") from denied
            raise

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

        async def ask(token: str | None) -> ListPage:
            page = await self._one_page(prefix, token, start_after, keys_max, delimiter)
            check_page(page, prefix, token=token, keys_max=keys_max, delimiter=delimiter)
            return page

        return await filled(ask, token, prefix)

    async def _one_page(
        self, prefix: str, token: str | None, start_after: str, keys_max: int, delimiter: str
    ) -> ListPage:
        """What the server answers to one request."""
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
        count, what = self.counters.of("list"), f"list {prefix!r}"

        async def receive(connection: Connection, head: Head) -> ListPage:
            if head.headers.get(b"content-encoding", b"identity").lower() not in _PLAIN:
                raise StoreFailure(f"The server compresses what it was asked for: {what}.")
            parser = ListPageParser()
            parser.announced(head.length_bytes)
            async with aclosing(connection.body(head, PAGE_BYTES_MAX)) as pieces:
                async for piece in pieces:
                    count.received_bytes += len(piece)
                    with understood(what):
                        parser.feed(piece)
                    await trio.lowlevel.checkpoint()
            with understood(what):
                return await parser.page()

        trouble = self._bucket.trouble(what)
        query = encode_query(pairs)

        async def ask() -> Asked:
            return Asked("/", query)

        try:
            return await self._bucket.exchange("list", ask, receive, trouble)
        except StaleVersion as answered:  # 404, 412 or 416: nothing that answers so is a bucket
            raise StoreFailure(answered.sentence, remedy=_NO_BUCKET_REMEDY) from answered

    async def _listed(self, key: str) -> ListedObject | None:
        """The object of a key as it is now."""
        return await object_at(self, key)
