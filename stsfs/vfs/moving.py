"""Renames of directories: every key below gets another prefix, and every known node with it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from stsfs.errors import NotFound, StaleVersion, StsfsError, TooManyObjects, WriteConflict
from stsfs.store.object_store import Expected, ListedObject, ObjectVersion
from stsfs.store.paging import Pages
from stsfs.vfs.asking import Asking
from stsfs.vfs.nodes import Directory, File, Node, path_of
from stsfs.vfs.staged_nodes import StagedNodes, path_below
from stsfs.vfs.tree import Tree


class TreeMove:
    """Moves directories inside their location."""

    def __init__(self, tree: Tree, nodes: StagedNodes, asking: Asking, *, limit: int) -> None:
        """limit is how many objects a directory may have."""
        self._tree, self._nodes, self._asking, self._limit = tree, nodes, asking, limit

    async def move(
        self, directory: Directory, parent: Directory, name: bytes, replaced: ListedObject | None
    ) -> None:
        """Give a directory another name, which nothing has but an empty directory and its marker.

        Raises TooManyObjects before anything is changed; else what Mover.move_tree raises.
        """
        old_parent, old_prefix = directory.parent, directory.prefix
        assert old_parent is not None
        new_prefix = f"{parent.prefix}{name.decode()}/"
        new_path = f"{path_below(parent)}/{name.decode()}".removeprefix("/")
        async with self._nodes.moving(directory), AsyncExitStack() as locks:
            staged = self._staged_below(directory)
            await locks.enter_async_context(self._nodes.lock(*staged))
            for file in staged:
                if file.staged is not None:
                    await locks.enter_async_context(file.staged.held())
            await self._publish(staged)
            objects = await self._objects(directory, parent, name)
            is_kept = self._nodes.changes.of(old_parent).get(directory.name) is directory
            if not objects and not is_kept and not self._staged_below(directory):
                self._tree.distrust(old_parent)
                raise NotFound(f"{path_of(directory)} was removed by another client.")
            moved: Mapping[str, ObjectVersion] = {}
            if objects:
                moved = await self._move(directory, objects, new_prefix, new_path, replaced)
            self._nodes.rename(directory, parent, name)
            self._follow(directory, _Moved(old_prefix, new_prefix, objects, moved))
            for file in self._staged_below(directory):
                await self._follow_staged(file, old_prefix, new_prefix)
        if objects:
            self._nodes.changes.filled(parent)
        else:
            self._nodes.changes.keep(directory)
        self._nodes.changes.keep(old_parent)

    async def _move(
        self,
        directory: Directory,
        objects: Sequence[ListedObject],
        new_prefix: str,
        new_path: str,
        replaced: ListedObject | None,
    ) -> Mapping[str, ObjectVersion]:
        mover = self._nodes.location(directory).mover
        try:
            return await mover.move_tree(
                objects,
                directory.prefix,
                new_prefix,
                path=path_below(directory),
                target_path=new_path,
                replaced=replaced,
            )
        except StsfsError as exc:
            # Half of it may have happened: who looks next asks.
            self._tree.distrust_all()
            if isinstance(exc, WriteConflict):  # the kernel renames what is there now
                raise StaleVersion(exc.sentence) from exc
            raise

    def _below(self, directory: Directory) -> Iterator[Node]:
        """Every node below a directory that anybody can have: the kernel, a listing, or we."""
        changes = self._nodes.changes
        waiting, seen = [directory], {directory}
        while waiting:
            at = waiting.pop()
            found: dict[Node, None] = dict.fromkeys(at.looked_up.values())
            found.update(dict.fromkeys(changes.of(at).values()))
            for listing in changes.listings(at):
                found.update(dict.fromkeys(listing.nodes()))
            for node in found:
                if node.parent is at and node not in seen:
                    yield node
                    if isinstance(node, Directory):
                        seen.add(node)
                        waiting.append(node)

    async def _publish(self, files: list[File]) -> None:
        """What S3 has an old version of is moved there, so it has to be the new one first.

        What is only here and still being written just gets another name.
        """
        for file in files:
            staged = file.staged
            if staged is None:
                continue
            is_new = (
                staged.version is None and staged.writable_handles > 0 and not staged.has_parked
            )
            if staged.dirty and not is_new and _has_name(file):
                await staged.publish()

    async def _objects(
        self, directory: Directory, parent: Directory, name: bytes
    ) -> list[ListedObject]:
        """All objects below, the marker and hidden keys included; asks the rules about them."""
        store = self._nodes.location(directory).writers.store
        objects: list[ListedObject] = []
        pages = Pages(store, directory.prefix)
        while (page := await pages.next()) is not None:
            objects += page.objects
            if len(objects) > self._limit:
                raise TooManyObjects(
                    f"{path_of(directory)} has more than {self._limit} objects, which is the limit"
                    " of one rename.",
                    remedy="Move what is in it piece by piece, or mount with a higher"
                    " --rename-limit.",
                )
        skip_bytes = len(directory.prefix.encode())
        longest_bytes = max((len(each.key.encode()) - skip_bytes for each in objects), default=0)
        self._asking.of_rename(directory, parent, name, below_bytes=longest_bytes)
        return objects

    def _follow(self, directory: Directory, moved: "_Moved") -> None:
        """Give all nodes below their new keys; what is known of names has to be asked anew."""
        known = [directory, *self._below(directory)]
        for node in known:
            if isinstance(node, File):
                _follow_file(node, moved)
        for node in known:
            if isinstance(node, Directory):
                node.prefix = moved.to + node.prefix.removeprefix(moved.origin)
                self._tree.retire(node)
        recall = self._nodes.recall
        for key, version in moved.versions.items():
            old_key = moved.origin + key.removeprefix(moved.to)
            if moved.listed[old_key].etag != version.etag:
                recall.moved(directory, old_key, key, version.etag)
        recall.moved_prefix(directory, moved.origin, moved.to)

    def _staged_below(self, directory: Directory) -> list[File]:
        """Files that are staged under a name below a directory."""
        return [
            each for each in self._below(directory) if isinstance(each, File) and _has_name(each)
        ]

    async def _follow_staged(self, file: File, old_prefix: str, new_prefix: str) -> None:
        staged = file.staged
        if staged is None:
            return
        if file.version is not None:
            await staged.follow(file.version, path_below(file))
        else:
            key = new_prefix + staged.key.removeprefix(old_prefix)
            await staged.rename(key, path_below(file), Expected(None))


class _Moved:
    """What has become of all keys below a prefix."""

    def __init__(
        self,
        origin: str,
        to: str,
        objects: Sequence[ListedObject],
        versions: Mapping[str, ObjectVersion],
    ) -> None:
        self.origin, self.to, self.versions = origin, to, versions
        self.listed = {each.key: each for each in objects}


def _follow_file(file: File, moved: _Moved) -> None:
    if (version := file.version) is None or (file.staged is not None and not _has_name(file)):
        return
    key = moved.to + version.key.removeprefix(moved.origin)
    found = moved.listed.get(version.key)
    if found is not None and found.etag == version.etag:
        file.version, file.outdated = moved.versions[key], False
    else:
        # Another client has replaced it: what was moved is theirs.
        file.outdated = file.staged is None
        file.version = replace(version, key=key)


def _has_name(file: File) -> bool:
    """Whether a file is staged under a name: neither removed, nor lost to another client."""
    return file.staged is not None and not file.staged.detached
