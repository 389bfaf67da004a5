"""The index of a cache directory: one SQLite database, shared by all mounts that use it.

What it holds may have been copied there: every value is checked where it is read.
"""

import math
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stsfs.cache.disk.layout import (
    CHUNK_BYTES,
    DIGEST_BYTES,
    GRAINS_PER_CHUNK,
    HELD_BYTES,
    VERSION_BYTES,
)
from stsfs.own_tables import check_tables
from stsfs.values import SIZE_BYTES_MAX

NUMBER_MAX = SIZE_BYTES_MAX // CHUNK_BYTES
UNIX_S_MAX = 253_402_000_000
"""The year 9999: what can be shown as a date."""

VALUE_BYTES_MAX = 64 * 1024
"""Of one value, and of a statement; the longest that are written have 4 KiB."""

BUSY_TIMEOUT_S = 5.0
"""For another mount's transaction: longer, and its disk is too slow to wait for."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS chunk (
    version      BLOB NOT NULL,
    number       INTEGER NOT NULL,
    held         BLOB NOT NULL,
    digests      BLOB NOT NULL,
    stored_bytes INTEGER NOT NULL,
    used_unix_s  INTEGER NOT NULL,
    UNIQUE (version, number)
);
CREATE INDEX IF NOT EXISTS chunk_by_use ON chunk (used_unix_s, stored_bytes);
"""


class DamagedIndex(sqlite3.DatabaseError):
    """A row is not what this program writes."""


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """What is known of one chunk: which grains are there, and their checksums."""

    held: int
    digests: bytes
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """What all chunks of a directory come to."""

    chunks: int
    versions: int
    stored_bytes: int
    oldest_use_unix_s: int | None


EMPTY_ROW = ChunkRow(0, bytes(GRAINS_PER_CHUNK * DIGEST_BYTES))


class Index:
    """One connection; used by one thread at a time. Every method may raise sqlite3.Error.

    Readers never wait for writers (write-ahead log), writers wait for each other.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction that changes something; undone when the block raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # SQLite itself undoes what a full disk ended
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def held(self, version: bytes) -> dict[int, int]:
        """The bitmaps of all chunks of a version."""
        rows = self._connection.execute(
            "SELECT number, held FROM chunk WHERE version = ?", (version,)
        )
        return {
            _integer(number, NUMBER_MAX): int.from_bytes(_blob(held, HELD_BYTES), "little")
            for number, held in rows
        }

    def chunk(self, version: bytes, number: int) -> ChunkRow | None:
        """One chunk, if anything of it is there."""
        row = self._connection.execute(
            "SELECT held, digests, stored_bytes FROM chunk WHERE version = ? AND number = ?",
            (version, number),
        ).fetchone()
        if row is None:
            return None
        digests = _blob(row[1], len(EMPTY_ROW.digests)).ljust(len(EMPTY_ROW.digests), b"\0")
        held = int.from_bytes(_blob(row[0], HELD_BYTES), "little")
        return ChunkRow(held, digests, _integer(row[2], SIZE_BYTES_MAX))

    def put(self, version: bytes, number: int, row: ChunkRow) -> None:
        """Write one chunk's row, as used just now."""
        self._connection.execute(
            "INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (version, number) DO UPDATE "
            "SET held = excluded.held, digests = excluded.digests, "
            "stored_bytes = excluded.stored_bytes, used_unix_s = excluded.used_unix_s",
            (
                version,
                number,
                row.held.to_bytes(HELD_BYTES, "little").rstrip(b"\0"),
                row.digests.rstrip(b"\0"),  # small objects are many, and need little of it
                row.stored_bytes,
                int(time.time()),
            ),
        )

    def remove(self, version: bytes, number: int) -> None:
        """Forget one chunk."""
        self._connection.execute(
            "DELETE FROM chunk WHERE version = ? AND number = ?", (version, number)
        )

    def remove_all(self) -> None:
        """Forget every chunk."""
        self._connection.execute("DELETE FROM chunk")

    def touch(self, chunks: Iterable[tuple[bytes, int]]) -> None:
        """Note that chunks have been read just now."""
        now_s = int(time.time())
        self._connection.executemany(
            "UPDATE chunk SET used_unix_s = ? WHERE version = ? AND number = ?",
            [(now_s, version, number) for version, number in chunks],
        )

    def least_recently_used(self, count: int) -> Sequence[tuple[bytes, int, int]]:
        """(version, number, stored bytes) of the count chunks that were not used for longest."""
        rows = self._connection.execute(
            "SELECT version, number, stored_bytes FROM chunk ORDER BY used_unix_s LIMIT ?",
            (count,),
        )
        return [
            (_version(version), _integer(number, NUMBER_MAX), _integer(stored, SIZE_BYTES_MAX))
            for version, number, stored in rows
        ]

    def stored_bytes(self) -> int:
        """What all chunks hold."""
        (total,) = self._connection.execute("SELECT TOTAL(stored_bytes) FROM chunk").fetchone()
        return _total(total)

    def totals(self) -> Totals:
        """For people who ask."""
        chunks, versions, stored_bytes, oldest = self._connection.execute(
            "SELECT COUNT(*), COUNT(DISTINCT version), TOTAL(stored_bytes), MIN(used_unix_s) "
            "FROM chunk"
        ).fetchone()
        oldest = None if oldest is None else _integer(oldest, UNIX_S_MAX)
        return Totals(chunks, versions, _total(stored_bytes), oldest)

    def _prepare(self) -> None:
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
        check_tables(self._connection, _SCHEMA)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # A crash of the machine may cost the last transactions, never the database.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        for statement in _SCHEMA.split(";"):
            self._connection.execute(statement)


def _blob(value: object, bytes_max: int) -> bytes:
    if not isinstance(value, bytes) or len(value) > bytes_max:
        raise _damaged()
    return value


def _version(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != VERSION_BYTES:
        raise _damaged()  # it becomes the name of a file
    return value


def _integer(value: object, most: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= most:
        raise _damaged()
    return value


def _total(value: object) -> int:
    if not isinstance(value, float) or not math.isfinite(value) or value < 0:
        raise _damaged()
    return int(value)


def _damaged() -> DamagedIndex:
    return DamagedIndex("the index is damaged")
