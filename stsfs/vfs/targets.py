"""What a rename would replace: is it still what whoever renames has seen there?

An editor reads a file, writes another one and renames that over the first. Nothing in the rename
tells which version was read, so it is remembered which one was opened here last under each name.
"""

from dataclasses import dataclass

from stsfs.errors import TargetChanged
from stsfs.store.object_store import Expected, ObjectVersion
from stsfs.store.paging import object_at
from stsfs.vfs.nodes import Directory, File, path_of
from stsfs.vfs.staged_nodes import StagedNodes
from stsfs.vfs.tree import Tree

OPENED_MAX = 10_000
"""Names; those opened least recently go first, and count as never opened."""


class Targets:
    """What was seen of each name, and the refusal where S3 has something else by now."""

    def __init__(self, tree: Tree, nodes: StagedNodes) -> None:
        self._tree, self._nodes = tree, nodes
        self._opened: dict[tuple[Directory, bytes], File] = {}  # opened least recently first
        self._copies: dict[tuple[Directory, bytes], ObjectVersion] = {}  # noted last last

    def opened(self, file: File) -> None:
        """A file was opened or made here, or its user was told that it has changed."""
        self.lost(file.parent, file.name)
        self._opened[file.parent, file.name] = file
        while len(self._opened) > OPENED_MAX:
            del self._opened[next(iter(self._opened))]

    def may_be_copy(self, parent: Directory, name: bytes, source: ObjectVersion) -> None:
        """A rename to this name has failed, and may have put a copy of this object there."""
        self._copies[parent, name] = source
        while len(self._copies) > OPENED_MAX:
            del self._copies[next(iter(self._copies))]

    def lost(self, parent: Directory, name: bytes) -> None:
        """What had this name was removed here, or has another one."""
        self._opened.pop((parent, name), None)
        self._copies.pop((parent, name), None)

    def seen(self, parent: Directory, name: bytes) -> "Seen | None":
        """What was seen under a name; None where that is not known.

        That is what was opened here last; else what this mount shows.
        """
        known = self._opened.get((parent, name))
        if known is None or (known.parent, known.name) != (parent, name):
            found = self._tree.known_entry(parent, name)
            if not isinstance(found, File):
                is_absent = found is not None or self._tree.is_shown_absent(parent, name)
                return Seen(None) if is_absent else None
            known = found
        return Seen(known)

    async def check(self, target: File, seen: "Seen | Expected | None") -> None:
        """Raise TargetChanged where a file, as S3 has it now, is not what was seen.

        Once: from then on it is what was seen, and a rename repeated on purpose replaces it.
        """
        if seen is None or target.version is None or _is_same(seen.etag, target.version.etag):
            return
        is_ours = await self._is_copy(target, target.version)
        self.opened(target)
        if is_ours:
            return
        raise TargetChanged(
            f"{path_of(target)} was changed by another client since it was read here.",
            remedy="Look at it, then repeat the rename: it replaces what is there then.",
        )

    async def _is_copy(self, target: File, version: ObjectVersion) -> bool:
        """Whether a rename of ours has made it that seemed to fail: nobody else is replaced."""
        source = self._copies.get((target.parent, target.name))
        if source is None or _is_same(source.etag, version.etag):
            return source is not None
        writer = self._nodes.location(target.parent).writers.writer
        etag = await writer.copied(source, version.key)
        return etag is not None and _is_same(etag, version.etag)

    async def check_staged(self, target: File) -> None:
        """The same for a file whose content is here, so that no listing says what S3 has."""
        version = stored_version(target)
        found = await object_at(target.parent.site.store, target.key)
        if found is None or (version is not None and _is_same(version.etag, found.etag)):
            return
        raise TargetChanged(
            f"{path_of(target)} was changed by another client while it was written here.",
            remedy="Close it first: what was written is kept where it cannot be published.",
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What was under a name when somebody looked: a file, or None for none."""

    file: File | None

    @property
    def etag(self) -> str | None:
        """Of its version in S3; what has been published from here since counts as seen."""
        version = None if self.file is None else stored_version(self.file)
        return None if version is None else version.etag


def stored_version(file: File) -> ObjectVersion | None:
    """The version of a file that S3 has, as far as is known here."""
    return file.version if file.staged is None else file.staged.version


def _is_same(one: str | None, other: str) -> bool:
    """Whether two ETags name the same content, however a server writes them."""
    return one is not None and _bare(one) == _bare(other)


def _bare(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
