"""Plain tables for terminals and pipes; the only place that imports rich."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_COLUMNS = 200
"""Where there is no terminal, lines are for grep: long rather than wrapped."""


def console() -> Console:
    """Where tables are printed: stdout, without markup, so that paths stay as they are."""
    plain = Console(markup=False, highlight=False, emoji=False)
    if not plain.is_terminal:
        plain.width = PIPE_COLUMNS
    return plain


def grid(*columns: str) -> Table:
    """An empty table with a header."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def fields(rows: dict[str, str]) -> Table:
    """Names and their values, aligned, without a header."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(printable(value)))
    return table


def printable(text: str) -> str:
    """The text with control characters written out: keys may hold anything, terminals obey."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )
