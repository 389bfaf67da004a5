"""Changes of names: directories made and removed, files removed, both renamed.

The kernel holds the locks of the directories concerned until we answer: nobody else changes names
in them meanwhile. Handlers are repeated after ESTALE: each looks at what is there now.

Other hosts change names as well. So what a change depends on is what S3 says during the call, or
has said just before (Tree.fresh), and not what is remembered here; and where S3 knows conditions,
they hold for the moment between that answer and the change.
"""

import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import NoReturn

from stsfs.errors import (
    AlreadyExists,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    StaleVersion,
    StsfsError,
    WriteConflict,
)
from stsfs.rules.question import Operation
from stsfs.store.object_store import Expected, ListedObject, ObjectVersion, Traits
from stsfs.store.paging import first_keys
from stsfs.vfs.asking import Asking
from stsfs.vfs.explain import why_hidden
from stsfs.vfs.key_listing import MARKER_HIDDEN
from stsfs.vfs.listing import is_file_name
from stsfs.vfs.moving import TreeMove
from stsfs.vfs.nodes import Directory, File, Node, new_number, path_of
from stsfs.vfs.staged_nodes import StagedNodes, path_below
from stsfs.vfs.targets import Targets, stored_version
from stsfs.vfs.tree import Tree

MARKER = Traits(content_type="application/x-directory")
"""Of the empty object `dir/` that stands for a directory; the S3 console makes them as well."""


class _Nothing:
    """Body of an empty object."""

    size_bytes = 0

    async def read(self, offset: int, size_bytes: int) -> bytes:
        return b""


