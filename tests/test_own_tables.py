"""A SQLite file of ours holds the tables of its program; everything else in it is foreign."""

import sqlite3

import pytest

from stsfs.own_tables import ForeignSchema, check_tables

SCHEMA = """
CREATE TABLE IF NOT EXISTS a (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE
);
CREATE INDEX IF NOT EXISTS a_by_name ON a (name, id);
CREATE TABLE b (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""


@pytest.fixture
def database():
    made = sqlite3.connect(":memory:", isolation_level=None)
    yield made
    made.close()


@pytest.mark.parametrize("made", ["", "CREATE TABLE b (id TEXT PRIMARY KEY)\n WITHOUT ROWID",
                                  SCHEMA])  # fmt: skip
def test_all_of_the_schema_a_part_of_it_or_nothing_is_ours(database, made):
    database.executescript(made)
    check_tables(database, SCHEMA)


@pytest.mark.parametrize(
    "more",
    [
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; END",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE b; CREATE VIEW b AS SELECT 1 AS id",
        "CREATE TABLE c (id)",
        "CREATE INDEX more ON a (id)",
        "ALTER TABLE a ADD COLUMN more DEFAULT (abs(1))",
        "DROP TABLE b; CREATE TABLE b (id TEXT PRIMARY KEY CHECK (abs(id))) WITHOUT ROWID",
        "DROP INDEX a_by_name; CREATE INDEX a_by_name ON a (name, id) WHERE id > 1",
    ],
)
def test_whatever_else_is_there_is_foreign(database, more):
    database.executescript(SCHEMA)
    database.executescript(more)
    with pytest.raises(ForeignSchema, match="none of ours"):
        check_tables(database, SCHEMA)


@pytest.mark.parametrize("column", ["type", "name", "tbl_name", "sql"])
def test_what_is_no_text_is_foreign(database, column):
    database.executescript(SCHEMA)
    database.execute("PRAGMA writable_schema = ON")
    database.execute(f"UPDATE sqlite_master SET {column} = CAST(x'ff' AS TEXT) WHERE name = 'b'")
    with pytest.raises(ForeignSchema, match="none of ours"):
        check_tables(database, SCHEMA)
