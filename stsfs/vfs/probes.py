"""Answers about single names of a directory too long to be listed for them.

One LIST of `Prefix=dir/name` tells about every name that begins so: `s1.bam` answers for
`s1.bam.bai` and for the absence of `s1.bam.csi` as well.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cachetools import TTLCache

from stsfs.vfs.nodes import Directory, Node

NAMES_MAX = 10_000
"""In one directory."""

STEMS_MAX = 1_000
ALL_NAMES_MAX = 50_000
"""In all directories together, unless less is allowed."""

TOLD_BYTES = 768
"""What one of them takes in memory, about: as measured, with a node of its own."""


class Told(NamedTuple):
    """What a probe has told about a name."""

    node: Node | None
    """None: there is none."""

    until_s: float
    """trio's clock: when the answer ends."""

    asked_s: float
    """trio's clock: when it was asked for."""


class Probes:
    """What probes of one directory have told, for ttl_s; bounded."""

    def __init__(
        self,
        ttl_s: float,
        clock: Callable[[], float],
        grown: Callable[["Probes"], None],
        names_max: int = NAMES_MAX,
    ) -> None:
        """grown is told when there may be more names than before."""
        self._names_max = names_max
        self._clock, self._grown = clock, grown
        self._ttl_s = ttl_s
        self._known: TTLCache[bytes, Told] = TTLCache(names_max, max(ttl_s, 1e-9), timer=clock)
        self._stems: TTLCache[bytes, Told] = TTLCache(STEMS_MAX, max(ttl_s, 1e-9), timer=clock)

    def __len__(self) -> int:
        return len(self._known) + len(self._stems)

    def answer(self, name: bytes) -> Told | None:
        """What is known of a name; None if nothing is."""
        known = self._known.get(name)
        if known is not None:
            return known
        for length in range(len(name), 0, -1):
            told = self._stems.get(name[:length])
            if told is not None:
                return told
        return None

    def tell(self, name: bytes, node: Node | None, *, asked_s: float) -> None:
        """A probe that was asked then has shown what name is."""
        if len(self._known) >= self._names_max and name not in self._known:
            self._stems.clear()  # the name forgotten for this one would seem to be absent
        self._known[name] = Told(node, self._clock() + self._ttl_s, asked_s)
        self._grown(self)

    def tell_all(self, stem: bytes, *, asked_s: float) -> None:
        """Every name that begins with stem has been told; all others of them are absent."""
        self._stems[stem] = Told(None, self._clock() + self._ttl_s, asked_s)
        self._grown(self)


class ProbedDirectories:
    """The probes of all directories: those told of least recently go when there are too many."""

    def __init__(self, ttl_s: float, clock: Callable[[], float]) -> None:
        self._ttl_s, self._clock = ttl_s, clock
        self._probes: dict[Directory, Probes] = {}  # told of least recently first
        self._counted: dict[Probes, int] = {}
        self._names = 0
        self.names_max = ALL_NAMES_MAX
        """Names that are remembered at most."""

    def of(self, directory: Directory) -> Probes:
        """Where to tell what is asked for from now on; forgotten, it takes the answer with it."""
        probes = self._probes.pop(directory, None)
        if probes is None:
            names_max = max(1, min(NAMES_MAX, self.names_max))
            probes = Probes(self._ttl_s, self._clock, self._recount, names_max)
            self._counted[probes] = 0
        self._probes[directory] = probes
        return probes

    def get(self, directory: Directory) -> Probes | None:
        """What is known of a directory, if anything is."""
        return self._probes.get(directory)

    def answer(self, directory: Directory, name: bytes) -> Told | None:
        """What is known of a name; None if nothing is."""
        probes = self._probes.get(directory)
        return None if probes is None else probes.answer(name)

    def forget(self, directory: Directory) -> bool:
        """Drop what is known of a directory; whether anything was."""
        probes = self._probes.pop(directory, None)
        if probes is None:
            return False
        self._names -= self._counted.pop(probes)
        return True

    def directories(self) -> Iterable[Directory]:
        """Those of which something is known."""
        return self._probes.keys()

    def _recount(self, probes: Probes) -> None:
        if probes not in self._counted:
            return  # forgotten meanwhile
        self._names += len(probes) - self._counted[probes]
        self._counted[probes] = len(probes)
        while self._names > self.names_max and len(self._probes) > 1:
            self.forget(next(iter(self._probes)))
