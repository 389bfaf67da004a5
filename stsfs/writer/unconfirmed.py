"""Contents that may have become the object although the request that made it seemed to fail."""

from collections.abc import Iterator
from dataclasses import dataclass

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
    """The latest snapshot, and sizes of older ones by write id. Pure."""

    def __init__(self) -> None:
        self.latest: Snapshot | None = None
        self._older: dict[str, int] = {}

    def __bool__(self) -> bool:
        return self.latest is not None or bool(self._older)

    def begin(self, snapshot: Snapshot) -> None:
        """This snapshot is about to become the object; the one before it may have."""
        before = self.latest
        if before is not None and before.write_id != snapshot.write_id:
            self._older[before.write_id] = before.size_bytes
            while len(self._older) > UNCONFIRMED_MAX:
                del self._older[next(iter(self._older))]
        self.latest = snapshot

    def candidates(self) -> Iterator[tuple[str, int]]:
        """Write id and size of each, the latest first. A snapshot of the caller's own."""
        found = dict(self._older)
        if self.latest is not None:
            found[self.latest.write_id] = self.latest.size_bytes
        yield from reversed(found.items())

    def forget_older(self) -> None:
        """One of the older ones is what S3 has."""
        self._older.clear()

    def clear(self) -> None:
        """It is known what S3 has."""
        self.latest = None
        self._older.clear()
