"""Short work on the local disk: done on the spot as long as that is quick, else in a thread.

The way to a thread and back takes longer than to write 128 KiB into the page cache (measured: 270
against 40 µs, on a virtual machine). But a disk that is behind makes writers wait for a while, and
whoever reads from the cache must not wait with them.
"""

import resource
import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Args = TypeVarTuple("Args")

QUICK_BYTES_MAX = 256 * 1024
"""More than this is never done on the spot."""

SLOW_S = 0.002
"""What took longer counts as slow."""

CAUTION_FIRST_S, CAUTION_LAST_S = 2.0, 120.0
"""For so long after slow work all goes to threads; doubled each time it is soon slow again."""


def switches_of_thread() -> tuple[int, int]:
    """How often this thread has waited, and how often others have taken its processor."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_nvcsw, usage.ru_nivcsw


def _was_only_interrupted(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether time has passed because the processors are busy, with which a thread is no help."""
    return after[0] == before[0] and after[1] > before[1]


class LocalDisk:
    """Decides where work is done. One for all files of one staging directory."""

    def __init__(
        self,
        now_s: Callable[[], float] = time.perf_counter,
        switches: Callable[[], tuple[int, int]] = switches_of_thread,
    ) -> None:
        self._now_s, self._switches = now_s, switches
        self._careful_until_s = 0.0
        self._caution_s = CAUTION_FIRST_S

    async def run(self, size_bytes: int, call: Callable[[*Args], T], *args: *Args) -> T:
        """Make a call that blocks, and moves about so many bytes; a checkpoint."""
        if size_bytes > QUICK_BYTES_MAX or self._now_s() < self._careful_until_s:
            return await trio.to_thread.run_sync(call, *args)
        await trio.lowlevel.checkpoint()
        begun_s, before = self._now_s(), self._switches()
        try:
            return call(*args)
        finally:
            ended_s = self._now_s()
            if ended_s - begun_s > SLOW_S and not _was_only_interrupted(before, self._switches()):
                self._be_careful(begun_s, ended_s)

    def _be_careful(self, begun_s: float, ended_s: float) -> None:
        if begun_s - self._careful_until_s > self._caution_s:
            self._caution_s = CAUTION_FIRST_S  # it was quick for long
        else:
            self._caution_s = min(2 * self._caution_s, CAUTION_LAST_S)
        self._careful_until_s = ended_s + self._caution_s
