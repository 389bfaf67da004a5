"""`stsfs list`: every mount of this user."""

import json
from typing import Any

import click

from stsfs.daemon import runtime_dir
from stsfs.daemon.runtime_dir import KnownMount


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array, for scripts.")
def list_mounts(as_json: bool) -> None:
    """List mounts, with the state of their daemons."""
    known = runtime_dir.records()
    if as_json:
        click.echo(json.dumps([_row(mount) for mount in known], indent=2))
    elif known:
        _print_table(known)
    else:
        click.echo("No mounts.", err=True)


def _row(mount: KnownMount) -> dict[str, Any]:
    return {**mount.record.to_json(), "state": mount.state}


def _print_table(known: list[KnownMount]) -> None:
    from stsfs.cli.tables import console, grid, printable

    table = grid("location", "path", "pid", "state")
    for mount in known:
        record, path = mount.record, printable(str(mount.record.mount_path))
        hint = f"  (stsfs unmount {path})" if mount.state == "dead" else ""
        table.add_row(printable(record.location), path, str(record.pid), f"{mount.state}{hint}")
    console().print(table)
