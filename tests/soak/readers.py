"""Readers of a soak: `python -m tests.soak.readers MOUNT SEED KIND...` until stdin ends.

A thread for each kind; whatever one of them tried, and what came of it, is a line of JSON on
stdout. A line with `end_s` null announces what may not live to tell of its end.
"""

import errno
import json
import mmap
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.mount.versions import PAGE_BYTES, versions_in
from tests.soak.objects import BIG, CHANGING, MISSING, SMALL, STEADY

PIECE_BYTES = 256 * 1024
SPAN_PAGES_MAX = 64
_ERRNOS = {os.strerror(number): name for number, name in errno.errorcode.items()}


PAUSES_S = {
    "stream": 0.3, "direct": 0.1, "small": 0.02, "spots": 0.1, "mapped": 0.15, "changing": 0.02,
    "changing_direct": 0.05, "held": 0.1, "listed": 3.0, "missing": 0.1,
}  # fmt: skip
"""Between two turns: readers keep the mount busy, not the processors."""


class Attempt:
    """One thing tried; a context manager that keeps OSErrors and wrong bytes, and tells."""

    def __init__(self, kind, name, *, announced=False):
        self.told = {"kind": kind, "name": name, "begin_s": time.monotonic(), "end_s": None}
        self.versions = set()
        if announced:
            _say(self.told)

    def __enter__(self):
        return self

    def __exit__(self, _, exc, __):
        if isinstance(exc, OSError):
            self.told["errno"] = errno.errorcode[exc.errno]
        elif isinstance(exc, (AssertionError, ValueError)):
            self.told["wrong"] = repr(exc)[:1000]
        elif exc is not None:
            return False
        self.tell()
        return True

    def tell(self, **more):
        self.told |= {"end_s": time.monotonic(), "versions": sorted(self.versions)} | more
        _say(self.told)

    def saw(self, data, offset):
        """Pages of whatever version, read from offset, a multiple of the page size."""
        self.versions |= versions_in(data, offset)
        self.count(len(data))

    def count(self, size_bytes):
        self.told["bytes"] = self.told.get("bytes", 0) + size_bytes


