"""Spans against the plainest model there is: a byte for each byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stsfs.staging.spans import Spans

SIZE = 40
PLACES = st.integers(0, SIZE)
RANGES = st.tuples(PLACES, PLACES)
CHANGES = st.lists(st.tuples(st.sampled_from(["add", "remove", "clip", "clear"]), RANGES))


class Model:
    """One byte per byte: 1 where it is in the set."""

    def __init__(self):
        self.bytes = bytearray(SIZE)

    def apply(self, change, start, stop):
        match change:
            case "add":
                self.fill(start, stop, 1)
            case "remove":
                self.fill(start, stop, 0)
            case "clip":
                self.fill(start, SIZE, 0)
            case "clear":
                self.fill(0, SIZE, 0)

    def fill(self, start, stop, value):
        for index in range(start, stop):
            self.bytes[index] = value

    def runs(self, start, stop, value):
        found = []
        for index in range(start, stop):
            if self.bytes[index] == value:
                if found and found[-1][1] == index:
                    found[-1] = (found[-1][0], index + 1)
                else:
                    found.append((index, index + 1))
        return found


def apply(spans, change, start, stop):
    match change:
        case "add" | "remove":
            getattr(spans, change)(start, stop)
        case "clip":
            spans.clip(start)
        case "clear":
            spans.clear()


def built(changes):
    spans, model = Spans(), Model()
    for change, (start, stop) in changes:
        apply(spans, change, start, stop)
        model.apply(change, start, stop)
    return spans, model


@given(CHANGES)
def test_spans_hold_what_was_put_in_and_not_taken_out_in_as_few_ranges_as_possible(changes):
    spans, model = built(changes)
    assert list(spans) == model.runs(0, SIZE, 1)
    assert len(spans) == len(model.runs(0, SIZE, 1))
    assert spans.total_bytes == sum(model.bytes)
    assert bool(spans) == any(model.bytes)


@given(CHANGES, RANGES)
def test_questions_about_a_range_are_answered_as_by_looking_at_each_byte(changes, asked):
    spans, model = built(changes)
    start, stop = asked
    assert spans.covers(start, stop) == all(model.bytes[start:stop])
    assert spans.overlaps(start, stop) == any(model.bytes[start:stop])
    assert spans.within(start, stop) == model.runs(start, stop, 1)
    assert spans.gaps(start, stop) == model.runs(start, stop, 0)


@given(CHANGES)
def test_spans_come_back_from_json_as_they_were(changes):
    spans, _ = built(changes)
    assert Spans.from_list(spans.to_list()) == spans == Spans(spans)


@given(CHANGES, RANGES)
def test_a_copy_does_not_change_with_its_original(changes, added):
    spans, _ = built(changes)
    before = list(spans)
    twin = spans.copy()
    twin.add(*added)
    twin.clip(SIZE // 2)
    assert list(spans) == before


def test_spans_may_be_changed_while_they_are_gone_through():
    spans = Spans([(0, 1), (2, 3), (4, 5)])
    for start, stop in spans:
        spans.remove(start, stop)
    assert not spans


@pytest.mark.parametrize(
    "values",
    [None, {}, [1], [[1]], [[1, 2, 3]], [[2, 1]], [[1, 1]], [[-1, 2]], [["a", "b"]],
     [[1, 3], [2, 5]], [[1, 2], [2, 3]], [[5, 6], [1, 2]], [[1.5, 2]]],
)  # fmt: skip
def test_what_spans_never_write_is_not_read(values):
    with pytest.raises(ValueError, match="span"):
        Spans.from_list(values)
