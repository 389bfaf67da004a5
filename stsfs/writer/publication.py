"""How the content of a file becomes an object, and how doubtful answers are resolved.

It decides nothing about the file: it tells the owner what has happened.
"""

import logging
from typing import Protocol

from stsfs.errors import AccessDenied, StaleVersion, WriteConflict
from stsfs.staging.record import Record
from stsfs.store.object_store import Expected, ObjectVersion, Traits
from stsfs.supervisor import TaskPool
from stsfs.writer.content import StagedContent
from stsfs.writer.file_facts import FileFacts
from stsfs.writer.object_traits import kept_traits
from stsfs.writer.record_file import RecordFile
from stsfs.writer.sender import PUT_BYTES_MAX, Sender
from stsfs.writer.unconfirmed import Snapshot, UnconfirmedWrites
from stsfs.writer.wire import Wire

log = logging.getLogger(__name__)

KEPT = "What was written here is kept: see `stsfs recover`."


class Owner(Protocol):
    """The file whose content is published. Implemented by DirtyFile."""

    @property
    def changes(self) -> int:
        """Counts up with each change of the content."""

    @property
    def dirty(self) -> bool:
        """Whether S3 has something else."""

    @property
    def is_unwanted(self) -> bool:
        """Whether the attempt is to be broken off."""

    async def made(self, snapshot: Snapshot, version: ObjectVersion) -> None:
        """S3 has this snapshot of the content."""

    def found(self, version: ObjectVersion) -> None:
        """S3 has what an older attempt made. Not a checkpoint."""

    def taken(self, changes: int) -> None:
        """The attempt that is under way publishes this state. Not a checkpoint."""

    def raise_if_torn(self) -> None:
        """Raise StagingFull or StagingFailure where bytes of a failed write are lacking."""


