"""`stsfs refresh`: forget what is known of a path, so that the next look sees the bucket."""

import click

from stsfs.cli import output
from stsfs.cli.asking import ask_about, locate
from stsfs.cli.path_type import MountedPath
from stsfs.daemon.config import format_size


@click.command()
@click.argument("path", type=MountedPath())
@click.option("--json", "as_json", is_flag=True, help="What was dropped, for scripts.")
def refresh(path: str, as_json: bool) -> None:
    """Forget what is known of PATH: names, cached bytes, and what the kernel has of both.

    A directory is forgotten with everything below it. The next program that looks sees the bucket
    as it is. Files that are open stay with their version.
    """
    dropped = ask_about(locate(path), "refresh")
    if as_json:
        output.tell_json(dropped)
    else:
        output.tell(
            f"Forgotten: {_count(dropped['listings'], 'listing')},"
            f" {_count(dropped['kernel_entries'], 'name')} in the kernel,"
            f" {format_size(dropped['memory_bytes'])} in memory."
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
