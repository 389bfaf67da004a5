"""What the tests of writing share: a mount made with --rw, and a directory of it for each test."""

import contextlib
import ctypes
import html
import itertools
import os
import re
import select
import subprocess
import sys
import time
from collections import Counter
from urllib.parse import quote, unquote_plus
from urllib.request import urlopen

from tests.mount.live_mount import POLL_S
from tests.mount.stage import BUCKET, PATIENCE_S

RW = ("--rw", "--conditional-writes", "on")
"""The stage's servers know conditions; the default expects that of AWS alone."""

LONG_TTL = ("--metadata-ttl", "600")
"""So that no listing ends within a test that counts requests."""

DESKS = 120
CHANGING = {"PUT", "COPY", "DELETE", "DELETE_MANY", "MULTIPART", "PART", "PART_COPY"}
"""Kinds of requests that change something."""

libc = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def rename2(source, target, flags):
    """renameat2(2) with flags. Raises OSError."""
    at_fdcwd = -100
    if libc.renameat2(at_fdcwd, os.fsencode(source), at_fdcwd, os.fsencode(target), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source))


@contextlib.contextmanager
def opened(path, flags, mode=0o644):
    """A descriptor; with no buffer of Python's between the test and the kernel."""
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def write(path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
    """Open, write all, close."""
    with opened(path, flags) as fd:
        assert os.write(fd, data) == len(data)


def python(script, *arguments, cwd="/"):
    """Run a program in a process of its own: what maps files may not run where the servers are."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def new_desks(servers):
    """A folder with many directories, which nobody has looked at when it is mounted.

    What a test puts into its directory before it looks there is found by the first listing.
    """
    folder = servers.folder()
    for number in range(DESKS):
        folder.write(f"t{number}/kept", b"")
    return folder


class Desk:
    """The directory of one test: in the mount, and as objects."""

    _numbers = itertools.count()

    def __init__(self, live, folder):
        self.name = f"t{next(self._numbers)}"
        self.live, self.folder, self.stage = live, folder, folder.stage
        self.path = live.path / self.name

    def __truediv__(self, name):
        """A path in the mount."""
        return self.path / name

    def has(self, name, data):
        """Make an object as another client does, before anyone has looked."""
        return self.folder.write(f"{self.name}/{name}", data)

    def put(self, name, data, headers=()):
        """The same at any time; also for a key that is no path."""
        self.stage.call_s3("PUT", self.key(name), data, dict(headers))

    def key(self, name):
        return self.folder.key_of(f"{self.name}/{name}")

    def stored(self, name):
        """The bytes that S3 has, or None."""
        path = self.folder.object_path(f"{self.name}/{name}")
        return path.read_bytes() if path.is_file() else None

    def head(self, name):
        """The headers of an object."""
        return self.stage.call_s3("HEAD", self.key(name))

    def stored_keys(self):
        """All keys below this directory, without it, but `kept`."""
        found = keys_below(self.stage, self.key(""))
        return sorted(key for key in found if key != "kept")

    @contextlib.contextmanager
    def asking(self):
        """What is asked of S3 meanwhile: a Counter by kind, filled when the block ends."""
        self.stage.forget_requests()
        seen = Counter()
        yield seen
        seen.update(self.stage.requests)

    def bytes_of(self, *kinds):
        """Bytes of bodies since the last `asking` began: (sent, received) in requests of kinds."""
        records = [each for each in self.stage.gate.requests if each.kind in kinds]
        return sum(each.sent_bytes for each in records), sum(each.body_bytes for each in records)


def changes(seen):
    """Those of some requests that change something."""
    return {kind: count for kind, count in seen.items() if kind in CHANGING}


def keys_below(stage, prefix):
    """The keys that begin with prefix, without it, as S3 lists them."""
    query = f"list-type=2&max-keys=1000&encoding-type=url&prefix={quote(prefix, safe='')}"
    with urlopen(f"{stage.server.url}/{BUCKET}?{query}", timeout=PATIENCE_S) as response:
        page = response.read().decode()
    assert "<IsTruncated>true" not in page
    keys = [unquote_plus(html.unescape(key)) for key in re.findall("<Key>([^<]*)</Key>", page)]
    return [key.removeprefix(prefix) for key in keys]


def uploaded(live):
    """Return when nothing waits for S3: release publishes, and nobody is told of its end."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        status = live.status()
        if not status["open_files"] and not status["writing"]["files"]:
            return
        assert time.monotonic() < deadline_s, status["writing"]
        select.select([], [], [], POLL_S)
