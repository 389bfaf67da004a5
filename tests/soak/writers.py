"""Writers of a soak: `python -m tests.soak.writers MOUNT HOME SEED KIND...` until stdin ends.

A thread for each kind, with a directory and a book of its own; `pause` on stdin is answered when
no operation is under way, and `go {path: state}` tells what was found meanwhile.
"""

import contextlib
import errno
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

from tests.mount.crash_stage import closing_fd, put_all
from tests.soak.books import ANYTHING, Book, state_of

MIB = 1 << 20
LARGE_BYTES = 18 * MIB
"""Three parts."""

LOG = "shared/log"
PAUSES_S = {
    "small": 0.15, "editor": 0.4, "large": 1.5, "tree": 1.0, "stream": 5.0, "log": 2.0,
    "victim": 1.0,
}  # fmt: skip
"""Between two turns: writers keep the mount busy, not the processors."""

_ERRNOS = {os.strerror(number): name for number, name in errno.errorcode.items()}


class Turnstile:
    """Lets turns begin unless paused; tells when none is under way."""

    def __init__(self):
        self._changed = threading.Condition()
        self._is_open, self._is_over, self._turns = True, False, 0

    @contextlib.contextmanager
    def turn(self):
        """Waits while paused; yields False when there is to be no further turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_open or self._is_over)
            self._turns += 1
        try:
            yield not self._is_over
        finally:
            with self._changed:
                self._turns -= 1
                self._changed.notify_all()

    def rest(self, seconds_s):
        with self._changed:
            self._changed.wait_for(lambda: self._is_over, seconds_s)

    def pause(self):
        """Return when no turn is under way."""
        with self._changed:
            self._is_open = False
            self._changed.wait_for(lambda: not self._turns)

    def go(self):
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def end(self):
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


class Writer:
    """Each public method without arguments is a kind of writer: one turn of it."""

    def __init__(self, mount, home, seed, kind):
        self.mount, self.kind = mount, kind
        self.random = random.Random(f"{seed} {kind}")
        self.book_path = home / f"{kind}.jsonl"
        self.book = Book(self.book_path)
        self.directory = f"{home.name}-{kind}"
        self.source = home / f"{kind}.source"
        self.contents = {}
        """What paths have, where that is certain: {path: bytes}."""

        self.stages = 0

    def run(self, turnstile):
        while True:
            with turnstile.turn() as is_wanted:
                if not is_wanted:
                    return
                getattr(self, self.kind)()
            turnstile.rest(PAUSES_S[self.kind] * self.random.uniform(0.2, 1.8))

    def settle(self, states):
        """Take over what was found while this writer paused; the rest is as it was told."""
        mine = {path: state for path, state in states.items() if self._owns(path)}
        if mine:
            self.book.settle(mine)
        for path, state in mine.items():
            if path in self.contents and state_of(self.contents[path]) != state:
                del self.contents[path]

    def _owns(self, path):
        return path.startswith(self.directory + "/")

    # Operations

    def _do(self, operation, call, after, moves=()):
        """Try it between two lines of the book; returns whether it was acknowledged."""
        told = {path: None if content is None else state_of(content)
                for path, content in after.items()}  # fmt: skip
        self.book.begin(operation, told, moves)
        for path in after:
            self.contents.pop(path, None)
        try:
            call()
        except OSError as exc:
            self.book.end(errno.errorcode.get(exc.errno, str(exc)))
            return False
        self.book.end()
        self.contents |= {path: data for path, data in after.items() if data is not None}
        return True

    def _data(self, size_bytes):
        return self.random.randbytes(size_bytes)

    def _put(self, path, content, *, operation="cp"):
        """A whole file by the tool; dd writes in blocks of 1 MiB."""
        self.source.write_bytes(content)
        command = {"cp": ["cp", self.source, self.mount / path]}.get(
            operation,
            ["dd", f"if={self.source}", f"of={self.mount / path}", "bs=1M", "status=none"],
        )
        return self._do(operation, lambda: _run(command), {path: content})

    def _synced(self, path, content):
        """Written, synced and closed: two acknowledgements."""
        after = {path: content}
        with contextlib.ExitStack() as stack:
            opened = []

            def write():
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                opened.append(os.open(self.mount / path, flags, 0o644))
                stack.callback(_close_quietly, opened)
                put_all(opened[0], content)
                os.fsync(opened[0])

            if not self._do("fsync", write, after):
                return False
            return self._do("close", lambda: os.close(opened.pop()), after)

    def _append(self, path, added):
        def append():
            with closing_fd(self.mount / path, os.O_WRONLY | os.O_APPEND) as descriptor:
                put_all(descriptor, added)

        return self._do("append", append, {path: self.contents[path] + added})

    def _update(self, path, offset_mib, piece):
        """In place, as dd does it."""
        self.source.write_bytes(piece)
        old, start = self.contents[path], offset_mib * MIB
        new = old[:start] + piece + old[start + len(piece) :]
        command = ["dd", f"if={self.source}", f"of={self.mount / path}", "bs=1M",
                   f"seek={offset_mib}", "conv=notrunc", "status=none"]  # fmt: skip
        return self._do("update", lambda: _run(command), {path: new})

    def _delete(self, path):
        return self._do("delete", lambda: os.unlink(self.mount / path), {path: None})

    def _rename(self, operation, old, new, pairs):
        """pairs are the files that change names: [(old path, new path)]."""
        contents = {source: self.contents[source] for source, _ in pairs}
        after = {source: None for source, _ in pairs}
        after |= {target: contents[source] for source, target in pairs}
        moves = [(source, target, state_of(contents[source])) for source, target in pairs]
        return self._do(
            operation, lambda: os.rename(self.mount / old, self.mount / new), after, moves
        )

    def _read(self, path):
        """What is read after an acknowledgement is what was written."""
        self.book.begin("read", {path: state_of(self.contents[path])})
        try:
            data = (self.mount / path).read_bytes()
        except OSError as exc:
            self.book.end(errno.errorcode[exc.errno])
            return
        if data == self.contents[path]:
            self.book.end()
        else:
            self.book.end(wrong=f"{len(data)} bytes that were not written last")

    def _directory_is_there(self, path):
        if not os.path.isdir(self.mount / path):
            self._do("mkdir", lambda: _make(self.mount / path), {})

    # Kinds

    def small(self):
        path = f"{self.directory}/{self.random.randrange(12)}"
        self._directory_is_there(self.directory)
        content, dice = self._data(self.random.randrange(1, 60_000)), self.random.random()
        if path in self.contents and dice < 0.3:
            self._append(path, content[:3000])
        elif path in self.contents and dice < 0.45:
            self._delete(path)
        elif dice < 0.65:
            self._synced(path, content)
        else:
            self._put(path, content)
        if path in self.contents and self.random.random() < 0.3:
            self._read(path)

    def editor(self):
        """Write beside it, sync, rename over it."""
        path = f"{self.directory}/{self.random.randrange(4)}"
        self._directory_is_there(self.directory)
        if self._synced(path + "~", self._data(self.random.randrange(1, 200_000))):
            self._rename("save", path + "~", path, [(path + "~", path)])

    def large(self):
        path = f"{self.directory}/{self.random.randrange(2)}"
        self._directory_is_there(self.directory)
        if path not in self.contents:
            self._put(path, self._data(LARGE_BYTES), operation="dd")
        elif self.random.random() < 0.2:
            self._append(path, self._data(100_000))
            if len(self.contents.get(path, b"")) > LARGE_BYTES + 300_000:
                self._delete(path)
        else:
            piece = self._data(self.random.choice([4096, MIB, 2 * MIB]))
            self._update(path, self.random.randrange(15), piece)

    def tree(self):
        """A directory is filled, renamed, emptied and removed; one at a time, each with a name."""
        self.stages += 1
        top = f"{self.directory}/{self.stages}"
        self._directory_is_there(self.directory)
        self._directory_is_there(top)
        names = [f"{top}/a", f"{top}/b"]
        for name in names:
            self._put(name, self._data(self.random.randrange(1, 50_000)))
        if not all(name in self.contents for name in names):
            return
        moved = [name.replace(top, top + "-moved") for name in names]
        pairs = list(zip(names, moved, strict=True))
        if not self._rename("rename of a directory", top, top + "-moved", pairs):
            return
        if not self._rename("rename", moved[0], top + "-c", [(moved[0], top + "-c")]):
            return
        if self._delete(moved[1]) and self._delete(top + "-c"):
            self._do("rmdir", lambda: os.rmdir(self.mount / (top + "-moved")), {})

    def stream(self):
        """More than the staging disk holds."""
        path = f"{self.directory}/{self.random.randrange(2)}"
        self._directory_is_there(self.directory)
        if self.contents.pop(path, None) is not None and self.random.random() < 0.5:
            self._delete(path)
        if self._put(path, self._data(self.random.randint(64, 96) * MIB), operation="stream"):
            self.contents[path] = b""  # only that it is there: the bytes are many

    def victim(self):
        """A program is killed while it writes; then the file is written as it should be."""
        path = f"{self.directory}/{self.random.randrange(3)}"
        self._directory_is_there(self.directory)
        self.source.write_bytes(self._data(4 * MIB))
        self.book.begin("killed program", {path: ANYTHING})
        command = ["dd", f"if={self.source}", f"of={self.mount / path}", "bs=64k", "status=none"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as program:
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(self.random.random() * 0.1)
            program.kill()
        self.book.end("SIGKILL")
        self._put(path, self._data(self.random.randrange(1, 100_000)))

    def log(self):
        """A line for a file that all mounts append to."""
        line = f"{self.directory} {self.stages}"
        self.stages += 1

        def append():
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with closing_fd(self.mount / LOG, flags) as descriptor:
                put_all(descriptor, line.encode() + b"\n")

        self._directory_is_there("shared")
        self.book.begin("log", {line: None})
        try:
            append()
        except OSError as exc:
            self.book.end(errno.errorcode[exc.errno])
        else:
            self.book.end()


def _make(path):
    with contextlib.suppress(FileExistsError):
        path.mkdir()


def _close_quietly(opened):
    with contextlib.suppress(OSError):
        for descriptor in opened:
            os.close(descriptor)


def _run(command):
    """A tool; raises OSError by what it says."""
    environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    if done.returncode:
        name = _ERRNOS.get(done.stderr.strip().rpartition(": ")[2])
        raise OSError(getattr(errno, name) if name else done.stderr, done.stderr)


def _end_all(failed):
    """A writer that fails unforeseen ends all of them: a kind must not be missing unseen."""
    threading.__excepthook__(failed)
    os._exit(1)


def _main(mount, home, seed, *kinds):
    threading.excepthook = _end_all
    writers = [Writer(Path(mount), Path(home), seed, kind) for kind in kinds]
    turnstile = Turnstile()
    threads = [threading.Thread(target=each.run, args=[turnstile]) for each in writers]
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "pause":
            turnstile.pause()
        else:
            for each in writers:
                each.settle(json.loads(rest))
            turnstile.go()
        print(word, flush=True)
    turnstile.end()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    _main(*sys.argv[1:])
