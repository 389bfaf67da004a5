"""How many descriptors the staging files of one directory hold."""

import threading
from collections import OrderedDict
from typing import Protocol

DESCRIPTORS_MAX = 256
"""Where nobody says how many: a quarter of the usual limit of a process."""


class Holder(Protocol):
    """Something that holds one descriptor, and can open it again."""

    def rest(self) -> None:
        """Give the descriptor back; may be called by any thread, without the lock of another."""


class Descriptors:
    """Who holds a descriptor, in the order of the last use. Thread safe.

    Its lock is the innermost one: no holder is called under it.
    """

    def __init__(self, descriptors_max: int = DESCRIPTORS_MAX) -> None:
        self._descriptors_max = descriptors_max
        self._lock = threading.Lock()
        self._idle_first: OrderedDict[Holder, None] = OrderedDict()
        self._bound: set[Holder] = set()

    def used(self, holder: Holder) -> Holder | None:
        """holder holds a descriptor, and uses it now. Returns who should rest, if anybody should.

        The caller lets it rest once it has no lock of its own.
        """
        with self._lock:
            if holder in self._bound:
                return None
            self._idle_first[holder] = None
            self._idle_first.move_to_end(holder)
            if len(self._idle_first) + len(self._bound) <= self._descriptors_max:
                return None
            oldest = next(iter(self._idle_first))
            if oldest is holder:
                return None
            del self._idle_first[oldest]
            return oldest

    def bind(self, holder: Holder) -> None:
        """holder cannot open its descriptor again: it is counted, and never asked to rest."""
        with self._lock:
            self._idle_first.pop(holder, None)
            self._bound.add(holder)

    def gone(self, holder: Holder) -> None:
        """holder holds none any more."""
        with self._lock:
            self._idle_first.pop(holder, None)
            self._bound.discard(holder)
