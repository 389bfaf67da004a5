"""Histories that have found faults: repaired ones are played by the suite, open ones are not.

A fault that is repaired moves from OPEN to REPAIRED; when the last of a word has gone, the word
goes from TOLERATED. `python -m tests.model.campaign.found` plays the open ones.
"""

import logging
import sys
from typing import NamedTuple

from tests.model.campaign.history import Step
from tests.model.campaign.world import play


class Found(NamedTuple):
    """A history, the schedule that it needs, and what it violates."""

    kind: str
    seed: int
    what: str
    why: str
    steps: tuple


SCHEDULES = 12

_SAVE = "a rename replaces an object that its mount has not been shown"
_FULL = "a close after ENOSPC publishes the stump"
_UNLINK = "an unlink that fails leaves a detached file behind, which takes the next writes"
_DENIED = "after an unlink that was denied a file that S3 has cannot be read any more"
_HIDDEN = "a conflict of the last close, or of a retry, is in no status"
_ABSENT = "a remembered absence decides a change"
_SPINS = (
    "a rename over a file whose answers were lost never ends, and the event loop is busy with it"
)
_BOTH = "a directory is made where another mount has made a file long before"
_LATE = "after a rename whose answer was lost the mount shows what it has replaced for ever"
_BLIND = "without conditions a stale view replaces the other mount's object"
_OPENED = "an open of a file that is just being renamed outdates it under its new name, for ever"
_OTHERS = "a conflict is in no status as long as another handle of the file is open"
_STAGED = "a file is staged while its directory is being renamed, which then fails"
_PARKED = "a file with parked bytes cannot be renamed"
_REPEATED = "a lookup after an open that met ESTALE asks S3 about a file that is only here"
_COPIED = "a rename over a file that is only here, whose answer was lost, comes back after rm"
_TREES = "a copy of a directory replaces what the other mount has made"

