"""The keys of a bucket, as directories and files."""

import itertools
from collections.abc import Iterable, Mapping
from functools import partial

import trio

from stsfs.errors import StaleVersion
from stsfs.staging.attribute_rows import Attributes
from stsfs.store.object_store import ListedObject, ListPage, ObjectVersion
from stsfs.vfs.changes import LocalChanges
from stsfs.vfs.explain import why_hidden
from stsfs.vfs.key_listing import KeyListing, pieces
from stsfs.vfs.listing import Listing, is_file_name
from stsfs.vfs.nodes import Directory, File, Node, is_outdated, new_number
from stsfs.vfs.probes import Probes
from stsfs.vfs.recall import Recall
from stsfs.vfs.view import Found

PIECE_KEYS = 200
"""So many of a page are taken at a time: a millisecond."""


class KeysView:
    """Implements View by LIST requests."""

    def __init__(self, metadata_ttl_s: float) -> None:
        self._ttl_s = metadata_ttl_s
        self._probed: dict[Directory, Probes] = {}
        self._changes: LocalChanges | None = None
        self.recall: Recall | None = None
        """Knows modes and times that were set here; None: nothing was."""

    def change(self) -> LocalChanges:
        """Begin to show what is changed here. Called once."""
        assert self._changes is None
        self._changes = LocalChanges(self._probed)
        return self._changes

    def begin(self, directory: Directory, old: Listing | None) -> KeyListing:
        """See View."""
        return self._new_listing(directory, {} if old is None else old.by_name)

    def _new_listing(self, directory: Directory, known: Mapping[bytes, Node | None]) -> KeyListing:
        recalled: dict[str, Attributes] = {}
        listing = KeyListing(
            directory,
            partial(self._node, directory, known, recalled),
            expires_s=trio.current_time() + self._ttl_s,
            recalled=recalled,
        )
        if self._changes is not None:
            self._changes.begun(listing)
        return listing

    async def next_page(self, listing: Listing) -> None:
        """See View. In pieces, so that no reader of cached bytes waits for a thousand names."""
        assert isinstance(listing, KeyListing)
        store = listing.directory.site.store
        page = await store.list_page(listing.prefix, token=listing.next_token)
        await self._recall(listing, page)
        with trio.CancelScope(shield=True):  # a page is taken whole or not at all
            *first, last = pieces(page, PIECE_KEYS)
            for piece in first:
                listing.add(piece, to_be_continued=True)
                await trio.lowlevel.checkpoint()
        listing.add(last)

    def special(self, parent: Directory, name: bytes) -> Node | None:
        """What is pinned: it is in no page."""
        return None if self._changes is None else self._changes.of(parent).get(name)

    async def _recall(self, listing: KeyListing, page: ListPage) -> None:
        if self.recall is not None:
            listing.recalled.clear()
            listing.recalled.update(await self.recall.of_page(listing.directory, page))

    def told(self, parent: Directory, name: bytes) -> Node | None:
        """See View."""
        probes = self._probed.get(parent)
        known = None if probes is None else probes.answer(name)
        return None if known is None else known[0]

    def asked(self) -> Iterable[Directory]:
        """See View."""
        return self._probed.keys()

    def forget(self, directory: Directory) -> bool:
        """See View."""
        return self._probed.pop(directory, None) is not None

    def distrust(self, directory: Directory) -> None:
        """Nothing is kept beside listings."""

    async def attributes(self, file: File) -> None:
        """A listing tells them."""

    async def resolve(self, file: File) -> bool:
        """A listing tells the version."""
        return False

    async def gone(self, file: File, error: StaleVersion) -> StaleVersion:
        """The store's own words."""
        return error

    async def properties(self, node: Node) -> Mapping[str, str]:
        """There are none."""
        return {}

    async def hidden_reason(self, root: Directory, path: str) -> str | None:
        """See View. Two LISTs at most."""
        names = [name.encode("utf-8", "surrogateescape") for name in path.split("/")]
        if all(map(is_file_name, names)):
            return None
        key = root.prefix + path
        page = await root.site.store.list_page(key, keys_max=1)
        if not (page.objects and page.objects[0].key == key):
            page = await root.site.store.list_page(f"{key}/", keys_max=1)
            if not (page.objects or page.prefixes):
                return None
        prefix = root.prefix
        for name in itertools.takewhile(is_file_name, names):
            prefix += f"{name.decode('utf-8', 'surrogateescape')}/"
        return why_hidden(key, prefix)

    async def probe(self, parent: Directory, listing: Listing, name: bytes) -> Found:
        """See View. Asks about the names that begin with it as well, by a LIST of its own."""
        probes = self._probed.get(parent)
        if probes is None:
            probes = self._probed[parent] = Probes(self._ttl_s, trio.current_time)
        known = probes.answer(name)
        if known is not None and not is_outdated(known[0]):
            return known
        prefix = parent.prefix + name.decode()
        small = self._new_listing(parent, listing.by_name)
        page = await parent.site.store.list_page(prefix)
        await self._recall(small, page)
        small.expires_s = trio.current_time() + self._ttl_s
        small.add(page)
        if not small.passed(name):
            below = await parent.site.store.list_page(f"{prefix}/", keys_max=1)
            small.settle(name, is_directory=bool(below.objects or below.prefixes))
        for node in small.entries:
            probes.tell(node.name, node)
        if small.complete:
            probes.tell_all(name)
        found = small.find(name)
        probes.tell(name, found)
        if listing.passed(name):
            listing.replace(name, found)
        return found, small.expires_s

    def _node(
        self,
        parent: Directory,
        known: Mapping[bytes, Node | None],
        recalled: Mapping[str, Attributes],
        name: bytes,
        listed: ListedObject | None,
    ) -> Node:
        """The node of a name as a page shows it: the one we know if it is the same, else new."""
        told = self._probed[parent].answer(name) if parent in self._probed else None
        olds = (known.get(name), None if told is None else told[0], parent.looked_up.get(name))
        if listed is None:
            for old in olds:
                if isinstance(old, Directory):
                    return old
            prefix = f"{parent.prefix}{name.decode()}/"
            made = Directory(new_number(), parent.site, prefix, parent, name)
            if (known_here := recalled.get(prefix)) is not None:
                made.mode, made.own_modified_ns = known_here.mode, known_here.mtime_ns
            return made
        version = ObjectVersion(parent.site.location_id, listed.key, listed.etag, listed.size_bytes)
        for old in olds:
            if isinstance(old, File) and old.version == version:
                if old.outdated and old.staged is not None:
                    continue  # what is written here was over this version, and lost to another
                if old.outdated:
                    # It was put back, or this page is older than what outdated it: ask.
                    old.outdated, old.successor = False, True
                return old
        file = File(
            new_number(),
            parent,
            name,
            version,
            int(listed.modified_unix_s * 1e9),
            listed.storage_class,
            successor=any(is_outdated(old) for old in olds),
        )
        known_here = recalled.get(listed.key)
        if known_here is not None and known_here.etag == listed.etag:
            file.mode = known_here.mode
            if known_here.mtime_ns is not None:
                file.modified_ns = known_here.mtime_ns
        return file
