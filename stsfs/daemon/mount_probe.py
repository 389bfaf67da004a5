"""Does a mount answer? Asked through the kernel, by a child process.

Never by a thread of ours: who waits for a FUSE request that was read and not answered cannot even
be killed. A daemon that waits so for itself never ends; a child it can leave behind.
"""

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

from stsfs import programs

_PROGRAM = """
import os, sys
try:
    os.statvfs(sys.argv[1])
except OSError as exc:
    os._exit(exc.errno)
os._exit(0)
"""
"""statvfs, because it always goes to the daemon; stat(2) is answered from the kernel's cache."""

LAST_WAIT_S = 1.0
"""For a child that was killed; one that the kernel does not let go is left behind."""


def start_probe(path: Path) -> subprocess.Popen[bytes]:
    """Begin to ask; the child's exit code is the errno, 0 for none. Raises OSError."""
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, os.fspath(path)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd="/", env=programs.environment())


def is_dead(path: Path, *, timeout_s: float) -> bool:
    """Whether the daemon of the mount at `path` is gone (ENOTCONN).

    A mount that does not answer within `timeout_s` seconds hangs, and is not dead.
    """
    child = start_probe(path)
    try:
        return child.wait(timeout_s) == errno.ENOTCONN
    except subprocess.TimeoutExpired:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(LAST_WAIT_S)
        return False
