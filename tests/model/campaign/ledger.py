"""The books of a history as they are kept: operations, what may end cells, promises."""

import itertools
import os
from collections import Counter, defaultdict
from math import inf

from tests.model.campaign.entries import Ending, Move, Op, Violation, Write, touches

TRUSTED_S = 1.0
"""A listing that was begun so long ago may decide a change."""

TRACE = bool(os.environ.get("STSFS_TRACE"))
"""Whether what happens is printed."""

PATH_LENGTH_MAX = 40
"""Beyond this a path is only thought of: by renames of a name into itself that overlap."""


class Ledger:
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
        self.born_s = {}
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
        for path in [one for one in self.leftovers if one == old or one.startswith(f"{old}/")]:
            self.leftovers[new + path.removeprefix(old)] |= self.leftovers[path]
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

    def reach(self, ending):
        """Where what it may end can be."""
        session = ending.session
        if not self.moves:
            return {ending.path}
        found = self.places(ending.path, ending.start)
        return found if session is None else found | self.session_places(session)

    def session_places(self, session):
        """Where the file of a handle may be."""
        return self.places(session.path, session.start)

    def word_for(self, op, path):
        """What it is called when an operation does not know how a path was before it.

        None where it need not know yet.
        """
        mount, since_s = self.known_by.get(path, (None, 0.0))
        if mount == op.mount:
            return "wrong"
        return "stale" if op.begun_s > since_s + TRUSTED_S else None

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
