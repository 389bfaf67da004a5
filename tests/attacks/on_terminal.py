"""A command on a terminal of its own, and what of its output a terminal would obey."""

import os
import pty
import subprocess
import sys
import threading

from tests.mount.stage import PATIENCE_S

ORDERS = "\x1b]0;owned\x07\x1b[2J\x9b8m\u202eb\r\x08\x7f\u2028c\nstsfs: forged"
"""A title, a cleared screen, hidden letters, a turned direction, an overwritten line, a new one."""


def on_terminal(host, *arguments, env=None):
    """Run a command on a terminal that has no colours: (exit code, all that it printed)."""
    ours, theirs = pty.openpty()
    chunks = []

    def listen():
        try:
            while data := os.read(ours, 1 << 16):
                chunks.append(data)
        except OSError:  # EIO: nobody has the other side any more
            return

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "stsfs", *map(str, arguments)],
            env={**host.environment, "TERM": "dumb", "COLUMNS": "200", **(env or {})},
            cwd="/", stdin=theirs, stdout=theirs, stderr=theirs, timeout=2 * PATIENCE_S,
            check=False,
        )  # fmt: skip
    finally:
        os.close(theirs)
        listener.join(PATIENCE_S)
        os.close(ours)
    return done.returncode, b"".join(chunks)


def assert_obeys_nothing(printed):
    """Fail where a terminal would do more with it than to show it, line by line."""
    text = printed.decode() if isinstance(printed, bytes) else printed
    lines = text.replace("\r\n", "\n").split("\n")
    for line in lines:
        assert line.isprintable(), line
        assert not line.startswith("stsfs: forged"), line
