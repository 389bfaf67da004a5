"""A soak: readers, other clients, vandals and bad weather around one mount, and the verdict."""

import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import asdict, dataclass

from tests.mount.stage import PATIENCE_S
from tests.soak.judge import DELETED, Judge
from tests.soak.meters import Meters
from tests.soak.objects import BIG, CHANGING, MISSING, NAMES, STEADY
from tests.soak.trouble import ANNOUNCED, Weather, phases

METADATA_TTL_S = 5.0
CREWS = [
    ["stream", "small", "spots"],
    ["direct", "missing", "listed"],
    ["changing", "changing_direct", "held"],
    ["mapped"],
]
"""Kinds of readers by process."""

SETTLED_CODES = {0, 40, 41, 42}
"""Of commands about a path: done, no such path, a part of it is a file, replaced just now."""

TROUBLED_CODES = {12, 31, 36, 37}
"""What commands may say of the weather."""


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
    rss_tolerance_mib: float
    seed: int = 1


def long_plan(minutes, lifetime_s, seed):
    return Plan(
        minutes * 60, lifetime_s, unit_s=12, deadline_s=35, hard=True, sample_s=2, command_s=4,
        kill_s=5, vandal_s=20, rss_tolerance_mib=8, seed=seed,
    )  # fmt: skip


SHORT = Plan(
    16, lifetime_s=2, unit_s=1, deadline_s=60, hard=False, sample_s=0.25, command_s=1,
    kill_s=2, vandal_s=3, rss_tolerance_mib=32,
)  # fmt: skip
"""For the suite: less than the cache needs to fill, so memory is looked at only roughly."""


