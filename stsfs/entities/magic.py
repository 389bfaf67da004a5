"""`/.synapse`: entities by id and files by version, beside the folders that have them.

    .synapse/by-id/syn123          the file, or the folder, wherever it lies
    .synapse/versions/syn123/4     the bytes of version 4

The directory is found by its name and not listed in the root, so that nobody copies every file
twice who copies the mount.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import trio

from stsfs.entities.names import MAGIC_NAME, UNREADABLE_REASON
from stsfs.entities.nodes import EntityDirectory, EntityFile
from stsfs.entities.records import FILE_KIND, FOLDER_KINDS
from stsfs.entities.view import EntityView
from stsfs.errors import EntityInTrash, EntityNotFound, StaleVersion
from stsfs.synapse.records import ChildHeader
from stsfs.vfs.listing import Listing
from stsfs.vfs.nodes import Directory, File, Node, Site, new_number, path_of
from stsfs.vfs.view import Found

VERSIONS_LISTED_MAX = 1000
PAGE_VERSIONS = 50

_ID = re.compile(rb"syn[1-9][0-9]{0,18}")
_NUMBER = re.compile(rb"[1-9][0-9]{0,8}")


@dataclass(slots=True, eq=False)
class MagicDirectory(Directory):
    """One of ours; `entity_id` is set where it holds the versions of a file."""

    role: str = ""
    entity_id: str = ""


class _MagicListing(Listing):
    """Shows what is known; more is found by name."""

    def passed(self, name: bytes) -> bool:
        return False


class MagicView:
    """Implements View on `.synapse`; everything about files is left to the entities view."""

    is_fixed = False

    def __init__(self, entities: EntityView, root: EntityDirectory, *, ttl_s: float) -> None:
        self._entities = entities
        self._ttl_s = ttl_s
        self._site = replace_view(root.site, self)
        self._entity_root = root
        self._root = self._directory(root, MAGIC_NAME, "root")
        self._fixed = {
            b"by-id": self._directory(self._root, b"by-id", "by-id"),
            b"versions": self._directory(self._root, b"versions", "versions"),
        }

    def special(self, parent: Directory, name: bytes) -> Node | None:
        """`.synapse` in the root of the location, and what it always holds."""
        if parent is self._entity_root and name == MAGIC_NAME:
            return self._root
        return self._fixed.get(name) if parent is self._root else None

    def begin(self, directory: Directory, old: Listing | None) -> Listing:
        """See View."""
        return _MagicListing(directory, expires_s=trio.current_time() + self._ttl_s)

    async def next_page(self, listing: Listing) -> None:
        """See View: all that is known, at once."""
        directory = listing.directory
        assert isinstance(directory, MagicDirectory)
        if directory.role == "root":
            nodes: list[Node] = list(self._fixed.values())
        elif directory.role == "of":
            nodes = await self._versions(directory, listing)
        else:
            index = self._entities.filler.index
            headers = await index.ask(index.headers)
            make = self._by_id if directory.role == "by-id" else self._versions_of
            nodes = [node for each in headers if (node := make(directory, each)) is not None]
        for node in nodes:
            listing.show(node)
        listing.pages, listing.complete = 1, True

    async def probe(self, parent: Directory, listing: Listing, name: bytes) -> Found:
        """See View."""
        assert isinstance(parent, MagicDirectory)
        found = await self._looked_up(parent, name)
        if listing.find(name) is not None:
            listing.replace(name, found)
        return found, trio.current_time() + self._ttl_s

    async def _looked_up(self, parent: MagicDirectory, name: bytes) -> Node | None:
        api = self._entities.filler.api
        try:
            if parent.role == "of" and _NUMBER.fullmatch(name):
                header = (await api.bundle(parent.entity_id, int(name))).header
                return self._entities.node(parent, name, header)
            if parent.role in {"by-id", "versions"} and _ID.fullmatch(name):
                header = (await self._entities.filler.bundle(name.decode())).header
                make = self._by_id if parent.role == "by-id" else self._versions_of
                return make(parent, header)
        except (EntityNotFound, EntityInTrash):
            return None
        return None

    def _by_id(self, parent: Directory, header: ChildHeader) -> Node | None:
        name = header.entity_id.encode()
        if header.kind in FOLDER_KINDS:
            known = parent.looked_up.get(name)
            if known is not None:
                return known
            made = self._entities.directory(parent, name, header)
            made.site = self._entity_root.site
            return made
        if header.kind == FILE_KIND:
            return self._entities.node(parent, name, header)
        return None

    def _versions_of(self, parent: Directory, header: ChildHeader) -> Node | None:
        if header.kind != FILE_KIND:
            return None
        name = header.entity_id.encode()
        known = parent.looked_up.get(name)
        return known or self._directory(parent, name, "of", header.entity_id)

    async def _versions(self, directory: MagicDirectory, listing: Listing) -> list[Node]:
        """All versions of a file, by their numbers, the newest first."""
        api, found = self._entities.filler.api, list[Node]()
        header = (await self._entities.filler.bundle(directory.entity_id)).header
        for offset in range(0, VERSIONS_LISTED_MAX, PAGE_VERSIONS):
            page = await api.versions(directory.entity_id, offset=offset, limit=PAGE_VERSIONS)
            for place, each in enumerate(page, offset + 1):
                if each is None:
                    listing.hidden.add(f"{path_of(directory)}/(entry {place})", UNREADABLE_REASON)
                    continue
                at = replace(
                    header, version=each.version, modified_unix_s=each.modified_unix_s,
                    modified_by=each.modified_by,
                )  # fmt: skip
                found.append(self._entities.node(directory, str(each.version).encode(), at))
            if len(page) < PAGE_VERSIONS:
                break
        return found

    def _directory(
        self, parent: Directory, name: bytes, role: str, entity_id: str = ""
    ) -> MagicDirectory:
        return MagicDirectory(
            new_number(), self._site, "", parent, name, role=role, entity_id=entity_id
        )

    def told(self, parent: Directory, name: bytes) -> Node | None:
        """Nothing is remembered here."""
        return None

    def asked(self) -> Iterable[Directory]:
        """Nothing is remembered here."""
        return ()

    def forget(self, directory: Directory) -> bool:
        """Nothing is remembered here."""
        return False

    def distrust(self, directory: Directory) -> None:
        """Nothing is kept beside listings."""

    async def attributes(self, file: File) -> None:
        """See View."""
        await self._entities.attributes(file)

    async def resolve(self, file: File) -> bool:
        """See View."""
        return await self._entities.resolve(file)

    async def gone(self, file: File, error: StaleVersion) -> StaleVersion:
        """See View."""
        return await self._entities.gone(file, error)

    async def properties(self, node: Node) -> Mapping[str, str]:
        """See View."""
        return await self._entities.properties(node) if isinstance(node, EntityFile) else {}

    async def hidden_reason(self, root: Directory, path: str) -> str | None:
        """Nothing is hidden here."""
        return None


def replace_view(site: Site, view: MagicView) -> Site:
    """The same place, shown by another view."""
    return replace(site, view=view)
