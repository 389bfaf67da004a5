"""One request that changes something: built for each try, and its refusals understood."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

import trio

from stsfs.errors import AccessDenied, StaleVersion, StoreFailure, StsfsError, WriteConflict
from stsfs.store import answers
from stsfs.store.answers import Answer, Meaning
from stsfs.store.capabilities import CHECKSUM, Condition, ServerCapabilities
from stsfs.store.etags import normal_etag, told_etag
from stsfs.store.exchange import ErrorInside, ignored
from stsfs.store.http_connection import Connection, Head
from stsfs.store.look import Look
from stsfs.store.object_store import Body, Expected, ObjectVersion
from stsfs.store.outgoing import Document, Outgoing
from stsfs.store.range_transfer import header, whole
from stsfs.store.signed_bucket import Asked, SignedBucket
from stsfs.store.sigv4 import EMPTY_SHA256, UNSIGNED, encode_path, encode_query
from stsfs.store.stored import Stored

_VERBS = {
    "put": "write", "begin": "begin to write", "part": "write a part of",
    "complete": "finish writing", "abort": "give up writing", "delete": "delete",
}  # fmt: skip


_UPLOAD_ID = re.compile(r"[!-~]{0,4096}")
_CRC32C = re.compile(r"(?:[A-Za-z0-9+/]{6}==)?")
_PARTS = {"part", "part_copy"}
"""What these tell is sent again. A whole object may have a checksum of checksums, `AAAAAA==-2`."""

_MAY_BE_SILENT = {"abort", "delete"}
"""No ETag comes with these."""


_TOLD_IN_BODY = {
    "copy": {"CopyObjectResult"}, "part_copy": {"CopyPartResult", "CopyObjectResult"},
    "complete": {"CompleteMultipartUploadResult"}, "begin": {"InitiateMultipartUploadResult"},
}  # fmt: skip
"""What becomes of these is told in the body, in such a document: of the first three S3 says 200
before it has done them. To all others it says nothing."""

_GONE = {"NoSuchKey", "NoSuchUpload"}
"""Codes that say with a 404 what is missing. Without one it may be anybody's."""


_IF_ABSENT = {
    "put": Condition.PUT_IF_ABSENT, "complete": Condition.COMPLETE_IF_ABSENT,
    "copy": Condition.COPY_IF_ABSENT,
}  # fmt: skip
_IF_MATCH = {
    "put": Condition.PUT_IF_MATCH, "complete": Condition.COMPLETE_IF_MATCH,
    "copy": Condition.COPY_IF_MATCH, "delete": Condition.DELETE_IF_MATCH,
}  # fmt: skip


class Gone(StoreFailure):
    """What was to be ended or deleted is not there any more."""


class _Nowhere(StoreFailure):
    """A 404 that does not say what is missing."""


