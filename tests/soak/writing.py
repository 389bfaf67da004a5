"""The writing half of a soak: two machines that write to one location, one of them killed."""

import contextlib
import os
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.soak.meters import Meters
from tests.soak.trouble import ANNOUNCED
from tests.soak.writing_mount import LOG, WritingMount, lines_lost

SMALL_DISK = "48m"
"""What the staging disk of the machine that is not killed holds; its streams are longer."""

KILLED_KINDS = ["small", "editor", "large", "tree", "log"]
LASTING_KINDS = ["small", "editor", "log", "victim"]

RACED = rf"ERROR .*{LOG}.*(was deleted or replaced|changed by another client)"
"""What the log says of two machines that append to one file at once."""

NO_ROOM = r"ERROR .*The disk of .*/lasting/staging/.* is full"
"""What that machine's log says then. A stream that is refused must have a reason, see the books."""


class Writing:
    """`killed` and `lasting` are mounts of one folder by two machines."""

    def __init__(self, soak, folder, root):
        plan, judge = soak.plan, soak.judge
        self.folder, self.stopping = folder, soak.stopping
        self._undo = contextlib.ExitStack()
        options = ["--conditional-writes", "on", "--metadata-ttl", "5", "--memory", "32MiB",
                   "--deadline", str(plan.deadline_s)]  # fmt: skip

        hard = ANNOUNCED.values() if plan.hard else []

        def windows(begin_s, end_s):
            with judge.lock:
                return any(each.meets(begin_s, end_s) for each in judge.windows)

        def mounted(name, kinds):
            made = WritingMount(
                soak.stage, folder, root / name, kinds, options,
                patience_s=plan.patience_s, windows=windows,
                allowed=[RACED, NO_ROOM, *hard], seed=plan.seed, tell=judge.tell,
                may_be_full=self.has_small_disk and name == "lasting",
            )  # fmt: skip
            self._undo.callback(made.destroy)
            made.start()
            return made

        for name in ("killed", "lasting"):
            (root / name).mkdir(parents=True)
        self.has_small_disk = self._small_disk(root / "lasting" / "staging")
        streams = ["stream"] if self.has_small_disk else []
        try:
            with ThreadPoolExecutor(2) as threads:
                killed = threads.submit(mounted, "killed", KILLED_KINDS)
                lasting = threads.submit(mounted, "lasting", LASTING_KINDS + streams)
            self.killed, self.lasting = killed.result(), lasting.result()
        except BaseException:
            self.destroy()
            raise
        self.meters = Meters(self.lasting.live)

    def _small_disk(self, path):
        """Whether there is a small file system at path now: that takes an administrator."""
        path.mkdir()
        if os.getuid() != 0:
            return False
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", path])
        if made.returncode:
            return False
        self._undo.callback(subprocess.run, ["umount", "-l", path], check=False)
        return True

    def kill(self, chance, period_s):
        """Kill one daemon again and again; each time everything has to be accounted for."""
        while not self.stopping.wait(period_s * chance.uniform(0.5, 1.5)):
            self.killed.kill_and_mount_again()

    def report(self):
        """Ends the writers and their mounts; the weather is calm. JSON values."""
        both = self.killed, self.lasting
        with ThreadPoolExecutor(len(both)) as threads:
            list(threads.map(WritingMount.stop, both))
            ledgers = list(threads.map(WritingMount.finish, both))
        problems = [problem for each in both for problem in each.problems]
        problems += lines_lost(self.folder, ledgers)
        operations, refused = Counter(), Counter()
        for ledger in ledgers:
            operations += ledger.operations
            refused.update(f"{name} {errno}" for name, errno, _, _ in ledger.refused)
        return {
            "operations": dict(sorted(operations.items())),
            "refused": dict(sorted(refused.items())),
            "kills": self.killed.kills,
            "checks": self.killed.checks,
            "found_in_recover": self.killed.found_in_recover,
            "given_up": self.killed.given_up,
            "left_at_the_end": dict(self.killed.left_at_the_end + self.lasting.left_at_the_end),
            "small_disk": self.has_small_disk,
            "problems": problems,
        }

    def destroy(self):
        """Leave nothing behind, whatever happened."""
        self._undo.close()
