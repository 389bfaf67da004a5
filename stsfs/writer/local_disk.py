"""Short work on the local disk: done on the spot as long as that is quick, else in a thread.

The way to a thread and back takes longer than to write 128 KiB into the page cache (measured: 270
against 40 µs, on a virtual machine). But a disk that is behind makes writers wait for a while, and
whoever reads from the cache must not wait with them.
"""

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


class LocalDisk:
    """Decides where work is done. One for all files of one staging directory."""

    def __init__(self, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._now_s = now_s
        self._careful_until_s = 0.0
        self._caution_s = CAUTION_FIRST_S

    async def run(self, size_bytes: int, call: Callable[[*Args], T], *args: *Args) -> T:
        """Make a call that blocks, and moves about so many bytes; a checkpoint."""
        if size_bytes > QUICK_BYTES_MAX or self._now_s() < self._careful_until_s:
            return await trio.to_thread.run_sync(call, *args)
        await trio.lowlevel.checkpoint()
        begun_s = self._now_s()
        try:
            return call(*args)
        finally:
            self._learn(begun_s, self._now_s())

    def _learn(self, begun_s: float, ended_s: float) -> None:
        if ended_s - begun_s <= SLOW_S:
            return
        if begun_s - self._careful_until_s > self._caution_s:
            self._caution_s = CAUTION_FIRST_S  # it was quick for long
        else:
            self._caution_s = min(2 * self._caution_s, CAUTION_LAST_S)
        self._careful_until_s = ended_s + self._caution_s