class Refused(Exception):
    """What a change that is a trial raises for a refusal."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {answer.code}")
        self.answer = answer


class Made(NamedTuple):
    """What the server tells of what it has made; empty what it does not tell.

    All of it can be sent, and written down.
    """

    etag: str
    checksum: str
    upload_id: str


@dataclass(slots=True)
class Change:
    """A request that changes something; `made` sends it, as often as it takes."""

    bucket: SignedBucket
    capabilities: ServerCapabilities
    look: Look
    kind: str
    method: str
    key: str
    right: str
    """The permission that it needs."""

    query: Mapping[str, str] | None = None
    headers: Callable[[], Mapping[str, str]] = dict
    """Asked anew for each try, because the server's capabilities may be better known by then."""

    expected: Expected | None = None
    source: ObjectVersion | None = None
    """The version that is copied, and no other."""

    body: Body | None = None
    document: Document | None = None
    patience_s: float | None = None
    """How long the server may work before it answers; None: as for a read."""

    is_checked: bool = True
    """A body goes with its checksum, where the server knows that."""

    stored: Callable[[str], Awaitable[Stored]] | None = None
    """Tells what is stored at a key; for changes that write down which ones they came after."""

    lost: Callable[[], None] = ignored
    """Told when the request went out, and no answer came."""

    is_trial: bool = False
    """It is made to see what the server says: nothing is looked at, and Refused is raised."""

    tries: int = field(default=0, init=False)
    tries_before: int = field(default=0, init=False)
    """How often it had gone out, and may have happened, before what is known now."""

    looked_at_s: float = field(default=0.0, init=False)
    """When it was last looked whether what is expected is there; 0: the server does that."""

    lineage: tuple[str, ...] = field(default=(), init=False)
    """The changes that this one is known to come after, where it had to be looked."""

    refusal: Answer | None = field(default=None, init=False)
    """The last answer that was neither success nor passing trouble."""

    @property
    def condition(self) -> Condition | None:
        """The condition that is meant by `expected`; None where nothing is expected."""
        if self.expected is None:
            return None
        return (_IF_ABSENT if self.expected.etag is None else _IF_MATCH)[self.kind]

    @property
    def is_unguarded(self) -> bool:
        """Whether the server does not look for us whether what is expected is there."""
        return self.condition is not None and not self.capabilities.honours(self.condition)

    async def made(self) -> Made:
        """What the server has made.

        Raises WriteConflict, Gone, and what ObjectWriter promises.
        """
        self._check_told()
        trouble = self.bucket.trouble(self._what())
        outgoing: Outgoing | None = None
        if self.body is not None:
            outgoing = Outgoing(self.body, trouble, self.bucket.counters.of(self.kind))
        sent = dict[str, str]()
        if not self.is_trial and (self.expected is not None or self.source is not None):
            await self.capabilities.settled()

        async def ask() -> Asked:
            self.tries_before = self.tries
            await self._look_before()
            self.tries += 1
            sent.clear()
            sent.update(self.headers())
            sent.update(self._conditions())
            if outgoing is not None:
                is_checked = self.is_checked and self.capabilities.checksums
                checksum = await outgoing.prepare(checksum=is_checked)
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
        except (AccessDenied, _Nowhere) as refused:
            if not self.is_trial:
                await self._refused_or_gone(refused)
            raise
        if not self._is_source_guarded():
            await self.look_at_source()  # only now it is known what was copied
        return made

    async def look_at_source(self) -> None:
        """Raise WriteConflict unless what is copied is there, in the version that is meant."""
        assert self.source is not None
        await self._look(self.source.key, self.source.etag)

    async def look_at_target(self, etag: str | None) -> None:
        """Raise WriteConflict unless this version is at the key; None: unless nothing is."""
        await self._look(self.key, etag)

    def _check_told(self) -> None:
        """Raise StoreFailure where it is not known which version is meant: nothing is sent."""
        if self.source is not None:
            told_etag(self.source.etag, self.source.key)
        if self.expected is not None and self.expected.etag is not None:
            told_etag(self.expected.etag, self.key)

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
            self.lost,
        )

    def _conditions(self) -> dict[str, str]:
        found = {}
        if self.source is not None:
            path = encode_path(f"/{self.bucket.name}/{self.source.key}")
            found["x-amz-copy-source"] = path
            if self.capabilities.sends(Condition.COPY_SOURCE_IF_MATCH):
                found["x-amz-copy-source-if-match"] = self.source.etag
        if self.expected is not None and not self.is_unguarded:
            if self.expected.etag is None:
                found["if-none-match"] = "*"
            else:
                found["if-match"] = self.expected.etag
        return found

    def _conditions_in(self, sent: Mapping[str, str]) -> list[Condition]:
        """The conditions behind the headers that were sent."""
        asked = []
        if "x-amz-copy-source-if-match" in sent:
            asked.append(Condition.COPY_SOURCE_IF_MATCH)
        if self.condition is not None and sent.keys() & {"if-match", "if-none-match"}:
            asked.append(self.condition)
        return asked

    def _is_source_guarded(self) -> bool:
        honoured = self.capabilities.honours(Condition.COPY_SOURCE_IF_MATCH)
        return self.source is None or honoured or self.is_trial

    async def _received(self, connection: Connection, head: Head, checksum: str) -> Made:
        body = await whole(connection, head)
        with answers.understood(self._what()):
            inside = answers.read_inside(head, body)
        if inside is not None:
            raise ErrorInside(inside)
        root, fields = answers.document(body)
        # Else it is a page that somebody sends in its place, or the answer to another request.
        roots = _TOLD_IN_BODY.get(self.kind)
        is_told = root in roots if roots else not body.strip()
        etag = normal_etag(fields.get("ETag", "") or header(head, b"etag"))
        upload_id = fields.get("UploadId", "").strip()
        told_checksum = fields.get("ChecksumCRC32C", "").strip() if self.kind in _PARTS else ""
        if not (_UPLOAD_ID.fullmatch(upload_id) and _CRC32C.fullmatch(told_checksum)):
            raise StoreFailure(f"The server answers with what cannot be sent: {self._what()}.")
        told = upload_id if self.kind == "begin" else etag
        if self.kind == "complete":
            etag = etag if is_told else ""  # radosgw may tell none: it is looked up
        elif not is_told or not (told or self.kind in _MAY_BE_SILENT):
            raise StoreFailure(
                f"The server does not tell what became of it: {self._what()}.",
                remedy="Check the endpoint, and what lies between it and here.",
            )
        return Made(etag, told_checksum or checksum, upload_id)

    def _again(self, answer: Answer, sent: Mapping[str, str]) -> bool:
        """Whether the next try is another request. Raises what an answer means here only."""
        self.refusal = answer
        if self.is_trial and answer.meaning in {Meaning.STALE, Meaning.FINAL}:
            if answer.status != 501 and self.capabilities.learn(answer, sent, ()):
                return True
            raise Refused(answer)
        # A refusal to copy a part is about the operation itself, see uploads.why_not_copied.
        if self.kind != "part_copy" and self.capabilities.learn(
            answer, sent, self._conditions_in(sent)
        ):
            return True
        if answer.meaning is not Meaning.STALE:
            return False
        ended = self.kind in {"delete", "abort"} or answer.code == "NoSuchUpload"
        if answer.status == 404 and answer.code in _GONE and ended:
            raise Gone(f"It is not there any more: {self._what()}.")
        if answer.status == 404 and answer.code not in _GONE:
            raise _Nowhere(
                answer.error(self._what()).sentence,
                remedy="Check the endpoint, and what lies between it and here.",
            )
        if self.source is not None:
            raise _conflict(self.source.key)
        if self.expected is not None:
            raise _conflict(self.key)
        raise StoreFailure(answer.error(self._what()).sentence)

    async def _refused_or_gone(self, refused: AccessDenied | _Nowhere) -> None:
        """Raise what a refusal means if a listing shows that something is missing or another.

        A key that is not there may not be asked for (403), and some servers say of it only 404.
        """
        key, etag = self.key, self.expected.etag if self.expected is not None else None
        if self.source is not None:
            key, etag = self.source.key, self.source.etag
        if etag is None or type(refused) not in {AccessDenied, _Nowhere}:
            return
        try:
            await self._look(key, etag)
            if self.source is not None and self.expected is not None and self.expected.etag:
                await self._look(self.key, self.expected.etag)
        except (WriteConflict, Gone) as gone:
            raise gone from refused
        except StsfsError:
            return

    async def _look_before(self) -> None:
        """Before each try: nothing has changed that the server would not look at."""
        if self.is_unguarded:
            assert self.expected is not None
            self.looked_at_s = trio.current_time()
            if self.stored is None or self.expected.etag is None:
                await self._look(self.key, self.expected.etag)
            else:
                await self._look_into(self.expected.etag, self.stored)
        if self.kind == "copy" and not self._is_source_guarded():
            await self.look_at_source()

    async def _look_into(self, etag: str, stored: Callable[[str], Awaitable[Stored]]) -> None:
        """The same as _look, and what is there tells which changes ours comes after."""
        try:
            found = await stored(self.key)
        except StaleVersion as gone:
            raise _conflict(self.key) from gone
        except AccessDenied:  # also where there is none
            await self._look(self.key, etag)
            return
        if found.etag != etag:
            raise _conflict(self.key)
        self.lineage = found.lineage()

    async def _look(self, key: str, etag: str | None) -> None:
        """Raise WriteConflict unless a listing shows what is expected; Gone for a delete."""
        found = await self.look(key)
        if found is None and self.kind == "delete":
            raise Gone(f"It is not there any more: {self._what()}.")
        if found is None or etag is None:
            is_expected = found is None and etag is None
        else:
            is_expected = told_etag(found.etag, key) == etag
        if not is_expected:
            raise _conflict(key)

    def _what(self) -> str:
        if self.source is not None:
            return f"copy {self.source.key!r} to {self.key!r}"
        return f"{_VERBS[self.kind]} {self.key!r}"


def _conflict(key: str) -> WriteConflict:
    return WriteConflict(f"{key!r} was changed by another client.")
