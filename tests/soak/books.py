"""The books of writers: what each meant to do and what came of it, as lines of JSON.

A line is written before and after each operation. `Ledger` replays a book into the states that
each path may have. A state is the SHA-256 of the content, or None for no such file.
"""

import hashlib
import json
import time
from collections import Counter, defaultdict

ANYTHING = "anything"
"""The state that a killed program leaves: as much as it has written."""


def state_of(content):
    return hashlib.sha256(content).hexdigest()


class Book:
    """Appends to the book of one writer; the file is outside of the mount."""

    def __init__(self, path):
        self._file = path.open("a", buffering=1)
        self._number = 0

    def close(self):
        """No more is told."""
        self._file.close()

    def begin(self, operation, after, moves=()):
        """Announce an operation: after is {path: state}, moves are (old path, new path, state)."""
        self._number += 1
        self._say(operation=operation, begin_s=time.monotonic(), after=after, moves=list(moves))

    def end(self, errno=None, **more):
        """Tell what came of it; errno None: success."""
        self._say(end_s=time.monotonic(), errno=errno, **more)

    def settle(self, states):
        """Note what somebody who looked has found behind the mount: {path: state}."""
        self.begin("settled", states)
        self.end()

    def _say(self, **told):
        self._file.write(json.dumps({"number": self._number} | told) + "\n")


class Ledger:
    """What may be behind the mount by one book, and what must be."""

    def __init__(self):
        self.allowed = defaultdict(lambda: {None})
        """The states that a path may have, by path."""

        self.ever = defaultdict(lambda: {None})
        """Those that it had or was to get at any time: anything else is torn."""

        self.moves_in_doubt = []
        """(old path, new path, state): one of both has it."""

        self.operations = Counter()
        self.wrong = []
        self.refused = []
        """(operation, errno, begin_s, end_s)."""

        self.lines = {}
        """Whether a line that was appended to the shared log was acknowledged."""

    @classmethod
    def of(cls, path):
        """Replay a book; its writers are at rest."""
        made, begun = cls(), None
        for line in path.read_text().splitlines():
            told = json.loads(line)
            if "begin_s" in told:
                if begun is not None:
                    made._apply(begun, {"errno": "unknown", "end_s": begun["begin_s"]})
                begun = told
            else:
                made._apply(begun, told)
                begun = None
        if begun is not None:
            made._apply(begun, {"errno": "unknown", "end_s": begun["begin_s"]})
        return made

    def add(self, other):
        """Take over the ledger of a writer that has paths of its own."""
        self.allowed.update(other.allowed)
        self.ever.update(other.ever)
        self.moves_in_doubt += other.moves_in_doubt
        self.operations += other.operations
        self.wrong += other.wrong
        self.refused += other.refused
        self.lines |= other.lines

    def _apply(self, begun, ended):
        operation, is_done = begun["operation"], ended["errno"] is None
        self.operations[operation] += 1
        if "wrong" in ended:
            self.wrong.append(f"{operation} {begun['after']}: {ended['wrong']}")
        if not is_done:
            self.refused.append((operation, ended["errno"], begun["begin_s"], ended["end_s"]))
        if operation == "log":
            self.lines |= dict.fromkeys(begun["after"], is_done)
            return
        if operation == "read":
            return
        for path, state in begun["after"].items():
            self.ever[path].add(state)
            if is_done:
                self.allowed[path] = {state}
            else:
                self.allowed[path].add(state)
        if is_done:
            touched = set(begun["after"])
            self.moves_in_doubt = [
                each for each in self.moves_in_doubt if touched.isdisjoint(each[:2])
            ]
        else:
            self.moves_in_doubt += map(tuple, begun["moves"])
