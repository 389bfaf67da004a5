"""How fast we may ask: the server's own limits, kept on our side.

Synapse allows 3 concurrent requests and 600 requests per 60 s for each user, session and host
(`UserConcurrentConnectionThrottler`, `UserRequestFrequencyThrottler` of the server); beyond that
it answers 429 without saying for how long.

The server counts a request when it arrives, of which we know only that it is after it was sent
and before it is answered. A request therefore counts here from the first moment to a full window
after its answer, and whatever the server sees in one window, we have seen in one too.

Two classes of requests share the limits. Somebody waits for those of the foreground, nobody for
those of the background, which fill an index:

- they hold 2 of the 3 places at most, and take none while the foreground waits, so that the
  foreground waits for the end of one request at most;
- they make 540 of the 600 requests of a window at most, so that 60 stay for the foreground even
  while an index fills for an hour, which costs that filling a tenth of its speed;
- 270 of them may come at once, enough for any single folder that is looked at; from then on they
  are spread, so that places in the window become free steadily instead of once a minute.

Half of a window may come as fast as it will. Beyond that the rest is spread over the time until
places become free, so that nobody waits for most of a minute, and then everybody.

Within a class the users of a mount take turns: one who asks for thousands of entities keeps the
others waiting for one request.
"""

import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from stsfs.store.shares import Turns

CONCURRENT_REQUESTS_MAX = 3
REQUESTS_MAX = 600
WINDOW_S = 61.0
"""One second more than the server's, lest its clock and ours run differently."""

ABANDONED_S = 0.5
"""How long the server is taken to work on a request of which we await no answer any more."""

_BACKGROUND_PLACES_KEPT_FREE = 1
_BACKGROUND_SHARE = 0.9
_BACKGROUND_BURST_SHARE = 0.45
_FREE_SHARE = 0.5


class _Lane:
    """The requests of one class that count at present."""

    def __init__(self) -> None:
        self.waiting = 0
        self.running = 0
        self.last_start_s = -math.inf
        self.abandoned_until_s: deque[float] = deque()
        """When each place of an abandoned request is free again."""

        self.counted_until_s: deque[float] = deque()
        """When each request that has ended leaves the window; nearly in order, see `end`."""

        self.turns = Turns()
        """Only the first of those who wait looks at the clock; users of the mount take turns."""

    @property
    def places(self) -> int:
        """How many places of the server the class holds."""
        return self.running + len(self.abandoned_until_s)

    @property
    def count(self) -> int:
        """How many requests of the class the window holds."""
        return self.running + len(self.counted_until_s)

    def start(self, now_s: float) -> None:
        """A request is sent."""
        self.running += 1
        self.last_start_s = now_s

    def end(self, now_s: float, window_s: float, *, abandoned: bool) -> None:
        """Its answer was read, or is not awaited any more."""
        self.running -= 1
        until_s = now_s
        if abandoned:
            until_s += ABANDONED_S
            self.abandoned_until_s.append(until_s)
        # Behind an abandoned one others leave that much too late, which is the safe side.
        self.counted_until_s.append(until_s + window_s)

    def forget(self, now_s: float) -> None:
        """Drop what counts no more."""
        for ends_s in (self.abandoned_until_s, self.counted_until_s):
            while ends_s and ends_s[0] <= now_s:
                ends_s.popleft()


class Pace:
    """Admits requests: so many at a time, and so many in any window of time."""

    def __init__(
        self,
        *,
        concurrent_max: int = CONCURRENT_REQUESTS_MAX,
        requests_max: int = REQUESTS_MAX,
        window_s: float = WINDOW_S,
    ) -> None:
        self._concurrent_max = concurrent_max
        self._requests_max = requests_max
        self._window_s = window_s
        self._background_places_max = max(1, concurrent_max - _BACKGROUND_PLACES_KEPT_FREE)
        self._background_max = math.ceil(requests_max * _BACKGROUND_SHARE)
        self._burst_max = math.ceil(requests_max * _BACKGROUND_BURST_SHARE)
        self._free_max = math.ceil(requests_max * _FREE_SHARE)
        self._foreground = _Lane()
        self._background = _Lane()
        self._changed = trio.Event()
        """Set, and replaced, when a request ends or the foreground has stopped waiting."""

    @asynccontextmanager
    async def request(self, *, background: bool = False) -> AsyncIterator[None]:
        """Hold one place while a request runs. Entering is a checkpoint, and may wait."""
        lane = self._background if background else self._foreground
        await self._admit(lane)
        abandoned = False
        try:
            yield
        except trio.Cancelled:
            abandoned = True
            raise
        finally:
            lane.end(trio.current_time(), self._window_s, abandoned=abandoned)
            self._notify()

    async def _admit(self, lane: _Lane) -> None:
        """Wait for our turn within the class, then for the limits."""
        lane.waiting += 1
        try:
            async with lane.turns.turn():
                while (opens_s := self._opens_s(lane)) > trio.current_time():
                    with trio.move_on_at(opens_s):
                        await self._changed.wait()
                lane.start(trio.current_time())
        finally:
            lane.waiting -= 1
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _opens_s(self, lane: _Lane) -> float:
        """Return when a request of this class may start; infinity until something changes."""
        now_s = trio.current_time()
        both = (self._foreground, self._background)
        for each in both:
            each.forget(now_s)
        opens_s = now_s
        if sum(each.places for each in both) >= self._concurrent_max:
            opens_s = max(opens_s, min(_first(each.abandoned_until_s) for each in both))
        count = sum(each.count for each in both)
        next_free_s = min(_first(each.counted_until_s) for each in both)
        if count >= self._requests_max:
            opens_s = max(opens_s, next_free_s)
        elif count >= self._free_max and next_free_s < math.inf:
            # What is left has to last until the window frees the next place.
            last_s = max(each.last_start_s for each in both)
            opens_s = max(opens_s, last_s + (next_free_s - last_s) / (self._requests_max - count))
        if lane is self._background:
            opens_s = max(opens_s, self._background_opens_s())
        return opens_s

    def _background_opens_s(self) -> float:
        lane = self._background
        if self._foreground.waiting:
            return math.inf
        opens_s = -math.inf
        if lane.places >= self._background_places_max:
            opens_s = _first(lane.abandoned_until_s)
        if lane.count >= self._background_max:
            opens_s = max(opens_s, _first(lane.counted_until_s))
        elif lane.count >= self._burst_max:
            opens_s = max(opens_s, lane.last_start_s + self._window_s / self._background_max)
        return opens_s


def _first(times_s: deque[float]) -> float:
    return times_s[0] if times_s else math.inf
