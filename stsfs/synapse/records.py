"""What Synapse tells about entities: frozen records, and the parsers that make them. Pure.

A parser raises KeyError, TypeError, ValueError or AttributeError for JSON that is not what
Synapse sends; `transport.parsed` makes one error of these. Times are in seconds since 1970.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MODEL = "org.sagebionetworks.repo.model."
"""What the name of every class of Synapse begins with."""

_S3_HANDLE = f"{MODEL}file.S3FileHandle"


@dataclass(frozen=True, slots=True)
class ChildHeader:
    """One entity as listings show it: neither size nor md5 nor file handle."""

    entity_id: str
    name: str
    kind: str
    """The last word of its class: `Folder`, `FileEntity`, `Link`, `TableEntity` …"""

    version: int
    """1 for what has no versions, such as folders."""

    created_unix_s: float
    modified_unix_s: float
    created_by: str
    """The number of a user, as text; so is `modified_by`."""

    modified_by: str


@dataclass(frozen=True, slots=True)
class ChildPage:
    """At most 50 children, by name."""

    children: tuple[ChildHeader, ...]
    next_token: str | None
    """What continues the listing; None at its end."""

    total_count: int | None
    """Children on all pages, where it was asked for."""


@dataclass(frozen=True, slots=True)
class FileHandle:
    """Where the bytes of one version of a file are; never changes."""

    handle_id: str
    bucket: str | None
    """None, as the key, for what does not lie in S3: a web page, a proxy's file …"""

    key: str | None
    size_bytes: int | None
    """None where Synapse was never told, as for web pages."""

    md5: str
    """32 hexadecimal digits, or empty where Synapse was never told."""

    file_name: str
    content_type: str
    storage_location_id: int | None
    created_unix_s: float


@dataclass(frozen=True, slots=True)
class EntityBundle:
    """All about one version of an entity that one request can give."""

    header: ChildHeader
    parent_id: str
    """Empty for the root of Synapse, which has none."""

    etag: str
    """Changes with every update, annotations included; all zeros for old versions."""

    handle_id: str | None
    """Of a file; set even where the user may not see the handle itself."""

    handle: FileHandle | None
    """None for what is not a file, and where the user may not download."""

    annotations: Mapping[str, tuple[str, ...]]
    """Name → values as Synapse writes them; times are milliseconds since 1970."""

    has_unmet_requirement: bool
    """Whether conditions for use stand between this user and the content."""

    link_target: tuple[str, int | None] | None
    """Of a link: entity id, and the version where one is named."""


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a file; whoever may list the file may know this."""

    version: int
    modified_unix_s: float
    modified_by: str
    size_bytes: int | None
    md5: str
    """Empty where Synapse does not know it."""


@dataclass(frozen=True, slots=True)
class TableRows:
    """The answer to a query of a view; cells are text as Synapse writes it, or None for null.

    Dates are milliseconds since 1970.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    next_token: str | None = None
    """What continues a page; None at the end, and for an answer that is complete."""


def unix_s(written: str) -> float:
    """Return a time as Synapse writes it, `2020-01-01T00:00:00.000Z`, in seconds since 1970.

    Without a zone it is UTC. Raises ValueError or TypeError for anything else.
    """
    time = datetime.fromisoformat(written)
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


def child_header(answer: Any) -> ChildHeader:
    """Parse an EntityHeader."""
    return _header(answer, text(answer, "type"))


def child_page(answer: Any) -> ChildPage:
    """Parse an EntityChildrenResponse."""
    total = answer.get("totalChildCount")
    return ChildPage(
        children=tuple(child_header(entry) for entry in answer["page"]),
        next_token=_text_or_none(answer, "nextPageToken"),
        total_count=None if total is None else int(total),
    )


def headers(answer: Any) -> tuple[ChildHeader, ...]:
    """Parse a list of EntityHeaders."""
    return tuple(child_header(entry) for entry in answer["results"])


