"""The record of a file that is being written, as it lies beside its bytes on the local disk."""

import time
from collections.abc import Callable

import trio

from stsfs.staging.record import BaseVersion, Record, State
from stsfs.staging.spans import Spans
from stsfs.store.object_store import ObjectVersion, Part
from stsfs.writer.content import StagedContent
from stsfs.writer.file_facts import FileFacts
from stsfs.writer.unconfirmed import UnconfirmedWrites
from stsfs.writer.upload import Upload
from stsfs.writer.wire import LocationName


class RecordFile:
    """Writes the record; owned by DirtyFile, and used under the lock of the content.

    Raises StagingFull and StagingFailure.
    """

    def __init__(
        self,
        location: LocationName,
        facts: FileFacts,
        content: StagedContent,
        reason: Callable[[], str],
    ) -> None:
        """reason gives why the content is not in S3; empty: nobody has tried."""
        self.state: State | None = None
        """As it lies on the disk; None: there is none."""

        self.write_id = ""
        """Of a publication of just this content that was begun; empty: none was."""

        self.unconfirmed = UnconfirmedWrites()
        """Publications that were begun; the record names them all."""

        self.upload: Upload | None = None
        """The upload that has to be finished or given up."""

        self._location, self._facts = location, facts
        self._content, self._disk, self._reason = content, content.disk, reason

    def adopt(self, record: Record) -> None:
        """Take over the record that another process has left. The upload it names is not ours."""
        self.state, self.write_id = record.state, record.write_id

    async def keep(
        self, state: State, *, durable: bool = False, size_bytes: int | None = None
    ) -> None:
        """Write it, durable against a crash of the machine if asked for.

        With size_bytes it says what it will be once the file is cut off there.
        """
        record = self._record(state, size_bytes)
        if durable:
            await trio.to_thread.run_sync(self._keep, record, durable)
        else:
            await self._disk.run(_text_bytes(record), self._keep, record, durable)

    async def keep_and_read(self, state: State) -> bytes:
        """Write it and read the whole content, in one thread hop at most."""
        record = self._record(state)
        cost_bytes = _text_bytes(record) + record.size_bytes
        return await self._disk.run(cost_bytes, self._keep_and_read, record)

    async def settle(self) -> None:
        """S3 has all of the content: nobody who finds the record is to make the object again."""
        await self._disk.run(0, self._content.made_file().settle)
        self.state = "published"

    async def content_will_change(self, size_bytes: int | None = None) -> None:
        """Before each change: what lies on the disk must not pass for the whole content.

        size_bytes is given by a change that sets the size.
        """
        self.write_id = ""
        is_cut = size_bytes is not None and size_bytes < self._content.size_bytes
        if self.state is not None and (self.state != "writing" or is_cut):
            await self.keep("writing", size_bytes=size_bytes if is_cut else None)

    def forget(self) -> None:
        """It is not on the disk any more, or nobody needs it. Not a checkpoint."""
        self.state, self.upload = None, None

    def _record(self, state: State, size_bytes: int | None = None) -> Record:
        facts, content, location = self._facts, self._content, self._location
        size_bytes = content.size_bytes if size_bytes is None else size_bytes
        present = content.present.copy()
        present.clip(size_bytes)
        parked = content.parked.copy()
        parked.clip(size_bytes)
        return Record(
            location_uri=location.uri,
            endpoint_url=location.endpoint_url,
            label=location.label,
            key=facts.key,
            path=facts.path,
            size_bytes=size_bytes,
            present=tuple(present),
            base=_base(content.base, min(content.limit_bytes, size_bytes)),
            expected=facts.expected,
            exclusive=facts.exclusive,
            mode=facts.mode,
            mtime_ns=facts.modified_ns,
            traits=facts.kept,
            lacks_traits=not facts.is_base_known,
            write_id=self.write_id,
            earlier=self._earlier(),
            upload_id=None if self.upload is None else self.upload.upload_id,
            upload_write_id=self.upload.write_id if parked and self.upload else "",
            parked=tuple(parked),
            parts=self._parts_with(parked),
            state=state,
            reason=self._reason(),
            changed_unix_s=time.time(),
        )

    def _earlier(self) -> tuple[tuple[str, int], ...]:
        latest_first = [each for each in self.unconfirmed.candidates() if each[0] != self.write_id]
        return tuple(reversed(latest_first))

    def _parts_with(self, parked: Spans) -> tuple[Part, ...]:
        if self.upload is None or not parked:
            return ()
        return tuple(part for part, span in self.upload.whole_parts() if parked.overlaps(*span))

    def _keep(self, record: Record, durable: bool) -> None:
        self._content.made_file().keep(record, durable=durable)
        self.state = record.state

    def _keep_and_read(self, record: Record) -> bytes:
        if record.size_bytes:
            self._keep(record, durable=False)
        return self._content.whole()


def _text_bytes(record: Record) -> int:
    """About how long it is on disk."""
    return 1024 + 32 * len(record.present)


def _base(version: ObjectVersion | None, limit_bytes: int) -> BaseVersion | None:
    if version is None or not limit_bytes:
        return None
    return BaseVersion(
        key=version.key, etag=version.etag, size_bytes=version.size_bytes, limit_bytes=limit_bytes
    )
