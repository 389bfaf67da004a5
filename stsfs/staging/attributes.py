"""Modes and times that were set here, by key and ETag: an object store has no room for them.

One SQLite file of the user, shared by all mounts. Whatever goes wrong with it costs modes and
times, never data: it is begun anew where it is damaged, and done without where it cannot be used.
"""

import contextlib
import fcntl
import logging
import math
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from stsfs.errors import ForeignPath
from stsfs.owned_dir import OwnedDir, open_file
from stsfs.staging.attribute_changes import Change, ChangeJournal, Kind, take_over
from stsfs.staging.attribute_rows import (
    DATABASE_SUFFIXES,
    SURPLUS_SHARE,
    AttributeRows,
    Attributes,
    Location,
    directory_of,
    is_broken,
    remove_database,
)
from stsfs.supervisor import unfailing

log = logging.getLogger(__name__)

WAITING_MAX = 100_000
"""Changes that may wait for the disk; beyond them changes are dropped."""

BATCH_MAX = 1000
"""Changes in one transaction: other mounts wait for it."""

GATHER_S = 0.05
"""So long a change waits for others, unless somebody asks: a transaction costs more than a row."""

ANSWER_S = 30.0
"""For an answer of the disk: whoever lists does not hang with it."""

CLOSE_S = 5.0
"""At the end, for what still waits to be written: the journal has it for the next mount."""

ROWS_MAX = 1_000_000
TIME_LIMIT_NS = 1 << 63
QUIET_S = 3600.0
"""Between two warnings."""

_SILENT = "the disk does not answer"
_Answer = dict[str, Attributes]


@dataclass(frozen=True, slots=True)
class _Change:
    number: int
    """From 1, in the order in which they were asked for."""

    change: Change


@dataclass(frozen=True, slots=True)
class _Question:
    ask: Callable[[AttributeRows], _Answer]
    answer: "Future[_Answer]" = field(default_factory=Future)


_Task = _Change | _Question
Journal = ChangeJournal | None


