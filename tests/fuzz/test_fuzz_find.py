"""Conditions of `stsfs find`, rows of a view that answer them, and reports of `stsfs verify`."""

from hypothesis import example, given
from hypothesis import strategies as st

from stsfs.daemon.finding import files_of_rows
from stsfs.daemon.notify import ServiceManager
from stsfs.entities.condition import FIELDS, Facts, parse
from stsfs.errors import BadArgument, SynapseUnavailable
from stsfs.synapse.records import TableRows
from stsfs.synapse.transport import parsed
from tests.fuzz.mutations import ODD_TEXTS, bounded, fuzz

WORDS = st.sampled_from([*FIELDS, "age", "annotation.x", "and", "has", "or", "=", "!=", "<", "<=",
    "~", "1GiB", "9" * 30 + "T", "9" * 5000, "1e999", "2024-05-31", "9999-12-31T23:59-23:59",
    "0001-01-01", "0001-01-01T00:00+23:59", "'a", '"', "'it''s'", "*[", "(" * 50])  # fmt: skip
FACTS = Facts(
    "n", "syn1", "file", 3, 5, "", "7", "7", 1.0, 2.0, {"age": ("3", "\u0663", "9" * 5000)}
)


@fuzz
@given(st.lists(WORDS | ODD_TEXTS, max_size=8).map(" ".join))
@example("size > " + "9" * 12 + "T")
@example("age = " + "9" * 30)
@example("modified_on = 9999-12-31T23:59-23:59")
def test_a_condition_is_answered_or_refused(text):
    with bounded():
        try:
            condition = parse(text)
        except BadArgument:
            return
        assert condition.matches(FACTS) in {True, False}
        condition.to_sql(
            "syn9", {"age": "STRING", "name": "STRING", "dataFileSizeBytes": "INTEGER"}
        )


COLUMNS = ("id", "name", "type", "parentId", "currentVersion", "dataFileSizeBytes")
CELLS = st.none() | ODD_TEXTS | st.sampled_from(["file", "syn1", "3"])


@fuzz
@given(st.lists(st.tuples(*[CELLS] * len(COLUMNS)), max_size=3), st.integers(0, len(COLUMNS)))
@example([("syn1", "n", "file", "syn2", "x", "5")], 6)
@example([("syn1", "n", "file", "\ud800", "1", "5")], 6)
@example([("syn1", "n", "file", "syn2", "1", "-5")], 6)
@example([("syn1", "n", "file", "syn2", "1", "5")], 3)
def test_rows_are_files_or_not_those_of_synapse(rows, columns):
    table = TableRows(COLUMNS[:columns], tuple(row[:columns] for row in rows))
    try:
        found, left_out = parsed(table, "a query", files_of_rows)
    except SynapseUnavailable:
        assert columns < len(COLUMNS)
        return
    assert len(found) + left_out <= len(rows)
    for parent_id, file in found:
        (parent_id + file.entity_id).encode("ascii")
        assert 0 <= (file.size_bytes or 0) < 2**63


@fuzz
@given(ODD_TEXTS, ODD_TEXTS | st.integers().map(str))
@example("@x", "9" * 400)
def test_a_service_manager_is_told_or_not(address, usec):
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": usec}
    manager = ServiceManager.from_environment(environ)
    assert manager.listens == bool(address)
