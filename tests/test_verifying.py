"""Reads that are checked against an MD5, whatever order the kernel asks in."""

import hashlib
import itertools
import random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from stsfs.errors import ContentMismatch, StoreFailure
from stsfs.store.object_store import ObjectVersion
from stsfs.vfs.reader import DirectReader
from stsfs.vfs.verifying import INLINE_BYTES_MAX, Verification, VerifyingReader
from tests.fakes import Fault, MemoryStore, pattern

DATA = pattern("content", 1000)
VERSION = ObjectVersion(1, "d/file", '"e"', len(DATA))


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class GatedReader:
    """A Reader of DATA whose reads end, well or badly, when a test says so."""

    streams = ()

    def __init__(self, data=DATA):
        self.data = data
        self.gates = {}
        self.failing = set()
        self.closed = False

    async def confirm(self):
        await trio.lowlevel.checkpoint()

    async def read(self, offset, size_bytes):
        gate = self.gates.get(offset)
        await (trio.lowlevel.checkpoint() if gate is None else gate.wait())
        if offset in self.failing:
            self.failing.discard(offset)
            raise StoreFailure("503")
        return memoryview(self.data)[offset : offset + size_bytes]

    def close(self):
        self.closed = True


def verifying(right=True, *, shared=None, reader=None):
    expected = md5(DATA) if right else md5(b"other")
    return VerifyingReader(reader or GatedReader(), VERSION, expected, shared or Verification())


async def read_pieces(reader, pieces):
    """Read these ranges one after the other; the number of those that were refused."""
    refused = 0
    for start, stop in pieces:
        try:
            assert bytes(await reader.read(start, stop - start)) == DATA[start:stop]
        except ContentMismatch:
            refused += 1
    return refused


async def read_concurrently(reader, inner, begun, ended):
    """Begin reads in one order and let them end in another, as the kernel and a network do."""
    refused = []
    inner.gates = {start: trio.Event() for start, _ in begun}

    async def one(piece, done, *, task_status):
        task_status.started()
        refused.append(await read_pieces(reader, [piece]))
        done.set()

    async with trio.open_nursery() as nursery:
        done = {piece: trio.Event() for piece in begun}
        for piece in begun:
            await nursery.start(one, piece, done[piece])
            await trio.testing.wait_all_tasks_blocked()
        for piece in ended:
            inner.gates[piece[0]].set()
            await done[piece].wait()
    inner.gates = {}
    return sum(refused)


def pieces_of(cuts):
    edges = sorted({0, len(DATA), *cuts})
    return list(itertools.pairwise(edges))


async def test_a_file_read_in_order_is_delivered_where_the_digest_is_right():
    shared = Verification()
    assert await read_pieces(verifying(shared=shared), pieces_of([300, 600])) == 0
    assert (shared.verified_count, shared.mismatch_count) == (1, 0)


async def test_the_read_of_the_last_byte_is_refused_with_both_digests():
    shared = Verification()
    reader = verifying(False, shared=shared)
    assert await read_pieces(reader, [(0, 300), (300, 999)]) == 0
    with pytest.raises(ContentMismatch, match=md5(DATA)) as raised:
        await reader.read(999, 4096)
    assert f"Synapse's MD5 is {md5(b'other')}" in raised.value.sentence
    assert (shared.verified_count, shared.mismatch_count) == (0, 1)


async def test_a_known_mismatch_is_refused_at_once_through_any_handle():
    shared = Verification()
    assert await read_pieces(verifying(False, shared=shared), pieces_of([])) == 1
    other = verifying(False, shared=shared)
    assert await read_pieces(other, [(996, 1000), (10, 20)]) == 2
    with pytest.raises(ContentMismatch):
        await other.confirm()
    with pytest.raises(ContentMismatch):
        shared.check(VERSION, md5(b"other").upper())
    shared.check(VERSION, md5(DATA))


