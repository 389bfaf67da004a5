"""The rows of the attribute index: one SQLite database, shared by all mounts of a user."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from stsfs.own_tables import ForeignSchema, check_tables
from stsfs.owned_dir import foreign
from stsfs.values import MODE_MAX

BUSY_TIMEOUT_S = 5.0
"""For another mount's transaction: longer, and its disk is too slow to wait for."""

FORMAT = 1
SURPLUS_SHARE = 10
"""One row in so many goes when there are too many, so that not every change has to look."""

Location = tuple[str, str | None]
"""URI, and endpoint URL; None for AWS."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS location (
    id       INTEGER PRIMARY KEY,
    uri      TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    UNIQUE (uri, endpoint)
);
CREATE TABLE IF NOT EXISTS attribute (
    age       INTEGER PRIMARY KEY AUTOINCREMENT,
    location  INTEGER NOT NULL,
    directory BLOB NOT NULL,
    name      BLOB NOT NULL,
    etag      TEXT NOT NULL,
    mode      INTEGER,
    mtime_ns  INTEGER,
    UNIQUE (location, directory, name)
);
CREATE TABLE IF NOT EXISTS journal (
    id   TEXT PRIMARY KEY,
    done INTEGER NOT NULL,
    age  INTEGER NOT NULL
);
"""

DATABASE_SUFFIXES = ("", "-wal", "-shm", "-journal")
"""Of the database, and of what SQLite keeps beside it."""

_TABLES = {"location", "attribute", "journal"}
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DamagedIndex(sqlite3.DatabaseError):
    """A row is not what this program writes."""


class Attributes(NamedTuple):
    """What was set here of one version of an object."""

    etag: str
    """Of the version that is meant: the row says nothing about another one."""

    mode: int | None
    """Permission bits; None: nobody has set them."""

    mtime_ns: int | None


