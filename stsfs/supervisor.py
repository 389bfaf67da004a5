"""Background tasks, and what a bug in one of them ends: what it worked on, and nothing else.

Whoever starts a task that no request waits for starts it here. An exception that leaves such a task
is logged as critical with its traceback, counted for `stsfs status`, and told to the owner of what
the task worked on; the mount goes on.
"""

import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVarTuple

import trio

log = logging.getLogger(__name__)
Args = TypeVarTuple("Args")

BUGS_SHOWN_MAX = 20
RESTART_PAUSE_S = 1.0
"""Before a task that has to run as long as the mount is started again; doubled each time."""

RESTART_PAUSE_MAX_S = 60.0
"""The longest pause. A task that has run for so long without a bug begins with the shortest."""

KINDS_MAX = 100
"""Kinds of bugs whose repetitions are counted; the one that was seen longest ago is forgotten."""

OnBug = Callable[[Exception], None]
_Kind = tuple[str, type[Exception], str, int]
"""Of which task, of which type, and where it was raised: file and line."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One exception that nobody expected."""

    unix_s: float
    task: str
    text: str


@dataclass(slots=True)
class BugLog:
    """The bugs of this process: how many, and the latest ones."""

    count: int = 0
    latest: deque[Bug] = field(default_factory=lambda: deque(maxlen=BUGS_SHOWN_MAX))
    _repeats: OrderedDict[_Kind, int] = field(default_factory=OrderedDict)

    def note(self, task: str, exc: Exception) -> None:
        """Log, count and remember one. Not a checkpoint.

        The traceback of a bug that repeats is logged when it comes for the 1st, 2nd, 4th, 8th time
        and so on; one line each time.
        """
        self.count += 1
        self.latest.append(Bug(time.time(), task, f"{type(exc).__name__}: {exc}"))
        times = self._seen(_kind(task, exc))
        if times == 1:
            log.critical("a bug in %s: %r", task, exc, exc_info=exc)
        else:
            shown = exc if times.bit_count() == 1 else None
            log.critical("a bug in %s, seen %d times: %r", task, times, exc, exc_info=shown)

    def _seen(self, kind: _Kind) -> int:
        times = self._repeats.pop(kind, 0) + 1
        self._repeats[kind] = times
        if len(self._repeats) > KINDS_MAX:
            self._repeats.popitem(last=False)
        return times


BUGS = BugLog()
"""Of this process, as the log is."""


async def contained(
    task: str, call: Callable[[*Args], Awaitable[object]], *args: *Args, on_bug: OnBug | None = None
) -> bool:
    """Call; False if that ended with an exception, which is noted. on_bug is told of it.

    Cancellation passes through.
    """
    try:
        await call(*args)
    except Exception as exc:  # noqa: BLE001 - the one place where a task's bug ends
        _noted(task, exc, on_bug)
        return False
    except BaseExceptionGroup as group:
        bugs, others = group.split(Exception)
        if bugs is not None:
            _noted(task, ExceptionGroup(str(bugs), _exceptions(bugs)), on_bug)
        if others is not None:
            raise others from None
        return False
    return True


@contextlib.contextmanager
def unfailing(task: str) -> Iterator[None]:
    """A context that ends without an exception: one that leaves it is noted. Not a checkpoint."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - as in `contained`
        BUGS.note(task, exc)


async def kept_running(task: str, call: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
    """Call, and call again after each bug; ends when the call does.

    The pause before grows from RESTART_PAUSE_S to RESTART_PAUSE_MAX_S while bugs follow each other.
    """
    pause_s = RESTART_PAUSE_S
    while True:
        begun_s = trio.current_time()
        if await contained(task, call, *args):
            return
        if trio.current_time() - begun_s >= RESTART_PAUSE_MAX_S:
            pause_s = RESTART_PAUSE_S
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, RESTART_PAUSE_MAX_S)


class TaskPool:
    """The background tasks of one owner. `run` must be running while tasks are started."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._nursery: trio.Nursery | None = None

    @property
    def is_running(self) -> bool:
        """Whether tasks can be started."""
        return self._nursery is not None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the tasks until cancelled; then they are cancelled, too."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def start(
        self,
        task: str,
        call: Callable[[*Args], Awaitable[object]],
        *args: *Args,
        on_bug: OnBug | None = None,
    ) -> None:
        """Let a task of its own make a call. Not a checkpoint.

        on_bug is told of an exception, synchronously, in that task.
        """
        assert self._nursery is not None, f"{self._owner}: run must be running"

        async def supervised() -> None:
            await contained(f"{self._owner}: {task}", call, *args, on_bug=on_bug)

        self._nursery.start_soon(supervised, name=f"{self._owner}: {task}")


def _noted(task: str, exc: Exception, on_bug: OnBug | None) -> None:
    BUGS.note(task, exc)
    if on_bug is None:
        return
    try:
        on_bug(exc)
    except Exception as second:  # noqa: BLE001 - the owner's own handling has failed as well
        BUGS.note(f"{task}, while it was told of a bug", second)


def _kind(task: str, exc: Exception) -> _Kind:
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return task, type(exc), "", 0
    return task, type(exc), trace.tb_frame.f_code.co_filename, trace.tb_lineno


def _exceptions(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    return [each for each in group.exceptions if isinstance(each, Exception)]
