"""Plays one history: mounts on one store, their lives and deaths, and the books beside them."""

import shutil
import tempfile
import traceback
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from trio.testing import MockClock

from stsfs.errors import StsfsError, sole
from stsfs.staging.left import what_is_left
from stsfs.writer.part_sizes import part_span
from stsfs.writer.recovery import recover_at_mount
from tests.fakes import MemoryStore
from tests.hangs import Hangs
from tests.model.campaign import schedule
from tests.model.campaign.books import Books
from tests.model.campaign.cells import HOLE, Torn, decode, shape
from tests.model.campaign.entries import Violation
from tests.model.campaign.history import BEFORE, KINDS
from tests.model.campaign.kernel import Kernel
from tests.model.campaign.line import ACTOR, Line, Objects, nothing_shown
from tests.model.campaign.other import Other
from tests.model.campaign.players import Dead, Player
from tests.model.campaign.trouble import Trouble
from tests.writing_vfs.machine import Machine

RAM = Path("/dev/shm")
TURNS_MAX = 30_000
"""A history has hundreds of them; one that goes on and on is broken off."""

QUIET_S = 3000.0
"""Long enough for everything that is tried again."""


@dataclass(eq=False)
class Life:
    """One daemon, from its mount to its end."""

    name: str
    scope: trio.CancelScope
    line: Line
    since: int
    mount: object = None
    kernel: Kernel | None = None
    is_dead: bool = False
    is_over: bool = False


@dataclass
class Result:
    """What came of a history."""

    violations: list[Violation] = field(default_factory=list)
    changes: list = field(default_factory=list)
    """Of S3, in order: who, how, key and ETag."""

    turns: int = 0
    kills: int = 0