class AttributeRows:
    """One connection; used by one thread at a time. Every method may raise sqlite3.Error.

    Making it raises ForeignPath, too, for a database of another program.

    A key lies in the directory that its name (`name` or `name/`) is shown in, and the rows of a
    directory lie side by side: one question answers for a page of it, whatever lies below.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._locations: dict[Location, int] = {}
        with contextlib.suppress(FileExistsError):
            # Closed to others from the first moment. One that is there must not even be opened
            # here: to close a file gives up the locks that SQLite has on it in this process.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._identity = _identity(path)
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    @property
    def is_current(self) -> bool:
        """Whether the file is still the one at the path: another mount may have begun it anew."""
        return self._identity is not None and self._identity == _identity(self._path)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction that changes something; undone when the block raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite itself undoes what a full disk ended
                self._connection.execute("ROLLBACK")
            self._locations.clear()
            raise

    def of_keys(self, location: Location, first_key: str, last_key: str) -> dict[str, Attributes]:
        """The rows from the first to the last key, both in one directory."""
        directory, first = _parted(first_key)
        last = _parted(last_key)[1]
        number = self._number(location)
        if number is None:
            return {}
        rows = self._connection.execute(
            "SELECT name, etag, mode, mtime_ns FROM attribute "
            "WHERE location = ? AND directory = ? AND name BETWEEN ? AND ?",
            (number, directory, first, last),
        )
        above = _text(directory)
        return {above + _text(name): _attributes(rest) for name, *rest in rows}

    def put(self, location: Location, key: str, attributes: Attributes) -> None:
        """Set the row of a key; it is the youngest then."""
        number = self._number(location, make=True)
        self._connection.execute(
            "INSERT OR REPLACE INTO attribute (location, directory, name, etag, mode, mtime_ns) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (number, *_parted(key), *attributes),
        )

    def forget(self, location: Location, key: str) -> None:
        """Remove the row of a key."""
        self._connection.execute(
            "DELETE FROM attribute WHERE location = ? AND directory = ? AND name = ?",
            (self._number(location), *_parted(key)),
        )

    def move(self, location: Location, old_key: str, new_key: str, new_etag: str) -> None:
        """Give the row of a key another key and ETag; what was at the new key goes."""
        number = self._number(location)
        self.forget(location, new_key)
        self._connection.execute(
            "UPDATE attribute SET directory = ?, name = ?, etag = ? "
            "WHERE location = ? AND directory = ? AND name = ?",
            (*_parted(new_key), new_etag, number, *_parted(old_key)),
        )

    def move_prefix(self, location: Location, old_prefix: str, new_prefix: str) -> None:
        """Give all rows below `old/`, and its own, keys below `new/`; what was there goes.

        Neither prefix begins with the other.
        """
        number, old, new = self._number(location), _blob(old_prefix), _blob(new_prefix)
        assert old.endswith(b"/")
        assert new.endswith(b"/")
        # `0` is what follows `/` in the order of bytes.
        self._connection.execute(
            "DELETE FROM attribute WHERE location = ? AND directory >= ? AND directory < ?",
            (number, new, new[:-1] + b"0"),
        )
        directories = self._connection.execute(
            "SELECT DISTINCT directory FROM attribute "
            "WHERE location = ? AND directory >= ? AND directory < ?",
            (number, old, old[:-1] + b"0"),
        ).fetchall()
        self._connection.executemany(
            "UPDATE attribute SET directory = ? WHERE location = ? AND directory = ?",
            [(new + directory[len(old) :], number, directory) for (directory,) in directories],
        )
        self.forget(location, new_prefix)
        self._connection.execute(
            "UPDATE attribute SET directory = ?, name = ? "
            "WHERE location = ? AND directory = ? AND name = ?",
            (*_parted(new_prefix), number, *_parted(old_prefix)),
        )

    @property
    def age(self) -> int:
        """The number of the youngest row that there ever was; ages only grow."""
        row = self._connection.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'attribute'"
        ).fetchone()
        return 0 if row is None else int(row[0])

    def age_of(self, location: Location, key: str) -> int:
        """That of the row of a key; 0 if it has none."""
        row = self._connection.execute(
            "SELECT age FROM attribute WHERE location = ? AND directory = ? AND name = ?",
            (self._number(location), *_parted(key)),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def done_of(self, journal_id: str) -> tuple[int, int] | None:
        """The number of the last change of a journal that was done, and the age at that time."""
        row = self._connection.execute(
            "SELECT done, age FROM journal WHERE id = ?", (journal_id,)
        ).fetchone()
        return None if row is None else (int(row[0]), int(row[1]))

    def note_done(self, journal_id: str, number: int) -> None:
        """Note how far a journal was done, at the end of the transaction that does it."""
        self._connection.execute(
            "INSERT OR REPLACE INTO journal VALUES (?, ?, ?)", (journal_id, number, self.age)
        )

    def forget_journal(self, journal_id: str) -> None:
        """Forget a journal that is gone."""
        self._connection.execute("DELETE FROM journal WHERE id = ?", (journal_id,))

    def drop_oldest(self, rows_max: int) -> None:
        """Remove the rows that were set longest ago, where there are more than rows_max."""
        (count,) = self._connection.execute("SELECT COUNT(*) FROM attribute").fetchone()
        if count > rows_max:
            surplus = count - rows_max + rows_max // SURPLUS_SHARE
            self._connection.execute(
                "DELETE FROM attribute WHERE age IN "
                "(SELECT age FROM attribute ORDER BY age LIMIT ?)",
                (surplus,),
            )

    def _number(self, location: Location, *, make: bool = False) -> int | None:
        if location in self._locations:
            return self._locations[location]
        key = (location[0], location[1] or "")
        if make:
            self._connection.execute(
                "INSERT OR IGNORE INTO location (uri, endpoint) VALUES (?, ?)", key
            )
        row = self._connection.execute(
            "SELECT id FROM location WHERE uri = ? AND endpoint = ?", key
        ).fetchone()
        if row is None:
            return None
        self._locations[location] = int(row[0])
        return int(row[0])

    def _prepare(self) -> None:
        found = self._connection.execute("SELECT name, type FROM sqlite_master").fetchall()
        tables = {name for name, kind in found if kind == "table" and name[:7] != "sqlite_"}
        if not tables <= _TABLES or (found and not tables):
            raise foreign(self._path, "is a database of another program")
        check_tables(self._connection, _SCHEMA)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # A crash of the machine may cost the last transactions, never the database.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        for statement in _SCHEMA.split(";"):
            self._connection.execute(statement)


def remove_database(path: Path) -> None:
    """Remove a database and what SQLite keeps beside it. Raises OSError."""
    for suffix in DATABASE_SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def is_broken(exc: BaseException) -> bool:
    """Whether an error says that the file is no database, or one without sense."""
    # The low byte is the kind of an extended result code.
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    # The message of an error may quote a name in the file that is not text.
    is_foreign = isinstance(exc, DamagedIndex | ForeignSchema | UnicodeDecodeError)
    return is_foreign or code in _BROKEN


def directory_of(key: str) -> str:
    """The directory that shows a key: `a/` of `a/b` and of `a/b/`."""
    return key[: key.rfind("/", 0, max(0, len(key) - 1)) + 1]


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _parted(key: str) -> tuple[bytes, bytes]:
    """The directory that shows a key, and its name there: `a/`, `b` of `a/b`; `a/`, `b/`."""
    directory = directory_of(key)
    return _blob(directory), _blob(key[len(directory) :])


def _blob(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode("utf-8", "surrogatepass")
    raise DamagedIndex("the attribute index is damaged")


def _attributes(values: list[object]) -> Attributes:
    match values:
        case [str(etag), int() | None as mode, int() | None as mtime_ns] if (
            mode is None or 0 <= mode <= MODE_MAX
        ):
            return Attributes(etag, mode, mtime_ns)
    raise DamagedIndex("the attribute index is damaged")
