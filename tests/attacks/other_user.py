"""Another user of this machine, who plants files in directories that both can reach."""

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OTHER = 1000
TIMEOUT_S = 60
SECRET = b"root:secret-of-root\n"

needs_two_users = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can be two users (setpriv)",
)


class Machine:
    """A directory that all can write to (sticky, as /tmp), and an account of root's own."""

    def __init__(self, base):
        self.base = base
        self.shared = base / "shared"
        self.shared.mkdir()
        self.shared.chmod(0o1777)
        self.home = base / "home"
        self.home.mkdir(mode=0o700)
        (self.home / "run").mkdir(mode=0o700)
        self.secret = self.home / "secret"
        self.secret.write_bytes(SECRET)
        self.secret.chmod(0o600)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "300",
            "AWS_ACCESS_KEY_ID": "AKIAROOT",
            "AWS_SECRET_ACCESS_KEY": "secret-key",
            "AWS_SESSION_TOKEN": "token-of-root",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stsfs(self, *arguments):
        """Run the command as root, to its end; what waits for ever is a failure."""
        return subprocess.run(
            [sys.executable, "-m", "stsfs", *map(str, arguments)],
            env=self.environment, cwd="/", capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip

    def python(self, code, *arguments):
        """Run code of a test as root, in a process of its own: one that waits for ever is ended."""
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=self.environment, cwd="/", capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, done, *words):
        """Whether a command ended with one clear line about what was planted."""
        told = done.stderr.strip().splitlines()
        assert done.returncode not in (0, 70), (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert any(all(word in line for word in words) for line in told), done.stderr
        return True


def plant(machine, path, kind):
    """Put something in place of a file of ours."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    match kind:
        case "symlink":
            path.symlink_to(machine.secret)
        case "hard link":
            path.hardlink_to(machine.secret)
        case "pipe":
            os.mkfifo(path)
        case "device":
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero
        case "theirs":
            path.write_bytes(SECRET)
            os.chown(path, OTHER, OTHER)


def as_other(script, *arguments):
    """Run a shell script as the other user."""
    become = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups"]
    done = subprocess.run(
        [*become, "sh", "-euc", script, "sh", *map(str, arguments)],
        cwd="/", capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def record_text(**changes):
    """A record as this program writes it."""
    values = {
        "location_uri": "s3://bucket/base", "endpoint_url": None, "label": "s3://bucket/base",
        "key": "base/dir/file", "path": "dir/file", "size_bytes": 4, "present": [[0, 4]],
        "base": None, "expected": {"etag": None}, "exclusive": False, "mode": 0o644,
        "mtime_ns": None,
        "traits": {"metadata": {}, "content_type": "", "storage_class": ""}, "write_id": "",
        "earlier": [],
        "upload_id": None, "upload_write_id": "", "parked": [], "parts": [], "state": "closed",
        "reason": "", "changed_unix_s": 1_700_000_000.0, "format": 1, "boot_id": None,
    }  # fmt: skip
    return json.dumps(values | changes)


@contextlib.contextmanager
def new_machine():
    """What both users can reach lies in /tmp: pytest's own directories are closed to others."""
    base = Path(tempfile.mkdtemp(prefix="stsfs-attack-", dir="/tmp"))
    base.chmod(0o755)
    try:
        yield Machine(base)
    finally:
        shutil.rmtree(base)
