"""The budget of memory follows what the machine can spare; names and blocks share it.

Where memory is short the cache shrinks at once, by halves; where all is calm it grows back slowly.
What decides is a pure function of what was read; the task around it reads, and resizes the pool.
"""

import logging
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from stsfs.cache.block_pool import BlockPool
from stsfs.daemon import machine, psi
from stsfs.daemon.machine import MIB, Memory, share_bytes
from stsfs.supervisor import kept_running

log = logging.getLogger(__name__)

FLOOR_BYTES = 16 * MIB
"""The least that pressure leaves: what `--memory` may be at least."""

STALLED_PERCENT = 10.0
CHECK_S = 5.0
"""Between two looks where the kernel does not tell us itself."""

PAUSE_S = 2.0
"""After shrinking: what was given back has to show first."""

NAMES_PARTS = 2
"""Names may have one part in so many of the budget. What they do not take, blocks have."""

CALM_S = 30.0
GROW_S = 10.0
_GROW_PARTS = 8

_RESERVE_PARTS = 16
_RESERVE_MAX_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True)
class Signs:
    """What there is to judge by."""

    memory: Memory
    used_bytes: int
    """Memory that the cache has taken."""

    machine_stalled_percent: float
    cgroup_stalled_percent: float
    """How much of the last seconds some task waited for memory, by PSI."""


def shortage(signs: Signs) -> str | None:
    """Why memory is short, in words; None when it is not."""
    memory = signs.memory
    reserve = _reserve_bytes(memory)
    if memory.available_bytes < reserve:
        return f"only {memory.available_bytes // MIB} MiB of memory were left"
    if signs.cgroup_stalled_percent >= STALLED_PERCENT:
        return "tasks of its cgroup waited for memory"
    # Tasks that wait because of a limit of their own show here, too; nothing of ours helps them.
    near = memory.machine_available_bytes < memory.machine_total_bytes // 4
    if near and signs.machine_stalled_percent >= STALLED_PERCENT:
        return "tasks of this machine waited for memory"
    return None


class Names(Protocol):
    """What holds names in memory; implemented by `vfs.tree`."""

    @property
    def names_bytes(self) -> int:
        """Memory that they take, about."""

    def limit_names(self, limit_bytes: int) -> None:
        """Let them take so much at most."""


