"""Publications of one staged file: one at a time, shared by all who wait for its content."""

import copy
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import trio

from stsfs.errors import (
    AccessDenied,
    AlreadyExists,
    DeadlineExceeded,
    SessionExpired,
    StaleVersion,
    StoreFailure,
    StsfsError,
    SynapseUnavailable,
    TokenRejected,
    WriteConflict,
    without_frames,
)
from stsfs.store.object_store import Expected, ObjectVersion, Traits
from stsfs.writer.content import StagedContent
from stsfs.writer.file_state import FileState, Paper
from stsfs.writer.object_traits import kept_traits
from stsfs.writer.sender import PUT_BYTES_MAX, Abandoned, Sender
from stsfs.writer.wire import Wire

log = logging.getLogger(__name__)

PASSING = (StoreFailure, DeadlineExceeded, SessionExpired, SynapseUnavailable, TokenRejected)
"""What may be over when the same is tried again."""

DOUBTS_MAX = 8
"""Changes that may have happened and cannot be repeated, kept until one of them is recognised."""


def is_passing(error: StsfsError | None) -> bool:
    """Whether a publication that ended so is worth another try."""
    return isinstance(error, PASSING)


@dataclass(slots=True, eq=False)
class _Run:
    """One publication under way."""

    changes: int | None = None
    """The state that it publishes, once it has seen it."""

    error: StsfsError | None = None
    done: trio.Event = field(default_factory=trio.Event)


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A state of the content that was to become the object."""

    changes: int
    size_bytes: int
    write_id: str
    in_one: bool
    """By one PUT."""


class Publisher:
    """Owns the way of one file to S3. Its tasks live in the nursery that it is given."""

    def __init__(
        self, wire: Wire, location_id: int, file: FileState, content: StagedContent,
        paper: Paper, nursery: trio.Nursery,
    ) -> None:  # fmt: skip
        self.sender = Sender(wire, content, nursery)
        self.on_published: Callable[[ObjectVersion], None] = _ignored
        self.on_failed: Callable[[StsfsError], None] = _ignored
        self._wire, self._location_id, self._nursery = wire, location_id, nursery
        self._file, self._content, self._paper = file, content, paper
        self._run: _Run | None = None
        self._sealed: _Sealed | None = None
        self._holds = 0
        self._released = trio.Event()
        self._doubts: dict[str, int] = {}
        """Sizes by write_id, of what may have become the object and is not what we have now."""

        self._is_inherited = False
        """The last attempt was that of a process that died."""

    def inherit(self, write_id: str) -> None:
        """A process that died has begun to publish this content, and may have got through."""
        if write_id:
            self._sealed = _Sealed(
                self._file.changes, self._content.size_bytes, write_id, in_one=False
            )
            self._is_inherited = True

    @property
    def is_busy(self) -> bool:
        """Whether a publication is under way."""
        return self._run is not None

    # What the sender asks for.

    @property
    def key(self) -> str:
        """See Publishing."""
        return self._file.key

    @property
    def expected(self) -> Expected | None:
        """See Publishing."""
        return self._file.expected

    @property
    def detached(self) -> bool:
        """See Publishing."""
        return self._file.detached

    @property
    def changes(self) -> int:
        """See Publishing."""
        return self._file.changes

    def traits(self, *, is_final: bool) -> Traits:
        """See Publishing."""
        return self._file.traits(is_final=is_final)

    async def seal(self, write_id: str, *, with_bytes: bool) -> tuple[str, bytes]:
        """See Publishing."""
        before, changes = self._sealed, self._file.changes
        if before is not None and before.in_one and with_bytes and before.changes == changes:
            write_id = before.write_id  # the same once more: it may have happened already
        self._paper.write_id = write_id
        data = b""
        if with_bytes:
            data = await self._paper.keep_and_read("closed")
        else:
            await self._paper.keep("closed")
        self._content.mark()
        if before is not None and before.write_id != write_id:
            self._doubts[before.write_id] = before.size_bytes
            while len(self._doubts) > DOUBTS_MAX:
                del self._doubts[next(iter(self._doubts))]
        self._sealed = _Sealed(changes, self._content.size_bytes, write_id, with_bytes)
        if self._run is not None:
            self._run.changes = changes
        return write_id, data

    async def note_upload(self) -> None:
        """See Publishing."""
        async with self._content.lock:
            if self.sender.upload is not None:
                self._paper.upload_id = self.sender.upload.upload_id
                await self._paper.keep(self._paper.state or "writing")

    # What the file asks for.

    async def publish(self) -> ObjectVersion | None:
        """Return when S3 has the content as it is now, or a newer one; None: it is detached."""
        file = self._file
        wanted = file.changes
        while True:
            if file.state == "conflict" and file.error is not None:
                raise copy.copy(file.error)
            if file.detached:
                return None
            if file.published_changes >= wanted:
                return file.version
            if self._run is None and self._holds:
                await self._released.wait()
                continue
            run = self._run or self._begin()
            await run.done.wait()
            if run.error is not None and (run.changes or 0) >= wanted:
                raise copy.copy(run.error)

    async def settle(self) -> ObjectVersion | None:
        """Wait until nothing is under way; returns what S3 has at the key then, as far as we know.

        Raises what ObjectWriter raises where that is in doubt, and cannot be found out.
        """
        await self.quiet()
        if self._sealed is not None or self._doubts:
            await self._recognise()
        return self._file.version

    async def quiet(self) -> None:
        """Wait until nothing is under way."""
        if self._file.detached:
            await self.sender.stop_streaming(at_once=True)
        while self._run is not None:
            await self._run.done.wait()
        if self._file.detached:
            self.sender.give_up_soon()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[ObjectVersion | None]:
        """No publication is under way, or begins."""
        self._holds += 1
        try:
            yield await self.settle()
        finally:
            self._holds -= 1
            if not self._holds:
                self._released.set()
                self._released = trio.Event()

    def _begin(self) -> _Run:
        self._run = run = _Run()
        self._nursery.start_soon(self._carry_out, run)
        return run

    async def _carry_out(self, run: _Run) -> None:
        try:
            await self._attempt()
        except Abandoned:
            pass
        except StsfsError as exc:
            run.error = await self._failed(run, exc)
        except BaseException:
            # Who waits is not to try again: this process is ending.
            run.changes, run.error = self._file.changes, StoreFailure("stsfs is ending.")
            raise
        finally:
            self._run = None
            run.done.set()

    async def _attempt(self) -> None:
        if self._is_inherited:
            if await self._recognise():
                return
            self._is_inherited = False
        await self._look_at_base()
        if self._content.size_bytes >= PUT_BYTES_MAX:
            async with self._content.lock:
                await self._paper.keep("closed")
        while True:
            try:
                etag = await self.sender.send(self)
                break
            except (WriteConflict, StaleVersion) as exc:
                if not await self._recognise():
                    raise WriteConflict(exc.sentence, remedy=_KEPT) from exc
                if not self._file.is_dirty:
                    return
        await self._succeeded(etag)

    async def _look_at_base(self) -> None:
        """What is stored beside the object that is changed stays, whoever wrote it."""
        file = self._file
        if file.is_base_known or file.version is None:
            return
        try:
            found = await self._wire.writer.traits(file.version)
        except StaleVersion as exc:
            if not await self._recognise():
                raise WriteConflict(exc.sentence, remedy=_KEPT) from exc
            return
        except AccessDenied:
            log.info("nothing can be learnt of what is stored beside %r", file.key)
        else:
            file.kept = kept_traits(found, file.kept.storage_class)
        file.is_base_known = True

    async def _recognise(self) -> bool:
        """Whether what S3 has is what an earlier attempt of ours made, though it seemed to fail."""
        candidates = dict(self._doubts)
        if self._sealed is not None:
            candidates[self._sealed.write_id] = self._sealed.size_bytes
        for write_id, size_bytes in reversed(candidates.items()):
            etag = await self._wire.writer.written(self._file.key, write_id)
            if etag is None:
                continue
            if self._sealed is not None and self._sealed.write_id == write_id:
                await self._succeeded(etag)
                return True
            version = ObjectVersion(self._location_id, self._file.key, etag, size_bytes)
            self._content.replace_base(version)
            self._file.version, self._file.expected = version, Expected(etag)
            self._doubts.clear()
            return True
        return False

    async def _succeeded(self, etag: str) -> None:
        sealed, file = self._sealed, self._file
        assert sealed is not None, "what was published was sealed before"
        version = ObjectVersion(self._location_id, file.key, etag, sealed.size_bytes)
        self._content.rebase(version)
        file.version, file.expected, file.exclusive = version, Expected(etag), False
        file.published_changes, file.error, file.state = sealed.changes, None, "writing"
        file.is_base_known = True
        self._sealed = None
        self._doubts.clear()
        self._paper.upload_id, self._paper.write_id = None, ""
        self.on_published(version)
        if file.is_dirty and self._paper.state is not None:
            with logged("the record of %r is not up to date", file.path):
                async with self._content.lock:
                    await self._paper.keep("writing")

    async def _failed(self, run: _Run, exc: StsfsError) -> StsfsError:
        file = self._file
        error = without_frames(exc)
        is_conflict = isinstance(error, WriteConflict)
        if is_conflict and file.exclusive and file.version is None:
            error = AlreadyExists(f"{file.path!r} was made by another client.", remedy=_KEPT)
        if run.changes is None:
            run.changes = file.changes
        file.error = error
        is_whole = run.changes == file.changes
        file.state = "conflict" if is_conflict else "failed" if is_whole else "writing"
        file.detached |= is_conflict
        self.on_failed(error)
        await self.sender.after_failure(error, is_passing=is_passing(error))
        if self.sender.upload is None:
            self._paper.upload_id = None
        with logged("%r could not be published, and its record not be written", file.path):
            async with self._content.lock:
                if not file.detached or is_conflict:
                    await self._paper.keep(file.state, durable=True)
        return error


_KEPT = "What was written here is kept: see `stsfs recover`."


def _ignored(_: object) -> None:
    """Nobody is interested."""


@contextmanager
def logged(what: str, path: str) -> Iterator[None]:
    """Trouble with the local disk that changes nothing of what happened in S3."""
    try:
        yield
    except StsfsError as exc:
        log.error(f"{what}: %s", path, exc)
