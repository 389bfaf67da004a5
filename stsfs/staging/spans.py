"""Sets of byte ranges: which bytes of a file lie here, which were changed."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

SPANS_MAX = 2_000_000
"""In a record on disk; these take about 300 MB of memory when they are read."""

OFFSET_MAX = (1 << 63) - 1


class Spans:
    """Half-open ranges [start, stop) of bytes: sorted, without overlaps, none touching the next.

    Pure and synchronous. Each change costs a search, and the moving of what lies behind it.
    """

    __slots__ = ("_starts", "_stops")

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in spans:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Add bytes [start, stop); none where stop is not behind start."""
        if start >= stop:
            return
        if self._stops and start <= self._stops[-1] and start >= self._starts[-1]:
            self._stops[-1] = max(self._stops[-1], stop)  # a stream, or a rewrite of its end
            return
        first = bisect_left(self._stops, start)  # the first that reaches start
        last = bisect_right(self._starts, stop)  # behind the last that begins at stop or before
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def remove(self, start: int, stop: int) -> None:
        """Take bytes [start, stop) out, wherever they are in it."""
        if start >= stop:
            return
        first = bisect_right(self._stops, start)  # the first that has a byte at start or behind
        last = bisect_left(self._starts, stop)  # behind the last that has a byte before stop
        if first >= last:
            return
        left = [(self._starts[first], start)] if self._starts[first] < start else []
        right = [(stop, self._stops[last - 1])] if self._stops[last - 1] > stop else []
        rest = left + right
        self._starts[first:last] = [span[0] for span in rest]
        self._stops[first:last] = [span[1] for span in rest]

    def clip(self, size_bytes: int) -> None:
        """Take out all bytes at size_bytes and behind."""
        if self._stops and self._stops[-1] > size_bytes:
            self.remove(size_bytes, self._stops[-1])

    def clear(self) -> None:
        """Take out everything."""
        self._starts.clear()
        self._stops.clear()

    def covers(self, start: int, stop: int) -> bool:
        """Whether all bytes of [start, stop) are in it; true for no bytes at all."""
        if start >= stop:
            return True
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and self._stops[index] >= stop

    def overlaps(self, start: int, stop: int) -> bool:
        """Whether any byte of [start, stop) is in it."""
        if start >= stop:
            return False
        index = bisect_right(self._stops, start)
        return index < len(self._starts) and self._starts[index] < stop

    def within(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of [start, stop) that are in it, in order."""
        if start >= stop:
            return []
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        return [
            (max(start, self._starts[index]), min(stop, self._stops[index]))
            for index in range(first, last)
        ]

    def gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of [start, stop) that are not in it, in order."""
        missing = []
        at = start
        for inside_start, inside_stop in self.within(start, stop):
            if at < inside_start:
                missing.append((at, inside_start))
            at = inside_stop
        if at < stop:
            missing.append((at, stop))
        return missing

    @property
    def total_bytes(self) -> int:
        """How many bytes are in it."""
        return sum(self._stops) - sum(self._starts)

    def copy(self) -> "Spans":
        """One of its own with the same bytes."""
        twin = Spans()
        twin._starts, twin._stops = self._starts.copy(), self._stops.copy()
        return twin

    def to_list(self) -> list[list[int]]:
        """JSON values."""
        return [list(span) for span in self]

    @classmethod
    def from_list(cls, values: object, size_bytes: int = OFFSET_MAX) -> "Spans":
        """Undo `to_list`, of bytes of a file of this size.

        Raises ValueError for anything that `to_list` does not write, and for bytes outside.
        """
        if not isinstance(values, list):
            raise ValueError("spans are a list")
        if len(values) > SPANS_MAX:
            raise ValueError(f"there are more than {SPANS_MAX} spans")
        spans, before = cls(), -1
        for value in values:
            match value:
                case [bool(), _] | [_, bool()]:
                    raise ValueError("a span is a pair of numbers")
                case [int(start), int(stop)] if before < start < stop <= size_bytes:
                    spans._starts.append(start)
                    spans._stops.append(stop)
                    before = stop
                case _:
                    raise ValueError(
                        "a span is a pair of numbers behind the span before it, within the file"
                    )
        return spans

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._stops, strict=True)))

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spans):
            return NotImplemented
        return self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Spans({list(self)})"
