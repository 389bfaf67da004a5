"""One staging file: bytes on the local disk, and beside them the record of what they are.

`ID.data` has the bytes, `ID.json` the record. The record is replaced in one step, and goes after
the data: whatever is interrupted, a record with data is a record of that data, and a record
without data is the rest of something that was given up.
"""

import contextlib
import functools
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stsfs.errors import ForeignPath, StagingFailure
from stsfs.owned_dir import open_file, shown
from stsfs.staging.descriptors import Descriptors
from stsfs.staging.punch import punch_hole
from stsfs.staging.record import DamagedRecord, Fields, Record, parse_json
from stsfs.staging.room import Room, translated
from stsfs.staging.spans import SPANS_MAX

DATA_SUFFIX, RECORD_SUFFIX, MOVE_SUFFIX, NEW_SUFFIX = ".data", ".json", ".move", ".new"

PUBLISHED_SUFFIX = ".published"
"""Of a record once S3 has the content: to rename it costs a tenth of writing another."""

RECORD_BYTES_MAX = 64 << 20
"""Beyond this a file is no record of ours: it is neither written nor read."""

UNKNOWN = "unknown"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as it lies on disk."""

    record: Record
    is_certain: bool
    """Whether the bytes are sure to be those that were written. They are not where the machine
    went down before they were forced to its disk: the record may be there, and bytes missing."""


class StagingFile:
    """The bytes of one file that is being written.

    Every method may block, and may be called by several threads at a time; they raise StagingFull
    and StagingFailure. Nothing may be called after `discard`.

    It holds a descriptor from its first use on, until it rests, or has not been used for longer
    than others when `descriptors` says that there are too many.
    """

    def __init__(
        self,
        stem: Path,
        room: Room,
        descriptor: int = -1,
        *,
        descriptors: Descriptors | None = None,
    ) -> None:
        self._room = room
        self._descriptors = Descriptors() if descriptors is None else descriptors
        # Texts, because a path object costs as much as a system call.
        self._data, self._record = f"{stem}{DATA_SUFFIX}", f"{stem}{RECORD_SUFFIX}"
        self._published = f"{stem}{PUBLISHED_SUFFIX}"
        self._was_published = False
        self._lock, self._keeping = threading.Lock(), threading.Lock()
        self._descriptor, self._users = descriptor, 0
        self._is_resting = self._is_discarded = self._is_nameless = False
        self._lost_errno: int | None = None
        self._was_durable = descriptor < 0  # nobody knows of one that somebody else has made

    @classmethod
    def create(
        cls, stem: Path, room: Room, *, descriptors: Descriptors | None = None
    ) -> "StagingFile":
        """Make an empty one, of a name that nobody has."""
        path = f"{stem}{DATA_SUFFIX}"
        room.take(0)
        with translated(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            made = cls(stem, room, os.open(path, flags, 0o600), descriptors=descriptors)
        with made._use():  # counted, and another one rests in its place
            return made

    @property
    def id(self) -> str:
        """What `stsfs recover` calls it."""
        return self.path.stem

    @property
    def path(self) -> Path:
        """The data file."""
        return Path(self._data)

    @property
    def record_path(self) -> Path:
        """The record."""
        return Path(self._record)

    def stored_bytes(self) -> int:
        """What it takes on the disk; holes take nothing."""
        with self._use() as descriptor:
            return os.fstat(descriptor).st_blocks * 512

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of data at offset."""
        view = memoryview(data).cast("B")
        self._room.take(len(view))
        with self._use() as descriptor:
            while view:
                count = os.pwrite(descriptor, view, offset)
                if not count:
                    raise StagingFailure(f"{shown(self._data)} takes no more bytes.")
                view, offset = view[count:], offset + count

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Bytes from offset on; fewer than size_bytes only at the end of the data file."""
        with self._use() as descriptor:
            pieces: list[bytes] = []
            while size_bytes and (data := os.pread(descriptor, size_bytes, offset)):
                pieces.append(data)
                offset, size_bytes = offset + len(data), size_bytes - len(data)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def truncate(self, size_bytes: int) -> None:
        """Give the data file another length; what is new of it reads as zeros."""
        with self._use() as descriptor:
            os.ftruncate(descriptor, size_bytes)

    def punch(self, start: int, stop: int) -> bool:
        """Give the disk back the bytes [start, stop), which read as zeros then; the length stays.

        False where the file system cannot do that. See fallocate(2), FALLOC_FL_PUNCH_HOLE.
        """
        with self._use() as descriptor:
            return punch_hole(descriptor, start, stop - start)

    def keep(self, record: Record, *, durable: bool = False) -> None:
        """Write the record, in one step, as that of the bytes written so far.

        It survives the end of this process; with durable, that of the machine, too.
        """
        with self._keeping:
            if durable:
                with self._use() as descriptor:
                    os.fdatasync(descriptor)
            # A durable record is not replaced by one that a crash of the machine could tear.
            sync = self._was_durable = durable or self._was_durable
            text = encode(record, durable=durable)
            if len(text) > RECORD_BYTES_MAX or len(record.present) > SPANS_MAX:
                raise StagingFailure(  # nobody could read it
                    f"{shown(self._data)} was written at too many places.",
                    remedy="Write the file from its beginning to its end.",
                )
            with translated(self._record):
                replace_file(self._record, text, sync=sync)
                if self._was_published:
                    os.unlink(self._published)
                    self._was_published = False

    def load(self) -> Kept | None:
        """The record as it was kept last; None if none was. Raises DamagedRecord."""
        with translated(self._record):
            return load(self.record_path)

    def settle(self) -> None:
        """S3 has the bytes that the record tells of: nobody is to publish them from here."""
        with self._keeping, translated(self._record), contextlib.suppress(FileNotFoundError):
            os.rename(self._record, self._published)
            self._was_published = True

    def discard(self) -> None:
        """Remove bytes and record: S3 has them, or nobody wants them."""
        with self._lock:
            self._is_discarded = self._is_resting = True
            self._close_if_unused()
        with translated(self._data):
            for path in (self._data, self._told):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def forget(self) -> None:
        """Remove both names: nobody publishes this any more, but its bytes go on being used.

        From here on it keeps its descriptor until `discard`.
        """
        with self._use():
            with self._lock:  # a rest that was asked for during this use does not come
                self._is_nameless, self._is_resting = True, False
                self._descriptors.bind(self)
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._told)

    def rest(self) -> None:
        """Give the descriptor back; the files stay, and the next use opens it again.

        Does nothing after `forget`: there is no name to open it by.
        """
        with self._lock:
            if not self._is_nameless:
                self._is_resting = True
                self._close_if_unused()

    @property
    def _told(self) -> str:
        """The record, under the name that it has now."""
        return self._published if self._was_published else self._record

    @contextlib.contextmanager
    def _use(self) -> Iterator[int]:
        """The descriptor, which is not closed meanwhile."""
        with translated(self._data):
            with self._lock:
                if self._is_discarded:
                    raise StagingFailure(f"{shown(self._data)} was given up.")
                if self._lost_errno is not None:
                    raise OSError(self._lost_errno, os.strerror(self._lost_errno))
                if self._descriptor < 0:
                    self._descriptor = open_file(self._data, os.O_RDWR)
                self._is_resting = False
                self._users += 1
                longest_idle = self._descriptors.used(self)
            try:
                if longest_idle is not None:
                    longest_idle.rest()
                yield self._descriptor
            finally:
                with self._lock:
                    self._users -= 1
                    self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_resting and not self._users and self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            self._descriptors.gone(self)
            try:
                os.close(descriptor)
            except OSError as exc:  # of bytes written before: whoever needs them next is told
                self._lost_errno = exc.errno


def encode(record: Record, *, durable: bool) -> bytes:
    """The text of a record on disk."""
    values = record.to_json()
    values["boot_id"] = None if durable else boot_id()
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def load(path: Path) -> Kept | None:
    """Undo `encode`; None if there is no such file. Raises DamagedRecord and OSError."""
    try:
        with open_record(path) as file:
            if os.fstat(file.fileno()).st_size > RECORD_BYTES_MAX:
                raise DamagedRecord("the record is too large to be one of ours")
            text = file.read()
    except FileNotFoundError:
        return None
    values = parse_json(text, "the record")
    written_at = Fields(values, "the record").optional_text("boot_id")
    is_certain = written_at is None or (written_at != UNKNOWN and written_at == boot_id())
    return Kept(Record.from_json(values), is_certain)


def open_record(path: Path) -> BinaryIO:
    """A record or a journal, to be read. Raises DamagedRecord for what is no file of ours alone,
    and OSError."""
    try:
        return open(open_file(path), "rb")
    except ForeignPath as exc:
        raise DamagedRecord(exc.sentence.rstrip(".")) from exc


def replace_file(path: str, text: bytes, *, sync: bool) -> None:
    """Write a file in one step; with sync it is on the disk afterwards. Raises OSError."""
    new = path + NEW_SUFFIX
    descriptor = os.open(
        new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        view = memoryview(text)
        while view:
            view = view[os.write(descriptor, view) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, path)
    if sync:
        sync_directory(Path(path).parent)


def sync_directory(path: Path) -> None:
    """Force the names in a directory to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@functools.cache
def boot_id() -> str:
    """What this run of the machine is called: of bytes in its memory, nothing outlives it."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return UNKNOWN
