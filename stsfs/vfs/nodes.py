"""What an inode is: a directory, or one version of a file.

The kernel's page cache belongs to an inode. Two versions of an object must therefore never share
one: a changed object is a new `File` with a new number, and the old one stays what it was for
whoever has it open. Only what is changed through this very mount keeps its number, because then
the kernel has seen each change itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TYPE_CHECKING

from stsfs.errors import StaleVersion
from stsfs.store.object_store import ObjectStore, ObjectVersion

if TYPE_CHECKING:
    from stsfs.vfs.view import View
    from stsfs.writer.dirty_file import DirtyFile
    from stsfs.writer.locks import OrderedLock

ROOT_INODE = 1
NAME_BYTES_MAX = 255
_numbers = count(ROOT_INODE + 1)


def new_number() -> int:
    """An inode number that no node of this process ever had."""
    return next(_numbers)


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One storage location as the tree sees it."""

    location_id: int
    store: ObjectStore
    prefix: str
    """What every key begins with: empty, or ending in `/`."""

    reserved_names: frozenset[bytes] = frozenset()
    """Names in the location's root that are neither shown nor found."""

    modified_ns: int = 0
    """The time of every directory: a prefix has none of its own."""

    view: "View | None" = None
    """What its directories show; None: keys."""


@dataclass(slots=True, eq=False)
class Directory:
    """A prefix, or a folder. Keeps its number as long as the kernel or a listing knows it."""

    inode: int
    site: Site
    prefix: str
    parent: "Directory | None"
    name: bytes
    lookup_count: int = 0
    units: int = 0
    """What InodeTable counts it as."""

    looked_up: "dict[bytes, Node]" = field(default_factory=dict)
    """The entries that the kernel refers to now: they keep their numbers, whatever is forgotten."""

    mode: int | None = None
    """Permission bits that were set here; None: those of the mount."""

    own_modified_ns: int | None = None
    """The time that was set here."""

    @property
    def key(self) -> str:
        """What the keys below have in common; what names the folder where keys do not."""
        return self.prefix

    @property
    def modified_ns(self) -> int:
        """What stat shows as its time."""
        return self.site.modified_ns if self.own_modified_ns is None else self.own_modified_ns

    @property
    def is_site_root(self) -> bool:
        """Whether its site begins here."""
        return self.parent is None or self.parent.site is not self.site


@dataclass(slots=True, eq=False)
class File:
    """One version of an object, as a listing showed it, or what is being written here."""

    inode: int
    parent: Directory
    name: bytes
    version: ObjectVersion | None
    """None until the first open, in views that learn it only then, and while S3 has none."""

    modified_ns: int
    storage_class: str
    lookup_count: int = 0
    units: int = 0
    """What InodeTable counts it as."""

    outdated: bool = False
    """The server has said that this version is gone; the next lookup asks for the new one."""

    mode: int | None = None
    """Permission bits that were set here; None: those of the mount."""

    staged: "DirtyFile | None" = None
    """Its content, while it is being written here; whoever reads meanwhile reads that."""

    turn: "OrderedLock | None" = None
    """Held by whoever stages, publishes, moves or removes it; made when first needed."""

    @property
    def key(self) -> str:
        """The object's key, as far as it is known."""
        if self.staged is not None:
            return self.staged.key
        return "" if self.version is None else self.version.key

    @property
    def md5(self) -> str:
        """Digest of its content, in hexadecimal, where somebody has vouched for one."""
        return ""

    @property
    def size_bytes(self) -> int | None:
        """What stat shows; None while nobody has asked for it (see View.attributes)."""
        if self.staged is not None:
            return self.staged.size_bytes
        return None if self.version is None else self.version.size_bytes


Node = Directory | File


NODE_BYTES = 704
"""What the kernel's knowing a node takes in memory here, beside the texts: as measured, with the
node itself and its places in tables. The kernel takes more than that."""

UNIT_BYTES = 64
LIMIT_BYTES = 512 * 1024 * 1024
"""Where nobody sets another."""


