"""`stsfs status`: what a daemon says of itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stsfs.cli import output
from stsfs.cli.asking import ask_mount, choose
from stsfs.cli.path_type import MountedPath

if TYPE_CHECKING:
    from stsfs.cli.tables import Part


@click.command()
@click.argument("path", type=MountedPath(path_type=Path), required=False)
@click.option("--hidden", is_flag=True, help="What cannot be shown as files, and why.")
@click.option(
    "--differences", is_flag=True, help="Files whose object is missing or has another size."
)
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is, for scripts.")
def status(path: Path | None, hidden: bool, differences: bool, as_json: bool) -> None:
    """Show the state of the mount that PATH lies in.

    Without PATH it is the only mount, or the one of the working directory.
    """
    answer = ask_mount(choose(path), "status", hidden=hidden)
    if as_json:
        output.tell_json(answer)
    else:
        _print(answer, hidden=hidden, differences=differences)


def _print(answer: dict[str, Any], *, hidden: bool, differences: bool) -> None:
    from stsfs.cli import location_view, status_view

    parts: list[Part] = []
    if hidden:
        parts.append(status_view.hidden_entries(answer.get("hidden") or {}))
    if differences:
        parts += location_view.differences(answer)
    output.tell_parts(parts or status_view.sections(answer))