@given(
    cuts=st.sets(st.integers(1, len(DATA) - 1), max_size=12),
    order=st.randoms(use_true_random=False),
    right=st.booleans(),
)
@settings(deadline=None)
async def test_pieces_in_any_order_are_refused_exactly_where_the_content_differs(
    cuts, order, right
):
    begun, ended = pieces_of(cuts), pieces_of(cuts)
    order.shuffle(begun)
    order.shuffle(ended)
    shared, inner = Verification(), GatedReader()
    reader = verifying(right, shared=shared, reader=inner)
    refused = await read_concurrently(reader, inner, begun, ended)
    assert (refused, shared.verified_count) == ((0, 1) if right else (1, 0))
    reader.close()
    assert shared.early_bytes_free == Verification().early_bytes_free


@given(
    cuts=st.sets(st.integers(1, len(DATA) - 1), max_size=12),
    again=st.lists(st.tuples(st.integers(0, 999), st.integers(1, 500)), max_size=5),
    order=st.randoms(use_true_random=False),
    right=st.booleans(),
)
@settings(deadline=None)
async def test_pieces_asked_for_twice_change_nothing(cuts, again, order, right):
    pieces = pieces_of(cuts)
    for start, length in again:
        repeated = (start, min(start + length, len(DATA)))
        if repeated[0] not in {piece[0] for piece in pieces}:
            pieces.append(repeated)
    ended = list(pieces)
    order.shuffle(ended)
    shared, inner = Verification(), GatedReader()
    refused = await read_concurrently(
        verifying(right, shared=shared, reader=inner), inner, pieces, ended
    )
    assert (refused >= 1, shared.mismatch_count) == (not right, not right)
    assert shared.verified_count >= right


async def test_what_failed_and_is_asked_for_again_page_by_page_is_part_of_the_reading():
    shared, inner = Verification(), GatedReader()
    reader = verifying(False, shared=shared, reader=inner)
    inner.failing = {300}
    pieces = [(0, 300), (300, 600), (600, 1000)]
    with pytest.RaisesGroup(StoreFailure):
        await read_concurrently(reader, inner, pieces, [pieces[2], pieces[0], pieces[1]])
    assert shared.mismatch_count == 0
    rest = [(start, start + 100) for start in range(300, 1000, 100)]
    # The piece behind has waited, so the third page completes the reading; then all is refused.
    assert await read_pieces(reader, rest) == 5


async def test_a_reading_goes_on_through_another_handle_with_what_the_kernel_has_not_kept():
    shared = Verification()
    head = verifying(False, shared=shared)
    assert await read_pieces(head, [(0, 300)]) == 0
    head.close()
    assert await read_pieces(verifying(False, shared=shared), [(300, 600), (600, 1000)]) == 1


async def test_random_reads_are_not_verified_and_keep_nothing():
    shared = Verification()
    reader = verifying(False, shared=shared)
    places = random.Random(3)
    starts = [places.randrange(100, 900) for _ in range(30)]
    assert await read_pieces(reader, [(0, 50), *((start, start + 60) for start in starts)]) == 0
    assert await read_pieces(reader, [(990, 1000)]) == 0
    assert shared.early_bytes_free == Verification().early_bytes_free


async def test_early_pieces_have_a_limit_behind_which_nothing_is_verified():
    shared, inner = Verification(early_bytes_max=500), GatedReader()
    reader = verifying(False, shared=shared, reader=inner)
    pieces = [(0, 300), (300, 600), (600, 1000)]
    assert await read_concurrently(reader, inner, pieces, pieces[::-1]) == 0
    assert (shared.early_bytes_free, shared.verified_count) == (500, 0)


async def test_a_piece_behind_a_gap_is_kept_only_while_something_before_it_is_under_way():
    shared, inner = Verification(), GatedReader()
    reader = verifying(False, shared=shared, reader=inner)
    skipping = [(0, 300), (600, 1000)]
    assert await read_concurrently(reader, inner, skipping, skipping[::-1]) == 0
    assert shared.early_bytes_free == Verification().early_bytes_free


