"""What the daemon takes, sample by sample, and whether it stays level."""

import os
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Level:
    """A series in thirds: the first warms up, the last must not lie above the middle one."""

    unit: str
    first: float
    middle: float
    last: float
    peak: float
    tolerance: float
    samples: int

    @property
    def is_level(self):
        return self.last - self.middle <= self.tolerance

    @classmethod
    def of(cls, values, unit, tolerance):
        """The medians; tolerance is a function of the middle one."""
        third = len(values) // 3
        parts = values[:third], values[third : 2 * third], values[2 * third :]
        first, middle, last = (round(statistics.median(part or [0]), 1) for part in parts)
        peak = max(values, default=0)
        return cls(unit, first, middle, last, peak, tolerance(middle), len(values))


@dataclass
class Meters:
    """Samples of one daemon."""

    live: object
    rss_mib: list = field(default_factory=list)
    descriptors: list = field(default_factory=list)
    """Other than sockets, which come and go with what there is to fetch."""

    sockets: list = field(default_factory=list)
    threads: list = field(default_factory=list)
    inodes: list = field(default_factory=list)
    open_files: list = field(default_factory=list)

    def sample(self, stopping, period_s):
        """Look from outside, again and again."""
        while not stopping.wait(period_s):
            lines = Path(f"/proc/{self.live.pid}/status").read_text().splitlines()
            facts = dict(line.split(":", 1) for line in lines)
            assert "VmRSS" in facts, "the daemon has ended"
            self.rss_mib.append(round(int(facts["VmRSS"].split()[0]) / 1024, 1))
            self.threads.append(int(facts["Threads"]))
            links = [_target(each) for each in Path(f"/proc/{self.live.pid}/fd").iterdir()]
            self.sockets.append(sum(each.startswith("socket:") for each in links))
            self.descriptors.append(len(links) - self.sockets[-1])

    def ask(self, stopping, period_s):
        """Look at what it says of itself."""
        while not stopping.wait(period_s):
            status = self.live.status()
            self.inodes.append(status["inodes"])
            self.open_files.append(status["open_files"])

    def levels(self, rss_tolerance_mib, sockets_tolerance):
        """Each series may wander a little, since the trouble of each moment differs."""
        return {
            "RSS": Level.of(self.rss_mib, "MiB", lambda m: max(rss_tolerance_mib, m / 20)),
            "descriptors": Level.of(self.descriptors, "", lambda _: 12),
            "sockets": Level.of(self.sockets, "", lambda _: sockets_tolerance),
            "threads": Level.of(self.threads, "", lambda _: 12),
            "inodes": Level.of(self.inodes, "", lambda m: max(40, m / 5)),
            "open files": Level.of(self.open_files, "", lambda _: 12),
        }

    @staticmethod
    def as_json(levels):
        return {name: asdict(level) | {"is_level": level.is_level}
                for name, level in levels.items()}  # fmt: skip


def _target(link):
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""
