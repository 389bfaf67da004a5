"""Names that are what this mount has made of them, whatever a LIST says meanwhile. No requests.

A file that is being written has a name before S3 has an object, and a directory whose last entry
was removed here stays until it is removed itself, as everywhere. Both are *pinned*: found and
shown although no page shows them. What S3 has is not special: a LIST that is begun after a change
knows of it, and those begun before are told.
"""

import weakref
from collections.abc import Mapping

import trio

from stsfs.vfs.key_listing import KeyListing
from stsfs.vfs.nodes import Directory, File, Node
from stsfs.vfs.probes import ProbedDirectories

KEPT_MAX = 100_000
"""Empty directories that only this mount knows of; beyond that the oldest go."""

_NONE: Mapping[bytes, Node] = {}


class LocalChanges:
    """Pinned names, and the listings and probes that must hear of each change."""

    def __init__(self, probed: ProbedDirectories) -> None:
        """probed are the probes in use."""
        self._probed = probed
        self._names: dict[Directory, dict[bytes, Node]] = {}
        self._kept: dict[Directory, None] = {}  # pinned for being empty; oldest first
        self._listings: dict[Directory, weakref.WeakSet[KeyListing]] = {}

    def of(self, parent: Directory) -> Mapping[bytes, Node]:
        """What is pinned in a directory, by name."""
        return self._names.get(parent, _NONE)

    def begun(self, listing: KeyListing) -> None:
        """A listing begins: it hears of what we have changed, and will go on changing."""
        listings = self._listings.setdefault(listing.directory, weakref.WeakSet())
        if not listings and len(self._listings) > 2 * KEPT_MAX:
            self._listings = {d: alive for d, alive in self._listings.items() if alive}
            self._listings[listing.directory] = listings
        listings.add(listing)
        for name, node in self.of(listing.directory).items():
            listing.change(name, node)

    def listings(self, directory: Directory) -> list[KeyListing]:
        """Those of a directory that somebody may still read."""
        return list(self._listings.get(directory, ()))

    def pin(self, parent: Directory, name: bytes, node: Node) -> None:
        """Show a node under a name, whatever LIST says, until it is released."""
        self._names.setdefault(parent, {})[name] = node
        self.tell(parent, name, node)

    def release(self, parent: Directory, name: bytes) -> None:
        """From now on LIST tells about this name; listings go on with what they were told."""
        names = self._names.get(parent)
        if names is not None and name in names:
            node = names.pop(name)
            if not names:
                del self._names[parent]
            if isinstance(node, Directory):
                self._kept.pop(node, None)

    def tell(self, parent: Directory, name: bytes, node: Node | None) -> None:
        """A change that S3 has made: listings in use learn of it; None: the name is gone."""
        for listing in self.listings(parent):
            listing.change(name, node)
        if (probes := self._probed.get(parent)) is not None:
            probes.tell(name, node, asked_s=trio.current_time())

    def keep(self, directory: Directory) -> None:
        """Pin a directory that has nothing in S3, and those above it that have nothing else."""
        at = directory
        while not at.is_site_root and at not in self._kept and not self._exists(at):
            assert at.parent is not None
            self.pin(at.parent, at.name, at)
            self._kept[at] = None
            at = at.parent
        while len(self._kept) > KEPT_MAX:
            oldest = next(iter(self._kept))
            assert oldest.parent is not None
            self.release(oldest.parent, oldest.name)

    def filled(self, directory: Directory) -> None:
        """S3 has something in a directory: it and those above need no pin for being empty."""
        at: Directory | None = directory
        while at is not None and at in self._kept:
            parent = at.parent
            assert parent is not None
            self.release(parent, at.name)
            at = parent

    def forget(self, directory: Directory) -> None:
        """A directory is removed: nothing in it is of interest any more."""
        self._names.pop(directory, None)
        self._listings.pop(directory, None)

    def _exists(self, directory: Directory) -> bool:
        """Whether S3 has something there, as far as listings know."""
        at_hand = [listing for listing in self.listings(directory) if not listing.distrusted]
        real = (_real_count(listing, self.of(directory)) for listing in at_hand)
        return any(listing.has_marker for listing in at_hand) or any(real)


def _real_count(listing: KeyListing, pinned: Mapping[bytes, Node]) -> int:
    """Entries of a listing that are not only here."""
    return listing.shown_count - sum(1 for node in pinned.values() if not _in_store(node))


def _in_store(node: Node) -> bool:
    return isinstance(node, File) and node.version is not None
