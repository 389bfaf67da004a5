"""All that is being written in one location: staged files, their uploads, and repeated tries."""

import contextlib
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from stsfs.errors import StsfsError
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.file import StagingFile
from stsfs.staging.record import Record, State
from stsfs.store.object_store import (
    Expected,
    ObjectStore,
    ObjectVersion,
    ObjectWriter,
    Traits,
)
from stsfs.writer.content import StagedContent
from stsfs.writer.file_state import FileState, Paper
from stsfs.writer.local_disk import LocalDisk
from stsfs.writer.object_traits import kept_class
from stsfs.writer.publisher import Publisher, is_passing
from stsfs.writer.sources import OpenSource, StoreSource
from stsfs.writer.staged_file import StagedFile
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
        self._files: dict[StagedFile, None] = {}
        self._conflicts: deque[Pending] = deque(maxlen=CONFLICTS_SHOWN_MAX)
        self._retries: dict[StagedFile, _Retry] = {}
        self._retry_added = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own uploads and repeated tries until cancelled; then they are broken off."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._retry_all)
            task_status.started()
            await trio.sleep_forever()

    def stage_new(
        self, key: str, path: str, *, exclusive: bool = False, mode: int | None = None
    ) -> StagedFile:
        """An empty file where nothing is yet. Not a checkpoint."""
        file = FileState(
            key=key, path=path, expected=Expected(None), exclusive=exclusive, mode=mode
        )
        file.touch()
        file.untouched = True
        return self._staged(file, None)

    def stage_over(
        self, version: ObjectVersion, path: str, *, modified_ns: int, truncate: bool = False,
        mode: int | None = None, storage_class: str = "",
    ) -> StagedFile:  # fmt: skip
        """A file over a version of an object; with truncate, empty. Not a checkpoint."""
        file = FileState(
            key=version.key, path=path, expected=Expected(version.etag), mode=mode,
            version=version, modified_ns=modified_ns,
            kept=Traits(storage_class=kept_class(storage_class)),
            # What is stored beside bytes that are all thrown away says nothing of the new ones.
            is_base_known=truncate,
        )  # fmt: skip
        if truncate:
            file.touch()
            file.untouched = True
        return self._staged(file, None if truncate else version)

    def adopt(
        self, record: Record, staging_file: StagingFile, *, force: bool = False
    ) -> StagedFile:
        """What a process that died has left; force: whatever is at its key may be replaced."""
        base = record.base
        version = None
        if base is not None:
            version = ObjectVersion(self.location.location_id, base.key, base.etag, base.size_bytes)
        file = FileState(
            key=record.key, path=record.path, expected=None if force else record.expected,
            exclusive=record.exclusive, mode=record.mode, modified_ns=record.mtime_ns or 0,
            kept=record.traits, state="failed",
        )  # fmt: skip
        file.changes = 1
        return self._staged(file, version, record=record, staging_file=staging_file)

    def files(self) -> Sequence[StagedFile]:
        """All that are staged."""
        return list(self._files)

    def pending(self) -> list[Pending]:
        """What S3 has not got, conflicts included."""
        waiting = [_pending(file) for file in self._files if file.dirty and not file.detached]
        return waiting + list(self._conflicts)

    async def drain(self) -> list[Pending]:
        """Publish what nobody writes to, keep the rest on the local disk; returns what is left."""
        async with trio.open_nursery() as nursery:
            for file in self.files():
                if file.detached or file.state == "conflict":
                    continue
                nursery.start_soon(self._finish, file)
        await self._wire.abort_orphans()
        return self.pending()

    def left(self, file: StagedFile) -> None:
        """See Home."""
        self._files.pop(file, None)
        self._retries.pop(file, None)
        if file.state == "conflict":
            self._conflicts.append(_pending(file))

    def published(self, file: StagedFile) -> None:
        """See Home."""
        self._retries.pop(file, None)

    def failed(self, file: StagedFile, error: StsfsError) -> None:
        """See Home."""
        log.warning("%r is not in S3: %s", file.path, error)
        before = self._retries.pop(file, None)
        if not is_passing(error):
            return
        pause_s = RETRY_FIRST_S if before is None else min(2 * before.pause_s, RETRY_LAST_S)
        due_s = trio.current_time() + pause_s * random.uniform(0.75, 1.25)
        self._retries[file] = _Retry(pause_s, due_s)
        self._retry_added.set()

    def in_background(self, call: Callable[..., Awaitable[object]], *args: object) -> None:
        """Let a task of ours do something. Not a checkpoint."""
        assert self._nursery is not None, "run must be running"
        self._nursery.start_soon(call, *args)

    async def give_up(self, key: str, upload_id: str) -> None:
        """Abort an upload of which only a record tells; tried again later where that fails."""
        await self._wire.abort(key, upload_id)

    def _staged(
        self, file: FileState, base: ObjectVersion | None, *, record: Record | None = None,
        staging_file: StagingFile | None = None,
    ) -> StagedFile:  # fmt: skip
        assert self._nursery is not None, "run must be running"

        def changed(start: int, stop: int) -> None:
            file.touch()
            publisher.sender.touched(start, stop)

        content = StagedContent(
            self.staging,
            self._disk,
            self._open_source,
            changed,
            base=base,
            size_bytes=0 if base is None else base.size_bytes,
        )
        paper = Paper(self.location, file, content, self._disk)
        if record is not None and staging_file is not None:
            content.adopt(record, staging_file)
            paper.adopt(record)
        publisher = Publisher(
            self._wire, self.location.location_id, file, content, paper, self._nursery
        )
        if record is not None:
            publisher.inherit(record.write_id)
        staged = StagedFile(self, file, content, paper, publisher)
        self._files[staged] = None
        return staged

    async def _finish(self, file: StagedFile) -> None:
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
            assert self._nursery is not None
            for file, retry in list(self._retries.items()):
                if retry.due_s <= now_s:
                    retry.due_s = math.inf  # until it has failed again
                    self._nursery.start_soon(self._retry, file, retry)
            await self._wire.abort_orphans()

    async def _retry(self, file: StagedFile, retry: "_Retry") -> None:
        if file.state != "failed" or file.detached:
            self._retries.pop(file, None)  # written to since: whoever closes it publishes it
            return
        with contextlib.suppress(StsfsError):
            await file.publish()
        if not file.writable_handles:
            await file.close()
        if self._retries.get(file) is retry:  # it was the end of an earlier try that we saw
            retry.due_s = trio.current_time() + retry.pause_s
            self._retry_added.set()


@dataclass(slots=True)
class _Retry:
    """When a file is tried again."""

    pause_s: float
    due_s: float


def _pending(file: StagedFile) -> Pending:
    reason = "" if file.error is None else str(file.error)
    return Pending(file.path, file.key, file.size_bytes, file.sent_bytes, file.state, reason)
