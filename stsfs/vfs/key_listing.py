"""From LIST pages to directory entries. Pure: pages in, entries out.

Keys come in byte order: `a`, `a-1`, `a.x`, `a/…`. Where both `a` and `a/…` exist the directory is
shown and the object hidden, so an object is held back until the pages have passed its `/`.

What this mount has changed itself since the listing was begun is known better here than by pages
that may have been asked for before: for these names pages say nothing.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import NamedTuple

from stsfs.errors import StoreFailure
from stsfs.staging.attribute_rows import Attributes
from stsfs.store.object_store import ListedObject, ListPage
from stsfs.store.paging import bounds, check_follows
from stsfs.vfs.listing import Listing, is_file_name
from stsfs.vfs.nodes import Directory, Node

MakeNode = Callable[[bytes, ListedObject | None], Node]
"""The node for a name: of this object, or a directory. Reuses the one already known if it fits."""


TWICE_HIDDEN = "its name is not UTF-8, and another one is shown under what is left of it"
MARKER_HIDDEN = "it has content, and a directory is shown in its place"

MARKS_MAX = 64
MARKS_RECENT = 16
"""Places from which a listing can be read again. When there are more, every other one goes, but the
latest: who seeks far back waits for the pages between."""

_BEYOND = b"\xff"
"""After every name, as names are UTF-8."""

MARK_BYTES = 400
"""What one of them takes in memory, beside its token."""


class Mark(NamedTuple):
    """How a listing was before a page: enough to read on from there."""

    first: int
    token: str | None
    held_back: "tuple[tuple[bytes, ListedObject], ...]"
    passed: bytes
    last: str | None
    asked_s: float
    """trio's clock: the page was not asked for before."""


class Before:
    """The names of an earlier listing of a directory, whose nodes are used again; may be let go."""

    def __init__(self, listing: Listing | None = None) -> None:
        self.names: Mapping[bytes, Node | None] = {} if listing is None else listing.by_name
        self.held_bytes = 0 if listing is None else listing.held_bytes

    def let_go(self) -> None:
        """Give up the names: what the kernel knows keeps its number all the same."""
        self.names, self.held_bytes = {}, 0


