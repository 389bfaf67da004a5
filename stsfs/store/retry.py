"""How often, and how long, a request is tried again."""

import random
from collections.abc import Callable

import trio

from stsfs.errors import DeadlineExceeded, StoreFailure

FAILURES_MAX = 10
"""In a row, without one byte of progress. With the delays below: at least 8 s of trying."""

_DELAY_FIRST_S = 0.05
_DELAY_MAX_S = 5.0


class Trouble:
    """The failures of one request so far, and what they allow.

    Progress (a byte that arrived, or left for the first time) forgives what came before, so that a
    long range over a bad connection ends only when nothing moves any more.
    """

    def __init__(self, what: str, *, deadline_s: float) -> None:
        self.what = what
        self._deadline_s = deadline_s
        self._since_s = trio.current_time()
        self._failures = 0
        self._repairs = 0

    def progress(self) -> None:
        """Bytes arrived. Not a checkpoint."""
        self._failures = 0
        self._since_s = trio.current_time()

    def moving(self, spent_s: float) -> None:
        """Bytes left that had been sent before: time well spent, but no reason to forgive."""
        self._since_s += spent_s

    def may_repair(self) -> bool:
        """Whether the request may go out again at once, after what was wrong has been put right.

        Three times: a token that ended, a region and a clock that were wrong.
        """
        self._repairs += 1
        return self._repairs <= 3

    async def back_off(
        self, reason: str, jitter: Callable[[float, float], float] = random.uniform
    ) -> None:
        """Wait before the next try. Raises StoreFailure or DeadlineExceeded when it is enough."""
        self._failures += 1
        waited_s = trio.current_time() - self._since_s
        if waited_s >= self._deadline_s:
            raise DeadlineExceeded(
                f"No progress within {self._deadline_s:g} s: {self.what} ({reason})."
            )
        if self._failures >= FAILURES_MAX:
            raise StoreFailure(f"Failed {self._failures} times: {self.what} ({reason}).")
        ceiling_s = min(_DELAY_MAX_S, _DELAY_FIRST_S * 2**self._failures)
        delay_s = jitter(ceiling_s / 2, ceiling_s)
        await trio.sleep(min(delay_s, self._deadline_s - waited_s))
