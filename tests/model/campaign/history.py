"""Histories: what every actor does, one step after the other; made from a kind and a seed.

Actors are the players ("A1": the first one on mount A), another client ("them"), and what goes
wrong ("A!": mount A is killed; "weather": outages). All of them run beside each other.
"""

import random
from typing import NamedTuple

from tests.model.campaign.trouble import OUTAGES


class Step(NamedTuple):
    """One thing that an actor does."""

    actor: str
    op: str
    args: tuple = ()


class Kind(NamedTuple):
    """What histories of a kind have."""

    players: tuple
    them: float = 0.3
    """How likely another client takes part."""

    kills: bool = False
    outages: bool = False
    full_disk: bool = False
    conditions: bool = True


KINDS = {
    "one-mount": Kind(("A1", "A2", "A3")),
    "two-mounts": Kind(("A1", "A2", "B1", "B2"), them=0.5),
    "kills": Kind(("A1", "A2", "B1"), kills=True),
    "full-disk": Kind(("A1", "A2"), full_disk=True),
    "lasting-faults": Kind(("A1", "A2", "B1"), outages=True),
    "no-conditions": Kind(("A1", "A2", "B1"), conditions=False),
}

FILES = ("a", "b", "c", "d/a", "d/b", "d/s/a", "e/a")
DIRECTORIES = ("d", "e", "d/s", "n", "a")
BEFORE = (("a", 4), ("d/b", 50), ("e/k", 2), ("d/s/k", 1))
"""Objects that are there from the beginning, and how many cells they have."""

PLAYER_STEPS = (10, 18)
SIZES_CELLS = (1, 1, 2, 3, 3, 5, 8, 8, 20, 40, 70)


class _Maker:
    def __init__(self, kind, seed):
        self.rng = random.Random(f"{kind} {seed}")
        self.kind = KINDS[kind]
        rng = self.rng
        self.files = rng.sample(FILES, rng.choice((2, 2, 3, 5)))
        self.directories = rng.sample(DIRECTORIES, 2)
        self.pause = rng.choice((0.0, 0.1, 0.3))

    def history(self):
        rng, kind = self.rng, self.kind
        players = rng.sample(kind.players, rng.randint(1, len(kind.players)))
        steps = [self.play(rng.choice(players)) for _ in range(rng.randint(*PLAYER_STEPS))]
        if rng.random() < kind.them:
            steps += [self.other() for _ in range(rng.randint(1, 4))]
        if kind.kills:
            for _ in range(rng.randint(1, 3)):
                steps.append(
                    Step(rng.choice("AAB") + "!", "kill", (int(rng.expovariate(1 / 150)) + 1,))
                )
        if kind.outages or (kind.kills and rng.random() < 0.3):
            for _ in range(rng.randint(1, 3)):
                steps.append(Step("weather", "calm", (rng.choice((0.0, 0.1, 2.0, 10.0)),)))
                args = rng.choice("AAB"), rng.choice(OUTAGES), rng.choice((0.3, 3.0, 8.0, 40.0))
                steps.append(Step("weather", "outage", args))
        if kind.full_disk:
            for _ in range(rng.randint(1, 2)):
                steps.append(Step("weather", "calm", (rng.choice((0.0, 0.1, 2.0)),)))
                steps.append(Step("weather", "full", (rng.choice((0.1, 2.0, 20.0)),)))
        return tuple(steps)

    def play(self, actor):
        rng = self.rng
        roll = rng.random()
        if rng.random() < self.pause:
            return Step(actor, "sleep", (rng.choice((0.2, 1.5, 12.0, 40.0)),))
        if roll < 0.5:
            return Step(actor, "session", self.session())
        if roll < 0.6:
            return Step(actor, "read", (self.file(), rng.random() < 0.2))
        if roll < 0.7:
            return Step(actor, "save", (self.file(), rng.choice(SIZES_CELLS)))
        if roll < 0.78:
            return Step(actor, "unlink", (self.file(),))
        if roll < 0.88:
            return Step(actor, "rename", (self.file(), self.file(), rng.random() < 0.8))
        if roll < 0.91:
            return Step(actor, "rename_directory", (self.directory(), self.directory()))
        if roll < 0.94:
            return Step(actor, "mkdir", (self.directory(),))
        if roll < 0.96:
            return Step(actor, "rmdir", (self.directory(),))
        return Step(actor, "truncate", (self.file(), rng.choice((0, 0, 1, 2, 30))))

    def session(self):
        rng = self.rng
        mode = rng.choice(("w", "w", "w", "x", "a", "a", "u"))
        if rng.random() < 0.1:
            mode += "d"
        acts = []
        for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4, 6))):
            roll = rng.random()
            if roll < 0.6:
                acts.append(("write", rng.choice(SIZES_CELLS)))
            elif roll < 0.68:
                acts.append(("put", rng.choice((0, 1, 3, 40)), rng.choice(SIZES_CELLS)))
            elif roll < 0.75:
                acts.append(("fsync",))
            elif roll < 0.81:
                acts.append(("flush",))
            elif roll < 0.85:
                acts.append(("read",))
            elif roll < 0.89:
                acts.append(("cut", rng.choice((0, 1, 2, 10))))
            elif roll < 0.93:
                acts.append(("rename", self.file()))
            elif roll < 0.95:
                acts.append(("unlink",))
            else:
                acts.append(("sleep", rng.choice((0.1, 1.5, 40.0))))
        return (self.file(), mode, tuple(acts))

    def other(self):
        rng = self.rng
        roll = rng.random()
        if roll < 0.6:
            return Step("them", "put", (self.file(), rng.choice(SIZES_CELLS)))
        if roll < 0.75:
            return Step("them", "delete", (self.file(),))
        return Step("them", "sleep", (rng.choice((0.1, 1.5, 12.0, 40.0)),))

    def file(self):
        return self.rng.choice(self.files)

    def directory(self):
        return self.rng.choice(self.directories)


def made(kind, seed):
    """The history of a kind that a seed stands for."""
    return _Maker(kind, seed).history()