class Namespace:
    """Makes, removes and renames. Raises what `errors` lists for changes."""

    def __init__(
        self, tree: Tree, nodes: StagedNodes, asking: Asking, *, rename_limit: int
    ) -> None:
        self._tree, self._nodes, self._asking = tree, nodes, asking
        self._changes = nodes.changes
        self._targets = Targets(tree, nodes)
        self._tree_move = TreeMove(tree, nodes, asking, limit=rename_limit)

    def refuse(self, operation: Operation, parent_inode: int, name: bytes) -> NoReturn:
        """Raise why something cannot be made that is neither a file nor a directory."""
        self._asking.of_name(operation, self._tree.directory(parent_inode), name)
        raise AssertionError(f"no rule forbids {operation}")

    async def fresh(self, parent: Directory, name: bytes) -> Node | None:
        """What has a name now, as S3 says: whoever makes, removes or renames it asks here.

        What the kernel still knows under that name, and is no more, it has to look up again.
        """
        node = await self._tree.fresh(parent, name)
        known = parent.looked_up.get(name)
        if known is not None and known is not node:
            self._tree.inodes.unlink(known)
            if isinstance(known, File) and known.staged is None:
                self._tree.outdate(known)
        return node

    def opened(self, file: File) -> None:
        """A file was opened: what is done to its name from now on goes by this version."""
        self._targets.opened(file)

    async def mkdir(self, parent_inode: int, name: bytes, mode: int | None) -> Directory:
        """Make a directory. Counts one reference of the kernel to its node."""
        parent = self._tree.directory(parent_inode)
        self._asking.of_name("mkdir", parent, name, kind="directory", mode=mode)
        async with self._nodes.changing(parent):
            node = await self.fresh(parent, name)
            if node is not None:
                raise AlreadyExists(f"{path_of(node)} exists.")
            key = f"{parent.prefix}{name.decode()}/"
            made = Directory(new_number(), parent.site, key, parent, name, mode=mode)
            try:
                await self._nodes.location(parent).writers.writer.put(
                    key, _Nothing(), MARKER, expected=Expected(None), write_id=uuid.uuid4().hex
                )
            except WriteConflict:
                self._tree.distrust(parent)
                raise AlreadyExists(f"{path_of(made)} was made by another client.") from None
            self._tree.know_empty(made)
            self._changes.tell(parent, name, made)
            self._changes.filled(parent)
        if mode is not None:
            self._nodes.recall.note(made)
        self._tree.inodes.remember(made)
        return made

    async def rmdir(self, parent_inode: int, name: bytes) -> None:
        """Remove a directory that has nothing in it, as S3 says at this moment.

        Raises NotFound for one that S3 does not have any more, and that is not kept here.
        """
        parent = self._tree.directory(parent_inode)
        node, _ = await self._tree.lookup(parent, name)
        if node is None:
            raise NotFound(f"{_path(parent, name)} does not exist.")
        if isinstance(node, File):
            raise NotADirectory(f"{path_of(node)} is a file.")
        self._asking.of_node("rmdir", node)
        async with self._nodes.changing(parent):
            marker = await self._marker_only(node)
            if marker is not None:
                await self._delete_marker(node, marker)
            elif self._changes.of(parent).get(name) is not node:
                self._retire(node)
                self._tree.distrust(parent)
                raise NotFound(f"{_path(parent, name)} was removed by another client.")
            self._retire(node)
            self._changes.tell(parent, name, None)
            self._changes.keep(parent)

    async def unlink(self, parent_inode: int, name: bytes) -> None:
        """Remove a file, whatever version S3 has of it now. Open handles go on working."""
        parent, node = await self._find(parent_inode, name)
        if isinstance(node, Directory):
            raise IsADirectory(f"{path_of(node)} is a directory.")
        self._asking.of_node("unlink", node)
        async with self._nodes.changing(parent):
            await self._unlink(node)
            self._targets.lost(parent, name)
            self._changes.tell(parent, name, None)
            self._changes.keep(parent)

    async def unmake(self, file: File) -> None:
        """A file that was to be made never came to S3, and never will."""
        await self._nodes.lose_name(file)
        self._changes.tell(file.parent, file.name, None)

    async def _unlink(self, node: File) -> None:
        key, staged = node.key, node.staged
        if staged is None or staged.detached:
            async with self._nodes.lock(node):
                await self._delete(node, node.version)
        else:
            async with staged.removing() as version:
                if version is not None:
                    await self._delete(node, version)
        await self._nodes.lose_name(node)
        self._nodes.recall.forget(node, key)

    async def _delete(self, file: File, version: ObjectVersion | None) -> None:
        seen = None if version is None else version.etag
        try:
            await self._nodes.location(file.parent).writers.writer.delete(file.key, seen=seen)
        except StsfsError:
            # Perhaps it has happened, and only the answer was lost: who looks next asks.
            if file.staged is None:
                self._tree.outdate(file)
            raise

    async def rename(
        self,
        old_parent_inode: int,
        old_name: bytes,
        new_parent_inode: int,
        new_name: bytes,
        *,
        replace: bool = True,
        exchange: bool = False,
    ) -> None:
        """Give a file or directory another name; with replace, in place of what has it now."""
        new_parent = self._tree.directory(new_parent_inode)
        seen = self._targets.seen(new_parent, new_name)  # before anybody asks anew
        old_parent, node = await self._find(old_parent_inode, old_name)
        self._asking.of_rename(node, new_parent, new_name, exchange=exchange)
        if (old_parent, old_name) == (new_parent, new_name):
            return
        async with self._nodes.changing(node, old_parent, new_parent):
            target = await self.fresh(new_parent, new_name)
            if target is not None and not replace:
                raise AlreadyExists(f"{path_of(target)} exists.")
            if isinstance(node, Directory):
                await self._rename_directory(node, new_parent, new_name, target)
            elif isinstance(target, Directory):
                raise IsADirectory(f"{path_of(target)} is a directory.")
            else:
                if target is not None and target.staged is None:
                    await self._targets.check(target, seen)
                await self._rename_file(node, new_parent, new_name, target, absent=not replace)
                self._targets.lost(old_parent, old_name)
                self._targets.opened(node)

    async def _rename_directory(
        self, node: Directory, new_parent: Directory, new_name: bytes, target: Node | None
    ) -> None:
        if isinstance(target, File):
            raise NotADirectory(f"{path_of(target)} is a file.")
        marker = None if target is None else await self._marker_only(target)
        await self._tree_move.move(node, new_parent, new_name, marker)
        if target is not None:
            self._tree.retire(target)
            self._changes.forget(target)

    async def _rename_file(
        self,
        node: File,
        new_parent: Directory,
        new_name: bytes,
        target: File | None,
        *,
        absent: bool,
    ) -> None:
        old_parent = node.parent
        files = [each for each in (node, target) if each is not None]
        async with self._nodes.lock(*files):
            is_done = False
            while not is_done:
                await self._publish_to_move(node, files)
                async with AsyncExitStack() as holds:
                    for each in files:
                        if each.staged is not None:
                            await holds.enter_async_context(each.staged.held())
                    # In a hold it may have turned out that S3 has one of them after all.
                    is_done = not _must_be_in_store(node, files)
                    if is_done:
                        await self._rename_held(node, new_parent, new_name, target, absent=absent)
        self._changes.keep(old_parent)

    async def _publish_to_move(self, node: File, files: Sequence[File]) -> None:
        """What S3 has of them is moved, or replaced, there: by what the node has now."""
        if not _must_be_in_store(node, files):
            return
        staged = node.staged
        assert staged is not None
        if staged.detached or (await staged.publish()) is None:
            raise StaleVersion(f"{path_of(node)} was replaced or deleted.")

    async def _rename_held(
        self,
        node: File,
        parent: Directory,
        name: bytes,
        target: File | None,
        *,
        absent: bool,
    ) -> None:
        """Rename a file while no publication of it or of its target is under way."""
        staged, old_key, path = node.staged, node.key, _path(parent, name)[1:]
        if staged is not None and staged.version is None:
            await staged.rename(parent.prefix + name.decode(), path, Expected(None))
        else:
            if target is not None and target.staged is not None:
                await self._targets.check_staged(target)
            node.version = await self._move(node, parent, name, target, absent=absent)
            if staged is not None:
                await staged.follow(node.version, path)
            self._nodes.recall.moved(node, old_key, node.version.key, node.version.etag)
            self._changes.filled(parent)
        if target is not None:
            await self._nodes.lose_name(target)
        self._nodes.rename(node, parent, name)

    async def _move(
        self, file: File, parent: Directory, name: bytes, target: File | None, *, absent: bool
    ) -> ObjectVersion:
        version = file.version if file.staged is None else file.staged.version
        if file.outdated or version is None:
            raise StaleVersion(f"{path_of(file)} was replaced or deleted.")
        mover = self._nodes.location(file.parent).mover
        replaced = None if target is None else stored_version(target)
        expected = Expected(None if replaced is None else replaced.etag)
        try:
            return await mover.move_object(
                version,
                parent.prefix + name.decode(),
                path=path_below(file),
                target_path=_path(parent, name)[1:],
                storage_class=file.storage_class,
                expected=expected,
            )
        except StsfsError as exc:
            # Half of it may have happened: who looks next asks.
            for each in (file, target):
                if each is not None and each.staged is None:
                    self._tree.outdate(each)
            if target is not None and target.staged is not None:
                target.staged.may_be_copy(version)
            self._targets.may_be_copy(parent, name, version)
            self._tree.distrust(parent)
            if isinstance(exc, WriteConflict):
                await self._explain_conflict(parent, name, expected, absent=absent)
                # The source is another one: the kernel renames what is there now.
                raise StaleVersion(exc.sentence) from exc
            raise

    async def _explain_conflict(
        self, parent: Directory, name: bytes, expected: Expected, *, absent: bool
    ) -> None:
        """Return if what a move met is not that its target has changed; else raise what it is."""
        there = await self.fresh(parent, name)
        if isinstance(there, Directory) or (there is not None and absent):
            raise AlreadyExists(f"{path_of(there)} was made by another client.")
        if there is not None and there.staged is None:
            await self._targets.check(there, expected)

    async def _find(self, parent_inode: int, name: bytes) -> tuple[Directory, Node]:
        parent = self._tree.directory(parent_inode)
        node = await self.fresh(parent, name)
        if node is None:
            raise NotFound(f"{_path(parent, name)} does not exist.")
        return parent, node

    async def _marker_only(self, directory: Directory) -> ListedObject | None:
        """The object that an empty directory has of its own, if it has one; asks S3 now.

        Raises NotEmpty, also where that object has content: nobody would see it go.
        """
        for node in self._changes.of(directory).values():
            raise NotEmpty(f"{path_of(node)} is still there.")
        store = self._nodes.location(directory).writers.store
        found = await first_keys(store, directory.prefix, 2)
        below = [each.key for each in found if each.key != directory.prefix]
        if below:
            self._tree.distrust(directory)
            raise NotEmpty(_why_not_empty(directory, below[0]))
        if found and found[0].size_bytes:
            self._tree.distrust(directory)
            raise NotEmpty(_why_not_empty(directory, found[0].key))
        return found[0] if found else None

    async def _delete_marker(self, directory: Directory, marker: ListedObject) -> None:
        """Remove the object of an empty directory, unless another client has changed it."""
        try:
            await self._nodes.location(directory).writers.writer.delete(
                marker.key, expected=Expected(marker.etag)
            )
        except WriteConflict:
            self._tree.distrust(directory)
            raise NotEmpty(_why_not_empty(directory, marker.key)) from None

    def _retire(self, directory: Directory) -> None:
        assert directory.parent is not None
        self._tree.retire(directory)
        self._tree.inodes.unlink(directory)
        self._changes.release(directory.parent, directory.name)
        self._changes.forget(directory)
        self._nodes.recall.forget(directory, directory.prefix)


def _path(parent: Directory, name: bytes) -> str:
    return f"{path_of(parent).rstrip('/')}/{name.decode('utf-8', 'backslashreplace')}"


def _must_be_in_store(node: File, files: Sequence[File]) -> bool:
    """Whether a file has to be published before it can get another name.

    Of a file that is only here just the name changes, unless S3 has what it replaces, or parts of
    an upload under its present key.
    """
    staged = node.staged
    if staged is None or not staged.dirty:
        return False
    return staged.has_parked or any(stored_version(each) is not None for each in files)


def _why_not_empty(directory: Directory, key: str) -> str:
    """In words, with the key that no path shows if it is one."""
    sentence = f"{path_of(directory)} has something in it"
    if key == directory.prefix:
        return f"{sentence} that no path shows, {key!r}: {MARKER_HIDDEN}."
    rest = key[len(directory.prefix) :].removesuffix("/")
    if all(is_file_name(name.encode("utf-8", "surrogateescape")) for name in rest.split("/")):
        return f"{sentence}: {key!r}."
    return f"{sentence} that no path shows, {key!r}: {why_hidden(key, directory.prefix)}."
