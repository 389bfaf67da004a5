"""The comparison itself: every job on every system, in turn, round after round."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from tests.bench.measure import Job, Meter, RawTarget, Sample, Target
from tests.bench.objects import BUCKET, warm
from tests.bench.processes import JobFailed, run_in_child
from tests.bench.report import RAW, Failure, Measured, Results
from tests.bench.scale import Scale
from tests.bench.server import ObjectServer, serve_new
from tests.bench.systems import STSFS, System, free_readers, mounted

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_DROP_PAGES = "1\n"
"""Pages only: the server's own directories and inodes are not what is measured."""

WARM_UP = 0

AnyTarget = TypeVar("AnyTarget", Target, RawTarget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be compared, and how often."""

    scale: Scale
    warm_up_scale: Scale
    jobs: list[Job]
    systems: list[System]
    rounds: int
    timeout_s: float
    drop_caches: bool


@dataclass(slots=True)
class Comparison:
    """One server's rounds; results go where the caller wants them, as they come."""

    plan: Plan
    server: ObjectServer
    directory: Path
    results: Results
    console: Console
    _given_up: set[tuple[str, str]] = field(default_factory=set)
    _mounts: Iterator[int] = field(default_factory=itertools.count)

    def run(self) -> None:
        """A round to warm up, in which what is read is verified, and the measured ones.

        A system that fails a job is not asked to do it again.
        """
        for number in range(self.plan.rounds + 1):
            for job in self.plan.jobs:
                self._round(number, job)

    def _round(self, number: int, job: Job) -> None:
        systems: list[System | None] = [None] if job.raw else []
        systems += [each for each in self.plan.systems if not (job.writes and each.only_reads)]
        turn = number % len(systems)
        for system in systems[turn:] + systems[:turn]:
            name = system.name if system else RAW
            if (job.name, name) in self._given_up:
                continue
            self._prepare(job)
            try:
                samples = self._measure(job, system, number == WARM_UP)
            except (JobFailed, OSError) as exc:
                self._given_up.add((job.name, name))
                failure = Failure(self.server.flavour.name, number, name, job.name, str(exc))
                self.results.failures.append(failure)
                self._say(number, job, name, f"failed: {exc}")
                continue
            if number != WARM_UP:
                flavour = self.server.flavour.name
                self.results.measured += [Measured(flavour, number, name, s) for s in samples]
            values = ", ".join(f"{sample.figure} {sample.value:.4g}" for sample in samples)
            self._say(number, job, name, values)

    def _prepare(self, job: Job) -> None:
        """The same caches for everyone: none of the last one's, but the server's own."""
        if job.writes:
            os.sync()  # or the last one's bytes would go to the disk in the next one's time
        if self.plan.drop_caches:
            _DROP_CACHES.write_text(_DROP_PAGES)
        bucket = self.server.root / BUCKET
        for tree in job.trees:
            path = bucket / tree
            warm(sorted(path.iterdir()) if path.is_dir() else [path])

    def _measure(self, job: Job, system: System | None, warming_up: bool) -> list[Sample]:
        scale = self.plan.warm_up_scale if warming_up else self.plan.scale
        name = f"{self.server.flavour.name}-{next(self._mounts)}"
        with self._server_for(job, name) as server:
            if system is None:
                raw = RawTarget(server, scale, Meter(None, server), job.tls)
                assert job.raw is not None
                return run_in_child(partial(_all, job.raw, raw), self.plan.timeout_s, _nothing)
            directory = self.directory / f"mount-{name}"
            options = job.stsfs_options if system is STSFS else ()
            with mounted(
                system, server, directory, tls=job.tls, writes=job.writes, options=options
            ) as mount:
                target = Target(
                    root=mount.path,
                    local=server.root / BUCKET,
                    scale=scale,
                    meter=Meter(mount.pid, server),
                    verify=warming_up,
                    ready_s=mount.ready_s,
                    env=mount.env,
                    is_stsfs=system is STSFS,
                )
                free = partial(free_readers, mount.pid)
                return run_in_child(partial(_all, job.run, target), self.plan.timeout_s, free)

    def _server_for(self, job: Job, name: str) -> contextlib.AbstractContextManager[ObjectServer]:
        if job.writes:
            return serve_new(BUCKET, self.server, self.directory / f"written-{name}")
        return contextlib.nullcontext(self.server)

    def _say(self, number: int, job: Job, name: str, words: str) -> None:
        label = "warm-up" if number == WARM_UP else f"round {number}"
        line = f"{self.server.flavour.name} {label}  {job.name:10} {name:7} {words}"
        self.console.print(Text(line), style="dim", soft_wrap=True)


def _all(job: Callable[[AnyTarget], Iterator[Sample]], target: AnyTarget) -> list[Sample]:
    return list(job(target))


def _nothing() -> None:
    pass
