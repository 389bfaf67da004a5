"""Plays histories through a mount and in a local directory, and tells the first difference."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mount.stage import PATIENCE_S
from tests.mount.write_model import player as playing
from tests.mount.write_model.differences import Judge
from tests.mount.write_model.histories import WORLD

POLL_S = 0.01
"""Between looks at what nobody announces: the end of a publication that nobody waits for."""

OPTIONS = ("--rw", "--conditional-writes", "on", "--metadata-ttl")


class Died(Exception):
    """The process that plays was killed by a signal."""


class Playing:
    """The other end of a player."""

    def __init__(self, program="player"):
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name(f"{program}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def play(self, operations, **more):
        """The answers to operations."""
        self.ask(operations, **more)
        return self.answer()

    def has_answered(self, patience_s):
        """Whether an answer is there, or is within that time."""
        return bool(select.select([self._process.stdout], [], [], patience_s)[0])

    def ask(self, operations, **more):
        """Begin to play."""
        asked = json.dumps({"operations": operations, **more}) + "\n"
        self._process.stdin.write(asked.encode())
        self._process.stdin.flush()

    def answer(self):
        """The end of what was asked."""
        if not self.has_answered(PATIENCE_S):
            raise Died("no answer")
        if not (line := self._process.stdout.readline()):
            raise Died(f"the player ended with {self._process.wait()}")
        return json.loads(line)

    def one(self, *operation):
        """The value of one operation, which must succeed."""
        answer = self.play([operation])[0]
        answer = answer[0] if isinstance(answer[0], list) else answer  # the oracle says more
        assert answer[0] == "ok", (operation, answer)
        return answer[1]

    def end(self):
        """Nothing is left of it."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass
class Difference(Exception):
    """Where the mount was not as the directory."""

    step: int
    operation: list
    expected: object
    found: object

    def __str__(self):
        answers = f"  expected {self.expected}\n  found    {self.found}"
        return f"step {self.step} {self.operation}\n{answers}"


@dataclass
class State:
    """What a crash finds."""

    held: dict
    tree: dict

    def certain(self, held):
        """Contents of what nobody has open."""
        return {path: _content(each) for path, each in self.tree.items() if path not in held}

    def may(self, path):
        """Contents that a file may have."""
        shown = self.tree.get(path, ())
        return [*self.held.get(path, {"may": []})["may"], *shown[4:]]


