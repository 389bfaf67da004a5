"""The file of an index: its tables, and what is done about one that is damaged. Blocks."""

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

from stsfs.own_tables import check_tables
from stsfs.owned_dir import OwnedDir, foreign

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the tables; an index of another format is begun anew."""

APPLICATION_ID = 0x73747366
"""In the header of an index (application_id): other databases are left alone."""

DAMAGED_SUFFIX = ".damaged"
BUSY_TIMEOUT_S = 5.0
_ENDS = ("", "-wal", "-shm", "-journal")
_TABLES = {"meta", "folders", "children", "files", "objects"}

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE folders (
    entity_id TEXT PRIMARY KEY, listed_unix_s REAL, path TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE children (
    parent_id TEXT NOT NULL, place INTEGER NOT NULL, entity_id TEXT NOT NULL, name TEXT NOT NULL,
    kind TEXT NOT NULL, version INTEGER NOT NULL, created_unix_s REAL NOT NULL,
    modified_unix_s REAL NOT NULL, created_by TEXT NOT NULL, modified_by TEXT NOT NULL,
    PRIMARY KEY (parent_id, place)) WITHOUT ROWID;
CREATE INDEX children_by_id ON children (entity_id);
CREATE TABLE files (
    entity_id TEXT NOT NULL, version INTEGER NOT NULL, modified_unix_s REAL NOT NULL,
    handle_id TEXT NOT NULL, bucket TEXT NOT NULL, object_key TEXT NOT NULL, size_bytes INTEGER,
    md5 TEXT NOT NULL, created_unix_s REAL, unreadable TEXT NOT NULL, annotations TEXT,
    link_target TEXT NOT NULL, PRIMARY KEY (entity_id, version, modified_unix_s)) WITHOUT ROWID;
CREATE TABLE objects (
    object_key TEXT PRIMARY KEY, etag TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    modified_unix_s REAL NOT NULL, storage_class TEXT NOT NULL, seen_unix_s REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX files_by_object ON files (object_key);
"""


def opened(path: Path) -> sqlite3.Connection:
    """Open or make an index; one that is damaged is put aside and begun anew.

    Raises OSError, or sqlite3.Error, where nothing can be kept there, and ForeignPath where others
    own or can exchange it, or where it is a database of another program.
    """
    with OwnedDir.open(path.parent, create=True, follow=True) as directory:
        for end in _ENDS:
            directory.check_file(path.name + end)
        with contextlib.suppress(FileExistsError):
            os.close(directory.create_file(path.name))  # SQLite would let others read it
    try:
        return _connected(path)
    # The message of an error may quote a name in the file that is not text.
    except (sqlite3.DatabaseError, UnicodeDecodeError) as exc:
        if isinstance(exc, sqlite3.OperationalError):
            raise  # busy, or no room: not a reason to throw it away
        log.warning("the index %s is damaged (%s) and is begun anew", path, exc)
        # Nobody knows what is in it: only one that was an index when it was opened is deleted.
        path.rename(path.with_name(path.name + DAMAGED_SUFFIX))
        remove(path)
        return _connected(path)


def remove(path: Path) -> None:
    """Delete an index, with what SQLite keeps beside it. Raises OSError."""
    for each in (path, *(path.with_name(f"{path.name}{end}") for end in _ENDS[1:])):
        each.unlink(missing_ok=True)


def in_memory() -> sqlite3.Connection:
    """An index that ends with the process."""
    return _with_tables(sqlite3.connect(":memory:", check_same_thread=False))


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        _check_ours(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        return _with_tables(database)
    except BaseException:
        database.close()
        raise


def _check_ours(database: sqlite3.Connection, path: Path) -> None:
    """Raise ForeignPath for a database that holds something and is no index, of any format."""
    (application_id,) = database.execute("PRAGMA application_id").fetchone()
    found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    tables = {name for (name,) in found if not name.startswith("sqlite_")}
    # The first ones had no application_id.
    if application_id != APPLICATION_ID and (application_id or tables not in (set(), _TABLES)):
        raise foreign(path, "is a database of another program")


def _with_tables(database: sqlite3.Connection) -> sqlite3.Connection:
    """Make the tables unless they are there; those of another format are replaced."""
    database.execute("BEGIN IMMEDIATE")
    with database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == FORMAT:
            check_tables(database, _SCHEMA)
            return database
        found = database.execute(
            "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view')"
        ).fetchall()
        for kind, name in found:
            quoted = name.replace('"', '""')
            database.execute(f'DROP {kind} "{quoted}"')
        for statement in _SCHEMA.split(";"):
            database.execute(statement)
        check_tables(database, _SCHEMA)
        database.execute(f"PRAGMA user_version = {FORMAT}")
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    return database
