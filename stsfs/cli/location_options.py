"""Where the data are and who asks: the options of every command that takes a LOCATION."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from stsfs.daemon import locks

_Command = TypeVar("_Command", bound=Callable[..., Any])

_FILE = click.Path(dir_okay=False, resolve_path=True, path_type=Path)

_OPTIONS = (
    click.option("--endpoint-url", metavar="URL", help="An S3 service other than AWS."),
    click.option("--region", help="Region of the bucket.  [default: found out]"),
    click.option("--profile", help="AWS profile for s3:// locations."),
    click.option("--token-file", type=_FILE, help="File with a Synapse access token."),
    click.option("--synapse-profile", help="Profile in ~/.synapseConfig."),
    click.option("--synapse-endpoint", metavar="URL", help="A Synapse other than the public one."),
    click.option(
        "--whole-bucket", is_flag=True, help="Accept credentials that cover a whole bucket."
    ),
)


def location_options(command: _Command) -> _Command:
    """Give a command these options, in this order; a decorator."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def locations_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The locations in arguments, each of which may hold several: `syn1,syn2,s3://bucket/prefix`.

    A line of fstab has one field for all of them. A comma may also belong to a prefix or to the
    name of a lock file: a text is parted only where each part by itself is a location.
    """
    found: list[str] = []
    for text in texts:
        parts = text.split(",")
        if locks.lock_path(text) is not None or not all(map(_is_location, parts)):
            parts = [text]
        found += map(locks.absolute, parts)
    return tuple(found)


def _is_location(text: str) -> bool:
    return locks.is_location(text) or locks.lock_path(text) is not None
