"""What a reader is judged to want next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stsfs.vfs.streams import FRONT_BYTES, MIB, RAMP_BYTES, STREAMS_MAX, ReadPattern

KIB = 1024
GIB = 1024 * MIB
READ = 128 * KIB


def pattern(size_bytes=GIB):
    return ReadPattern(size_bytes, block_bytes=MIB, grain_bytes=16 * KIB)


def ahead(made, stream, *, waited=True, most=256 * MIB, now_s=0.0):
    span = made.ahead_span(stream, waited=waited, window_max_bytes=most, now_s=now_s)
    if span is not None:
        stream.ahead = span[1]
    return span


def test_a_second_read_in_sequence_opens_a_window_that_doubles_while_the_reader_waits():
    made, windows = pattern(), []
    for start in range(0, 16 * MIB, READ):
        stream = made.observe(start, start + READ)
        ahead(made, stream)
        windows.append(stream.window_bytes)
    assert windows[:2] == [0, 4 * READ]
    ramp = windows[: windows.index(RAMP_BYTES)]
    assert ramp == sorted(ramp)


def test_a_reader_that_never_waits_keeps_its_window():
    made = pattern()
    for start in range(0, 8 * MIB, READ):
        stream = made.observe(start, start + READ)
        ahead(made, stream, waited=False)
    assert stream.window_bytes == 2 * READ


@pytest.mark.parametrize(("bytes_per_s_of", "settles"), [
    (lambda window: window * 10, 128 * MIB),  # every doubling pays, up to the limit
    (lambda window: min(window, 32 * MIB) * 10, 32 * MIB),
    (lambda window: 500 * MIB, RAMP_BYTES),
])  # fmt: skip
def test_a_window_beyond_the_ramp_grows_only_while_it_brings_more(bytes_per_s_of, settles):
    made, now_s, seen = pattern(64 * GIB), 0.0, []
    for start in range(0, 3 * GIB, MIB):
        stream = made.observe(start, start + MIB)
        ahead(made, stream, most=128 * MIB, now_s=now_s)
        now_s += MIB / bytes_per_s_of(max(stream.window_bytes, MIB))
        seen.append(stream.window_bytes)
    assert max(set(seen[len(seen) // 2 :]), key=seen.count) == settles


def test_streams_of_one_handle_do_not_disturb_each_other():
    made = pattern()
    for step in range(20):
        first = made.observe(step * READ, (step + 1) * READ)
        second = made.observe(500 * MIB + step * READ, 500 * MIB + (step + 1) * READ)
    assert first is not second
    assert first.window_bytes
    assert second.window_bytes
    assert len(made.streams) == 2


def test_reads_that_overtake_each_other_are_one_stream():
    made = pattern()
    for start in (0, 1, 3, 2, 5, 4, 7, 6):
        stream = made.observe(start * MIB, (start + 1) * MIB)
    assert len(made.streams) == 1
    assert stream.position == 8 * MIB


def test_a_skip_within_the_window_keeps_it():
    made = pattern()
    for start in range(0, 4 * MIB, READ):
        stream = made.observe(start, start + READ)
        ahead(made, stream)
    window = stream.window_bytes
    assert (
        made.observe(stream.position + window // 2, stream.position + window // 2 + READ) is stream
    )
    assert stream.window_bytes == window


def test_random_bursts_are_learned_and_fetched_whole_without_read_ahead():
    made = pattern()
    for start in (100, 700, 300, 500, 200):
        first = made.observe(start * MIB, start * MIB + READ)
        fetched = made.fetch_span(first, start * MIB, start * MIB + READ)
        stream = made.observe(start * MIB + READ, start * MIB + 2 * READ)
        begun = ahead(made, stream)
    assert fetched == (200 * MIB, 200 * MIB + 2 * READ)
    assert begun is None


def test_a_random_read_fetches_what_it_asked_for_rounded_to_grains():
    made = pattern()
    start, stop = 100 * MIB + 5000, 100 * MIB + 9000
    stream = made.observe(start, stop)
    assert made.fetch_span(stream, start, stop) == (100 * MIB, 100 * MIB + 16 * KIB)


def test_a_small_file_is_fetched_whole_and_the_front_of_a_large_one_generously():
    small = pattern(300 * KIB)
    assert small.fetch_span(small.observe(8192, 12288), 8192, 12288) == (0, 300 * KIB)
    large = pattern()
    assert large.fetch_span(large.observe(0, 4096), 0, 4096) == (0, FRONT_BYTES)


@given(
    st.integers(1, 40 * MIB),
    st.lists(st.tuples(st.integers(0, 40 * MIB), st.integers(1, MIB), st.booleans()), max_size=40),
    st.integers(MIB, 64 * MIB),
)
def test_every_span_lies_in_the_file_and_where_it_should(size_bytes, reads, most):
    made = pattern(size_bytes)
    for now_s, (offset, length, waited) in enumerate(reads):
        start = offset % size_bytes
        stop = min(size_bytes, start + length)
        stream = made.observe(start, stop)
        first, last = made.fetch_span(stream, start, stop)
        assert 0 <= first <= start < stop <= last <= size_bytes
        begun = ahead(made, stream, waited=waited, most=most, now_s=now_s)
        if begun is not None:
            assert stream.position <= begun[0] < begun[1] <= size_bytes
            assert begun[1] - stream.position <= most
        spent = made.spent_span(stream)
        if spent is not None:
            assert stream.start <= spent[0] < spent[1] <= stream.position
        assert len(made.streams) <= 8


def test_a_read_near_the_front_that_did_not_begin_there_fetches_what_it_asked_for():
    made = pattern()
    stream = made.observe(96 * KIB, 100 * KIB)
    assert made.fetch_span(stream, 96 * KIB, 100 * KIB) == (96 * KIB, 112 * KIB)


def test_the_stream_used_least_recently_is_forgotten_for_a_new_one():
    made = pattern()
    for number in range(STREAMS_MAX + 1):
        made.observe(10 * number * MIB, 10 * number * MIB + 4096)
    starts = [stream.start for stream in made.streams]
    assert starts == [10 * number * MIB for number in range(1, STREAMS_MAX + 1)]


def test_bursts_of_the_greatest_length_are_learned_and_longer_ones_are_not():
    for length, fetched in ((MIB, MIB), (MIB + 4096, 16 * KIB)):
        made = pattern()
        for number in range(1, 5):
            made.observe(10 * number * MIB, 10 * number * MIB + length)
        stream = made.observe(100 * MIB, 100 * MIB + 4096)
        assert made.fetch_span(stream, 100 * MIB, 100 * MIB + 4096) == (
            100 * MIB,
            100 * MIB + fetched,
        )


def test_read_ahead_goes_on_when_a_quarter_of_the_window_is_free():
    made = pattern()
    for start in (0, READ):
        stream = made.observe(start, start + READ)
    assert ahead(made, stream, waited=False) == (2 * READ, 4 * READ)
    at = stream.position
    made.observe(at, at + READ // 2 - 1)
    assert ahead(made, stream, waited=False) is None
    made.observe(at + READ // 2 - 1, at + READ // 2)
    assert ahead(made, stream, waited=False) == (4 * READ, 4 * READ + READ // 2)


def test_a_window_that_makes_its_reader_wait_doubles_a_quarter_of_it_later():
    made, windows = pattern(), []
    for start in range(0, 9 * READ, READ):
        stream = made.observe(start, start + READ)
        ahead(made, stream)
        windows.append(stream.window_bytes // READ)
    assert windows == [0, 4, 8, 8, 16, 16, 16, 16, 32]


def test_a_stream_is_fetched_in_whole_blocks():
    made, half = pattern(), MIB // 2
    for start in (300 * KIB, 300 * KIB + half):
        stream = made.observe(start, start + half)
    assert made.fetch_span(stream, 812 * KIB, 1324 * KIB) == (800 * KIB, 2 * MIB)
    assert ahead(made, stream, waited=False) == (1324 * KIB, 2 * MIB)


def test_the_same_read_once_more_begins_no_read_ahead():
    made = pattern()
    for _ in range(2):
        stream = made.observe(0, READ)
    assert stream.window_bytes == 0
    assert ahead(made, stream) is None


def test_what_is_left_at_the_end_of_the_file_is_read_ahead_however_little_it_is():
    made = pattern(4 * MIB + 1000)
    spans = []
    for start in (0, MIB, 2 * MIB, 3 * MIB):
        stream = made.observe(start, start + MIB)
        spans.append(ahead(made, stream, waited=False))
    assert spans == [None, (2 * MIB, 4 * MIB), (4 * MIB, 4 * MIB + 1000), None]


def test_what_a_stream_has_left_behind_is_told_once():
    made = pattern()
    for start in range(0, 4 * MIB, MIB):
        stream = made.observe(start, start + MIB)
    assert made.spent_span(stream) == (0, 2 * MIB)
    assert made.spent_span(stream) is None
    made.observe(4 * MIB, 5 * MIB)
    assert made.spent_span(stream) == (2 * MIB, 3 * MIB)
