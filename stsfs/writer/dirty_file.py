"""The one owner of a file that is being written: bytes, base, state, record, waiters, last error.

There is one per inode from the first change of its content until S3 has all of it and nobody has
it open for writing. Names, moves and uploads talk to it; nobody else changes what it owns.

Changes are counted: an attempt to publish takes the content, and the count, of one moment.

Invariant: every byte whose write, fsync or close was answered with success is in S3, or lies on the
local disk with a record that `stsfs recover` lists, or was removed or replaced by a later operation
that succeeded.
"""

import copy
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from stsfs.errors import (
    AlreadyExists,
    StagingFailure,
    StaleVersion,
    StoreFailure,
    StsfsError,
    WriteConflict,
    without_frames,
)
from stsfs.staging.record import Record, State
from stsfs.store.object_store import Expected, ObjectVersion
from stsfs.supervisor import TaskPool
from stsfs.writer.attempt import Attempt, is_passing, logged, unexpected
from stsfs.writer.content import Parked, StagedContent
from stsfs.writer.dirty_state import (
    NAMELESS,
    RECORD_STATES,
    SETTLED_BY_SUCCESS,
    UNWANTED,
    DirtyState,
    check_transition,
)
from stsfs.writer.editor import ContentEditor
from stsfs.writer.file_facts import FileFacts
from stsfs.writer.listeners import FileEnded, Home, Watcher
from stsfs.writer.locks import OrderedLock, Rank
from stsfs.writer.publication import KEPT, Publication
from stsfs.writer.record_file import RecordFile
from stsfs.writer.sender import Abandoned
from stsfs.writer.unconfirmed import Snapshot
from stsfs.writer.window import StagingWindow
from stsfs.writer.wire import LocationName, Wire

log = logging.getLogger(__name__)


