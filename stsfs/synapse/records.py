"""What Synapse tells about entities: frozen records, and the parsers that make them. Pure.

A parser raises one of PARSE_ERRORS for JSON that is not what Synapse sends; `transport.parsed`
makes one error of these. What it returns has the form that URLs, headers, indexes and directories
need, and a bounded size: see `values`. Lists are read entry by entry, so that one that makes no
sense costs nobody the others: it stays in its place as what it is. Times are in seconds since 1970.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stsfs import values

MODEL = "org.sagebionetworks.repo.model."
"""What the name of every class of Synapse begins with."""

PARSE_ERRORS = (
    KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
"""What parsers raise."""

UNREADABLE_KIND = "Unreadable"
"""The kind of a child of which Synapse says what cannot be, in place of what it says."""

CHILDREN_MAX = 1000
"""On one page; Synapse puts 50 there."""

NAME_CHARS_MAX = 1000
"""Of an entity; Synapse allows 256."""

PATH_ENTITIES_MAX = 200
"""Synapse allows 50 levels."""

ANNOTATIONS_CHARS_MAX = 1_000_000
"""Of one entity, and ANNOTATION_CHARS for each value: twice what Synapse allows."""

ANNOTATION_CHARS = 50
_SHORT_CHARS_MAX = 100
"""Of the name of a class, or the number of a user."""

_BUCKETS = {f"{MODEL}file.S3FileHandle": "", f"{MODEL}file.GoogleCloudFileHandle": "gs://"}
"""The kinds of file handles whose bytes lie in a bucket, for which Synapse signs URLs; and what
stands before the names of buckets that are not S3's."""

_ENTITY_ID = re.compile(r"syn[0-9]{1,19}")
_NUMBER = re.compile(r"[0-9]{1,19}")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class ChildHeader:
    """One entity as listings show it: neither size nor md5 nor file handle."""

    entity_id: str
    name: str
    kind: str
    """The last word of its class: `Folder`, `FileEntity`, `Link` …; or UNREADABLE_KIND."""

    version: int
    """1 for what has no versions, such as folders."""

    created_unix_s: float
    modified_unix_s: float
    created_by: str
    """The number of a user, as text; so is `modified_by`."""

    modified_by: str


@dataclass(frozen=True, slots=True)
class ChildPage:
    """50 children or so, by name."""

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
    """With `gs://` in front where it is Google's; None, as the key, for what lies in no bucket: a
    web page, a proxy's file …"""

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

    left_out: int = 0
    """How many more rows there were, which make no sense."""