class InodeTable:
    """The nodes the kernel knows, by number, with its count of references to each.

    The kernel decides what it knows. It can be asked to forget, see `kernel_names`.
    """

    def __init__(self, root: Directory) -> None:
        self.root = root
        self.limit_bytes = LIMIT_BYTES
        self.on_growth: Callable[[], None] = lambda: None
        """Called when the kernel has got to know one more beyond the limit."""

        self.on_forgotten: Callable[[], None] = lambda: None
        """Called when the kernel has forgotten one."""

        self._by_number: dict[int, Node] = {root.inode: root}  # told of or used longest ago first
        self._units = 0

    def __len__(self) -> int:
        return len(self._by_number)

    @property
    def held_bytes(self) -> int:
        """Memory that they take, about."""
        return self._units * UNIT_BYTES

    def limit(self, limit_bytes: int) -> None:
        """Let them take so much at most: what is beyond that, the kernel is asked to forget."""
        self.limit_bytes = limit_bytes
        if self.held_bytes > limit_bytes:
            self.on_growth()

    def nodes(self) -> list[Node]:
        """All of them, as they are now."""
        return list(self._by_number.values())

    def get(self, inode: int) -> Node:
        """The node of a number the kernel uses. Raises StaleVersion for one it must not know."""
        node = self._by_number.get(inode)
        if node is None:
            raise StaleVersion(f"The kernel asked for inode {inode}, which it was never given.")
        return node

    def used(self, node: Node) -> None:
        """A node that the kernel knows is in use: others are to be forgotten before it."""
        if self._by_number.pop(node.inode, None) is not None:
            self._by_number[node.inode] = node

    def oldest(self, count_max: int) -> list[Node]:
        """Those used longest ago, count_max at most, which count as used now."""
        found = list(islice(self._by_number.values(), count_max))
        for node in found:
            self.used(node)
        return [node for node in found if node is not self.root]

    def remember(self, node: Node) -> None:
        """The kernel is about to be told of node once more."""
        if node.lookup_count:
            self._by_number.pop(node.inode, None)  # so that it comes last
        node.lookup_count += 1
        self._by_number[node.inode] = node
        if node.parent is not None:
            node.parent.looked_up[node.name] = node
            if not node.units:
                text_bytes = 2 * len(node.name) + len(node.parent.prefix)
                node.units = (NODE_BYTES + text_bytes) // UNIT_BYTES
                self._units += node.units
                if self.held_bytes > self.limit_bytes:
                    self.on_growth()

    def forget(self, inode: int, lookups: int) -> None:
        """The kernel gives back references; the last one frees the number."""
        node = self._by_number.get(inode)
        if node is None or node is self.root:
            return
        node.lookup_count -= lookups
        assert node.lookup_count >= 0, f"inode {inode} forgotten more often than looked up"
        if not node.lookup_count:
            del self._by_number[inode]
            self._units -= node.units
            node.units = 0
            self.unlink(node)
            self.on_forgotten()

    def unlink(self, node: Node) -> None:
        """The name of a node is its own no longer; the number is, as long as the kernel has it."""
        if node.parent is not None and node.parent.looked_up.get(node.name) is node:
            del node.parent.looked_up[node.name]

    def move(self, node: Node, parent: Directory, name: bytes) -> None:
        """Give a node another name. What had it before must be unlinked."""
        self.unlink(node)
        node.parent, node.name = parent, name
        if node.lookup_count:
            parent.looked_up[name] = node


def is_outdated(node: Node | None) -> bool:
    """Whether the server has said that this version is gone."""
    return isinstance(node, File) and node.outdated


def path_of(node: Node) -> str:
    """The path of a node below the mount point, beginning with `/`."""
    names: list[bytes] = []
    at: Node | None = node
    while at is not None and at.parent is not None:
        names.append(at.name)
        at = at.parent
    return "/" + b"/".join(reversed(names)).decode("utf-8", "backslashreplace")
