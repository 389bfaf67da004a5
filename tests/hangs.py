"""The detector of loops that never wait, which no clock of trio ends."""

import contextlib
import signal

_SIGNALS = {signal.ITIMER_REAL: signal.SIGALRM, signal.ITIMER_VIRTUAL: signal.SIGVTALRM}


class Hangs(BaseException):
    """What was called does not end: no code under test may catch it."""


@contextlib.contextmanager
def bounded(seconds, timer=signal.ITIMER_REAL):
    """Raises Hangs inside after so much time; ITIMER_VIRTUAL: of this process alone."""

    def stop(_signal, _frame):
        raise Hangs(f"still at it after {seconds} s")

    before = signal.signal(_SIGNALS[timer], stop)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(_SIGNALS[timer], before)
