"""What is known of one staged file beside its bytes, and the record of it on the local disk."""

import time
from dataclasses import dataclass, field

import trio

from stsfs.errors import StsfsError
from stsfs.staging.record import BaseVersion, Record, State
from stsfs.staging.spans import Spans
from stsfs.store.object_store import Expected, ObjectVersion, Traits
from stsfs.writer.content import StagedContent
from stsfs.writer.local_disk import LocalDisk
from stsfs.writer.object_traits import object_traits
from stsfs.writer.wire import LocationName


@dataclass(slots=True, kw_only=True)
class FileState:
    """Names, times, and how far the file has come. Changes between awaits only."""

    key: str
    path: str
    expected: Expected | None
    """What must be at the key to be replaced; None: whatever is there."""

    exclusive: bool = False
    version: ObjectVersion | None = None
    """What S3 has at key, as far as we know."""

    mode: int | None = None
    modified_ns: int = 0
    are_times_set: bool = False
    """Somebody has set modified_ns since the last change of the content."""

    kept: Traits = field(default_factory=Traits)
    """What stays of what was stored with the object that was there before."""

    is_base_known: bool = True
    """Whether it has been looked at for that."""

    changes: int = 0
    published_changes: int = 0
    """Up to which change S3 has the content."""

    untouched: bool = False
    """Made or cut off when it was opened, and nothing has been asked of it since."""

    state: State = "writing"
    error: StsfsError | None = None
    detached: bool = False

    @property
    def is_dirty(self) -> bool:
        """Whether S3 has something else."""
        return self.changes != self.published_changes

    def touch(self) -> None:
        """The content has changed, or is to be published though it has not."""
        self.changes += 1
        self.untouched = False
        self.modified_ns = time.time_ns()
        self.are_times_set = False

    def traits(self, *, is_final: bool) -> Traits:
        """What is stored with the object; its time too, where it will not change any more."""
        is_time_known = is_final or self.are_times_set
        return object_traits(self.kept, self.mode, self.modified_ns if is_time_known else None)


class Paper:
    """The record of one file on disk, as far as there is one. Raises StagingFull, StagingFailure.

    To be called under the lock of the content, so that bytes and record belong together.
    """

    def __init__(
        self, location: LocationName, file: FileState, content: StagedContent, disk: LocalDisk
    ) -> None:
        self.state: State | None = None
        """That of the record on disk; None: there is none."""

        self.write_id = ""
        """Of a publication of just this content that was begun; empty: none was."""

        self.upload_id: str | None = None
        self._location, self._file = location, file
        self._content, self._disk = content, disk

    def adopt(self, record: Record) -> None:
        """Take over the one that a process that died has left."""
        self.state, self.write_id, self.upload_id = record.state, record.write_id, None

    async def keep(
        self, state: State, *, durable: bool = False, size_bytes: int | None = None
    ) -> None:
        """Write it; with size_bytes as it will be once the file is cut off there."""
        record = self.record(state, size_bytes)
        if durable:
            await trio.to_thread.run_sync(self._keep, record, durable)
        else:
            await self._disk.run(_text_bytes(record), self._keep, record, durable)

    async def keep_and_read(self, state: State) -> bytes:
        """Write it, and read the whole content: in one go."""
        record = self.record(state)
        cost_bytes = _text_bytes(record) + record.size_bytes
        return await self._disk.run(cost_bytes, self._keep_and_read, record)

    async def writing_again(self, size_bytes: int | None = None) -> None:
        """The content is about to change: what lies on disk must not pass for the whole of it."""
        self.write_id = ""
        is_cut = size_bytes is not None and size_bytes < self._content.size_bytes
        if self.state is not None and (self.state != "writing" or is_cut):
            await self.keep("writing", size_bytes=size_bytes if is_cut else None)

    def gone(self) -> None:
        """It is not there any more, or nobody needs it."""
        self.state, self.upload_id = None, None

    def record(self, state: State, size_bytes: int | None = None) -> Record:
        """The record as it is to be written now."""
        file, content, location = self._file, self._content, self._location
        size_bytes = content.size_bytes if size_bytes is None else size_bytes
        present: Spans = content.present.copy()
        present.clip(size_bytes)
        return Record(
            location_uri=location.uri,
            endpoint_url=location.endpoint_url,
            label=location.label,
            key=file.key,
            path=file.path,
            size_bytes=size_bytes,
            present=tuple(present),
            base=_base(content.base, min(content.limit_bytes, size_bytes)),
            expected=file.expected,
            exclusive=file.exclusive,
            mode=file.mode,
            mtime_ns=file.modified_ns,
            traits=file.kept,
            write_id=self.write_id,
            upload_id=self.upload_id,
            state=state,
            reason="" if file.error is None else str(file.error),
            changed_unix_s=time.time(),
        )

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
