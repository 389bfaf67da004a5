"""What an entity view of the fake Synapse shows, and queries of it.

The SQL is run by SQLite on a table of the view's rows; its authorizer allows nothing but to read
that table.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator

from stsfs.demo.fake_synapse.answers import VIEW_COLUMNS, Refused
from stsfs.demo.fake_synapse.state import Entity, State

ViewRow = tuple[Entity, list[object]]
"""The entity, by which it is decided who may see the row, and the values."""

_ANNOTATION_TYPES = {"LONG": "INTEGER", "DOUBLE": "DOUBLE", "TIMESTAMP_MS": "DATE",
                     "BOOLEAN": "BOOLEAN"}  # fmt: skip
_AFFINITIES = {"INTEGER": "INTEGER", "DATE": "INTEGER", "DOUBLE": "REAL"}
"""What SQLite calls a type, so that it compares as Synapse does."""

_QUOTED = re.compile(r"""'(?:[^']|'')*'|"((?:[^"]|"")*)\"""")
_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}


def types(state: State, view: Entity) -> dict[str, str]:
    """The columns of a view; that of an annotation has the type of the values there are."""
    found: dict[str, set[str]] = {name: set() for name in view.annotation_columns}
    if found:
        for entity in _files(state, view):
            for name in found:
                annotation = entity.annotations.get(name)
                if isinstance(annotation, dict):
                    found[name].add(str(annotation.get("type")))
    return VIEW_COLUMNS | {
        name: _ANNOTATION_TYPES.get(next(iter(words)), "STRING") if len(words) == 1 else "STRING"
        for name, words in found.items()
    }


def freeze(state: State, view: Entity) -> None:
    """Let a view lag behind: it goes on showing what there is now, until it is thawed."""
    with state.lock:
        view.frozen_rows = list(_live_rows(state, view))


def thaw(state: State, view: Entity) -> None:
    """Bring a view up to date, and keep it so."""
    with state.lock:
        view.frozen_rows = None


def run(
    state: State, view: Entity, user_id: int, sql: str
) -> tuple[list[dict[str, str]], list[list[str | None]]]:
    """Return columns and rows, all as texts, of what this user may see. Raises Refused."""
    columns = types(state, view)
    for match in _QUOTED.finditer(sql):
        name = match[1]
        # SQLite would take the unknown name for a text.
        if name is not None and name.replace('""', '"') not in columns:
            raise Refused(400, f"Unknown column {name}")
    database = sqlite3.connect(":memory:")
    try:
        _fill(database, state, view, user_id, columns)
        database.set_authorizer(_only_reading(view.syn_id))
        cursor = database.execute(sql)
        if cursor.description is None:
            raise Refused(400, "The query selects nothing.")
        headers = [
            {"name": name, "columnType": columns.get(name, "STRING")}
            for name, *_ in cursor.description
        ]
        return headers, [[None if v is None else str(v) for v in row] for row in cursor]
    except (sqlite3.Error, sqlite3.Warning) as exc:
        raise Refused(400, f"Encountered an error in the query: {exc}") from exc
    finally:
        database.close()


def _fill(
    database: sqlite3.Connection, state: State, view: Entity, user_id: int, columns: dict[str, str]
) -> None:
    quoted = ", ".join(
        '"{}" {}'.format(name.replace('"', '""'), _AFFINITIES.get(type_name, "TEXT"))
        for name, type_name in columns.items()
    )
    database.execute(f"CREATE TABLE {view.syn_id} ({quoted})")
    rows = _live_rows(state, view) if view.frozen_rows is None else view.frozen_rows
    marks = ", ".join("?" * len(columns))
    database.executemany(
        f"INSERT INTO {view.syn_id} VALUES ({marks})",  # noqa: S608 - an id, and question marks
        (values for entity, values in rows if _may_see(state, user_id, entity)),
    )


def _only_reading(table: str) -> Callable[..., int]:
    def decide(action: int, name: str | None, *_: str | None) -> int:
        foreign = action == sqlite3.SQLITE_READ and name != table
        return sqlite3.SQLITE_OK if action in _READS and not foreign else sqlite3.SQLITE_DENY

    return decide


def _may_see(state: State, user_id: int, entity: Entity) -> bool:
    """Views look at the ACL alone: what was trashed a moment ago is still there."""
    return "READ" in state.permissions(user_id, entity)


def _files(state: State, view: Entity) -> Iterator[Entity]:
    """All files below the containers of the scope, each once."""
    waiting, seen = list(view.scope), set(view.scope)
    while waiting:
        for entity in state.children(waiting.pop()):
            if entity.number in seen:
                continue
            seen.add(entity.number)
            if entity.kind in {"folder", "project"}:
                waiting.append(entity.number)
            elif entity.kind == "file":
                yield entity


def _live_rows(state: State, view: Entity) -> Iterator[ViewRow]:
    return ((entity, _row(state, view, entity)) for entity in _files(state, view))


def _row(state: State, view: Entity, entity: Entity) -> list[object]:
    at = entity.current
    handle = state.handles.get(at.file_handle_id or "")
    row: list[object] = [
        entity.syn_id, entity.name, entity.kind, f"syn{entity.parent}", at.number, entity.etag,
        _ms(entity.created_on_unix_s), _ms(at.modified_on_unix_s), entity.created_by,
        at.modified_by, at.file_handle_id,
    ]  # fmt: skip
    row += [None] * 5 if handle is None else [
        handle.content_size_bytes, handle.content_md5, handle.bucket, handle.key, handle.file_name,
    ]  # fmt: skip
    for name in view.annotation_columns:
        annotation = entity.annotations.get(name)
        values = annotation.get("value", []) if isinstance(annotation, dict) else []
        row.append(values[0] if values else None)
    return row


def _ms(unix_s: float) -> int:
    return int(unix_s * 1000)
