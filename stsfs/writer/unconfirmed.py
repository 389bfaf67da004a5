"""Contents that may have become the object although the request that made it seemed to fail."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stsfs.store.object_store import ObjectVersion

UNCONFIRMED_MAX = 8
"""Older ones that are remembered; one of them is recognised, or the next conflict is a real one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the content that was to become the object."""

    changes: int
    """The count of changes that it contains."""

    size_bytes: int
    write_id: str
    """Stored with the object, so that it can be recognised."""

    is_single_put: bool
    """By one PUT: the same request can be repeated."""


class UnconfirmedWrites:
    """The latest snapshot, sizes of older ones by write id, and objects copied there. Pure."""

    def __init__(self) -> None:
        self.latest: Snapshot | None = None
        self._older: dict[str, int] = {}
        self._copied: dict[ObjectVersion, None] = {}

    def __bool__(self) -> bool:
        return self.latest is not None or bool(self._older) or bool(self._copied)

    def begin(self, snapshot: Snapshot) -> None:
        """This snapshot is about to become the object; the one before it may have."""
        before = self.latest
        if before is not None and before.write_id != snapshot.write_id:
            self._older[before.write_id] = before.size_bytes
            while len(self._older) > UNCONFIRMED_MAX:
                del self._older[next(iter(self._older))]
        self.latest = snapshot

    def inherit(self, earlier: Iterable[tuple[str, int]]) -> None:
        """A process that died has begun these, by write id and size, the latest last."""
        self._older.update(earlier)

    def begin_copy(self, source: ObjectVersion) -> None:
        """A rename over the file may have put a copy of this object there."""
        self._copied[source] = None
        while len(self._copied) > UNCONFIRMED_MAX:
            del self._copied[next(iter(self._copied))]

    def copied(self) -> tuple[ObjectVersion, ...]:
        """What may have been copied there, the latest first."""
        return tuple(reversed(self._copied))

    def candidates(self) -> Iterator[tuple[str, int]]:
        """Write id and size of each, the latest first. A snapshot of the caller's own."""
        found = dict(self._older)
        if self.latest is not None:
            found[self.latest.write_id] = self.latest.size_bytes
        yield from reversed(found.items())

    def forget_older(self) -> None:
        """One of the older ones, or of the copies, is what S3 has."""
        self._older.clear()
        self._copied.clear()

    def clear(self) -> None:
        """It is known what S3 has."""
        self.latest = None
        self.forget_older()
