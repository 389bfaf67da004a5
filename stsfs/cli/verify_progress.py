"""How far `stsfs verify` is: a bar on stderr for a person who waits, nothing for a script."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Protocol


class Meter(Protocol):
    """Told what was found, what was read and what is done; from any thread."""

    def found(self, size_bytes: int) -> None:
        """One more file, of this size."""

    def read(self, count_bytes: int) -> None:
        """So many bytes were read."""

    def done(self) -> None:
        """One file is done."""


class Silent:
    """Where nobody looks."""

    def found(self, size_bytes: int) -> None:
        """See Meter."""

    def read(self, count_bytes: int) -> None:
        """See Meter."""

    def done(self) -> None:
        """See Meter."""


@contextlib.contextmanager
def meter() -> Iterator[Meter]:
    """A bar while the block runs, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    bar = _Bar()
    with bar.progress:
        yield bar


class _Bar:
    """Files and bytes; totals grow while directories are still being walked."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        # What is printed goes above the bar. But not if stdout is a pipe: it must reach that.
        self.progress = progress.Progress(
            progress.TextColumn("{task.fields[files]} of {task.fields[files_found]} files"),
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            redirect_stdout=sys.stdout.isatty(),
            transient=True,
        )
        self._task = self.progress.add_task("", total=0, files=0, files_found=0)
        self._lock = threading.Lock()
        self._bytes = self._files = self._files_found = 0

    def found(self, size_bytes: int) -> None:
        with self._lock:
            self._bytes += size_bytes
            self._files_found += 1
            self.progress.update(self._task, total=self._bytes, files_found=self._files_found)

    def read(self, count_bytes: int) -> None:
        self.progress.advance(self._task, count_bytes)

    def done(self) -> None:
        with self._lock:
            self._files += 1
            self.progress.update(self._task, files=self._files)
