"""Questions about a path that no kernel asks: what is it, what is known of it, forget that.

Answers come from the same tree and cache as those for the kernel, so both always agree.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import trio

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.content import Content
from stsfs.errors import DeadlineExceeded, NameTooLong, NotADirectory, NotFound, StsfsError
from stsfs.rules import question as rules
from stsfs.rules.question import Place, Spot
from stsfs.store.object_store import ObjectVersion
from stsfs.vfs import explain
from stsfs.vfs.explain import READ_ONLY, Facts
from stsfs.vfs.nodes import Directory, File, Node
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs

DEADLINE_S = 20.0
"""For the LISTs of one question; less than the patience of whoever asks."""

TURN_NODES = 2000
"""After so many nodes others have their turn: a millisecond."""


class KernelCache(Protocol):
    """What the kernel remembers of this mount; implemented by `fuse.kernel_cache`."""

    async def forget(self, entries: Collection[tuple[int, bytes]], inodes: Collection[int]) -> None:
        """Ask again about these names (directory, name), and drop the pages of these inodes."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a path leads."""

    path: str
    """Below the mount point, beginning with `/`; as the kernel sees it, unless it is hidden."""

    kind: explain.Kind
    key: str
    """The object's key, or what the keys of a directory begin with; empty where there is none."""

    parent: Directory | None = None
    """The directory that has, or would have, the last component; None for the root."""

    node: Node | None = None
    error: StsfsError | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a refresh has dropped."""

    listings: int
    memory_bytes: int
    kernel_entries: int


class Inspector:
    """Looks into the tree and the cache of one mount, and makes them forget."""

    def __init__(self, tree: Tree, cache: BlockCache, vfs: Vfs) -> None:
        self._tree = tree
        self._cache = cache
        self._vfs = vfs

    async def find(self, path: str) -> Found:
        """What a path below the mount point is; asks the bucket where the tree does not know.

        Never raises a StsfsError: what went wrong is in the answer. path has no leading slash of
        its own, and may be the text of a key that no path can name (`a//b`).
        """
        root = self._tree.inodes.root
        names = _normalised(path)
        shown = "/" + "/".join(names)
        path = path.removesuffix("/")
        key = _key_below(root, path)
        error: StsfsError = DeadlineExceeded(f"No answer within {DEADLINE_S:g} s.")
        with trio.move_on_after(DEADLINE_S):
            try:
                found = await self._walk(shown, names)
                unusual = path != "/".join(names) or isinstance(found.error, NameTooLong)
                if found.kind == "absent":
                    top = root if unusual or found.parent is None else found.parent
                    rest = path if top is root else _below(top, shown)
                    reason = self._listed_as_hidden(found)
                    if reason is None:
                        reason = await self._tree.view(top).hidden_reason(top, rest)
                    if reason is not None:
                        return Found(f"/{path}", "hidden", key, error=found.error, reason=reason)
                return found
            except StsfsError as exc:
                error = exc
        return Found(shown, "unknown", key, error=error)

    async def _walk(self, shown: str, names: list[str]) -> Found:
        parent: Directory | None = None
        node: Node = self._tree.inodes.root
        for index, text in enumerate(names):
            rest = "/".join(names[index:])
            if isinstance(node, File):
                error: StsfsError = NotADirectory(f"/{'/'.join(names[:index])} is a file.")
                key = _key_below(node.parent, f"{names[index - 1]}/{rest}")
                return Found(shown, "absent", key, error=error)
            parent, name = node, _encoded(text)
            key = _key_below(parent, rest)
            if parent.is_site_root and name in parent.site.reserved_names:
                return Found(shown, "reserved", key, parent)
            try:
                below, _ = await self._tree.lookup(parent, name)
            except NameTooLong as exc:
                return Found(shown, "absent", key, error=exc)
            if below is None:
                return Found(shown, "absent", key, parent, error=_absent(parent))
            node = below
        return Found(shown, _kind(node), node.key, parent, node)

    def facts(
        self,
        found: Found,
        credentials: StsfsError | None,
        *,
        place: Place = READ_ONLY,
        refused_before: bool = False,
    ) -> Facts:
        """All that the rules want to know; credentials is why there are none."""
        node = found.node
        spot, touched = _spot(found, place), _touched(found, place)
        if not isinstance(node, File):
            return Facts(
                kind=found.kind,
                key=found.key,
                spot=spot,
                touched=touched,
                by_key=self._is_by_key(found),
                error=found.error,
                reason=found.reason,
                shadows=self._shadows(found),
                credentials=credentials,
            )
        version, size_bytes = node.version, node.size_bytes or 0
        content = None if version is None else self._cache.contents.get(version)
        return Facts(
            kind="file",
            key=found.key,
            spot=spot,
            touched=touched,
            by_key=self._is_by_key(found),
            staged=node.staged is not None,
            size_bytes=size_bytes,
            storage_class=node.storage_class,
            outdated=node.outdated,
            held_bytes=0 if version is None else self.held_bytes(version),
            failure=None if content is None else content.failure(0, size_bytes),
            refused_before=refused_before,
            credentials=credentials,
        )

    def _is_by_key(self, found: Found) -> bool:
        at = found.node or found.parent or self._tree.inodes.root
        return (at.parent if isinstance(at, File) else at).site.view is None

    async def properties(self, node: Node) -> Mapping[str, str]:
        """What is known beside the object; see View."""
        if isinstance(node, File):
            await self._vfs.settle(node)
        return await self._vfs.properties(node)

    def held_bytes(self, version: ObjectVersion) -> int:
        """How many bytes of a version are in memory."""
        content = self._cache.contents.get(version)
        return 0 if content is None else content.held_bytes

    def listing_age(self, directory: Directory) -> dict[str, object] | None:
        """How long the listing of a directory is still trusted, and what it has; None if none."""
        listing = self._tree.known_listing(directory)
        if listing is None:
            return None
        return {
            "trusted_for_s": round(listing.expires_s - trio.current_time(), 1),
            "entries": listing.end,
            "complete": listing.complete,
        }

    def open_handles(self, node: Node | None) -> int:
        """How many handles are open on this very version."""
        return sum(1 for handle in self._vfs.open_handles() if handle.file is node)

    def hidden(self) -> Iterator[tuple[str, str]]:
        """Hidden keys and why they are, in the directories listed now."""
        for directory, what, reason in self._tree.hidden():
            yield what, reason or explain.why_hidden(what, directory.prefix)

    def _listed_as_hidden(self, found: Found) -> str | None:
        """Why the last listing could not show what has this key; asks nobody."""
        listing = None if found.parent is None else self._tree.known_listing(found.parent)
        return (listing.hidden.reasons.get(found.key) if listing is not None else None) or None

    def _shadows(self, found: Found) -> bool:
        if found.kind != "directory" or found.parent is None:
            return False
        listing = self._tree.known_listing(found.parent)
        return listing is not None and found.key.removesuffix("/") in listing.hidden.reasons

    async def forget(self, path: str, kernel: KernelCache) -> Forgotten:
        """Drop what is known of a path: names, bytes in memory, and what the kernel has of both.

        A directory is forgotten with all below it. Asks nobody; the next who looks does. Raises
        DeadlineExceeded where the kernel takes too long.
        """
        parent, name, node = self._deepest_known(path)
        top = node if isinstance(node, Directory) else None
        inside = _Inside(top)
        directories = [d for d in self._tree.known_directories() if inside(d)]
        forgotten = sum(self._tree.distrust(each) for each in directories)
        if parent is not None:
            forgotten += self._tree.distrust(parent)
        key, prefix = (None, top.prefix) if top is not None else (_key(parent, name), None)
        memory_bytes = await self._forget_contents(key, prefix)
        entries = {} if parent is None else {(parent.inode, name): None}
        inodes: list[int] = []
        for number, each in enumerate(self._tree.inodes.nodes()):
            if inside(each) or (each.parent is parent and each.name == name):
                if isinstance(each, File):
                    inodes.append(each.inode)
                if each.parent is not None and each is not top:
                    entries[each.parent.inode, each.name] = None
            if number % TURN_NODES == TURN_NODES - 1:
                await trio.lowlevel.checkpoint()
        for directory, missing in self._vfs.absent.names():
            if inside(directory):
                entries[directory.inode, missing] = None
        with trio.move_on_after(DEADLINE_S) as scope:
            await kernel.forget(entries.keys(), inodes)
        if scope.cancelled_caught:
            raise DeadlineExceeded(
                "The kernel waits for requests that are under way before it forgets.",
                remedy="It goes on by itself; look at `stsfs status` for what they wait for.",
            )
        return Forgotten(forgotten, memory_bytes, len(entries))

    async def _forget_contents(self, key: str | None, prefix: str | None) -> int:
        """Drop the bytes of one key, or of all keys below a prefix; returns how many."""
        dropped_bytes = 0
        contents: list[Content] = list(self._cache.contents.values())
        for number, content in enumerate(contents):
            version = content.version
            if version.key == key or (prefix is not None and version.key.startswith(prefix)):
                dropped_bytes += content.held_bytes
                content.forget()
            if number % TURN_NODES == TURN_NODES - 1:
                await trio.lowlevel.checkpoint()
        return dropped_bytes

    def _deepest_known(self, path: str) -> tuple[Directory | None, bytes, Node | None]:
        """The directory, the name in it and its node, as far down a path as anything is known."""
        parent: Directory | None = None
        name = b""
        at: Node | None = self._tree.inodes.root
        for text in _normalised(path):
            if not isinstance(at, Directory):
                break
            parent, name, at = at, _encoded(text), self._tree.known_entry(at, _encoded(text))
        return parent, name, at


class _Inside:
    """Whether a node is a directory or lies below it. Remembers, so that many are cheap."""

    def __init__(self, top: Directory | None) -> None:
        self._known: dict[Directory | None, bool] = {None: False}
        if top is not None:
            self._known[top] = True

    def __call__(self, node: Node) -> bool:
        at: Directory | None = node if isinstance(node, Directory) else node.parent
        asked: list[Directory] = []
        while at is not None and at not in self._known:
            asked.append(at)
            at = at.parent
        answer = self._known[at]
        for directory in asked:
            self._known[directory] = answer
        return answer


def _kind(node: Node) -> explain.Kind:
    return "file" if isinstance(node, File) else "directory"


def _spot(found: Found, place: Place) -> Spot:
    """A path in the words of the rules; its name is empty for the root of the mount."""
    if found.parent is None and found.kind == "directory":
        return Spot(place, found.key)
    prefix, slash, _ = found.key.removesuffix("/").rpartition("/")
    return Spot(place, prefix + slash, _encoded(found.path.rpartition("/")[2]))


def _touched(found: Found, place: Place) -> rules.Kind:
    if not isinstance(found.node, Directory):
        return "file"
    if place.storage == "none":
        return "way"
    return "root" if found.node.is_site_root else "directory"


def _key(parent: Directory | None, name: bytes) -> str | None:
    return None if parent is None else parent.prefix + name.decode("utf-8", "surrogateescape")


def _key_below(directory: Directory, rest: str) -> str:
    """The key of a path below a directory; empty where paths are no keys."""
    return f"{directory.prefix}{rest}" if directory.site.view is None else ""


def _below(directory: Directory, shown: str) -> str:
    """The rest of a path, of which a directory is the beginning."""
    depth = 0
    at: Directory | None = directory
    while at is not None:
        depth, at = depth + 1, at.parent
    return shown.split("/", depth)[depth]


def _absent(directory: Directory) -> NotFound:
    what = "no object had this key" if directory.site.view is None else "it had no such name"
    return NotFound(
        f"When its directory was last listed {what}.",
        remedy="If it was made elsewhere since, `stsfs refresh` of this path shows it at once.",
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _normalised(path: str) -> list[str]:
    """The components of a path as the kernel walks them: there are no symbolic links."""
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            del names[-1:]
        elif name not in {"", "."}:
            names.append(name)
    return names
