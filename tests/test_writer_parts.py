"""Which bytes go into which part of an upload: arithmetic and planning."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from stsfs.writer.part_sizes import (
    OBJECT_BYTES_MAX,
    PARTS_MAX,
    part_at,
    part_count,
    part_span,
)
from stsfs.writer.plan import COPY_BYTES_MAX, PART_BYTES_MIN, plan_pieces

MIB = 1 << 20
SERVER_PART_BYTES_MAX = 5 << 30


def test_parts_of_a_stream_follow_each_other_and_five_tib_fit():
    stop = 0
    for number in range(1, PARTS_MAX + 1):
        start, next_stop = part_span(number)
        assert start == stop
        assert PART_BYTES_MIN <= next_stop - start <= SERVER_PART_BYTES_MAX
        stop = next_stop
    assert stop >= OBJECT_BYTES_MAX
    assert part_count(OBJECT_BYTES_MAX) <= PARTS_MAX


@given(st.integers(0, OBJECT_BYTES_MAX - 1))
def test_a_byte_lies_in_the_part_that_is_named_for_it(offset):
    start, stop = part_span(part_at(offset))
    assert start <= offset < stop


def test_an_empty_stream_has_no_part():
    assert part_count(0) == 0
    assert part_count(1) == 1
    assert part_count(8 * MIB) == 1
    assert part_count(8 * MIB + 1) == 2


@st.composite
def changed_files(draw):
    """A size, and unchanged runs in order that do not touch; sizes from bytes to terabytes."""
    scale = draw(st.sampled_from([1, MIB, 64 * MIB, 1 << 30]))
    lengths = draw(st.lists(st.integers(1, 4000), min_size=1, max_size=40))
    edges = [0] if draw(st.booleans()) else [draw(st.integers(1, 40)) * scale]
    for length in lengths:
        edges.append(edges[-1] + length * scale)
    runs = list(zip(edges[::2], edges[1::2], strict=False))
    size = edges[-1] + draw(st.sampled_from([0, 1, 3 * MIB, 20 * MIB]))
    return min(size, OBJECT_BYTES_MAX), [run for run in runs if run[1] <= OBJECT_BYTES_MAX]


@settings(deadline=None)
@given(changed_files())
def test_a_plan_covers_the_file_in_parts_that_the_server_takes_and_copies_only_what_is_unchanged(
    changed,
):
    size, unchanged = changed
    pieces = plan_pieces(size, unchanged)
    if pieces is None:
        return
    assert len(pieces) <= PARTS_MAX
    assert pieces[0].start == 0
    assert pieces[-1].stop == size
    for piece, following in pairwise(pieces):
        assert piece.stop == following.start
    for piece in pieces[:-1]:
        assert piece.stop - piece.start >= PART_BYTES_MIN
    assert all(piece.stop - piece.start <= SERVER_PART_BYTES_MAX for piece in pieces)
    for piece in pieces:
        if piece.copied:
            assert piece.stop - piece.start <= COPY_BYTES_MAX
            assert any(start <= piece.start and piece.stop <= stop for start, stop in unchanged)


@settings(deadline=None)
@given(changed_files())
def test_a_long_unchanged_run_is_copied_but_for_what_its_neighbour_lacks(changed):
    size, unchanged = changed
    long = [run for run in unchanged if run[1] - run[0] >= 2 * PART_BYTES_MIN]
    pieces = plan_pieces(size, unchanged)
    if pieces is None:
        assert not long
        return
    if len(long) * 12 + size // (8 * MIB) > PARTS_MAX:  # parts had to grow
        return
    copied = sum(piece.stop - piece.start for piece in pieces if piece.copied)
    assert copied >= sum(stop - start - PART_BYTES_MIN for start, stop in long)


def test_a_small_change_in_the_middle_sends_little():
    size = 10 << 30
    pieces = plan_pieces(size, [(0, 5 << 30), ((5 << 30) + 4096, size)])
    assert sum(p.stop - p.start for p in pieces if not p.copied) == PART_BYTES_MIN


def test_an_append_sends_what_was_appended():
    pieces = plan_pieces((1 << 30) + 100, [(0, 1 << 30)])
    assert [piece for piece in pieces if not piece.copied] == [(1 << 30, (1 << 30) + 100, False)]


def test_nothing_is_copied_where_changes_lie_too_close():
    runs = [(i * 4 * MIB, i * 4 * MIB + 4 * MIB - 1) for i in range(20)]
    assert plan_pieces(80 * MIB, runs) is None
    assert plan_pieces(80 * MIB, []) is None


def test_very_many_changes_make_parts_larger_not_more_than_allowed():
    runs = [(i * 6 * MIB, i * 6 * MIB + 6 * MIB - 1) for i in range(30_000)]
    big = (180_000 * MIB, 181_000 * MIB)
    pieces = plan_pieces(big[1], [*runs, big])
    assert len(pieces) <= PARTS_MAX
    assert any(piece.copied for piece in pieces)