def pieces(page: ListPage, keys_max: int) -> Iterator[ListPage]:
    """Cut a page into shorter ones, at the same places in objects and prefixes.

    Each takes something away from the rest, or is the rest, in whatever order the names are.
    """
    objects, prefixes = page.objects, page.prefixes
    while len(objects) + len(prefixes) > keys_max:
        cut = max(1, keys_max // 2)
        bound = min(
            objects[cut].key.encode() if len(objects) > cut else b"\xff",
            prefixes[cut].encode() if len(prefixes) > cut else b"\xff",
        )
        first = bisect_left(objects, bound, key=lambda listed: listed.key.encode())
        second = bisect_left(prefixes, bound, key=str.encode)
        if not first and not second:
            break
        yield ListPage(objects[:first], prefixes[:second], page.next_token)
        objects, prefixes = objects[first:], prefixes[second:]
    yield ListPage(objects, prefixes, page.next_token, page.unusable)


class KeyListing(Listing):
    """One directory as LIST pages show it."""

    def __init__(
        self,
        directory: Directory,
        make_node: MakeNode,
        *,
        expires_s: float,
        begun_s: float = float("-inf"),
        recalled: dict[str, Attributes] | None = None,
        before: Before | None = None,
        mark: Mark | None = None,
    ) -> None:
        """make_node may use the nodes of `before`. With a mark, it begins there."""
        super().__init__(directory, expires_s=expires_s, begun_s=begun_s)
        self.recalled = {} if recalled is None else recalled
        """For make_node: what is remembered of the keys of the page at hand."""

        self.prefix = directory.prefix
        self.next_token: str | None = None
        self.has_marker = False
        """The directory has an object of its own (`dir/`), and exists without entries, too."""

        self._ours: dict[bytes, Node | None] = {}  # what pages have not come to, or come after
        self._ours_next: list[tuple[bytes, bytes]] = []  # heap: shown when this is passed; name
        self._ours_to_show = 0  # how many of `_ours` are not gone
        self._tail: int | None = None  # the number after what pages have shown, once all have come
        self._make_node: MakeNode | None = make_node
        self._reserved = directory.site.reserved_names if directory.is_site_root else frozenset()
        self._held_back: list[tuple[bytes, ListedObject]] = []
        self._passed = b""
        self._last: str | None = None  # key or prefix that the pages so far end with
        self.asked_s = begun_s
        """trio's clock: when the latest page was asked for."""

        self._before = before or Before()
        self._marks: list[Mark] = []
        self._is_in_page = False
        self._floor = b""  # nothing is known of names up to this one: they were given up
        self._text_bytes = 0
        self.is_resumed = mark is not None
        if mark is not None:
            self.first, self.next_token = mark.first, mark.token
            self._held_back, self._passed = list(mark.held_back), mark.passed
            self._last, self._floor = mark.last, mark.passed

    def add(self, page: ListPage, *, to_be_continued: bool = False) -> None:
        """Take the next page, or a piece of it that others of the same page follow.

        Raises StoreFailure for names that lie elsewhere or do not follow those taken before.
        """
        if (ends := bounds(page)) is not None and self._last is not None:
            check_follows(self._last, ends[0])
        if not self._is_in_page:
            self._mark_page()
        self._is_in_page = to_be_continued
        for key, why in page.unusable.items():
            self.hidden.add(key, why)
        if page.objects and page.objects[0].key == self.prefix:
            self._note_marker(page.objects[0])
        found: list[tuple[bytes, ListedObject | None]] = [
            (self._below(listed.key).encode(), listed)
            for listed in page.objects
            if listed.key != self.prefix  # the directory's own marker
        ]
        found += [(self._below(shared)[:-1].encode() + b"/", None) for shared in page.prefixes]
        found.sort(key=lambda item: item[0])
        self._text_bytes += sum(2 * len(name) for name, _ in found)
        self._text_bytes += sum(len(listed.etag) for listed in page.objects)
        if ends is not None:
            self._last = ends[1]
        if not to_be_continued:
            self.pages += 1
            self.next_token = page.next_token
            self.complete = page.next_token is None
        if found:
            self._passed = found[-1][0]
        self._emit(found)
        if self.complete:
            self._make_node = None
            self._before.let_go()

    def change(self, name: bytes, node: Node | None) -> None:
        """See Listing. What pages have not come to is shown when they have passed it; what is new
        behind them, after the last page. What was given up is not shown again."""
        if not self._has_passed(name):
            self._know(name, node, name + b"/")
        elif self._place(name) is not None:
            self.replace(name, node)
        elif name <= self._floor:
            self._given_up_absent += node is None
        elif self.complete:
            super().change(name, node)
        elif node is not None or name in self._ours:
            self._know(name, node, _BEYOND + name)

    def _know(self, name: bytes, node: Node | None, passed: bytes) -> None:
        """Remember what we have changed until pages have passed this."""
        if name not in self._ours:
            heapq.heappush(self._ours_next, (passed, name))
        self._ours_to_show += (node is not None) - (self._ours.get(name) is not None)
        self._ours[name] = node

    def find(self, name: bytes) -> Node | None:
        """See Listing."""
        if self._ours and name in self._ours:
            return self._ours[name]
        return self._by_name.get(name)

    def nodes(self) -> Iterator[Node]:
        """See Listing."""
        yield from self.entries
        yield from filter(None, self._ours.values())

    @property
    def shown_count(self) -> int:
        """See Listing. With what is new here, and will be shown."""
        return super().shown_count + self._ours_to_show

    def is_past_pages(self, number: int) -> bool:
        """Whether only what was made here since may follow."""
        return self._tail is not None and number >= self._tail

    def know_empty(self) -> None:
        """There is nothing to ask: the directory was made a moment ago."""
        self._mark_page()
        self.pages, self.complete, self.has_marker = 1, True, True
        self._make_node = None
        self._emit([])

    def settle(self, name: bytes, *, is_directory: bool) -> None:
        """Decide about a held-back name without the pages that would tell."""
        assert self._make_node is not None
        held = [(at, listed) for at, listed in self._held_back if at == name]
        if is_directory:
            self._show(name, None, f"{self.prefix}{name.decode()}/")
        for at, listed in held:
            if is_directory:
                self.hidden.add(listed.key)
            else:
                self._show(at, listed, listed.key)

    def passed(self, name: bytes) -> bool:
        """Whether the pages so far say all about name: as a file and as a directory."""
        if name in self._ours:
            return True
        return self._has_passed(name) and (name > self._floor or self.find(name) is not None)

    def _has_passed(self, name: bytes) -> bool:
        """Whether no page to come says anything about name."""
        return self.complete or self._passed >= name + b"/"

    @property
    def held_bytes(self) -> int:
        """See Listing."""
        marks = len(self._marks) * (MARK_BYTES + len(self.next_token or ""))
        return super().held_bytes + self._text_bytes + marks + self._before.held_bytes

    def told_until_s(self, number: int) -> float:
        """See Listing. Later pages may be believed for longer, where there are many."""
        if self.distrusted or not self._marks:
            return self.expires_s
        return self.expires_s + max(0.0, self.mark(number).asked_s - self.begun_s)

    def trim(self, until: int) -> bool:
        """See Listing. One page is given up, or all where nobody reads what is left."""
        self._before.let_go()
        at = bisect_right(self._marks, self.first, key=attrgetter("first"))
        if at < len(self._marks) and self._marks[at].first <= until:
            self._give_up(self._marks[at].first, self._marks[at].passed)
            return True
        if until < self.end or not self.entries or self._is_in_page:
            return False
        self._give_up(self.end, _BEYOND if self.complete else self._passed)
        return True

    def _give_up(self, until: int, floor: bytes) -> None:
        count = until - self.first
        for entry in self.entries[:count]:
            self._by_name.pop(entry.name, None)
        self._text_bytes -= self._text_bytes * count // len(self.entries)
        del self.entries[:count]
        self.first, self._floor, self._places = until, floor, None
        gone = {index for index in self._absent if index < self.first}
        self._absent -= gone
        self._given_up_absent += len(gone)

    def mark(self, index: int) -> Mark:
        """From where to read again what is at a number that was given up."""
        at = bisect_right(self._marks, index, key=attrgetter("first"))
        return self._marks[max(0, at - 1)]

    def resume_from(self, marks: "KeyListing") -> None:
        """Take over from another listing where pages begin, as far as this one goes back."""
        self._marks = [each for each in marks._marks if each.first <= self.first]

    def place_after(self, node: Node) -> int | None:
        """The number of the first entry after a node, also of one that is gone; None: not yet."""
        found = self._place(node.name)
        if found is not None:
            return found + 1
        name = _place_of(node.name)
        for index in range(self.end - 1, self.first - 1, -1):
            if _place_of(self.entries[index - self.first].name) <= name:
                after = index + 1
                break
        else:
            after = self.first
        return after if after < self.end or self.complete else None

    def _mark_page(self) -> None:
        self._marks.append(
            Mark(
                self.end,
                self.next_token,
                tuple(self._held_back),
                self._passed,
                self._last,
                self.asked_s,
            )
        )
        if len(self._marks) > MARKS_MAX:
            self._marks[:-MARKS_RECENT] = self._marks[:-MARKS_RECENT:2]

    def _below(self, key: str) -> str:
        if not key.startswith(self.prefix):
            raise StoreFailure(
                f"Asked for what is below {self.prefix!r}, the server lists {key!r}."
            )
        return key[len(self.prefix) :]

    def _note_marker(self, marker: ListedObject) -> None:
        """The directory has an object of its own: shown as nothing, unless it has content."""
        self.has_marker = True
        if marker.size_bytes:
            self.hidden.add(marker.key, MARKER_HIDDEN)

    def _emit(self, found: Iterable[tuple[bytes, ListedObject | None]]) -> None:
        directories = {name[:-1] for name, listed in found if listed is None}
        waiting, self._held_back = self._held_back, []
        rows: list[tuple[bytes, ListedObject | Node | None]] = [*waiting, *found]
        if ours := self._passed_ours():
            rows = _merged(rows, ours)
        # Wherever pages end: who reads on in another listing must find the same order.
        rows.sort(key=lambda row: _place_of(row[0]))
        for name, listed in rows:
            if name.removesuffix(b"/") in self._reserved:
                continue
            if listed is None:
                self._show(name[:-1], None, self.prefix + name.decode())
            elif not isinstance(listed, ListedObject):
                self.show(listed)
            elif name in directories:
                self.hidden.add(listed.key)
            elif self._has_passed(name):
                self._show(name, listed, listed.key)
            else:
                self._held_back.append((name, listed))
        if self.complete:
            self._tail = self.end
            late = [node for node in self._ours.values() if node is not None]
            self._ours.clear()
            self._ours_next.clear()
            self._ours_to_show = 0
            for node in late:
                self.show(node)

    def _passed_ours(self) -> dict[bytes, Node | None]:
        """What we have changed, as far as pages have passed it by now: they say no more of it."""
        ours: dict[bytes, Node | None] = {}
        passed = _BEYOND if self.complete else self._passed
        while self._ours_next and self._ours_next[0][0] <= passed:
            _, name = heapq.heappop(self._ours_next)
            ours[name] = self._ours.pop(name)
            self._ours_to_show -= ours[name] is not None
        return ours

    def _show(self, name: bytes, listed: ListedObject | None, key: str) -> None:
        if name in self._ours:
            return
        if not is_file_name(name):
            self.hidden.add(key)
            return
        if self.find(name) is not None:  # keys that are not UTF-8 can be the same as text
            self.hidden.add(key, TWICE_HIDDEN)
            return
        assert self._make_node is not None
        self.show(self._make_node(name, listed))


def _merged(
    rows: Iterable[tuple[bytes, ListedObject | Node | None]], ours: Mapping[bytes, Node | None]
) -> list[tuple[bytes, ListedObject | Node | None]]:
    """Rows with our own nodes behind them, and without the rows that have their names."""
    merged = [row for row in rows if row[0].removesuffix(b"/") not in ours]
    merged += [(node.name, node) for node in ours.values() if node is not None]
    return merged


def _place_of(name: bytes) -> bytes:
    """What entries are in the order of: where pages have told all about a name."""
    return name if name.endswith(b"/") else name + b"/"
