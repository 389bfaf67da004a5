"""How a mount writes: the options of `stsfs mount` that mean nothing without --rw."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from stsfs.cli.path_type import OwnPath
from stsfs.daemon.config import RENAME_LIMIT_DEFAULT

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--rw", is_flag=True, help="Mount for writing."),
    click.option(
        "--staging-dir",
        type=OwnPath(is_directory=True),
        help="Where written bytes wait for S3, on a local disk.  [default: see README]",
    ),
    click.option(
        "--fsync",
        type=click.Choice(["local", "s3"]),
        default="local",
        show_default=True,
        help="What fsync(2) waits for: the local disk, or S3.",
    ),
    click.option(
        "--conditional-writes",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Let S3 refuse to overwrite what another client changed. auto: if it can.",
    ),
    click.option(
        "--acl",
        metavar="NAME",
        help="Canned ACL of new objects.  [default: what Synapse asks for, else none]",
    ),
    click.option(
        "--rename-limit",
        type=int,
        metavar="N",
        default=RENAME_LIMIT_DEFAULT,
        show_default=True,
        help="Objects that the rename of a directory may move.",
    ),
)


def write_options(command: _Command) -> _Command:
    """Give a command these options, in this order; a decorator."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
