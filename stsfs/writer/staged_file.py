"""One file while it is being written here: what whoever has it open asks for.

Changes are counted. A publication takes the content as it is at one moment, with the count of that
moment; the file is dirty as long as the two counts differ.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from stsfs.errors import StaleVersion, StsfsError
from stsfs.staging.record import State
from stsfs.store.object_store import Expected, ObjectVersion
from stsfs.writer.content import StagedContent
from stsfs.writer.file_state import FileState, Paper
from stsfs.writer.publisher import Publisher, logged


class Watcher(Protocol):
    """Who shows the file. Called at once, in whatever task it happens; not a checkpoint."""

    def published(self, version: ObjectVersion) -> None:
        """S3 has this now. The file may have been changed again since."""

    def failed(self, error: StsfsError) -> None:
        """A publication failed; the bytes are kept. After a conflict the file is detached."""

    def gone(self) -> None:
        """The staging file has gone: S3 has all of it, and readers go there from now on."""


class Home(Protocol):
    """Where staged files live. Implemented by Writers."""

    def left(self, file: "StagedFile") -> None:
        """The file is gone, or its bytes wait for `stsfs recover`."""

    def published(self, file: "StagedFile") -> None:
        """A publication succeeded."""

    def failed(self, file: "StagedFile", error: StsfsError) -> None:
        """A publication failed."""


class StagedFile:
    """The content of one file, staged.

    Raises StagingFull and StagingFailure, and what ObjectStore raises for bytes that only the base
    has. `writable_handles` is the caller's to count; so is calling `close`, `drop` and `settle`.
    """

    def __init__(
        self, home: Home, file: FileState, content: StagedContent, paper: Paper,
        publisher: Publisher,
    ) -> None:  # fmt: skip
        self.watcher: Watcher | None = None
        self.writable_handles = 0
        self.closed = False
        """The staging file has gone; `watcher.gone` was called."""

        self._home, self._file, self._content = home, file, content
        self._paper, self._publisher = paper, publisher
        self._kept_changes = -1
        """The state that `keep` has made sure of."""

        publisher.on_published = self._tell_published
        publisher.on_failed = self._tell_failed

    @property
    def key(self) -> str:
        """Where it will be published."""
        return self._file.key

    @property
    def path(self) -> str:
        """Below the mount point, without a slash in front."""
        return self._file.path

    @property
    def size_bytes(self) -> int:
        """As stat shows it."""
        return self._content.size_bytes

    @property
    def modified_ns(self) -> int:
        """Of the last change, or what `set_times` was told since."""
        return self._file.modified_ns

    @property
    def mode(self) -> int | None:
        """Permission bits; None: nobody has set them."""
        return self._file.mode

    @property
    def version(self) -> ObjectVersion | None:
        """What S3 has at the key as far as we know; None: nothing."""
        return self._file.version

    @property
    def dirty(self) -> bool:
        """Whether S3 has something else. New files and truncated ones begin so."""
        return self._file.is_dirty

    @property
    def untouched(self) -> bool:
        """Whether it was only made or cut off when it was opened: a flush says nothing yet."""
        return self._file.untouched

    @property
    def detached(self) -> bool:
        """Whether it has no name any more: nothing is uploaded."""
        return self._file.detached

    @property
    def state(self) -> State:
        """How it stands with its publication."""
        return self._file.state

    @property
    def error(self) -> StsfsError | None:
        """Of the last publication; None after a success."""
        return self._file.error

    @property
    def is_publishing(self) -> bool:
        """Whether a publication is under way."""
        return self._publisher.is_busy

    @property
    def sent_bytes(self) -> int:
        """How much of it has gone ahead into an upload."""
        return self._publisher.sender.sent_bytes

    async def write(self, offset: int, data: bytes | memoryview) -> int:
        """Put all of data at offset; returns how many bytes that were."""
        if not len(data):
            await trio.lowlevel.checkpoint()
            return 0
        await self._publisher.sender.admit()
        async with self._content.lock:
            await self._paper.writing_again()
            await self._content.write(offset, data)
            self._unsettle()
        self._publisher.sender.stream(self._publisher)
        return len(data)

    async def append(self, data: bytes | memoryview) -> int:
        """Put all of data at the end, wherever that is by now."""
        await self._publisher.sender.admit()
        async with self._content.lock:
            await self._paper.writing_again()
            await self._content.write(self._content.size_bytes, data)
            self._unsettle()
        self._publisher.sender.stream(self._publisher)
        return len(data)

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        """Bytes from offset on; short only at the end."""
        while True:
            version = self.version
            try:
                return await self._content.read(offset, size_bytes)
            except StaleVersion:
                # A publication of ours may have replaced it whose answer we have not got (yet).
                if await self._publisher.settle() == version:
                    raise

    async def truncate(self, size_bytes: int) -> None:
        """Cut it off, or let it end in zeros. The size that it has is no change."""
        await self._publisher.sender.admit()
        async with self._content.lock:
            self._file.untouched = False
            if size_bytes == self._content.size_bytes:
                return
            await self._paper.writing_again(size_bytes)
            await self._content.truncate(size_bytes)
            self._unsettle()

    async def keep(self) -> None:
        """Bytes and record are on the local disk, for this process or another to publish."""
        changes, is_conflict = self._file.changes, self.state == "conflict"
        is_safe = changes in (self._kept_changes, self._file.published_changes)
        if is_safe or (self.detached and not is_conflict):
            await trio.lowlevel.checkpoint()
            return
        async with self._content.lock:
            changes = self._file.changes
            # What was sealed for a publication and has not changed since stays that.
            state = "conflict" if is_conflict else self._paper.state or "writing"
            await self._paper.keep(state, durable=True)
            self._kept_changes = changes

    async def publish(self) -> ObjectVersion | None:
        """Return when S3 has the content as it is now, or a newer one of ours; None: detached.

        Raises what ObjectWriter raises, and AlreadyExists for a file that was made with O_EXCL.
        Not broken off when the caller is cancelled: others may wait for the same. After a conflict
        the bytes are for `stsfs recover`, also those that were written since.
        """
        if self.state == "conflict":
            await self.keep()
        return await self._publisher.publish()

    def set_times(self, modified_ns: int) -> None:
        """Stored with the object, if its publication has not begun yet. Not a checkpoint."""
        self._file.modified_ns, self._file.are_times_set = modified_ns, True
        self._file.untouched = False

    def set_mode(self, mode: int) -> None:
        """The same for the permission bits."""
        self._file.mode = mode
        self._file.untouched = False

    async def settle(self) -> ObjectVersion | None:
        """Wait until nothing is under way; returns what S3 has then, as far as we know.

        Before an unlink: after `detach`, and nothing of it is left behind on the disk. Raises what
        ObjectWriter raises where it is in doubt whether a failed publication happened.
        """
        version = await self._publisher.settle()
        async with self._content.lock:
            if self.detached and self.state != "conflict":
                await trio.to_thread.run_sync(self._content.forget)
                self._paper.gone()
        return version

    def held(self) -> AbstractAsyncContextManager[ObjectVersion | None]:
        """Inside, no publication is under way or begins: around a rename. See `settle`."""
        return self._publisher.held()

    async def rename(self, key: str, path: str, expected: Expected | None) -> None:
        """S3 has nothing of it yet, and will get it under this key. Inside `held`."""
        assert self.version is None, "what S3 has is moved there: see follow"
        file = self._file
        file.key, file.path, file.expected, file.exclusive = key, path, expected, False
        self._publisher.sender.give_up_soon()
        await self._rewrite_record()

    async def follow(self, version: ObjectVersion, path: str) -> None:
        """The object was moved, its bytes are the same. Inside `held`."""
        file = self._file
        file.key, file.path, file.version = version.key, path, version
        file.expected = Expected(version.etag)
        self._content.replace_base(version)
        self._publisher.sender.give_up_soon()
        await self._rewrite_record()

    def show_as(self, path: str) -> None:
        """A directory above has another name; the key is the same. Not a checkpoint."""
        self._file.path = path

    def detach(self) -> None:
        """Unlinked or replaced: nothing is uploaded any more, and handles go on working.

        Not a checkpoint. `settle` must follow before the object, if any, is deleted.
        """
        self._file.detached = True

    async def close(self) -> bool:
        """The last writable handle is gone: publish what is dirty, and let the staging file go.

        What could not be published as it is now is not tried again here. False, and still staged,
        where that failed (see `error`), where the file is detached (see `drop`), or where it was
        opened for writing again meanwhile. Raises nothing of ours.
        """
        try:
            if self.state != "failed":
                await self.publish()
            async with self._content.lock:
                if self._is_idle():
                    await self._content.put_down()
                    self._paper.gone()
        except StsfsError as exc:
            self._file.error = self._file.error or exc
        if not self._is_idle() or self._content.file is not None:
            if not self.writable_handles and self.dirty and not self.detached:
                self._content.rest()
            return False
        self._end()
        return True

    async def drop(self) -> None:
        """It is detached, and nobody has it open any more. After a conflict the bytes stay."""
        await self._publisher.quiet()
        async with self._content.lock:
            if self.state == "conflict":
                with logged("what was written to %r at last is not in its record", self.path):
                    await self._paper.keep("conflict", durable=True)
                self._content.rest()
            else:
                await self._content.put_down()
        self._end()

    def _is_idle(self) -> bool:
        return not (self.writable_handles or self.dirty or self.detached or self.is_publishing)

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._content.close()
        self._home.left(self)
        if self.watcher is not None:
            self.watcher.gone()

    def _unsettle(self) -> None:
        """The content is not that of the attempt that failed any more."""
        if self._file.state == "failed":
            self._file.state = "writing"

    async def _rewrite_record(self) -> None:
        async with self._content.lock:
            if self._paper.state is not None:
                self._paper.upload_id = None
                await self._paper.keep(self._paper.state)

    def _tell_published(self, version: ObjectVersion) -> None:
        self._home.published(self)
        if self.watcher is not None:
            self.watcher.published(version)

    def _tell_failed(self, error: StsfsError) -> None:
        self._home.failed(self, error)
        if self.watcher is not None:
            self.watcher.failed(error)
