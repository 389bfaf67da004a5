"""A cache directory as a thread sees it: reads that verify, writes that make room for themselves.

Everything here may block, so it is called in worker threads only; `tier` does that.
"""

import contextlib
import errno
import os
import queue
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from stsfs.cache.content import GRAIN_BYTES
from stsfs.cache.disk import chunk_file
from stsfs.cache.disk.directory import CHUNKS, CacheDirectory, OpenDirectory
from stsfs.cache.disk.index import EMPTY_ROW, ChunkRow, DamagedIndex, Index, Totals
from stsfs.cache.disk.layout import (
    CHUNK_BYTES,
    DIGEST_BYTES,
    bits,
    chunk_name,
    grain_digests,
    grain_seed,
    grains_around,
    per_chunk,
)
from stsfs.errors import ForeignPath
from stsfs.own_tables import ForeignSchema

SLACK_BYTES = 32 * 1024 * 1024
"""Given up beyond what is needed, so that not every write has to look for room."""

EVICTED_MAX = 256
"""Chunks given up in one transaction: other mounts wait for it."""

DISK_BLOCK_BYTES = 4096
ROW_BYTES = 4096
"""What a chunk takes beside its bytes: an inode and a row. It counts where objects are small."""

NO_KEY = b""
"""For those who count what there is, and clear it."""

_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG)


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


@dataclass(frozen=True, slots=True)
class _Connection:
    """A connection to an index, and what it was opened in."""

    index: Index
    directory: OpenDirectory
    era: int


