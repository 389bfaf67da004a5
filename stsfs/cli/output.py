"""All that commands print passes here, because most of it comes from outside.

Words for people are shown in one line each, with control characters written out (`stsfs.shown`),
also where they go to a file: somebody will look at it on a terminal. Data for programs, such as
the paths of `find`, are exact in a pipe or a file, and shown in the same way on a terminal. JSON is
ASCII and needs nothing. Tables are made of parts (`stsfs.cli.tables`) that show their text so.
"""

import json
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from stsfs.shown import shown, shown_below

if TYPE_CHECKING:
    from stsfs.cli.tables import Part


def tell(text: str) -> None:
    """Print one line to stdout."""
    click.echo(shown(text))


def warn(text: str) -> None:
    """Print one line to stderr."""
    click.echo(shown(text), err=True)


def warn_below(text: str) -> None:
    """Print several lines to stderr, indented: what belongs to a line of `warn`."""
    click.echo(shown_below(text), err=True)


def tell_json(value: Any) -> None:
    """Print a value to stdout as JSON, which holds every text exactly."""
    # DEL is the one control character that JSON may hold as it is.
    click.echo(json.dumps(value, indent=2).replace("\x7f", "\\u007f"))


def tell_parts(parts: Iterable["Part"]) -> None:
    """Print tables and lines to stdout, with an empty line between any two."""
    from stsfs.cli.tables import console  # slow to import

    screen = console()
    for number, part in enumerate(parts):
        if number:
            screen.print()
        screen.print(part)


def tell_data(lines: Iterable[bytes], end: bytes = b"\n") -> None:
    """Print data to stdout, exactly; on a terminal one shown line each."""
    if sys.stdout.isatty():
        for line in lines:
            tell(os.fsdecode(line))
        return
    sys.stdout.buffer.writelines(line + end for line in lines)
    sys.stdout.buffer.flush()


def tell_text(text: str) -> None:
    """Print text of several lines to stdout, exactly; on a terminal one shown line each."""
    if sys.stdout.isatty():
        for line in text.removesuffix("\n").split("\n"):
            tell(line)
        return
    click.echo(text, nl=not text.endswith("\n"))


def presentable(exc: click.ClickException) -> click.ClickException:
    """An error that click prints by itself, with its words as they can be shown."""
    texts = ("message", "ui_filename")  # final for those who check types; all that it prints
    vars(exc).update({name: shown(vars(exc)[name]) for name in texts if name in vars(exc)})
    return exc
