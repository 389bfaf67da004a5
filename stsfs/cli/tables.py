"""Parts of what commands show: lines and plain tables, for terminals and pipes.

Whatever text they are given is shown with its control characters written out.
"""

from collections.abc import Collection, Mapping
from typing import TypeAlias

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from stsfs.shown import shown

PIPE_COLUMNS = 200
"""Where there is no terminal, lines are for grep: long rather than wrapped."""

Part: TypeAlias = "Line | Grid | Fields | Stack"


class Line:
    """One line of text."""

    def __init__(self, text: str = "", style: str = "") -> None:
        self._text = Text(shown(text), style=style)

    def __rich__(self) -> RenderableType:
        return self._text


class Grid:
    """A table with a header."""

    def __init__(self, *columns: str, right: Collection[str] = ()) -> None:
        """Make an empty one; `right` are the columns of numbers."""
        self._table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            self._table.add_column(
                Text(shown(column)),
                overflow="fold",
                justify="right" if column in right else "left",
            )

    def add_row(self, *cells: str) -> None:
        """Add a row at the end."""
        self._table.add_row(*(Text(shown(cell)) for cell in cells))

    def __rich__(self) -> RenderableType:
        return self._table


class Fields:
    """Names and their values, aligned, without a header."""

    def __init__(self, rows: Mapping[str, str]) -> None:
        self._table = Table.grid(padding=(0, 2))
        self._table.add_column(style="bold", no_wrap=True)
        self._table.add_column(overflow="fold")
        for name, value in rows.items():
            self._table.add_row(Text(shown(name)), Text(shown(value)))

    def __rich__(self) -> RenderableType:
        return self._table


class Stack:
    """Parts below each other."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts

    def __rich__(self) -> RenderableType:
        return Group(*self._parts)


def console() -> Console:
    """Where parts are printed: stdout, without markup, so that paths stay as they are."""
    plain = Console(markup=False, highlight=False, emoji=False)
    if not plain.is_terminal:
        plain.width = PIPE_COLUMNS
    return plain
