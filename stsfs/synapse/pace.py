"""How fast we may ask: the server's own limits, kept on our side.

Synapse allows 3 concurrent requests and 600 requests per 60 s for each user, session and host
(`UserConcurrentConnectionThrottler`, `UserRequestFrequencyThrottler` of the server); beyond that
it answers 429 without saying for how long.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

CONCURRENT_REQUESTS_MAX = 3
REQUESTS_MAX = 600
WINDOW_S = 60.0


class Pace:
    """Admits requests: so many at a time, and so many in any window of time."""

    def __init__(
        self,
        *,
        concurrent_max: int = CONCURRENT_REQUESTS_MAX,
        requests_max: int = REQUESTS_MAX,
        window_s: float = WINDOW_S,
    ) -> None:
        self._slots = trio.CapacityLimiter(concurrent_max)
        self._requests_max = requests_max
        self._window_s = window_s
        self._ends_s: deque[float] = deque()
        """When each admitted request leaves the window, on trio's clock."""

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Hold one place while a request runs. Entering is a checkpoint, and may wait."""
        async with self._slots:
            while not self._admit(trio.current_time()):  # noqa: ASYNC110 - only time opens it
                await trio.sleep_until(self._ends_s[0])
            yield

    def _admit(self, now_s: float) -> bool:
        while self._ends_s and self._ends_s[0] <= now_s:
            self._ends_s.popleft()
        if len(self._ends_s) >= self._requests_max:
            return False
        self._ends_s.append(now_s + self._window_s)
        return True
