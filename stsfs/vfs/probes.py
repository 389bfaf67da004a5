"""Answers about single names of a directory too long to be listed for them.

One LIST of `Prefix=dir/name` tells about every name that begins so: `s1.bam` answers for
`s1.bam.bai` and for the absence of `s1.bam.csi` as well.
"""

from collections.abc import Callable

from cachetools import TTLCache

from stsfs.vfs.nodes import Node

NAMES_MAX = 10_000
STEMS_MAX = 1_000


class Probes:
    """What probes of one directory have told, for ttl_s; bounded."""

    def __init__(self, ttl_s: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._known: TTLCache[bytes, tuple[Node | None, float]] = TTLCache(
            NAMES_MAX, max(ttl_s, 1e-9), timer=clock
        )
        self._stems: TTLCache[bytes, float] = TTLCache(STEMS_MAX, max(ttl_s, 1e-9), timer=clock)

    def answer(self, name: bytes) -> tuple[Node | None, float] | None:
        """The node of a name (None: absent) and when the answer ends; None if it is unknown."""
        known = self._known.get(name)
        if known is not None:
            return known
        for length in range(len(name), 0, -1):
            until_s = self._stems.get(name[:length])
            if until_s is not None:
                return None, until_s
        return None

    def tell(self, name: bytes, node: Node | None) -> None:
        """A probe has shown what name is."""
        if len(self._known) >= NAMES_MAX and name not in self._known:
            self._stems.clear()  # the name forgotten for this one would seem to be absent
        self._known[name] = (node, self._clock() + self._ttl_s)

    def tell_all(self, stem: bytes) -> None:
        """Every name that begins with stem has been told; all others of them are absent."""
        self._stems[stem] = self._clock() + self._ttl_s
