"""Python's cyclic garbage collector, kept from stopping readers.

A collection of the oldest generation looks at every object, of which a long listing makes a
million: readers of cached bytes then wait for 0.1 s. Next to nothing here lives in cycles, so the
oldest generation can wait until nobody reads.
"""

import gc
from collections.abc import Callable

import trio

PERIOD_S = 10.0
BUSY_PERIODS_MAX = 60
"""Ten minutes without a pause: collect all the same."""


async def collect_when_idle(requests: Callable[[], int]) -> None:
    """Collect the oldest generation in periods without requests. requests counts them all."""
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 1_000_000)
    seen, busy = -1, 0
    while True:
        await trio.sleep(PERIOD_S)
        now = requests()
        if now == seen or busy >= BUSY_PERIODS_MAX:
            gc.collect()
            busy = 0
        else:
            busy += 1
        seen = now
