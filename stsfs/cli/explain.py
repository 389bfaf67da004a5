"""`stsfs explain`: what a path in a mount is, and why it can or cannot be read or changed."""

import errno
import os
from typing import Any

import click

from stsfs.cli import output
from stsfs.cli.asking import ask_about, dead_remedy, dead_sentence, locate
from stsfs.cli.path_type import MountedPath
from stsfs.daemon.runtime_dir import KnownMount


@click.command()
@click.argument("path", type=MountedPath())
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is, for scripts.")
def explain(path: str, as_json: bool) -> None:
    """Say what PATH is, what was last refused there, and what the rules answer.

    PATH need not exist; it may be the text of a key that no file name can show.
    """
    place = locate(path)
    answer = _of_dead(place.mount, place.inner) if place.mount.state == "dead" else None
    if answer is None:
        answer = ask_about(place, "explain")
    answer["mount_path"] = str(place.mount.record.mount_path)
    if as_json:
        output.tell_json(answer)
        return
    from stsfs.cli.path_view import explanation

    output.tell_parts([explanation(answer)])


def _of_dead(mount: KnownMount, inner: str) -> dict[str, Any]:
    """The answer for a daemon that can give none: the kernel refuses everything."""
    refused = {
        "allowed": False,
        "errno": errno.errorcode[errno.ENOTCONN],
        "sentence": dead_sentence(mount),
        "remedy": dead_remedy(mount),
    }
    return {
        "path": os.path.normpath(f"/{inner}"),
        "kind": "unknown",
        "what": f"Not known. {dead_sentence(mount)}",
        "key": None,
        "uri": None,
        "size_bytes": None,
        "storage_class": None,
        "read": refused,
        "change": refused,
        "last_refusal": None,
        "known": None,
        "credentials": None,
    }
