"""Ordinary users on this machine, in a mount namespace of the test's own.

In the namespace everyone may open /dev/fuse, /etc/fuse.conf is a copy that a test may change, and
the interpreter and this checkout can be read although they may lie in a closed home directory.
Outside of it nothing changes, and what is mounted in it is gone with its last process.
"""

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.mount.stage import PATIENCE_S, STATIC_KEYS, TOKEN

ROOT = Path(__file__).parents[2]
PEOPLE = {"stsfs-ada": 64_001, "stsfs-bob": 64_002}
TOOLS = ("unshare", "nsenter", "setpriv", "mount", "umount", "fusermount3")

FORGET_COPIES = """
sed -n 's/^\\([^ ]* \\)\\{4\\}\\([^ ]*\\) .* - fuse\\.stsfs .*/\\2/p' /proc/self/mountinfo |
while read -r path; do umount --lazy --no-canonicalize "$path" || :; done
""".strip()
"""A new namespace has copies of all mounts: with one of ours, a daemon of another test lives on
until this namespace ends."""


class Users:
    """The namespace, and who lives in it."""

    def __init__(self, directory, holder, stage):
        self.directory, self._holder, self._stage = directory, holder, stage
        self._fuse_conf = directory / "fuse.conf"
        self.people = [User(self, uid, stage) for uid in PEOPLE.values()]

    def allow_other(self, allowed):
        """What the administrator wrote into /etc/fuse.conf."""
        self._fuse_conf.write_text("user_allow_other\n" if allowed else "# nothing\n")

    def run(self, uid, *command, env=None):
        """Run a command in the namespace as somebody, to its end."""
        enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt"]
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        return subprocess.run(
            [*enter, *become, *map(str, command)],
            env=env or {"PATH": os.environ["PATH"]},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
        )


class User:
    """One of them, with a home directory that nobody else may enter."""

    def __init__(self, users, uid, stage):
        self.uid, self._users, self._stage = uid, users, stage
        # The mount point itself lies where others can reach it: what keeps them out is the kernel.
        self.home, self.place = (users.directory / f"{name}{uid}" for name in ("home", "place"))
        self.runtime = self.home / "run"
        for path, mode in ((self.home, 0o700), (self.runtime, 0o700), (self.place, 0o755)):
            path.mkdir(mode=mode)
            os.chown(path, uid, uid)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "SYNAPSE_AUTH_TOKEN": TOKEN,
            "AWS_ACCESS_KEY_ID": STATIC_KEYS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": STATIC_KEYS.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, *command):
        return self._users.run(self.uid, *command, env=self.environment)

    def stsfs(self, *arguments):
        return self.run(sys.executable, "-m", "stsfs", *arguments)

    def mount(self, location, *options):
        places = ("--endpoint-url", self._stage.gate.url)
        places += ("--synapse-endpoint", self._stage.synapse.url)
        return self.stsfs("mount", location, self.place, *places, *options)

    def records(self):
        return [json.loads(path.read_text()) for path in self.runtime.glob("stsfs/*.json")]

    def end(self):
        """Unmount what is still mounted; the daemon's process must not outlive the test."""
        daemons = [os.pidfd_open(record["pid"]) for record in self.records()]
        try:
            done = [self.stsfs("unmount", record["mount_path"]) for record in self.records()]
            assert all(each.returncode == 0 for each in done), done
            for daemon in daemons:
                assert select.select([daemon], [], [], PATIENCE_S)[0], "the daemon lives on"
        finally:
            for daemon in daemons:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(daemon, signal.SIGKILL)
                os.close(daemon)


@contextlib.contextmanager
def users_of(stage):
    """Skips the test where there can be no such namespace."""
    if os.getuid() != 0:
        pytest.skip("only root can be several users")
    if missing := [name for name in TOOLS if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="stsfs-users-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _setup(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if holder.stdout.readline() != "ready\n":
                pytest.skip(f"no mount namespace can be had: {holder.communicate()[1]}")
            users = Users(directory, holder, stage)
            users.allow_other(False)
            tried = users.people[0].run(sys.executable, "-c", "import pyfuse3, stsfs.daemon.serve")
            if tried.returncode:
                pytest.skip(f"the interpreter is not for every user: {tried.stderr[-300:]}")
            yield users
        finally:
            holder.communicate("")


def _setup(directory):
    """The shell's part: lay out the namespace, then hold it until standard input ends."""
    device = directory / "fuse"
    os.mknod(device, 0o600 | 0o020000, os.makedev(10, 229))
    device.chmod(0o666)
    (directory / "fuse.conf").touch()
    lines = [
        "set -e",
        FORGET_COPIES,
        _bind(device, "/dev/fuse"),
        "test -e /etc/fuse.conf || : > /etc/fuse.conf",
    ]
    lines.append(_bind(directory / "fuse.conf", "/etc/fuse.conf"))
    accounts = [f"{name}:x:{uid}:{uid}::/:/bin/sh\n" for name, uid in PEOPLE.items()]
    passwd = directory / "passwd"  # fusermount3 asks for the name of who mounts
    passwd.write_text(Path("/etc/passwd").read_text() + "".join(accounts))
    lines.append(_bind(passwd, "/etc/passwd"))
    needed = {Path(path).resolve() for path in (sys.base_prefix, sys.prefix, ROOT)}
    covered = {path: closed for path in needed if (closed := _closed_above(path)) is not None}
    for number, path in enumerate(covered):
        (directory / f"kept{number}").mkdir()
        lines.append(_bind(path, directory / f"kept{number}"))
    for closed in sorted(set(covered.values())):
        lines.append(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(closed))}")
    for number, path in enumerate(covered):
        lines.append(f"mkdir -p {shlex.quote(str(path))}")
        lines.append(_bind(directory / f"kept{number}", path))
    return "\n".join([*lines, "echo ready", "cat > /dev/null"])


def _bind(source, target):
    return f"mount --bind {shlex.quote(str(source))} {shlex.quote(str(target))}"


def _closed_above(path):
    """The topmost directory on the way to `path` that others may not enter."""
    ways = [each for each in reversed(path.parents) if not each.stat().st_mode & 0o001]
    return ways[0] if ways else None
