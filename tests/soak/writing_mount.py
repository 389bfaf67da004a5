"""A mount that is written to while it is killed, and the comparison of books and S3 behind it."""

import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.mount.crash_stage import kill
from tests.mount.live_mount import Host, LiveMount
from tests.soak.books import ANYTHING, Ledger, state_of
from tests.soak.writers import LOG

RESTING = {"writing", "conflict", "damaged"}
"""States of what is left in which no mount uploads it by itself."""

LOG_ERRNOS = {"ESTALE", "EEXIST"}
"""Of two that append at once, one may be told that the other was first."""


class WritingMount:
    """One machine with one mount for writing, and its crew."""

    def __init__(
        self, stage, folder, root, kinds, options, *,
        patience_s, windows, allowed, seed, tell, may_be_full=False,
    ):  # fmt: skip
        """root is a directory of its own, which may have a file system for `staging`; patience_s is
        how long all that was accepted may take to be in S3 or in the list of `stsfs recover`;
        windows(begin_s, end_s) tells whether trouble is announced, allowed are patterns of lines
        of the log; tell hears at once of what a kill has lost; may_be_full allows ENOSPC for all
        but streams, which go through a disk that is smaller than they are.
        """

        self.folder, self.kinds, self.seed = folder, kinds, seed
        self.patience_s, self._windows, self._allowed = patience_s, windows, allowed
        self._tell_problem, self._may_be_full = tell, may_be_full
        self.root, self.staging = root, root / "staging"
        self.options = [*options, "--rw", "--staging-dir", self.staging]
        (root / "home").mkdir()
        self.staging.mkdir(exist_ok=True)
        self._runtime = tempfile.TemporaryDirectory(prefix="stsfs-run-")
        self.host = Host(root / "home", Path(self._runtime.name), stage)
        self.books = root / root.name
        self.books.mkdir()
        self.problems = []
        self.lives, self.ended_lives = [], []
        self.kills, self.checks, self.found_in_recover = 0, 0, 0
        self.given_up = 0
        self.left_at_the_end = Counter()
        self.killed_between = []
        self._saves = itertools.count()
        self.live = self._mounted(self.host.mount_point())

    def start(self):
        self.crew = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.writers", str(self.live.path), str(self.books),
             str(self.seed), *self.kinds],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def _mounted(self, path):
        """Mount; while Synapse is away that fails, and is tried again."""
        deadline_s = time.monotonic() + self.patience_s
        while True:
            done = self.host.try_mount(self.folder.syn_id, path, *self.options)
            if done.returncode == 0:
                break
            assert time.monotonic() < deadline_s, done.stderr
        live = LiveMount(self.host, path, self.host.record_of(path))
        for pattern in self._allowed:
            live.allow_in_log(pattern)
        self.lives.append(live)
        return live

    def kill_and_mount_again(self):
        """kill -9 of the daemon under its writers; then everything has to be accounted for."""
        begin_s = time.monotonic()
        kill(self.live)
        self._tell("pause")
        self.killed_between.append((begin_s, time.monotonic()))
        self.live.destroy()
        self.live = self._mounted(self.live.path)
        self.kills += 1
        self._tell("go", self._account_for_everything())

    def _tell(self, word, more=None):
        line = word if more is None else f"{word} {json.dumps(more)}"
        self.crew.stdin.write(line + "\n")
        self.crew.stdin.flush()
        assert self.crew.stdout.readline() == word + "\n", "the writers have ended"

    def _account_for_everything(self):
        """Wait until the books are met; returns the states of paths that were in doubt."""
        deadline_s = time.monotonic() + self.patience_s
        ledger = self._ledger()
        while True:
            left = self._left()
            problems = [
                f"still on the disk: {each}" for each in left if each["state"] not in RESTING
            ]
            problems += self._differences(ledger, left)
            if not problems or time.monotonic() > deadline_s:
                break
        self.checks += 1
        for each in problems:
            self.problems.append(f"{self.root.name}, kill {self.kills}: {each}")
            self._tell_problem(f"{time.monotonic():.1f} {self.problems[-1]}")
        self._give_up(left)
        doubtful = [path for path, states in ledger.allowed.items() if len(states) > 1]
        doubtful += [path for path, states in ledger.allowed.items()
                     if len(states) == 1 and self._stored(path) not in states]  # fmt: skip
        return {path: self._stored(path) for path in doubtful}

    def _ledger(self):
        """The books of all kinds as one."""
        whole = Ledger()
        for kind in self.kinds:
            path = self.books / f"{kind}.jsonl"
            if path.exists():
                whole.add(Ledger.of(path))
        return whole

    def _left(self):
        """What `stsfs recover --json` lists."""
        done = self.host.stsfs("recover", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["left"]

    def _give_up(self, left):
        """Discard what has been compared, so that what is left later is of later."""
        ids = [each["id"] for each in left if each["owner"] != "living"]
        if ids:
            self.given_up += len(ids)
            done = self.host.stsfs("recover", "--discard", *ids)
            if done.returncode:
                self.problems.append(f"discard: {done.stderr}")

    def _stored(self, path):
        try:
            return state_of(self.folder.object_path(path).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _differences(self, ledger, left):
        """What is neither in S3 nor in the list though it should be, and what is torn."""
        stored = {path: self._stored(path) for path in ledger.allowed}
        kept = {}
        for path, states in ledger.allowed.items():
            if stored[path] in states or ANYTHING in states:
                continue
            if stored[path] not in ledger.ever[path] and ANYTHING not in ledger.ever[path]:
                yield f"torn: {path} has {stored[path]}, wanted {states}"
                continue
            ids = [each["id"] for each in left if each["path"] == path]
            kept[path] = self._saved(path, ids) if ids else set()
            if kept[path] & states:
                self.found_in_recover += 1
            else:
                yield f"lost: {path} has {stored[path]}, wanted {states}, left {kept[path]}"
        for old, new, state in ledger.moves_in_doubt:
            if state not in (stored[old], stored[new], *kept.get(old, ()), *kept.get(new, ())):
                yield f"lost in a rename: {old} to {new}, {state}"

    def _saved(self, path, ids):
        """The states that `stsfs recover` can give of what it lists."""
        directory = self.root / f"saved{next(self._saves)}"
        done = self.host.stsfs(
            "recover", "--save", directory, *ids, "--synapse-endpoint",
            self.host.stage.synapse.url, "--endpoint-url", self.host.stage.gate.url,
        )  # fmt: skip
        found = {state_of(each.read_bytes()) for each in directory.rglob("*") if each.is_file()}
        return found or {f"nothing: {done.stderr}"}

    def stop(self):
        """The writers end."""
        self.crew.stdin.close()
        assert self.crew.wait() == 0, "writers failed"
        self.crew.stdout.close()

    def finish(self):
        """Unmount and compare for the last time; the weather is calm. Returns the ledger."""
        done = self.live.unmount()
        if done.returncode not in (0, 9):
            self.problems.append(f"unmount: {done.returncode} {done.stderr}")
        self.live.wait_for_end()
        ledger, left = self._ledger(), self._left()
        self.left_at_the_end.update(each["state"] for each in left)
        self.problems += self._differences(ledger, left)
        self.problems += ledger.wrong
        self._give_up(left)
        self.problems += self._remains()
        self.problems += self._unexplained(ledger)
        lines = {line for each in self.lives for line in each.bad_lines()}
        self.problems += [f"log: {line}" for line in sorted(lines)]
        return ledger

    def _remains(self):
        """What lies in the staging directory when nothing should."""
        for each in self.staging.rglob("*"):
            if each.is_file() and each.suffix in (".data", ".json"):
                yield f"still in the staging directory: {each.name}"

    def _unexplained(self, ledger):
        """Errors in moments without trouble."""
        for operation, errno, begin_s, end_s in ledger.refused:
            killed = any(begin_s <= end and end_s >= begin for begin, end in self.killed_between)
            if operation == "killed program":
                continue
            raced = operation == "log" and errno in LOG_ERRNOS
            full = self._may_be_full and errno == "ENOSPC" and operation != "stream"
            if not (killed or raced or full or self._windows(begin_s, end_s)):
                yield f"{self.root.name}: {operation} failed with {errno} at {begin_s:.1f}"

    def destroy(self):
        """Leave nothing behind, whatever happened."""
        if self.crew.poll() is None:
            self.crew.kill()
            self.crew.wait()
        self.crew.stdout.close()
        with contextlib.suppress(OSError):
            self.crew.stdin.close()
        with contextlib.suppress(OSError):
            self.live.destroy()
        self._runtime.cleanup()


def lines_lost(folder, ledgers):
    """Lines of the shared log that were acknowledged and are not there, or are there twice."""
    stored = folder.object_path(LOG)
    found = Counter(stored.read_text().splitlines()) if stored.is_file() else Counter()
    for ledger in ledgers:
        for line, is_done in ledger.lines.items():
            if found[line] > 1 or (is_done and not found[line]):
                yield f"the line {line!r} is {found[line]} times in the shared log"
