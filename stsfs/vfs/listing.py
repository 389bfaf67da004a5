"""One directory as its pages show it, whatever view reads the pages. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from stsfs.errors import StsfsError
from stsfs.vfs.nodes import NAME_BYTES_MAX, Directory, Node, is_outdated

FRESH_S = 1.0
"""What S3 has said within so many seconds before a change is known well enough to decide it."""

HIDDEN_MAX = 1000
"""Hidden entries remembered by name, per directory; beyond that they are only counted."""

LISTING_BYTES = 2048
ENTRY_BYTES = 576
"""What a listing takes in memory, and each of its entries, beside the texts of both: as measured,
with the places in tables."""


class GivenUp(Exception):
    """What a reader is to read next was given up by its listing meanwhile."""


@dataclass(slots=True)
class Hidden:
    """What exists but cannot be shown: keys or entities, each with the reason."""

    count: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    """By what is hidden; an empty reason can be told from the name."""

    held_bytes: int = 0
    """Memory that they take, about."""

    def add(self, what: str, reason: str = "") -> None:
        """Note one more."""
        self.count += 1
        if len(self.reasons) < HIDDEN_MAX and what not in self.reasons:
            self.reasons[what] = reason
            self.held_bytes += ENTRY_BYTES // 2 + len(what)


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

    Entries have numbers in the order of the pages, so a number is a position that stays valid.
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
        """Those that are kept: see `first`."""

        self.first = 0
        """The number of the first entry that is kept; those before it were given up (`trim`)."""

        self.is_resumed = False
        """It began in the middle, for one reader: it does not answer for the directory."""

        self._absent: set[int] = set()  # entries that were taken away after their page came
        self._given_up_absent = 0  # how many of those that were given up are not there any more
        self._by_name: dict[bytes, Node | None] = {}
        self._places: dict[bytes, int] | None = None  # number of each name; made when first needed

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

    def nodes(self) -> Iterator[Node]:
        """All entries that are kept, and those that will be shown."""
        return iter(self.entries)

    def show(self, node: Node) -> None:
        """A page has one entry more."""
        self._by_name[node.name] = node
        if self._places is not None:
            self._places[node.name] = self.end
        self.entries.append(node)

    def replace(self, name: bytes, node: Node | None) -> None:
        """A newer answer about one name: its node now, or None where it is gone.

        Readers of `entries` that have passed it see the old one, as with any directory.
        """
        index = self._place(name)
        if index is None:
            if node is None:
                self._by_name.pop(name, None)
            else:
                self._by_name[name] = node
            return
        self._by_name[name] = node
        if node is None:
            self._absent.add(index)
        else:
            self._absent.discard(index)
            self.entries[index - self.first] = node

    def change(self, name: bytes, node: Node | None) -> None:
        """We have changed a name ourselves: its node now, or None where it is gone."""
        if node is not None and self._place(name) is None:
            self.show(node)
        else:
            self.replace(name, node)

    @property
    def shown_count(self) -> int:
        """Entries that pages have shown, and that are still there."""
        return max(0, self.end - len(self._absent) - self._given_up_absent)

    @property
    def end(self) -> int:
        """The number after the last entry so far."""
        return self.first + len(self.entries)

    @property
    def held_bytes(self) -> int:
        """Memory that it takes, about."""
        names = len(self.entries) * (ENTRY_BYTES + len(self.directory.prefix))
        return LISTING_BYTES + names + self.hidden.held_bytes

    def told_until_s(self, number: int) -> float:
        """Until when (trio's clock) the entry of a number may be believed."""
        return self.expires_s

    def name_told_until_s(self, name: bytes) -> float:
        """Until when (trio's clock) the entry of a name may be believed; not at all if unknown."""
        number = self._place(name)
        return float("-inf") if number is None else self.told_until_s(number)

    def trim(self, until: int) -> bool:
        """Give up entries before a number, the first of them; whether there were any to give up.

        Only for a listing that can be read again from its middle.
        """
        return False

    def after(self, node: Node, count_max: int) -> list[Node]:
        """What follows an entry, count_max at most; nothing if it is no longer one."""
        index = self._place(node.name)
        if index is None or self.entries[at := index - self.first] is not node:
            return []
        return self.entries[at + 1 : at + 1 + count_max]

    def shown(self, index: int) -> Node | None:
        """The entry of a number; None where it was taken away after its page came."""
        return None if index in self._absent else self.entries[index - self.first]

    def _place(self, name: bytes) -> int | None:
        if self._places is None:
            numbered = enumerate(self.entries, self.first)
            self._places = {entry.name: index for index, entry in numbered}
        return self._places.get(name)
