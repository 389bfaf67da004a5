"""Processes of readers: started, heard, replaced when a mapping kills them, and killed."""

import contextlib
import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

KINDS = [
    ["stream", "small", "spots"],
    ["direct", "missing", "listed"],
    ["changing", "changing_direct", "held"],
    ["mapped"],
]
"""Of readers, by process. A mapping holds the interpreter's lock while it waits."""

VICTIMS = ["stream", "mapped", "direct"]


class Crews:
    """Each public method runs in a thread of its own until stopping is set."""

    def __init__(self, live, judge, seed, stopping):
        self.live, self.judge, self.seed, self.stopping = live, judge, seed, stopping
        self.random = random.Random(seed)
        self.complaints = []
        self.kills = self.bus_errors = 0

    def run(self, kinds):
        """Readers in a process of their own, and another one when it dies of SIGBUS."""
        for number in itertools.count():
            if self.stopping.is_set():
                return
            with _readers(self.live, f"{self.seed}-{number}", kinds) as crew:
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

    def kill(self, period_s):
        """Readers of large files that never get to say goodbye."""
        while not self.stopping.wait(period_s):
            with _readers(self.live, self.random.random(), VICTIMS) as crew:
                assert crew.stdout.readline()  # one of them is at it
                self.stopping.wait(self.random.random() * 0.5)
                crew.kill()
                self._hear(crew)
            self.kills += 1


@contextlib.contextmanager
def _readers(live, seed, kinds):
    with subprocess.Popen(
        [sys.executable, "-m", "tests.soak.readers", str(live.path), str(seed), *kinds],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as crew:
        try:
            yield crew
        except BaseException:
            crew.kill()
            raise
