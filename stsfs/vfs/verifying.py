"""Reads that are checked: a file that was delivered whole must have the MD5 that Synapse gives.

A handle does not see all of a reading. The kernel keeps pages, so that who reads a file after
somebody has looked at its head asks only for the rest; it asks for several pieces at once, which
end in any order; and it asks again for what failed. So the pieces that all handles of a version
deliver are one reading of it, hashed in the order of offsets whenever the next one is there.

A reading ends where a gap stays open: pieces behind it do not wait for one that nobody asks for.
"""

import hashlib
import logging
from collections.abc import Sequence

import trio
from cachetools import LRUCache

from stsfs.errors import ContentMismatch
from stsfs.store.object_store import ObjectVersion
from stsfs.vfs.reader import Reader
from stsfs.vfs.streams import Stream

log = logging.getLogger(__name__)

EARLY_BYTES_MAX = 32 * 1024 * 1024
"""Copies of pieces that came before their turn, of all files of a mount together."""

READINGS_MAX = 4096
"""Versions of which is remembered how far they were hashed; some hundred bytes each."""

MISMATCHES_MAX = 1000
"""Versions known to be wrong. One that is forgotten is found again by the next full reading."""

FAILED_MAX = 256
"""Pieces of a version that failed, and that the kernel may ask for again."""

INLINE_BYTES_MAX = 64 * 1024
"""Hashed where it arrives, in a tenth of a millisecond; a thread costs as much."""

THREADS_MAX = 4

_EMPTY_MD5 = hashlib.md5(usedforsecurity=False).hexdigest()

Key = tuple[ObjectVersion, str]
"""A version and the MD5 expected of it: two records of Synapse may lead to one object."""


class Verification:
    """What the verifying handles of a mount share: readings under way, and what they found."""

    def __init__(self, *, early_bytes_max: int = EARLY_BYTES_MAX) -> None:
        self.verified_count = 0
        """Readings that found the content as it should be."""

        self.early_bytes_free = early_bytes_max
        self._threads = trio.CapacityLimiter(THREADS_MAX)
        self._readings: LRUCache[Key, Reading] = LRUCache(READINGS_MAX)
        self._mismatches: LRUCache[Key, str] = LRUCache(MISMATCHES_MAX)

    @property
    def mismatch_count(self) -> int:
        """Versions known to be wrong."""
        return len(self._mismatches)

    def check(self, version: ObjectVersion, md5: str) -> None:
        """Raise ContentMismatch where a version is known not to have this MD5. Not a checkpoint.

        An empty file is never read, and known at once.
        """
        if version.size_bytes == 0 and md5.lower() != _EMPTY_MD5:
            raise _mismatch(version, md5.lower(), _EMPTY_MD5)
        if self._mismatches and (found := self._mismatches.get((version, md5.lower()))):
            raise _mismatch(version, md5.lower(), found)

    def enter(self, version: ObjectVersion, md5: str) -> "Reading":
        """The reading of a version, for one more handle; `Reading.leave` gives it back."""
        key = version, md5.lower()
        reading = self._readings.get(key)
        if reading is None:
            reading = self._readings[key] = Reading(self, version, key[1])
        reading.handles += 1
        return reading

    def judge(self, version: ObjectVersion, md5: str, found: str) -> None:
        """A version was read from its first byte to its last. Raises ContentMismatch."""
        if found == md5:
            self.verified_count += 1
            return
        self._mismatches[version, md5] = found
        raise _mismatch(version, md5, found)

    async def hash(self, md5: "hashlib._Hash", piece: memoryview) -> None:
        """Feed a piece to a digest; not cancelled half-way. Large pieces go to a thread."""
        if len(piece) <= INLINE_BYTES_MAX:
            md5.update(piece)
        else:
            await trio.to_thread.run_sync(md5.update, piece, limiter=self._threads)


