"""`stsfs pin`: the state of a location as a lock file."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stsfs.cli import output
from stsfs.cli.location_options import location_options
from stsfs.cli.path_type import OwnPath
from stsfs.daemon.config import PlaceOptions, format_size
from stsfs.daemon.core_dumps import keep_memory_out_of_core_files

if TYPE_CHECKING:
    from stsfs.daemon.pinning import Pinned

LEFT_OUT_SHOWN = 20


@click.command()
@click.argument("location")
@click.option(
    "--view",
    type=click.Choice(["auto", "keys", "entities"]),
    default="auto",
    show_default=True,
    help="What is pinned of a Synapse location: its keys, or its folders and files.",
)
@click.option("--index-view", metavar="SYN", help="An entity view that covers the folder.")
@click.option("--as-of", metavar="DATE", help="Pin the versions of that day (entities view).")
@click.option(
    "--skip-unreadable",
    is_flag=True,
    help="Leave out files that cannot be read, instead of writing nothing.",
)
@click.option(
    "--output",
    "output_path",
    type=OwnPath(is_directory=False),
    help="Write to this file, in one step.  [default: stdout]",
)
@location_options
def pin(location: str, skip_unreadable: bool, output_path: Path | None, **options: Any) -> None:
    """Write down which version of which file LOCATION has now (syn12345 or s3://bucket/prefix).

    The lock file that comes out can be mounted like a location, by everyone with access:

        stsfs pin syn12345 > data.lock

        stsfs mount data.lock DIR
    """
    keep_memory_out_of_core_files()
    wanted = place_options(location, **options)
    # Imported late: event loop, SDKs, the whole program.
    import trio

    from stsfs.cli.walk_progress import walk_progress
    from stsfs.daemon import pinning
    from stsfs.entities.lock_file import render

    with walk_progress() as told:

        async def run() -> pinning.Pinned:
            return await pinning.pin(wanted, told, skip_unreadable=skip_unreadable)

        pinned = trio.run(run)
    if output_path is None:
        # As it is, whatever the locale: a lock is UTF-8.
        output.tell_data(line.removesuffix("\n").encode() for line in render(pinned.lock))
    else:
        pinning.write_lock(output_path, pinned.lock)
    for line in _summary(pinned):
        output.warn(line)


def place_options(location: str, **options: Any) -> PlaceOptions:
    """The typed form of the options of pin and find. Raises BadArgument."""
    return PlaceOptions(
        locations=(location,),
        metadata_ttl_s=0.0,  # what the index was told before is not how it is now
        view=options["view"],
        index_view=options["index_view"],
        as_of=options["as_of"],
        endpoint_url=options["endpoint_url"],
        region=options["region"],
        aws_profile=options["profile"],
        token_file=options["token_file"],
        synapse_profile=options["synapse_profile"],
        synapse_endpoint=options["synapse_endpoint"],
        whole_bucket=options["whole_bucket"],
    )


def _summary(pinned: "Pinned") -> Iterator[str]:
    """What was pinned, and what was not."""
    text = f"pinned {_files(len(pinned.lock.files))}, {format_size(pinned.size_bytes)}"
    if pinned.left_out:
        text += f"; left out {_files(len(pinned.left_out))} that cannot be read"
    if pinned.hidden:
        text += f"; {pinned.hidden} hidden, as in a mount (see `stsfs status --hidden`)"
    yield f"stsfs: {text}"
    for path in sorted(pinned.left_out)[:LEFT_OUT_SHOWN]:
        yield f"left out: {path}: {pinned.left_out[path].sentence}"
    more = len(pinned.left_out) - LEFT_OUT_SHOWN
    if more > 0:
        yield f"and {more} more"
    for path in pinned.other_size[:LEFT_OUT_SHOWN]:
        yield f"pinned as it lies in the bucket, of another size than Synapse knows: {path}"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
