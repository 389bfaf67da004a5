"""One multipart upload of a file that goes on changing: which parts S3 has, and which are stale."""

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from stsfs.errors import StsfsError, WriteConflict
from stsfs.store.object_store import ObjectVersion, Part
from stsfs.writer.content import StagedContent
from stsfs.writer.parallel import work_off
from stsfs.writer.part_sizes import part_at, part_count, part_span
from stsfs.writer.plan import Piece
from stsfs.writer.wire import ContentBody, Wire

PARTS_AT_ONCE = 8
"""Of one file. Single connections are slow; more of them for one file would starve the others."""


class Layout(Protocol):
    """What bytes the parts of an upload have."""

    has_copies: bool
    is_stream: bool
    """Whether the place of a part does not depend on the size of the file."""

    def count(self, size_bytes: int) -> int:
        """How many parts a file of this size has."""

    def piece(self, number: int, size_bytes: int) -> Piece:
        """The bytes of one of them."""

    def is_copied(self, number: int) -> bool:
        """Whether a part is what the base has."""

    def numbers(self, start: int, stop: int) -> range:
        """The parts that have bytes of [start, stop)."""

    def fits(self, size_bytes: int) -> bool:
        """Whether a file of this size can be sent so."""


class StreamLayout:
    """Parts of a file that may grow; all of them are sent."""

    has_copies, is_stream = False, True

    def count(self, size_bytes: int) -> int:
        """See Layout."""
        return part_count(size_bytes)

    def piece(self, number: int, size_bytes: int) -> Piece:
        """See Layout."""
        start, stop = part_span(number)
        return Piece(start, min(stop, size_bytes), copied=False)

    def is_copied(self, number: int) -> bool:
        """See Layout."""
        return False

    def numbers(self, start: int, stop: int) -> range:
        """See Layout."""
        return range(part_at(start), part_at(stop - 1) + 1)

    def fits(self, size_bytes: int) -> bool:
        """See Layout."""
        return True


class PlannedLayout:
    """Parts that were planned for one size, some of them copied inside S3."""

    is_stream = False

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.has_copies = any(piece.copied for piece in pieces)
        self._pieces = pieces
        self._starts = [piece.start for piece in pieces]

    def count(self, size_bytes: int) -> int:
        """See Layout."""
        return len(self._pieces)

    def piece(self, number: int, size_bytes: int) -> Piece:
        """See Layout."""
        return self._pieces[number - 1]

    def is_copied(self, number: int) -> bool:
        """See Layout."""
        return self._pieces[number - 1].copied

    def numbers(self, start: int, stop: int) -> range:
        """See Layout."""
        return range(bisect_right(self._starts, start), bisect_right(self._starts, stop - 1) + 1)

    def fits(self, size_bytes: int) -> bool:
        """See Layout."""
        return size_bytes == self._pieces[-1].stop


@dataclass(slots=True)
class _Sent:
    """One part on its way, or there."""

    piece: Piece
    part: Part | None = None
    is_stale: bool = False
    """Its bytes have changed since they began to be sent."""


