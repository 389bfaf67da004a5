"""Several requests at a time, for what is made of many."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import trio

Call = Callable[[], Awaitable[object]]


async def work_off(calls: Iterable[Call], workers: int) -> None:
    """Make all calls, so many at a time. The first error ends it, and is raised as it is.

    A nursery would raise a group, which nobody catches who waits for errors of Synapse.
    """
    waiting = deque(calls)
    failures: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def work() -> None:
            try:
                while waiting:
                    await waiting.popleft()()
            except Exception as exc:  # noqa: BLE001  # raised below
                failures.append(exc)
                nursery.cancel_scope.cancel()

        for _ in range(min(workers, len(waiting))):
            nursery.start_soon(work)
    if failures:
        raise failures[0]
