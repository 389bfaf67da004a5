"""What this machine can spare: the default memory budget."""

import os
from pathlib import Path

MIB = 1024 * 1024
BUDGET_MAX_BYTES = 1024 * MIB
BUDGET_MIN_BYTES = 32 * MIB
BLOCK_BYTES = MIB

SHARE = 8
"""One part in so many of what is available: a machine of 1 GiB gets 80 MiB or so."""


def default_budget_bytes(
    proc_meminfo: Path = Path("/proc/meminfo"), cgroup_root: Path = Path("/sys/fs/cgroup")
) -> int:
    """A share of the memory available to this process, by the machine and by its cgroup."""
    available = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    fields = (line.split() for line in _lines(proc_meminfo))
    available += [int(field[1]) * 1024 for field in fields if field[0] == "MemAvailable:"]
    for directory in _cgroups(cgroup_root):
        limit = next(iter(_lines(directory / "memory.max")), "max")
        if limit != "max":
            available.append(int(limit))
    return max(BUDGET_MIN_BYTES, min(BUDGET_MAX_BYTES, min(available) // SHARE))


def _cgroups(root: Path) -> list[Path]:
    """Our cgroup (version 2) and those above it; each may have a limit."""
    for line in _lines(Path("/proc/self/cgroup")):
        if line.startswith("0::"):
            own = root / line[3:].lstrip("/")
            return [own, *(p for p in own.parents if p.is_relative_to(root))]
    return []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
