"""How far the uploads of a mount that ends are: a bar on stderr for a person, else a line."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from stsfs.cli import output
from stsfs.daemon.config import format_size
from stsfs.daemon.unmount import Unsaved


@contextlib.contextmanager
def upload_progress() -> Iterator[Callable[[Unsaved], None]]:
    """What is to be told of what is left, again and again."""
    if not sys.stderr.isatty():
        yield _Told()
        return
    from rich import progress as bars
    from rich.console import Console

    bar = bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("uploading", total=None, visible=False)

    def told(left: Unsaved) -> None:
        bar.update(
            task,
            description=f"uploading {left['files']:d} files",
            completed=left["sent_bytes"],
            total=left["sent_bytes"] + left["left_bytes"],
            visible=True,
        )

    with bar:
        yield told


class _Told:
    """Says once that there is something to wait for."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, left: Unsaved) -> None:
        if not self._said:
            self._said = True
            size = format_size(left["left_bytes"])
            output.warn(f"stsfs: uploading {left['files']} files ({size})")