class Soak:
    """One mount under load. `run` returns the report."""

    def __init__(self, stage, folder, host, cache_dir, plan, tell=lambda _: None):
        """tell hears of what is wrong at once."""
        self.stage, self.folder, self.host, self.plan = stage, folder, host, plan
        self.cache_dir = cache_dir
        self.random = random.Random(plan.seed)
        self.stopping = threading.Event()
        self.judge = Judge(METADATA_TTL_S + 2 * plan.deadline_s, tell)
        self.commands = Counter()
        self.complaints = []
        self.kills = self.flips = self.clears = self.replacements = self.bus_errors = 0

    def run(self):
        for each in STEADY + CHANGING:
            self.folder.write(each.name, each.content(1))
        self.stage.vendor.lifetime_s = self.plan.lifetime_s
        self.stage.denials_expected = True  # a request signed just before its session ended
        live = self.live = self.host.mount(
            self.folder.syn_id, "--memory", "32MiB", "--cache-dir", self.cache_dir,
            "--cache-size", "96MiB", "--metadata-ttl", METADATA_TTL_S,
            "--deadline", self.plan.deadline_s,
        )  # fmt: skip
        if self.plan.hard:
            for pattern in ANNOUNCED.values():
                live.allow_in_log(pattern)
        self.weather = Weather(self.stage, self.folder, live, self.judge, self.plan.deadline_s)
        self.meters = Meters(live)
        try:
            begun_s = time.monotonic()
            self._run_all()
            self.elapsed_s = time.monotonic() - begun_s
            return self._report()
        except BaseException:
            live.destroy()
            raise

    def _run_all(self):
        plan, stopping = self.plan, self.stopping
        weather = phases(plan.lifetime_s, plan.unit_s, plan.deadline_s, hard=plan.hard)
        jobs = [
            (self.weather.run, stopping, weather),
            (self.meters.sample, stopping, plan.sample_s),
            (self.meters.ask, stopping, 2 * plan.command_s),
            (self._replace,),
            (self._command,),
            (self._kill_readers,),
            (self._vandalise,),
            *((self._crew, kinds) for kinds in CREWS),
        ]
        with ThreadPoolExecutor(len(jobs)) as pool:
            try:
                running = [pool.submit(*job) for job in jobs]
                wait(running, plan.seconds_s, return_when="FIRST_EXCEPTION")
            finally:
                stopping.set()
            for each in as_completed(running):
                each.result()

    # Readers.

    def _crew(self, kinds):
        """Readers in a process of their own, and another one when it dies of SIGBUS."""
        for number in itertools.count():
            if self.stopping.is_set():
                return
            with _readers(self.live, f"{self.plan.seed}-{number}", kinds) as crew:
                closing = threading.Thread(target=self._close_at_the_end, args=[crew])
                closing.start()
                announced = self._hear(crew)
                crew.wait()
                closing.join()
            if crew.returncode == -signal.SIGBUS:
                self.bus_errors += 1
                told = {"end_s": time.monotonic(), "versions": [], "errno": "SIGBUS"}
                self.judge.hear(announced | told)
            elif crew.returncode:
                self.complaints.append(f"readers {kinds} ended with {crew.returncode}")

    def _close_at_the_end(self, crew):
        while crew.poll() is None and not self.stopping.wait(0.2):
            pass
        crew.stdin.close()

    def _hear(self, crew):
        """Judge what readers tell; returns the announcement that was left without an end."""
        announced = None
        for line in crew.stdout:
            if not line.endswith(b"\n"):
                break  # killed while it spoke
            attempt = json.loads(line)
            if attempt["end_s"] is None:
                announced = attempt
            else:
                self.judge.hear(attempt)
        return announced

    def _kill_readers(self):
        """Readers of large files that never get to say goodbye."""
        while not self.stopping.wait(self.plan.kill_s):
            with _readers(self.live, self.random.random(), ["stream", "mapped", "direct"]) as crew:
                assert crew.stdout.readline()  # one of them is at it
                self.stopping.wait(self.random.random() * 0.5)
                crew.kill()
                self._hear(crew)
            self.kills += 1

    # Other clients and vandals.

    def _replace(self):
        """Objects are replaced, deleted and made again, one at a time."""
        newest = {each.name: 1 for each in CHANGING}
        while not self.stopping.wait(self.random.uniform(0.1, 0.8)):
            chosen = self.random.choice(CHANGING)
            version = newest[chosen.name] + 1
            gone = self.judge.histories[chosen.name].states[-1][0] == DELETED
            delete = not gone and self.random.random() < 0.1
            with self.judge.lock:
                history = self.judge.histories[chosen.name]
                history.begin(DELETED if delete else version, time.monotonic())
            if delete:
                self.folder.delete(chosen.name)
            else:
                self.folder.put(chosen.name, chosen.content(version))
                newest[chosen.name] = version
            with self.judge.lock:
                history.done(time.monotonic())
            self.replacements += 1

    def _vandalise(self):
        """Flip bytes in files of the cache, and clear it now and then."""
        for number in itertools.count(1):
            if self.stopping.wait(self.plan.vandal_s):
                return
            chunks = [path for path in self.cache_dir.rglob("chunks/*/*") if path.is_file()]
            for path in self.random.sample(chunks, min(20, len(chunks))):
                with contextlib.suppress(FileNotFoundError):
                    self.flips += _flip_a_byte(path, self.random)
            if number % 3 == 0:
                self._ask("cache", "clear", self.cache_dir)
                self.clears += 1

    def _command(self):
        paths = [each.name for each in BIG + CHANGING + STEADY[10:20]] + MISSING[:3] + ["big", ""]
        commands = itertools.cycle(["explain", "info", "refresh", "status", "list", "cache"])
        while not self.stopping.wait(self.plan.command_s):
            path, command = self.live / self.random.choice(paths), next(commands)
            if command == "cache":
                self._ask("cache", "info", self.cache_dir)
            elif command == "list":
                self._ask("list")
            else:
                self._ask(command, self.live.path if command == "status" else path)

    def _ask(self, *arguments):
        begin_s = time.monotonic()
        done = self.host.stsfs(*arguments)
        self.commands[f"{arguments[0]} {done.returncode}"] += 1
        with self.judge.lock:
            windows = [each for each in self.judge.windows if each.meets(begin_s, time.monotonic())]
        good = SETTLED_CODES | (TROUBLED_CODES if windows else set())
        if done.returncode not in good or "Traceback" in done.stderr:
            self.complaints.append(f"{arguments}: {done.returncode} {done.stderr}")

    # The verdict.

    def _report(self):
        live, status = self.live, self.live.settled_status()
        levels = self.meters.levels(self.plan.rss_tolerance_mib)
        levelled = self._forgotten_inodes()
        log_lines = Counter(re.findall(r" (WARNING|ERROR|CRITICAL) ", live.log()))
        sts = self._sts_calls(status)
        verdicts = Counter(each.verdict for each in self.stage.gate.denied)
        problems = [f"{each['reason']}: {each}" for each in self.judge.wrong]
        problems += self.complaints
        problems += [f"{name} is not level: {each}" for name, each in levels.items()
                     if not each.is_level]  # fmt: skip
        if sts["calls"] > sts["at_most"]:
            problems.append(f"too many STS calls: {sts}")
        if levelled > NAMES:
            problems.append(f"{levelled} inodes after all was forgotten")
        if set(verdicts) - {"ExpiredToken"}:
            problems.append(f"requests that the policy denies: {verdicts}")
        problems += live.audit()
        judge = self.judge
        return {
            "plan": asdict(self.plan),
            "elapsed_s": round(self.elapsed_s, 1),
            "attempts": dict(judge.attempts),
            "read_bytes": {kind: n for kind, n in judge.read_bytes.items() if n},
            "errnos": {f"{kind} {name}": n for (kind, name), n in sorted(judge.errnos.items())},
            "wrong": judge.wrong_count,
            "faults": dict(self.weather.applied),
            "sts": sts,
            "levels": self.meters.as_json(levels),
            "inodes_at_the_end": levelled,
            "replacements": self.replacements,
            "readers_killed": self.kills,
            "bytes_flipped": self.flips,
            "cache_clears": self.clears,
            "commands": dict(sorted(self.commands.items())),
            "log_lines": dict(log_lines),
            "requests": status["requests"],
            "throttled": status["throttled"],
            "cache": status["cache"],
            "disk_cache": status["disk_cache"],
            "problems": problems,
        }

    def _sts_calls(self, status):
        """Calls, and how many the ends of sessions explain: one is renewed when three tenths of
        its life are left at the earliest, when S3 calls it over, and after each failure."""
        expired = self.weather.applied["ExpiredToken"] + self.stage.gate.denied.count()
        by_time = (self.elapsed_s + PATIENCE_S / 10) / (0.7 * self.plan.lifetime_s)
        failures = status["credentials"]["failures"]
        return {
            "calls": self.folder.sts_calls,
            "by_time": round(by_time),
            "called_expired": expired,
            "failures": failures,
            "at_most": 1 + round(by_time) + expired + failures,
        }

    def _forgotten_inodes(self):
        """Inodes known once the kernel has forgotten all names."""
        assert self.host.stsfs("refresh", self.live.path).returncode == 0
        deadline_s, least = time.monotonic() + PATIENCE_S / 10, float("inf")
        while time.monotonic() < deadline_s:
            least = min(least, self.live.status()["inodes"])
            if least <= NAMES:
                break
        return least


@contextlib.contextmanager
def _readers(live, seed, kinds):
    with subprocess.Popen(
        [sys.executable, "-m", "tests.soak.readers", str(live.path), str(seed), *kinds],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as crew:
        try:
            yield crew
        except BaseException:
            crew.kill()
            raise


def _flip_a_byte(path, chance):
    with open(path, "r+b") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if not size_bytes:
            return 0
        offset = chance.randrange(size_bytes)
        byte = os.pread(file.fileno(), 1, offset)
        return os.pwrite(file.fileno(), bytes([byte[0] ^ 0x10]), offset) if byte else 0
