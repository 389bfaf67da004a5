"""What one job on one system gives: figures, and what they cost the daemon and the server."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.objects import BUCKET
from tests.bench.plain_client import PlainClient
from tests.bench.scale import Scale
from tests.bench.server import ObjectServer

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MEGA = 1e6


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table."""

    key: str
    title: str
    unit: str
    more_is_better: bool = True
    comparable: bool = True
    """Whether it makes sense to say how many times as good one system is as another."""

    aim_at_most: float | None = None
    """What stsfs shall not exceed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a figure, with what the daemon and the server had to do for it."""

    figure: str
    value: float
    cpu_s: float | None = None
    rss_peak_bytes: int | None = None
    requests: int | None = None
    fetched_bytes: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Reading:
    """What a `Meter` saw between two moments; complete when its `with` block has ended."""

    elapsed_s: float = 0.0
    cpu_s: float | None = None
    rss_peak_bytes: int | None = None
    requests: int | None = None
    fetched_bytes: int | None = None

    def sample(self, figure: str, value: float, **details: Any) -> Sample:
        """The figure with these costs."""
        return Sample(
            figure, value, self.cpu_s, self.rss_peak_bytes, self.requests, self.fetched_bytes,
            details,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures time, and the work of a daemon (or of none) and of the server."""

    pid: int | None
    server: ObjectServer

    @contextlib.contextmanager
    def measure(self) -> Iterator[Reading]:
        """Measure the block."""
        reading = Reading()
        self.server.forget_requests()
        cpu_before_s = _cpu_s(self.pid) if self.pid else 0.0
        begun_s = time.perf_counter()
        yield reading
        reading.elapsed_s = time.perf_counter() - begun_s
        if self.server.request_log is not None:
            reading.requests, reading.fetched_bytes = self.server.requests_seen()
        if self.pid is not None:
            reading.cpu_s = _cpu_s(self.pid) - cpu_before_s
            reading.rss_peak_bytes = _rss_peak_bytes(self.pid)


def _cpu_s(pid: int) -> float:
    """User and system time of a process with all its threads; see proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _rss_peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")


@dataclass(frozen=True, slots=True)
class Target:
    """What a job reads: a directory with the bucket's keys in it."""

    root: Path
    local: Path
    """The same files where the server has them."""

    scale: Scale
    meter: Meter
    verify: bool
    """Compare what is read with the local files: in the round that is not measured."""

    ready_s: float
    env: dict[str, str]
    is_stsfs: bool

    def check(self, name: str, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Compare bytes read with the file they come from. Raises AssertionError."""
        if self.verify:
            with (self.local / name).open("rb", buffering=0) as file:
                file.seek(offset)
                if file.read(len(data)) != data:
                    raise AssertionError(f"wrong bytes at {offset} of {name}")


@dataclass(frozen=True, slots=True)
class RawTarget:
    """The same for jobs that ask the server directly."""

    server: ObjectServer
    scale: Scale
    meter: Meter
    tls: bool = False

    def client(self) -> PlainClient:
        """A new connection."""
        server = self.server
        return PlainClient(server.tls_url if self.tls else server.url, server.ca_file)

    def target(self, name: str) -> str:
        """The request target of an object."""
        return f"/{BUCKET}/{name}"

    @property
    def processes(self) -> int:
        """How many GETs at once fill the network."""
        return self.server.flavour.raw_processes


@dataclass(frozen=True, slots=True)
class Job:
    """One mount, measured: the figures it gives, and how."""

    name: str
    figures: tuple[Figure, ...]
    run: Callable[[Target], Iterator[Sample]]
    raw: Callable[[RawTarget], Iterator[Sample]] | None = None
    trees: tuple[str, ...] = ()
    """What the server must have in its page cache."""

    stsfs_options: tuple[str, ...] = ()
    tls: bool = False
    writes: bool = False
    """Done on an empty bucket of its own, mounted for writing."""

    optional: bool = False
    """Done only when it is asked for."""
