"""`stsfs unmount`: take a mount away, and wait until its daemon is gone."""

from pathlib import Path

import click

from stsfs.cli import output
from stsfs.cli.path_type import MountedPath
from stsfs.cli.upload_progress import upload_progress
from stsfs.daemon import mountinfo
from stsfs.daemon import unmount as unmounting
from stsfs.daemon.config import format_size
from stsfs.errors import ChangesLeft

WAIT_S_DEFAULT = 10.0
TIMEOUT_S_DEFAULT = 60.0


@click.command()
@click.argument("path", type=MountedPath(path_type=Path))
@click.option("--lazy", is_flag=True, help="Detach now; open files can still be read to their end.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="S",
    default=WAIT_S_DEFAULT,
    show_default=True,
    help="How long to wait for open files to be closed, in seconds.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="S",
    default=TIMEOUT_S_DEFAULT,
    show_default=True,
    help="How long to wait for the daemon without progress, in seconds.",
)
def unmount(path: Path, lazy: bool, wait: float, timeout: float) -> None:
    """Unmount PATH, also when its daemon is dead. Waits until S3 has what was written."""
    told: list[str] = []

    def silent(sentence: str) -> None:
        told.append(sentence)
        output.warn(f"stsfs: {sentence}")

    with upload_progress() as uploading:
        left = unmounting.unmount(
            mountinfo.resolve(path),
            lazy=lazy,
            timeout_s=timeout,
            wait_s=wait,
            waiting=lambda sentence: output.warn(f"stsfs: {sentence} Waiting {wait:g} s."),
            silent=silent,
            uploading=uploading,
        )
    if left is None:
        return
    what = f"{left['files']} files ({format_size(left['left_bytes'])})"
    if lazy:
        then = "they are kept, see `stsfs recover`" if told else "the daemon goes on"
        output.warn(f"stsfs: {what} have not reached S3 yet; {then}:")
        for each in left["paths"]:
            output.warn_below(each)
        return
    raise ChangesLeft(
        f"{what} have not reached S3; they are kept.",
        remedy="See `stsfs recover`:",
        details=left["paths"],
    )
