"""Changes of the attribute index on their way into it, and the journal that keeps them meanwhile.

A transaction for each chmod(2) would cost more than the call itself, so changes are written in
batches, a moment after the call was answered. Until then a line in a journal of the process has
them: it survives the process, however that ends (not a power cut, after which modes and times of
the last moments may be gone). Who opens the index next takes the lines over.

INDEX.changes-ID   lines of JSON, locked (flock) for as long as its process lives
"""

import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from stsfs.errors import ForeignPath
from stsfs.owned_dir import open_file
from stsfs.staging.attribute_rows import AttributeRows, Attributes, Location

FULL_BYTES = 8 << 20
"""When a process begins a new one."""

JOURNAL_BYTES_MAX = 512 << 20
"""Beyond this a file is no journal of ours: so much WAITING_MAX changes do not take."""

Kind = Literal["put", "forget", "move", "move_prefix"]

_KINDS: dict[str, Kind] = {each: each for each in get_args(Kind)}


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the index, as data."""

    kind: Kind
    location: Location
    values: tuple[str | int | None, ...]
    """The arguments of the method of AttributeRows that has this name."""

    def apply(self, rows: AttributeRows) -> None:
        """Do it. Raises sqlite3.Error."""
        match self.kind, self.values:
            case "put", (str(key), str(etag), int() | None as mode, int() | None as mtime_ns):
                rows.put(self.location, key, Attributes(etag, mode, mtime_ns))
            case "forget", (str(key),):
                rows.forget(self.location, key)
            case "move", (str(old), str(new), str(etag)):
                rows.move(self.location, old, new, etag)
            case "move_prefix", (str(old), str(new)):
                if old.endswith("/") and new.endswith("/"):
                    rows.move_prefix(self.location, old, new)

    @property
    def key(self) -> str:
        """The key that it sets, or removes."""
        return str(self.values[1 if self.kind.startswith("move") else 0])

    def to_line(self, number: int) -> bytes:
        """One line of a journal."""
        return json.dumps([number, self.kind, *self.location, *self.values]).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "tuple[int, Change] | None":
        """Undo `to_line`; None for anything else, as for a line that was torn."""
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            return None
        match values:
            case [int(number), str(kind), str(uri), str() | None as endpoint, *rest]:
                is_plain = all(each is None or isinstance(each, str | int) for each in rest)
                if (
                    kind in _KINDS
                    and len(rest) >= (2 if kind.startswith("move") else 1)
                    and is_plain
                ):
                    return number, cls(_KINDS[kind], (uri, endpoint), tuple(rest))
        return None


class ChangeJournal:
    """The journal of one process; used with a lock of its owner held. Methods raise OSError."""

    def __init__(self, index: Path) -> None:
        """To be called with the index locked: else it would be taken for that of a dead process."""
        self.id = secrets.token_hex(6)
        self._path = index.with_name(f"{index.name}.changes-{self.id}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._size_bytes = 0
        self._last = 0

    @property
    def is_full(self) -> bool:
        """Whether another one should be begun."""
        return self._size_bytes >= FULL_BYTES

    def add(self, number: int, change: Change) -> None:
        """Write a line; it survives this process when it returns. Takes some microseconds."""
        line = change.to_line(number)
        self._last = number
        if os.write(self._descriptor, line) != len(line):
            os.ftruncate(self._descriptor, self._size_bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size_bytes += len(line)

    def done(self, number: int) -> None:
        """The index has all changes up to this one."""
        if number >= self._last and self._size_bytes:
            os.ftruncate(self._descriptor, 0)
            self._size_bytes = 0

    def close(self) -> None:
        """Remove it; nobody adds to it any more."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def take_over(index: Path, rows: AttributeRows) -> int:
    """Do what processes that died had noted and not done; returns how many changes.

    To be called with the index locked. Raises OSError and sqlite3.Error; nothing is lost then.
    """
    count = 0
    for path in sorted(index.parent.glob(f"{index.name}.changes-*")):
        with _of_dead_process(path) as text:
            if text is None:
                continue
            journal_id = path.name.rpartition("-")[2]
            with rows.writing():
                count += _take_over(text, rows, journal_id)
                rows.note_done(journal_id, 1 << 62)  # if we die before it is removed
            path.unlink()
            with rows.writing():
                rows.forget_journal(journal_id)
    return count


def _take_over(text: bytes, rows: AttributeRows, journal_id: str) -> int:
    """Do what is not done yet, unless somebody else has set the key since its process last wrote.

    In one transaction. What its process wrote itself is not younger than that, and what is done
    here is younger than all that was there before.
    """
    noted, oldest_here = rows.done_of(journal_id), rows.age
    done, known_age = noted if noted is not None else (0, oldest_here)
    count = 0
    for line in text.splitlines():
        found = Change.from_line(line)
        if found is None or found[0] <= done:
            continue
        change = found[1]
        with suppress(OverflowError, UnicodeError):  # nothing that we have written
            if not known_age < rows.age_of(change.location, change.key) <= oldest_here:
                change.apply(rows)
                count += 1
    return count


@contextmanager
def _of_dead_process(path: Path) -> Iterator[bytes | None]:
    """What a journal has, held meanwhile; None if its process lives, or it has just gone.

    None also for what is no journal of ours: it stays where it is.
    """
    descriptor = -1
    with suppress(FileNotFoundError, ForeignPath):
        descriptor = open_file(path, bytes_max=JOURNAL_BYTES_MAX)
    if descriptor < 0:
        yield None
        return
    with open(descriptor, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file.read()
