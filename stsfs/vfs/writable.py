"""What the locations of a mount made with --rw are changed with. The daemon builds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stsfs.rules.question import Place

if TYPE_CHECKING:
    from stsfs.staging.attributes import AttributeIndex
    from stsfs.writer.moves import Mover
    from stsfs.writer.writing import Writers

RENAME_LIMIT = 10_000
"""Objects that the rename of a directory may move."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WritableLocation:
    """One location: what its rules depend on, and who makes changes of it.

    The tasks of `writers` must be running while the vfs is used.
    """

    place: Place
    writers: "Writers"
    mover: "Mover"
    attributes: "AttributeIndex | None" = None
    """Where modes and times that S3 does not list are kept; None: nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Writable:
    """All that `WritingVfs` needs beside what `Vfs` needs."""

    locations: Mapping[int, WritableLocation]
    """By location id: those of the `Site`s of the tree."""

    way: Place
    """Stands for the directories of the mount that only lead to locations (`storage="none"`)."""

    fsync_publishes: bool = False
    """Whether fsync waits for S3, and not only for the local disk."""

    rename_limit: int = RENAME_LIMIT
