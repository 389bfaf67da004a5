"""A mount made by the real command in a process of its own, and the audit of its end."""

import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from stsfs.daemon import mountinfo
from tests.mount.stage import PATIENCE_S, STATIC_KEYS, TOKEN

FOREIGN = ("AWS_", "SYNAPSE_", "STSFS_", "XDG_", "NOTIFY_SOCKET")
"""Variables of whoever runs the tests that must not reach the daemon."""

POLL_S = 0.05
"""Between looks at what nobody announces: a closed file is given back after its read-ahead."""


class Host:
    """An account of its own: home, runtime and state directories, and the `stsfs` command."""

    def __init__(self, home, runtime, stage):
        self.home, self.stage = home, stage
        kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        self.environment = {
            **kept,
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "SYNAPSE_AUTH_TOKEN": TOKEN,
            "AWS_ACCESS_KEY_ID": STATIC_KEYS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": STATIC_KEYS.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.runtime = runtime / "stsfs"
        self.limited_by = ()
        """A command that starts ours, with less than it would have."""

        self._numbers = itertools.count(1)

    def stsfs(self, *arguments, env=None, cwd="/"):
        """Run a command to its end; returns what it said."""
        return subprocess.run(
            [*self.limited_by, sys.executable, "-m", "stsfs", *map(str, arguments)],
            env=self.environment | (env or {}),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
        )

    def mount_point(self):
        path = self.home / f"m{next(self._numbers)}"
        path.mkdir()
        return path

    def try_mount(self, location, path, *options, env=None):
        """Mount in the background; the command's end, good or bad, is the readiness event."""
        stage = self.stage
        places = ["--endpoint-url", stage.gate.url, "--synapse-endpoint", stage.synapse.url]
        locations = location if isinstance(location, tuple) else (location,)
        return self.stsfs("mount", *locations, path, *places, *options, env=env)

    def mount(self, location, *options, env=None):
        """A mount that must succeed."""
        path = self.mount_point()
        done = self.try_mount(location, path, *options, env=env)
        assert done.returncode == 0, done.stderr
        return LiveMount(self, path, self.record_of(path))

    def records(self):
        return [json.loads(path.read_text()) for path in self.runtime.glob("*.json")]

    def record_of(self, path):
        return next(each for each in self.records() if each["mount_path"] == str(path))


class LiveMount:
    """A running mount."""

    def __init__(self, host, path, record):
        self.host, self.path, self.pid = host, path, record["pid"]
        self.log_file = Path(record["log_file"])
        self._process = os.pidfd_open(self.pid)
        self._descriptors_at_start = self.descriptors()
        self._log_allowed = []
        self.ended = False

    def __truediv__(self, name):
        return self.path / name

    def status(self):
        """The answer of `stsfs status --json`."""
        done = self.host.stsfs("status", "--json", self.path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def errors(self):
        """Remembered refusals, newest first, as (path, errno name)."""
        return [(each["path"], each["errno"]) for each in self.status()["errors"]]

    def settled_status(self):
        """Status once the kernel has given back every closed file, and what was read is on disk.

        Neither is announced to anybody.
        """
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            status = self.status()
            is_busy = status["open_files"] or (status["disk_cache"] or {}).get("waiting_bytes")
            if not is_busy or time.monotonic() > deadline_s:
                return status
            select.select([], [], [], POLL_S)

    def settled_entities(self):
        """What status tells of the first location, once its index is full and the inventory taken.

        Neither is announced to anybody.
        """
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            told = self.status()["locations"][0]["entities"]
            if told["complete"] and told["differences"] is not None:
                return told
            assert time.monotonic() < deadline_s, told
            select.select([], [], [], POLL_S)

    def log(self):
        return self.log_file.read_text()

    def allow_in_log(self, pattern):
        """Announce lines of levels above WARNING that this test provokes."""
        self._log_allowed.append(pattern)

    def descriptors(self):
        """Open descriptors, but sockets and connections to an index, which are kept for later, and
        cache directories, whose names change."""
        found = []
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                found.append(os.readlink(link))
            except FileNotFoundError:
                continue
        return sorted(
            each
            for each in found
            if not re.match(
                r"socket:|.*/((index-\d+|syn\d+-\w+|attributes)\.sqlite|stsfs-\d+( \(deleted\))?$)",
                each,
            )
        )

    def unmount(self, *options):
        return self.host.stsfs("unmount", *options, self.path)

    def signal(self, number):
        signal.pidfd_send_signal(self._process, number)

    def wait_for_end(self):
        """Return when the daemon is gone."""
        assert select.select([self._process], [], [], PATIENCE_S)[0], "the daemon lives on"
        self.ended = True

    def is_mounted(self):
        return mountinfo.mount_at(self.path) is not None

    def audit(self):
        """Unmount; returns everything that is not as it should be at the end of a test."""
        problems = []
        try:
            if not self.ended:
                problems += self._audit_running()
                done = self.unmount()
                if done.returncode:
                    problems.append(f"unmount: {done.returncode} {done.stderr}")
                else:
                    self.wait_for_end()
                if self.is_mounted():
                    problems.append("still mounted")
        finally:
            self.destroy()
        problems += [f"log: {line}" for line in self.bad_lines()]
        return problems

    def destroy(self):
        """Leave nothing behind, whatever happened."""
        if self.is_mounted():
            subprocess.run(["fusermount3", "-uz", "--", str(self.path)], check=False)
        if not select.select([self._process], [], [], 0)[0]:
            self.signal(signal.SIGKILL)
        os.close(self._process)

    def _more_descriptors(self):
        """Those that stay: a thread may force a directory to the disk just now, as SQLite does."""
        for _ in range(100):
            more = Counter(self.descriptors()) - Counter(self._descriptors_at_start)
            if not more:
                break
            select.select([], [], [], 0.02)
        return more

    def _audit_running(self):
        status = self.settled_status()
        if status["open_files"]:
            yield f"{status['open_files']} open files"
        if status["cache"]["pinned_blocks"] > 1:  # one is being filled with small runs
            yield f"{status['cache']['pinned_blocks']} pinned blocks"
        if more := self._more_descriptors():
            yield f"descriptors that were not there at the start: {list(more.elements())}"

    def bad_lines(self):
        """Lines of the log that no test has announced."""
        bad = re.compile(r"(ERROR|CRITICAL) |Traceback|Exception ignored|never awaited")
        return [
            line
            for line in self.log().splitlines()
            if bad.search(line) and not any(re.search(each, line) for each in self._log_allowed)
        ]
