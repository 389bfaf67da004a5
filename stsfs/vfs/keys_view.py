"""The keys of a bucket, as directories and files."""

import itertools
import sys
from collections.abc import Iterable, Mapping
from functools import partial

import trio

from stsfs.errors import StaleVersion
from stsfs.staging.attribute_rows import Attributes
from stsfs.store.object_store import ListedObject, ListPage, ObjectVersion
from stsfs.store.paging import first_keys, object_at
from stsfs.vfs.changes import LocalChanges
from stsfs.vfs.explain import why_hidden
from stsfs.vfs.key_listing import Before, KeyListing, Mark, pieces
from stsfs.vfs.listing import FRESH_S, Listing, is_file_name
from stsfs.vfs.nodes import Directory, File, Node, is_outdated, new_number
from stsfs.vfs.probes import ALL_NAMES_MAX, TOLD_BYTES, ProbedDirectories, Told
from stsfs.vfs.recall import Recall
from stsfs.vfs.view import Found
from stsfs.vfs.windows import ROWS_LAST, Windows, just_before

PIECE_KEYS = 200
"""So many of a page are taken at a time: a millisecond."""


class KeysView:
    """Implements View by LIST requests."""

    is_fixed = False

    def __init__(self, metadata_ttl_s: float) -> None:
        self._ttl_s = metadata_ttl_s
        self._probed = ProbedDirectories(metadata_ttl_s, trio.current_time)
        self._windows = Windows()
        self._changes: LocalChanges | None = None
        self.recall: Recall | None = None
        """Knows modes and times that were set here; None: nothing was."""

    def change(self) -> LocalChanges:
        """Begin to show what is changed here. Called once."""
        assert self._changes is None
        self._changes = LocalChanges(self._probed)
        return self._changes

    def limit_told(self, limit_bytes: int) -> None:
        """Let answers about single names take so much memory at most."""
        self._probed.names_max = min(ALL_NAMES_MAX, limit_bytes // 2 // TOLD_BYTES)
        self._windows.rows_max = max(ROWS_LAST, limit_bytes // 2 // TOLD_BYTES)

    def begin(self, directory: Directory, old: Listing | None) -> KeyListing:
        """See View."""
        return self._new_listing(directory, old)

    def resume(self, listing: KeyListing, index: int) -> KeyListing:
        """A listing that begins with the page of an entry that another one has given up, or before.

        Its entries have the numbers that they have there, as far as nothing was changed since.
        """
        resumed = self._new_listing(listing.directory, listing, listing.mark(index))
        resumed.resume_from(listing)
        return resumed

    def _new_listing(
        self, directory: Directory, old: Listing | None, mark: Mark | None = None
    ) -> KeyListing:
        recalled: dict[str, Attributes] = {}
        before = Before(old)
        listing = KeyListing(
            directory,
            partial(self._node, directory, before, recalled),
            expires_s=trio.current_time() + self._ttl_s,
            begun_s=trio.current_time(),
            recalled=recalled,
            before=before,
            mark=mark,
        )
        if self._changes is not None:
            self._changes.begun(listing)
        return listing

    async def next_page(self, listing: Listing) -> None:
        """See View."""
        assert isinstance(listing, KeyListing)
        store = listing.directory.site.store
        listing.asked_s = trio.current_time()
        await self._take(listing, await store.list_page(listing.prefix, token=listing.next_token))

    async def _take(self, listing: KeyListing, page: ListPage) -> None:
        """In pieces, so that no reader of cached bytes waits for a thousand names."""
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
        known = self.answer(parent, name)
        return None if known is None else known.node

    def answer(self, parent: Directory, name: bytes) -> Told | None:
        """What probes have told of a name; None if nothing, or if that may not be believed now."""
        known = self._probed.answer(parent, name)
        if known is not None and known.node is None and self._changes is not None:
            is_old = known.asked_s < trio.current_time() - FRESH_S
            return None if is_old else known
        return known

    def asked(self) -> Iterable[Directory]:
        """See View."""
        return self._probed.directories()

    def forget(self, directory: Directory) -> bool:
        """See View."""
        self._windows.forget(directory)
        return self._probed.forget(directory)

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
        store = root.site.store
        if await object_at(store, key) is None and not await first_keys(store, f"{key}/", 1):
            return None
        prefix = root.prefix
        for name in itertools.takewhile(is_file_name, names):
            prefix += f"{name.decode('utf-8', 'surrogateescape')}/"
        return why_hidden(key, prefix)

    async def probe(self, parent: Directory, listing: Listing, name: bytes) -> Found:
        """See View."""
        known = self.answer(parent, name)
        if known is None or is_outdated(known.node):
            since_s = trio.current_time() - FRESH_S
            window = self._windows.find(parent, name, since_s=since_s)
            # Who looks up one name after the other of a listing that was given up gets a part of it
            # at a time.
            if window is None and listing.first and (rows := self._windows.rows(parent, name)):
                window = await self._window(parent, listing, name, rows)
            if window is None or not window.tells(name, since_s=since_s):
                known = await self._ask(parent, listing, name)
            else:
                known = Told(window.find(name), window.begun_s + self._ttl_s, window.begun_s)
        if known.node is None and self._changes is not None:
            return None, min(known.until_s, known.asked_s + FRESH_S)
        return known.node, known.until_s

    async def fresh(
        self, parent: Directory, listing: Listing, name: bytes, *, since_s: float
    ) -> Node | None:
        """What name is, as S3 says and has said no earlier than since_s (trio's clock).

        Costs a LIST, unless one for a name shortly before it has told. Tells the listing, too.
        """
        known = self._probed.answer(parent, name)
        if known is not None and known.asked_s >= since_s and not is_outdated(known.node):
            return known.node
        window = self._windows.find(parent, name, since_s=since_s)
        if window is None and (rows := self._windows.rows(parent, name)):
            window = await self._window(parent, listing, name, rows)
        if window is None or not window.tells(name, since_s=since_s):
            return (await self._ask(parent, listing, name)).node
        found = window.find(name)
        if listing.passed(name):
            listing.replace(name, found)
        return found

    async def _window(
        self, parent: Directory, listing: Listing, name: bytes, rows: int
    ) -> KeyListing:
        """A listing that begins just before a name."""
        window = self._new_listing(parent, listing)
        forgotten = self._windows.forgotten
        begin = just_before(parent.prefix + name.decode())
        store = parent.site.store
        page = await store.list_page(parent.prefix, start_after=begin, keys_max=rows)
        await self._take(window, page)
        if self._windows.forgotten == forgotten:
            self._windows.add(window, name)
        return window

    async def _ask(self, parent: Directory, listing: Listing, name: bytes) -> Told:
        """Ask about a name, and those that begin with it, by a LIST of their own."""
        probes = self._probed.of(parent)
        prefix = parent.prefix + name.decode()
        small = self._new_listing(parent, listing)
        page = await parent.site.store.list_page(prefix)
        await self._recall(small, page)
        small.expires_s = trio.current_time() + self._ttl_s
        small.add(page)
        if not small.passed(name):
            below = await first_keys(parent.site.store, f"{prefix}/", 1)
            small.settle(name, is_directory=bool(below))
        found = small.find(name)
        for node in small.entries:
            probes.tell(node.name, node, asked_s=small.begun_s)
        if small.complete:
            probes.tell_all(name, asked_s=small.begun_s)
        probes.tell(name, found, asked_s=small.begun_s)
        if listing.passed(name):
            listing.replace(name, found)
        return Told(found, small.expires_s, small.begun_s)

    def _node(
        self,
        parent: Directory,
        before: Before,
        recalled: Mapping[str, Attributes],
        name: bytes,
        listed: ListedObject | None,
    ) -> Node:
        """The node of a name as a page shows it: the one we know if it is the same, else new."""
        told = self._probed.answer(parent, name)
        # What the kernel refers to comes first: a directory must not have two numbers.
        olds = (
            parent.looked_up.get(name),
            None if told is None else told.node,
            before.names.get(name),
        )
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
                    old.outdated = False
                return old
        file = File(
            new_number(),
            parent,
            name,
            version,
            int(listed.modified_unix_s * 1e9),
            sys.intern(listed.storage_class),
        )
        known_here = recalled.get(listed.key)
        if known_here is not None and known_here.etag == listed.etag:
            file.mode = known_here.mode
            if known_here.mtime_ns is not None:
                file.modified_ns = known_here.mtime_ns
        return file
