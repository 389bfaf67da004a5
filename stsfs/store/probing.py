"""Finding out what an S3 server does with the conditions of a change: on a key of our own."""

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import trio

from stsfs.errors import AccessDenied, StoreFailure, StsfsError
from stsfs.store.capabilities import Condition, Verdict
from stsfs.store.change import Change, Gone, Refused
from stsfs.store.object_store import ObjectVersion, Traits
from stsfs.store.s3_writer import S3Writer, document_of
from stsfs.store.stored import headers_of

log = logging.getLogger(__name__)

PROBE_NAME = ".stsfs-probe-"
PROBE_S = 30.0
"""As long as a probe may take; what it has not found out by then stays unknown."""

_CLEAN_UP_S = 10.0
_WRITE_ID = "probe"
_WRONG = '"00000000000000000000000000000000"'
_ABSENT, _OTHER = {"if-none-match": "*"}, {"if-match": _WRONG}
_Change = Callable[[], Awaitable[None]]
_DATA = b"stsfs asks what this server does with conditions, and removes this object.\n"


async def probe_capabilities(writer: S3Writer, prefix: str) -> str:
    """Find out what the server does with each condition; returns why not all is known, or "".

    About thirty small requests on a new key below prefix. Nothing is made unless it may be removed
    again, and nothing is left, also after an error and a cancellation. Raises nothing of ours; what
    is found is in `writer.capabilities` as it comes.
    """
    probe = _Probe(writer, f"{prefix}{PROBE_NAME}{secrets.token_hex(8)}")
    known = writer.capabilities
    with trio.move_on_after(PROBE_S):
        try:
            await probe.run()
        except AccessDenied as denied:
            return denied.sentence
        except StsfsError as failure:
            log.info("what the server does with conditions could not be found out: %s", failure)
            return failure.sentence
        known.found_by = "probe"
        return "" if known.is_known else "The server answered in a way that says neither."
    return f"The server did not answer within {PROBE_S:g} s."


class _Body:
    """The content of the object that is asked about."""

    size_bytes = len(_DATA)

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """See Body."""
        return _DATA[offset : offset + size_bytes]


