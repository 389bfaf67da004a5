"""Which entities can be shown, under which name, and why not. Pure."""

from collections.abc import Container

from stsfs.entities.records import FILE_KIND, FOLDER_KINDS, LINK_KIND
from stsfs.synapse.records import UNREADABLE_KIND, ChildHeader
from stsfs.vfs.explain import why_hidden
from stsfs.vfs.listing import is_file_name

MAGIC_NAME = b".synapse"
"""The directory in the root that leads to entities by id, and to their versions."""

SHOWN_KINDS = FOLDER_KINDS | {FILE_KIND, LINK_KIND}

UNREADABLE_REASON = "what Synapse says of it cannot be right"

_KIND_WORDS = {
    "TableEntity": "a table",
    "EntityView": "a view",
    "SubmissionView": "a view",
    "MaterializedView": "a view",
    "VirtualTable": "a table",
    "Dataset": "a dataset",
    "DatasetCollection": "a collection of datasets",
    "DockerRepository": "a Docker repository",
    "RecordSet": "a set of records",
    "SearchIndex": "a search index",
}


def file_name(header: ChildHeader) -> bytes:
    """The bytes that the kernel would show."""
    return header.name.encode("utf-8", "surrogatepass")


def is_shown_name(name: str) -> bool:
    """Whether a path can have this name: text, and what the kernel takes for one name."""
    if any("\ud800" <= each <= "\udfff" for each in name):
        return False
    return is_file_name(name.encode())


def reason_hidden(
    header: ChildHeader, taken: Container[bytes] = (), *, in_root: bool = False
) -> str:
    """Why an entity is not shown in its folder, where these names are taken; empty if it is."""
    name = file_name(header)
    if header.kind == UNREADABLE_KIND:
        return UNREADABLE_REASON
    if header.kind not in SHOWN_KINDS:
        return f"{_KIND_WORDS.get(header.kind, f'of the kind {header.kind}')} is not a file"
    if any("\ud800" <= each <= "\udfff" for each in header.name):
        return f"its name is not text; {by_id(header)}"
    if "/" in header.name:
        return f"a file name holds no slash; {by_id(header)}"
    if not is_file_name(name):
        return f"{why_hidden(header.name, '')}; {by_id(header)}"
    if in_root and name == MAGIC_NAME:
        return f"the mount itself uses this name; {by_id(header)}"
    if name in taken:
        return f"another entity of the folder has this name; {by_id(header)}"
    return ""


def by_id(header: ChildHeader) -> str:
    """Where it is all the same."""
    return f"see .synapse/by-id/{header.entity_id}"


def hidden_label(header: ChildHeader, folder_path: str) -> str:
    """What status calls a hidden entity."""
    name = header.name.encode("utf-8", "backslashreplace").decode()
    return f"{folder_path.rstrip('/')}/{name} ({header.entity_id})"
