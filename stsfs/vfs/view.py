"""What a directory shows, and where that comes from: keys of a bucket, a Synapse folder, a lock."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from stsfs.errors import StaleVersion
from stsfs.vfs.listing import Listing
from stsfs.vfs.nodes import Directory, File, Node

Found = tuple[Node | None, float]
"""A node, or None for an absent name, and until when (trio's clock) that may be believed."""


class View(Protocol):
    """Answers about names and files of one site. The tree shares and remembers what it answers.

    What waits may raise what `errors` lists for file system requests.
    """

    is_fixed: bool
    """Whether a name never shows another file than at first, also where that is gone."""

    def begin(self, directory: Directory, old: Listing | None) -> Listing:
        """A new listing of a directory, nothing read. What has not changed since `old` keeps its
        node."""

    async def next_page(self, listing: Listing) -> None:
        """Read one page more into a listing that is not complete. One caller at a time."""

    async def probe(self, parent: Directory, listing: Listing, name: bytes) -> Found:
        """What name is, where the listing has not come to it or shows an outdated file.

        Tells the listing, too, where that has passed the name.
        """

    def special(self, parent: Directory, name: bytes) -> Node | None:
        """An entry that is found, but in no listing."""

    def told(self, parent: Directory, name: bytes) -> Node | None:
        """What probes have told of a name; asks nobody."""

    def asked(self) -> Iterable[Directory]:
        """The directories of which probes have told something."""

    def forget(self, directory: Directory) -> bool:
        """Drop what probes have told of a directory; whether they had told anything."""

    def distrust(self, directory: Directory) -> None:
        """Ask the server about a directory the next time, whatever is kept beside listings."""

    async def attributes(self, file: File) -> None:
        """Return when the size of a file is known. Raises StaleVersion if it is another by now."""

    async def resolve(self, file: File) -> bool:
        """Return when the version of a file is known; whether the store has just confirmed it.

        Raises StaleVersion where it is not what `attributes` told.
        """

    async def gone(self, file: File, error: StaleVersion) -> StaleVersion:
        """What to tell of a version that the store no longer has: error, or more than that."""

    async def properties(self, node: Node) -> Mapping[str, str]:
        """What is known beside the object, by name (`synapse.id`), as texts. May ask for it."""

    async def hidden_reason(self, root: Directory, path: str) -> str | None:
        """Why no path leads to what is called so below root; None where nothing is."""
