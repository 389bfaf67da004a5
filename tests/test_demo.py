"""`stsfs demo` tells its story, and leaves nothing behind however it ends."""

import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from stsfs.daemon import mountinfo

pytestmark = [pytest.mark.mount, pytest.mark.long]

TIMEOUT_S = 240
MARK = "DEMO_UNDER_TEST"
"""A variable that the demonstration hands down to every process it starts."""


class Account:
    """A home, a runtime directory and a place for temporary files, all of which must stay clean."""

    def __init__(self, directory):
        self.places = {name: directory / name for name in ("home", "run", "tmp", "state")}
        for place in self.places.values():
            place.mkdir(mode=0o700)
        self.mark = uuid.uuid4().hex
        self.environment = os.environ | {
            "HOME": str(self.places["home"]),
            "XDG_RUNTIME_DIR": str(self.places["run"]),
            "XDG_STATE_HOME": str(self.places["state"]),
            "TMPDIR": str(self.places["tmp"]),
            # What must not reach the demonstration: the user's own accounts.
            "AWS_PROFILE": "production",
            "SYNAPSE_AUTH_TOKEN": "not-for-the-demo",
            "STSFS_MOUNT_RW": "1",
            "HTTP_PROXY": "http://127.0.0.1:9",
            MARK: self.mark,
        }
        self.command = [sys.executable, "-m", "stsfs", "demo"]

    def leftovers(self):
        """Files, mounts and processes that should not be there."""
        files = [path for place in self.places.values() for path in place.rglob("*")]
        files = [path for path in files if path.is_file() and path.name != ".lock"]  # of records
        mounts = [m for m in mountinfo.mounts() if m.path.is_relative_to(self.places["tmp"])]
        return files + list(self.places["tmp"].iterdir()) + mounts + self._processes()

    def _processes(self):
        marked = f"{MARK}={self.mark}".encode()
        found = []
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and marked in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes())
            except OSError:
                continue
        return found


@pytest.fixture
def account(tmp_path_factory):
    # pytest's names for the directories of a test are too long for the name of a socket
    return Account(tmp_path_factory.mktemp("d"))


def test_the_story_holds_and_leaves_nothing(account):
    done = subprocess.run(
        account.command, env=account.environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout
    assert "\x1b" not in told  # a pipe gets no colours
    assert re.findall(r"^ *(\d+) ", told, re.MULTILINE)[:3] == ["1", "2", "3"]
    for words in (
        "is mounted on",
        "cohort.vcf.gz.tbi",
        "chr20:1-2000000",
        "53.38",
        "1293242",
        "Read-only file system",
        "the reader noticed nothing",
        "stsfs unmount data",
        "mount syn12345 ~/data",
    ):
        assert words in told
    renewals = [int(count) for count in re.findall(r"renewals +(\d+)", told)]
    assert renewals[0] == 0
    assert renewals[-1] >= 1
    assert account.leftovers() == []


def test_a_terminated_demonstration_leaves_nothing(account):
    with subprocess.Popen(
        account.command, env=account.environment, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as demo:
        assert any("is mounted on" in line for line in demo.stdout)
        demo.send_signal(signal.SIGTERM)
        demo.stdout.read()
    assert demo.returncode == 128 + signal.SIGTERM
    assert account.leftovers() == []
