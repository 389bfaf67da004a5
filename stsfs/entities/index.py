"""What Synapse has told of one location, on disk: for the next mount, and for others beside it.

Blocks, and is quick: a thread of its own calls it (see `EntityIndex.ask`). It holds nothing that
cannot be asked for again, so whatever is wrong with it costs requests and nothing else.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import platformdirs
import trio

from stsfs.entities import index_file, index_rows
from stsfs.entities.records import (
    FILE_KIND,
    LINK_KIND,
    Differences,
    Extent,
    FileKey,
    FileRecord,
    Listed,
    ObjectFact,
    annotations_text,
)
from stsfs.errors import ForeignPath
from stsfs.synapse.records import ChildHeader

log = logging.getLogger(__name__)

T = TypeVar("T")

DIFFERENCES_MAX = 100
HEADERS_MAX = 100_000
VARIABLES_MAX = 500
"""Of one statement, well below SQLite's limit."""

_HEADERS = (
    "SELECT c.entity_id, c.name, c.kind, c.version, c.created_unix_s, c.modified_unix_s,"
    " c.created_by, c.modified_by FROM children c"
)
_OBJECTS = "SELECT object_key, etag, size_bytes, modified_unix_s, storage_class FROM objects"
_KNOWN = (
    "SELECT 1 FROM files f WHERE f.entity_id = c.entity_id AND f.version = c.version"
    " AND f.modified_unix_s = c.modified_unix_s"
)


def index_path(synapse_url: str, user_id: str, root_id: str) -> Path:
    """Where the index of a location is: one for each Synapse, user and folder.

    What a folder lists depends on who asks.
    """
    name = hashlib.sha256(f"{synapse_url}\0{user_id}".encode()).hexdigest()[:16]
    kept = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]  # of a service (systemd.exec)
    base = Path(kept) if kept else platformdirs.user_cache_path("stsfs", appauthor=False)
    return base / "entities" / f"{root_id}-{name}.sqlite3"