class DiskCache:
    """The chunks of one directory. Methods raise OSError, sqlite3.Error or ForeignPath.

    Shared by mounts without a word between them: a row says what is there, and only rows count.
    The directory is opened once, and again only where it has been removed.
    """

    def __init__(self, directory: CacheDirectory, *, limit_bytes: int, key: bytes) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self.key = key
        """Of the user, see `cache_key`; the names of versions are made with it, too."""

        self._opened: OpenDirectory | None = None
        self._idle: queue.SimpleQueue[_Connection] = queue.SimpleQueue()
        self._broken_era: int | None = None

    def open(self) -> int:
        """Create what is missing, begin anew where the index was found broken; bytes stored."""
        if self._opened is None or self._opened.is_gone:
            self._opened = self.directory.create()
        else:
            self._opened.complete()
        try:
            if self._broken_era is None:
                return self.stored_bytes()
        except (sqlite3.DatabaseError, UnicodeDecodeError, ForeignPath):
            if self._broken_era is None:
                raise
        self._begin_anew(self._opened, self._broken_era)
        self._broken_era = None
        return self.stored_bytes()

    def close(self) -> None:
        """End the connections that are idle."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().index.close()

    def held(self, version: bytes) -> dict[int, int]:
        """The bitmaps of the grains of a version, by chunk number."""
        with self._index() as (index, _):
            return index.held(version)

    def stored_bytes(self) -> int:
        """What all chunks take."""
        with self._index() as (index, _):
            return index.stored_bytes()

    def totals(self) -> Totals:
        """What there is of all versions."""
        with self._index() as (index, _):
            return index.totals()

    def free_bytes(self) -> int:
        """See OpenDirectory.free_bytes."""
        return self._directory().free_bytes()

    def read(
        self, version: bytes, size_bytes: int, start: int, stop: int, buffer: memoryview
    ) -> memoryview | None:
        """The bytes from start on that are there and right, at most up to stop, in buffer.

        [start, stop) lies within one chunk; buffer has room for the grains around it. Fewer bytes
        than asked for mean that the next grain is not what was written; None, that the chunk is
        gone: given up by another mount, or unreadable.
        """
        number = start // CHUNK_BYTES
        with self._index() as (index, directory):
            row = index.chunk(version, number)
        if row is None:
            return None
        first, last = grains_around(start, stop, size_bytes)
        path = _path(version, number)
        try:
            got = chunk_file.read(
                directory.descriptor, path, first % CHUNK_BYTES, buffer[: last - first]
            )
        except OSError:
            directory.check_is_there()
            return None
        good = first + self._good_bytes(version, row, first, buffer[:got])
        return buffer[start - first : max(start, min(stop, good)) - first]

    def work(self, work: Work) -> Outcome:
        """Forget what is lost, note what was used, make room, and write; in one transaction."""
        with self._index() as (index, directory), index.writing():
            for lost in work.lost:
                _forget(index, directory, lost)
            index.touch(work.used)
            # Also where nothing is to be written: others may have filled the disk.
            needed_bytes = sum(map(_cost_bytes, work.pieces))
            evicted_bytes, has_room = self._make_room(index, directory, needed_bytes)
            written_bytes = 0
            if has_room:
                for (version, number), pieces in _by_chunk(work.pieces):
                    written_bytes += self._write(index, directory, version, number, pieces)
            no_room = not has_room and not evicted_bytes
            return Outcome(written_bytes, evicted_bytes, index.stored_bytes(), no_room)

    def clear(self) -> int:
        """Give up everything; mounts that use the directory go on. Returns bytes given up."""
        with self._index() as (index, directory), index.writing():
            stored_bytes = index.stored_bytes()
            index.remove_all()
            directory.put_chunks_aside()
        directory.remove_what_is_aside()
        return stored_bytes

    def _directory(self) -> OpenDirectory:
        """The open directory; opened, but not made, where nobody has done so."""
        if self._opened is None:
            self._opened = self.directory.open()
        return self._opened

    @contextlib.contextmanager
    def _index(self) -> Iterator[tuple[Index, OpenDirectory]]:
        """A connection to the index that lies there now, for one thread at a time."""
        directory = self._directory()
        era = directory.era()
        connection = self._idle_connection(directory, era)
        try:
            if connection is None:
                connection = _Connection(Index(directory.index()), directory, era)
            yield connection.index, directory
        except (sqlite3.Error, UnicodeDecodeError, ForeignPath) as exc:
            if connection is not None:
                connection.index.close()
            if _is_broken(exc):
                self._broken_era = era
            raise
        except BaseException:
            if connection is not None:
                self._idle.put(connection)
            raise
        self._idle.put(connection)

    def _idle_connection(self, directory: OpenDirectory, era: int) -> _Connection | None:
        """A connection that nobody uses; those to an index thrown away are closed."""
        with contextlib.suppress(queue.Empty):
            while True:
                connection = self._idle.get_nowait()
                if connection.directory is directory and connection.era == era:
                    return connection
                connection.index.close()
        return None

    def _begin_anew(self, directory: OpenDirectory, broken_era: int | None) -> None:
        """Throw everything away, unless another mount has done so since broken_era."""
        self.close()
        with directory.locked():
            if directory.era() == broken_era:
                directory.throw_away()
        directory.remove_what_is_aside()

    def _good_bytes(self, version: bytes, row: ChunkRow, first: int, data: memoryview) -> int:
        """How much of data, from its front, is held and right; first is the offset of a grain."""
        place = first % CHUNK_BYTES // GRAIN_BYTES
        digests = grain_digests(data, grain_seed(version, self.key), first)
        known = row.digests[place * DIGEST_BYTES : place * DIGEST_BYTES + len(digests)]
        is_held = row.held >> place
        good_bytes = 0
        for at in range(0, len(digests), DIGEST_BYTES):
            if not is_held & 1 or digests[at : at + DIGEST_BYTES] != known[at : at + DIGEST_BYTES]:
                break
            is_held >>= 1
            good_bytes += GRAIN_BYTES
        return min(good_bytes, len(data))

    def _write(
        self,
        index: Index,
        directory: OpenDirectory,
        version: bytes,
        number: int,
        pieces: Sequence[Piece],
    ) -> int:
        """Write what is not there yet of one chunk: first the bytes, then what says so."""
        row = index.chunk(version, number) or EMPTY_ROW
        seed = grain_seed(version, self.key)
        held, digests = row.held, bytearray(row.digests)
        parts = []
        for piece in pieces:
            grains = bits(piece.start, piece.start + len(piece.data))
            if held & grains == grains:
                continue
            held |= grains
            parts.append((piece.start % CHUNK_BYTES, piece.data))
            place = piece.start % CHUNK_BYTES // GRAIN_BYTES * DIGEST_BYTES
            fresh = grain_digests(piece.data, seed, piece.start)
            digests[place : place + len(fresh)] = fresh
        if not parts:
            return 0
        path = _path(version, number)
        try:
            chunk_file.write(directory.descriptor, path, sorted(parts, key=itemgetter(0)))
        except OSError:
            if row is EMPTY_ROW:  # without a row nobody would ever remove it
                with contextlib.suppress(OSError):
                    os.unlink(path, dir_fd=directory.descriptor)
            raise
        written_bytes = sum(len(data) for _, data in parts)
        stored_bytes = row.stored_bytes or ROW_BYTES
        stored_bytes += sum(len(data) + -len(data) % DISK_BLOCK_BYTES for _, data in parts)
        index.put(version, number, ChunkRow(held, bytes(digests), stored_bytes))
        return written_bytes

    def _make_room(
        self, index: Index, directory: OpenDirectory, needed_bytes: int
    ) -> tuple[int, bool]:
        """Give up chunks until needed_bytes fit both limits; (bytes given up, whether they fit)."""
        room_bytes = min(directory.free_bytes(), self.limit_bytes - index.stored_bytes())
        if room_bytes >= needed_bytes:
            return 0, True
        evicted_bytes = _evict(index, directory, needed_bytes - room_bytes + SLACK_BYTES)
        return evicted_bytes, room_bytes + evicted_bytes >= needed_bytes


def _path(version: bytes, number: int) -> str:
    """Of a chunk file, below the directory."""
    return f"{CHUNKS}/{chunk_name(version, number)}"


def _forget(index: Index, directory: OpenDirectory, lost: Lost) -> None:
    row = index.chunk(lost.version, lost.number)
    if row is None:
        return
    held = row.held & ~lost.grains
    if held:
        stored_bytes = min(row.stored_bytes, held.bit_count() * GRAIN_BYTES + ROW_BYTES)
        index.put(lost.version, lost.number, ChunkRow(held, row.digests, stored_bytes))
    else:
        _remove(index, directory, lost.version, lost.number)


def _remove(index: Index, directory: OpenDirectory, version: bytes, number: int) -> None:
    # The file first: a row without a file is noticed, a file without a row would stay.
    try:
        os.unlink(_path(version, number), dir_fd=directory.descriptor)
    except OSError as exc:
        if exc.errno == errno.EROFS:
            raise  # of anything else that ails one file the next eviction must not die
    index.remove(version, number)


def _evict(index: Index, directory: OpenDirectory, wanted_bytes: int) -> int:
    """Give up chunks, least recently used first, until they come to wanted_bytes."""
    evicted_bytes = 0
    for version, number, stored_bytes in index.least_recently_used(EVICTED_MAX):
        _remove(index, directory, version, number)
        evicted_bytes += stored_bytes
        if evicted_bytes >= wanted_bytes:
            break
    return evicted_bytes


def _is_broken(exc: sqlite3.Error | UnicodeDecodeError | ForeignPath) -> bool:
    if isinstance(exc, UnicodeDecodeError):
        return True  # the message of an error quotes a name in the file that is not text
    if isinstance(exc, ForeignPath):
        return True  # somebody who could write to the directory once has put it there
    # The low byte is the kind of an extended result code.
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    return isinstance(exc, DamagedIndex | ForeignSchema) or code in _BROKEN


def _cost_bytes(piece: Piece) -> int:
    return len(piece.data) + DISK_BLOCK_BYTES + ROW_BYTES


def _by_chunk(pieces: Iterable[Piece]) -> Iterator[tuple[tuple[bytes, int], list[Piece]]]:
    groups: dict[tuple[bytes, int], list[Piece]] = {}
    for piece in pieces:
        for number, start, stop in per_chunk(piece.start, piece.start + len(piece.data)):
            data = piece.data[start - piece.start : stop - piece.start]
            groups.setdefault((piece.version, number), []).append(Piece(piece.version, start, data))
    yield from groups.items()
