"""Open files of a mount made with --rw: they follow their node when this mount changes it."""

from collections.abc import Sequence
from dataclasses import dataclass

from stsfs.store.object_store import ObjectVersion
from stsfs.vfs.streams import Stream
from stsfs.vfs.vfs import FileHandle


class NoReader:
    """Reader of a file of which S3 has nothing yet: what it has is read where it is staged."""

    streams: Sequence[Stream] = ()

    async def confirm(self) -> None:
        """There is nothing to confirm."""

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        """There is nothing to read."""
        return memoryview(b"")

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True, eq=False)
class LiveHandle(FileHandle):
    """One open(2), for reading or for writing too."""

    version: ObjectVersion | None
    """What `reader` reads; that of the file may be a newer one by now."""

    flags: int = 0
    writes: bool = False
    """Whether it may change the file."""

    wrote: bool = False
    published: bool = False
    """A flush has published what was written through this handle."""

    shared: bool = False
    """Written to after such a flush: several processes have it, and each flush ends one of them."""

    def note_write(self) -> None:
        """The content was changed through this handle."""
        self.wrote = True
        self.shared = self.shared or self.published

    def note_publication(self) -> None:
        """A flush of this handle has published the file, whoever has written to it."""
        self.published = self.wrote