def entity_bundle(answer: Any) -> EntityBundle:
    """Parse an EntityBundle with entity, annotations, file handles and restrictions."""
    entity = answer["entity"]
    handle_id = _text_or_none(entity, "dataFileHandleId")
    target = entity.get("linksTo")
    restrictions = answer.get("restrictionInformation") or {}
    return EntityBundle(
        header=_header(entity, text(entity, "concreteType")),
        parent_id=_text_or_none(entity, "parentId") or "",
        etag=text(entity, "etag"),
        handle_id=handle_id,
        handle=_handle_of(handle_id, answer.get("fileHandles") or ()),
        annotations={
            str(name): tuple(str(value) for value in annotation.get("value") or ())
            for name, annotation in answer["annotations"].get("annotations", {}).items()
        },
        has_unmet_requirement=restrictions.get("hasUnmetAccessRequirement") is True,
        link_target=None if target is None else _link_target(target),
    )


def file_handle(answer: Any) -> FileHandle:
    """Parse a FileHandle of any class."""
    in_s3 = text(answer, "concreteType") == _S3_HANDLE
    location_id = answer.get("storageLocationId")
    return FileHandle(
        handle_id=text(answer, "id"),
        bucket=text(answer, "bucketName") if in_s3 else None,
        key=text(answer, "key") if in_s3 else None,
        size_bytes=_size_bytes(answer),
        md5=_text_or_none(answer, "contentMd5") or "",
        file_name=_text_or_none(answer, "fileName") or "",
        content_type=_text_or_none(answer, "contentType") or "",
        storage_location_id=None if location_id is None else int(location_id),
        created_unix_s=unix_s(answer["createdOn"]),
    )


def versions(answer: Any) -> tuple[VersionInfo, ...]:
    """Parse a list of VersionInfos."""
    return tuple(
        VersionInfo(
            version=int(entry["versionNumber"]),
            modified_unix_s=unix_s(entry["modifiedOn"]),
            modified_by=str(entry.get("modifiedByPrincipalId") or entry.get("modifiedBy") or ""),
            size_bytes=_size_bytes(entry),
            md5=_text_or_none(entry, "contentMd5") or "",
        )
        for entry in answer["results"]
    )


def columns(answer: Any) -> Mapping[str, str]:
    """Parse a list of ColumnModels: name → type."""
    return {text(each, "name"): text(each, "columnType") for each in answer["results"]}


def table_rows(answer: Any) -> TableRows:
    """Parse a QueryResult: one page of rows, with the token of the next one."""
    found, token = answer["queryResults"], answer.get("nextPageToken")
    columns = tuple(text(header, "name") for header in found["headers"])
    rows = tuple(tuple(map(_cell, row["values"])) for row in found["rows"])
    if any(len(row) != len(columns) for row in rows):
        raise ValueError("a row has more or fewer cells than there are columns")
    return TableRows(columns, rows, None if token is None else text(token, "token"))


def text(answer: Any, key: str) -> str:
    """Return what must be text. Raises KeyError, or TypeError for what is not."""
    value = answer[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is not text")
    return value


def _text_or_none(answer: Any, key: str) -> str | None:
    return None if answer.get(key) is None else text(answer, key)


def _header(answer: Any, class_name: str) -> ChildHeader:
    return ChildHeader(
        entity_id=text(answer, "id"),
        name=text(answer, "name"),
        kind=class_name.rpartition(".")[2],
        version=int(answer.get("versionNumber", 1)),
        created_unix_s=unix_s(answer["createdOn"]),
        modified_unix_s=unix_s(answer["modifiedOn"]),
        created_by=str(answer.get("createdBy", "")),
        modified_by=str(answer.get("modifiedBy", "")),
    )


def _handle_of(handle_id: str | None, listed: Any) -> FileHandle | None:
    """Pick the file's own handle: its preview is listed too."""
    own = (each for each in listed if each["id"] == handle_id)
    return next(map(file_handle, own), None)


def _link_target(target: Any) -> tuple[str, int | None]:
    version = target.get("targetVersionNumber")
    return text(target, "targetId"), None if version is None else int(version)


def _size_bytes(answer: Any) -> int | None:
    size = answer.get("contentSize")
    if size is None:
        return None
    if int(size) < 0:
        raise ValueError("a size below zero")
    return int(size)


def _cell(value: object) -> str | None:
    return None if value is None else str(value)
