"""Names: which entries a directory has, answered from as few requests as possible.

One listing of a directory answers readdir, every lookup and every getattr in it for the metadata
TTL, absent names too. A name beyond the pages read so far is answered by a probe of its own, never
by reading on. What a directory shows is the business of its view.

What is remembered answers those who look, but never decides a change (`Tree.fresh`). And where
names can be changed, an absence is believed for a moment only: programs that find no file make one
exclusively, and fail where another host was faster.
"""

import logging
from collections.abc import Iterator

import trio

from stsfs.errors import NameTooLong, NotADirectory, SessionExpired, StoreFailure, StsfsError
from stsfs.supervisor import TaskPool
from stsfs.vfs.changes import LocalChanges
from stsfs.vfs.key_listing import KeyListing
from stsfs.vfs.keys_view import KeysView
from stsfs.vfs.listed import Listed
from stsfs.vfs.listing import FRESH_S, GivenUp, Listing, is_file_name
from stsfs.vfs.nodes import (
    NAME_BYTES_MAX,
    ROOT_INODE,
    Directory,
    File,
    InodeTable,
    Node,
    Site,
    is_outdated,
    path_of,
)
from stsfs.vfs.recall import Recall
from stsfs.vfs.view import Found, View

log = logging.getLogger(__name__)

TOLD_PARTS = 8
"""What is told of single names may take one part in so many of what all names may."""

PAGE_KEYS = 1000
"""What one LIST answers at most."""

STALE_SERVED_S = 5.0
"""With the session over, an old listing is served for this long before we try again."""