class Upload:
    """One multipart upload. `touched` must be told of each change, after it was made."""

    def __init__(
        self, wire: Wire, content: StagedContent, key: str, upload_id: str, write_id: str,
        layout: Layout, base: ObjectVersion | None,
    ) -> None:  # fmt: skip
        self.key, self.upload_id, self.write_id = key, upload_id, write_id
        self.base = base
        """What parts are copied from."""

        self.completed_changes: int | None = None
        """Which state of the content was to become the object, when that was asked for: it may
        have happened, whatever was answered."""

        self.is_useless = False
        """What is planned to be copied has changed."""

        self.is_over = False
        """It was given up."""

        self.ahead_count = 0
        """Parts that have gone ahead of the publication, or are on their way."""

        self.sent_bytes = 0
        self.stale_count = 0
        self.fruitless_count = 0
        """Attempts at the object, one after the other, that brought no part into S3."""

        self._wire, self._content, self._layout = wire, content, layout
        self._sent: dict[int, _Sent] = {}
        self.after_part: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        """Called when S3 has one part more. Raises nothing of ours."""

    def touched(self, start: int, stop: int) -> None:
        """Bytes [start, stop) have changed. Not a checkpoint."""
        if start >= stop:
            return
        for number in self._layout.numbers(start, stop):
            self.is_useless |= self._layout.is_copied(number)
            sent = self._sent.get(number)
            if sent is not None and not sent.is_stale:
                sent.is_stale = True
                self.stale_count += 1

    def fits(self, size_bytes: int) -> bool:
        """Whether it can still become the object."""
        is_base_there = self.base == self._content.base or not self._layout.has_copies
        return not self.is_useless and is_base_there and self._layout.fits(size_bytes)

    def lacking(self, size_bytes: int) -> list[int]:
        """The parts that S3 has not got as they are now."""
        numbers = range(1, self._layout.count(size_bytes) + 1)
        return [number for number in numbers if not self.is_there(number, size_bytes)]

    def parts(self, size_bytes: int) -> list[Part]:
        """All parts of the file, when none is lacking."""
        found = [self._sent[number].part for number in range(1, self._layout.count(size_bytes) + 1)]
        return [part for part in found if part is not None]

    def adopt(self, parts: Iterable[Part]) -> None:
        """S3 has these parts of a stream from a process that died."""
        for part in parts:
            start, stop = part_span(part.number)
            self._sent[part.number] = _Sent(Piece(start, stop, copied=False), part)
            self.sent_bytes += stop - start
        self.ahead_count = max(self._sent, default=0)

    def whole_parts(self) -> Iterator[tuple[Part, tuple[int, int]]]:
        """The parts of a stream that S3 has as they are now and that end where parts end."""
        if not self._layout.is_stream or self.is_over:
            return
        for number, sent in sorted(self._sent.items()):
            piece = sent.piece
            is_whole = (piece.start, piece.stop) == part_span(number)
            if sent.part is not None and not sent.is_stale and is_whole:
                yield sent.part, (piece.start, piece.stop)

    def in_flight(self) -> Iterator[tuple[int, int]]:
        """The bytes that parts on their way are read from."""
        for sent in self._sent.values():
            if sent.part is None:
                yield sent.piece.start, sent.piece.stop

    async def send(self, numbers: Iterable[int], *, at_once: int = PARTS_AT_ONCE) -> None:
        """Send these parts, several at a time; the first error ends it, and is raised as it is."""
        await work_off((partial(self._send_one, number) for number in numbers), at_once=at_once)

    def is_there(self, number: int, size_bytes: int) -> bool:
        """Whether S3 has this part of a file of this size as it is now."""
        sent = self._sent.get(number)
        return (
            sent is not None
            and sent.part is not None
            and not sent.is_stale
            and sent.piece == self._layout.piece(number, size_bytes)
        )

    async def _send_one(self, number: int) -> None:
        # Entered before its bytes are read, so that a change from now on makes it stale.
        sent = _Sent(self._layout.piece(number, self._content.size_bytes))
        if sent.piece.start >= sent.piece.stop:
            return  # the file has been cut off
        self._sent[number] = sent
        try:
            sent.part = await self._accepted(number, sent.piece)
        except WriteConflict:
            raise
        except StsfsError:
            if not sent.is_stale:  # else its bytes changed under way, and their checksum with them
                raise
        finally:
            if sent.part is None:
                del self._sent[number]
        if sent.part is not None:
            self.sent_bytes += sent.piece.stop - sent.piece.start
            self.fruitless_count = 0
            await self.after_part()

    async def _accepted(self, number: int, piece: Piece) -> Part:
        writer = self._wire.writer
        if piece.copied:
            assert self.base is not None
            async with self._wire.uploads.taken():
                return await writer.copy_part(
                    self.key, self.upload_id, number, self.base, piece.start, piece.stop
                )
        await self._content.fetch(piece.start, piece.stop)
        async with self._wire.uploads.taken():
            body = ContentBody(self._content, piece.start, piece.stop)
            return await writer.upload_part(self.key, self.upload_id, number, body)
