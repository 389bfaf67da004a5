"""The file system of a mount made with --rw: what `Vfs` does, and changes of content.

Changes of names are in `namespace`.
"""

import os
from contextlib import suppress
from dataclasses import dataclass

from stsfs.cache.block_cache import BlockCache
from stsfs.errors import AlreadyExists, IsADirectory, StaleVersion, StsfsError
from stsfs.store.object_store import ObjectVersion
from stsfs.vfs.asking import Asking
from stsfs.vfs.handles import LiveHandle, NoReader
from stsfs.vfs.namespace import Namespace
from stsfs.vfs.nodes import Directory, File, Node, path_of
from stsfs.vfs.reader import CachedReader, DirectReader, Reader
from stsfs.vfs.recall import Recall
from stsfs.vfs.staged_nodes import StagedNodes
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import RepeatedOpen, Vfs
from stsfs.vfs.writable import Writable
from stsfs.writer.dirty_state import DirtyState
from stsfs.writer.listeners import FileEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeChange:
    """What setattr asks for; None is what stays."""

    size_bytes: int | None = None
    mode: int | None = None
    modified_ns: int | None = None
    uid: int | None = None
    gid: int | None = None
    owner: tuple[int, int] = (0, 0)
    """The uid and gid that are shown now."""


class WritingVfs(Vfs):
    """Lookups, directories, reads and changes of a tree whose files show keys.

    `fuse.write_operations.WriteOperations` turns requests of the kernel into calls here.
    """

    def __init__(
        self, tree: Tree, cache: BlockCache, writable: Writable, *, trust_listings: bool = False
    ) -> None:
        super().__init__(tree, cache, trust_listings=trust_listings)
        self._fsync_publishes = writable.fsync_publishes
        recall = Recall.of(writable)
        tree.recall_by(recall)
        self._asking = Asking(writable)
        self._nodes = StagedNodes(tree, tree.change(), writable, recall)
        self.names = Namespace(tree, self._nodes, self._asking, rename_limit=writable.rename_limit)

    async def lookup(
        self, parent_inode: int, name: bytes, caller: int
    ) -> tuple[Node | None, float]:
        """See Vfs. Nobody may remember a name that is about to change without the kernel."""
        node, ttl_s = await super().lookup(parent_inode, name, caller)
        staged = isinstance(node, File) and node.staged is not None
        if staged or self._nodes.is_moving(self._tree.directory(parent_inode)):
            return node, 0.0
        return node, ttl_s

    async def _vouch(self, file: File, repeated: RepeatedOpen) -> bool:
        """See Vfs. What is being written here is what the open gets: nobody has to be asked."""
        return file.staged is not None or await super()._vouch(file, repeated)

    async def open(self, inode: int, flags: int, caller: int) -> int:
        """See Vfs. For writing it costs no more until something is written, or O_TRUNC given."""
        file = self._tree.inodes.get(inode)
        self._tree.inodes.used(file)
        if isinstance(file, Directory):
            raise IsADirectory(f"{path_of(file)} is a directory.")
        with self._opening(file, caller) as vouched:
            return await self._open(file, flags, vouched=vouched)

    async def _open(
        self, file: File, flags: int, *, vouched: bool = False, made: bool = False
    ) -> int:
        # To make a file or to cut it off is a change, though nothing more may be written.
        writes = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC) or made
        if writes:
            self._asking.of_node("write", file)
            await self._nodes.still(file)
        if file.outdated:
            raise StaleVersion(f"{path_of(file)} was replaced or deleted.")
        version, reader = file.version, self._reader(file, flags)
        try:
            if not vouched:
                await self._confirm_unchanged(file, None if writes else reader)
        except BaseException:
            reader.close()
            raise
        handle = LiveHandle(file, reader, version, flags, writes)
        number = self._new_handle()
        self._files[number] = handle
        self._nodes.opened(file, writes=writes)
        self.names.opened(file)
        if writes and flags & os.O_TRUNC:
            try:
                await self._nodes.stage(file, truncate=True)
            except BaseException:
                del self._files[number]
                reader.close()
                await self._nodes.released(file, writes=True)
                raise
        return number

    async def _confirm_unchanged(self, file: File, reader: Reader | None = None) -> None:
        """Ask whether S3 has the version of a file; another one of our own making is as good.

        What is being written here is what the open gets, and nobody has to be asked. But where
        nothing is new, and it is only open for writing, another client may have replaced it.
        """
        version, staged = file.version, file.staged
        if staged is not None and (staged.dirty or staged.detached):
            return
        if reader is None or staged is not None:
            # A writer reads little, if at all: it is not worth fetching the front of the file.
            reader = DirectReader(self._cache.store, _version(file))
        try:
            await self._confirm(file, reader)
        except StaleVersion:
            if staged is not None:
                await self._nodes.give_way(file, staged, version)
            staged = file.staged
            is_ours = file.version is not version if staged is None else not staged.detached
            if not is_ours:
                raise
            file.outdated = False  # it was published while S3 was asked for the one before

    def _reader(self, file: File, flags: int) -> Reader:
        if file.version is None:
            return NoReader()
        if flags & os.O_DIRECT:
            return DirectReader(self._cache.store, file.version)
        return CachedReader(self._cache, file.version, self._read_ahead)

    async def create(
        self, parent_inode: int, name: bytes, flags: int, mode: int | None
    ) -> tuple[int, File]:
        """Open a file that is made if there is none; its handle and its node.

        Counts one reference of the kernel to the node. mode is None where it is the usual one.
        Raises AlreadyExists with O_EXCL.
        """
        parent = self._tree.directory(parent_inode)
        self._asking.of_name("create", parent, name, mode=mode)
        async with self._nodes.changing(parent):
            node = await self.names.fresh(parent, name)
            if isinstance(node, Directory):
                raise IsADirectory(f"{path_of(node)} is a directory.")
            exclusive, made = bool(flags & os.O_EXCL), node is None
            if node is not None and exclusive:
                raise AlreadyExists(f"{path_of(node)} exists.")
            if node is None:
                node = self._nodes.make(parent, name, exclusive=exclusive, mode=mode)
                flags &= ~os.O_TRUNC
        number = await self._open(node, flags, made=made)
        self._tree.inodes.remember(node)
        return number, node

    async def read(self, handle: int, offset: int, size_bytes: int) -> memoryview:
        """See Vfs. What is being written is read as it is now."""
        opened = self._live(handle)
        file = opened.file
        while True:
            if (staged := file.staged) is not None:
                with suppress(FileEnded):
                    return await staged.read(offset, size_bytes)
                continue
            version = file.version
            if opened.version is not version:  # we have published another one, or moved it
                opened.reader.close()
                opened.reader, opened.version = self._reader(file, opened.flags), version
            try:
                return await opened.reader.read(offset, size_bytes)
            except StaleVersion as stale:
                await self._nodes.settled(file)
                if file.version is version and file.staged is None:
                    raise await self._gone(file, version, stale) from None

    async def _gone(
        self, file: File, version: ObjectVersion | None, stale: StaleVersion
    ) -> StaleVersion:
        """See Vfs. What was moved or published here meanwhile is not outdated by that."""
        await self._nodes.settled(file)
        if file.version is not version or file.staged is not None:
            return stale  # who opens it looks it up once more
        return await super()._gone(file, version, stale)

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        """Put bytes into the file; returns how many, which are all."""
        opened = self._live(handle)
        file = opened.file
        while True:
            staged = file.staged or await self._nodes.stage(file)
            with suppress(FileEnded):
                written = await staged.write(offset, data)
                break
        file.modified_ns = staged.modified_ns
        opened.note_write()
        return written

    async def flush(self, handle: int) -> None:
        """A descriptor was closed: S3 has the content when this returns, or this raises.

        Costs nothing where nothing is new. Of a handle that several processes share, it is the
        local disk that has it. A shell that redirects output opens the file, duplicates the
        descriptor and closes the first one before anything is written (as do dd and touch), and
        each command in between is another flush: none of them is the time to replace what S3 has
        by an empty object.
        """
        opened = self._live(handle)
        staged = opened.file.staged
        if not opened.writes or staged is None or not staged.dirty or staged.untouched:
            return
        if opened.shared and staged.state is not DirtyState.CONFLICT:
            await staged.keep()
            return
        await self._nodes.publish(opened.file)
        opened.note_publication()

    async def fsync(self, handle: int) -> None:
        """What was written is safe when this returns: on the local disk, or in S3 if so chosen."""
        file = self._live(handle).file
        if self._fsync_publishes:
            await self._nodes.publish(file)
        elif file.staged is not None:
            await file.staged.keep()

    async def close(self, handle: int) -> None:
        """A file handle ends; `release` must follow, whatever this raises.

        Publishes what is unpublished with the last handle for writing; raises what that raises.
        """
        opened = self._live(handle)
        await self._nodes.released(opened.file, writes=opened.writes)

    async def make_file(self, parent_inode: int, name: bytes, mode: int | None) -> File:
        """Make an empty file, in S3 as well. Counts one reference of the kernel to its node."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        handle, file = await self.create(parent_inode, name, flags, mode)
        try:
            await self.close(handle)
        except StsfsError:
            self._tree.inodes.forget(file.inode, 1)
            await self.names.unmake(file)
            raise
        finally:
            self.release(handle)
        return file

    async def set_attributes(self, inode: int, change: AttributeChange, handle: int | None) -> Node:
        """Change what was asked for; the node afterwards. Nothing is changed if a rule says no."""
        node = self._tree.inodes.get(inode)
        if change.mode is not None:
            self._asking.of_node("chmod", node, mode=change.mode)
        if change.uid is not None or change.gid is not None:
            self._asking.of_node("chown", node, owner=change.owner, uid=change.uid, gid=change.gid)
        if change.modified_ns is not None:
            self._asking.of_node("utimens", node)
        await self._nodes.still(node)
        if change.size_bytes is not None:
            if isinstance(node, Directory):
                raise IsADirectory(f"{path_of(node)} is a directory.")
            await self._truncate(node, change.size_bytes, handle)
        if change.mode is not None or change.modified_ns is not None:
            self._set_mode_and_time(node, change)
        return node

    async def _truncate(self, file: File, size_bytes: int, handle: int | None) -> None:
        self._asking.of_node("write", file)
        if file.outdated and file.staged is None:
            raise StaleVersion(f"{path_of(file)} was replaced or deleted.")
        if handle is not None:
            await self._set_size(file, size_bytes)
            self._live(handle).note_write()
            return
        await self._confirm_unchanged(file)
        # truncate(2) is an open, a change and a close: nobody ends the file in between.
        self._nodes.opened(file, writes=True)
        try:
            await self._set_size(file, size_bytes)
        except BaseException:
            with suppress(StsfsError):
                await self._nodes.released(file, writes=True)
            raise
        await self._nodes.released(file, writes=True)

    async def _set_size(self, file: File, size_bytes: int) -> None:
        if file.staged is None and size_bytes == file.size_bytes:
            return
        while True:
            staged = await self._nodes.stage(file, truncate=not size_bytes)
            with suppress(FileEnded):
                await staged.truncate(size_bytes)
                break
        file.modified_ns = staged.modified_ns

    def _set_mode_and_time(self, node: Node, change: AttributeChange) -> None:
        if change.mode is not None:
            node.mode = change.mode & 0o777
        if isinstance(node, Directory):
            if change.modified_ns is not None:
                node.own_modified_ns = change.modified_ns
        else:
            if change.modified_ns is not None:
                node.modified_ns = change.modified_ns
            if node.staged is not None and change.modified_ns is not None:
                node.staged.set_times(change.modified_ns)
            if node.staged is not None and node.mode is not None:
                node.staged.set_mode(node.mode)
        self._nodes.note(node)

    def _live(self, handle: int) -> LiveHandle:
        opened = self._files[handle]
        assert isinstance(opened, LiveHandle)
        return opened


def _version(file: File) -> ObjectVersion:
    """The version of a file that is not staged, and so has one."""
    if file.version is None:
        raise StaleVersion(f"{path_of(file)} was removed.")
    return file.version
