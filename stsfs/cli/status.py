"""`stsfs status`: what a daemon says of itself."""

import json
from pathlib import Path
from typing import Any

import click

from stsfs.cli.asking import ask_mount, choose


@click.command()
@click.argument("path", type=click.Path(readable=False, path_type=Path), required=False)
@click.option("--hidden", is_flag=True, help="The keys that cannot be shown as files, and why.")
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is, for scripts.")
def status(path: Path | None, hidden: bool, as_json: bool) -> None:
    """Show the state of the mount that PATH lies in.

    Without PATH it is the only mount, or the one of the working directory.
    """
    answer = ask_mount(choose(path), "status", hidden=hidden)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        _print(answer, hidden=hidden)


def _print(answer: dict[str, Any], *, hidden: bool) -> None:
    from stsfs.cli.status_view import hidden_keys, sections
    from stsfs.cli.tables import console

    screen = console()
    if hidden:
        screen.print(hidden_keys(answer.get("hidden") or {}))
        return
    for number, section in enumerate(sections(answer)):
        if number:
            screen.print()
        screen.print(section)
