"""What of a changed object is copied inside S3, and what is sent. Pure.

S3 copies bytes of an object into a part of an upload without moving them (UploadPartCopy), and
demands 5 MiB of every part but the last (Amazon S3 User Guide, "Multipart upload limits").
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from stsfs.writer.part_sizes import FIRST_PART_BYTES, PARTS_MAX

PART_BYTES_MIN = 5 * 1024 * 1024
COPY_BYTES_MAX = 1024**3
"""S3 takes 5 GiB; smaller copies run beside each other, and lose less when one fails."""


class Piece(NamedTuple):
    """One part of an upload: bytes [start, stop) of the file."""

    start: int
    stop: int
    copied: bool
    """From the base, which has the same bytes at the same place."""


def plan_pieces(size_bytes: int, unchanged: Iterable[tuple[int, int]]) -> Sequence[Piece] | None:
    """The parts of a file of this size whose unchanged runs its base has at the same place.

    unchanged holds half-open runs in order, which do not touch. None: nothing is worth copying.
    """
    runs = list(unchanged)
    run_bytes_min, part_bytes = PART_BYTES_MIN, FIRST_PART_BYTES
    while True:
        runs = [(start, stop) for start, stop in runs if stop - start >= run_bytes_min]
        pieces = _alternating(size_bytes, runs)
        if not any(piece.copied for piece in pieces):
            return None
        counts = [_count(piece, part_bytes) for piece in pieces]
        if sum(counts) <= PARTS_MAX:
            return _cut(pieces, counts)
        run_bytes_min *= 2  # too many small changes: fewer and larger parts, more of it sent
        part_bytes *= 2


def _alternating(size_bytes: int, runs: Iterable[tuple[int, int]]) -> list[Piece]:
    """What is sent and what is copied in turn; no part but the last is too small for S3."""
    found: list[Piece] = []
    sent_from = 0
    for start, stop in runs:
        copied_from = start
        if start > sent_from:  # what is sent before it takes from the run what it lacks
            copied_from = max(start, sent_from + PART_BYTES_MIN)
        if stop - copied_from < PART_BYTES_MIN:
            continue
        if copied_from > sent_from:
            found.append(Piece(sent_from, copied_from, copied=False))
        found.append(Piece(copied_from, stop, copied=True))
        sent_from = stop
    if size_bytes > sent_from:
        found.append(Piece(sent_from, size_bytes, copied=False))
    return found


def _count(piece: Piece, part_bytes: int) -> int:
    """Into how many parts a piece is cut evenly; none falls below the least size."""
    length_bytes = piece.stop - piece.start
    return (
        -(-length_bytes // COPY_BYTES_MAX) if piece.copied else max(1, length_bytes // part_bytes)
    )


def _cut(pieces: Iterable[Piece], counts: Iterable[int]) -> list[Piece]:
    found = []
    for (start, stop, copied), count in zip(pieces, counts, strict=True):
        edges = [start + (stop - start) * index // count for index in range(count + 1)]
        found += [Piece(*span, copied=copied) for span in pairwise(edges)]
    return found
