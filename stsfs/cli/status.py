"""`stsfs status`: what a daemon says of itself."""

import json
import os
from pathlib import Path
from typing import Any

import click

from stsfs.daemon import mountinfo, runtime_dir
from stsfs.daemon.control_client import ask
from stsfs.daemon.runtime_dir import KnownMount
from stsfs.errors import BadArgument, NoSuchMount

ANSWER_TIMEOUT_S = 10.0


@click.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is, for scripts.")
def status(path: Path | None, as_json: bool) -> None:
    """Show the state of the mount that PATH lies in.

    Without PATH it is the only mount, or the one of the working directory.
    """
    mount = choose(path)
    if mount.state == "dead":
        raise NoSuchMount(
            f"The daemon of {mount.record.mount_path} is dead.",
            remedy=f"Clear it away with `stsfs unmount {mount.record.mount_path}`"
            + (f"; its log: {mount.record.log_file}" if mount.record.log_file else "."),
        )
    answer = ask(mount.record.control_socket, "status", timeout_s=ANSWER_TIMEOUT_S)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        _print(answer)


def choose(path: Path | None) -> KnownMount:
    """The mount that is meant. Raises NoSuchMount, or BadArgument if it is not clear."""
    if path is not None:
        resolved = mountinfo.resolve(path)
        if (found := runtime_dir.find(resolved)) is None:
            raise NoSuchMount(f"{resolved} is not in a mount of stsfs.", remedy="See `stsfs list`.")
        return found
    known = runtime_dir.records()
    if not known:
        raise NoSuchMount("There is no mount.")
    if len(known) == 1:
        return known[0]
    here = runtime_dir.find(_working_directory())
    if here is None:
        paths = ", ".join(str(mount.record.mount_path) for mount in known)
        raise BadArgument("There are several mounts.", remedy=f"Name one: {paths}")
    return here


def _working_directory() -> Path:
    # The shell's own word also works where getcwd(2) fails, in a dead mount.
    try:
        return Path(os.getcwd())
    except OSError:
        return Path(os.environ.get("PWD", "/"))


def _print(answer: dict[str, Any]) -> None:
    from stsfs.cli.status_view import sections
    from stsfs.cli.tables import console

    screen = console()
    for number, section in enumerate(sections(answer)):
        if number:
            screen.print()
        screen.print(section)
