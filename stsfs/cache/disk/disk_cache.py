"""A cache directory as a thread sees it: reads that verify, writes that make room for themselves.

Everything here may block, so it is called in worker threads only; `tier` does that.
"""

import contextlib
import fcntl
import queue
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from stsfs.cache.content import GRAIN_BYTES
from stsfs.cache.disk import chunk_file
from stsfs.cache.disk.directory import CacheDirectory
from stsfs.cache.disk.index import EMPTY_ROW, ChunkRow, Index, Totals, WrongFormat
from stsfs.cache.disk.layout import (
    CHUNK_BYTES,
    DIGEST_BYTES,
    bits,
    chunk_name,
    grain_digests,
    grains_around,
    per_chunk,
)

SLACK_BYTES = 32 * 1024 * 1024
"""Given up beyond what is needed, so that not every write has to look for room."""

EVICTED_AT_ONCE = 16
"""Chunks looked up together when room is needed."""

_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole grains of a version, and the memory they lie in."""

    version: bytes
    """See layout.version_id."""

    start: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class Lost:
    """Grains that turned out not to be what the index says."""

    version: bytes
    number: int
    grains: int
    """A bitmap."""


@dataclass(slots=True)
class Work:
    """What one transaction does."""

    pieces: list[Piece] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    used: set[tuple[bytes, int]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    written_bytes: int
    evicted_bytes: int
    stored_bytes: int
    """What the directory holds now."""

    no_room: bool
    """The limits left no place for the pieces."""


class DiskCache:
    """The chunks of one directory. Methods raise OSError, sqlite3.Error or UnusableDirectory.

    Shared by mounts without a word between them: a row says what is there, and only rows count.
    """

    def __init__(self, directory: CacheDirectory, *, limit_bytes: int) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self._idle: queue.SimpleQueue[tuple[Index, int]] = queue.SimpleQueue()

    def open(self) -> Totals:
        """Create what is missing, and begin anew where the index is broken or of another format."""
        self.directory.prepare()
        try:
            with self._index() as index:
                return index.totals()
        except (WrongFormat, sqlite3.DatabaseError) as exc:
            if isinstance(exc, sqlite3.DatabaseError) and not _is_broken(exc):
                raise
        self._begin_anew()
        with self._index() as index:
            return index.totals()

    def close(self) -> None:
        """End the connections that are idle."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait()[0].close()

    def held(self, version: bytes) -> dict[int, int]:
        """The bitmaps of the grains of a version, by chunk number."""
        with self._index() as index:
            return index.held(version)

    def version_bytes(self, version: bytes) -> int:
        """What there is of a version."""
        with self._index() as index:
            return index.version_bytes(version)

    def totals(self) -> Totals:
        """What there is of all versions."""
        with self._index() as index:
            return index.totals()

    def read(
        self, version: bytes, size_bytes: int, start: int, stop: int, buffer: memoryview
    ) -> memoryview:
        """The bytes from start on that are there and right, at most up to stop, in buffer.

        [start, stop) lies within one chunk; buffer has room for the grains around it. Fewer bytes
        than asked for mean that the next grain is missing, or is not what was written.
        """
        number = start // CHUNK_BYTES
        with self._index() as index:
            row = index.chunk(version, number)
        if row is None:
            return buffer[:0]
        first, last = grains_around(start, stop, size_bytes)
        try:
            got = chunk_file.read(
                self._path(version, number), first % CHUNK_BYTES, buffer[: last - first]
            )
        except FileNotFoundError:
            self.directory.chunks.stat()  # raises when it is more than this one file
            return buffer[:0]
        good = first + self._good_bytes(version, row, first, buffer[:got])
        return buffer[start - first : max(start, min(stop, good)) - first]

    def work(self, work: Work) -> Outcome:
        """Forget what is lost, note what was used, make room, and write; in one transaction."""
        with self._index() as index, index.writing():
            for lost in work.lost:
                self._forget(index, lost)
            index.touch(work.used)
            needed_bytes = sum(len(piece.data) for piece in work.pieces)
            evicted_bytes, has_room = 0, True
            if needed_bytes:
                evicted_bytes, has_room = self._make_room(index, needed_bytes)
            written_bytes = 0
            if has_room:
                for (version, number), pieces in _by_chunk(work.pieces):
                    written_bytes += self._write(index, version, number, pieces)
            return Outcome(written_bytes, evicted_bytes, index.stored_bytes(), not has_room)

    def clear(self) -> int:
        """Give up every chunk; mounts that use the directory go on. Returns bytes given up."""
        cleared_bytes = 0
        while True:
            with self._index() as index, index.writing():
                evicted_bytes = self._evict(index, SLACK_BYTES)
            if not evicted_bytes:
                return cleared_bytes
            cleared_bytes += evicted_bytes

    @contextlib.contextmanager
    def _index(self) -> Iterator[Index]:
        """A connection to the index that lies there now, for one thread at a time."""
        era = self.directory.era()
        index = self._idle_index(era)
        if index is None:
            index = Index(self.directory.index)
        try:
            yield index
        except sqlite3.Error:
            index.close()
            raise
        except BaseException:
            self._idle.put((index, era))
            raise
        self._idle.put((index, era))

    def _idle_index(self, era: int) -> Index | None:
        """A connection that nobody uses; those to an index thrown away are closed."""
        with contextlib.suppress(queue.Empty):
            while True:
                index, opened_in = self._idle.get_nowait()
                if opened_in == era:
                    return index
                index.close()
        return None

    def _begin_anew(self) -> None:
        """Throw everything away, unless another mount has just done so."""
        self.close()
        with open(self.directory.lock, encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                Index(self.directory.index).close()
            except (WrongFormat, sqlite3.DatabaseError):
                for suffix in ("", "-wal", "-shm"):
                    path = self.directory.index
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                shutil.rmtree(self.directory.chunks, ignore_errors=True)
                self.directory.prepare()
                self.directory.begin_era()

    def _path(self, version: bytes, number: int) -> Path:
        return self.directory.chunks / chunk_name(version, number)

    @staticmethod
    def _good_bytes(version: bytes, row: ChunkRow, first: int, data: memoryview) -> int:
        """How much of data, from its front, is held and right; first is the offset of a grain."""
        place = first % CHUNK_BYTES // GRAIN_BYTES
        digests = grain_digests(data, version, first)
        known = row.digests[place * DIGEST_BYTES : place * DIGEST_BYTES + len(digests)]
        is_held = row.held >> place
        good_bytes = 0
        for at in range(0, len(digests), DIGEST_BYTES):
            if not is_held & 1 or digests[at : at + DIGEST_BYTES] != known[at : at + DIGEST_BYTES]:
                break
            is_held >>= 1
            good_bytes += GRAIN_BYTES
        return min(good_bytes, len(data))

    def _write(self, index: Index, version: bytes, number: int, pieces: Sequence[Piece]) -> int:
        """Write what is not there yet of one chunk: first the bytes, then what says so."""
        row = index.chunk(version, number) or EMPTY_ROW
        held, digests = row.held, bytearray(row.digests)
        parts = []
        for piece in pieces:
            grains = bits(piece.start, piece.start + len(piece.data))
            if held & grains == grains:
                continue
            held |= grains
            parts.append((piece.start % CHUNK_BYTES, piece.data))
            place = piece.start % CHUNK_BYTES // GRAIN_BYTES * DIGEST_BYTES
            fresh = grain_digests(piece.data, version, piece.start)
            digests[place : place + len(fresh)] = fresh
        if not parts:
            return 0
        chunk_file.write(self._path(version, number), sorted(parts, key=itemgetter(0)))
        written_bytes = sum(len(data) for _, data in parts)
        stored_bytes = min(row.stored_bytes + written_bytes, CHUNK_BYTES)
        index.put(version, number, ChunkRow(held, bytes(digests), stored_bytes))
        return written_bytes

    def _forget(self, index: Index, lost: Lost) -> None:
        row = index.chunk(lost.version, lost.number)
        if row is None:
            return
        held = row.held & ~lost.grains
        if held:
            stored_bytes = min(row.stored_bytes, held.bit_count() * GRAIN_BYTES)
            index.put(lost.version, lost.number, ChunkRow(held, row.digests, stored_bytes))
        else:
            self._remove(index, lost.version, lost.number)

    def _remove(self, index: Index, version: bytes, number: int) -> None:
        # The file first: a row without a file is noticed, a file without a row would stay.
        self._path(version, number).unlink(missing_ok=True)
        index.remove(version, number)

    def _make_room(self, index: Index, needed_bytes: int) -> tuple[int, bool]:
        """Give up chunks until needed_bytes fit both limits; (bytes given up, whether they fit)."""
        room_bytes = min(self.directory.free_bytes(), self.limit_bytes - index.stored_bytes())
        if room_bytes >= needed_bytes:
            return 0, True
        evicted_bytes = self._evict(index, needed_bytes - room_bytes + SLACK_BYTES)
        return evicted_bytes, room_bytes + evicted_bytes >= needed_bytes

    def _evict(self, index: Index, wanted_bytes: int) -> int:
        """Give up chunks, least recently used first, until they come to wanted_bytes."""
        evicted_bytes = 0
        while evicted_bytes < wanted_bytes:
            oldest = index.least_recently_used(EVICTED_AT_ONCE)
            if not oldest:
                break
            for version, number, stored_bytes in oldest:
                self._remove(index, version, number)
                evicted_bytes += stored_bytes
                if evicted_bytes >= wanted_bytes:
                    break
        return evicted_bytes


def _is_broken(exc: sqlite3.DatabaseError) -> bool:
    return getattr(exc, "sqlite_errorcode", None) in _BROKEN


def _by_chunk(pieces: Iterable[Piece]) -> Iterator[tuple[tuple[bytes, int], list[Piece]]]:
    groups: dict[tuple[bytes, int], list[Piece]] = {}
    for piece in pieces:
        for number, start, stop in per_chunk(piece.start, piece.start + len(piece.data)):
            data = piece.data[start - piece.start : stop - piece.start]
            groups.setdefault((piece.version, number), []).append(Piece(piece.version, start, data))
    yield from groups.items()
