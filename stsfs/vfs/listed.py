"""The listings that are kept in memory, within a limit. No requests.

Names take memory as content does. Beyond the limit, listings that nobody reads are forgotten, those
used least recently first; then what readers of directories have passed. A directory too large for
the limit is thus streamed: pages come as its reader goes on, and go when it has passed them. Names
in it that are looked up are asked for one by one.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from itertools import islice

from stsfs.vfs.listing import Listing
from stsfs.vfs.nodes import Directory

LIMIT_BYTES = 512 * 1024 * 1024
"""Where nobody sets another."""

_BATCH = 16


class Listed:
    """Listings that answer for their directory, and those that open handles read."""

    def __init__(self, forgotten: Callable[[Directory], None]) -> None:
        """forgotten is told of each directory whose listing was dropped here."""
        self.limit_bytes = LIMIT_BYTES
        self.held_bytes = 0
        self.on_growth: Callable[[], None] = lambda: None
        """Called when more or less memory is held than before."""

        self._forgotten = forgotten
        self._by_directory: dict[Directory, Listing] = {}
        self._readers: Counter[Listing] = Counter()
        self._counted: OrderedDict[Listing, int] = OrderedDict()  # used least recently first

    def get(self, directory: Directory) -> Listing | None:
        """The listing that was kept last for a directory."""
        return self._by_directory.get(directory)

    def listings(self) -> Collection[Listing]:
        """All that answer for a directory."""
        return self._by_directory.values()

    def directories(self) -> Collection[Directory]:
        """Those that a listing answers for."""
        return self._by_directory.keys()

    def limit(self, limit_bytes: int) -> None:
        """Hold so much at most, from now on."""
        self.limit_bytes = limit_bytes
        self._make_room()

    def keep(self, listing: Listing) -> None:
        """Let a listing answer for its directory, in place of another one."""
        self.drop(listing.directory)
        self._by_directory[listing.directory] = listing
        self.count(listing)

    def drop(self, directory: Directory) -> None:
        """Let no listing answer for a directory."""
        listing = self._by_directory.pop(directory, None)
        if listing is not None:
            self._uncount_if_unused(listing)

    def hold(self, listing: Listing) -> None:
        """Somebody reads a listing from now on."""
        self._readers[listing] += 1
        self.count(listing)

    def let_go(self, listing: Listing) -> None:
        """A reader has ended."""
        self._readers[listing] -= 1
        if not self._readers[listing]:
            del self._readers[listing]
            self._uncount_if_unused(listing)

    def count(self, listing: Listing, reader_at: int = 0) -> None:
        """A listing was used, and may have grown. Who reads it has passed what is before."""
        if not self._is_used(listing):
            return
        held_bytes = listing.held_bytes
        self.held_bytes += held_bytes - self._counted.pop(listing, 0)
        self._counted[listing] = held_bytes
        self._make_room()
        while self.held_bytes > self.limit_bytes and self._trim(listing, reader_at):
            pass
        self.on_growth()

    def used(self, listing: Listing) -> None:
        """A listing has answered, and has not grown."""
        if listing in self._counted:
            self._counted.move_to_end(listing)

    def _is_used(self, listing: Listing) -> bool:
        return listing in self._readers or self._by_directory.get(listing.directory) is listing

    def _make_room(self) -> None:
        """Give up what was used least recently, but nothing of what is used now: the last one."""
        kept = 0  # of those looked at
        while self.held_bytes > self.limit_bytes and kept < len(self._counted) - 1:
            oldest = list(islice(self._counted, kept, min(kept + _BATCH, len(self._counted) - 1)))
            for listing in oldest:
                if self.held_bytes <= self.limit_bytes:
                    return
                if listing not in self._readers:
                    self.drop(listing.directory)
                    self._forgotten(listing.directory)
                    continue
                while self._trim(listing, listing.end):
                    pass
                kept += 1

    def _trim(self, listing: Listing, until: int) -> bool:
        trimmed = listing.trim(until)
        held_bytes = listing.held_bytes
        self.held_bytes += held_bytes - self._counted[listing]
        self._counted[listing] = held_bytes
        return trimmed

    def _uncount_if_unused(self, listing: Listing) -> None:
        if not self._is_used(listing):
            self.held_bytes -= self._counted.pop(listing, 0)
            self.on_growth()
