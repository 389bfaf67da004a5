"""Random histories: operations as lists, the name first, in the order in which they happen.

Operations are those of `player`; those of WORLD are done by `arena`. A history is a pure function
of its seed and kind, and any part of it is a history too.
"""

import random

WORLD = {"settle", "remount", "kill", "kill_during", "foreign_put", "foreign_delete", "fault"}

KINDS = ("local", "faults", "foreign", "remounts", "kills")
"""What else happens beside our operations."""

DIRECTORIES = ("d", "d/e", "x")
FILES = ("a", "b", "d/a", "d/b", "d/e/a", "x/a")
SLOTS = (0, 1, 2, 3)
MAPPINGS = (0, 1)
SIZES = (0, 1, 7, 100, 4095, 4096, 4097, 9000, 65_536, 200_000)
OFFSETS = (0, 0, 1, 50, 4096, 5000, 70_000)
BIG_BYTES = (5_500_000, 17_000_000, 22_000_000)
"""Some of them become objects of several parts."""

ACCESS = ("RDONLY", "WRONLY", "RDWR", "RDWR", "RDWR")
MODES = (0o644, 0o600, 0o444, 0o755, 0o640)
TIMES_S = (1, 86_400, 500_000_000, 999_999_999)
FAULTS = ("503", "500", "hang up", "lose answer", "cut")

_WEIGHTS = {
    "open": 14, "pwrite": 14, "write": 5, "pread": 8, "read": 3, "seek": 2, "fsync": 3,
    "fdatasync": 1, "ftruncate": 5, "fchmod": 2, "futime": 3, "fstat": 4, "is_same": 3, "dup": 4,
    "close": 12, "map": 3, "store": 5, "load": 3, "msync": 2, "unmap": 2, "mkdir": 5, "rmdir": 4,
    "unlink": 5, "rename": 11, "link": 1, "symlink": 1, "mkfifo": 1, "mknod": 2, "truncate": 4,
    "chmod": 3, "utime": 3, "stat": 5, "list": 4, "whole": 5, "tree": 3,
}  # fmt: skip

_WORLD_CHANCE = {
    "local": {},
    "faults": {"fault": 0.1},
    "foreign": {"foreign_put": 0.1, "foreign_delete": 0.07},
    "remounts": {"remount": 0.06},
    "kills": {"kill": 0.04, "kill_during": 0.06},
}


def make_history(seed, kind, length_max=32):
    """The history of that seed."""
    return _Maker(random.Random(f"{kind} {seed}"), kind).history(length_max)