class World:
    """One store, its mounts, and everybody who does something."""

    def __init__(self, kind, history, directory, rng, killing):
        self.kind, self.rng, self.killing = KINDS[kind], rng, killing
        self.directory = directory
        self.books = Books(trio.current_time, conditions=self.kind.conditions)
        self.trouble = Trouble(trio.current_time)
        self.store = MemoryStore(page_keys=3)
        self.store.writer.part_bytes_min = schedule.PART_BYTES_MIN
        self.store.writer.honours_conditions = self.kind.conditions
        self.store.writer.refuses_part_copies = rng.random() < 0.2
        self.is_short_of_room = rng.random() < 0.2
        self.store.objects = Objects(self.changed)
        self.books.objects = self.store.objects
        self.options = {"fsync_publishes": rng.random() < 0.15}
        self.steps = {}
        for step in history:
            self.steps.setdefault(step.actor, deque()).append(step)
        self.roots, self.lives = {}, {}
        self.others_done, self.busy = trio.Event(), 0
        self.kills = 0
        other = Other(self.store, self.books)
        for path, count in BEFORE:
            other.put(path, count)

    def changed(self, key, before, after):
        self.books.changed(*ACTOR.get(), key, before, after)

    async def play(self):
        names = sorted({each[0] for each in self.steps if each[0] in "AB" and each[1:] != "!"})
        self.busy = len(names) + 1
        self.books.shown = {each: nothing_shown() for each in names}
        async with trio.open_nursery() as nursery:
            for name in names:
                self.roots[name] = self.directory / f"{name}0"
                nursery.start_soon(self.live, name)
            nursery.start_soon(self.others)
            if "weather" in self.steps:
                self.books.is_troubled = True
                nursery.start_soon(self.weather)
            if any(each.endswith("!") for each in self.steps):
                self.books.is_troubled = True
        self.check_disks(names)

    def one_is_done(self):
        """A mount's players, or the other client, have nothing more to do."""
        self.busy -= 1
        if not self.busy:
            self.trouble.end()
            self.others_done.set()

    async def others(self):
        other = Other(self.store, self.books)
        for step in self.steps.get("them", ()):
            await other.do(step)
        self.one_is_done()

    async def weather(self):
        for step in self.steps["weather"]:
            if self.others_done.is_set():
                return
            if step.op == "calm":
                await trio.sleep(step.args[0] or 0.01)
            elif step.op == "outage":
                self.trouble.begin(*step.args)
            else:
                self.trouble.fill_disk(*step.args)
            await trio.lowlevel.checkpoint()
        if self.others_done.is_set():
            self.trouble.end()

    async def live(self, name):
        """One mount in as many lives as it takes."""
        players = {each: steps for each, steps in self.steps.items() if each[0] == name}
        kills = players.pop(f"{name}!", deque())
        is_done = False
        while True:
            with trio.CancelScope() as scope:
                line = Line(self.store, name, self.trouble, self.rng, self.books.shown[name])
                life = self.lives[name] = Life(name, scope, line, self.books.tick())
                if kills:
                    self.killing.at(kills.popleft().args[0], lambda life=life: self.kill(life))
                machine = Machine(line, self.roots[name], options=self.options)
                async with self.mounted(life, machine) as life.mount:
                    life.kernel = Kernel(life.mount)
                    await recover_at_mount(life.mount.writers, life.mount.mover)
                    async with trio.open_nursery() as nursery:
                        for steps in players.values():
                            nursery.start_soon(self.player, life, steps)
                    if not life.is_dead:
                        if not is_done:
                            is_done = True
                            self.one_is_done()
                        await self.end(life)
            life.is_over = True
            if not life.is_dead:
                return
            self.check_disks([name])

    @asynccontextmanager
    async def mounted(self, life, machine):
        """Whatever goes wrong in a daemon that has been killed does not count."""
        try:
            async with machine.mounted() as mount:
                mount.staging.is_short_of_room = lambda: self.is_short_of_room
                yield mount
        except Exception:
            if not life.is_dead:
                raise
        except BaseExceptionGroup as exc:
            rest = exc.split(Exception)[1]
            if not life.is_dead:
                raise
            if rest is not None:
                raise rest from None

    async def player(self, life, steps):
        player = Player(life, self.books)
        try:
            while steps and not life.is_dead:
                step = steps.popleft()
                await player.do(step)
                self.check_pending(life)
        except Dead:
            pass

    async def end(self, life):
        """All is well again: what was left over finds its way, and the mount ends in order."""
        await self.others_done.wait()
        await trio.sleep(QUIET_S)
        self.check_pending(life)
        await self.check_view(life)
        await life.mount.writers.drain()
        life.is_over = True

    def kill(self, life):
        """Nothing of this daemon reaches the store or the disk from now on."""
        if life.is_over or life.is_dead:
            return
        self.kills += 1
        self.books.note("KILL", life.name)
        life.is_dead = life.line.is_cut = True
        self.books.killed(life.name)
        old = self.roots[life.name]
        new = self.roots[life.name] = self.directory / f"{life.name}{self.kills}"
        if old.exists():
            shutil.copytree(old, new)
        life.scope.cancel()

    def check_pending(self, life):
        """Nothing promised is lost while the mount lives."""
        if life.is_dead:
            return
        pending = {each.path for each in life.mount.writers.pending()}
        root = self.roots[life.name]
        self.books.check_kept(
            life.name, pending, lambda: self.cells_in(what_is_left(root)), life.since
        )

    def check_disks(self, names):
        """Nothing promised is lost while nobody is mounted there."""
        for name in names:
            left = what_is_left(self.roots[name])
            self.books.check_kept(name, (), lambda left=left: self.cells_in(left))

    def cells_in(self, left):
        """What records and their data have."""
        found = set()
        for each in left:
            if getattr(each, "record", None) is not None and hasattr(each, "data_path"):
                found |= self.cells_left(each)
        return found

    def cells_left(self, left):
        """What a record and its data are put together to."""
        record = left.record
        data = bytearray(record.size_bytes)
        base = record.base
        stored = None if base is None else self.store.objects.get(base.key)
        if stored is not None and stored.etag == base.etag:
            stop = min(base.limit_bytes, record.size_bytes)
            data[:stop] = stored.data[:stop].ljust(stop, b"\0")
        kept = left.data_path.read_bytes()
        for start, stop in record.present:
            data[start:stop] = kept[start:stop].ljust(stop - start, b"\0")
        self.put_parked(record, data)
        try:
            writes = decode(bytes(data))
        except Torn as exc:
            self.books.violate("torn", f"the record of {record.path!r}: {exc}")
            return set()
        return {(each, index) for index, each in enumerate(writes) if each != HOLE}

    def put_parked(self, record, data):
        """Put what only an upload has where it belongs, as far as the record tells it."""
        upload = self.store.writer.uploads.get(record.upload_id)
        if upload is None or upload.key != record.key:
            return  # what it had is an object, or is lost
        for part in record.parts:
            kept, part_data = upload.parts.get(part.number, (None, b""))
            first, last = part_span(part.number)
            if kept != part:
                continue
            for start, stop in record.parked:
                start, stop = max(start, first), min(stop, last)
                if start < stop:
                    data[start:stop] = part_data[start - first : stop - first]

    async def check_view(self, life):
        """What a mount shows is what S3 has, but for what is pending there."""
        if self.books.violations:
            return
        pending = {each.path for each in life.mount.writers.pending()}
        for key, stored in list(self.store.objects.items()):
            is_hidden = any(each.startswith(f"{key}/") for each in self.store.objects)
            if key.endswith("/") or key in pending or is_hidden:
                continue
            try:
                data = await life.mount.get(key)
            except (StsfsError, OSError) as exc:
                if not life.is_dead and self.store.objects.get(key) is stored:
                    self.books.violate("wrong", f"{life.name} cannot read {key!r}: {exc!r}")
                return
            if life.is_dead or self.store.objects.get(key) is not stored:
                return
            if data != stored.data:
                self.books.violate("wrong", f"{life.name} shows {shape(data)} at {key!r}, S3 has"
                                   f" {shape(stored.data)}")  # fmt: skip


