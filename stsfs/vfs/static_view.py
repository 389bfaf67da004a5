"""Directories that are what they were made: nobody is asked what they hold."""

from collections.abc import Iterable, Mapping

import trio

from stsfs.errors import StaleVersion
from stsfs.vfs.listing import Listing
from stsfs.vfs.nodes import ROOT_INODE, Directory, File, Node, Site, new_number
from stsfs.vfs.view import Found

FOREVER_S = 86400.0


class StaticView:
    """Implements View on a tree that is built at the start: `add_directory`, then `add`."""

    is_fixed = True

    def __init__(self, site: Site, parent: Directory | None = None, name: bytes = b"") -> None:
        """site is that of the directories, whatever its own view is; its root may have a parent."""
        self.site = Site(site.location_id, site.store, "", modified_ns=site.modified_ns, view=self)
        number = ROOT_INODE if parent is None else new_number()
        self.root = Directory(number, self.site, "", parent, name)
        self._children: dict[Directory, dict[bytes, Node]] = {self.root: {}}

    def add_directory(self, parent: Directory, name: bytes) -> Directory:
        """The directory of this name, made if it is not there."""
        known = self._children[parent].get(name)
        if known is not None:
            assert isinstance(known, Directory)
            return known
        made = Directory(new_number(), self.site, "", parent, name)
        self._children[made] = {}
        self._children[parent][name] = made
        return made

    def add(self, node: Node) -> None:
        """Show a node in its parent, which must be one of ours."""
        assert node.parent is not None
        assert node.name not in self._children[node.parent]
        self._children[node.parent][node.name] = node

    def children(self, directory: Directory) -> Mapping[bytes, Node]:
        """What a directory holds."""
        return self._children[directory]

    def begin(self, directory: Directory, old: Listing | None) -> Listing:
        """See View."""
        return Listing(directory, expires_s=trio.current_time() + FOREVER_S)

    async def next_page(self, listing: Listing) -> None:
        """See View."""
        for _, node in sorted(self._children[listing.directory].items()):
            listing.show(node)
        listing.pages, listing.complete = 1, True

    async def probe(self, parent: Directory, listing: Listing, name: bytes) -> Found:
        """See View. An outdated file is what it was: who opens it will hear why."""
        node = self._children[parent].get(name)
        if isinstance(node, File):
            node.outdated = False
        return node, listing.expires_s

    def special(self, parent: Directory, name: bytes) -> Node | None:
        """There is none."""
        return None

    def told(self, parent: Directory, name: bytes) -> Node | None:
        """See View."""
        return self._children[parent].get(name)

    def asked(self) -> Iterable[Directory]:
        """Nobody is."""
        return ()

    def forget(self, directory: Directory) -> bool:
        """There is nothing to ask anew."""
        return False

    def distrust(self, directory: Directory) -> None:
        """There is nothing to ask anew."""

    async def attributes(self, file: File) -> None:
        """They were given."""

    async def resolve(self, file: File) -> bool:
        """The version was given."""
        return False

    async def gone(self, file: File, error: StaleVersion) -> StaleVersion:
        """The store's own words."""
        return error

    async def properties(self, node: Node) -> Mapping[str, str]:
        """There are none."""
        return {}

    async def hidden_reason(self, root: Directory, path: str) -> str | None:
        """Nothing is hidden."""
        return None
