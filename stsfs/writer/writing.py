"""All that is being written in one location: staged files, their uploads, and repeated tries."""

import logging
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from stsfs.errors import StsfsError
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.file import StagingFile
from stsfs.staging.record import Record, State
from stsfs.store.etags import told_etag
from stsfs.store.object_store import (
    Expected,
    ObjectStore,
    ObjectVersion,
    ObjectWriter,
    Traits,
)
from stsfs.supervisor import TaskPool, contained, kept_running
from stsfs.writer.attempt import is_passing
from stsfs.writer.content import StagedContent
from stsfs.writer.dirty_file import DirtyFile
from stsfs.writer.dirty_state import DirtyState
from stsfs.writer.file_facts import FileFacts
from stsfs.writer.local_disk import LocalDisk
from stsfs.writer.object_traits import kept_class
from stsfs.writer.sources import OpenSource, StoreSource
from stsfs.writer.wire import LocationName, Wire

log = logging.getLogger(__name__)

UPLOADS_MAX = 16
"""Bodies on their way at a time; the rest of the connections is for those who read."""

RETRY_FIRST_S, RETRY_LAST_S = 5.0, 300.0
"""Pauses between tries of what failed: each twice as long as the one before, up to the last."""

CONFLICTS_SHOWN_MAX = 1000
"""Conflicts that status lists; all of them are in `stsfs recover`."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Something that S3 has not got, or not as it is here."""

    path: str
    key: str
    size_bytes: int
    sent_bytes: int
    state: State
    reason: str