class AttributeIndex:
    """What was set of files; see `AttributeRows` for what the rows mean.

    Changes return at once, from any thread, and survive this process from then on (see
    `attribute_changes`). They are written by a thread of ours in their order, a moment later;
    questions wait for the changes before them. Raises nothing. Blocks when it is made.
    """

    def __init__(self, path: Path, *, rows_max: int = ROWS_MAX) -> None:
        self._path, self._rows_max = path, rows_max
        self._waiting: queue.Queue[_Change | _Question | None] = queue.Queue(WAITING_MAX)
        self._rows: AttributeRows | None = None
        self._quiet_until_s = -math.inf
        self._uncounted = 0
        self._closing, self._is_closed = threading.Lock(), False
        self._hurry = threading.Event()
        self._journaling = threading.Lock()
        """Held while a change gets its number, its place in the queue and its line."""

        self._asked = 0
        self._journal = self._begin_journal()
        self._thread = threading.Thread(target=self._work, name="attributes", daemon=True)
        self._thread.start()

    def of_keys(self, location: Location, first_key: str, last_key: str) -> dict[str, Attributes]:
        """What is known of the keys from the first to the last, both in one directory.

        Nothing where the disk does not answer in time. Blocks; to be called in a thread.
        """
        assert directory_of(first_key) == directory_of(last_key)
        question = _Question(lambda rows: rows.of_keys(location, first_key, last_key))
        try:
            with self._closing:
                if self._is_closed:
                    return {}
                self._waiting.put(question, timeout=ANSWER_S)
                self._hurry.set()
            return question.answer.result(ANSWER_S)
        except (TimeoutError, queue.Full):
            self._warn(_SILENT)
            return {}

    def put(
        self,
        location: Location,
        key: str,
        etag: str,
        *,
        mode: int | None,
        mtime_ns: int | None,
    ) -> None:
        """Note what was set of a version, in place of what was known of the key."""
        if mtime_ns is not None and not -TIME_LIMIT_NS <= mtime_ns < TIME_LIMIT_NS:
            mtime_ns = None  # some three hundred years from 1970: SQLite has no place for it
        self._change("put", location, key, etag, mode, mtime_ns)

    def forget(self, location: Location, key: str) -> None:
        """Note that nothing is known of a key."""
        self._change("forget", location, key)

    def move(self, location: Location, old_key: str, new_key: str, new_etag: str) -> None:
        """Note that an object has another key now, and this ETag."""
        self._change("move", location, old_key, new_key, new_etag)

    def move_prefix(self, location: Location, old_prefix: str, new_prefix: str) -> None:
        """Note that all below old_prefix (`dir/`) is below new_prefix now, with the ETags it has.

        The directory's own key `dir/` is moved as well.
        """
        self._change("move_prefix", location, old_prefix, new_prefix)

    def close(self) -> None:
        """Write what waits, and end: what is set later is lost. Blocks.

        Where the disk does not take it in time, it stays in the journal for the next mount.
        """
        with self._closing:
            self._is_closed = True
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=CLOSE_S)
            self._hurry.set()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._warn(_SILENT)

    def _change(self, kind: Kind, location: Location, *values: str | int | None) -> None:
        with self._journaling:
            change = Change(kind, location, values)
            try:
                self._waiting.put_nowait(_Change(self._asked + 1, change))
            except queue.Full:
                self._warn("more is set than it can take")
                return
            self._asked += 1
            if self._journal is not None:
                try:
                    self._journal.add(self._asked, change)
                except OSError as exc:
                    self._warn(str(exc))

    def _begin_journal(self) -> ChangeJournal | None:
        """None where there is no place for it: what is set in the last moment may be lost then."""
        try:
            self._check_place()
            with self._locked():
                return ChangeJournal(self._path)
        except (OSError, ForeignPath) as exc:
            self._warn(str(exc))
            return None

    def _work(self) -> None:
        """The life of the thread that owns the connection."""
        is_open = True
        while is_open:
            batch = [self._waiting.get()]
            if isinstance(batch[0], _Change):
                self._hurry.wait(GATHER_S)
            self._hurry.clear()  # before the rest is taken: who sets it has put something there
            batch, journal, is_over = self._rest_of(batch)
            is_open = None not in batch
            tasks = [each for each in batch if each is not None]
            with unfailing("modes and times that were set"):  # who asks must hear something
                self._do_somehow(tasks, journal)
                self._end_journal(journal, tasks, is_over=is_over)
            for task in tasks:
                if isinstance(task, _Question) and not task.answer.done():
                    task.answer.set_result({})
        with unfailing("the end of modes and times that were set"):
            with (
                self._journaling
            ):  # nobody may write to a descriptor that is another file's by then
                journal, self._journal = self._journal, None
            self._end_journal(journal, (), is_over=True)
            self._end_connection()

    def _rest_of(self, batch: list[_Task | None]) -> tuple[list[_Task | None], Journal, bool]:
        """What waits behind it, the journal that has all of it, and whether that takes no more.

        A journal that is full is replaced by another; what was noted in it is done at once.
        """
        journal = self._journal
        if journal is not None and journal.is_full and (new := self._begin_journal()) is not None:
            with self._journaling:  # whatever is asked for from now on is in the new one
                self._journal = new
                while not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
            return batch, journal, True
        while len(batch) < BATCH_MAX and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        return batch, journal, False

    def _end_journal(self, journal: Journal, tasks: Sequence[_Task], *, is_over: bool) -> None:
        """It need not keep these any longer, also where they could not be done."""
        if journal is None:
            return
        try:
            if not is_over:
                with self._journaling:
                    journal.done(_last_number(tasks))
                return
            journal.close()
            if self._rows is not None:
                with self._rows.writing():
                    self._rows.forget_journal(journal.id)
        except (OSError, sqlite3.Error) as exc:
            self._warn(str(exc))

    def _do_somehow(self, tasks: Sequence[_Task], journal: Journal) -> None:
        """Do what was asked, in a new file if the old one is damaged, or not at all."""
        try:
            try:
                self._do(tasks, journal)
            except (sqlite3.Error, UnicodeDecodeError) as exc:
                if not is_broken(exc):
                    raise
                self._warn(str(exc))
                self._begin_anew()
                self._do(tasks, journal)
        except (sqlite3.Error, UnicodeDecodeError, OSError, ForeignPath) as exc:
            self._warn(str(exc))
            self._end_connection()

    def _do(self, tasks: Sequence[_Task], journal: Journal) -> None:
        rows = self._connected()
        changes = sum(isinstance(task, _Change) for task in tasks)
        answers = []
        # Questions alone wait for nobody.
        with rows.writing() if changes else contextlib.nullcontext():
            for task in tasks:
                if isinstance(task, _Change):
                    task.change.apply(rows)
                else:
                    answers.append((task.answer, task.ask(rows)))
            self._uncounted += changes
            if self._uncounted >= self._rows_max // SURPLUS_SHARE:
                rows.drop_oldest(self._rows_max)
                self._uncounted = 0
            if changes and journal is not None:
                rows.note_done(journal.id, _last_number(tasks))
        for future, answer in answers:  # now what they tell is there for other mounts, too
            future.set_result(answer)

    def _connected(self) -> AttributeRows:
        """A connection to the file that lies there now.

        Raises sqlite3.Error and OSError, and ForeignPath for what is not ours.
        """
        if self._rows is not None and not self._rows.is_current:
            self._end_connection()
        if self._rows is None:
            self._check_place()
            with self._locked():
                self._rows = AttributeRows(self._path)
                try:
                    take_over(self._path, self._rows)
                except OSError as exc:  # what a dead process has set stays where it is
                    self._warn(str(exc))
            if (journal := self._journal) is not None and self._rows.done_of(journal.id) is None:
                with self._rows.writing():
                    self._rows.note_done(journal.id, 0)
            self._uncounted = self._rows_max  # nobody has counted what was there
        return self._rows

    def _begin_anew(self) -> None:
        """Remove the file, unless another mount has done so. Raises sqlite3.Error and OSError."""
        with self._locked():
            if self._rows is None:
                try:
                    AttributeRows(self._path).close()
                except (sqlite3.DatabaseError, UnicodeDecodeError):
                    remove_database(self._path)
            elif self._rows.is_current:
                remove_database(self._path)
        self._end_connection()

    def _check_place(self) -> None:
        """Make the directory. Raises OSError, and ForeignPath for what others have put there."""
        with OwnedDir.open(self._path.parent, create=True, follow=True) as directory:
            for suffix in DATABASE_SUFFIXES:
                directory.check_file(self._path.name + suffix)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One mount at a time makes, or removes, the file: SQLite does not wait there."""
        lock = self._path.with_name(self._path.name + ".lock")
        with open(open_file(lock, os.O_RDWR | os.O_CREAT), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _end_connection(self) -> None:
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def _warn(self, why: str) -> None:
        now_s = time.monotonic()
        if now_s >= self._quiet_until_s:
            self._quiet_until_s = now_s + QUIET_S
            log.warning("modes and times that were set may be lost (%s): %s", self._path, why)


def _last_number(tasks: Sequence[_Task]) -> int:
    """That of the last change; 0 if there is none."""
    return max((each.number for each in tasks if isinstance(each, _Change)), default=0)
