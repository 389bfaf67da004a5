"""What readers may see: pure decisions about attempts, replacements and announced trouble."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.soak.objects import BY_NAME, VERSIONS_PER_FILE

WRONG_SHOWN = 20
DELETED = 0
NEVER_S, FOREVER_S = float("-inf"), float("inf")


@dataclass
class Window:
    """Trouble that readers may notice, and as which errnos."""

    begin_s: float
    errnos: frozenset
    is_outage: bool
    """No credentials: listings and cached blocks are shown as they were."""

    end_s: float = FOREVER_S

    def meets(self, begin_s, end_s):
        return self.begin_s <= end_s and self.end_s >= begin_s


class History:
    """The states of a changing object: [version or DELETED, begun, done], in order."""

    def __init__(self):
        self.states = [[1, NEVER_S, NEVER_S]]

    def begin(self, version, now_s):
        self.states.append([version, now_s, FOREVER_S])

    def done(self, now_s):
        self.states[-1][2] = now_s

    def between(self, begin_s, end_s):
        """The states that may have been the newest at some moment of that time."""
        found = set()
        for state, begun_s, done_s in reversed(self.states):
            if begun_s <= end_s:
                found.add(state)
            if done_s <= begin_s:
                break  # what was before had been replaced
        return found


@dataclass
class Judge:
    """Counts attempts and keeps those that the contract does not allow. Thread-safe."""

    absent_s: float
    """For how long a listing, and so an absent name, may be believed, requests under way included.
    """

    tell: Callable = lambda _: None
    histories: dict = field(default_factory=lambda: defaultdict(History))
    windows: list = field(default_factory=list)
    attempts: Counter = field(default_factory=Counter)
    errnos: Counter = field(default_factory=Counter)
    read_bytes: Counter = field(default_factory=Counter)
    wrong: list = field(default_factory=list)
    wrong_count: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def hear(self, attempt):
        with self.lock:
            self.attempts[attempt["kind"]] += 1
            self.read_bytes[attempt["kind"]] += attempt.get("bytes", 0)
            if "errno" in attempt:
                self.errnos[attempt["kind"], attempt["errno"]] += 1
            if reason := self._what_is_wrong(attempt):
                self.wrong_count += 1
                if len(self.wrong) < WRONG_SHOWN:
                    self.wrong.append({"reason": reason, **attempt})
                    self.tell(f"{reason}: {attempt}")

    def _what_is_wrong(self, attempt):
        if "wrong" in attempt:
            return "other bytes, names or sizes than there are"
        begin_s, end_s = attempt["begin_s"], attempt["end_s"]
        windows = [each for each in self.windows if each.meets(begin_s, end_s)]
        history = self.histories.get(attempt["name"])
        if attempt["versions"]:
            if len(attempt["versions"]) > 1:
                return "bytes of two versions"
            stale = any(each.is_outage for each in windows)
            since_s = NEVER_S if stale else begin_s
            number, version = divmod(attempt["versions"][0], VERSIONS_PER_FILE)
            if number != BY_NAME[attempt["name"]].number:
                return "bytes of another file"
            if version not in (history.between(since_s, end_s) if history else {1}):
                return "not the newest version"
            size_bytes = BY_NAME[attempt["name"]].size_bytes(version)
            if attempt.get("whole") and attempt["bytes"] != size_bytes:
                return f"not the {size_bytes} bytes of its version"
        if "errno" not in attempt:
            return None
        return self._errno_is_wrong(attempt, windows, history)

    def _errno_is_wrong(self, attempt, windows, history):
        number = attempt["errno"]
        if number == "SIGBUS":
            if windows or (history and self._changed(history, attempt)):
                return None
        elif any(number in each.errnos for each in windows) or (
            number == "ESTALE" and history and self._is_explained(attempt, windows, history)
        ):
            return None
        elif number == "ENOENT" and history:
            since_s = self._absent_since_s(attempt["begin_s"])
            if DELETED in history.between(since_s, attempt["end_s"]):
                return None
        return "an errno that nothing explains"

    def _is_explained(self, attempt, windows, history):
        """An open without a session believes what is known; its reads may meet the truth later."""
        if any(each.is_outage for each in windows):
            attempt = attempt | {"begin_s": NEVER_S}
        return self._changed(history, attempt)

    @staticmethod
    def _changed(history, attempt):
        return len(history.between(attempt["begin_s"], attempt["end_s"])) > 1

    def _absent_since_s(self, begin_s):
        """Since when an absence may have been known."""
        since_s = begin_s - self.absent_s
        for window in reversed(self.windows):
            if window.is_outage and window.meets(since_s, begin_s):
                since_s = window.begin_s - self.absent_s
        return since_s