class EntityIndex:
    """The tables of one location. `close` gives the file back; use `ask` from the event loop."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the index; in memory where path is None or nothing can be kept there."""
        self._limiter = trio.CapacityLimiter(1)
        self.trouble = ""
        """Why nothing is kept; empty where all is well."""

        self._path = path
        if path is not None:
            try:
                self._database = index_file.opened(path)
            except (OSError, sqlite3.Error, ForeignPath) as exc:
                self._say(exc)
                self._path = None
        if self._path is None:
            self._database = index_file.in_memory()

    async def ask(self, call: Callable[..., T], *arguments: object) -> T:
        """What a method of this index returns, called in a thread, one at a time.

        Where the file fails, this index goes on in memory: it forgets, and asks Synapse again.
        """
        return await trio.to_thread.run_sync(self._answer, call, *arguments, limiter=self._limiter)

    def _answer(self, call: Callable[..., T], *arguments: object) -> T:
        try:
            return call(*arguments)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as exc:
            is_damaged = type(exc) in index_rows.DAMAGES
            if self._path is None or not (is_damaged or isinstance(exc, sqlite3.OperationalError)):
                raise  # a bug
            self._say(exc)
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            if is_damaged:
                with contextlib.suppress(OSError):
                    index_file.remove(self._path)  # the next one begins anew
            self._path, self._database = None, index_file.in_memory()
        return call(*arguments)

    def _say(self, exc: Exception) -> None:
        self.trouble = f"{self._path} cannot be used: {exc}"
        log.warning("the index of entities is not kept: %s", self.trouble)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def meta(self, name: str) -> str | None:
        """A remembered text."""
        row = self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else index_rows.text(row[0])

    def set_meta(self, name: str, value: str) -> None:
        """Remember a text."""
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(name, value)])

    def listed(self, folder_id: str) -> Listed | None:
        """The children of a folder as they were last told; None if they never were."""
        found = self._database.execute(
            "SELECT listed_unix_s FROM folders WHERE entity_id = ?", (folder_id,)
        ).fetchone()
        if found is None or found[0] is None:
            return None
        rows = self._database.execute(
            f"{_HEADERS} WHERE c.parent_id = ? ORDER BY c.place", (folder_id,)
        )
        return Listed(index_rows.time(found[0]), [index_rows.header(row) for row in rows])

    def save_listed(self, folder_id: str, path: str, headers: Sequence[ChildHeader]) -> None:
        """Remember all children of a folder, as of now; path is that of the folder.

        Folders that were in it and are not any more are forgotten, with all below them: who finds
        them elsewhere asks what they hold.
        """
        folders = [
            (each.entity_id, f"{path.rstrip('/')}/{_text(each.name)}")
            for each in headers
            if each.kind == "Folder"
        ]
        rows = [(folder_id, place, *_values(each)) for place, each in enumerate(headers)]
        with self._database as database:
            before = self._folders_in(folder_id)
            database.execute("DELETE FROM children WHERE parent_id = ?", (folder_id,))
            database.executemany("INSERT INTO children VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            database.execute(
                "INSERT INTO folders VALUES (?, ?, ?) ON CONFLICT (entity_id)"
                " DO UPDATE SET listed_unix_s = excluded.listed_unix_s, path = excluded.path",
                (folder_id, time.time(), _text(path)),
            )
            database.executemany(
                "INSERT INTO folders VALUES (?, NULL, ?) ON CONFLICT (entity_id)"
                " DO UPDATE SET path = excluded.path",
                folders,
            )
            self._forget_unlisted(before.difference(each for each, _ in folders))

    def _folders_in(self, folder_id: str) -> set[str]:
        rows = self._database.execute(
            "SELECT entity_id FROM children WHERE parent_id = ? AND kind = 'Folder'", (folder_id,)
        )
        return {index_rows.text(entity_id) for (entity_id,) in rows}

    def _forget_unlisted(self, folder_ids: Iterable[str]) -> None:
        """Forget folders that no folder holds, and then those that only these held."""
        waiting = list(folder_ids)
        while waiting:
            folder_id = waiting.pop()
            held = "SELECT 1 FROM children WHERE entity_id = ?"
            if self._database.execute(held, (folder_id,)).fetchone() is None:
                waiting += self._forget(folder_id)

    def _forget(self, folder_id: str) -> set[str]:
        """Forget one folder; returns what was in it."""
        below = self._folders_in(folder_id)
        self._database.execute("DELETE FROM children WHERE parent_id = ?", (folder_id,))
        self._database.execute("DELETE FROM folders WHERE entity_id = ?", (folder_id,))
        return below

    def files(self, keys: Iterable[FileKey]) -> dict[FileKey, FileRecord]:
        """What is known of these versions."""
        found: dict[FileKey, FileRecord] = {}
        for key in keys:
            row = self._database.execute(
                "SELECT handle_id, bucket, object_key, size_bytes, md5, created_unix_s, unreadable,"
                " annotations, link_target FROM files"
                " WHERE entity_id = ? AND version = ? AND modified_unix_s = ?",
                key,
            ).fetchone()
            if row is not None:
                found[key] = index_rows.record(key, row)
        return found

    def save_files(self, records: Iterable[FileRecord]) -> None:
        """Remember these versions, in place of what was known of them."""
        self._write(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    *each.key,
                    each.handle_id,
                    each.bucket,
                    each.object_key,
                    each.size_bytes,
                    each.md5,
                    each.created_unix_s,
                    each.unreadable,
                    annotations_text(each.annotations),
                    each.link_target,
                )
                for each in records
            ],
        )

    def objects(self, keys: Sequence[str]) -> dict[str, ObjectFact]:
        """What LISTs have shown of these keys."""
        found: dict[str, ObjectFact] = {}
        for start in range(0, len(keys), VARIABLES_MAX):
            some = keys[start : start + VARIABLES_MAX]
            marks = ",".join("?" * len(some))
            statement = f"{_OBJECTS} WHERE object_key IN ({marks})"
            rows = self._database.execute(statement, some)
            found.update(map(index_rows.fact, rows))
        return found

    def save_new_files(self, records: Sequence[FileRecord]) -> None:
        """Remember those versions of which nothing is known yet."""
        known = self.files(each.key for each in records)
        self.save_files(each for each in records if each.key not in known)

    def save_objects(self, facts: Iterable[tuple[str, ObjectFact]]) -> None:
        """Remember objects as a LIST shows them."""
        now = time.time()
        self._write(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)",
            [
                (key, each.etag, each.size_bytes, each.modified_unix_s, each.storage_class, now)
                for key, each in facts
            ],
        )

    def forget_objects_before(self, unix_s: float) -> None:
        """An inventory that began then is complete: what it has not seen is gone."""
        self._write("DELETE FROM objects WHERE seen_unix_s < ?", [(unix_s,)])

    def forget_object(self, key: str) -> None:
        """The store has said that this object is another by now."""
        self._write("DELETE FROM objects WHERE object_key = ?", [(key,)])

    def unlisted_folders(self, limit: int) -> list[tuple[str, str]]:
        """Folders of which nobody has told the children: id and path, the highest first."""
        rows = self._database.execute(
            "SELECT entity_id, path FROM folders WHERE listed_unix_s IS NULL"
            " ORDER BY length(path) - length(replace(path, '/', '')), path LIMIT ?",
            (limit,),
        )
        return [(index_rows.text(entity_id), index_rows.text(path)) for entity_id, path in rows]

    def unknown_files(self, limit: int) -> list[ChildHeader]:
        """Files of which only the header is known."""
        rows = self._database.execute(
            f"{_HEADERS} WHERE c.kind IN (?, ?) AND NOT EXISTS ({_KNOWN}) LIMIT ?",
            (FILE_KIND, LINK_KIND, limit),
        )
        return [index_rows.header(row) for row in rows]

    def headers(self) -> list[ChildHeader]:
        """All files and folders known, by id; HEADERS_MAX at most."""
        rows = self._database.execute(
            f"{_HEADERS} WHERE c.kind IN (?, 'Folder') GROUP BY c.entity_id"
            " ORDER BY c.entity_id LIMIT ?",
            (FILE_KIND, HEADERS_MAX),
        )
        return [index_rows.header(row) for row in rows]

    def folder_paths(self) -> dict[str, str]:
        """All folders known, with their paths below the location's own folder (`/`)."""
        rows = self._database.execute("SELECT entity_id, path FROM folders")
        return {index_rows.text(entity_id): index_rows.text(path) for entity_id, path in rows}

    def extent(self) -> Extent:
        """How much is known."""
        folders, listed = self._database.execute(
            "SELECT count(*), count(listed_unix_s) FROM folders"
        ).fetchone()
        files, known = self._database.execute(
            f"SELECT count(*), count(({_KNOWN})) FROM children c WHERE c.kind = ?",  # noqa: S608
            (FILE_KIND,),
        ).fetchone()
        return Extent(folders, listed, files, known)

    def differences(self, bucket: str, prefix: str) -> Differences:
        """Where the files known and the objects seen do not agree; means something only after an
        inventory. Of each kind at most DIFFERENCES_MAX are named."""
        current = (
            " FROM children c JOIN files f ON f.entity_id = c.entity_id AND f.version = c.version"
            " AND f.modified_unix_s = c.modified_unix_s LEFT JOIN objects o"
            " ON o.object_key = f.object_key"
            " WHERE f.bucket = ? AND substr(f.object_key, 1, ?) = ?"
        )
        inside = (bucket, len(prefix), prefix)
        counts = self._database.execute(
            "SELECT count(*) FILTER (WHERE o.object_key IS NULL),"
            f" count(*) FILTER (WHERE o.size_bytes <> f.size_bytes){current}",
            inside,
        ).fetchone()
        named = self._database.execute(
            "SELECT c.entity_id, c.name, f.object_key, f.size_bytes, o.size_bytes"
            f"{current} AND (o.object_key IS NULL OR o.size_bytes <> f.size_bytes) LIMIT ?",
            (*inside, DIFFERENCES_MAX),
        ).fetchall()
        (unregistered,) = self._database.execute(
            "SELECT count(*) FROM objects o WHERE NOT EXISTS"
            " (SELECT 1 FROM files f WHERE f.object_key = o.object_key)"
        ).fetchone()
        return Differences(
            counts[0], counts[1], unregistered, list(map(index_rows.difference, named))
        )

    def forget_folder(self, folder_id: str) -> None:
        """A folder that does not exist any more, or may not be listed: nobody asks for it again."""
        with self._database:
            self._forget_unlisted(self._forget(folder_id))

    def _write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        with self._database as database:
            database.executemany(statement, rows)


def _values(header: ChildHeader) -> tuple[object, ...]:
    name = header.name
    return (
        header.entity_id,
        name if name == _text(name) else name.encode("utf-8", "surrogatepass"),
        header.kind,
        header.version,
        header.created_unix_s,
        header.modified_unix_s,
        header.created_by,
        header.modified_by,
    )


def _text(name: str) -> str:
    """What SQLite takes as text: JSON may hold halves of characters."""
    return name.encode("utf-8", "replace").decode()
