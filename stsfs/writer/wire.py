"""What all files of one location are sent with: the store, and limits they share."""

import logging
from collections import deque
from dataclasses import dataclass

import trio

from stsfs.errors import StsfsError
from stsfs.store.object_store import ObjectStore, ObjectWriter
from stsfs.store.shares import Shares
from stsfs.writer.content import StagedContent

log = logging.getLogger(__name__)

BODIES_BYTES_MAX = 64 * 1024 * 1024
"""Bodies of single PUTs in memory at a time: four of the largest, or a thousand small ones; half
as much again for users who have none of it (see `shares`)."""

ORPHANS_MAX = 1000
"""Uploads that could not be given up and wait for another try; beyond it they are only logged."""


@dataclass(frozen=True, slots=True)
class LocationName:
    """One storage location, as records of staging files name it."""

    location_id: int
    uri: str
    """`s3://bucket/prefix`."""

    endpoint_url: str | None
    label: str
    """What the user typed for it."""


class MemoryBody:
    """Body of bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size_bytes(self) -> int:
        """See Body."""
        return len(self._data)

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """See Body."""
        await trio.lowlevel.checkpoint()
        return self._data[offset : offset + size_bytes]


class ContentBody:
    """Body of bytes [start, stop) of a content, all of them present."""

    def __init__(self, content: StagedContent, start: int, stop: int) -> None:
        self._content, self._start = content, start
        self.size_bytes = stop - start

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """See Body."""
        at = self._start + offset
        return await self._content.read_present(at, at + size_bytes)


class StagingRoom:
    """Whether room may come on the staging disk: what all files of a location know of it."""

    def __init__(self) -> None:
        self.freed_bytes = 0
        """That have left the disk so far because S3 has them."""

        self.stream_count = 0
        """Files of which parts go ahead now, and may leave the disk."""

        self.changed = trio.Event()
        """Set, and replaced, when a part has come to S3, bytes have left, or a stream has ended."""

    def note(self, freed_bytes: int = 0) -> None:
        """Something has changed. Not a checkpoint."""
        self.freed_bytes += freed_bytes
        self.changed.set()
        self.changed = trio.Event()


class Wire:
    """The store of a location, and what its files may take of it."""

    def __init__(self, store: ObjectStore, writer: ObjectWriter, *, uploads_max: int) -> None:
        self.store, self.writer = store, writer
        self.uploads = Shares(uploads_max)
        """Requests with a body; what reads needs connections, too."""

        self.bodies = Shares(BODIES_BYTES_MAX)
        """Bytes of memory. INVARIANT: nobody holds a place of `uploads` and waits for these."""

        self.room = StagingRoom()
        self.orphans: deque[tuple[str, str]] = deque(maxlen=ORPHANS_MAX)
        """Key and id of uploads that could not be given up."""

    async def abort(self, key: str, upload_id: str) -> bool:
        """Give an upload up; False if that failed, and is tried again later."""
        try:
            await self.writer.abort_upload(key, upload_id)
        except StsfsError as exc:
            log.warning("upload %s of %r is not given up yet: %s", upload_id, key, exc)
            self.orphans.append((key, upload_id))
            return False
        return True

    async def abort_orphans(self) -> None:
        """Try once more."""
        for _ in range(len(self.orphans)):
            if not await self.abort(*self.orphans.popleft()):
                return
