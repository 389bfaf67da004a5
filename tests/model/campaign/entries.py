"""What the books of the campaign consist of."""

from dataclasses import dataclass, field
from math import inf


def touches(one, other):
    """Whether one path is the other, or lies below it."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


class Violation(Exception):
    """The program has done what it must not; `what` is the word for it above."""

    def __init__(self, what, text):
        super().__init__(f"{what}: {text}")
        self.what = what


@dataclass(eq=False)
class Op:
    """One operation on some paths, from its beginning to its end."""

    mount: str | None
    name: str
    paths: list
    start: int
    begun_s: float
    end: float = inf
    is_alone: bool = True
    prior: dict = field(default_factory=dict)
    """What these paths were known to be when it began."""

    haunted: set = field(default_factory=set)
    """Mounts that had something left over at these paths."""

    def __repr__(self):
        alone = "alone" if self.is_alone else ""
        return f"{self.mount}:{self.name} {self.paths} @{self.start} {alone} {self.haunted or ''}"


@dataclass(eq=False)
class Ending:
    """What may end cells [first, stop) of a path: here until `end`, in S3 until `late`."""

    mount: str | None
    path: str
    first: int
    stop: float
    start: int
    end: float = inf
    late: float = inf
    session: object = None

    def covers(self, index):
        return self.first <= index < self.stop


@dataclass(eq=False)
class Write:
    """One write through a handle."""

    session: object
    number: int
    first: int
    count: int
    start: int
    end: float = inf
    is_done: bool = False
    promised: float = inf


@dataclass(eq=False)
class Move:
    """A rename that has, or may have, happened."""

    mount: str | None
    old: str
    new: str
    start: int
    end: float = inf
    is_cut: bool = False
    """Its mount was killed: another one will finish it, or undo it."""

    @property
    def is_under_way(self):
        """Whether somebody waits for its end."""
        return self.end == inf and not self.is_cut


def is_other(ending, write):
    """Whether it may end the cells of a write: its own handle only what it wrote before."""
    return not is_own(ending, write) or ending.start > write.start


def is_own(ending, write):
    """Whether both are of one handle."""
    return write.session is not None and ending.session is write.session
