"""What the actors of a history do, and what they tell the books of it."""

import os

import trio

from stsfs.errors import StsfsError
from tests.model.campaign.books import is_harmless, is_of_disk
from tests.model.campaign.cells import CELL_BYTES, encode, shape
from tests.model.campaign.entries import touches
from tests.model.campaign.history import DIRECTORIES

CUT = os.O_RDWR | os.O_CREAT | os.O_TRUNC
MODES = {
    "w": CUT,
    "x": os.O_RDWR | os.O_CREAT | os.O_EXCL,
    "a": os.O_RDWR | os.O_CREAT,
    "u": os.O_RDWR,
}
ERRORS = (StsfsError, OSError)
UNKNOWN = object()
NAMELESS = "\0"
"""Stands for the path of a file that has none."""

ALWAYS_THERE = ("b", "c")
"""Files of the top that no directory ever has the name of."""

BELIEVED_S = 31
"""How long the kernel may answer from what a mount has told it: --ttl, and a little."""


class Dead(Exception):
    """The mount that was asked has been killed."""


class Session:
    """One handle from open to close."""

    def __init__(self, books, mount, path, mode):
        self.mount, self.path, self.mode = mount, path, mode
        self.truncates = mode[0] in "wx"
        self.start, self.end = books.tick(), float("inf")
        self.opened = float("inf")
        self.writes = []
        self.is_hurt = False
        self.content = None
        """As it must be now, if that is known."""

        self.word = None
        self.name = path
        self.left_names = []
        books.sessions.append(self)

    def __repr__(self):
        return f"{self.mount}:{self.mode}:{self.path}@{self.start}"


