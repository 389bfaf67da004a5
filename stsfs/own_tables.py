"""What a SQLite file of ours may hold: the tables and indexes of its program, and nothing else.

A file may have been copied or planted. Triggers and views in it, defaults and checks of columns
are programs: SQLite runs them for whoever uses the tables, and they need not end.
"""

import functools
import sqlite3

_Entry = tuple[bytes, ...]
"""Kind, name, table, and the statement that makes it, empty for what SQLite makes by itself. Bytes:
in a file that somebody else has made they need not be text."""


class ForeignSchema(sqlite3.DatabaseError):
    """A database holds what this program has not made."""


def check_tables(database: sqlite3.Connection, schema: str) -> None:
    """Raise ForeignSchema for a database with anything but what the statements of schema make.

    To be called before anything else is asked of a database; it may hold a part of that, or
    nothing. Raises sqlite3.Error, too.
    """
    database.execute("PRAGMA trusted_schema = OFF")
    if surplus := _entries(database) - _made_by(schema):
        kind, name = (each.decode("utf-8", "replace") for each in min(surplus)[:2])
        raise ForeignSchema(f"the {kind} {name!r} in it is none of ours")


@functools.cache
def _made_by(schema: str) -> frozenset[_Entry]:
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(schema)
        return _entries(database)
    finally:
        database.close()


def _entries(database: sqlite3.Connection) -> frozenset[_Entry]:
    rows = database.execute(
        "SELECT CAST(type AS BLOB), CAST(name AS BLOB), CAST(tbl_name AS BLOB), CAST(sql AS BLOB) "
        "FROM sqlite_master"
    )
    # Spaces and ends of lines are no difference.
    return frozenset(tuple(b" ".join((text or b"").split()) for text in row) for row in rows)
