"""A control group with little memory, below our own, for the processes of a test."""

import contextlib
import os
import time
from pathlib import Path

import pytest

from tests.mount.stage import PATIENCE_S

CGROUPS = Path("/sys/fs/cgroup")


class SmallCgroup:
    """What runs in it gets no more than its limit, page cache included."""

    def __init__(self, directory, version):
        self.directory, self._version = directory, version

    def command(self, *command):
        """The command, made to run in here with all that it starts."""
        script = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", script, str(self.directory), *map(str, command)]

    @property
    def processes(self):
        """Numbers of the processes in it."""
        return (self.directory / "cgroup.procs").read_text().split()

    @property
    def kills(self):
        """Processes that were killed because the limit was not enough."""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        lines = (self.directory / name).read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])


@contextlib.contextmanager
def small_cgroup(limit_bytes):
    """A new one; skips the test where we may not make any."""
    parent, version = _own_memory_cgroup()
    directory = parent / f"stsfs-test-{os.getpid()}"
    try:
        directory.mkdir()
    except OSError as exc:
        pytest.skip(f"no control group can be made here: {exc}")
    try:
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        try:
            (directory / name).write_text(str(limit_bytes))
        except OSError as exc:  # version 2: only groups without processes have limited ones below
            pytest.skip(f"no control group with a limit can be made here: {exc}")
        yield SmallCgroup(directory, version)
    finally:
        _remove(directory)


def _own_memory_cgroup():
    fields = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, path in fields:
        if "memory" in controllers.split(","):
            return CGROUPS / "memory" / path.strip("/"), 1
    own = next((path for number, _, path in fields if number == "0"), "/")
    return CGROUPS / own.strip("/"), 2


def _remove(directory):
    """Once the kernel has seen the last process off, which it tells nobody."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            directory.rmdir()
        except OSError:
            assert time.monotonic() < deadline_s, (directory / "cgroup.procs").read_text()
            time.sleep(0.05)
        else:
            return
