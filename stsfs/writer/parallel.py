"""Several requests at a time, for what is made of many."""

from collections.abc import Awaitable, Callable, Iterable

import trio

from stsfs.errors import StsfsError

Call = Callable[[], Awaitable[object]]


async def work_off(calls: Iterable[Call], *, at_once: int) -> None:
    """Make all calls, so many at a time; calls are taken only when it is their turn.

    The first StsfsError breaks the others off, and is raised as it is.
    """
    waiting = iter(calls)
    failures: list[StsfsError] = []
    async with trio.open_nursery() as nursery:

        async def work() -> None:
            try:
                for call in waiting:
                    await call()
            except StsfsError as exc:
                failures.append(exc)
                nursery.cancel_scope.cancel()

        for _ in range(at_once):
            nursery.start_soon(work)
    if failures:
        raise failures[0]
