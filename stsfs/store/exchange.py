"""A request that is made again until it succeeds, or until there is no point in going on."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from stsfs.store import answers
from stsfs.store.answers import Answer, Meaning
from stsfs.store.counters import StoreCounters
from stsfs.store.http_connection import Connection, ConnectionBroken, Head
from stsfs.store.http_pool import ConnectionPool
from stsfs.store.range_transfer import whole
from stsfs.store.retry import Trouble

T = TypeVar("T")


class Attempt(NamedTuple):
    """One try of a request: where it goes, and what is sent there."""

    pool: ConnectionPool
    request: Callable[[], bytes]
    """Made when there is a connection, because a signature has a time."""

    repair: Callable[[Answer], Awaitable[None]]
    """Puts right what an answer complains about; raises its error when that cannot be done."""


async def exchange(
    kind: str,
    attempt: Callable[[], Awaitable[Attempt]],
    receive: Callable[[Connection, Head], Awaitable[T]],
    trouble: Trouble,
    counters: StoreCounters,
    *,
    ahead: bool = False,
) -> T:
    """What receive makes of the answer with status 200 or 206.

    Each try is a new attempt. Passing trouble is waited out here, all other answers are repaired
    by the attempt. Raises what attempt, receive, repair and Trouble.back_off raise.
    """
    count = counters.of(kind)
    fresh = False
    with count.failing():
        while True:
            pool, request, repair = await attempt()
            try:
                connection = await pool.take(ahead=ahead, fresh=fresh)
                try:
                    count.requests += 1
                    head = await connection.ask(request())
                    if head.status in {200, 206}:
                        return await receive(connection, head)
                    answer = answers.read(head, await whole(connection, head))
                finally:
                    pool.give_back(connection)
            except ConnectionBroken as broken:
                fresh = broken.unused
                if not fresh:
                    await trouble.back_off(str(broken))
            else:
                fresh = False
                if answer.meaning is Meaning.RETRY:
                    counters.throttled += answer.status in {429, 503}
                    await trouble.back_off(f"{answer.status} {answer.code}")
                else:
                    await repair(answer)
            count.retries += 1
