"""A soak: readers, other clients, vandals and bad weather around one mount."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass

from tests.soak.crews import KINDS, Crews
from tests.soak.judge import Judge
from tests.soak.meters import Meters
from tests.soak.neighbours import Neighbours
from tests.soak.objects import CHANGING, STEADY
from tests.soak.trouble import ANNOUNCED, Weather, phases
from tests.soak.verdict import verdict
from tests.soak.writing import Writing

METADATA_TTL_S = 5.0


@dataclass(frozen=True)
class Plan:
    """How long and how rough."""

    seconds_s: float
    lifetime_s: float
    unit_s: float
    """Of most kinds of trouble."""

    deadline_s: float
    hard: bool
    """Whether readers are to get errors, too."""

    sample_s: float
    command_s: float
    kill_s: float
    vandal_s: float
    crash_s: float
    """Between two kills of a daemon that is written to, about."""

    patience_s: float
    """For how long what was accepted may be neither in S3 nor listed, after a kill."""

    rss_tolerance_mib: float
    sockets_tolerance: int
    seed: int = 1


def long_plan(minutes, lifetime_s, seed, *, crash_s, hard):
    return Plan(
        minutes * 60, lifetime_s, unit_s=12, deadline_s=35, hard=hard, sample_s=2, command_s=4,
        kill_s=5, vandal_s=20, crash_s=crash_s, patience_s=240,
        rss_tolerance_mib=8, sockets_tolerance=16, seed=seed,
    )  # fmt: skip


SHORT = Plan(
    16, lifetime_s=4, unit_s=1, deadline_s=60, hard=False, sample_s=0.25, command_s=1,
    kill_s=2, vandal_s=3, crash_s=5, patience_s=60, rss_tolerance_mib=32, sockets_tolerance=64,
)  # fmt: skip
"""For the suite: less than the cache needs to fill, so memory is looked at only roughly."""


class Soak:
    """One mount under load. `run` returns the report."""

    def __init__(self, stage, folder, host, cache_dir, plan, tell=lambda _: None):
        """tell hears at once of what readers should not have seen."""
        self.stage, self.folder, self.host = stage, folder, host
        self.cache_dir, self.plan = cache_dir, plan
        self.stopping = threading.Event()
        self.judge = Judge(METADATA_TTL_S + 2 * plan.deadline_s, tell)

    def run(self):
        plan, judge = self.plan, self.judge
        for each in STEADY + CHANGING:
            self.folder.write(each.name, each.content(1))
        self.stage.vendor.lifetime_s = plan.lifetime_s
        self.stage.denials_expected = True  # a request signed just before its session ended
        live = self.live = self.host.mount(
            self.folder.syn_id, "--memory", "32MiB", "--cache-dir", self.cache_dir,
            "--cache-size", "96MiB", "--metadata-ttl", METADATA_TTL_S,
            "--deadline", plan.deadline_s,
        )  # fmt: skip
        if plan.hard:
            for pattern in ANNOUNCED.values():
                live.allow_in_log(pattern)
        self.weather = Weather(self.stage, live, judge, plan.deadline_s)
        self.neighbours = Neighbours(live, self.folder, self.cache_dir, judge, plan.seed)
        self.crews = Crews(live, judge, plan.seed, self.stopping)
        self.meters = Meters(live)
        self.writing = None
        try:
            self.writing = Writing(self, self.stage.folder(), self.cache_dir.parent / "writing")
            self.begun_s = time.monotonic()
            self._run_all()
            self.elapsed_s = time.monotonic() - self.begun_s
            report = verdict(self)
        except BaseException:
            live.destroy()
            raise
        finally:
            if self.writing is not None:
                self.writing.destroy()
        report["problems"] += live.audit()
        return report

    def _run_all(self):
        plan, stopping = self.plan, self.stopping
        weather = phases(plan.lifetime_s, plan.unit_s, plan.deadline_s, hard=plan.hard)
        jobs = [
            (self.weather.run, stopping, weather),
            (self.meters.sample, stopping, plan.sample_s),
            (self.meters.ask, stopping, 2 * plan.command_s),
            (self.neighbours.replace, stopping),
            (self.neighbours.command, stopping, plan.command_s),
            (self.neighbours.vandalise, stopping, plan.vandal_s),
            (self.crews.kill, plan.kill_s),
            (self.writing.kill, random.Random(plan.seed), plan.crash_s),
            (self.writing.meters.sample, stopping, plan.sample_s),
            (self.writing.meters.ask, stopping, 2 * plan.command_s),
            *((self.crews.run, kinds) for kinds in KINDS),
        ]
        with ThreadPoolExecutor(len(jobs)) as pool:
            try:
                running = [pool.submit(*job) for job in jobs]
                wait(running, plan.seconds_s, return_when="FIRST_EXCEPTION")
            finally:
                stopping.set()
            for each in as_completed(running):
                each.result()
