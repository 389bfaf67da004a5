"""Directories and files that are entities."""

import weakref
from dataclasses import dataclass

from stsfs.entities.records import FileKey, FileRecord, ObjectFact, key_of
from stsfs.synapse.paging import Paging
from stsfs.synapse.records import ChildHeader
from stsfs.vfs.listing import Listing
from stsfs.vfs.nodes import Directory, File


@dataclass(slots=True, eq=False)
class EntityDirectory(Directory):
    """A folder."""

    entity_id: str = ""
    changed_ns: int = 0
    header: ChildHeader | None = None
    """None for the folder that is mounted."""

    @property
    def key(self) -> str:
        """A folder has no key: its files may lie anywhere in the bucket."""
        return ""

    @property
    def modified_ns(self) -> int:
        """When the folder itself was changed; Synapse keeps no other time."""
        return self.changed_ns


@dataclass(slots=True, eq=False)
class EntityFile(File):
    """One version of a file entity. Its object, and so its version, is known after an open."""

    header: ChildHeader | None = None
    """As the folder listed it; of a link, that of its target."""

    listed_id: str = ""
    """The entity that has the name: the link, where it is one."""

    listing: "weakref.ref[EntityListing] | None" = None
    """The one that showed it last; the file must not keep all the others alive."""

    record: FileRecord | None = None
    fact: ObjectFact | None = None

    @property
    def entity(self) -> ChildHeader:
        """The header, which every file of this view has."""
        assert self.header is not None
        return self.header

    @property
    def file_key(self) -> FileKey:
        """What its content belongs to."""
        return key_of(self.entity)

    @property
    def key(self) -> str:
        """The object's key, as far as it is known."""
        return "" if self.record is None else self.record.object_key

    @property
    def md5(self) -> str:
        """What Synapse says."""
        return "" if self.record is None else self.record.md5

    @property
    def size_bytes(self) -> int | None:
        """Of the object where it has been seen, else what Synapse says."""
        if self.version is not None:
            return self.version.size_bytes
        if self.fact is not None:
            return self.fact.size_bytes
        return None if self.record is None else self.record.size_bytes


class EntityListing(Listing):
    """A folder as pages of its children show it."""

    def __init__(self, directory: Directory, old: Listing | None, *, expires_s: float) -> None:
        super().__init__(directory, expires_s=expires_s)
        self.old: Listing | None = old
        """For what has not changed since; without its own, or a chain would grow."""

        if isinstance(old, EntityListing):
            old.old = None
        self.next_token: str | None = None
        self.paging = Paging("the request for the children of a folder")
        self.headers: dict[str, ChildHeader] = {}
        """All children that pages have told of, shown or not, by id."""


def inner_path(directory: Directory, root_id: str) -> str | None:
    """The path of a directory below the folder of its location; None if it lies elsewhere."""
    names: list[bytes] = []
    at = directory
    while not at.is_site_root:
        names.append(at.name)
        assert at.parent is not None
        at = at.parent
    if not isinstance(at, EntityDirectory) or at.entity_id != root_id:
        return None
    return "/" + b"/".join(reversed(names)).decode("utf-8", "surrogateescape")
