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
          asks before a change would have known, and had nothing of its own there.
stump     After a write that failed for want of space nothing of it becomes the object unless a
          later write succeeds, or the file is cut off before it.
hidden    No file and directory of one name exist, unless who made them did so within a second.
refused   Without any trouble, and where only its own mount changes a path, an operation that no
          rule forbids succeeds.
"""

from math import inf

from stsfs.errors import AlreadyExists, StagingFailure, StagingFull
from tests.model.campaign.cells import CELL_BYTES, HOLE, Torn, decode, shape
from tests.model.campaign.entries import is_other, is_own, touches
from tests.model.campaign.ledger import TRUSTED_S, Ledger

OWN_NAMES = ".stsfs"
"""How the names of objects begin that the program makes for itself."""

DISK_ERRORS = (StagingFull, StagingFailure)


class Books(Ledger):
    """Judges what the ledger is told of. All of it is called by the players, none a checkpoint."""

    # Content.

    def cells(self, data, where, since=inf):
        """The cells of a content, as (write, index); violations are noted.

        since: of a read, when it began. It is no more atomic than any read: what was cut or written
        meanwhile it may show in part.
        """
        found = self._decoded.get(data)
        if found is None:
            try:
                writes = decode(data)
            except Torn as exc:
                self.violate("torn", f"{where}: {exc}")
                writes = ()
            found = [(each, index) for index, each in enumerate(writes) if each != HOLE]
            if since == inf:
                self._decoded[data] = found
            self._check_order(found, where, since)
        return found

    def _check_order(self, cells, where, since):
        numbers = {number for number, _ in cells}
        unknown = [each for each in numbers if each not in self.writes]
        if unknown:
            self.violate("torn", f"{where}: has cells of {unknown}")
            return
        here = set(cells)
        sessions = dict.fromkeys(self.writes[each].session for each in sorted(numbers))
        for session in sessions:
            if session is None or any(each.end > since for each in session.writes):
                continue
            if session.truncates and session.opened < since:
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
            each.covers(index)
            and each.end >= write.start
            and (each.session is write.session or not places.isdisjoint(self.reach(each)))
            for each in self.endings
            if each.start != write.start
        )

    # Changes of the store.

    def changed(self, actor, method, key, before, after):
        """The store has another object at a key, or none."""
        self.changes.append((actor, method, key, after and after.etag))
        self.note(f"S3: {method} of {actor} made {key!r}", shape(after and after.data))
        if key.rpartition("/")[2].startswith(OWN_NAMES):
            return
        if key.endswith("/") or (after is None and before is None):
            if after is not None:
                self._check_hidden(key, actor)
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
                self._check_hidden(key, actor)
            self.owner[key] = (actor, self.now_s())
            if actor is not None and method != "copy":  # which makes nothing that was not there
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
                and is_other(each, write)
                and (is_own(each, write) or key in self.reach(each))
                for each in self.endings
            ):
                size = None if after is None else len(after.data) // CELL_BYTES
                who = actor or "another client"
                self.violate("lost", f"{who} replaced {key!r} (now {size} cells):"
                             f" cell {index} of write {number} of {write.session}")  # fmt: skip
                return

    def _has_moved(self, actor, key, cell):
        """Whether a rename has copied it, and others may have ended it at the other name meanwhile.

        That is the new name where the old one is removed, and the old one where copies are undone.
        """
        for move in self.moves:
            if move.mount != actor or move.end != inf:
                continue
            for here, there in ((move.old, move.new), (move.new, move.old)):
                is_below = key == here or key.startswith(f"{here}/")
                other = there + key.removeprefix(here)
                if is_below and self.was.get((cell, other), 0) > move.start:
                    return True
        return False

    def _check_seen(self, actor, method, key, before):
        other, _ = self.owner.get(key, (None, 0.0))
        if actor is None or other == actor or not self.conditions:
            return
        if before.etag not in self.shown[actor][key]:
            self.violate("unseen", f"{method} of {actor} replaced {key!r} of {other or 'them'}")

    def _check_hidden(self, key, actor):
        """A key is made: whatever hides it, or is hidden by it, must have been made just now.

        Where a name was a file and a directory before, another key below makes nothing worse.
        """
        self.born_s[key] = self.now_s()
        name = key.rstrip("/")
        ways = [
            name[:at]
            for at, each in enumerate(name)
            if each == "/" and not self._is_directory_beside(name[:at], key)
        ]
        if key.endswith("/"):
            others = {name, *ways}
        else:
            others = {*ways, *(each for each in self.objects if each.startswith(f"{name}/"))}
        here = [self.born_s[each] for each in others if each in self.objects]
        begun_s = [
            op.begun_s
            for op in self.running
            if op.mount == actor and any(touches(name, path) for path in op.paths)
        ]
        if here and begun_s and actor and min(begun_s) > min(here) + TRUSTED_S:
            self.violate("hidden", f"{key!r} makes a file and a directory of one name")

    def _is_directory_beside(self, path, key):
        return any(each.startswith(f"{path}/") and each != key for each in self.objects)

    def _check_stump(self, actor, key, after):
        for session in self.sessions:
            # Where it surely is: of a rename that failed nobody knows what it has done.
            is_its = session.mount == actor and key == session.name
            if is_its and session.is_hurt:
                others = [
                    each for each in self.sessions
                    if each is not session and each.mount == actor and each.end >= session.start
                    and key in self.session_places(each)
                ]  # fmt: skip
                if not others and not self._is_cut_off(session):
                    size = len(after.data) // CELL_BYTES
                    self.violate("stump", f"{key!r} has {size} cells after a write of {session}"
                                 " failed")  # fmt: skip

    def _is_cut_off(self, session):
        """Whether the file was cut off later before what the last write was to bring.

        truncate(2) makes another file of it in any case: by name, so nobody knows of the write.
        """
        last = session.writes[-1]
        places = self.session_places(session)
        return any(
            each.mount == session.mount
            and (each.first <= last.first or each.session is None)
            and each.stop == inf
            and each.end > last.start
            and not places.isdisjoint(self.reach(each))
            for each in self.endings
        )

    def _check_still(self, key, after, actor):
        if key in self.known and not self.leftovers.get(key):
            data = None if after is None else after.data
            if self.known[key] != data:
                self.violate("wrong", f"{key!r} was changed by {actor} when nobody did anything")

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
            # What only this mount had at that path may have hidden what another one has there.
            is_excused = op.begun_s <= since_s + TRUSTED_S or op.haunted
            if by != op.mount and is_excused:
                del self.known[path]
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
                    and each.covers(index)
                    and each.end >= session.start
                    and is_other(each, write)
                    and (each.session is session or not places.isdisjoint(self.reach(each)))
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


def is_of_disk(error):
    """Whether an error promises nothing about the bytes."""
    return isinstance(error, DISK_ERRORS)


def is_harmless(error):
    """Whether an operation on names that ends so has done nothing."""
    return isinstance(error, (AlreadyExists, FileExistsError, FileNotFoundError))
