"""The objects of a soak: every page tells its file and version. For conductor and readers alike."""

import random
from dataclasses import dataclass

from tests.mount.versions import PAGE_BYTES, page_of

MIB = 1 << 20
VERSIONS_PER_FILE = 10_000
"""A page's number is that of the file times this, and the version, from 1."""

MARK_BYTES = 16
"""Of a page at least."""


@dataclass(frozen=True)
class Object:
    """A name, and what its bytes are in each version."""

    name: str
    number: int
    base_bytes: int

    def mark(self, version):
        return self.number * VERSIONS_PER_FILE + version

    def size_bytes(self, version):
        """Another size in nearly each version; the last page is long enough to tell whose it is."""
        size_bytes = self.base_bytes + (version - 1) % 7 * 2345
        return size_bytes + (MARK_BYTES if size_bytes % PAGE_BYTES < MARK_BYTES else 0)

    def bytes_between(self, version, start, stop):
        first, last = start // PAGE_BYTES, -(-stop // PAGE_BYTES)
        pages = b"".join(page_of(self.mark(version), page) for page in range(first, last))
        return pages[start - first * PAGE_BYTES : stop - first * PAGE_BYTES]

    def content(self, version):
        return self.bytes_between(version, 0, self.size_bytes(version))


_SIZES = random.Random(7)

BIG = [Object(f"big/b{n}", n, 32 * MIB + n) for n in range(3)]
"""Never change, like SMALL."""

SMALL = [Object(f"s{n % 8}/{n:03}", 10 + n, _SIZES.randrange(1, 70_000)) for n in range(240)]
CHANGING = [
    Object(f"changing/c{n}", 400 + n, size_bytes)
    for n, size_bytes in enumerate([100, 100, 300_000, MIB, 3 * MIB, 4 * MIB])
]
"""Replaced, deleted and made again by another client all the time."""

MISSING = [f"s{n % 8}/missing{n}" for n in range(20)] + [f"nowhere{n}" for n in range(10)]
STEADY = BIG + SMALL
BY_NAME = {each.name: each for each in STEADY + CHANGING}
NAMES = len(BY_NAME) + len({name.partition("/")[0] for name in BY_NAME}) + 1
"""Files, directories and the root."""
