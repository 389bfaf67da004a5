"""A range on its way into runs: what the store writes to, and what readers wait on."""

from collections.abc import Sequence

import trio

from stsfs.cache.content import Run
from stsfs.errors import StsfsError


class Fill:
    """RangeSink over runs that lie end to end.

    Takes over one pin of each run's block, and undoes it with the run's last byte or at the end.
    Runs become readable byte by byte as they arrive, not when the range is complete.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.settled = trio.Event()
        """Whether the version is confirmed is known, or the fetch has ended without an answer."""

        self.was_confirmed = False
        self.error: StsfsError | None = None
        self.scope = trio.CancelScope()
        self._index = 0

    @property
    def start(self) -> int:
        """First byte of the range."""
        return self.runs[0].start

    @property
    def stop(self) -> int:
        """End of the range."""
        return self.runs[-1].stop

    @property
    def ended(self) -> bool:
        """Nothing more will arrive."""
        return self._index == len(self.runs)

    @property
    def missing_from(self) -> int:
        """The first byte that has not arrived."""
        if self._index == len(self.runs):
            return self.stop
        return self.runs[self._index].arrived_stop

    def confirmed(self) -> None:
        """See RangeSink."""
        self.was_confirmed = True
        self.settled.set()

    def buffer(self) -> memoryview:
        """See RangeSink."""
        return self.runs[self._index].memory()

    def received(self, count_bytes: int) -> None:
        """See RangeSink."""
        run = self.runs[self._index]
        run.advance(count_bytes)
        if run.arrived_stop == run.stop:
            self._index += 1
            run.block.unpin()

    def end(self, error: StsfsError | None = None) -> None:
        """No more bytes: runs that are not complete give up what is missing. Not a checkpoint."""
        self.error = error
        unfinished = self.runs[self._index :]
        self._index = len(self.runs)
        for run in unfinished:
            run.cut(error)
            run.block.unpin()
        self.settled.set()

    def abandon(self) -> None:
        """Stop fetching, unless somebody waits for it."""
        if not any(run.awaited for run in self.runs[self._index :]):
            self.scope.cancel()