async def test_of_early_pieces_from_the_same_offset_the_longest_counts():
    shared, inner = Verification(), GatedReader()
    reader = verifying(False, shared=shared, reader=inner)
    inner.gates = {0: trio.Event()}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_pieces, reader, [(0, 300)])
        await trio.testing.wait_all_tasks_blocked()
        assert await read_pieces(reader, [(300, 400), (300, 1000), (300, 500)]) == 0
        inner.gates.pop(0).set()
    assert shared.mismatch_count == 1


async def test_what_waits_for_its_turn_goes_with_the_last_handle():
    shared, inner = Verification(), GatedReader()
    reader, other = (verifying(shared=shared, reader=inner) for _ in range(2))
    inner.gates = {0: trio.Event()}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read, 0, 300)
        await trio.testing.wait_all_tasks_blocked()
        await reader.read(300, 300)
        assert shared.early_bytes_free == Verification().early_bytes_free - 300
        other.close()
        assert shared.early_bytes_free == Verification().early_bytes_free - 300
        nursery.cancel_scope.cancel()
    reader.close()
    assert inner.closed
    assert shared.early_bytes_free == Verification().early_bytes_free


async def test_a_second_full_reading_is_hashed_anew():
    shared, inner = Verification(), GatedReader()
    reader = verifying(shared=shared, reader=inner)
    assert await read_pieces(reader, pieces_of([400])) == 0
    inner.data = DATA[:-1] + b"!"
    await reader.read(0, 400)
    with pytest.raises(ContentMismatch, match=md5(inner.data)):
        await reader.read(400, 600)
    assert shared.verified_count == 1


async def test_an_empty_file_is_judged_when_it_is_opened():
    empty, shared = ObjectVersion(1, "empty", '"e"', 0), Verification()
    right = VerifyingReader(GatedReader(b""), empty, md5(b"").upper(), shared)
    await right.confirm()
    assert bytes(await right.read(0, 4096)) == b""
    with pytest.raises(ContentMismatch):
        await VerifyingReader(GatedReader(b""), empty, md5(b"x"), shared).confirm()


@pytest.mark.parametrize("right", [True, False])
async def test_large_pieces_are_hashed_in_order_although_in_threads(right):
    data = pattern("large", 20 * INLINE_BYTES_MAX)
    store, shared = MemoryStore(), Verification()
    version = store.put("large", data)
    expected = md5(data) if right else md5(b"other")
    reader = VerifyingReader(DirectReader(store, version), version, expected, shared)
    refused = []

    async def one(offset):
        try:
            await reader.read(offset, 2 * INLINE_BYTES_MAX)
        except ContentMismatch:
            refused.append(offset)

    async with trio.open_nursery() as nursery:
        for offset in range(0, len(data), 2 * INLINE_BYTES_MAX):
            nursery.start_soon(one, offset)
    assert (len(refused), shared.verified_count) == ((0, 1) if right else (1, 0))


async def test_a_request_that_ends_while_its_piece_is_hashed_leaves_no_hole():
    shared = Verification()

    class Ending(GatedReader):
        """The request ends at the moment when its bytes are there."""

        async def read(self, offset, size_bytes):
            scope.cancel()
            return memoryview(self.data)[offset : offset + size_bytes]

    reader = verifying(shared=shared, reader=Ending())
    for offset in (0, 500):
        with trio.CancelScope() as scope:
            await reader.read(offset, 500)
    assert shared.verified_count == 1


async def test_errors_of_the_store_pass_and_the_piece_is_asked_for_again():
    store, shared = MemoryStore(), Verification()
    version = store.put("d/file", DATA)
    store.script("read_range", Fault(StoreFailure("503")))
    reader = VerifyingReader(DirectReader(store, version), version, md5(DATA), shared)
    with pytest.raises(StoreFailure):
        await reader.read(0, 1000)
    await reader.read(0, 1000)
    assert shared.verified_count == 1
