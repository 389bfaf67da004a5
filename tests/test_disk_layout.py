import itertools

from hypothesis import given
from hypothesis import strategies as st

from stsfs.cache.content import GRAIN_BYTES
from stsfs.cache.disk import layout
from stsfs.cache.disk.layout import CHUNK_BYTES, bits, grain_seed, held_spans, per_chunk, version_id
from stsfs.cache.disk.tier import SHORT_SPAN_BYTES, plan
from stsfs.store.object_store import ObjectVersion
from stsfs.values import SIZE_BYTES_MAX

KEY, OTHER_KEY = b"key", b"other key"
VERSION = ObjectVersion(1, "cohort/s1.bam", '"abc"', 10)
OFFSETS = st.integers(0, 3 * CHUNK_BYTES)


@st.composite
def spans(draw):
    start, stop = draw(OFFSETS), draw(OFFSETS)
    return min(start, stop), max(start, stop)


@st.composite
def bitmaps(draw):
    """A few runs of grains, by chunk."""
    held = {}
    for start, stop in draw(st.lists(spans(), max_size=4)):
        for number, begin, end in per_chunk(start, stop):
            held[number] = held.get(number, 0) | bits(begin, end)
    return held


def is_held(held, offset):
    number, within = divmod(offset, CHUNK_BYTES)
    return bool(held.get(number, 0) >> (within // GRAIN_BYTES) & 1)


@given(bitmaps(), spans())
def test_held_spans_are_the_held_bytes_of_what_was_asked_for(held, span):
    start, stop = span
    found = held_spans(held, start, stop)
    edges = sorted({start, stop, *range(start + -start % GRAIN_BYTES, stop, GRAIN_BYTES)})
    expected = [a for a, b in itertools.pairwise(edges) if is_held(held, a)]
    assert [a for a in edges[:-1] if any(x <= a < y for x, y in found)] == expected
    assert all(start <= x < y <= stop for x, y in found)
    assert all(y < x for (_, y), (x, _) in itertools.pairwise(found))


@given(bitmaps(), spans())
def test_a_plan_covers_what_was_asked_for_in_order_and_takes_only_held_bytes_from_disk(held, span):
    start, stop = span
    parts = plan(held, start, stop)
    position = start
    for (begin, end), from_disk in parts:
        assert position == begin < end
        position = end
        if from_disk:
            assert held_spans(held, begin, end) == [(begin, end)]
    assert position == stop


def test_a_short_span_between_gaps_is_fetched_with_them():
    short = {0: bits(CHUNK_BYTES // 2, CHUNK_BYTES // 2 + SHORT_SPAN_BYTES // 2)}
    assert plan(short, 0, CHUNK_BYTES) == [((0, CHUNK_BYTES), False)]
    assert plan(short, CHUNK_BYTES // 2, CHUNK_BYTES)[0][1]


@given(spans(), st.integers(0, 3 * CHUNK_BYTES))
def test_only_whole_grains_are_kept_and_the_last_one_of_an_object_is_whole(span, size_bytes):
    start, stop = sorted(min(x, size_bytes) for x in span)
    first, last = layout.whole_grains(start, stop, size_bytes)
    assert first <= last
    if first < last:
        assert start <= first
        assert last <= stop
        assert first % GRAIN_BYTES == 0
        assert last % GRAIN_BYTES == 0 or last == size_bytes


def test_whatever_makes_another_version_makes_another_name():
    others = [
        VERSION,
        ObjectVersion(1, "cohort/s1.ba", 'm"abc"', 10),
        ObjectVersion(1, "cohort/s1.bam", '"abd"', 10),
        ObjectVersion(1, "cohort/s1.bam", '"abc"', 11),
    ]
    names = {version_id("aws/lab", version, KEY) for version in others}
    assert len(names) == len(others)
    assert version_id("aws/other", VERSION, KEY) not in names
    assert version_id("aws/lab", VERSION, OTHER_KEY) not in names
    same = ObjectVersion(7, *VERSION_PARTS)
    assert version_id("aws/lab", same, KEY) == version_id("aws/lab", VERSION, KEY)


VERSION_PARTS = (VERSION.key, VERSION.etag, VERSION.size_bytes)


def test_a_checksum_belongs_to_its_version_its_place_and_its_user():
    data = memoryview(b"x" * GRAIN_BYTES)
    one, other = b"a" * 16, b"b" * 16
    digests = {
        layout.grain_digests(data, grain_seed(version, key), start)
        for version, key, start in [
            (one, KEY, 0), (one, KEY, GRAIN_BYTES), (other, KEY, 0), (one, OTHER_KEY, 0),
        ]
    }  # fmt: skip
    assert len(digests) == 4


def test_the_last_byte_of_the_largest_object_has_a_checksum():
    place = SIZE_BYTES_MAX - SIZE_BYTES_MAX % GRAIN_BYTES
    for seed in (0, 2 ** (8 * layout.SEED_BYTES) - 1):
        assert layout.grain_digests(memoryview(b"x"), seed, place)
