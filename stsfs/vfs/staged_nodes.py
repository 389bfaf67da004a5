"""Files that are being written: which nodes have a staging file, from when until when.

A node is staged from the first change of its content until S3 has it and no handle is open for
writing. As long as it is staged its name is pinned, unless it has lost its name: because it was
removed or replaced here, or because another client was faster (WriteConflict).

What needs two steps for one node (publishing, staging, moving, removing it) holds its turn: see
`writer.locks`. Names need no locks of their own: the kernel changes names of one directory one at a
time.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from stsfs.errors import AlreadyExists, StaleVersion, StsfsError, WriteConflict
from stsfs.store.object_store import ObjectVersion
from stsfs.vfs.changes import LocalChanges
from stsfs.vfs.nodes import Directory, File, Node, new_number, path_of
from stsfs.vfs.recall import Recall
from stsfs.vfs.tree import Tree
from stsfs.vfs.writable import Writable, WritableLocation
from stsfs.writer.dirty_file import DirtyFile
from stsfs.writer.listeners import FileEnded
from stsfs.writer.locks import OrderedLock, Rank, check_order, in_turn

STORAGE_CLASS = "STANDARD"
"""Of what is new: a bucket may choose another one, and the next LIST tells."""


class StagedNodes:
    """Gives nodes their staging files, and takes them away."""

    def __init__(
        self, tree: Tree, changes: LocalChanges, writable: Writable, recall: Recall
    ) -> None:
        self.changes, self.recall = changes, recall
        self._tree, self._writable = tree, writable
        self._open: Counter[File] = Counter()  # handles of any kind
        self._writing: Counter[File] = Counter()  # those of them that may write
        self._moving: dict[Directory, trio.Event] = {}
        self._changing: Counter[Node] = Counter()
        self._change_ended = trio.Event()

    def location(self, directory: Directory) -> WritableLocation:
        """Who changes the keys of a directory. The rules must have been asked."""
        return self._writable.locations[directory.site.location_id]

    @asynccontextmanager
    async def lock(self, *files: File) -> AsyncIterator[None]:
        """Nobody else publishes, stages, moves or removes these files meanwhile: see `locks`."""
        async with in_turn([_turn_of(file) for file in files]):
            yield

    @asynccontextmanager
    async def changing(self, *nodes: Node) -> AsyncIterator[None]:
        """A name in these directories, or one of these nodes, is changed meanwhile.

        Begins when no directory that they lie in is being moved; then moves wait for the end.
        """
        check_order(Rank.NAMES)
        while moves := [event for node in nodes if (event := self._move_of(node)) is not None]:
            await moves[0].wait()
        self._changing.update(nodes)
        try:
            yield
        finally:
            self._changing.subtract(nodes)
            self._changing += Counter()  # without those that are at 0
            self._change_ended.set()
            self._change_ended = trio.Event()

    @asynccontextmanager
    async def moving(self, directory: Directory) -> AsyncIterator[None]:
        """All below a directory gets other keys: who wants to change something there waits.

        Begins when the changes there that are under way have ended; in a `changing` of it.
        """
        self._moving[directory] = trio.Event()
        try:
            while self._is_changing_in(directory):
                await self._change_ended.wait()
            yield
        finally:
            self._moving.pop(directory).set()

    def _is_changing_in(self, directory: Directory) -> bool:
        """Whether something in a directory is changed, beside the directory itself."""
        inside = (node for node in self._changing if _is_inside(node, directory))
        return self._changing[directory] > 1 or any(inside)

    def is_moving(self, node: Node) -> bool:
        """Whether a node gets another key just now, with a directory."""
        return bool(self._moving) and self._move_of(node) is not None

    async def still(self, node: Node) -> None:
        """Return when no directory that a node lies in is being moved."""
        while self._moving and (event := self._move_of(node)) is not None:
            await event.wait()

    async def settled(self, file: File) -> None:
        """Return when a file is neither moved nor published just now."""
        await self.still(file)
        async with self.lock(file):
            pass

    def _move_of(self, node: Node) -> trio.Event | None:
        """The end of the move that a node is part of, if it is."""
        at: Node | None = node
        while at is not None:
            if isinstance(at, Directory) and at in self._moving:
                return self._moving[at]
            at = at.parent
        return None

    def make(self, parent: Directory, name: bytes, *, exclusive: bool, mode: int | None) -> File:
        """A new file, with nothing in it, which S3 does not have yet."""
        file = File(new_number(), parent, name, None, 0, STORAGE_CLASS, mode=mode)
        key = parent.prefix + name.decode()
        writers = self.location(parent).writers
        staged = writers.stage_new(key, path_below(file), exclusive=exclusive, mode=mode)
        self._attach(file, staged)
        return file

    async def stage(self, file: File, *, truncate: bool = False) -> DirtyFile:
        """The staging file of a file, made where it has none; empty if truncate.

        Raises StaleVersion for a version that is known to be gone.
        """
        while True:
            await self.still(file)
            staged = file.staged
            if staged is None:
                async with self.lock(file):
                    # A move of its directory may have begun meanwhile, which knows nothing of it.
                    if file.staged is None and not self.is_moving(file):
                        return self._stage_over(file, truncate=truncate)
                continue
            try:
                if truncate:
                    await staged.truncate(0)
                return staged
            except FileEnded:
                continue

    def _stage_over(self, file: File, *, truncate: bool) -> DirtyFile:
        if file.outdated or file.version is None:
            raise StaleVersion(f"{path_of(file)} was replaced or deleted.")
        staged = self.location(file.parent).writers.stage_over(
            file.version,
            path_below(file),
            truncate=truncate,
            mode=file.mode,
            modified_ns=file.modified_ns,
            storage_class=file.storage_class,
        )
        self._attach(file, staged)
        return staged

    def _attach(self, file: File, staged: DirtyFile) -> None:
        staged.watcher = _Watcher(self, file, staged)
        staged.turn = _turn_of(file)
        file.staged = staged
        self._tell_handles(file)
        file.modified_ns = staged.modified_ns
        self.changes.pin(file.parent, file.name, file)

    def opened(self, file: File, *, writes: bool) -> None:
        """A handle of a file is open from now on."""
        self._open[file] += 1
        if writes:  # whoever only reads has no entry, not even an empty one
            self._writing[file] += 1
        self._tell_handles(file)

    async def released(self, file: File, *, writes: bool) -> None:
        """A handle is closed. With the last one that may write, what is unpublished is published.

        Raises what publishing raises; the bytes are kept then.
        """
        self._open[file] -= 1
        self._writing[file] -= writes
        self._tell_handles(file)
        if not self._writing[file]:
            del self._writing[file]
        if not self._open[file]:
            del self._open[file]
        if file.staged is not None and (writes or file.staged.detached):
            await self.finish(file)

    def _tell_handles(self, file: File) -> None:
        if file.staged is not None:
            file.staged.open_handles = self._open[file]
            file.staged.writable_handles = self._writing[file]

    async def finish(self, file: File) -> None:
        """End the staging of a file that nobody has open for writing. Raises as `released`."""
        await self.still(file)
        staged = file.staged
        if staged is None or file in self._writing:
            return
        is_over = await staged.close()
        if not is_over and staged.error is not None and not staged.detached:
            raise staged.error

    async def give_way(self, file: File, staged: DirtyFile, version: ObjectVersion | None) -> None:
        """S3 has another version of a file than this one, which it was staged with.

        Where nothing was written since, the name is that of the other version from now on.
        """
        async with self.lock(file):
            if file.staged is staged and file.version is version and await staged.give_way():
                self._tree.outdate(file)

    def end(self, file: File, staged: DirtyFile) -> None:
        """A file is not being written any more. Whoever is staged for its node now is not meant."""
        if file.staged is not staged:
            return
        file.staged = None
        self._release_name(file)
        if not file.outdated:
            file.version, file.modified_ns = staged.version, staged.modified_ns

    async def publish(self, file: File) -> None:
        """Return when S3 has the content as it is now; at once for a file without a name.

        Raises what DirtyFile.publish raises.
        """
        await self.still(file)
        if file.staged is not None:
            await file.staged.publish()

    async def lose_name(self, file: File) -> None:
        """The name of a file was removed, or given to another: what is staged has nowhere to go.

        Handles that are open go on working.
        """
        self._release_name(file)
        self._tree.inodes.unlink(file)
        file.outdated = True
        staged = file.staged
        if staged is not None:
            await staged.replaced()
            await staged.close()

    def rename(self, node: Node, parent: Directory, name: bytes) -> None:
        """A node has another name from now on; what had it before has lost it."""
        assert node.parent is not None
        old_parent, old_name = node.parent, node.name
        is_pinned = self.changes.of(old_parent).get(old_name) is node
        self.changes.release(old_parent, old_name)
        self.changes.tell(old_parent, old_name, None)
        self._tree.inodes.move(node, parent, name)
        if is_pinned and isinstance(node, File):
            self.changes.pin(parent, name, node)
        else:
            self.changes.tell(parent, name, node)

    def published(self, file: File, version: ObjectVersion) -> None:
        """S3 has the content as it was when the publication began."""
        assert file.staged is not None
        file.version, file.modified_ns = version, file.staged.modified_ns
        file.outdated = False
        self.changes.filled(file.parent)
        self.recall.note(file)

    def note(self, node: Node) -> None:
        """Mode or time of a node were set: remembered with the version, if S3 has it by now."""
        if isinstance(node, Directory) or node.staged is None or not node.staged.dirty:
            self.recall.note(node)

    def failed(self, file: File, error: StsfsError) -> None:
        """A publication failed; after a conflict the name is that of another client's object."""
        if isinstance(error, _LOST):
            self._release_name(file)
            file.outdated = True

    def _release_name(self, file: File) -> None:
        if self.changes.of(file.parent).get(file.name) is file:
            self.changes.release(file.parent, file.name)


def path_below(node: Node) -> str:
    """The path below the mount point, without a slash in front, as staged files have it."""
    return path_of(node).removeprefix("/")


def _is_inside(node: Node, directory: Directory) -> bool:
    """Whether a node lies below a directory, at any depth."""
    at = node.parent
    while at is not None and at is not directory:
        at = at.parent
    return at is not None


def _turn_of(file: File) -> OrderedLock:
    if file.turn is None:
        file.turn = OrderedLock(Rank.TURN)
    return file.turn


_LOST = (WriteConflict, AlreadyExists)
"""How a publication fails that will not be tried again, because another client was faster."""


class _Watcher:
    """Hears what becomes of the content of one node; implements writer.listeners.Watcher."""

    def __init__(self, nodes: StagedNodes, file: File, staged: DirtyFile) -> None:
        self._nodes, self._file, self._staged = nodes, file, staged

    def published(self, version: ObjectVersion) -> None:
        if self._file.staged is self._staged:
            self._nodes.published(self._file, version)

    def failed(self, error: StsfsError) -> None:
        if self._file.staged is self._staged:
            self._nodes.failed(self._file, error)

    def gone(self) -> None:
        self._nodes.end(self._file, self._staged)