class Arena:
    """A mount, and a directory beside it. Histories follow each other, each in a new place."""

    def __init__(self, folder, mount, local, *, ttl_s=30, patience_s=120):
        self._folder, self._mount, self._local = folder, mount, local
        self._ttl_s, self._patience_s = ttl_s, patience_s
        self._count = 0
        self.name = ""
        self._ours = self._theirs = None

    def __enter__(self):
        self.live = self._mounted()
        self._ours, self._theirs = Playing(), Playing("oracle")
        return self

    def __exit__(self, *_):
        self._ours.end()
        self._theirs.end()

    def _mounted(self):
        return self._mount(self._folder.syn_id, *OPTIONS, str(self._ttl_s))

    def play(self, history):
        """Raises Difference."""
        self._count += 1
        self.name = f"h{self._count}"
        self._judge = Judge()
        (self._local / self.name).mkdir()
        os.mkdir(self.live / self.name)
        self._begin()
        self._theirs.play([], root=str(self._local / self.name))
        try:
            self._play(history)
        finally:
            self._folder.stage.gate.faults.clear()

    def _begin(self):
        self._ours.play([], root=str(self.live / self.name))

    def _play(self, history):
        first = 0
        for at, operation in enumerate([*history, ["end"]]):
            if operation[0] in WORLD or operation[0] == "end":
                self._compare(history[first:at], first)
                self._step = first = at
                first += 1
                getattr(self, f"_{operation[0]}")(*operation[1:])

    def _compare(self, operations, first):
        if not operations:
            return
        try:
            ours = self._ours.play(operations)
        except Died as died:
            self._ours.end()
            self._ours = Playing()
            raise Difference(first, operations, "no signal", str(died)) from died
        theirs = self._theirs.play(operations)
        steps = zip(operations, ours, theirs, strict=True)
        for at, (operation, found, (expected, marks)) in enumerate(steps):
            if not self._judge.same(operation, expected, found, marks):
                raise Difference(first + at, operation, expected, found)

    def _both(self, *operation):
        self._compare([list(operation)], self._step)

    # What the world does

    def _end(self):
        self._both("close_all")
        self._settle()
        self._both("tree")

    def _settle(self, *but):
        """Return when the bucket has what the directory has, but for some paths."""
        expected = self._expected(*but)
        deadline_s = time.monotonic() + self._patience_s
        while (found := self._bucket(*but)) != expected:
            if time.monotonic() > deadline_s:
                raise Difference(self._step, ["bucket"], expected, found)
            select.select([], [], [], POLL_S)

    def _expected(self, *but):
        tree = self._theirs.one("tree")
        return {
            path: shown[4] for path, shown in tree.items() if shown[0] == "file" and path not in but
        }

    def _bucket(self, *but):
        root = self._folder.path / self.name
        found = {}
        for directory, _, files in os.walk(root):
            for name in files:
                path = Path(directory, name)
                if (key := str(path.relative_to(root))) not in but:
                    with contextlib.suppress(FileNotFoundError):
                        found[key] = playing.digest(path.read_bytes())
        return found

    def _fault(self, what, count):
        faults, prefix = self._folder.stage.gate.faults, self._folder.key_of(self.name)
        if what in ("503", "500"):
            faults.every_nth(1, status=int(what), key_prefix=prefix, limit=count)
        elif what == "hang up":
            faults.hang_up(key_prefix=prefix, limit=count)
        elif what == "lose answer":
            faults.lose_answer(key_prefix=prefix, limit=count)
        else:
            faults.cut_body(after_bytes=100, key_prefix=prefix, limit=count)

    def _remount(self):
        self._both("close_all")
        done = self.live.unmount()
        if done.returncode:
            raise Difference(self._step, ["unmount"], 0, f"{done.returncode} {done.stderr}")
        self.live.wait_for_end()
        self._again()
        self._both("tree")

    def _again(self):
        self._ours.end()
        self.live = self._mounted()
        self._ours = Playing()
        self._begin()

    def _foreign_put(self, path, size_bytes, seed):
        holders = self._theirs.one("holders", path)
        if holders["kind"] == "directory" or not holders["parent"]:
            return
        self._settle(*self._theirs.one("held"))
        self._folder.put(f"{self.name}/{path}", playing.body(seed, size_bytes))
        self._foreign(path, holders, ["foreign_put", path, size_bytes, seed])

    def _foreign_delete(self, path):
        holders = self._theirs.one("holders", path)
        self._settle(*self._theirs.one("held"))
        if holders["kind"] != "file" or not (self._folder.path / self.name / path).exists():
            return
        self._folder.delete(f"{self.name}/{path}")
        self._foreign(path, holders, ["unlink", path])

    def _foreign(self, path, holders, operation):
        """Whoever has the file open closes it, whatever comes of that; then the name is theirs."""
        closes = [["unmap", each] for each in holders["maps"]]
        closes += [["close", each] for each in holders["slots"]]
        self._ours.play(closes)
        self._theirs.play([operation, *closes])
        looks = [["stat", path], ["whole", path]]
        expected = [each for each, _ in self._theirs.play(looks)]
        deadline_s = time.monotonic() + self._patience_s
        while (found := self._ours.play(looks)) != expected:
            if not closes or time.monotonic() > deadline_s:
                raise Difference(self._step, operation, expected, found)
            select.select([], [], [], POLL_S)

    def _kill(self):
        self._crash(self._states())

    def _kill_during(self, which, *operation):
        """The daemon is killed at the request number `which` of an operation, or after its end."""
        held = self._theirs.one("held")
        self._settle(*held)
        before = self._states()
        faults, prefix = self._folder.stage.gate.faults, self._folder.key_of(self.name)
        # The operation cannot end with it, and nothing can follow it but the same once more.
        rule = faults.every_nth(which, status=503, key_prefix=prefix, limit=1)
        self._ours.ask([operation])
        while not rule.applied and not self._ours.has_answered(POLL_S):
            pass
        is_over = self._ours.has_answered(0)
        self._theirs.play([operation])
        after = self._states()
        self._crash(*([after] if is_over else [before, after]), asked=True)

    def _states(self):
        """What may be lost of what there is, and what may not."""
        return State(self._theirs.one("held"), self._theirs.one("tree"))

    def _crash(self, *states, asked=False):
        """Kill the mount and go on with the next one, which shows one of the states."""
        held = {path for state in states for path in state.held}
        if not asked:
            self._settle(*held)
        self.live.signal(signal.SIGKILL)
        self.live.wait_for_end()
        if asked:
            self._ours.answer()
        subprocess.run(["fusermount3", "-uz", "--", str(self.live.path)], check=True)
        self._folder.stage.gate.faults.clear()
        self._again()
        self._theirs.one("close_all")
        deadline_s = time.monotonic() + self._patience_s
        while True:
            found = self._ours.one("tree")
            certain = [state.certain(held) for state in states]
            if {p: _content(each) for p, each in found.items() if p not in held} in certain:
                break
            if time.monotonic() > deadline_s:
                raise Difference(self._step, ["kill"], certain, found)
            select.select([], [], [], POLL_S)
        self._survived(states, held, found)
        self._follow(found)

    def _survived(self, states, held, found):
        """What has become of files that were open when the mount was killed."""
        for path in held & found.keys():
            may = [each for state in states for each in state.may(path)]
            if found[path][4] not in may:
                raise Difference(self._step, ["kill", path], may, found[path])
        first = states[0].held.values()  # of an operation that did not end nothing was promised
        if any(each["must"] for each in first):
            safe = self._recovered() | {each[4] for each in found.values() if len(each) > 4}
            for each in first:
                if each["must"] and not safe & set(each["must"]):
                    raise Difference(self._step, ["safe"], each["must"], sorted(safe))

    def _follow(self, found):
        """Let the directory be as the mount; modes and times of the last moment may be lost."""
        tree = self._theirs.one("tree")
        for path in sorted(tree.keys() - found.keys(), reverse=True):
            self._theirs.one("rmdir" if tree[path][0] == "directory" else "unlink", path)
        for path, shown in sorted(found.items()):
            if shown[0] == "directory":
                if path not in tree:
                    self._theirs.one("mkdir", path)
                self._theirs.one("adopt_attributes", path, shown[1])
            elif path not in tree or _content(tree[path]) != _content(shown):
                self._theirs.one("adopt", path, self._ours.one("content", path), shown[1], shown[3])
            else:
                self._theirs.one("adopt_attributes", path, shown[1], shown[3])

    def _recovered(self):
        """What `stsfs recover` has."""
        with tempfile.TemporaryDirectory() as place:
            stage = self._folder.stage
            places = ["--endpoint-url", stage.gate.url, "--synapse-endpoint", stage.synapse.url]
            done = self.live.host.stsfs("recover", "--save", place, *places)
            if done.returncode:
                raise Difference(self._step, ["recover"], 0, f"{done.returncode} {done.stderr}")
            files = [each for each in Path(place).rglob("*") if each.is_file()]
            return {playing.digest(each.read_bytes()) for each in files}


def _content(shown):
    """What a tree shows of one path, without what was set of it."""
    return shown[0] if shown[0] == "directory" else (shown[2], shown[4])