REPAIRED = (
    Found("lasting-faults", 5008023, "wrong", _COPIED, (
        Step("B1", "truncate", ("a", 0)),
        Step("B1", "session", ("e/a", "w", (("put", 0, 70), ("write", 20)))),
        Step("B1", "rename", ("a", "e/a", True)),
        Step("B1", "unlink", ("e/a",)),
        Step("weather", "calm", (2.0,)),
        Step("weather", "outage", ("B", "lost", 3.0)),
    )),
    Found("lasting-faults", 5000834, "crash", _REPEATED, (
        Step("A1", "rmdir", ("d/s",)),
        Step("A2", "save", ("c", 8)),
        Step("A2", "session", ("c", "a", (("cut", 10),))),
        Step("A2", "session", ("c", "u", ())),
        Step("B1", "session", ("a", "w", (("write", 8), ("write", 3), ("write", 3)))),
        Step("A2", "unlink", ("a",)),
        Step("A1", "unlink", ("c",)),
        Step("A1", "session", ("a", "x", ())),
        Step("A2", "save", ("a", 70)),
        Step("B1", "save", ("c", 1)),
        Step("A1", "session", ("a", "u", ())),
        Step("weather", "calm", (0.0,)),
        Step("weather", "outage", ("A", "lost", 8.0)),
    )),
    Found("two-mounts", 5000393, "unseen", _TREES, (
        Step("B1", "rename_directory", ("d", "n")),
        Step("A1", "rename_directory", ("d", "n")),
    )),
    Found("two-mounts", 2005, "unseen", _SAVE, (
        Step("A2", "session", ("a", "w", (("rename", "b"),))),
        Step("B2", "save", ("b", 70)),
    )),
    Found("one-mount", 1026, "unseen", _SAVE, (
        Step("A1", "save", ("d/b", 70)),
        Step("them", "sleep", (1.5,)),
        Step("them", "put", ("d/b", 8)),
    )),
    Found("two-mounts", 1015, "unseen", _SAVE, (
        Step("A1", "session", ("c", "w", ())),
        Step("B2", "rename", ("d/b", "c", True)),
    )),
    Found("full-disk", 3, "stump", _FULL, (
        Step("A2", "session", ("a", "w", (("write", 40),))),
        Step("weather", "full", (20.0,)),
    )),
    Found("full-disk", 2001, "stump", _FULL, (
        Step("A1", "session", ("d/b", "w", (("write", 20),))),
        Step("weather", "full", (20.0,)),
    )),
    Found("lasting-faults", 1149, "lost", _UNLINK, (
        Step("A2", "session", ("c", "a", (("put", 0, 3),))),
        Step("A2", "unlink", ("c",)),
        Step("A2", "session", ("c", "w", (("write", 5),))),
        Step("A1", "session", ("c", "a", (("write", 40),))),
        Step("weather", "calm", (2.0,)),
        Step("weather", "outage", ("A", "down", 3.0)),
    )),
    Found("lasting-faults", 4073, "lost", _UNLINK, (
        Step("A2", "session", ("c", "wd", ())),
        Step("A2", "unlink", ("c",)),
        Step("A2", "session", ("c", "a", (("write", 40),))),
        Step("weather", "outage", ("A", "lost", 40.0)),
    )),
    Found("kills", 2080, "wrong", _UNLINK, (
        Step("A2", "session", ("d/a", "a", (("write", 2),))),
        Step("A2", "session", ("c", "x", (("write", 40), ("put", 0, 5)))),
        Step("A2", "session", ("c", "w", (("write", 3),))),
        Step("A2", "unlink", ("c",)),
        Step("A2", "session", ("c", "w", ())),
        Step("weather", "calm", (2.0,)),
        Step("weather", "outage", ("A", "down", 0.3)),
    )),
    Found("kills", 11398, "wrong", _DENIED, (
        Step("A1", "session", ("d/s/a", "w", (("cut", 2),))),
        Step("A2", "session", ("b", "xd", (("write", 5), ("put", 1, 3)))),
        Step("A2", "rename", ("c", "d/s/a", True)),
        Step("A2", "session", ("b", "w", ())),
        Step("A2", "unlink", ("d/s/a",)),
        Step("weather", "calm", (0.1,)),
        Step("weather", "outage", ("A", "deletes-denied", 8.0)),
    )),
    Found("one-mount", 3310, "unlisted", _HIDDEN, (
        Step("A3", "session", ("d/s/a", "w",
                               (("write", 20), ("flush",), ("sleep", 40.0), ("write", 3)))),
        Step("them", "sleep", (12.0,)),
        Step("them", "put", ("d/s/a", 20)),
    )),
    Found("lasting-faults", 45, "unlisted", _HIDDEN, (
        Step("A1", "session", ("a", "a", (("write", 1),))),
        Step("B1", "session", ("a", "wd", ())),
        Step("weather", "outage", ("A", "writes-down", 40.0)),
    )),
    Found("one-mount", 2113, "stale", _ABSENT, (
        Step("A1", "session", ("c", "xd", ())),
        Step("A2", "sleep", (12.0,)),
        Step("A2", "session", ("b", "ad", ())),
        Step("them", "sleep", (0.1,)),
        Step("them", "put", ("b", 3)),
    )),
    Found("one-mount", 3035, "stale", _ABSENT, (
        Step("A2", "session", ("e/a", "w", ())),
        Step("A2", "sleep", (12.0,)),
        Step("A2", "session", ("c", "x", ())),
        Step("them", "sleep", (1.5,)),
        Step("them", "put", ("c", 3)),
    )),
    Found("lasting-faults", 2168, "stale", _ABSENT, (
        Step("B1", "rename", ("a", "c", True)),
        Step("A1", "session", ("d/a", "a", (("sleep", 1.5),))),
        Step("A1", "session", ("c", "a", (("unlink",),))),
    )),
    Found("kills", 34606, "hangs", _SPINS, (
        Step("B1", "session", ("d/b", "u", (("write", 8), ("put", 0, 1)))),
        Step("B1", "session", ("c", "a", (("write", 20),))),
        Step("B1", "session", ("c", "w", (("write", 20), ("write", 1), ("read",)))),
        Step("A2", "rename_directory", ("d", "e")),
        Step("A2", "read", ("d/b", True)),
        Step("A2", "session", ("d/b", "wd",
                               (("write", 8), ("write", 1), ("write", 3), ("write", 3)))),
        Step("A2", "session", ("c", "a", (("cut", 1), ("put", 40, 70)))),
        Step("A2", "session", ("c", "u", (("write", 8),))),
        Step("B1", "save", ("c", 70)),
        Step("B!", "kill", (81,)),
        Step("weather", "calm", (0.1,)),
        Step("weather", "outage", ("B", "lost", 8.0)),
    )),
    Found("two-mounts", 12240, "hidden", _BOTH, (
        Step("A1", "sleep", (12.0,)),
        Step("B2", "session", ("a", "w", ())),
        Step("A2", "session", ("a", "u", (("rename", "d/a"),))),
        Step("A1", "rename_directory", ("e", "a")),
    )),
    Found("two-mounts", 1, "hidden", _BOTH, (
        Step("A1", "read", ("c", False)),
        Step("A1", "sleep", (12.0,)),
        Step("A1", "mkdir", ("n",)),
        Step("B1", "sleep", (1.5,)),
        Step("B1", "session", ("n", "w", (("write", 3),))),
    )),
    Found("lasting-faults", 2361, "wrong", _LATE, (
        Step("A1", "session", ("b", "w", ())),
        Step("A1", "rename", ("d/b", "b", True)),
        Step("weather", "outage", ("A", "lost", 8.0)),
    )),
    Found("full-disk", 1441, "wrong", _OPENED, (
        Step("A1", "save", ("e/a", 3)),
        Step("A2", "read", ("e/a", False)),
        Step("A1", "save", ("e/a", 40)),
        Step("A1", "session", ("d/a", "w", (("rename", "e/a"),))),
        Step("A2", "read", ("d/b", False)),
        Step("A2", "save", ("d/a", 2)),
        Step("A2", "read", ("d/a", False)),
    )),
    Found("two-mounts", 105, "unlisted", _OTHERS, (
        Step("A1", "session", ("c", "a", ())),
        Step("B1", "session", ("c", "a", (("write", 1), ("sleep", 0.1)))),
        Step("B2", "session", ("c", "a", (("write", 8), ("write", 1)))),
    )),
    Found("two-mounts", 115, "unlisted", _OTHERS, (
        Step("A1", "session", ("b", "w", (("sleep", 40.0),))),
        Step("B1", "save", ("b", 8)),
        Step("A2", "session", ("d/a", "x", ())),
        Step("A2", "session", ("b", "w", (("read",), ("write", 5)))),
    )),
    Found("full-disk", 489, "crash", _PARKED, (
        Step("A2", "session", ("b", "w", (("write", 70), ("write", 20), ("write", 3),
                                          ("write", 8), ("rename", "c")))),
    )),
    Found("two-mounts", 6825, "crash", _STAGED, (
        Step("B1", "save", ("d/a", 8)),
        Step("A2", "read", ("d/a", True)),
        Step("A2", "rmdir", ("d",)),
        Step("B1", "rename", ("a", "c", False)),
        Step("A1", "session", ("a", "wd", (("write", 1), ("write", 20), ("cut", 1), ("write", 8),
                                           ("write", 5), ("cut", 2)))),
        Step("A2", "unlink", ("a",)),
        Step("A2", "rename_directory", ("d", "n")),
        Step("A1", "session", ("d/a", "w", ())),
        Step("B1", "read", ("d/a", True)),
    )),
)  # fmt: skip

OPEN = (
    Found("no-conditions", 11, "lost", _BLIND, (
        Step("A2", "session", ("e/a", "a", (("write", 8),))),
        Step("B1", "session", ("e/a", "a", ())),
    )),
)  # fmt: skip

TOLERATED = {
    "one-mount": set(),
    "two-mounts": set(),
    "kills": set(),
    "full-disk": set(),
    "lasting-faults": set(),
    "no-conditions": {"lost"},
}
"""By kind: what the program is known to do. The rest of the words is demanded of all histories."""


def violations(found):
    """What a history violates now, under its own schedule and some others.

    A change of the program shifts its schedule: what was found under one is looked for near it.
    """
    seeds = (found.seed, *range(SCHEDULES))
    return [each for seed in seeds for each in play(found.kind, seed, found.steps).violations]


def main():
    """Play the open ones."""
    logging.disable(logging.CRITICAL)
    count = 0
    for each in OPEN:
        now = violations(each)
        count += bool(now)
        print(each.kind, each.seed, each.what, f"({each.why}):", now[0] if now else "repaired")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