class Reading:
    """How far a version was delivered from its first byte on, and the digest of that.

    INVARIANT: bytes before `position` are hashed, or have their turn in `_turn`, in order.
    """

    def __init__(self, shared: Verification, version: ObjectVersion, md5: str) -> None:
        self.handles = 0
        self.position = 0
        self.under_way: list[range] = []
        """Pieces asked for and not yet delivered."""

        self._shared = shared
        self._version = version
        self._expected = md5
        self._turn = trio.Lock()
        self._early: dict[int, bytes] = {}
        self._failed: list[range] = []
        self._restart()

    def leave(self) -> None:
        """A handle is closed. With the last one goes what waits for its turn. Not a checkpoint."""
        self.handles -= 1
        if not self.handles:
            self._let_go()

    def failed(self, piece: range) -> None:
        """A piece was not delivered; the kernel asks for it again if somebody wants it."""
        self.under_way.remove(piece)
        if piece.stop > self.position and len(self._failed) < FAILED_MAX:
            self._failed.append(piece)

    async def delivered(self, piece: range, view: memoryview) -> None:
        """A piece is there: hash what is next in order now. Raises ContentMismatch at the end.

        Whatever lies in view stays alive with the caller, who waits.
        """
        self.under_way.remove(piece)
        turn = self._next_in_order(piece.start, view)
        if not turn:
            return
        # The end of a request must not leave a hole in the digest; it waits for hashing only.
        with trio.CancelScope(shield=True):
            async with self._turn:  # first come, first served, and nothing has waited so far
                for part in turn:
                    await self._shared.hash(self._md5, part)
                    self._hashed_bytes += len(part)
                if self._hashed_bytes == self._version.size_bytes:
                    found = self._md5.hexdigest()
                    self._restart()
                    self._shared.judge(self._version, self._expected, found)

    def _next_in_order(self, start: int, view: memoryview) -> Sequence[memoryview]:
        """What follows position: of this piece, and of those that came early. Moves position.

        Nothing where a part before the piece is missing, or all of it is known.
        """
        if start > self.position:
            self._hold(start, view)
            return ()
        turn: list[memoryview] = []
        self._advance(start, view, turn)
        for early in sorted(self._early):
            if early > self.position:
                break
            kept = self._early.pop(early)
            self._shared.early_bytes_free += len(kept)
            self._advance(early, memoryview(kept), turn)
        self._failed = [piece for piece in self._failed if piece.stop > self.position]
        if self._early and not self._is_awaited():
            self._let_go()
        return turn

    def _advance(self, start: int, view: memoryview, turn: list[memoryview]) -> None:
        if start + len(view) > self.position:
            turn.append(view[self.position - start :])
            self.position = start + len(view)

    def _hold(self, start: int, view: memoryview) -> None:
        """Keep a copy of an early piece: a view would hold cache memory that others wait for."""
        if not self._is_awaited():
            self._let_go()
            return
        known = self._early.get(start, b"")
        growth = len(view) - len(known)
        if growth <= 0:
            return
        if growth > self._shared.early_bytes_free:
            log.info("%s: not verified, its pieces came too far apart", self._version.key)
            self._let_go()
            return
        self._shared.early_bytes_free -= growth
        self._early[start] = bytes(view)

    def _is_awaited(self) -> bool:
        """The byte at position has been asked for, or will be again."""
        return any(self.position in piece for piece in (*self.under_way, *self._failed))

    def _let_go(self) -> None:
        """Nothing waits any more; the next piece in order may still go on."""
        self._shared.early_bytes_free += sum(map(len, self._early.values()))
        self._early.clear()
        self._failed.clear()

    def _restart(self) -> None:
        """Begin at the first byte."""
        self.position = self._hashed_bytes = 0
        self._md5 = hashlib.md5(usedforsecurity=False)


class VerifyingReader:
    """Another reader, whose bytes must have an MD5.

    The read with which a version has been delivered whole raises ContentMismatch where they do
    not; in a file read in order that is the one that holds its last byte. From then on every read
    of the version does, through whatever handle: the kernel repeats reads that failed, page by
    page, and for the next reader asks only for what it has not kept.
    """

    def __init__(
        self, reader: Reader, version: ObjectVersion, md5: str, verification: Verification
    ) -> None:
        self._reader = reader
        self._version = version
        self._md5 = md5
        self._verification = verification
        self._reading = verification.enter(version, md5)

    @property
    def streams(self) -> Sequence[Stream]:
        """See Reader."""
        return self._reader.streams

    async def confirm(self) -> None:
        """See Reader. Raises ContentMismatch for a version that is known to be wrong."""
        self._verification.check(self._version, self._md5)
        await self._reader.confirm()

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        """See Reader. Raises ContentMismatch, see the class."""
        self._verification.check(self._version, self._md5)
        piece = range(offset, min(offset + size_bytes, self._version.size_bytes))
        if not piece:
            return await self._reader.read(offset, size_bytes)
        self._reading.under_way.append(piece)
        try:
            view = await self._reader.read(offset, size_bytes)
        except BaseException:
            self._reading.failed(piece)
            raise
        await self._reading.delivered(piece, view)
        return view

    def close(self) -> None:
        """See Reader."""
        self._reading.leave()
        self._reader.close()


def _mismatch(version: ObjectVersion, md5: str, found: str) -> ContentMismatch:
    return ContentMismatch(
        f"What was read of {version.key!r} has the MD5 {found}, but Synapse's MD5 is {md5}.",
        remedy="The object was damaged or replaced in the bucket: tell who uploaded it.",
    )
