"""What the histories of the faults model are made of: ours, another client's, and trouble."""

from dataclasses import dataclass

import trio
from hypothesis import strategies as st

PATHS = ("a", "b", "d/a", "d/b")


@dataclass(frozen=True)
class Put:
    path: str
    count: int


@dataclass(frozen=True)
class Update:
    path: str
    offset: int


@dataclass(frozen=True)
class Begin:
    path: str


@dataclass(frozen=True)
class Fsync:
    pass


@dataclass(frozen=True)
class Close:
    pass


@dataclass(frozen=True)
class Unlink:
    path: str


@dataclass(frozen=True)
class Rename:
    old: str
    new: str


@dataclass(frozen=True)
class Read:
    path: str


@dataclass(frozen=True)
class TheirPut:
    path: str


@dataclass(frozen=True)
class TheirDelete:
    path: str


@dataclass(frozen=True)
class Fails:
    method: str
    denied: bool
    happened: bool


@dataclass(frozen=True)
class Dies:
    method: str
    happened: bool


@dataclass(frozen=True)
class Kill:
    pass


@dataclass(frozen=True)
class TimePasses:
    seconds: int


paths = st.sampled_from(PATHS)
methods = st.sampled_from(["put", "put", "delete", "copy", "list_page", "confirm", "read_range"])
steps = st.one_of(
    st.builds(Put, paths, st.sampled_from([100, 500, 3000])),
    st.builds(Put, paths, st.just(500)),
    st.builds(Update, paths, st.sampled_from([0, 100, 5000])),
    st.builds(Begin, paths),
    st.builds(Fsync),
    st.builds(Close),
    st.builds(Unlink, paths),
    st.builds(Rename, paths, paths),
    st.builds(Rename, st.sampled_from(["d", "e"]), st.sampled_from(["d", "e"])),
    st.builds(Read, paths),
    st.builds(TheirPut, paths),
    st.builds(TheirDelete, paths),
    st.builds(Fails, methods, st.booleans(), st.booleans()),
    st.builds(Dies, methods, st.booleans()),
    st.builds(Kill),
    st.builds(TimePasses, st.sampled_from([1, 40, 400])),
)


class Killing:
    """A Fault that ends the daemon in the middle of a request."""

    error, after_bytes = None, 0

    def __init__(self, scope, *, happened):
        self._scope, self.happened = scope, happened

    async def wait(self):
        self._scope.cancel()
        await trio.lowlevel.checkpoint()