class Writers:
    """Owns the staged files of one location. `run` must be running while they are used."""

    def __init__(
        self, location: LocationName, store: ObjectStore, writer: ObjectWriter,
        staging: StagingDirectory, *, open_source: OpenSource | None = None,
        uploads_max: int = UPLOADS_MAX,
    ) -> None:  # fmt: skip
        self.location, self.store, self.writer = location, store, writer
        self.staging = staging
        self._open_source = open_source or (lambda version: StoreSource(store, version))
        self._disk = LocalDisk()
        self._wire = Wire(store, writer, uploads_max=uploads_max)
        self._files: dict[DirtyFile, None] = {}
        self._conflicts: deque[Pending] = deque(maxlen=CONFLICTS_SHOWN_MAX)
        self._retries: dict[DirtyFile, _Retry] = {}
        self._retry_added = trio.Event()
        self.tasks = TaskPool(f"uploads to {location.uri}")
        """Whatever is done in the background for files of this location."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own uploads and repeated tries until cancelled; then they are broken off."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.tasks.run)
            self.tasks.start("retries", kept_running, "retries of uploads", self._retry_all)
            task_status.started()

    def stage_new(
        self, key: str, path: str, *, exclusive: bool = False, mode: int | None = None
    ) -> DirtyFile:
        """An empty file where nothing is yet. Not a checkpoint."""
        facts = FileFacts(
            key=key, path=path, expected=Expected(None), exclusive=exclusive, mode=mode
        )
        file = self._staged(facts, None)
        file.begin_empty()
        return file

    def stage_over(
        self, version: ObjectVersion, path: str, *, modified_ns: int, truncate: bool = False,
        mode: int | None = None, storage_class: str = "",
    ) -> DirtyFile:  # fmt: skip
        """A file over a version of an object; with truncate, empty. Not a checkpoint.

        Raises StoreFailure where the server tells no ETag: it could never be published.
        """
        told_etag(version.etag, version.key)
        facts = FileFacts(
            key=version.key, path=path, expected=Expected(version.etag), mode=mode,
            version=version, modified_ns=modified_ns,
            kept=Traits(storage_class=kept_class(storage_class)),
            # What is stored beside bytes that are all thrown away says nothing of the new ones.
            is_base_known=truncate,
        )  # fmt: skip
        file = self._staged(facts, None if truncate else version)
        if truncate:
            file.begin_empty()
        return file

    def adopt(self, record: Record, staging_file: StagingFile, *, force: bool = False) -> DirtyFile:
        """What a process that died has left; force: whatever is at its key may be replaced."""
        base = record.base
        version = None
        if base is not None:
            version = ObjectVersion(self.location.location_id, base.key, base.etag, base.size_bytes)
        facts = FileFacts(
            key=record.key, path=record.path, expected=None if force else record.expected,
            exclusive=record.exclusive, mode=record.mode, kept=record.traits,
            is_base_known=force or not record.lacks_traits,
        )  # fmt: skip
        return self._staged(facts, version, record=record, staging_file=staging_file)

    def files(self) -> Sequence[DirtyFile]:
        """All that are staged."""
        return list(self._files)

    def pending(self) -> list[Pending]:
        """What S3 has not got, conflicts included."""
        waiting = [_pending(file) for file in self._files if file.dirty and _is_kept(file)]
        return waiting + list(self._conflicts)

    async def drain(self) -> list[Pending]:
        """Publish what nobody writes to, keep the rest on the local disk; returns what is left."""
        async with trio.open_nursery() as nursery:
            for file in self.files():
                if not file.detached:
                    nursery.start_soon(contained, f"the end of {file.path!r}", self._finish, file)
        await self._wire.abort_orphans()
        return self.pending()

    def ended(self, file: DirtyFile, *, is_kept: bool) -> None:
        """See Home."""
        self._files.pop(file, None)
        self._retries.pop(file, None)
        if is_kept:
            self._conflicts.append(_pending(file, "conflict"))

    def published(self, file: DirtyFile) -> None:
        """See Home."""
        self._retries.pop(file, None)

    def failed(self, file: DirtyFile, error: StsfsError) -> None:
        """See Home."""
        log.warning("%r is not in S3: %s", file.path, error)
        before = self._retries.pop(file, None)
        if not is_passing(error):
            return
        pause_s = RETRY_FIRST_S if before is None else min(2 * before.pause_s, RETRY_LAST_S)
        due_s = trio.current_time() + pause_s * random.uniform(0.75, 1.25)
        self._retries[file] = _Retry(pause_s, due_s)
        self._retry_added.set()

    async def give_up(self, key: str, upload_id: str) -> None:
        """Abort an upload of which only a record tells; tried again later where that fails."""
        await self._wire.abort(key, upload_id)

    def _staged(
        self,
        facts: FileFacts,
        base: ObjectVersion | None,
        *,
        record: Record | None = None,
        staging_file: StagingFile | None = None,
    ) -> DirtyFile:
        size_bytes = 0 if base is None else base.size_bytes
        content = StagedContent(
            self.staging, self._disk, self._open_source, base=base, size_bytes=size_bytes
        )
        if record is not None and staging_file is not None:
            content.adopt(record, staging_file)
        file = DirtyFile(self, self._wire, self.location, facts, content, self.tasks)
        if record is not None:
            file.begin_left(record)
        self._files[file] = None
        return file

    async def _finish(self, file: DirtyFile) -> None:
        try:
            if file.writable_handles:
                await file.keep()
            else:
                await file.publish()
                await file.close()
        except StsfsError as exc:
            log.error("%r is left: %s", file.path, exc)

    async def _retry_all(self) -> None:
        while True:
            due_s = min((each.due_s for each in self._retries.values()), default=math.inf)
            if self._wire.orphans:
                due_s = min(due_s, trio.current_time() + RETRY_LAST_S)
            self._retry_added = trio.Event()
            with trio.move_on_at(due_s):
                await self._retry_added.wait()
                continue
            now_s = trio.current_time()
            for file, retry in list(self._retries.items()):
                if retry.due_s <= now_s:
                    retry.due_s = math.inf  # until it has failed again
                    self.tasks.start(f"retry of {file.path!r}", self._retry, file, retry)
            await self._wire.abort_orphans()

    async def _retry(self, file: DirtyFile, retry: "_Retry") -> None:
        if file.state is not DirtyState.FAILED:
            self._retries.pop(file, None)  # written to since: whoever closes it publishes it
            return
        await file.retry()
        if self._retries.get(file) is retry:  # it was the end of an earlier try that we saw
            retry.due_s = trio.current_time() + retry.pause_s
            self._retry_added.set()


@dataclass(slots=True)
class _Retry:
    """When a file is tried again."""

    pause_s: float
    due_s: float


def _is_kept(file: DirtyFile) -> bool:
    """Whether the bytes of a file are wanted: under its name, or as those of a conflict."""
    return not file.detached or file.state is DirtyState.CONFLICT


def _pending(file: DirtyFile, state: State | None = None) -> Pending:
    reason = "" if file.error is None else str(file.error)
    state = state or file.record_state
    return Pending(file.path, file.key, file.size_bytes, file.sent_bytes, state, reason)