class Publication:
    """Makes the object of one file, as often as that is asked for.

    Raises what ObjectWriter raises, WriteConflict where another client was faster, and
    StagingFull or StagingFailure.
    """

    def __init__(
        self,
        owner: Owner,
        wire: Wire,
        location_id: int,
        facts: FileFacts,
        content: StagedContent,
        record: RecordFile,
        tasks: TaskPool,
    ) -> None:
        self.sender = Sender(wire, content, tasks)
        self._owner, self._wire, self._location_id = owner, wire, location_id
        self._facts, self._content, self._record = facts, content, record
        self._unconfirmed = record.unconfirmed = UnconfirmedWrites()
        self._is_inherited = False
        """The last attempt was that of a process that died."""

    def inherit(self, record: Record) -> None:
        """A process that died may have published this content, or what it was before."""
        self._unconfirmed.inherit(record.earlier)
        if record.write_id:
            size_bytes, changes = self._content.size_bytes, self._owner.changes
            self._unconfirmed.begin(
                Snapshot(changes, size_bytes, record.write_id, is_single_put=False)
            )
            self._is_inherited = True

    def adopt(self, record: Record) -> None:
        """Go on with the upload that has the only copy of some bytes. Raises StagingFailure."""
        self.sender.adopt(self._facts.key, record)
        self._record.upload = self.sender.upload

    def note_copy(self, source: ObjectVersion) -> None:
        """A copy of this object may be what S3 has at the key of a file that was only here."""
        if self._facts.version is None:
            self._unconfirmed.begin_copy(source)

    async def confirm(self) -> None:
        """Find out whether S3 has what an attempt made that seemed to fail."""
        if self._unconfirmed:
            await self._recognise()

    async def make_object(self) -> None:
        """Return when S3 has the content as it was when the owner heard of `taken`, or later."""
        if self._is_inherited:
            if await self._recognise():
                return
            self._is_inherited = False
        await self._ask_for_base()
        if self._content.size_bytes >= PUT_BYTES_MAX:
            async with self._content.lock:
                await self._record.keep("closed")
        while True:
            try:
                etag = await self.sender.send(self)
                break
            except (WriteConflict, StaleVersion) as exc:
                if not await self._recognise():
                    raise self._conflict(exc) from exc
                if not self._owner.dirty:
                    return
        await self._made(etag)

    def _conflict(self, found: WriteConflict | StaleVersion) -> WriteConflict:
        """What the user is told. A StaleVersion speaks of the request that met it."""
        told = f"{self._facts.key!r} was changed by another client."
        if isinstance(found, WriteConflict):
            told = found.sentence
        return WriteConflict(told, remedy=KEPT)

    async def _ask_for_base(self) -> None:
        """What is stored beside the object that is changed stays, whoever wrote it."""
        facts = self._facts
        replaced = facts.version or self._replaced()
        if facts.is_base_known or replaced is None:
            return
        try:
            found = await self._wire.writer.traits(replaced)
        except StaleVersion as exc:
            if not await self._recognise():
                raise self._conflict(exc) from exc
            return
        except AccessDenied:
            log.info("nothing can be learnt of what is stored beside %r", facts.key)
        else:
            facts.kept = kept_traits(found, facts.kept.storage_class)
        facts.is_base_known = True

    def _replaced(self) -> ObjectVersion | None:
        """What a process that died was to replace, as far as its record tells."""
        facts, base = self._facts, self._content.base
        if facts.expected is None or facts.expected.etag is None:
            return None
        # Of what is all written anew the size was not noted; to ask for one byte is enough.
        size_bytes = 1 if base is None else base.size_bytes
        return ObjectVersion(self._location_id, facts.key, facts.expected.etag, size_bytes)

    async def _recognise(self) -> bool:
        """Whether what S3 has is what an earlier attempt of ours made, though it seemed to fail."""
        latest = self._unconfirmed.latest
        for write_id, size_bytes in self._unconfirmed.candidates():
            etag = await self._wire.writer.written(self._facts.key, write_id)
            if etag is None:
                continue
            if latest is not None and latest.write_id == write_id:
                await self._made(etag)
                return True
            self._found(etag, size_bytes)
            return True
        for source in self._unconfirmed.copied():
            etag = await self._wire.writer.copied(source, self._facts.key)
            if etag is not None:
                self._found(etag, source.size_bytes)
                return True
        return False

    def _found(self, etag: str, size_bytes: int) -> None:
        self._owner.found(ObjectVersion(self._location_id, self._facts.key, etag, size_bytes))
        self._unconfirmed.forget_older()

    async def _made(self, etag: str) -> None:
        snapshot = self._unconfirmed.latest
        assert snapshot is not None, "what was published was a snapshot before"
        self._unconfirmed.clear()
        version = ObjectVersion(self._location_id, self._facts.key, etag, snapshot.size_bytes)
        await self._owner.made(snapshot, version)

    # What the sender asks for; see Publishing.

    @property
    def key(self) -> str:
        """See Publishing."""
        return self._facts.key

    @property
    def expected(self) -> Expected | None:
        """See Publishing."""
        return self._facts.expected

    @property
    def changes(self) -> int:
        """See Publishing."""
        return self._owner.changes

    @property
    def is_unwanted(self) -> bool:
        """See Publishing."""
        return self._owner.is_unwanted

    def traits(self, *, is_final: bool) -> Traits:
        """See Publishing."""
        return self._facts.traits(is_final=is_final)

    async def seal(self, write_id: str, *, with_bytes: bool) -> tuple[str, bytes]:
        """See Publishing."""
        self._owner.raise_if_torn()
        before, changes = self._unconfirmed.latest, self._owner.changes
        if before is not None and before.is_single_put and with_bytes and before.changes == changes:
            write_id = before.write_id  # the same once more: it may have happened already
        self._record.write_id = write_id
        data = b""
        if with_bytes:
            data = await self._record.keep_and_read("closed")
        else:
            await self._record.keep("closed")
        self._content.mark()
        self._unconfirmed.begin(
            Snapshot(changes, self._content.size_bytes, write_id, is_single_put=with_bytes)
        )
        self._owner.taken(changes)
        return write_id, data

    async def note_upload(self) -> None:
        """See Publishing."""
        async with self._content.lock:
            if self.sender.upload is not None:
                self._record.upload = self.sender.upload
                await self._record.keep(self._record.state or "writing")

    async def is_completed(self) -> bool:
        """See Publishing."""
        return await self._recognise()