class Readers:
    """Each method is a kind of reader: one turn of it."""

    def __init__(self, mount, seed):
        self.mount, self.random = mount, random.Random(seed)
        self.stopping = threading.Event()

    def run(self, kind):
        while not self.stopping.is_set():
            getattr(self, kind)()
            self.stopping.wait(PAUSES_S[kind])

    def open(self, name, flags=0):
        return _Descriptor(os.open(self.mount / name, os.O_RDONLY | flags))

    def stream(self):
        """A large file to its end; then the kernel forgets its pages."""
        name = self.random.choice(BIG).name
        with Attempt("stream", name) as attempt, self.open(name) as fd:
            self._to_the_end(fd, attempt)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def direct(self):
        name = self.random.choice(BIG).name
        with Attempt("direct", name) as attempt, self.open(name, os.O_DIRECT) as fd:
            for _ in range(10):
                offset, size_bytes = self._span(os.fstat(fd).st_size)
                attempt.saw(_pread(fd, size_bytes, offset), offset)

    def small(self):
        name = self.random.choice(SMALL).name
        with Attempt("small", name) as attempt, self.open(name) as fd:
            self._to_the_end(fd, attempt)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def spots(self):
        """Odd offsets and lengths all over a large file."""
        big = self.random.choice(BIG)
        with Attempt("spots", big.name) as attempt, self.open(big.name) as fd:
            for _ in range(20):
                start = self.random.randrange(big.size_bytes(1))
                stop = min(big.size_bytes(1), start + self.random.randrange(1, 200_000))
                attempt.count(stop - start)
                assert _pread(fd, stop - start, start) == big.bytes_between(1, start, stop)

    def mapped(self):
        """Pages of a mapping; SIGBUS ends the process."""
        name = self.random.choice(BIG + CHANGING).name
        with Attempt("mapped", name, announced=True) as attempt, self.open(name) as fd:
            size_bytes = os.fstat(fd).st_size
            with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as pages:
                for _ in range(10):
                    offset, length = self._span(size_bytes)
                    attempt.saw(pages[offset : offset + length], offset)

    def changing(self):
        self._whole("changing", 0)

    def changing_direct(self):
        self._whole("changing_direct", os.O_DIRECT)

    def _whole(self, kind, flags):
        name = self.random.choice(CHANGING).name
        with Attempt(kind, name) as attempt, self.open(name, flags) as fd:
            self._to_the_end(fd, attempt)

    def held(self):
        """A file kept open while its object is replaced."""
        name = self.random.choice(CHANGING).name
        with Attempt("held", name) as attempt, self.open(name) as fd:
            for _ in range(10):
                offset, size_bytes = self._span(os.fstat(fd).st_size)
                attempt.saw(_pread(fd, size_bytes, offset), offset)
                self.stopping.wait(0.3)

    def listed(self):
        """What `ls -lR` shows and complains of."""
        begin = Attempt("listed", "")
        done = subprocess.run(
            ["ls", "-lR", str(self.mount)],
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
        for line in done.stderr.splitlines():
            quoted, _, reason = line.rpartition(": ")
            path = (re.findall("'(.*)'", quoted) or [str(self.mount)])[0]
            complaint = Attempt("listed", str(Path(path).relative_to(self.mount)))
            complaint.told["begin_s"] = begin.told["begin_s"]
            complaint.tell(errno=_ERRNOS.get(reason, line))
        if done.returncode == 0:
            shown = {line.split()[-1]: line.split()[4] for line in done.stdout.splitlines()
                     if line.startswith("-")}  # fmt: skip
            wrong = []
            for each in STEADY:
                if shown.get(each.name.rpartition("/")[2]) != str(each.size_bytes(1)):
                    wrong.append(each.name)
            begin.tell(**({"wrong": f"not as they are: {wrong[:20]}"} if wrong else {}))

    def missing(self):
        """Names that never were, and the attributes of those that always are."""
        name = self.random.choice(MISSING)
        attempt = Attempt("missing", name)
        try:
            os.stat(self.mount / name)
        except FileNotFoundError:
            attempt.tell()
        except OSError as exc:
            attempt.tell(errno=errno.errorcode[exc.errno])
        else:
            attempt.tell(wrong="it is there")
        steady = self.random.choice(STEADY)
        with Attempt("stat", steady.name):
            assert os.stat(self.mount / steady.name).st_size == steady.size_bytes(1), "its size"

    def _to_the_end(self, fd, attempt):
        offset, rest = 0, b""
        while piece := os.read(fd, PIECE_BYTES):
            rest += piece
            whole_bytes = len(rest) // PAGE_BYTES * PAGE_BYTES
            attempt.saw(rest[:whole_bytes], offset)
            offset, rest = offset + whole_bytes, rest[whole_bytes:]
        attempt.saw(rest, offset)
        attempt.told["whole"] = True

    def _span(self, size_bytes):
        """Some pages of a file: (offset, length); the last one may be a part of a page."""
        offset = self.random.randrange(-(-size_bytes // PAGE_BYTES)) * PAGE_BYTES
        length = self.random.randint(1, SPAN_PAGES_MAX) * PAGE_BYTES
        return offset, min(length, size_bytes - offset)


def _pread(fd, size_bytes, offset):
    """All bytes asked for: a read that is cut short by an error says so when it is repeated."""
    read = b""
    while len(read) < size_bytes:
        piece = os.pread(fd, size_bytes - len(read), offset + len(read))
        assert piece, f"the end at {offset + len(read)}"
        read += piece
    return read


def _say(told):
    """In one call, so that the lines of threads do not mix."""
    os.write(sys.stdout.fileno(), json.dumps(told).encode() + b"\n")


class _Descriptor(int):
    """An open file that is closed at the end of a block."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self)


def _main(mount, seed, *kinds):
    readers = [Readers(Path(mount), f"{seed} {kind}") for kind in kinds]
    threads = [
        threading.Thread(target=each.run, args=[kind], name=kind)
        for each, kind in zip(readers, kinds, strict=True)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    for each in readers:
        each.stopping.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    _main(*sys.argv[1:])