class _Maker:
    def __init__(self, chance, kind):
        self._chance, self._kind = chance, kind
        self._open, self._mapped = set(), set()
        self._seed = 0
        self._is_big = chance.random() < 0.04

    def history(self, length_max):
        operations = [["mkdir", each] for each in DIRECTORIES if self._chance.random() < 0.6]
        for _ in range(self._chance.randint(0, 3)):
            operations += self._file()
        length = self._chance.randint(6, length_max)
        while len(operations) < length:
            operations.append(self._next())
        return operations

    def _file(self):
        path = self._pick(FILES)
        self._seed += 1
        size_bytes = self._size()
        opened = [["open", 0, path, "WRONLY|CREAT", 0o644]]
        return [*opened, ["pwrite", 0, 0, size_bytes, self._seed], ["close", 0]]

    def _pick(self, choices):
        return self._chance.choice(choices)

    def _size(self):
        if self._is_big and self._chance.random() < 0.3:
            return self._pick(BIG_BYTES)
        return self._pick(SIZES)

    def _path(self):
        return (
            self._pick(FILES + DIRECTORIES) if self._chance.random() < 0.15 else self._pick(FILES)
        )

    def _slot(self):
        return self._pick(sorted(self._open))

    def _next(self):
        for name, probability in _WORLD_CHANCE[self._kind].items():
            if self._chance.random() < probability:
                return self._world(name)
        while True:
            name = self._chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
            if (made := self._of(name)) is not None:
                return made

    def _world(self, name):
        if name == "kill_during":
            chosen = self._pick(("close", "rename", "rename", "unlink", "mkdir", "rmdir", "fsync",
                                 "truncate", "mknod", "close"))  # fmt: skip
            made = self._of(chosen) or self._of("unlink")
            self._open, self._mapped = set(), set()
            return [name, self._pick((1, 1, 2, 2, 3, 4)), *made]
        if name in ("remount", "kill"):
            self._open, self._mapped = set(), set()
            return [name]
        if name == "fault":
            return [name, self._pick(FAULTS), self._chance.randint(1, 3)]
        self._seed += 1
        rest = [self._pick(SIZES), self._seed] if name == "foreign_put" else []
        return [name, self._pick(FILES), *rest]

    def _of(self, name):
        chance = self._chance
        if name == "open":
            return self._opened()
        if name in ("pwrite", "write", "pread", "read", "seek", "ftruncate"):
            return self._of_bytes(name)
        if name in ("fsync", "fdatasync", "fchmod", "futime", "fstat", "is_same", "dup", "close"):
            return self._of_slot(name)
        if name in ("map", "store", "load", "msync", "unmap"):
            return self._of_mapping(name)
        if name == "mkdir":
            return [name, self._pick(DIRECTORIES), self._pick((0o755, 0o700))]
        if name == "rmdir":
            return [name, self._pick(DIRECTORIES) if chance.random() < 0.9 else self._path()]
        if name == "rename":
            return self._renamed()
        if name == "link":
            return [name, self._path(), self._path()]
        if name == "symlink":
            return [name, "a", self._path()]
        if name == "list":
            return [name, self._pick(("", *DIRECTORIES))]
        if name == "tree":
            return [name]
        return [name, self._path(), *self._argument(name)]

    def _argument(self, name):
        if name == "truncate":
            return [self._pick((0, 0, 3, 5000, 70_000))]
        if name in ("chmod", "fchmod"):
            return [self._pick(MODES) if self._chance.random() < 0.9 else 0o4755]
        if name in ("utime", "futime"):
            return [self._pick(TIMES_S)]
        return []

    def _opened(self):
        free = [each for each in SLOTS if each not in self._open]
        if not free:
            return None
        flags = [self._pick(ACCESS)]
        for flag, probability in (("CREAT", 0.5), ("TRUNC", 0.25), ("EXCL", 0.12),
                                  ("APPEND", 0.12), ("DIRECTORY", 0.02)):  # fmt: skip
            if self._chance.random() < probability:
                flags.append(flag)
        if "EXCL" in flags and "CREAT" not in flags:
            flags.append("CREAT")
        if "DIRECTORY" in flags and "CREAT" in flags:
            flags.remove("DIRECTORY")  # Linux has changed its mind about that
        slot = self._pick(free)
        self._open.add(slot)
        return ["open", slot, self._path(), "|".join(flags), self._pick(MODES)]

    def _of_bytes(self, name):
        if not self._open:
            return self._opened()
        slot = self._slot()
        if name == "ftruncate":
            return [name, slot, self._pick((0, 3, 100, 5000, 70_000))]
        if name == "seek":
            return [name, slot, self._pick(OFFSETS), self._pick((0, 0, 2))]
        at = [self._pick(OFFSETS)] if name.startswith("p") else []
        self._seed += 1
        return [name, slot, *at, self._size(), *([self._seed] if "write" in name else [])]

    def _of_slot(self, name):
        if not self._open:
            return self._opened()
        slot = self._slot()
        if name == "is_same":
            return [name, slot, self._path()]
        if name == "dup":
            free = [each for each in SLOTS if each not in self._open]
            if not free:
                return None
            self._open.add(free[0])
            return [name, slot, free[0]]
        if name == "close":
            self._open.discard(slot)
        return [name, slot, *self._argument(name)]

    def _of_mapping(self, name):
        if name == "map":
            free = [each for each in MAPPINGS if each not in self._mapped]
            if not free or not self._open:
                return None
            self._mapped.add(free[0])
            return [name, self._slot(), free[0]]
        if not self._mapped:
            return None
        which = self._pick(sorted(self._mapped))
        if name == "unmap":
            self._mapped.discard(which)
        if name in ("store", "load"):
            self._seed += 1
            end = [self._seed] if name == "store" else []
            return [name, which, self._pick((0, 1, 50, 4090)), self._pick((1, 7, 40, 5000)), *end]
        return [name, which]

    def _renamed(self):
        flags = self._pick((0, 0, 0, 0, 0, 1, 1, 2))
        if self._chance.random() < 0.3:
            return ["rename", self._pick(DIRECTORIES), self._pick(DIRECTORIES), flags]
        return ["rename", self._path(), self._path(), flags]
