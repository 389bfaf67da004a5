"""Strategies for what nobody would write: documents that are nearly right, and bytes that are not.

STSFS_FUZZ says how many examples each test tries; the suite tries few.
"""

import contextlib
import copy
import os
from functools import partial

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests import hangs

EXAMPLES = int(os.environ.get("STSFS_FUZZ", "60"))

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much,
    ],
)  # fmt: skip
"""Decorates a test of this folder."""

fuzz_slowly = settings(fuzz, max_examples=max(10, EXAMPLES // 5))
"""The same, where each example makes a database or starts a process."""

HANG_S = 20.0
"""No example takes a hundredth of it: what takes longer does not end."""

ODD_TEXTS = st.sampled_from([
    "", " ", "-", ".", "..", "/", "a/../b", "/etc/passwd", "a//b", "a/", "x" * 300, "x" * 20_000,
    "a\0b", "a\r\nX-Evil: 1", "\n", "\t", "\x1b[2J", "\ud800", "a\udcffb", "\u202e", "é",
    "NaN", "1e999", "0x10", "\u0663", "true", "null", "syn1", "syn0", "SYN1", "syn1.2", "s3://b/p",
    "2020-01-01T00:00:00.000Z", "99999-01-01T00:00:00.000Z", "0001-01-01T00:00:00+23:59", "s3://",
    "9999-12-31T23:59:59.999-23:59", "2020-02-30T00:00:00Z", "%00", "%ff", "&#0;", "<a>", "]]>",
    "{", "[",
]) | st.text(max_size=12)  # fmt: skip

ODD_NUMBERS = st.sampled_from([
    0, 1, -1, 2, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**20,
    10**400, -(10**400), 0.0, -0.0, 0.5, 1e18, 1e308, -1e308, float("inf"), float("-inf"),
    float("nan"), True, False,
])  # fmt: skip

ODD_VALUES = st.deferred(
    lambda: (
        st.none()
        | ODD_TEXTS
        | ODD_NUMBERS
        | st.lists(ODD_TEXTS | ODD_NUMBERS | st.none(), max_size=3)
        | st.dictionaries(ODD_TEXTS, ODD_TEXTS | ODD_NUMBERS | st.none(), max_size=2)
        | st.just({"a": [{"b": [[[{}]]]}]})
    )
)


@st.composite
def mutated(draw, documents):
    """Documents (JSON values) of which a few places were changed, dropped, doubled or moved."""
    document = copy.deepcopy(draw(documents))
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(document, ()))
        if not places:
            return copy.deepcopy(draw(ODD_VALUES))
        *path, last = draw(st.sampled_from(places))
        holder = _at(document, path)
        match draw(st.sampled_from(["replace", "replace", "drop", "double", "swap"])):
            case "replace":
                holder[last] = copy.deepcopy(draw(ODD_VALUES))
            case "drop":
                del holder[last]
            case "double" if isinstance(holder, list):
                holder.insert(last, copy.deepcopy(holder[last]))
            case "double":
                holder[draw(ODD_TEXTS)] = copy.deepcopy(holder[last])
            case "swap":
                holder[last] = copy.deepcopy(_at(document, draw(st.sampled_from(places))))
    return document


def _at(document, path):
    for step in path:
        document = document[step]
    return document


def _places(document, path):
    """Paths to every value below the document itself."""
    entries = ()
    if isinstance(document, dict):
        entries = document.items()
    elif isinstance(document, list):
        entries = enumerate(document)
    for name, value in entries:
        yield (*path, name)
        yield from _places(value, (*path, name))


ODD_BYTES = [
    b"\0" * 40, b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"\xff\xfe", b"\xed\xa0\x80", b"\r\n",
    b"\n", b",", b'"', b"\\u0000", b"\\ud800", b"1e999", b"-", b"NaN", b"\t",
]  # fmt: skip


def damaged_bytes(data, edits=3):
    """The bytes with a few pieces cut out, replaced or doubled; sometimes quite other bytes."""
    edit = st.tuples(
        st.integers(0, max(0, len(data))), st.integers(0, 8),
        st.binary(max_size=6) | st.sampled_from(ODD_BYTES),
    )  # fmt: skip

    def apply(changes):
        found = data
        for at, removed, added in changes:
            found = found[:at] + added + found[at + removed :]
        return found

    return st.lists(edit, min_size=0, max_size=edits).map(apply) | st.binary(max_size=200)


DEEP = [b"[" * 200_000, b'{"a":' * 200_000, b"[" * 900 + b"]" * 900]
"""JSON that parsers take for an attack on their stack."""


bounded = partial(hangs.bounded, HANG_S)
"""A context that fails, instead of hanging, where code that does not wait goes on for ever."""


@contextlib.contextmanager
def memory_below(limit_bytes):
    """Fail where more than this was allocated at a time by Python."""
    import tracemalloc

    tracemalloc.start()
    try:
        yield
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < limit_bytes
