"""How much data the jobs read, and for how long."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

SMALL_BYTES = 64 * KIB
STREAM_READ_BYTES = MIB
RANDOM_READ_BYTES = 256 * KIB
PRESSURE_READ_BYTES = 64 * KIB
PRESSURE_MEMORY = "128MiB"
LATENCY_READ_BYTES = 4 * KIB


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of the objects, and durations of the jobs that end by the clock."""

    name: str
    stream_bytes: int
    part_bytes: int
    part_count: int
    random_bytes: int
    """Of each file of the memory-pressure job; all together are more than PRESSURE_MEMORY."""

    random_count: int
    small_count: int
    written_count: int
    """Small files to write."""

    flat_count: int
    """Keys in one directory."""

    tree_directories: int
    tree_files: int
    """In each directory."""

    random_s: float
    pressure_s: float
    latency_s: float
    format_copies: int
    """How often the demo's data set is repeated for the jobs with real tools."""

    @property
    def tree_count(self) -> int:
        """Keys in the tree."""
        return self.tree_directories * self.tree_files


FULL = Scale(
    name="full",
    stream_bytes=GIB,
    part_bytes=128 * MIB,
    part_count=8,
    random_bytes=64 * MIB,
    random_count=16,
    small_count=2000,
    written_count=1000,
    flat_count=100_000,
    tree_directories=1000,
    tree_files=100,
    random_s=5.0,
    pressure_s=60.0,
    latency_s=60.0,
    format_copies=25,
)

QUICK = Scale(
    name="quick",
    stream_bytes=128 * MIB,
    part_bytes=16 * MIB,
    part_count=8,
    random_bytes=16 * MIB,
    random_count=16,
    small_count=200,
    written_count=200,
    flat_count=10_000,
    tree_directories=100,
    tree_files=100,
    random_s=2.0,
    pressure_s=10.0,
    latency_s=10.0,
    format_copies=2,
)


def size(count_bytes: int) -> str:
    """`128 MiB` for titles; the sizes above are whole numbers of one unit."""
    for unit, unit_bytes in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if count_bytes >= unit_bytes:
            return f"{count_bytes // unit_bytes} {unit}"
    return f"{count_bytes} B"