class DirtyFile:
    """One file that is being written.

    Raises StagingFull and StagingFailure, and what ObjectStore raises for bytes that only the base
    has. `open_handles` and `writable_handles` are the caller's to count, and so is calling `close`
    when a handle has gone.
    """

    def __init__(
        self, home: Home, wire: Wire, location: LocationName, facts: FileFacts,
        content: StagedContent, tasks: TaskPool,
    ) -> None:  # fmt: skip
        """content and facts are this object's own from now on; tasks runs attempts."""
        self.watcher: Watcher | None = None
        self.turn = OrderedLock(Rank.TURN)
        """Held by whoever publishes, renames, removes or ends it. That of its inode, if any."""

        self.open_handles = 0
        """Handles of any kind; only a file without a name is kept for those that read."""

        self.writable_handles = 0
        self.error: StsfsError | None = None
        """Of the last attempt; None after a success."""

        self.untouched = False
        """Only made or cut off when it was opened: a flush says nothing yet."""

        self._state = DirtyState.CLEAN
        self._changes = self._published_changes = 0
        self._failed_changes = self._kept_changes = -1
        """Counts of the content that an attempt failed with, and that `keep` has made sure of."""

        self._home = home
        self._facts, self._content, self._tasks = facts, content, tasks
        self._record = RecordFile(
            location, facts, content, lambda: self.error.sentence if self.error else ""
        )
        self._publication = Publication(
            self, wire, location.location_id, facts, content, self._record, tasks
        )
        self._sender = self._publication.sender
        self._window = StagingWindow(content, self._record, self._sender, wire.room)
        self._sender.after_part = self._window.shrink_if_short
        self._editor = ContentEditor(
            content, self._record, self._sender, self._window,
            raise_if_ended=self._raise_if_ended, fetch_back=self._fetch_back,
        )  # fmt: skip
        self._attempt: Attempt | None = None
        self._removal_ended = trio.Event()
        content.on_change = self._content_changed

    # How it begins.

    def begin_empty(self) -> None:
        """An empty content that S3 does not have. Once, before anything else."""
        self._note_change()
        self.untouched = True

    def begin_left(self, record: Record) -> None:
        """What a process that died has left, and perhaps published. Once, before anything else."""
        self._note_change()
        self._facts.modified_ns = record.mtime_ns or 0
        self._record.adopt(record)
        self._publication.inherit(record)
        if record.parked:
            self._publication.adopt(record)
        self._failed_changes = self._changes
        self._to(DirtyState.FAILED)

    # What it is.

    @property
    def state(self) -> DirtyState:
        """How it stands with S3."""
        return self._state

    @property
    def record_state(self) -> State:
        """The same in the words of records and of `stsfs status`."""
        return "writing" if self._editor.torn else RECORD_STATES[self._state]

    @property
    def key(self) -> str:
        """Where it will be published."""
        return self._facts.key

    @property
    def path(self) -> str:
        """Below the mount point, without a slash in front."""
        return self._facts.path

    @property
    def size_bytes(self) -> int:
        """As stat shows it."""
        return self._content.size_bytes

    @property
    def modified_ns(self) -> int:
        """Of the last change, or what `set_times` was told since."""
        return self._facts.modified_ns

    @property
    def mode(self) -> int | None:
        """Permission bits; None: nobody has set them."""
        return self._facts.mode

    @property
    def version(self) -> ObjectVersion | None:
        """What S3 has at the key as far as is known; None: nothing of ours."""
        return self._facts.version

    @property
    def changes(self) -> int:
        """Counts up with each change of the content."""
        return self._changes

    @property
    def has_parked(self) -> bool:
        """Whether only an upload under its present key has some of its bytes."""
        return bool(self._content.parked)

    @property
    def dirty(self) -> bool:
        """Whether S3 has something else. New files and truncated ones begin so."""
        return self._changes != self._published_changes

    @property
    def detached(self) -> bool:
        """Whether no name leads to it any more: nothing is uploaded."""
        return self._state in NAMELESS

    @property
    def is_unwanted(self) -> bool:
        """Whether an attempt is to be broken off."""
        return self._state in UNWANTED

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._state is DirtyState.ENDED

    @property
    def sent_bytes(self) -> int:
        """How much of it has gone ahead into an upload."""
        return self._sender.sent_bytes

    # What whoever has it open asks for.

    async def write(self, offset: int, data: bytes | memoryview) -> int:
        """Put all of data at offset; returns how many bytes that were. Raises FileEnded."""
        if not len(data):
            await trio.lowlevel.checkpoint()
            return 0
        await self._editor.write(self._publication, offset, data)
        self._sender.stream(self._publication)
        return len(data)

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        """Bytes from offset on; short only at the end. Raises FileEnded."""
        while True:
            self._raise_if_ended()
            version = self.version
            try:
                return await self._content.read(offset, size_bytes)
            except Parked:
                await self._fetch_back()
            except StaleVersion:
                # An attempt of ours may have replaced it whose answer has not come (yet).
                async with self.turn:
                    if await self.settle() == version:
                        raise
            except StagingFailure:
                if not self.closed:
                    raise

    async def truncate(self, size_bytes: int) -> None:
        """Cut it off, or let it end in zeros. The size that it has is no change.

        Raises FileEnded.
        """
        self.untouched = False
        await self._editor.truncate(size_bytes)

    async def _fetch_back(self) -> None:
        """Bytes are needed that only an upload has: it is completed, and they are read from S3.

        Raises StaleVersion where nothing may be published any more.
        """
        await self.publish()
        if self.detached and self._content.parked:
            raise StaleVersion(f"Bytes of {self.path!r} were only in an upload that was given up.")

    async def keep(self) -> None:
        """Bytes and record are on the local disk, for this process or another to publish."""
        is_conflict = self._state is DirtyState.CONFLICT
        is_safe = self._changes in (self._kept_changes, self._published_changes)
        if is_safe or (self.detached and not is_conflict):
            await trio.lowlevel.checkpoint()
            return
        async with self._content.lock:
            changes = self._changes
            # What is being published and has not changed since stays that.
            state = "conflict" if is_conflict else self._record.state or "writing"
            await self._record.keep(state, durable=True)
            self._kept_changes = changes

    async def publish(self) -> ObjectVersion | None:
        """Return when S3 has the content as it is now, or a newer one of ours; None: no name.

        Raises what ObjectWriter raises, AlreadyExists for a file that was made with O_EXCL, and
        StagingFull or StagingFailure where a write has failed and was not repaired. An attempt goes
        on when the caller is cancelled. After a conflict all bytes are for `stsfs recover`.
        """
        if self._state is DirtyState.CONFLICT:
            await self.keep()
        wanted = self._changes
        while True:
            async with self.turn:
                is_done = await self._publish_once(wanted)
            if is_done:
                return None if self.detached else self.version
            await self._removal_ended.wait()

    def set_times(self, modified_ns: int) -> None:
        """Stored with the object, if its publication has not begun yet. Not a checkpoint."""
        self._facts.modified_ns, self._facts.are_times_set = modified_ns, True
        self.untouched = False

    def set_mode(self, mode: int) -> None:
        """The same for the permission bits."""
        self._facts.mode, self.untouched = mode, False

    # What changes of names ask for.

    @asynccontextmanager
    async def removing(self) -> AsyncIterator[ObjectVersion | None]:
        """Around the deletion of its object: gives what S3 has of it, which is to be deleted.

        Uploads under way are broken off, and none begins inside. Without an error the file has lost
        its name afterwards, and handles go on working; with one it keeps name and bytes. Raises
        what ObjectWriter raises where it is in doubt whether an attempt succeeded.
        """
        self._to(DirtyState.REMOVING)
        try:
            await self._sender.break_off()
            async with self.turn:
                yield await self.settle()
                await self._lose_name()
        except BaseException:
            if self._state is DirtyState.REMOVING:
                self._keep_name()
            raise
        finally:
            self._removal_ended.set()
            self._removal_ended = trio.Event()

    async def replaced(self) -> None:
        """Its name was given to another file, or it was never made. Handles go on working."""
        async with self.turn:
            await self._quiet()
            await self._lose_name()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[ObjectVersion | None]:
        """Around a rename: no attempt begins, and nothing is parked; gives what S3 has of it.

        Raises what ObjectWriter raises where it is in doubt whether an attempt succeeded.
        """
        async with self.turn, self._window.parks_nothing():  # an upload cannot be moved
            yield await self.settle()

    async def rename(self, key: str, path: str, expected: Expected | None) -> None:
        """S3 has nothing of it yet, and will get it under this key. Inside `held`."""
        assert self.turn.is_mine and self.version is None and not self.has_parked  # noqa: PT018
        facts = self._facts
        facts.key, facts.path, facts.expected, facts.exclusive = key, path, expected, False
        self._sender.give_up_soon()
        await self._rewrite_record()

    async def follow(self, version: ObjectVersion, path: str) -> None:
        """The object was moved, its bytes are the same. Inside `held`."""
        assert self.turn.is_mine and not self.has_parked  # noqa: PT018
        facts = self._facts
        facts.key, facts.path, facts.version = version.key, path, version
        facts.expected = Expected(version.etag)
        self._content.replace_base(version)
        self._sender.give_up_soon()
        await self._rewrite_record()

    # How it ends.

    async def close(self) -> bool:
        """A handle has gone. With the last writable one, publish what is dirty and end.

        A file without a name ends with its last handle. What could not be published as it is now
        is not tried again here. Returns whether it has ended; where it has not because an attempt
        failed, `error` says why. Raises nothing of ours.
        """
        if self._state is not DirtyState.FAILED and not self.writable_handles:
            try:
                await self.publish()
            except StsfsError as exc:
                self.error = self.error or exc
                with logged("%r has no record", self.path):
                    await self.keep()
        return await self._end_if_unused()

    async def give_way(self) -> bool:
        """S3 has another version, and nothing is new here: end it, though handles are open.

        Who writes by them hears FileEnded. False where something is new, or an attempt under way.
        """
        async with self.turn, self._content.lock:  # no write is under way
            if self._state is not DirtyState.CLEAN:
                return False
            self._end(is_kept=False)
        await self._discard()
        return True

    async def retry(self) -> None:
        """Try again what has failed, and end where nobody has it open. Raises nothing of ours."""
        with suppress(StsfsError):
            await self.publish()
        await self._end_if_unused()

    async def _end_if_unused(self) -> bool:
        async with self.turn:
            is_kept = self._state is DirtyState.CONFLICT and not self.open_handles
            if is_kept:
                await self._quiet()
                async with self._content.lock:
                    with logged("what was written to %r at last is not in its record", self.path):
                        await self._record.keep("conflict", durable=True)
            elif self._state is DirtyState.UNLINKED:
                await self._quiet()
            if not self._may_end():
                if not self.writable_handles and not self.detached:
                    self._content.rest()
                return self.closed
            self._end(is_kept=is_kept)
        if is_kept:
            self._content.rest()
            return True
        await self._discard()
        return True

    async def _discard(self) -> None:
        # Nobody finds it any more, so nobody would do this later; nobody waits for it either.
        with trio.CancelScope(shield=True), logged("the bytes of %r stay behind", self.path):
            await self._content.discard()

    def _end_soon(self) -> None:
        """It has turned out that S3 has all of a file, whose last handle may have gone before."""
        if self._may_end():
            self._tasks.start(f"end of {self.path!r}", self._end_if_unused)

    def _may_end(self) -> bool:
        if self.detached:
            return not self.closed and not self.open_handles
        return self._state is DirtyState.CLEAN and not self.writable_handles

    def _end(self, *, is_kept: bool) -> None:
        """From here on nobody finds it: the bytes on the disk may go."""
        self._to(DirtyState.ENDED)
        self._content.close()
        self._home.ended(self, is_kept=is_kept)
        if self.watcher is not None:
            self.watcher.gone()

    async def _lose_name(self) -> None:
        if self.detached:
            return
        self._to(DirtyState.UNLINKED)
        self._sender.give_up_soon()
        self._record.forget()
        async with self._content.lock:
            with logged("the bytes of %r stay behind", self.path):
                await trio.to_thread.run_sync(self._content.unlink)

    def _keep_name(self) -> None:
        """A removal failed: everything is as before, but that attempts were broken off."""
        self._sender.go_on()
        if not self.dirty:
            self._to(DirtyState.CLEAN)
            self._end_soon()
            return
        is_whole = self._failed_changes == self._changes or not self.writable_handles
        self._to(DirtyState.FAILED if is_whole else DirtyState.WRITING)
        if is_whole:
            self._home.failed(self, StoreFailure("It could not be removed."))

    # How it comes to S3.

    async def _publish_once(self, wanted: int) -> bool:
        """Whether there is nothing left to wait for; False while the name is being removed."""
        while True:
            if self._state is DirtyState.CONFLICT:
                assert self.error is not None
                raise copy.copy(self.error)
            if self.detached or self._published_changes >= wanted:
                await trio.lowlevel.checkpoint()
                return True
            if self._state is DirtyState.REMOVING:
                return False
            self.raise_if_torn()
            attempt = self._attempt or self._begin_attempt()
            await attempt.done.wait()
            if attempt.error is not None and (attempt.changes or 0) >= wanted:
                raise copy.copy(attempt.error)

    def _begin_attempt(self) -> Attempt:
        self._to(DirtyState.PUBLISHING)
        self._attempt = attempt = Attempt()
        self._tasks.start(f"upload of {self.path!r}", self._carry_out, attempt)
        return attempt

    async def _carry_out(self, attempt: Attempt) -> None:
        try:
            await self._publication.make_object()
        except Abandoned:
            pass
        except StsfsError as exc:
            attempt.error = exc
            attempt.error = await self._attempt_failed(attempt, exc)
        except Exception as exc:
            attempt.error = unexpected(self.path, exc, KEPT)
            attempt.error = await self._attempt_failed(attempt, attempt.error)
            raise
        except BaseException:
            # Who waits is not to try again: this process is ending.
            attempt.changes, attempt.error = self._changes, StoreFailure("stsfs is ending.")
            raise
        finally:
            self._attempt = None
            if self._state is DirtyState.PUBLISHING:
                self._to(DirtyState.WRITING if self.dirty else DirtyState.CLEAN)
            attempt.done.set()

    async def _quiet(self) -> None:
        """Wait until no attempt is under way. In turn, so none begins."""
        assert self.turn.is_mine
        while self._attempt is not None:
            await self._attempt.done.wait()

    async def settle(self) -> ObjectVersion | None:
        """What S3 has at the key once no attempt is under way. In turn.

        Raises what ObjectWriter raises where that is in doubt, and cannot be found out.
        """
        await self._quiet()
        await self._publication.confirm()
        self._end_soon()
        return self.version

    def may_be_copy(self, source: ObjectVersion) -> None:
        """A copy of this object onto the key may have happened. Not a checkpoint."""
        self._publication.note_copy(source)

    # What the publication tells; see publication.Owner.

    async def made(self, snapshot: Snapshot, version: ObjectVersion) -> None:
        """S3 has this snapshot of the content."""
        facts = self._facts
        self._content.rebase(version)
        facts.version, facts.expected, facts.exclusive = version, Expected(version.etag), False
        facts.is_base_known = True
        self._published_changes, self.error = snapshot.changes, None
        self._record.upload, self._record.write_id = None, ""
        if self._state in SETTLED_BY_SUCCESS:
            self._to(DirtyState.WRITING if self.dirty else DirtyState.CLEAN)
        self._home.published(self)
        if self.watcher is not None:
            self.watcher.published(version)
        if self._record.state is not None:
            with logged("the record of %r is not up to date", self.path):
                async with self._content.lock:
                    await (self._record.keep("writing") if self.dirty else self._record.settle())

    def found(self, version: ObjectVersion) -> None:
        """S3 has what we made: an older attempt, or a copy. Not a checkpoint."""
        self._content.replace_base(version)
        self._facts.version, self._facts.expected = version, Expected(version.etag)

    def taken(self, changes: int) -> None:
        """The attempt that is under way publishes this state. Not a checkpoint."""
        if self._attempt is not None:
            self._attempt.changes = changes

    def raise_if_torn(self) -> None:
        """Nothing is published that lacks bytes of a write."""
        self._editor.torn.check(self.path)

    async def _attempt_failed(self, attempt: Attempt, exc: StsfsError) -> StsfsError:
        facts = self._facts
        error = without_frames(exc)
        is_conflict = isinstance(error, WriteConflict)
        if is_conflict and facts.exclusive and facts.version is None:
            error = AlreadyExists(f"{facts.path!r} was made by another client.", remedy=KEPT)
        attempt.changes = self._changes if attempt.changes is None else attempt.changes
        self.error, self._failed_changes = error, attempt.changes
        if self._state is DirtyState.PUBLISHING:
            self._to(
                DirtyState.CONFLICT if is_conflict
                else DirtyState.FAILED if attempt.changes == self._changes
                else DirtyState.WRITING
            )  # fmt: skip
            self._home.failed(self, error)
            if self.watcher is not None:
                self.watcher.failed(error)
        await self._sender.after_failure(error, is_passing=is_passing(error))
        if self._sender.upload is None:
            self._record.upload = None
        with logged("%r could not be published, and its record not be written", self.path):
            async with self._content.lock:
                if self._state not in (DirtyState.UNLINKED, DirtyState.ENDED):
                    await self._record.keep(self.record_state, durable=True)
        return error

    def _to(self, state: DirtyState) -> None:
        """Every transition goes through here."""
        check_transition(self._state, state)
        self._state = state

    def _note_change(self) -> None:
        self._changes += 1
        self.untouched = False
        self._facts.modified_ns, self._facts.are_times_set = time.time_ns(), False
        if self._state in (DirtyState.CLEAN, DirtyState.FAILED):
            self._to(DirtyState.WRITING)

    def _content_changed(self, start: int, stop: int) -> None:
        self._note_change()
        self._sender.touched(start, stop)

    def _raise_if_ended(self) -> None:
        if self.closed:
            raise FileEnded

    async def _rewrite_record(self) -> None:
        async with self._content.lock:
            if self._record.state is not None:
                self._record.upload = None
                await self._record.keep(self._record.state)
