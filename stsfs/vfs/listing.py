"""One directory as its pages show it, whatever view reads the pages. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stsfs.errors import StsfsError
from stsfs.vfs.nodes import NAME_BYTES_MAX, Directory, Node, is_outdated

FRESH_S = 1.0
"""What S3 has said within so many seconds before a change is known well enough to decide it."""

HIDDEN_MAX = 1000
"""Hidden entries remembered by name, per directory; beyond that they are only counted."""


@dataclass(slots=True)
class Hidden:
    """What exists but cannot be shown: keys or entities, each with the reason."""

    count: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    """By what is hidden; an empty reason can be told from the name."""

    def add(self, what: str, reason: str = "") -> None:
        """Note one more."""
        self.count += 1
        if len(self.reasons) < HIDDEN_MAX:
            self.reasons[what] = reason


def is_file_name(name: bytes) -> bool:
    """Whether a key component, or an entity's name, can be the name of a directory entry."""
    return (
        name not in {b"", b".", b".."}
        and b"\0" not in name
        and b"/" not in name
        and len(name) <= NAME_BYTES_MAX
    )


class Listing:
    """One directory as its pages show it, complete or not yet.

    entries grow in the order of the pages, so an index into them is a position that stays valid.
    """

    def __init__(
        self, directory: Directory, *, expires_s: float, begun_s: float = float("-inf")
    ) -> None:
        self.directory = directory
        self.expires_s = expires_s
        """trio's clock: until then the listing answers for the directory."""

        self.begun_s = begun_s
        """trio's clock: no page was asked for before."""

        self.distrusted = False
        """Somebody knows that this may be out of date: it is neither shared nor believed."""

        self.hidden = Hidden()
        self.complete = False
        self.pages = 0
        self.failure: StsfsError | None = None
        """Why the latest page could not be read."""

        self.entries: list[Node] = []
        self.counted = 0
        """Entries that the tree has counted against its limit."""

        self._absent: set[int] = set()  # entries that were taken away after their page came
        self._by_name: dict[bytes, Node | None] = {}
        self._places: dict[bytes, int] | None = None  # index of each name; made when first needed

    def distrust(self) -> None:
        """Answer for nothing from now on, though pages under way still arrive."""
        self.distrusted = True
        self.expires_s = float("-inf")

    def passed(self, name: bytes) -> bool:
        """Whether the pages so far say all about name."""
        return self.complete

    def tells(self, name: bytes, *, since_s: float) -> bool:
        """Whether it says what has this name, and that from no earlier than since_s."""
        is_recent = self.begun_s >= since_s and not self.distrusted
        return is_recent and self.passed(name) and not is_outdated(self.find(name))

    def find(self, name: bytes) -> Node | None:
        """The entry of a name, if a page has shown it."""
        return self._by_name.get(name)

    @property
    def by_name(self) -> Mapping[bytes, Node | None]:
        """All entries shown so far, by name."""
        return self._by_name

    def show(self, node: Node) -> None:
        """A page has one entry more."""
        self._by_name[node.name] = node
        if self._places is not None:
            self._places[node.name] = len(self.entries)
        self.entries.append(node)

    def replace(self, name: bytes, node: Node | None) -> None:
        """A newer answer about one name: its node now, or None where it is gone.

        Readers of `entries` that have passed it see the old one, as with any directory.
        """
        self._by_name[name] = node
        index = self._place(name)
        if index is None:
            return
        if node is None:
            self._absent.add(index)
        else:
            self._absent.discard(index)
            self.entries[index] = node

    def change(self, name: bytes, node: Node | None) -> None:
        """We have changed a name ourselves: its node now, or None where it is gone."""
        if node is not None and self._place(name) is None:
            self.show(node)
        else:
            self.replace(name, node)

    @property
    def shown_count(self) -> int:
        """Entries that pages have shown, and that are still there."""
        return len(self.entries) - len(self._absent)

    def after(self, node: Node, count_max: int) -> list[Node]:
        """What follows an entry, count_max at most; nothing if it is no longer one."""
        index = self._place(node.name)
        if index is None or self.entries[index] is not node:
            return []
        return self.entries[index + 1 : index + 1 + count_max]

    def shown(self, index: int) -> Node | None:
        """The entry at an index; None where it was taken away after its page came."""
        return None if index in self._absent else self.entries[index]

    def _place(self, name: bytes) -> int | None:
        if self._places is None:
            self._places = {entry.name: index for index, entry in enumerate(self.entries)}
        return self._places.get(name)
