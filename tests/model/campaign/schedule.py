"""Makes a run a function of its seed: whose turn it is, what threads do, all names and times.

trio itself offers the order of tasks to a seed (`_ALLOW_DETERMINISTIC_SCHEDULING`, made for
hypothesis). Work that goes to threads is done on the spot between two turns, some turns later than
it was asked for: real threads would end when they like.
"""

import contextlib
import functools
import itertools
import os
import random
import secrets
import signal
import sys
import time

import trio
from trio._core import _run as run

from tests import hangs

SIZES = {
    "PUT_BYTES_MAX": 512,
    "FIRST_PART_BYTES": 256,
    "PART_BYTES_MIN": 128,
    "COPY_BYTES_MAX": 1024,
    "FETCH_BYTES": 192,
    "QUICK_BYTES_MAX": -1,
}
"""Constants of the program, so small that files of a few cells are sent in parts, and so that all
work on the disk goes to (what stands for) threads. Each is set in all modules that have it."""

PART_BYTES_MIN = SIZES["PART_BYTES_MIN"]
EPOCH_UNIX_S = 1_700_000_000.0
HANG_CPU_S = 6.0


class Killing(trio.abc.Instrument):
    """Calls `strike` before the turn with a given number is taken."""

    def __init__(self):
        self.turns = 0
        self._due = []

    def at(self, turns, strike):
        """After so many turns from now."""
        self._due.append((self.turns + turns, strike))

    def before_task_step(self, task):
        self.turns += 1
        if self._due:
            for each in [one for one in self._due if one[0] <= self.turns]:
                self._due.remove(each)
                each[1]()


@contextlib.contextmanager
def determined(seed, full_disk=None):
    """All that happens inside follows from the seed.

    full_disk() is asked before each write to the disk: the OSError to raise, or None.
    """
    rng = random.Random(seed)
    numbers = itertools.count(1)
    ticks = itertools.count(1)

    async def run_sync(call, *args, **_):
        await trio.lowlevel.checkpoint_if_cancelled()
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            await trio.lowlevel.cancel_shielded_checkpoint()
        try:
            return call(*args)
        finally:
            for _ in range(rng.choice((1, 1, 1, 2))):
                await trio.lowlevel.cancel_shielded_checkpoint()

    def token_hex(count=32):
        return f"{next(numbers):0{2 * count}x}"

    with contextlib.ExitStack() as stack:

        def put(holder, name, value):
            stack.callback(setattr, holder, name, getattr(holder, name))
            setattr(holder, name, value)

        put(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        put(trio.to_thread, "run_sync", run_sync)
        put(secrets, "token_hex", token_hex)
        put(time, "time", lambda: EPOCH_UNIX_S + next(ticks) * 1e-3)
        for module, name in _holders_of_sizes():
            put(module, name, SIZES[name])
        if full_disk is not None:
            put(os, "pwrite", _unless(full_disk, os.pwrite))
        run._r.seed(seed)
        random.seed(seed)
        yield rng


@functools.cache
def _holders_of_sizes():
    modules = [each for name, each in list(sys.modules.items()) if name.startswith("stsfs.")]
    found = [(each, name) for each in modules for name in SIZES if hasattr(each, name)]
    missing = SIZES.keys() - {name for _, name in found}
    assert not missing, f"the program has no constants of these names any more: {missing}"
    return found


bounded = functools.partial(hangs.bounded, HANG_CPU_S, signal.ITIMER_VIRTUAL)
"""A context that raises Hangs where a history does not end, and never waits."""


def _unless(full_disk, write):
    def pwrite(descriptor, data, offset):
        error = full_disk()
        if error is None:
            return write(descriptor, data, offset)
        if len(data) > 32:  # some of it still found room
            write(descriptor, data[:16], offset)
        raise error

    return pwrite
