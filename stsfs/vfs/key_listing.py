"""From LIST pages to directory entries. Pure: pages in, entries out.

Keys come in byte order: `a`, `a-1`, `a.x`, `a/…`. Where both `a` and `a/…` exist the directory is
shown and the object hidden, so an object is held back until the pages have passed its `/`.

What this mount has changed itself since the listing was begun is known better here than by pages
that may have been asked for before: for these names pages say nothing.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

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
    ) -> None:
        super().__init__(directory, expires_s=expires_s, begun_s=begun_s)
        self.recalled = {} if recalled is None else recalled
        """For make_node: what is remembered of the keys of the page at hand."""

        self.prefix = directory.prefix
        self.next_token: str | None = None
        self.has_marker = False
        """The directory has an object of its own (`dir/`), and exists without entries, too."""

        self._ours: dict[bytes, Node | None] = {}  # only while there are pages to come
        self._make_node: MakeNode | None = make_node
        self._reserved = directory.site.reserved_names if directory.is_site_root else frozenset()
        self._held_back: list[tuple[bytes, ListedObject]] = []
        self._passed = b""
        self._last: str | None = None  # key or prefix that the pages so far end with

    def add(self, page: ListPage, *, to_be_continued: bool = False) -> None:
        """Take the next page, or a piece of it that others of the same page follow.

        Raises StoreFailure for names that lie elsewhere or do not follow those taken before.
        """
        if (ends := bounds(page)) is not None and self._last is not None:
            check_follows(self._last, ends[0])
        for key, why in page.unusable.items():
            self.hidden.add(key, why)
        if page.objects and page.objects[0].key == self.prefix:
            self._mark(page.objects[0])
        found: list[tuple[bytes, ListedObject | None]] = [
            (self._below(listed.key).encode(), listed)
            for listed in page.objects
            if listed.key != self.prefix  # the directory's own marker
        ]
        found += [(self._below(shared)[:-1].encode() + b"/", None) for shared in page.prefixes]
        found.sort(key=lambda item: item[0])
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
            self._make_node = None  # it knows the nodes of the listing before this one
            self._ours.clear()

    def change(self, name: bytes, node: Node | None) -> None:
        """See Listing."""
        if not self.complete:
            self._ours[name] = node
        super().change(name, node)

    def know_empty(self) -> None:
        """There is nothing to ask: the directory was made a moment ago."""
        self.pages, self.complete, self.has_marker = 1, True, True
        self._make_node = None

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
        return self.complete or name in self._ours or self._passed >= name + b"/"

    def _below(self, key: str) -> str:
        if not key.startswith(self.prefix):
            raise StoreFailure(
                f"Asked for what is below {self.prefix!r}, the server lists {key!r}."
            )
        return key[len(self.prefix) :]

    def _mark(self, marker: ListedObject) -> None:
        """The directory has an object of its own: shown as nothing, unless it has content."""
        self.has_marker = True
        if marker.size_bytes:
            self.hidden.add(marker.key, MARKER_HIDDEN)

    def _emit(self, found: Iterable[tuple[bytes, ListedObject | None]]) -> None:
        directories = {name[:-1] for name, listed in found if listed is None}
        waiting, self._held_back = self._held_back, []
        for name, listed in [*waiting, *found]:
            if name.removesuffix(b"/") in self._reserved:
                continue
            if listed is None:
                self._show(name[:-1], None, self.prefix + name.decode())
            elif name in directories:
                self.hidden.add(listed.key)
            elif self.passed(name):
                self._show(name, listed, listed.key)
            else:
                self._held_back.append((name, listed))

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
