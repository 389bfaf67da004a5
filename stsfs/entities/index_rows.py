"""Rows of an index, as the values that travel between it and the view. Pure.

SQLite keeps a value of any kind in a column of any type, and the file is one that anything may
have happened to. Everything here raises DamagedIndex for what this program does not write.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from stsfs import values
from stsfs.entities.records import (
    Difference,
    FileKey,
    FileRecord,
    ObjectFact,
    annotations_of,
)
from stsfs.synapse.records import ChildHeader

_T = TypeVar("_T")


class DamagedIndex(sqlite3.DatabaseError):
    """The file is a database, and does not hold what this program writes."""


DAMAGES = (sqlite3.DatabaseError, DamagedIndex, UnicodeDecodeError)
"""What is raised for a damaged file. UnicodeDecodeError: SQLite's message quotes a name from it."""


def header(row: Sequence[Any]) -> ChildHeader:
    """An entity; a name that is not text was written as bytes."""
    entity_id, name, *rest = row
    if isinstance(name, bytes):
        name = _made(lambda: name.decode("utf-8", "surrogatepass"))
    kind, version, created_unix_s, modified_unix_s, created_by, modified_by = rest
    return ChildHeader(
        text(entity_id), text(name), text(kind), _number(version), time(created_unix_s),
        time(modified_unix_s), text(created_by), text(modified_by),
    )  # fmt: skip


def record(key: FileKey, row: Sequence[Any]) -> FileRecord:
    """What is known of the version of key."""
    handle_id, bucket, object_key, size, md5, created, unreadable, annotations, target = row
    return FileRecord(
        key,
        text(handle_id),
        text(bucket),
        text(object_key),
        None if size is None else _number(size),
        text(md5),
        None if created is None else time(created),
        text(unreadable),
        _made(lambda: annotations_of(None if annotations is None else text(annotations))),
        text(target),
    )


def fact(row: Sequence[Any]) -> tuple[str, ObjectFact]:
    """An object, by its key."""
    key, etag, size, modified_unix_s, storage_class = row
    return text(key), ObjectFact(
        text(etag), _number(size), time(modified_unix_s), text(storage_class)
    )


def difference(row: Sequence[Any]) -> Difference:
    """A file whose object is not what its file handle says."""
    entity_id, name, key, size, object_size = row
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    return Difference(
        text(entity_id), text(name), text(key),
        None if size is None else _number(size),
        None if object_size is None else _number(object_size),
    )  # fmt: skip


def text(value: object) -> str:
    """What must be text."""
    if not isinstance(value, str):
        raise DamagedIndex("a value is not text")
    return value


def time(value: object) -> float:
    """What must be seconds since 1970."""
    if not isinstance(value, float | int):
        raise DamagedIndex("a time is no number")
    return _made(lambda: values.unix_s(float(value)))


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise DamagedIndex("a number is none")
    return _made(lambda: values.size_bytes(value))


def _made(make: Callable[[], _T]) -> _T:
    try:
        return make()
    except (ValueError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as exc:
        raise DamagedIndex(f"a value makes no sense ({exc})") from None
