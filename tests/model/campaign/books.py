"""The judge's own books: what was written, what was promised of it, and what may have ended it.

Nothing here knows how the program works, nor depends on how long something takes. What is
demanded:

torn      Every object, and every read, consists of cells that were written at that place. Where
          there is a cell of a file that was opened with O_TRUNC, there is none of a write that had
          ended before it was opened; and of the writes through one handle none is missing before
          one that is there, unless something else may have covered or cut it.
lost      A write is promised from the first fsync, flush or close of its handle that succeeds, or
          fails for another reason than the local disk. A promised cell is in S3, pending in a
          living mount, or in a record that `recover` lists; or it has ended: in S3 by a change of
          that key during an operation that may do that, and that had not ended when the cell came
          to S3; on the disk by such an operation of its own mount that had not ended when its file
          was opened. An operation that was cut short by a kill, or a handle whose close failed,
          may still do in S3 later what it was to do.
unlisted  What is only on the disk is shown as pending while its mount lives.
unseen    On servers with conditions no mount replaces an object of somebody else of which it has
          not been shown the ETag: in a listing, an answer to a question, or by reading it.
wrong     Where no operation touched a path while another did, and none of its mount is left over,
          the path is what the operation has made: S3 has exactly that when a close, unlink or
          rename has returned, it does not change by itself, and reads show it.
stale     The same where another mount or client has been there long enough before, so that who
          asks before a change would have known.
stump     After a write that failed for want of space nothing of it becomes the object unless a
          later write succeeds.
hidden    No file and directory of one name exist, unless who made them did so within a second.
refused   Without any trouble, and where only its own mount changes a path, an operation that no
          rule forbids succeeds.
"""

import itertools
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import inf

from stsfs.errors import AlreadyExists, StagingFailure, StagingFull
from tests.model.campaign.cells import CELL_BYTES, HOLE, Torn, decode

TRUSTED_S = 1.0
"""A listing that was begun so long ago may decide a change."""

TRACE = bool(os.environ.get("STSFS_TRACE"))
"""Whether what happens is printed."""

PATH_LENGTH_MAX = 40
"""Beyond this a path is only thought of: by renames of a name into itself that overlap."""

DISK_ERRORS = (StagingFull, StagingFailure)


