"""What goes on around the readers: other clients, commands, and damage to the cache on disk."""

import contextlib
import glob
import itertools
import os
import random
import time
from collections import Counter

from tests.soak.judge import DELETED
from tests.soak.objects import BIG, CHANGING, MISSING, STEADY

SETTLED_CODES = {0, 40, 41, 42}
"""Of commands about a path: done, no such path, a part of it is a file, replaced just now."""

TROUBLED_CODES = {12, 31, 36, 37}
"""What commands may say of the weather."""

FLIPS = 20
"""Bytes at a time."""


class Neighbours:
    """Each public method runs in a thread of its own until stopping is set."""

    def __init__(self, live, folder, cache_dir, judge, seed):
        self.live, self.folder, self.cache_dir, self.judge = live, folder, cache_dir, judge
        self.random = random.Random(seed)
        self.commands = Counter()
        self.complaints = []
        self.flips = self.clears = self.replacements = 0

    def replace(self, stopping):
        """Objects are replaced, deleted and made again, one at a time."""
        newest = {each.name: 1 for each in CHANGING}
        while not stopping.wait(self.random.uniform(0.1, 0.8)):
            chosen = self.random.choice(CHANGING)
            version = newest[chosen.name] + 1
            gone = self.judge.histories[chosen.name].states[-1][0] == DELETED
            delete = not gone and self.random.random() < 0.1
            with self.judge.lock:
                history = self.judge.histories[chosen.name]
                history.begin(DELETED if delete else version, time.monotonic())
            if delete:
                self.folder.delete(chosen.name)
            else:
                self.folder.put(chosen.name, chosen.content(version))
                newest[chosen.name] = version
            with self.judge.lock:
                history.done(time.monotonic())
            self.replacements += 1

    def vandalise(self, stopping, period_s):
        """Flip bytes in files of the cache, and clear it now and then."""
        for number in itertools.count(1):
            if stopping.wait(period_s):
                return
            chunks = glob.glob(f"{self.cache_dir}/**/chunks-*/*/*", recursive=True)
            for path in self.random.sample(chunks, min(FLIPS, len(chunks))):
                with contextlib.suppress(FileNotFoundError):
                    self.flips += _flip_a_byte(path, self.random)
            if number % 3 == 0:
                self._ask("cache", "clear", self.cache_dir)
                self.clears += 1

    def command(self, stopping, period_s):
        paths = [each.name for each in BIG + CHANGING + STEADY[10:20]] + MISSING[:3] + ["big", ""]
        commands = itertools.cycle(["explain", "info", "refresh", "status", "list", "cache"])
        while not stopping.wait(period_s):
            path, command = self.live / self.random.choice(paths), next(commands)
            if command == "cache":
                self._ask("cache", "info", self.cache_dir)
            elif command == "list":
                self._ask("list")
            else:
                self._ask(command, self.live.path if command == "status" else path)

    def _ask(self, *arguments):
        begin_s = time.monotonic()
        done = self.live.host.stsfs(*arguments)
        self.commands[f"{arguments[0]} {done.returncode}"] += 1
        with self.judge.lock:
            windows = [each for each in self.judge.windows if each.meets(begin_s, time.monotonic())]
        good = SETTLED_CODES | (TROUBLED_CODES if windows else set())
        if done.returncode not in good or "Traceback" in done.stderr:
            self.complaints.append(f"{arguments}: {done.returncode} {done.stderr}")


def _flip_a_byte(path, chance):
    with open(path, "r+b") as file:
        offset = chance.randrange(os.fstat(file.fileno()).st_size or 1)
        byte = os.pread(file.fileno(), 1, offset)
        return os.pwrite(file.fileno(), bytes([byte[0] ^ 0x10]), offset) if byte else 0