class Player:
    """One process on a mount."""

    def __init__(self, life, books):
        self.life, self.books = life, books
        self.mount = None

    async def ask(self, call):
        """Make a system call; Dead if the mount was killed meanwhile, whatever comes of it."""
        try:
            return await call
        finally:
            if self.life.is_dead:
                raise Dead

    async def do(self, step):
        """One step; the errors of the mount are its business."""
        self.mount = self.life.kernel
        await getattr(self, step.op)(step.actor, *step.args)

    async def sleep(self, _, seconds):
        await self.ask(trio.sleep(seconds))

    # Files.

    async def session(self, actor, path, mode, acts):
        books, name = self.books, self.life.name
        op = books.begin(name, "session", path)
        session = Session(books, name, path, mode)
        cut = books.ending(name, path, session=session) if session.truncates else None
        flags = MODES[mode[0]] | (os.O_DIRECT if mode.endswith("d") else 0)
        try:
            descriptor = await self.ask(self.mount.open(path, flags))
        except ERRORS as exc:
            session.end = books.tick()
            if cut is not None:
                cut.end = cut.late = session.end
            self.refused(op, session, exc)
            books.fail(op, harmless=is_harmless(exc), error=exc)
            return
        session.opened = books.tick()
        if cut is not None:
            cut.end = session.opened
        self.note_opened(op, session)
        error = await self.acts(op, session, descriptor, acts)
        await self.close(op, session, descriptor, error)

    def note_opened(self, op, session):
        path, mode = session.path, session.mode[0]
        before = op.prior.get(path, UNKNOWN) if self.is_sure(op) else UNKNOWN
        session.word = word = self.books.word_for(op, path)
        if before is not UNKNOWN and word is not None:
            if mode == "x" and before is not None:
                self.books.violate(word, f"O_EXCL made {path!r}, which is there")
            elif mode == "u" and before is None:
                self.books.violate(word, f"{path!r} was opened, which is not there")
        if session.truncates:
            session.content, session.word = bytearray(), "wrong"
        elif before is not UNKNOWN and word is not None:
            session.content = bytearray(before or b"")

    def is_sure(self, op):
        return op.is_alone and not op.haunted

    async def acts(self, op, session, descriptor, acts):
        """All acts until one fails; its error."""
        position = 0
        if session.mode[0] == "a":
            node = await self.ask(self.mount.vfs.attributes(descriptor.inode))
            position = node.size_bytes // CELL_BYTES
        for act, *args in acts:
            try:
                if act == "write":
                    await self.write(session, descriptor, position, args[0])
                    position += args[0]
                elif act == "put":
                    await self.write(session, descriptor, *args)
                else:
                    await getattr(self, f"act_{act}")(op, session, descriptor, *args)
            except ERRORS as exc:
                return exc
        return None

    async def write(self, session, descriptor, first, count):
        books = self.books
        name = session.name or NAMELESS
        ending = books.ending(session.mount, name, first, first + count, session)
        made = books.write(session, first, count)
        ending.start = made.start
        session.writes.append(made)
        data = encode(made.number, first, count)
        try:
            await self.ask(self.mount.write(descriptor, data, first * CELL_BYTES))
        except ERRORS as exc:
            session.is_hurt = is_of_disk(exc)
            session.content = None
            raise
        finally:
            if not self.life.is_dead:
                made.end = ending.end = books.tick()
        made.is_done, session.is_hurt = True, False
        if (content := session.content) is not None:
            start = first * CELL_BYTES
            content.extend(bytes(max(0, start - len(content))))
            content[start : start + len(data)] = data

    async def act_fsync(self, op, session, descriptor):
        await self.ask(self.mount.fsync(descriptor))
        self.books.promise(session)

    async def act_flush(self, op, session, descriptor):
        try:
            await self.ask(self.mount.flush(descriptor))
        except ERRORS as exc:
            if not is_of_disk(exc):
                self.books.promise(session)
            raise
        self.books.promise(session)

    async def act_read(self, op, session, descriptor):
        since = self.books.tick()
        data = await self.ask(self.mount.read(descriptor))
        self.books.cells(data, f"read of {session}", since)
        if session.content is not None and self.is_sure(op) and data != session.content:
            self.books.violate(session.word, f"{session} reads {shape(data)}, not"
                               f" {shape(bytes(session.content))}")  # fmt: skip

    async def act_cut(self, op, session, descriptor, count):
        name = session.name or NAMELESS
        ending = self.books.ending(session.mount, name, count, session=session)
        await self.ask(self.mount.cut(descriptor, count * CELL_BYTES))
        ending.end = self.books.tick()
        if (content := session.content) is not None:
            del content[count * CELL_BYTES :]
            content.extend(bytes(count * CELL_BYTES - len(content)))

    async def act_rename(self, op, session, descriptor, new):
        if session.name is None or session.name == new:
            return
        books, old = self.books, session.name
        books.extend(op, new)
        move, ending = books.moving(session.mount, old, new), books.ending(session.mount, new)
        await self.ask(self.mount.rename(old, new))
        move.end = ending.end = ending.late = books.tick()
        session.left_names.append(old)
        session.name = new

    async def act_unlink(self, op, session, descriptor):
        if session.name is None:
            return
        ending = self.books.ending(session.mount, session.name)
        await self.ask(self.mount.unlink(session.name))
        ending.end = ending.late = self.books.tick()
        session.left_names.append(session.name)
        session.name = None

    async def act_sleep(self, op, session, descriptor, seconds):
        await self.ask(trio.sleep(seconds))

    async def close(self, op, session, descriptor, error):
        books = self.books
        is_kept = True
        for end in (self.mount.flush, self.mount.release):
            try:
                await self.ask(end(descriptor))
            except ERRORS as exc:
                is_kept &= not is_of_disk(exc)
                error = error or exc
        session.end = books.tick()
        if is_kept:
            books.promise(session)
        if error is not None:
            self.refused(op, session, error)
            books.fail(op, error=error)
            return
        if op.is_alone:
            for each in books.endings:
                if each.session is session:
                    each.late = session.end
        made = dict.fromkeys(session.left_names)
        made.pop(session.name, None)  # it has come back
        if session.name is not None and session.content is not None:
            made[session.name] = bytes(session.content)
        books.succeed(op, made)
        if op.is_alone:
            for path in op.paths:
                books.expect(op, path)

    def refused(self, op, session, error):
        """An operation has failed: was there any reason?"""
        books, path, mode = self.books, session.path, session.mode[0]
        word = books.word_for(op, path)
        if books.is_troubled or not self.is_sure(op) or path not in ALWAYS_THERE:
            return
        before = op.prior.get(path, UNKNOWN)
        is_right = (mode == "x" and before is not None) or (mode == "u" and before is None)
        if before is UNKNOWN or is_right or len(op.paths) > 1 or session.name is None:
            return
        if mode == "x" and isinstance(error, FileExistsError):
            mount, since_s = books.known_by.get(path, (None, op.begun_s))
            if mount != op.mount and op.begun_s < since_s + BELIEVED_S:
                return  # the kernel's answer: no change depends on it
        if word == "wrong" or (word == "stale" and mode != "u"):
            what = "refused" if word == "wrong" else word
            books.violate(what, f"{mode!r} of {path!r}: {error!r}")

    async def save(self, actor, path, count):
        """As editors save: a new file in place of the old one."""
        new = f"{path}.{actor}"
        await self.session(actor, new, "w", (("write", count), ("fsync",)))
        await self.rename(actor, new, path, True)

    async def read(self, actor, path, is_direct):
        books, name = self.books, self.life.name
        before, by = books.known.get(path, UNKNOWN), books.known_by.get(path)
        flags = os.O_RDONLY | (os.O_DIRECT if is_direct else 0)
        data = error = None
        begun_s, since = books.now_s(), books.tick()
        try:
            descriptor = await self.ask(self.mount.open(path, flags))
            try:
                data = await self.ask(self.mount.read(descriptor))
            finally:
                if not self.life.is_dead:
                    await self.ask(self.mount.close(descriptor))
        except ERRORS as exc:
            error = exc
        if data is not None:
            books.cells(data, f"read of {path!r} on {name}", since)
        if before is UNKNOWN or books.known.get(path, UNKNOWN) is not before or books.left(path):
            return
        if any(touches(path, each) for op in books.running for each in op.paths):
            return
        mount, since_s = by or (None, begun_s)
        if mount != name and begun_s < since_s + BELIEVED_S:
            return
        if error is not None and (books.is_troubled or before is None):
            return
        if data != before:
            books.violate("wrong", f"{name} reads {shape(data)} ({error!r}) at {path!r}, not"
                          f" {shape(before)}")  # fmt: skip

    async def truncate(self, actor, path, count):
        books, name = self.books, self.life.name
        op = books.begin(name, "truncate", path)
        ending = books.ending(name, path, count)
        try:
            await self.ask(self.mount.truncate(path, count * CELL_BYTES))
        except ERRORS as exc:
            ending.end = books.tick()
            books.fail(op, harmless=is_harmless(exc), error=exc)
            return
        ending.end = books.tick()
        before, made = op.prior.get(path), {}
        if op.is_alone and isinstance(before, bytes):
            made = {path: before[: count * CELL_BYTES].ljust(count * CELL_BYTES, b"\0")}
            ending.late = ending.end
        books.succeed(op, made)
        books.expect(op, path)

    # Names.

    async def change_name(self, op, endings, call):
        """Returns the error of a change of names, after the books have closed on it."""
        try:
            await self.ask(call)
        except ERRORS as exc:
            for each in endings:
                each.end = self.books.tick()
            return exc
        finally:
            if not self.life.is_dead:
                for each in endings:
                    each.end = self.books.tick()
                    each.late = each.end
        return None

    async def unlink(self, actor, path):
        books, name = self.books, self.life.name
        op = books.begin(name, "unlink", path)
        ending = books.ending(name, path)
        error = await self.change_name(op, [ending], self.mount.unlink(path))
        if error is not None:
            books.fail(op, harmless=is_harmless(error), error=error)
            return
        books.succeed(op, {path: None})
        books.expect(op, path)

    async def rename(self, actor, old, new, replace):
        if touches(old, new):
            return
        books, name = self.books, self.life.name
        op = books.begin(name, "rename", old, new)
        is_directory = old in DIRECTORIES or any(key.startswith(f"{old}/") for key in books.objects)
        changes = [books.moving(name, old, new), books.ending(name, new)]
        call = self.mount.rename(old, new, replace=replace)
        error = await self.change_name(op, changes, call)
        if error is not None:
            books.fail(op, harmless=is_harmless(error), error=error)
            return
        if self.is_sure(op):
            word = books.word_for(op, old)
            if op.prior.get(old, UNKNOWN) is None and old not in DIRECTORIES and word:
                books.violate(word, f"{name} has renamed {old!r}, which is not there")
            word = books.word_for(op, new)
            if not replace and isinstance(op.prior.get(new), bytes) and word:
                books.violate(word, f"{name} has replaced {new!r} by a rename that must not")
        self.moved(op, old, new, is_directory=is_directory)

    def moved(self, op, old, new, *, is_directory):
        """What was known of a name, and below it, is known of another one now.

        A directory hides the object of another client that has its name: that one stays.
        """
        made = {}
        for path, content in op.prior.items():
            if path == old or path.startswith(f"{old}/"):
                made[path] = None
                made[new + path.removeprefix(old)] = content
        if is_directory:
            made.pop(old, None)
            made.pop(new, None)
        self.books.succeed(op, made)
        for path in made:
            self.books.expect(op, path)

    async def rename_directory(self, actor, old, new):
        if touches(old, new):
            return
        books, name = self.books, self.life.name
        op = books.begin(name, "rename_directory", old, new)
        changes = [books.moving(name, old, new)]
        if not any(key.startswith(f"{old}/") for key in books.objects):
            # Perhaps it is a file, which may replace another one.
            changes.append(books.ending(name, new))
        error = await self.change_name(op, changes, self.mount.rename(old, new))
        if error is not None:
            books.fail(op, harmless=is_harmless(error), error=error)
            return
        self.moved(op, old, new, is_directory=True)

    async def mkdir(self, actor, path):
        await self.directory(path, self.mount.mkdir(path))

    async def rmdir(self, actor, path):
        await self.directory(path, self.mount.rmdir(path))

    async def directory(self, path, call):
        op = self.books.begin(self.life.name, "directory", path)
        await self.change_name(op, [], call)
        self.books.fail(op, harmless=True)
