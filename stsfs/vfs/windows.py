"""What single LISTs of long directories have told within the last moment. No requests.

Many programs make, move and remove names in their order, or nearly so: a page that begins at one
tells about those that follow it. As with read-ahead, it is the longer the longer that goes on, and
names in any other order are asked for one by one.
"""

from collections import deque
from typing import NamedTuple

import trio

from stsfs.vfs.key_listing import KeyListing
from stsfs.vfs.listing import FRESH_S
from stsfs.vfs.nodes import Directory

WINDOWS_MAX = 32
"""Of up to a page each, in all directories together."""

RUNS_MAX = 256
"""Directories of which it is remembered what was asked last."""

ROWS_FIRST, ROWS_GROWTH, ROWS_LAST = 16, 4, 1000
"""Rows to ask for when names begin to come in order, how many times more each time, and at most."""


class Windows:
    """Listings of one page each, which begin at a name in the middle of a directory."""

    def __init__(self) -> None:
        self._windows: deque[_Window] = deque(maxlen=WINDOWS_MAX)  # begun first first
        self._runs: dict[Directory, _Run] = {}  # gone on with least recently first
        self.rows_max = WINDOWS_MAX * ROWS_LAST
        """Rows of all of them together, at most."""

        self.forgotten = 0
        """How often something was forgotten: what was asked before may not be added after."""

    def find(self, directory: Directory, name: bytes, *, since_s: float) -> KeyListing | None:
        """One that says what name is, from no earlier than since_s; the latest."""
        while self._windows and self._windows[0].listing.begun_s < trio.current_time() - FRESH_S:
            self._windows.popleft()
        for first, listing in reversed(self._windows):
            is_inside = listing.directory is directory and first <= name
            if is_inside and listing.tells(name, since_s=since_s):
                return listing
        return None

    def rows(self, directory: Directory, name: bytes) -> int:
        """How many rows to ask for from this name on; 0: ask about just this name."""
        last = self._runs.pop(directory, None)
        rows = 0
        if last is not None and last.name < name:
            rows = min(max(ROWS_FIRST, last.rows * ROWS_GROWTH), ROWS_LAST)
        self._runs[directory] = _Run(name, rows)
        if len(self._runs) > RUNS_MAX:
            del self._runs[next(iter(self._runs))]
        return rows

    def add(self, listing: KeyListing, first: bytes) -> None:
        """One that has told about first and the names after it, as far as its page went."""
        self._windows.append(_Window(first, listing))
        rows = sum(len(each.listing.entries) for each in self._windows)
        while rows > self.rows_max and len(self._windows) > 1:
            rows -= len(self._windows.popleft().listing.entries)

    def forget(self, directory: Directory) -> None:
        """What was told about a directory does not hold any more."""
        self.forgotten += 1
        kept = [each for each in self._windows if each.listing.directory is not directory]
        self._windows = deque(kept, maxlen=WINDOWS_MAX)


class _Window(NamedTuple):
    first: bytes
    listing: KeyListing


class _Run(NamedTuple):
    """What was asked last in a directory."""

    name: bytes
    rows: int


def just_before(key: str) -> str:
    """What few keys lie after and before key, for `start-after`, which excludes what it names."""
    last = ord(key[-1])
    if last <= ord(" ") or 0xD800 <= last - 1 <= 0xDFFF:
        return key[:-1]
    return f"{key[:-1]}{chr(last - 1)}~"
