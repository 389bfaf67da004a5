"""`stsfs find`: the files of a location for which a condition is true."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from stsfs.cli import output
from stsfs.cli.asking import ask_mount, locate
from stsfs.cli.location_options import location_options
from stsfs.cli.pin import place_options
from stsfs.daemon import locks
from stsfs.daemon.config import PlaceOptions
from stsfs.daemon.core_dumps import keep_memory_out_of_core_files
from stsfs.entities.condition import parse

if TYPE_CHECKING:
    from stsfs.daemon.finding import FoundFile


@dataclass(frozen=True, slots=True)
class _Part:
    """One location to be searched, and how its paths are printed."""

    options: PlaceOptions
    below: str = ""
    """Only what begins so is meant: empty, or a directory with its slash."""

    shown: str = ""
    """What stands in place of `below`."""


@click.command()
@click.argument("location")
@click.argument("condition")
@click.option("--index-view", metavar="SYN", help="An entity view to be asked in one query.")
@click.option("-0", "--print0", is_flag=True, help="End each path with NUL, for xargs -0.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@location_options
def find(location: str, condition: str, print0: bool, as_json: bool, **options: Any) -> None:
    """Print the paths of files for which CONDITION is true, such as 'tissue = blood'.

    LOCATION is a Synapse id, s3://bucket/prefix, a lock file, or a directory in a mount. CONDITION
    compares fields and annotations, joined by `and`:

        stsfs find syn12345 'tissue = blood and size > 1GiB and name ~ *.bam'

    Fields: name, id, type, version, size, md5, created_by, modified_by, created_on, modified_on.
    Operators: = != < <= > >= ~ (a pattern), and `has NAME`.
    """
    wanted = parse(condition)
    keep_memory_out_of_core_files()
    parts = list(_parts(location, options))
    # Imported late: event loop, SDKs, the whole program.
    import trio

    from stsfs.cli.walk_progress import walk_progress
    from stsfs.daemon import finding

    found: list[FoundFile] = []
    with walk_progress() as told:
        for part in parts:

            async def run(part: _Part = part) -> "list[FoundFile]":
                return await finding.find(part.options, wanted, told, _say, complete=as_json)

            found += [
                replace(each, path=part.shown + each.path[len(part.below) :])
                for each in trio.run(run)
                if each.path.startswith(part.below)
            ]
    if not found:
        _say("Nothing was found.")
    if as_json:
        output.tell_json({"files": [_json(each) for each in found]})
        return
    output.tell_data((_bytes(each.path) for each in found), end=b"\0" if print0 else b"\n")


def _bytes(path: str) -> bytes:
    """A path as the kernel has it, whatever the locale."""
    return path.encode("utf-8", "surrogateescape")


def _say(sentence: str) -> None:
    output.warn(f"stsfs: {sentence}")


def _json(found: "FoundFile") -> dict[str, object]:
    return {
        "path": found.path,
        "id": found.entity_id or None,
        "version": found.version,
        "size_bytes": found.size_bytes,
        "md5": found.md5 or None,
    }


def _parts(location: str, options: dict[str, Any]) -> Iterator[_Part]:
    """What is to be searched: a location, or those of the mount that a directory lies in."""
    if not os.path.isdir(location) or locks.is_location(location):
        yield _Part(place_options(location, view="auto", as_of=None, **options))
        return
    place = locate(location)
    status = ask_mount(place.mount, "status")
    inner = os.path.normpath(f"/{place.inner}").strip("/")
    below = f"{inner}/" if inner else ""
    typed = location.rstrip("/") + "/"
    for each in status["locations"]:
        at = f"{each['path'].strip('/')}/".lstrip("/")
        if not (at.startswith(below) or below.startswith(at)):
            continue
        is_keys = each["view"] == "keys" and not each["label"].startswith("s3://")
        yield _Part(
            place_options(
                each["label"],
                view="keys" if is_keys else "auto",
                as_of=status["as_of"],
                **options,
            ),
            below.removeprefix(at) if below.startswith(at) else "",
            typed + (at.removeprefix(below) if at.startswith(below) else ""),
        )