def unix_s(written: str) -> float:
    """Return a time as Synapse writes it, `2020-01-01T00:00:00.000Z`, in seconds since 1970.

    Without a zone it is UTC. Raises ValueError or TypeError for anything else, and for a time that
    cannot be shown in every zone.
    """
    time = datetime.fromisoformat(written)
    return values.unix_s(
        (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
    )


def child_header(answer: Any) -> ChildHeader:
    """Parse an EntityHeader."""
    return _header(answer, text(answer, "type"))


def child_page(answer: Any) -> ChildPage:
    """Parse an EntityChildrenResponse."""
    total = answer.get("totalChildCount")
    page = _list(answer, "page")
    if len(page) > CHILDREN_MAX:
        raise ValueError("a page has too many children")
    children = tuple(map(_child, page))
    if children and all(each.kind == UNREADABLE_KIND for each in children):
        raise ValueError("not one child makes sense")  # a folder must not seem to be empty
    return ChildPage(
        children=children,
        next_token=_text_or_none(answer, "nextPageToken"),
        total_count=None if total is None else number(total),
    )


def headers(answer: Any) -> tuple[ChildHeader, ...]:
    """Parse a list of EntityHeaders."""
    return tuple(map(child_header, _list(answer, "results")))


def entity_bundle(answer: Any) -> EntityBundle:
    """Parse an EntityBundle with entity, annotations, file handles and restrictions."""
    entity = answer["entity"]
    handle_id = None
    if entity.get("dataFileHandleId") is not None:
        handle_id = word(entity, "dataFileHandleId")
    target = entity.get("linksTo")
    restrictions = answer.get("restrictionInformation") or {}
    return EntityBundle(
        header=_header(entity, text(entity, "concreteType")),
        parent_id="" if entity.get("parentId") is None else entity_id(entity, "parentId"),
        etag=word(entity, "etag"),
        handle_id=handle_id,
        handle=_handle_of(handle_id, answer.get("fileHandles") or ()),
        annotations=_annotations(answer["annotations"].get("annotations", {})),
        has_unmet_requirement=restrictions.get("hasUnmetAccessRequirement") is True,
        link_target=None if target is None else _link_target(target),
    )


def file_handle(answer: Any) -> FileHandle:
    """Parse a FileHandle of any class."""
    scheme = _BUCKETS.get(text(answer, "concreteType"))
    in_bucket = scheme is not None
    location_id = answer.get("storageLocationId")
    return FileHandle(
        handle_id=word(answer, "id"),
        bucket=f"{scheme}{bucket(answer, 'bucketName')}" if in_bucket else None,
        key=values.key(text(answer, "key"), "", is_shown=False) if in_bucket else None,
        size_bytes=_size_bytes(answer),
        md5=md5(_text_or_none(answer, "contentMd5")),
        file_name=_shown(_text_or_none(answer, "fileName") or ""),
        content_type=_shown(_text_or_none(answer, "contentType") or ""),
        storage_location_id=None if location_id is None else number(location_id),
        created_unix_s=unix_s(answer["createdOn"]),
    )


def versions(answer: Any) -> tuple[VersionInfo | None, ...]:
    """Parse a list of VersionInfos; None stands for one that makes no sense."""
    found = tuple(map(_version, _list(answer, "results")))
    if found and not any(found):
        raise ValueError("not one version makes sense")
    return found


def columns(answer: Any) -> Mapping[str, str]:
    """Parse a list of ColumnModels: name → type."""
    return {text(each, "name"): text(each, "columnType") for each in _list(answer, "results")}


def table_rows(answer: Any) -> TableRows:
    """Parse a QueryResult: one page of rows, with the token of the next one."""
    found, token = answer["queryResults"], answer.get("nextPageToken")
    columns = tuple(text(header, "name") for header in _list(found, "headers"))
    told = _list(found, "rows")
    rows = tuple(row for each in told if (row := _row(each, len(columns))) is not None)
    token = None if token is None else text(token, "token")
    return TableRows(columns, rows, token, len(told) - len(rows))


def text(answer: Any, key: str) -> str:
    """Return what must be text. Raises KeyError, or TypeError for what is not."""
    value = answer[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is not text")
    if len(value) > values.TEXT_CHARS_MAX:
        raise ValueError(f"{key} is too long")
    return value


def word(answer: Any, key: str) -> str:
    """Return an identifier of printable ASCII, at least one character of it."""
    return values.word(text(answer, key) or "\0")


def entity_name(answer: Any, key: str) -> str:
    """Return the name of an entity; what can be that of a file is a matter of `entities.names`."""
    value = text(answer, key)
    if len(value) > NAME_CHARS_MAX:
        raise ValueError(f"{key} is too long")
    return value


def kind_of(class_name: str) -> str:
    """Return the last word of the name of a class."""
    return _short(class_name.rpartition(".")[2])


def entity_id(answer: Any, key: str) -> str:
    """Return the id of an entity, `syn12345`."""
    value = text(answer, key)
    if not _ENTITY_ID.fullmatch(value):
        raise ValueError(f"{key} is not the id of an entity")
    return value


def number(value: object) -> int:
    """Return a whole number from 0 to 2^63 - 1, which Synapse writes as that or as text."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("not a number")
    return values.size_bytes(value)


def bucket(answer: Any, key: str) -> str:
    """Return the name of a bucket: it becomes a part of a host's name, or of a path."""
    value = text(answer, key)
    if not _BUCKET.fullmatch(value) or ".." in value:
        raise ValueError(f"{key} is not the name of a bucket")
    return value


def base_key(answer: Any, key: str) -> str:
    """Return what the keys of a location begin with, without slashes around it; or nothing."""
    value = (_text_or_none(answer, key) or "").strip("/")
    if "\0" in value:
        raise ValueError(f"{key} has a NUL")
    return values.key(value, "", is_shown=False) if value else ""


def md5(written: str | None) -> str:
    """Return an MD5 in lower case; empty for what is none: whoever uploads a file may write it."""
    found = (written or "").lower()
    return found if _MD5.fullmatch(found) else ""


def _child(entry: Any) -> ChildHeader:
    """Parse an EntityHeader; of one that makes no sense keep the id and the name, if any."""
    try:
        return child_header(entry)
    except PARSE_ERRORS:
        told: Mapping[str, object] = entry if isinstance(entry, dict) else {}
        found, name = told.get("id"), told.get("name")
        if not (isinstance(found, str) and _ENTITY_ID.fullmatch(found)):
            # The same entry on another page, or in another listing, is the same child.
            found = f"unreadable-{hashlib.sha256(repr(entry).encode()).hexdigest()[:16]}"
        shown = name[:NAME_CHARS_MAX] if isinstance(name, str) else ""
        return ChildHeader(found, shown, UNREADABLE_KIND, 1, 0.0, 0.0, "", "")


def _version(entry: Any) -> VersionInfo | None:
    try:
        return VersionInfo(
            version=number(entry["versionNumber"]),
            modified_unix_s=unix_s(entry["modifiedOn"]),
            modified_by=_user(entry.get("modifiedByPrincipalId") or entry.get("modifiedBy")),
            size_bytes=_size_bytes(entry),
            md5=md5(_text_or_none(entry, "contentMd5")),
        )
    except PARSE_ERRORS:
        return None


def _annotations(told: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Those that make sense, as far as they are not more than Synapse allows."""
    found: dict[str, tuple[str, ...]] = {}
    chars_left = ANNOTATIONS_CHARS_MAX
    for name, annotation in told.items():
        try:
            texts = tuple(_shown(_scalar(each)) for each in _values(annotation))
        except PARSE_ERRORS:
            continue
        chars_left -= annotation_chars(name, texts)
        if chars_left < 0:
            break
        found[_shown(name)] = texts
    return found


def annotation_chars(name: str, texts: tuple[str, ...]) -> int:
    """What an annotation counts towards ANNOTATIONS_CHARS_MAX."""
    return len(name) + sum(map(len, texts)) + ANNOTATION_CHARS * (1 + len(texts))


def _list(answer: Any, key: str) -> list[Any]:
    value = answer[key]
    if not isinstance(value, list):
        raise TypeError(f"{key} is not a list")
    return value


def _values(annotation: Any) -> list[Any]:
    return [] if annotation.get("value") is None else _list(annotation, "value")


def _text_or_none(answer: Any, key: str) -> str | None:
    return None if answer.get(key) is None else text(answer, key)


def _header(answer: Any, class_name: str) -> ChildHeader:
    return ChildHeader(
        entity_id=entity_id(answer, "id"),
        name=entity_name(answer, "name"),
        kind=kind_of(class_name),
        version=number(answer.get("versionNumber", 1)),
        created_unix_s=unix_s(answer["createdOn"]),
        modified_unix_s=unix_s(answer["modifiedOn"]),
        created_by=_user(answer.get("createdBy")),
        modified_by=_user(answer.get("modifiedBy")),
    )


def _user(value: object) -> str:
    """The number of a user, or nothing."""
    return "" if value is None else _short(_scalar(value))


def _short(text: str) -> str:
    if len(text) > _SHORT_CHARS_MAX:
        raise ValueError("it is too long")
    return values.word(text)


def _handle_of(handle_id: str | None, listed: Any) -> FileHandle | None:
    """Pick the file's own handle: its preview is listed too."""
    own = (each for each in listed if each["id"] == handle_id)
    return next(map(file_handle, own), None)


def _link_target(target: Any) -> tuple[str, int | None]:
    version = target.get("targetVersionNumber")
    return entity_id(target, "targetId"), None if version is None else number(version)


def _size_bytes(answer: Any) -> int | None:
    size = answer.get("contentSize")
    return None if size is None else number(size)


def _row(entry: Any, cells: int) -> tuple[str | None, ...] | None:
    """One row of a table; None where it makes no sense: it must not hide all others."""
    try:
        row = tuple(map(_cell, _list(entry, "values")))
    except PARSE_ERRORS:
        return None
    return row if len(row) == cells else None


def _cell(value: object) -> str | None:
    return None if value is None else _scalar(value)


def _scalar(value: object) -> str:
    """Text, a number or a truth value as text."""
    if not isinstance(value, str | int | float):
        raise TypeError("neither text nor a number")
    return str(value)


def _shown(text: str) -> str:
    """Text with lone surrogates, which JSON may hold and UTF-8 may not, replaced by `?`."""
    return text.encode("utf-8", "replace").decode()