class Governor:
    """Decides the budget, from look to look."""

    def __init__(self, budget_bytes: int, *, fixed_bytes: int | None) -> None:
        """fixed_bytes is the budget an option asks for; None lets it follow available memory."""
        self.budget_bytes = budget_bytes
        self.full_bytes = budget_bytes
        """What the budget grows to while all is calm."""

        self.why: str | None = None
        """Why the budget was shrunk below full_bytes."""

        self.shrunk = 0
        """How often."""

        self._fixed_bytes = fixed_bytes
        self._changed_s = self._short_s = float("-inf")

    def look(self, signs: Signs, now_s: float) -> int:
        """The budget from now on, in bytes."""
        wanted = self._fixed_bytes or share_bytes(signs.memory.available_bytes + signs.used_bytes)
        floor = min(FLOOR_BYTES, wanted)
        why = shortage(signs)
        if why is not None:
            self._short_s = now_s
            if now_s - self._changed_s >= PAUSE_S:
                in_use = min(self.budget_bytes, signs.used_bytes)
                self._shrink_to(max(floor, in_use // 2), why, now_s)
        else:
            if not wanted * 4 // 5 <= self.full_bytes <= wanted * 5 // 4:  # not at every trifle
                self.full_bytes = wanted
                self._shrink_to(wanted, None, now_s)
            self._grow(signs, now_s)
        if self.budget_bytes >= self.full_bytes:
            self.why = None
        return self.budget_bytes

    def _shrink_to(self, budget_bytes: int, why: str | None, now_s: float) -> None:
        if budget_bytes < self.budget_bytes:
            self.budget_bytes = budget_bytes
            self.shrunk += 1
            self._changed_s = now_s
            self.why = why or self.why

    def _grow(self, signs: Signs, now_s: float) -> None:
        step = self.full_bytes // _GROW_PARTS
        room = signs.memory.available_bytes - 2 * _reserve_bytes(signs.memory)
        calm = now_s - self._short_s >= CALM_S and now_s - self._changed_s >= GROW_S
        if calm and self.budget_bytes < self.full_bytes and room >= step:
            self.budget_bytes = min(self.full_bytes, self.budget_bytes + step)
            self._changed_s = now_s


def _reserve_bytes(memory: Memory) -> int:
    """What others should find when they ask for memory."""
    return min(_RESERVE_MAX_BYTES, memory.total_bytes // _RESERVE_PARTS)


class PressureWatch:
    """Keeps a pool, and names, within the budget of a Governor. `run` owns the watching."""

    def __init__(
        self,
        pool: BlockPool,
        *,
        fixed_bytes: int | None,
        names: Names | None = None,
        give_way: Callable[[], bool] | None = None,
        proc: Path = machine.PROC,
        cgroups: Path = machine.CGROUPS,
    ) -> None:
        """give_way lets go of some pinned memory that could be spared; False if there is none."""
        self.governor = Governor(pool.budget_bytes, fixed_bytes=fixed_bytes)
        self._pool, self._names = pool, names
        self._names_blocks = 0  # as the pool was last told of
        if names is not None:
            names.limit_names(self.names_limit_bytes)
        self._give_way = give_way
        self._proc, self._cgroups = proc, cgroups
        of_cgroup = machine.pressure_file(proc, cgroups)
        self._files = [proc / "pressure/memory", *([] if of_cgroup is None else [of_cgroup])]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look whenever the kernel reports pressure, and now and then; until cancelled."""
        async with trio.open_nursery() as nursery:
            for path in self._files:
                task = f"memory pressure of {path}"
                nursery.start_soon(kept_running, task, self._heed_trigger, path)
            task_status.started()
            await kept_running("memory pressure", self._look_now_and_then)

    async def _look_now_and_then(self) -> None:
        while True:
            await trio.sleep(CHECK_S)
            self.look()

    async def _heed_trigger(self, path: Path) -> None:
        trigger = psi.open_trigger(path)
        if trigger is None:
            return
        try:
            while True:
                await trigger.wait()
                self.look({path})
                await trio.sleep(PAUSE_S)
        finally:
            trigger.close()

    def look(self, reported: Set[Path] = frozenset()) -> None:
        """Read what there is to read, and resize the pool if need be. Not a checkpoint.

        The pressure files in reported have just had a trigger, which is ahead of their averages.
        """
        before = self.governor.budget_bytes
        after = self.governor.look(self._signs(reported), trio.current_time())
        if after == before:
            self.share()
            return
        pool, give_way = self._pool, self._give_way
        if self._names is not None:
            self._names.limit_names(self.names_limit_bytes)
        self._resize()
        while give_way is not None and pool.used_bytes > pool.budget_bytes and give_way():
            pass
        why = self.governor.why
        is_bad = after < before and why is not None
        log.log(
            logging.WARNING if is_bad else logging.INFO,
            "the cache may have %d MiB of memory, not %d%s",
            after // MIB,
            before // MIB,
            f": {why}" if is_bad else "",
        )

    def share(self) -> None:
        """Names have grown or were given up: let blocks have the rest. Not a checkpoint."""
        if self._names_blocks != self._blocks_of_names():
            self._resize()

    def _resize(self) -> None:
        self._names_blocks = self._blocks_of_names()
        names_bytes = self._names_blocks * self._pool.block_bytes
        self._pool.resize(self.governor.budget_bytes - names_bytes)

    def _blocks_of_names(self) -> int:
        names_bytes = 0 if self._names is None else self._names.names_bytes
        return min(names_bytes, self.names_limit_bytes) // self._pool.block_bytes

    def status(self) -> dict[str, object]:
        """For `stsfs status`."""
        governor = self.governor
        return {
            "budget_bytes": self._pool.budget_bytes,
            "full_budget_bytes": max(governor.full_bytes, self._pool.budget_bytes),
            "shrunk": governor.shrunk,
            "shrunk_because": governor.why,
        }

    @property
    def names_limit_bytes(self) -> int:
        """Memory that names may take at most, out of the budget."""
        return self.governor.budget_bytes // NAMES_PARTS

    def _signs(self, reported: Set[Path]) -> Signs:
        stalled = [
            max(psi.read_stalled_percent(path), STALLED_PERCENT if path in reported else 0.0)
            for path in self._files
        ]
        memory = machine.read_memory(self._proc, self._cgroups)
        used_bytes = self._pool.used_bytes + self._names_blocks * self._pool.block_bytes
        return Signs(memory, used_bytes, stalled[0], sum(stalled[1:]))