def touches(one, other):
    """Whether one path is the other, or lies below it."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


class Violation(Exception):
    """The program has done what it must not; `what` is the word for it above."""

    def __init__(self, what, text):
        super().__init__(f"{what}: {text}")
        self.what = what


@dataclass(eq=False)
class Op:
    """One operation on some paths, from its beginning to its end."""

    mount: str | None
    name: str
    paths: list
    start: int
    begun_s: float
    end: float = inf
    is_alone: bool = True
    prior: dict = field(default_factory=dict)
    """What these paths were known to be when it began."""

    haunted: set = field(default_factory=set)
    """Mounts that had something left over at these paths."""

    def __repr__(self):
        alone = "alone" if self.is_alone else ""
        return f"{self.mount}:{self.name} {self.paths} @{self.start} {alone} {self.haunted or ''}"


@dataclass(eq=False)
class Ending:
    """What may end cells [first, stop) of a path: here until `end`, in S3 until `late`."""

    mount: str | None
    path: str
    first: int
    stop: float
    start: int
    end: float = inf
    late: float = inf
    session: object = None

    def covers(self, index):
        return self.first <= index < self.stop


@dataclass(eq=False)
class Write:
    """One write through a handle."""

    session: object
    number: int
    first: int
    count: int
    start: int
    end: float = inf
    is_done: bool = False
    promised: float = inf


@dataclass(eq=False)
class Move:
    """A rename that has, or may have, happened."""

    mount: str | None
    old: str
    new: str
    start: int
    end: float = inf
    is_cut: bool = False
    """Its mount was killed: another one will finish it, or undo it."""

    @property
    def is_under_way(self):
        """Whether somebody waits for its end."""
        return self.end == inf and not self.is_cut


class Books:
    """Keeps the books of one history. All of it is called by the players, none is a checkpoint."""

    def __init__(self, now_s, *, conditions):
        self.now_s, self.conditions = now_s, conditions
        self.objects = None
        self.shown = {}
        self.violations = []
        self.changes = []
        self._ticks, self._numbers = itertools.count(1), itertools.count(1)
        self.writes = {}
        self.endings = []
        self.moves = []
        self.running = []
        self.known = {}
        self.known_by = {}
        self.owner = {}
        self.leftovers = defaultdict(set)
        self.there = Counter()
        self.came = {}
        self.was = {}
        """When a cell was last at a key."""

        self.sessions = []
        self.is_troubled = False
        self.made_s = {}
        self._decoded = {}

    def tick(self):
        return next(self._ticks)

    def violate(self, what, text):
        self.note("VIOLATION", what, text)
        self.violations.append(Violation(what, text))

    # Operations.

    def begin(self, mount, name, *paths):
        """An operation on these paths begins."""
        op = Op(mount, name, [], self.tick(), self.now_s())
        self.running.append(op)
        self.extend(op, *paths)
        self.note("begin", op)
        return op

    def note(self, what, *details):
        """For people who look at one history."""
        if TRACE:
            print(f"{self.now_s():9.2f}", what, *details)

    def extend(self, op, *paths):
        """It touches these as well from now on."""
        for path in paths:
            if path in op.paths or len(path) > PATH_LENGTH_MAX:
                continue
            op.paths.append(path)
            for other in self.running:
                if other is not op and any(touches(path, each) for each in other.paths):
                    op.is_alone = other.is_alone = False
            for move in self.moves:
                if move.is_under_way and (path == move.old or path.startswith(f"{move.old}/")):
                    self.extend(op, move.new + path.removeprefix(move.old))
            for each in self.known:
                if touches(each, path):
                    op.prior.setdefault(each, self.known[each])
            for each in [one for one in self.known if touches(one, path)]:
                del self.known[each]
            for each, mounts in self.leftovers.items():
                if touches(each, path):
                    op.haunted |= mounts

    def succeed(self, op, made=None):
        """It has returned; made: what paths are now, as far as that is certain."""
        self._end(op)
        if op.is_alone and not op.haunted - {op.mount}:
            for path, content in (made or {}).items():
                for each in [one for one in self.leftovers if one == path]:
                    self.leftovers.pop(each)
                self.known[path] = content
                self.known_by[path] = (op.mount, self.now_s())

    def fail(self, op, *, harmless=False, error=None):
        """It has failed; harmless: surely without having done anything."""
        self._end(op)
        self.note("failed", repr(error), op)
        if harmless:
            if op.is_alone and not op.haunted:
                self.known.update(op.prior)
        else:
            for path in op.paths:
                self.leftovers[path].add(op.mount)

    def _end(self, op):
        op.end = self.tick()
        self.note("end", op)
        if op in self.running:
            self.running.remove(op)

    def ending(self, mount, path, first=0, stop=inf, session=None):
        """Something begins that may end cells."""
        made = Ending(mount, path, first, stop, self.tick(), session=session)
        self.endings.append(made)
        return made

    def moving(self, mount, old, new):
        """A rename begins."""
        made = Move(mount, old, new, self.tick())
        self.moves.append(made)
        for other in list(self.running):  # who has it open goes on with it under the new name
            for path in [one for one in other.paths if one == old or one.startswith(f"{old}/")]:
                self.extend(other, new + path.removeprefix(old))
        return made

    # Writes and promises.

    def write(self, session, first, count):
        """A write begins; its `number` is what its cells are made with."""
        made = Write(session, next(self._numbers), first, count, self.tick())
        self.note("write", made.number, first, count, session)
        self.writes[made.number] = made
        return made

    def promise(self, session):
        """What was written through a handle must not be lost from now on."""
        now = self.tick()
        for each in session.writes:
            if each.is_done:
                each.promised = min(each.promised, now)

    def places(self, path, start):
        """Where a file that was at path may be, if that was not before `start`."""
        found = {path}
        for move in self.moves:
            if move.end >= start:
                for each in list(found):
                    if each == move.old or each.startswith(f"{move.old}/"):
                        found.add(move.new + each.removeprefix(move.old))
        return found

    def session_places(self, session):
        """Where the file of a handle may be."""
        return self.places(session.path, session.start)

    # Content.

    def cells(self, data, where):
        """The cells of a content, as (write, index); violations are noted."""
        found = self._decoded.get(data)
        if found is None:
            try:
                writes = decode(data)
            except Torn as exc:
                self.violate("torn", f"{where}: {exc}")
                writes = ()
            found = [(each, index) for index, each in enumerate(writes) if each != HOLE]
            self._decoded[data] = found
            self._check_order(found, where)
        return found

    def _check_order(self, cells, where):
        numbers = {number for number, _ in cells}
        unknown = [each for each in numbers if each not in self.writes]
        if unknown:
            self.violate("torn", f"{where}: has cells of {unknown}")
            return
        here = set(cells)
        sessions = dict.fromkeys(self.writes[each].session for each in sorted(numbers))
        for session in sessions:
            if session is None:
                continue
            if session.truncates:
                for number in numbers:
                    if self.writes[number].end < session.start:
                        self.violate("torn", f"{where}: write {number} ended before the O_TRUNC of"
                                     f" {session}")  # fmt: skip
            last = max(each for each in numbers if self.writes[each].session is session)
            for write in session.writes:
                if write.number < last and write.is_done:
                    self._check_whole(write, here, where)

    def _check_whole(self, write, here, where):
        for index in range(write.first, write.first + write.count):
            if (write.number, index) not in here and not self._may_be_covered(write, index):
                self.violate("torn", f"{where}: lacks cell {index} of write {write.number}, and has"
                             " a later one of its handle")  # fmt: skip
                return

    def _may_be_covered(self, write, index):
        places = self.session_places(write.session)
        return any(
            (each.path in places or each.session is write.session)
            and each.covers(index)
            and each.end >= write.start
            for each in self.endings
            if each.start != write.start
        )

    # Changes of the store.

    def changed(self, actor, method, key, before, after):
        """The store has another object at a key, or none."""
        self.changes.append((actor, method, key, after and after.etag))
        self.note(f"S3: {method} of {actor} made {key!r}", shape(after and after.data))
        if key.endswith("/") or (after is None and before is None):
            if after is not None:
                self._check_hidden(key.rstrip("/"), key, actor)
            return
        old = set(self.cells(before.data, key)) if before is not None else set()
        new = set(self.cells(after.data, key)) if after is not None else set()
        now = self.tick()
        for cell in new - old:
            self.there[cell] += 1
            self.came.setdefault(cell, now)
            self.was[cell, key] = inf
        gone = []
        for cell in old - new:
            self.there[cell] -= 1
            self.was[cell, key] = now
            if not self.there[cell]:
                gone.append(cell)
        self._check_gone(actor, key, gone, after)
        if after is not None:
            if before is not None:
                self._check_seen(actor, method, key, before)
            else:
                self._check_hidden(key, f"{key}/", actor)
            self.owner[key] = (actor, self.now_s())
            if actor is not None:
                self._check_stump(actor, key, after)
        self._check_still(key, after, actor)

    def _check_gone(self, actor, key, gone, after):
        for number, index in gone:
            write = self.writes[number]
            if write.promised == inf:
                continue
            came = self.came[number, index]
            if self._has_moved(actor, key, (number, index)):
                continue
            if not any(
                each.mount == actor
                and each.covers(index)
                and each.late >= came
                and _is_other(each, write)
                and (_is_own(each, write) or key in self.places(each.path, each.start))
                for each in self.endings
            ):
                size = None if after is None else len(after.data) // CELL_BYTES
                who = actor or "another client"
                self.violate("lost", f"{who} replaced {key!r} (now {size} cells):"
                             f" cell {index} of write {number} of {write.session}")  # fmt: skip
                return

    def _has_moved(self, actor, key, cell):
        """Whether a rename has put it elsewhere, where others may have ended it meanwhile."""
        return any(
            move.mount == actor
            and move.end == inf
            and (key == move.old or key.startswith(f"{move.old}/"))
            and self.was.get((cell, move.new + key.removeprefix(move.old)), 0) > move.start
            for move in self.moves
        )

    def _check_seen(self, actor, method, key, before):
        other, _ = self.owner.get(key, (None, 0.0))
        if actor is None or other == actor or not self.conditions:
            return
        if before.etag not in self.shown[actor][key]:
            self.violate("unseen", f"{method} of {actor} replaced {key!r} of {other or 'them'}")

    def _check_hidden(self, path, other, actor):
        """path is a file here, or below a prefix; the other kind must not be there as well."""
        is_both = path in self.objects and any(each.startswith(f"{path}/") for each in self.objects)
        made_s = self.made_s.setdefault((path, other), self.now_s())
        if is_both and actor is not None:
            begun_s = max(
                (
                    each.begun_s
                    for each in self.running
                    if any(touches(path, p) for p in each.paths)
                ),
                default=-inf,
            )
            earlier_s = min(
                (when for (each, _), when in self.made_s.items() if each == path), default=made_s
            )
            if begun_s > earlier_s + TRUSTED_S:
                self.violate("hidden", f"{path!r} is a file and a directory")

    def _check_stump(self, actor, key, after):
        for session in self.sessions:
            if session.mount == actor and session.is_hurt and key in self.session_places(session):
                others = [
                    each for each in self.sessions
                    if each is not session and each.mount == actor and each.end >= session.start
                    and key in self.session_places(each)
                ]  # fmt: skip
                if not others:
                    size = len(after.data) // CELL_BYTES
                    self.violate("stump", f"{key!r} has {size} cells after a write of {session}"
                                 " failed")  # fmt: skip

    def _check_still(self, key, after, actor):
        if key in self.known and not self.leftovers.get(key):
            data = None if after is None else after.data
            if self.known[key] != data:
                self.violate("wrong", f"{key!r} was changed by {actor} when nobody did anything")

    def word_for(self, op, path):
        """What it is called when an operation does not know how a path was before it.

        None where it need not know yet.
        """
        mount, since_s = self.known_by.get(path, (None, 0.0))
        if mount == op.mount:
            return "wrong"
        return "stale" if op.begun_s > since_s + TRUSTED_S else None

    def expect(self, op, path):
        """After an operation that was alone: S3 has what is known."""
        if path not in self.known or self.leftovers.get(path):
            return
        stored = self.objects.get(path)
        data = None if stored is None else stored.data
        if data != self.known[path]:
            by, since_s = (
                self.owner.get(path, (op.mount, 0.0)) if data is not None else (op.mount, 0)
            )
            if by != op.mount and op.begun_s <= since_s + TRUSTED_S:
                return
            what = "wrong" if by == op.mount else "stale"
            self.violate(what, f"S3 has {shape(data)} at {path!r}, not {shape(self.known[path])}")

    # What is left on the disk.

    def check_kept(self, mount, pending, on_disk, since=inf):
        """Every promised cell that a mount has taken is somewhere.

        pending: paths that it shows as such while it lives, for the files of its handles since a
        tick; on_disk(): cells in records.
        """
        found = None
        for write in self.writes.values():
            session = write.session
            if write.promised == inf or session is None or session.mount != mount:
                continue
            places = None
            for index in range(write.first, write.first + write.count):
                cell = (write.number, index)
                if cell in self.came:
                    continue
                places = places or self.session_places(session)
                if places.intersection(pending):
                    break
                if any(
                    each.mount == mount
                    and (each.path in places or each.session is session)
                    and each.covers(index)
                    and each.end >= session.start
                    and _is_other(each, write)
                    for each in self.endings
                ):
                    continue
                found = on_disk() if found is None else found
                if cell not in found:
                    self.violate("lost", f"cell {index} of write {write.number} of {session} is"
                                 " neither in S3 nor on the disk")  # fmt: skip
                    return
                if session.start >= since:
                    self.violate("unlisted", f"write {write.number} of {session} waits on the disk,"
                                 " and no status shows it")  # fmt: skip
                    return

    def killed(self, mount):
        """A mount has been killed: what was under way may be finished by the next one, or not."""
        for op in [each for each in self.running if each.mount == mount]:
            self._end(op)
            for path in op.paths:
                self.leftovers[path].add(f"{mount}!")
        for move in self.moves:
            move.is_cut |= move.mount == mount and move.end == inf
        for path in [one for one, mounts in self.leftovers.items() if mount in mounts]:
            self.leftovers[path].add(f"{mount}!")  # and no later operation knows of it
        now = self.tick()
        for each in (*self.endings, *self.sessions):
            if each.mount == mount and each.end == inf:
                each.end = now

    def left(self, path):
        """Whether something may be left over there."""
        return any(mounts for each, mounts in self.leftovers.items() if touches(each, path))


def _is_other(ending, write):
    """Whether it may end the cells of a write: its own handle only what it wrote before."""
    return not _is_own(ending, write) or ending.start > write.start


def _is_own(ending, write):
    """Whether both are of one handle."""
    return write.session is not None and ending.session is write.session


def shape(data):
    """A content in few words."""
    if data is None:
        return "nothing"
    runs = []
    try:
        for number in decode(data):
            if runs and runs[-1][0] == number:
                runs[-1][1] += 1
            else:
                runs.append([number, 1])
    except Torn as exc:
        return f"[{exc}]"
    return "[" + " ".join(f"{number}*{count}" for number, count in runs) + "]"


def is_of_disk(error):
    """Whether an error promises nothing about the bytes."""
    return isinstance(error, DISK_ERRORS)


def is_harmless(error):
    """Whether an operation on names that ends so has done nothing."""
    return isinstance(error, (AlreadyExists, FileExistsError, FileNotFoundError))
