"""The names that the kernel was told do not exist, so that it can be told otherwise."""

from collections.abc import Iterator

from stsfs.vfs.nodes import Directory

ABSENT_MAX = 10_000
"""Remembered here, and therefore by the kernel: a few MiB, and programs look in fewer places."""


class AbsentNames:
    """Absent names by directory, each for as long as the kernel believes it; bounded."""

    def __init__(self) -> None:
        self._until_s: dict[tuple[Directory, bytes], float] = {}  # told longest ago first

    def tell(self, parent: Directory, name: bytes, *, now_s: float, ttl_s: float) -> float:
        """For how many seconds the kernel may be told that name is absent; 0 if we are full."""
        self._until_s.pop((parent, name), None)
        while self._until_s:
            oldest = next(iter(self._until_s))
            if self._until_s[oldest] > now_s:
                break
            del self._until_s[oldest]
        if ttl_s <= 0 or len(self._until_s) >= ABSENT_MAX:
            return 0.0
        self._until_s[parent, name] = now_s + ttl_s
        return ttl_s

    def names(self) -> Iterator[tuple[Directory, bytes]]:
        """All of them, those that are over by now included."""
        yield from self._until_s
