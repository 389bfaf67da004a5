"""The books of a soak's writers: what a ledger must ask for, and what it may leave open."""

import pytest

from tests.soak.books import ANYTHING, Book, Ledger, state_of

OLD, NEW = state_of(b"old"), state_of(b"new")


@pytest.fixture
def book(tmp_path):
    """A book in which `f` was written once."""
    made = Book(tmp_path / "book")
    made.begin("cp", {"f": OLD})
    made.end()
    yield made
    made.close()


@pytest.fixture
def ledger(tmp_path):
    return lambda: Ledger.of(tmp_path / "book")


def test_what_was_acknowledged_last_is_all_that_may_be_there(book, ledger):
    book.begin("cp", {"f": NEW})
    book.end()
    assert ledger().allowed["f"] == {NEW}
    assert ledger().ever["f"] == {None, OLD, NEW}


def test_what_was_refused_may_have_happened_until_something_else_is_acknowledged(book, ledger):
    book.begin("cp", {"f": NEW})
    book.end("EIO")
    assert ledger().allowed["f"] == {OLD, NEW}
    assert [each[:2] for each in ledger().refused] == [("cp", "EIO")]
    book.begin("delete", {"f": None})
    book.end()
    assert ledger().allowed["f"] == {None}


def test_what_has_no_end_may_have_happened(book, ledger):
    book.begin("cp", {"f": NEW})
    assert ledger().allowed["f"] == {OLD, NEW}


def test_one_name_of_a_rename_in_doubt_has_the_content(book, ledger):
    book.begin("rename", {"f": None, "g": OLD}, [("f", "g", OLD)])
    book.end("EIO")
    assert ledger().allowed == {"f": {OLD, None}, "g": {OLD, None}}
    assert ledger().moves_in_doubt == [("f", "g", OLD)]
    book.begin("cp", {"g": NEW})
    book.end()
    assert ledger().moves_in_doubt == []


def test_lines_are_asked_for_when_they_were_acknowledged(book, ledger):
    for line, errno in (("a", None), ("b", "ESTALE")):
        book.begin("log", {line: None})
        book.end(errno)
    assert ledger().lines == {"a": True, "b": False}
    assert set(ledger().allowed) == {"f"}


def test_bytes_that_were_not_written_are_wrong(book, ledger):
    book.begin("read", {"f": OLD})
    book.end(wrong="other bytes")
    (wrong,) = ledger().wrong
    assert "other bytes" in wrong
    assert ledger().allowed["f"] == {OLD}


def test_what_a_killed_program_leaves_is_open_until_the_file_is_written_again(book, ledger):
    book.begin("killed program", {"f": ANYTHING})
    book.end("SIGKILL")
    assert ANYTHING in ledger().allowed["f"]
    book.begin("cp", {"f": NEW})
    book.end()
    assert ledger().allowed["f"] == {NEW}
