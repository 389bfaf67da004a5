"""One request that changes something: built for each try, and its refusals understood."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from stsfs.errors import AccessDenied, StoreFailure, StsfsError, WriteConflict
from stsfs.store import answers
from stsfs.store.answers import Answer, Meaning
from stsfs.store.dialect import CHECKSUM, Dialect
from stsfs.store.exchange import ErrorInside
from stsfs.store.http_connection import Connection, Head
from stsfs.store.look import Look
from stsfs.store.object_store import Body, Expected, ObjectVersion
from stsfs.store.outgoing import Document, Outgoing
from stsfs.store.range_transfer import header, whole
from stsfs.store.signed_bucket import Asked, SignedBucket
from stsfs.store.sigv4 import EMPTY_SHA256, UNSIGNED, encode_path, encode_query

_VERBS = {
    "put": "write", "begin": "begin to write", "part": "write a part of",
    "complete": "finish writing", "abort": "give up writing", "delete": "delete",
}  # fmt: skip


_MAY_BE_SILENT = {"abort", "delete", "complete"}
"""radosgw completes an upload, and may tell an empty ETag."""


class Gone(StoreFailure):
    """What was to be ended or deleted is not there any more."""


class Made(NamedTuple):
    """What the server tells of what it has made; empty what it does not tell."""

    etag: str
    checksum: str
    upload_id: str


@dataclass(slots=True)
class Change:
    """A request that changes something; `made` sends it, as often as it takes."""

    bucket: SignedBucket
    dialect: Dialect
    look: Look
    kind: str
    method: str
    key: str
    right: str
    """The permission that it needs."""

    query: Mapping[str, str] | None = None
    headers: Callable[[], Mapping[str, str]] = dict
    """Asked anew for each try, because the dialect may have become another one."""

    expected: Expected | None = None
    source: ObjectVersion | None = None
    """The version that is copied, and no other."""

    body: Body | None = None
    document: Document | None = None
    patience_s: float | None = None
    """How long the server may work before it answers; None: as for a read."""

    async def made(self) -> Made:
        """What the server has made.

        Raises WriteConflict, Gone, and what ObjectWriter promises.
        """
        trouble = self.bucket.trouble(self._what())
        outgoing: Outgoing | None = None
        if self.body is not None:
            outgoing = Outgoing(self.body, trouble, self.bucket.counters.of(self.kind))
        looked, sent = False, dict[str, str]()

        async def ask() -> Asked:
            nonlocal looked
            sent.clear()
            sent.update(self.headers())
            sent.update(self._conditions())
            if not self.dialect.conditions and not looked:
                looked = True
                await self._look_before()
            if outgoing is not None:
                checksum = await outgoing.prepare(checksum=self.dialect.checksums)
                if checksum:
                    sent[CHECKSUM] = checksum
            return self._asked(dict(sent), outgoing)

        async def receive(connection: Connection, head: Head) -> Made:
            return await self._received(connection, head, sent.get(CHECKSUM, ""))

        try:
            made = await self.bucket.exchange(
                self.kind,
                ask,
                receive,
                trouble,
                ahead=self.body is not None,  # leaves connections for readers who wait
                again=lambda answer: self._again(answer, sent),
                right=self.right,
            )
        except AccessDenied as denied:
            await self._denied_or_gone(denied)
            raise
        if self.source is not None and not self.dialect.conditions:
            # radosgw ignores x-amz-copy-source-if-match: only now it is known what was copied.
            await self._look(self.source.key, self.source.etag)
        return made

    def _asked(self, signed: Mapping[str, str], outgoing: Outgoing | None) -> Asked:
        payload = EMPTY_SHA256
        if self.document is not None:
            payload = sha256(self.document.data).hexdigest()
        if outgoing is not None:
            payload = UNSIGNED  # the bytes have TLS, or the signed checksum
        return Asked(
            encode_path(f"/{self.key}"),
            encode_query(self.query or {}),
            "",
            self.method,
            signed,
            payload,
            outgoing or self.document,
            self.patience_s,
        )

    def _conditions(self) -> dict[str, str]:
        found = {}
        if self.source is not None:
            path = encode_path(f"/{self.bucket.name}/{self.source.key}")
            found["x-amz-copy-source"] = path
            found["x-amz-copy-source-if-match"] = self.source.etag
        if self.expected is not None and self.dialect.conditions:
            if self.expected.etag is None:
                found["if-none-match"] = "*"
            else:
                found["if-match"] = self.expected.etag
        return found

    async def _received(self, connection: Connection, head: Head, checksum: str) -> Made:
        body = await whole(connection, head)
        inside = answers.read_inside(head, body)
        if inside is not None:
            raise ErrorInside(inside)
        _, fields = answers.document(body)
        etag = fields.get("ETag", "") or header(head, b"etag")
        upload_id = fields.get("UploadId", "")
        told = upload_id if self.kind == "begin" else etag
        if not told and self.kind not in _MAY_BE_SILENT:
            raise StoreFailure(f"The server does not tell what became of it: {self._what()}.")
        if etag and not etag.startswith('"'):
            etag = f'"{etag}"'  # listings have the quotes, and this will be compared with them
        return Made(etag, fields.get("ChecksumCRC32C", "") or checksum, upload_id)

    def _again(self, answer: Answer, sent: Mapping[str, str]) -> bool:
        """Whether the next try is another request. Raises what an answer means here only."""
        if self.dialect.learn(answer, sent):
            return True
        if answer.meaning is not Meaning.STALE:
            return False
        ended = self.kind in {"delete", "abort"} or answer.code == "NoSuchUpload"
        if answer.status == 404 and ended:
            raise Gone(f"It is not there any more: {self._what()}.")
        if self.source is not None:
            raise _conflict(self.source.key)
        if self.expected is not None:
            raise _conflict(self.key)
        raise StoreFailure(answer.error(self._what()).sentence)

    async def _denied_or_gone(self, denied: AccessDenied) -> None:
        """Raise what a 403 means if it is not a refusal: a missing key may not be asked for."""
        key, etag = self.key, self.expected.etag if self.expected is not None else None
        if self.source is not None:
            key, etag = self.source.key, self.source.etag
        if etag is None or type(denied) is not AccessDenied:
            return
        try:
            await self._look(key, etag)
        except (WriteConflict, Gone) as gone:
            raise gone from denied
        except StsfsError:
            return

    async def _look_before(self) -> None:
        if self.expected is not None:
            await self._look(self.key, self.expected.etag)
        if self.source is not None and self.kind == "copy":
            await self._look(self.source.key, self.source.etag)

    async def _look(self, key: str, etag: str | None) -> None:
        """Raise WriteConflict unless a listing shows what is expected; Gone for a delete."""
        found = await self.look(key)
        if found is None and self.kind == "delete":
            raise Gone(f"It is not there any more: {self._what()}.")
        if (found.etag if found is not None else None) != etag:
            raise _conflict(key)

    def _what(self) -> str:
        if self.source is not None:
            return f"copy {self.source.key!r} to {self.key!r}"
        return f"{_VERBS[self.kind]} {self.key!r}"


def _conflict(key: str) -> WriteConflict:
    return WriteConflict(f"{key!r} was changed by another client.")
