"""What a reader will want next, judged from what it has read. Pure: offsets in, spans out.

A handle may carry several streams at once (an index and its data, columns of a table). Whatever is
not a stream is random: it gets what it asked for, and nothing else.
"""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

Span = tuple[int, int]
"""Half-open interval of byte offsets."""

STREAMS_MAX = 8
"""Streams remembered per handle."""

SMALL_FILE_BYTES = 512 * KIB
"""Files up to this size are fetched whole: a request costs as much time as these bytes do."""

FRONT_BYTES = 256 * KIB
"""What the first read at the front of a larger file fetches."""

RANGE_BYTES_MAX = 8 * MIB
"""Largest range of one request: long enough to hide the first byte's latency."""

RANGES_PER_WINDOW = 16

RAMP_BYTES = 16 * MIB
"""Up to here a window doubles whenever the reader waits; beyond, only while it pays."""

GAIN_WORTH = 1.15
"""How much faster a doubled window must be to be kept."""

PLATEAU_WINDOWS = 32
"""After so many windows at the best size, a larger one is tried again: networks change."""

BURST_SAMPLES = 3
"""So many random bursts of one length, and the next is fetched whole at its first read."""

BURST_BYTES_MAX = MIB

LAG_BYTES = 2 * MIB
"""Reads of a stream may overtake each other by this much: the kernel sends several at a time."""


@dataclass(slots=True, eq=False)
class Stream:
    """Reads that follow each other."""

    start: int
    position: int
    """End of the furthest read."""

    window_bytes: int = 0
    """How far ahead to read; 0 until a second read has followed the first."""

    grow_at: int = 0
    """The window may change again when the position has come this far."""

    rate_from: tuple[int, float] | None = None
    """Position and time since which the rate of the present window is measured."""

    best_rate: float = 0.0
    """Bytes per second that the window before this one brought."""

    ahead: int = 0
    """Read-ahead has been asked for up to here."""

    spent: int = 0
    """Blocks up to here have been given up."""

    @property
    def length_bytes(self) -> int:
        """From the first byte read to the last."""
        return self.position - self.start


class ReadPattern:
    """The streams of one open handle on a file of size_bytes."""

    def __init__(self, size_bytes: int, *, block_bytes: int, grain_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._block_bytes = block_bytes
        self._grain_bytes = grain_bytes
        self._streams: list[Stream] = []  # most recently used last
        self._bursts: list[int] = []

    @property
    def streams(self) -> list[Stream]:
        """The streams of this handle, most recently used last."""
        return self._streams

    def observe(self, start: int, stop: int) -> Stream:
        """Note a read of [start, stop) and return the stream it belongs to."""
        stream = self._find(start)
        if stream is None:
            self._note_burst()
            stream = Stream(start=start, position=stop, ahead=stop, spent=start)
            if len(self._streams) >= STREAMS_MAX:
                self._streams.pop(0)
        else:
            self._streams.remove(stream)
            if stop > stream.position:
                stream.position = stop
                if not stream.window_bytes and stream.length_bytes > self._burst_bytes():
                    stream.window_bytes = max(2 * (stop - start), self._grain_bytes)
        self._streams.append(stream)
        return stream

    def fetch_span(self, stream: Stream, start: int, stop: int) -> Span:
        """What to ask for when a part of [start, stop) is missing; contains [start, stop)."""
        if self._size_bytes <= SMALL_FILE_BYTES:
            return 0, self._size_bytes
        first = start - start % self._grain_bytes
        last = stop + -stop % self._grain_bytes
        if stream.window_bytes:
            last = max(last, stop + -stop % self._block_bytes)
        elif start < FRONT_BYTES and stream.start == 0:
            first, last = 0, max(last, FRONT_BYTES)
        elif stream.position == stop:
            last = max(last, stream.start + self._burst_bytes())
        return first, min(last, self._size_bytes)

    def ahead_span(
        self, stream: Stream, *, waited: bool, window_max_bytes: int, now_s: float
    ) -> Span | None:
        """What to begin to fetch now, so that the stream finds it; None if it is on its way.

        waited: the read had to wait for bytes, so a larger window may help.
        """
        if not stream.window_bytes:
            return None
        if 2 * stream.window_bytes <= window_max_bytes:
            self._adapt(stream, waited=waited, now_s=now_s)
        stream.window_bytes = min(stream.window_bytes, window_max_bytes)
        begin = max(stream.ahead, stream.position)
        end = stream.position + stream.window_bytes
        if stream.window_bytes >= self._block_bytes:
            end -= end % self._block_bytes
        end = min(end, self._size_bytes)
        if end - begin < min(stream.window_bytes // 4, self._size_bytes - begin) or end <= begin:
            return None
        return begin, end

    def _adapt(self, stream: Stream, *, waited: bool, now_s: float) -> None:
        """Double a window that makes the reader wait, as long as that brings more per second.

        A reader that waits for its own processor, or for a server that gives no more, would
        otherwise fill the memory for nothing.
        """
        if stream.rate_from is None and stream.position >= stream.grow_at - stream.window_bytes:
            stream.rate_from = (stream.position, now_s)
        if not waited or stream.position < stream.grow_at:
            return
        if stream.window_bytes < RAMP_BYTES:
            stream.window_bytes *= 2
            stream.grow_at = stream.position + stream.window_bytes // 4
            stream.rate_from = None
            return
        position, since_s = stream.rate_from or (stream.position, now_s)
        rate = (stream.position - position) / max(now_s - since_s, 1e-6)
        if rate > GAIN_WORTH * stream.best_rate:
            stream.best_rate = rate
            stream.window_bytes *= 2
            stream.grow_at = stream.position + 2 * stream.window_bytes
        else:
            stream.window_bytes = max(RAMP_BYTES, stream.window_bytes // 2)
            stream.best_rate = 0.0
            stream.grow_at = stream.position + PLATEAU_WINDOWS * stream.window_bytes
        stream.rate_from = None

    def range_bytes(self, stream: Stream) -> int:
        """How to cut a stream's read-ahead into requests.

        Many small ranges bring the same as few large ones, with less memory, until the latency of
        each begins to count.
        """
        blocks = max(1, stream.window_bytes // RANGES_PER_WINDOW // self._block_bytes)
        return min(RANGE_BYTES_MAX, blocks * self._block_bytes)

    def spent_span(self, stream: Stream) -> Span | None:
        """What the stream has read and left behind, since the last time; None if too little."""
        behind = stream.position - LAG_BYTES
        behind -= behind % self._block_bytes
        if not stream.window_bytes or behind - stream.spent < self._block_bytes:
            return None
        span = (stream.spent, behind)
        stream.spent = behind
        return span

    def _find(self, start: int) -> Stream | None:
        for stream in reversed(self._streams):
            skip = max(stream.window_bytes, self._grain_bytes)
            back = min(stream.length_bytes, LAG_BYTES)
            if stream.position - back <= start <= stream.position + skip:
                return stream
        return None

    def _burst_bytes(self) -> int:
        """The length random bursts had lately; 0 when they differ or are unknown."""
        if len(self._bursts) < BURST_SAMPLES:
            return 0
        return min(self._bursts)

    def _note_burst(self) -> None:
        if self._streams and self._streams[-1].length_bytes <= BURST_BYTES_MAX:
            self._bursts.append(self._streams[-1].length_bytes)
            del self._bursts[:-BURST_SAMPLES]