class Tree:
    """Directories and the versions of files in them, for one or several sites.

    `run` owns the pages read ahead of a reader; it must be running while directories are read.
    """

    def __init__(self, root: Site | Directory, *, metadata_ttl_s: float) -> None:
        if isinstance(root, Site):
            root = Directory(ROOT_INODE, root, root.prefix, None, b"")
        root.lookup_count = 1
        self.inodes = InodeTable(root)
        self._ttl_s = metadata_ttl_s
        self._keys = KeysView(metadata_ttl_s)
        self._views: set[View] = {self._keys}
        self.listed = Listed(self._forget_told)
        self.distrusts = 0
        """How often `distrust` was called: an answer begun before is not to be believed after."""

        self._under_way: dict[Listing, trio.Event] = {}
        self._pages_ahead = TaskPool("directories")
        self._changes_names = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the read-ahead of pages until cancelled."""
        await self._pages_ahead.run(task_status=task_status)

    def limit_names(self, limit_bytes: int) -> None:
        """Let names take so much memory at most: one half what is listed, one half what the kernel
        knows. What the kernel knows beyond that, it is asked to forget."""
        self.inodes.limit(limit_bytes // 2)
        self.listed.limit(limit_bytes // 2)
        self._keys.limit_told(limit_bytes // TOLD_PARTS)

    @property
    def names_bytes(self) -> int:
        """Memory that names take, about."""
        return self.listed.held_bytes + self.inodes.held_bytes

    @property
    def hidden_count(self) -> int:
        """Keys or entities that cannot be shown, in the directories listed now."""
        return sum(listing.hidden.count for listing in self.listed.listings())

    def hidden(self) -> Iterator[tuple[Directory, str, str]]:
        """Those remembered by name: directory, what is hidden, and why if that does not show."""
        for listing in self.listed.listings():
            for what, reason in listing.hidden.reasons.items():
                yield listing.directory, what, reason

    def directory(self, inode: int) -> Directory:
        """The directory of a number. Raises NotADirectory."""
        node = self.inodes.get(inode)
        if isinstance(node, Directory):
            return node
        raise NotADirectory(f"{path_of(node)} is a file.")

    async def lookup(self, parent: Directory, name: bytes) -> Found:
        """What name is in parent. Costs at most one LIST, or two where parent is not listed yet."""
        if (found := self._found_here(parent, name)) is not None:
            return found
        if (found := self._found_in_late_page(parent, name)) is not None:
            return found
        listing = self.known_listing(parent) or await self._begin(parent)
        self.listed.used(listing)
        known = listing.find(name)
        if known is not None and not is_outdated(known):
            return known, listing.expires_s
        if known is None and listing.passed(name):
            return await self._still_absent(parent, listing, name)
        return await self.view(parent).probe(parent, listing, name)

    def _found_in_late_page(self, parent: Directory, name: bytes) -> Found | None:
        """What a page has shown that is younger than the listing, which takes longer than a TTL."""
        listing = self.listed.get(parent)
        now_s = trio.current_time()
        if listing is None or now_s < listing.expires_s:
            return None
        known = listing.find(name)
        # Where no page is younger, the place of the name does not matter, which costs to find out.
        if known is None or is_outdated(known) or listing.told_until_s(listing.end) <= now_s:
            return None
        until_s = listing.name_told_until_s(name)
        return (known, until_s) if until_s > now_s else None

    async def fresh(self, parent: Directory, name: bytes) -> Node | None:
        """What name is in parent as S3 has said during this call or just before (FRESH_S).

        For what changes names. Costs at most one LIST, or two where parent is not listed yet; of a
        directory of one page, one serves all changes in it for that time. What is only here, as a
        file that is being written, is what it is. Raises what S3 fails with.
        """
        if (found := self._found_here(parent, name)) is not None:
            return found[0]
        if self.view(parent) is not self._keys:
            return (await self.lookup(parent, name))[0]
        since_s = trio.current_time() - FRESH_S
        listing = self.listed.get(parent)
        if listing is None or (
            not listing.tells(name, since_s=since_s)
            and listing.complete
            and listing.shown_count < PAGE_KEYS
        ):
            listing = await self._begin(parent)
        if listing.tells(name, since_s=since_s):
            return listing.find(name)
        return await self._keys.fresh(parent, listing, name, since_s=since_s)

    def _found_here(self, parent: Directory, name: bytes) -> Found | None:
        """What nobody has to be asked for. Raises NameTooLong."""
        if len(name) > NAME_BYTES_MAX:
            raise NameTooLong(f"A name of {len(name)} bytes; {NAME_BYTES_MAX} is the most.")
        until_s = trio.current_time() + self._ttl_s
        if not is_file_name(name) or not _is_text(name):
            return None, until_s
        special = self.view(parent).special(parent, name)
        if special is not None:
            return special, until_s
        reserved = parent.is_site_root and name in parent.site.reserved_names
        return (None, until_s) if reserved else None

    async def _still_absent(self, parent: Directory, listing: Listing, name: bytes) -> Found:
        """What is a name that a listing says is absent."""
        if not self._changes_names or self.view(parent) is not self._keys:
            return None, listing.expires_s
        asked_s = trio.current_time()
        if listing.begun_s >= asked_s - FRESH_S:
            return None, min(listing.expires_s, listing.begun_s + FRESH_S)
        try:
            found = await self.fresh(parent, name)
        except SessionExpired:
            return None, listing.expires_s  # what is old goes on being served
        return found, asked_s + (FRESH_S if found is None else self._ttl_s)

    def view(self, directory: Directory) -> View:
        """What the directory shows."""
        view = directory.site.view
        if view is None:
            return self._keys
        self._views.add(view)
        return view

    async def listing(self, directory: Directory) -> Listing:
        """The listing of a directory, its first page read. Renewed when the TTL has ended.

        One whose beginning was given up does not do: a new one takes its place.
        """
        known = self.known_listing(directory)
        if known is not None and not known.first:
            return known
        return await self._begin(directory)

    async def resumed(self, listing: Listing, start: int, last: Node | None) -> tuple[Listing, int]:
        """A listing that has what another one has given up at a number; and its number there.

        last is the entry before, if that is known: then what follows it is meant, whatever has
        changed since.
        """
        assert isinstance(listing, KeyListing)
        if listing.is_past_pages(start):
            return listing, listing.end
        new = self._keys.resume(listing, start if last is None else start - 1)
        self.listed.hold(new)
        try:
            while not new.complete:
                await self._next_page(new)
                after = start if last is None else new.place_after(last)
                if after is not None and after < new.end:
                    return new, after
                self.listed.count(new, new.end)
            return new, new.end
        finally:
            self.listed.let_go(new)

    async def entries(self, listing: Listing, start: int) -> Iterator[tuple[int, Node]]:
        """Entries from an index on, as far as pages have come, with the index after each.

        Waits until there is at least one, or the listing has ended. While a reader is at one page
        the next is under way. Raises GivenUp where the entry was given up: see `resumed`.
        """
        while True:
            if start < listing.first:
                raise GivenUp
            # What was taken away after its page came is passed over: no entry would mean the end.
            while start < listing.end and listing.shown(start) is None:
                start += 1
            if start < listing.end or listing.complete:
                break
            await self._next_page(listing)
        self.listed.count(listing, start)
        near_end = listing.end - start <= PAGE_KEYS
        if near_end and not listing.complete and self._pages_ahead.is_running:
            self._pages_ahead.start("a page ahead", self._page_ahead, listing)
        return (
            (index + 1, node)
            for index in range(start, listing.end)
            if (node := listing.shown(index)) is not None
        )

    def outdate(self, file: File) -> None:
        """The server said that this version is gone: the next lookup asks again."""
        file.outdated = True

    def known_listing(self, directory: Directory) -> Listing | None:
        """The listing that answers for a directory now, if there is one."""
        listing = self.listed.get(directory)
        if listing is not None and trio.current_time() < listing.expires_s:
            return listing
        return None

    def known_entry(self, parent: Directory, name: bytes) -> Node | None:
        """The node of a name as far as anyone has heard of it; asks nobody."""
        listing = self.listed.get(parent)
        found = None if listing is None else listing.find(name)
        return found or self.view(parent).told(parent, name) or parent.looked_up.get(name)

    def is_shown_absent(self, parent: Directory, name: bytes) -> bool:
        """Whether a name is shown as absent now; asks nobody."""
        listing = self.known_listing(parent)
        if listing is not None and listing.passed(name):
            return listing.find(name) is None
        told = self._keys.answer(parent, name)
        return told is not None and told.node is None

    def known_directories(self) -> set[Directory]:
        """Every directory whose names anything is known of, or being asked."""
        under_way = {listing.directory for listing in self._under_way}
        return under_way.union(self.listed.directories(), *(view.asked() for view in self._views))

    def distrust(self, directory: Directory) -> bool:
        """Ask anew about the names of a directory; whether anything was known of them.

        Numbers stay with what has not changed; and with the session over, the old listing is
        still there to be served.
        """
        self.distrusts += 1
        listings = [listing for listing in self._under_way if listing.directory is directory]
        if (listed := self.listed.get(directory)) is not None:
            listings.append(listed)
        for listing in listings:
            listing.distrust()
        view = self.view(directory)
        view.distrust(directory)
        return view.forget(directory) or bool(listings)

    def change(self) -> LocalChanges:
        """Begin to change names of keys: what must be told of each change, and has the last word.

        Called once, before anything is listed.
        """
        self._changes_names = True
        return self._keys.change()

    def recall_by(self, recall: Recall) -> None:
        """Give nodes the modes and times that it knows."""
        self._keys.recall = recall

    def know_empty(self, directory: Directory) -> None:
        """A directory was made a moment ago: there is nothing to ask about it."""
        listing = self._keys.begin(directory, None)
        listing.know_empty()
        self.listed.keep(listing)

    def retire(self, directory: Directory) -> None:
        """A directory is gone, or is called otherwise: forget what was listed of it."""
        self.distrust(directory)
        self.listed.drop(directory)
        self._forget_told(directory)

    def distrust_all(self) -> None:
        """Ask anew about every directory."""
        for directory in self.known_directories():
            self.distrust(directory)

    async def _begin(self, directory: Directory) -> Listing:
        """List a directory anew, first page only; several callers share one request."""
        old = self.listed.get(directory)
        begun = (at for at in self._under_way if at.directory is directory and not at.is_resumed)
        new = next((at for at in begun if not at.pages and not at.distrusted), None)
        if new is None:
            new = self.view(directory).begin(directory, old)
        try:
            while not new.pages:
                await self._next_page(new)
        except SessionExpired:
            if old is None:
                raise
            old.expires_s = trio.current_time() + STALE_SERVED_S
            return old
        # The old one may have been given up meanwhile. Of a directory that is gone none is trusted.
        if self.listed.get(directory) in {old, None} and not new.distrusted:
            self._forget_told(directory)
            self.listed.keep(new)
            return new
        return self.known_listing(directory) or new  # someone else was faster: one answer for all

    async def _next_page(self, listing: Listing) -> None:
        """Read one page more, or wait for the one that is under way."""
        if listing.complete:
            return
        under_way = self._under_way.get(listing)
        if under_way is not None:
            await under_way.wait()
            if listing.failure is not None:
                raise listing.failure
            return
        arrived = self._under_way[listing] = trio.Event()
        listing.failure = None
        try:
            await self.view(listing.directory).next_page(listing)
            self.listed.count(listing)
        except StsfsError as exc:
            listing.failure = exc
            raise
        except Exception as bug:
            listing.failure = StoreFailure(
                f"A page of {path_of(listing.directory)} met a bug: {bug!r}."
            )
            raise
        finally:
            del self._under_way[listing]
            arrived.set()

    async def _page_ahead(self, listing: Listing) -> None:
        if listing in self._under_way:
            return
        try:
            await self._next_page(listing)
        except StsfsError as exc:
            # The reader will ask itself.
            log.debug("page ahead of %r: %s", listing.directory.key, exc)

    def _forget_told(self, directory: Directory) -> None:
        """Forget what probes have told of a directory: its listing is a new one, or gone."""
        self.view(directory).forget(directory)


def _is_text(name: bytes) -> bool:
    """Keys are UTF-8; a name that is not cannot be part of one."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
