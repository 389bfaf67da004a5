"""The tasks in which pyfuse3 reads and handles requests, and what an error in one of them ends.

`pyfuse3.main` gives up when one of its tasks meets an error, and returns when the handlers of all
others have ended, which takes as long as the longest upload; nobody is answered meanwhile. So it
gets nurseries of ours, in which a task that met an error goes on. They are handed over the way
`pyfuse3.asyncio` does it: pyfuse3 looks up `trio` among its own globals whenever it needs it.
"""

import contextlib
import ctypes
import errno
import functools
import logging
import select
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pyfuse3
import trio

from stsfs import supervisor

log = logging.getLogger(__name__)

WORKERS_MAX = (1 << 31) - 1
"""Requests handled at the same time: no limit, because pyfuse3 stops reading at one.

Then nobody is answered, the service manager's watchdog included, until one of the slow requests
ends. Each request is waited for by a thread of its caller, which takes more memory than the task
here (about 20 KiB), but for the MAX_BACKGROUND requests of the kernel itself.
"""

CROWD = 32
"""Tasks beyond which each gets another buffer after every request.

A buffer has 1 MiB and a page, of which a task keeps what its largest request has touched. With few
tasks this is quicker than to allocate anew; but thousands that wait for S3 must not keep a write
each.
"""

MALLOC_MMAP_BYTES = (1 << 20) + 1024
"""More than the bytes object of the largest write, and less than a buffer of libfuse."""

MALLOC_TRIM_BYTES = 16 << 20
"""Free memory at the end of the heap that stays there. To set the other bound fixes this one, too,
at 128 KiB: then each body of a write is given back, and its pages are made anew for the next."""

MALLOC_ARENAS = 1
"""Heaps. glibc gives each thread its own, and each of them would keep as much free memory; threads
of Python rarely allocate at the same time."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h

PASSING = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""What reading a request may meet on a machine that is short of something for a while."""

Loop = Callable[..., Awaitable[None]]


@contextlib.contextmanager
def workers() -> Iterator[None]:
    """Within this, `pyfuse3.main` uses nurseries of ours."""
    before = pyfuse3.trio  # type: ignore[attr-defined]
    pyfuse3.trio = _Trio()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        pyfuse3.trio = before  # type: ignore[attr-defined]


def limit_heap() -> None:
    """Let the memory of libfuse's buffers be that of the system again as soon as they are freed,
    and keep all else in one heap. To be called before there are threads.

    Otherwise glibc learns from the first one that is freed to take them from its heap, where
    they come with what others have touched. Another libc has no such setting, and no such habit.
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, MALLOC_MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, MALLOC_TRIM_BYTES)
        mallopt(_M_ARENA_MAX, MALLOC_ARENAS)


@dataclass(slots=True)
class _State:
    """Of one task that runs pyfuse3's loop."""

    siblings: "_Workers"
    has_read: bool = False
    """Since the loop began: its buffer has been used."""

    begins_anew: bool = False


_STATE: ContextVar[_State] = ContextVar("_STATE")


class _Trio:
    """What pyfuse3 takes for the module trio."""

    def __init__(self) -> None:
        self.lowlevel = _Lowlevel()

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    @contextlib.asynccontextmanager
    async def open_nursery(self) -> AsyncIterator["_Workers"]:
        """The nursery of one call of `pyfuse3.main`."""
        async with trio.open_nursery() as nursery:
            yield _Workers(nursery)


class _Lowlevel:
    """What pyfuse3 takes for the module trio.lowlevel."""

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """Return when there is a request to read, or the mount is gone.

        A request may be withdrawn between the event and the turn of the task that waits for it.
        So it is looked for once more, after which pyfuse3 reads without a checkpoint.
        """
        state = _STATE.get()
        if state.has_read and state.siblings.count > CROWD:
            state.begins_anew = True
            raise trio.ClosedResourceError  # pyfuse3 frees the buffer, and ends the loop
        state.has_read = True
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            if _is_readable(descriptor):
                return


class _Workers:
    """The nursery that pyfuse3 starts its tasks in, and hands to each of them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.count = 0
        """Tasks, whatever they do."""

    def start_soon(self, loop: Loop, *args: object, name: object = None) -> None:
        """Let a task run pyfuse3's loop."""
        self._nursery.start_soon(self._run, loop, args, name=name)

    async def _run(self, loop: Loop, args: tuple[object, ...]) -> None:
        self.count += 1
        try:
            while await self._is_to_begin_anew(loop, args):
                pass
        finally:
            self.count -= 1

    async def _is_to_begin_anew(self, loop: Loop, args: tuple[object, ...]) -> bool:
        """Run the loop until it ends; whether the same task shall run it again.

        Raises OSError when the connection is broken. pyfuse3 counts the tasks that end, but not
        those that begin anew; the count matters only where WORKERS_MAX is in reach.
        """
        state = _State(self)
        _STATE.set(state)
        try:
            await loop(*args)
        except OSError as exc:
            if exc.errno == errno.EAGAIN:
                log.info("a request was withdrawn while it was being read")
                return True
            if exc.errno not in PASSING:
                raise
            log.error("a request cannot be read now: %s", exc)
        except Exception as exc:  # noqa: BLE001 - of all requests this one alone is not answered
            supervisor.BUGS.note("a request of the kernel, which stays without an answer", exc)
        else:
            return state.begins_anew
        await trio.sleep(supervisor.RESTART_PAUSE_S)
        return True


def _is_readable(descriptor: int) -> bool:
    return bool(_poll_of(descriptor).poll(0))


@functools.lru_cache(maxsize=1)
def _poll_of(descriptor: int) -> select.poll:
    """What asks about a descriptor of this number, whatever it is of. Made once: asked often."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll
