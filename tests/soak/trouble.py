"""The weather of a soak: one kind of trouble after the other, and what readers may notice of it."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.mount.stage import PATIENCE_S
from tests.soak.judge import Window


@dataclass(frozen=True)
class Phase:
    """Faults of the gate for some seconds, or Synapse away."""

    name: str
    seconds_s: float
    faults: Callable = lambda plan: []
    """(plan) -> its rules."""

    errnos: frozenset = frozenset()
    synapse_down: bool = False


def phases(lifetime_s, unit_s, deadline_s, *, hard):
    """One round; hard ones too, in which readers get errors, if they are wanted."""

    def of(*names):
        return frozenset(names)

    easy = [
        Phase("calm", unit_s),
        Phase("503 SlowDown", unit_s, lambda plan: [plan.every_nth(4)]),
        Phase("cut bodies", unit_s, lambda plan: [
            plan.cut_body(3, after_bytes=100_000), plan.cut_body(7, after_bytes=0),
        ]),
        Phase("Synapse down for a moment", lifetime_s / 5, errnos=of("EKEYEXPIRED"),
              synapse_down=True),
        Phase("stalls", unit_s, lambda plan: [
            plan.stall(8, seconds_s=1.0), plan.stall(11, seconds_s=0.7, after_bytes=50_000),
        ]),
        Phase("ExpiredToken", unit_s, lambda plan: [
            plan.every_nth(40, status=400, code="ExpiredToken", limit=3),
        ]),
        Phase("lost answers", unit_s, lambda plan: [
            plan.lose_answer(5, kinds=["PUT", "COPY", "DELETE", "PART", "PART_COPY"]),
            plan.lose_answer(4, kinds=["MULTIPART"]),
        ]),
        Phase("all at once", unit_s, lambda plan: [
            plan.every_nth(7), plan.every_nth(9, status=500), plan.hang_up(11),
            plan.cut_body(5, after_bytes=70_000), plan.stall(13, seconds_s=0.5),
        ]),
        Phase("Synapse down", lifetime_s * 1.3, errnos=of("EKEYEXPIRED"), synapse_down=True),
    ]  # fmt: skip
    if not hard:
        return easy
    return [
        *easy,
        # Longer than the Synapse client tries before it tells readers why they wait.
        Phase("Synapse down for long", 40 + lifetime_s, errnos=of("EKEYEXPIRED"),
              synapse_down=True),
        Phase("nothing but 503", 12.0, lambda plan: [plan.every_nth(1)],
              of("EIO", "ETIMEDOUT")),
        Phase("stalls beyond the deadline", unit_s, lambda plan: [
            plan.stall(15, seconds_s=deadline_s + 5),
            plan.stall(20, seconds_s=deadline_s + 5, after_bytes=30_000),
        ], of("ETIMEDOUT")),
    ]  # fmt: skip


ANNOUNCED = {
    "EIO": r"Failed \d+ times",
    "ETIMEDOUT": r"No (answer|progress) within",
}
"""What the log says as ERROR when trouble ends in these."""


@dataclass
class Weather:
    """Runs phases round and round, and tells the judge what may be noticed."""

    stage: object
    live: object
    judge: object
    deadline_s: float
    applied: Counter = field(default_factory=Counter)
    """How often the rules of each phase struck; for Synapse, how many outages."""

    outages_s: float = 0.0

    def run(self, stopping, round_of_phases):
        while not stopping.is_set():
            for phase in round_of_phases:
                if stopping.is_set():
                    return
                with self._announced(phase):
                    (self._outage if phase.synapse_down else self._faults)(phase, stopping)

    @contextmanager
    def _announced(self, phase):
        window = Window(time.monotonic(), phase.errnos, phase.synapse_down)
        with self.judge.lock:
            if phase.errnos:
                self.judge.windows.append(window)
        try:
            yield
        finally:
            # What was asked during the trouble may be told when its deadline has passed.
            after_s = 0.0 if phase.synapse_down else self.deadline_s + 5
            with self.judge.lock:
                window.end_s = time.monotonic() + after_s

    def _faults(self, phase, stopping):
        rules = phase.faults(self.stage.gate.faults)
        try:
            stopping.wait(phase.seconds_s)
        finally:
            for rule in rules:
                self.stage.gate.faults.remove(rule)
                self.applied[phase.name] += rule.applied

    def _outage(self, phase, stopping):
        begin_s, vended = time.monotonic(), self.stage.vendor.vended
        with self.stage.synapse_down():
            stopping.wait(phase.seconds_s)
        self.stage.vendor.wait_for(vended + 1)
        deadline_s = time.monotonic() + PATIENCE_S
        while (asked := self.live.status()["credentials"])["last_error"] or not asked["in_force"]:
            assert time.monotonic() < deadline_s, asked
        self.applied[phase.name] += 1
        self.outages_s += time.monotonic() - begin_s
