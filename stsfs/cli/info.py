"""`stsfs info`: the object behind a path, and how much of it is cached."""

import click

from stsfs.cli import output
from stsfs.cli.asking import ask_about, locate
from stsfs.cli.path_type import MountedPath


@click.command()
@click.argument("path", type=MountedPath())
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is, for scripts.")
def info(path: str, as_json: bool) -> None:
    """Show the object behind PATH: key, ETag, size, storage class, time, what is cached of it."""
    place = locate(path)
    answer = ask_about(place, "info")
    answer["mount_path"] = str(place.mount.record.mount_path)
    if as_json:
        output.tell_json(answer)
        return
    from stsfs.cli.path_view import description

    output.tell_parts([description(answer)])
