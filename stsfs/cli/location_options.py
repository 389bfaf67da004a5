"""The options that say where the data are and who asks, for every command that takes a LOCATION."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

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
