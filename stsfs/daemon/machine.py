"""What this machine can spare: memory, by the machine and by the cgroups we live in; descriptors.

Formats: proc(5), and the kernel's documentation of cgroups, version 2 and 1.
"""

import logging
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

MIB = 1024 * 1024
BUDGET_MAX_BYTES = 1024 * MIB
BUDGET_MIN_BYTES = 32 * MIB
BLOCK_BYTES = MIB

SHARE = 8
"""One part in so many of what is available: a machine of 1 GiB gets 80 MiB or so."""

DESCRIPTORS_MAX = 1 << 20
"""What the kernel allows one process at most, unless root has changed fs.nr_open."""

DESCRIPTORS_RESERVED = 512
"""For all but files being written: connections, the caches on disk, children, clients. At most a
half of what there is."""

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

_V2_ROOTS = ("", "unified")  # the second where version 1 has the controllers
_V1_NO_LIMIT_BYTES = 1 << 62


@dataclass(frozen=True, slots=True)
class Memory:
    """How much there is, and how much of it could be had now without harm to others."""

    machine_total_bytes: int
    machine_available_bytes: int
    total_bytes: int
    """The least of the machine's memory and the limits of our cgroups."""

    available_bytes: int
    """The least of what the machine has available and what the limits leave."""


def read_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> Memory:
    """Memory as it is now. What cannot be read does not limit."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = {name: value * 1024 for name, value in _numbers(proc / "meminfo")}
    total = meminfo.get("MemTotal:", physical)
    available = meminfo.get("MemAvailable:", total)
    limits = list(_limits(proc, cgroups))
    return Memory(
        total,
        available,
        min([total, *(limit for limit, _ in limits)]),
        max(0, min([available, *(limit - used for limit, used in limits)])),
    )


def share_bytes(available_bytes: int) -> int:
    """The budget of a cache that can have so much at most."""
    return max(BUDGET_MIN_BYTES, min(BUDGET_MAX_BYTES, available_bytes // SHARE))


def default_budget_bytes() -> int:
    """The budget of a mount that begins now."""
    return share_bytes(read_memory().available_bytes)


def pressure_file(proc: Path = PROC, cgroups: Path = CGROUPS) -> Path | None:
    """Where the kernel says how long the tasks of our own cgroup waited for memory, if it does."""
    for own in _own_cgroups(proc, ""):
        for root in _V2_ROOTS:
            directory = cgroups / root / own
            # The root of all cgroups has no type, and no pressure but the machine's.
            if (directory / "cgroup.type").exists() and (directory / "memory.pressure").exists():
                return directory / "memory.pressure"
    return None


def raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as it may; returns how many.

    The soft limit of 1024 is there for programs that use select(2), which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _bounded(soft)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as exc:  # a sandbox that forbids it
        log.warning("the limit of %d open files cannot be raised to %d: %s", soft, wanted, exc)
        return soft
    return wanted


def descriptor_budget() -> int:
    """How many descriptors files being written may hold at the same time, at least 1."""
    limit = _bounded(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return max(1, limit - min(DESCRIPTORS_RESERVED, limit // 2))


def _bounded(limit: int) -> int:
    return DESCRIPTORS_MAX if limit == resource.RLIM_INFINITY else limit


def _limits(proc: Path, cgroups: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) bytes of our cgroups and those above them; page cache is not counted as used,
    because it goes when memory is wanted."""
    for own in _own_cgroups(proc, ""):
        for root in _V2_ROOTS:
            for directory in _up_to(cgroups / root, own):
                # Above `high` the kernel slows us down to a crawl, which is no better than `max`.
                limits = [_number(directory / name) for name in ("memory.max", "memory.high")]
                known = [limit for limit in limits if limit is not None]
                if known:
                    yield min(known), _used(directory, "memory.current", "")
    for own in _own_cgroups(proc, "memory"):
        for directory in _up_to(cgroups / "memory", own):
            limit = _number(directory / "memory.limit_in_bytes")
            if limit is not None and limit < _V1_NO_LIMIT_BYTES:
                yield limit, _used(directory, "memory.usage_in_bytes", "total_")


def _used(directory: Path, name: str, prefix: str) -> int:
    stat = dict(_numbers(directory / "memory.stat"))
    cached = stat.get(f"{prefix}inactive_file", 0) + stat.get(f"{prefix}active_file", 0)
    return (_number(directory / name) or 0) - cached


def _own_cgroups(proc: Path, controller: str) -> list[str]:
    """Our cgroup's path below the root of a controller's tree; that of version 2 has no name."""
    fields = (line.split(":", 2) for line in _lines(proc / "self/cgroup"))
    return [path.strip("/") for _, names, path in fields if controller in names.split(",")]


def _up_to(root: Path, own: str) -> list[Path]:
    directory = root / own
    return [directory, *(each for each in directory.parents if each.is_relative_to(root))]


def _number(path: Path) -> int | None:
    text = next(iter(_lines(path)), "")
    return int(text) if text.isdecimal() else None  # `max` is none


def _numbers(path: Path) -> Iterator[tuple[str, int]]:
    for line in _lines(path):
        name, _, rest = line.partition(" ")
        value = rest.split()[:1]
        if value and value[0].isdecimal():
            yield name, int(value[0])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []
