"""What is known of the entities of one location: values that travel between index and view."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stsfs.synapse.records import ChildHeader
from stsfs.values import utf8

FOLDER_KINDS = frozenset({"Folder", "Project"})
FILE_KIND = "FileEntity"
LINK_KIND = "Link"


class FileKey(NamedTuple):
    """What a header tells of a file's content: while it is the same, so is all that follows.

    Annotations change the time, too, so this changes more often than the bytes do.
    """

    entity_id: str
    version: int
    modified_unix_s: float


def key_of(header: ChildHeader) -> FileKey:
    """The key of an entity as its folder lists it."""
    return FileKey(header.entity_id, header.version, header.modified_unix_s)


@dataclass(frozen=True, slots=True)
class ObjectFact:
    """An object as a LIST has shown it."""

    etag: str
    size_bytes: int
    modified_unix_s: float
    storage_class: str


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One version of an entity and where its bytes are, as its file handle tells."""

    key: FileKey
    handle_id: str = ""
    bucket: str = ""
    object_key: str = ""
    """Empty where the bytes are not in S3, or we may not know where they are."""

    size_bytes: int | None = None
    """None where the handle does not tell; the store does."""

    md5: str = ""
    created_unix_s: float | None = None
    """When the bytes were uploaded."""

    unreadable: str = ""
    """Why nobody tells us where the bytes are; empty where somebody does."""

    annotations: Mapping[str, tuple[str, ...]] | None = field(default=None, hash=False)
    """None where nobody has asked for them."""

    link_target: str = ""
    """The entity that a link leads to, with its version if it names one: `syn1`, `syn1.2`."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The children of a folder, and when Synapse told them (wall clock)."""

    unix_s: float
    headers: Sequence[ChildHeader]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a location the index knows."""

    folders: int = 0
    folders_listed: int = 0
    files: int = 0
    files_known: int = 0


class Difference(NamedTuple):
    """A file whose object is not what its file handle says."""

    entity_id: str
    name: str
    object_key: str
    size_bytes: int | None
    """As Synapse says."""

    object_bytes: int | None
    """None: there is no object."""


@dataclass(frozen=True, slots=True)
class Differences:
    """Where Synapse and the bucket do not agree."""

    missing: int
    """Files without an object."""

    other_size: int
    unregistered: int
    """Objects that no file known has; previews are among them."""

    named: Sequence[Difference]


def annotations_text(annotations: Mapping[str, tuple[str, ...]] | None) -> str | None:
    """JSON for the index."""
    return None if annotations is None else json.dumps(dict(annotations), sort_keys=True)


def annotations_of(text: str | None) -> Mapping[str, tuple[str, ...]] | None:
    """The annotations that `annotations_text` has written.

    Raises ValueError, TypeError, AttributeError or RecursionError for anything else.
    """
    if text is None:
        return None
    found = json.loads(text).items()
    return {utf8(name): tuple(utf8(str(each)) for each in texts) for name, texts in found}