def _has(exc, kind):
    return isinstance(exc, BaseExceptionGroup) and exc.subgroup(kind) is not None


def play(kind, seed, history):
    """Play one history under the schedule of a seed; what it violates is in the Result."""
    result = Result()
    directory = Path(tempfile.mkdtemp(dir=RAM if RAM.is_dir() else None))
    killing = schedule.Killing()
    world = None
    trouble_of = lambda: None if world is None else world.trouble.full_disk()  # noqa: E731

    async def main(rng):
        nonlocal world
        world = World(kind, history, directory, rng, killing)
        with trio.move_on_after(100 * QUIET_S) as limit:
            killing.at(TURNS_MAX, limit.cancel)
            await world.play()
        if limit.cancel_called:
            world.books.violate("hangs", "it never ended")

    try:
        with schedule.determined(seed, trouble_of if KINDS[kind].full_disk else None) as rng:
            clock = MockClock(autojump_threshold=0)
            with schedule.bounded():
                trio.run(main, rng, clock=clock, instruments=[killing])
    except (Hangs, BaseExceptionGroup) as exc:
        is_hanging = isinstance(sole(exc), Hangs) or _has(exc, Hangs)
        text = "".join(traceback.format_exception(sole(exc), limit=-4))
        result.violations.append(Violation("hangs" if is_hanging else "crash", text))
    except Exception as exc:  # noqa: BLE001 -- whatever it is, it is what was looked for
        text = "".join(traceback.format_exception(sole(exc), limit=-4))
        result.violations.append(Violation("crash", text))
    finally:
        shutil.rmtree(directory)
    if world is not None:
        result.violations = world.books.violations + result.violations
        result.kills, result.changes = world.kills, world.books.changes
    result.turns = killing.turns
    return result