class _Probe:
    """One run of questions; the objects that it needs are there only while it runs."""

    def __init__(self, writer: S3Writer, key: str) -> None:
        self._writer, self._key, self._copy_key = writer, key, f"{key}-copy"
        self._etag = self._copy_etag = ""
        """As they are now; empty while there is none."""

        self._upload_id = ""

    async def run(self) -> None:
        """Ask everything. Raises StsfsError; then nothing more can be found out."""
        await self._delete(self._key)  # nothing is there: it is asked whether that is allowed
        try:
            await self._ask_about_puts()
            for ask in (self._ask_about_uploads, self._ask_about_copies):
                try:
                    await ask()
                except (StsfsError, Refused) as failure:
                    log.info("not all could be found out about the server: %s", failure)
            await self._ask_about_deletes()
        finally:
            with trio.move_on_after(_CLEAN_UP_S, shield=True):
                await self._clean_up()

    async def _ask_about_puts(self) -> None:
        absent = Condition.PUT_IF_ABSENT
        if await self._is_taken(absent, partial(self._put, _ABSENT)):
            await self._is_heeded(absent, partial(self._put, _ABSENT))
        else:
            await self._put({})
        right = partial(self._put, {"if-match": self._etag})
        if await self._is_taken(Condition.PUT_IF_MATCH, right):
            await self._is_heeded(Condition.PUT_IF_MATCH, partial(self._put, _OTHER))

    async def _ask_about_uploads(self) -> None:
        absent, match = Condition.COMPLETE_IF_ABSENT, Condition.COMPLETE_IF_MATCH
        await self._is_heeded(absent, partial(self._upload, _ABSENT))
        right = partial(self._upload, {"if-match": self._etag})
        if await self._is_taken(match, right):
            await self._is_heeded(match, partial(self._upload, _OTHER))

    async def _ask_about_copies(self) -> None:
        source = Condition.COPY_SOURCE_IF_MATCH
        await self._is_heeded(source, partial(self._copy, {}, source_etag=_WRONG))
        await self._copy({})
        await self._is_heeded(Condition.COPY_IF_ABSENT, partial(self._copy, _ABSENT))
        right = partial(self._copy, {"if-match": self._copy_etag})
        if await self._is_taken(Condition.COPY_IF_MATCH, right):
            await self._is_heeded(Condition.COPY_IF_MATCH, partial(self._copy, _OTHER))

    async def _ask_about_deletes(self) -> None:
        condition = Condition.DELETE_IF_MATCH
        await self._is_heeded(condition, partial(self._delete, self._key, _OTHER))
        if self._writer.capabilities.verdicts[condition] is Verdict.HONOURED:
            right = {"if-match": self._etag}
            await self._is_taken(condition, partial(self._delete, self._key, right))

    async def _is_taken(self, condition: Condition, change: _Change) -> bool:
        """Whether a change whose condition is fulfilled is made: else the condition is no use."""
        try:
            await change()
        except (Refused, AccessDenied) as refused:
            log.debug("%s: %s", condition, refused)
            self._writer.capabilities.found(condition, Verdict.REFUSED)
            return False
        return True

    async def _is_heeded(self, condition: Condition, change: _Change) -> None:
        """Note what is done with a change whose condition is not fulfilled."""
        verdict = Verdict.IGNORED
        try:
            await change()
        except Refused as refused:
            is_failed = refused.answer.status == 412
            verdict = Verdict.HONOURED if is_failed else Verdict.REFUSED
        except AccessDenied:
            verdict = Verdict.REFUSED
        log.debug("%s: %s", condition, verdict)
        self._writer.capabilities.found(condition, verdict)

    async def _put(self, headers: Mapping[str, str]) -> None:
        writer = self._writer
        change = self._trial(writer.change("put", "PUT", self._key, "s3:PutObject"), headers)
        change.body = _Body()
        own = change.headers
        change.headers = lambda: {**own(), **headers_of(Traits(), _WRITE_ID), **writer.acl()}
        self._etag = await self._told_etag(change)

    async def _upload(self, headers: Mapping[str, str]) -> None:
        """An upload of one part, completed on a condition; given up where that is refused."""
        writer, key = self._writer, self._key
        self._upload_id = await writer.begin_upload(key, Traits(), write_id=_WRITE_ID)
        part = await writer.upload_part(key, self._upload_id, 1, _Body())
        query = {"uploadId": self._upload_id}
        change = writer.change("complete", "POST", key, "s3:PutObject", query)
        self._trial(change, headers).document = document_of([part])
        try:
            self._etag = await self._told_etag(change)
            writer.uploads.ended(self._upload_id)
            self._upload_id = ""
        except Refused:
            await self._abort()
            raise

    async def _copy(self, headers: Mapping[str, str], source_etag: str = "") -> None:
        change = self._writer.change("copy", "PUT", self._copy_key, "s3:PutObject")
        self._trial(change, headers).is_trial = True
        change.source = ObjectVersion(0, self._key, source_etag or self._etag, len(_DATA))
        own = change.headers
        change.headers = lambda: {**own(), **self._writer.acl()}
        self._copy_etag = await self._told_etag(change)

    async def _told_etag(self, change: Change) -> str:
        """What a change has made, looked up where the server does not tell."""
        etag = (await change.made()).etag or await self._writer.written(change.key, _WRITE_ID)
        if not etag:
            raise StoreFailure(f"The server does not tell what became of {change.key!r}.")
        return etag

    async def _delete(self, key: str, headers: Mapping[str, str] | None = None) -> None:
        change = self._writer.change("delete", "DELETE", key, "s3:DeleteObject")
        try:
            await self._trial(change, headers or {}).made()
        except Gone:
            return

    async def _abort(self) -> None:
        upload_id, self._upload_id = self._upload_id, ""
        await self._writer.abort_upload(self._key, upload_id)

    async def _clean_up(self) -> None:
        steps: list[_Change] = [self._abort] if self._upload_id else []
        steps += [partial(self._delete, self._key), partial(self._delete, self._copy_key)]
        for step in steps:
            try:
                await step()
            except StsfsError as failure:
                log.warning("%r, an object of stsfs's own, may stay behind: %s", self._key, failure)

    def _trial(self, change: Change, headers: Mapping[str, str]) -> Change:
        """With these conditions; without any, a refusal is an error as everywhere."""
        change.is_trial = bool(headers)
        change.headers = lambda: headers
        return change
