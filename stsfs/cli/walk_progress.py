"""How far a walk through a location is: a bar on stderr for a person, nothing for a script."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from stsfs.entities.walk import Progress


@contextlib.contextmanager
def walk_progress() -> Iterator[Callable[[Progress], None]]:
    """What is to be told of each step; it draws a bar where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich import progress as bars
    from rich.console import Console

    bar = bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("looking", total=None)

    def told(walk: Progress) -> None:
        if walk.folders_done < walk.folders or not walk.files_done:
            text = f"{walk.files} files found in"
            bar.update(task, description=text, completed=walk.folders_done, total=walk.folders)
        else:
            bar.update(task, description="files", completed=walk.files_done, total=walk.files)

    with bar:
        yield told
