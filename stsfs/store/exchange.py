"""A request that is made again until it succeeds, or until there is no point in going on."""

from collections.abc import Awaitable, Callable, Container, Mapping
from typing import NamedTuple, TypeVar

from stsfs.errors import DeadlineExceeded, StoreFailure
from stsfs.store import answers
from stsfs.store.answers import Answer, Meaning
from stsfs.store.counters import StoreCounters
from stsfs.store.http_connection import Connection, Head
from stsfs.store.http_pool import ConnectionPool
from stsfs.store.http_sending import OutgoingBody
from stsfs.store.http_wire import ConnectionBroken, TooSlow
from stsfs.store.range_transfer import whole
from stsfs.store.retry import Trouble

T = TypeVar("T")

_READ = {kind: {200, 206} for kind in ("get", "confirm", "traits")}
_MADE = {kind: {200} for kind in ("put", "begin", "part", "part_copy", "complete", "copy")}
_REMOVED = {kind: {200, 204} for kind in ("delete", "abort")}
DONE: Mapping[str, Container[int]] = {"list": {200}, **_READ, **_MADE, **_REMOVED}
"""With which status S3 says that a request of a kind is done; AWS removes with 204, others with
200. Any other status of success is somebody else's, and says nothing."""

_UNHEARD = {502, 504}
"""What a proxy says that has heard no answer itself."""


def ignored() -> None:
    """Nobody is interested."""


class Attempt(NamedTuple):
    """One try of a request: where it goes, and what is sent there."""

    pool: ConnectionPool
    request: Callable[[], bytes]
    """Head and empty line, made when there is a connection, because a signature has a time."""

    repair: Callable[[Answer], Awaitable[None]]
    """Puts right what an answer complains about; raises its error when that cannot be done."""

    body: OutgoingBody | None = None
    patience_s: float | None = None
    """How long the server may work before it answers; None: as for a read."""

    lost: Callable[[], None] = ignored
    """Told when the request went out, and no answer of S3 came: it may have been carried out, also
    where the connection was an old one that may have ended before."""


class ErrorInside(Exception):
    """What receive raises for an answer whose body tells of an error after all."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


async def exchange(
    kind: str,
    attempt: Callable[[], Awaitable[Attempt]],
    receive: Callable[[Connection, Head], Awaitable[T]],
    trouble: Trouble,
    counters: StoreCounters,
    *,
    ahead: bool = False,
) -> T:
    """What receive makes of the answer that says that it is done.

    Each try is a new attempt. Passing trouble is waited out here, all other answers are repaired
    by the attempt. Raises what attempt, receive, repair and Trouble.back_off raise, and
    StoreFailure for a success that is none of this kind's, and DeadlineExceeded for a server that
    takes a body too slowly.
    """
    count = counters.of(kind)
    fresh = False
    with count.failing():
        while True:
            pool, request, repair, body, patience_s, lost = await attempt()
            try:
                connection = await pool.take(ahead=ahead, fresh=fresh)
                in_doubt = True
                try:
                    count.requests += 1
                    head = await connection.ask(request(), body, patience_s=patience_s)
                    if head.status in DONE[kind]:
                        result = await receive(connection, head)
                        in_doubt = False
                        return result
                    if 200 <= head.status < 300:
                        raise StoreFailure(
                            f"The server answered {head.status} to {trouble.what}, which does not"
                            " say that it is done.",
                            remedy="Check the endpoint, and what lies between it and here.",
                        )
                    in_doubt = head.status in _UNHEARD
                    answer = _error(trouble.what, head, await whole(connection, head))
                except ErrorInside as inside:
                    in_doubt = False
                    answer = inside.answer
                finally:
                    if in_doubt:  # a cancellation included
                        lost()
                    pool.give_back(connection)
            except TooSlow as slow:
                raise DeadlineExceeded(f"Too slow: {trouble.what} ({slow}).") from slow
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


def _error(what: str, head: Head, body: bytes) -> Answer:
    with answers.understood(what):
        return answers.read(head, body)
