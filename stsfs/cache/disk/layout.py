"""Where a byte of a version lies on disk. Pure: offsets in, chunk numbers and bitmaps out."""

import hashlib
from collections.abc import Iterator, Mapping

import xxhash

from stsfs.cache.content import GRAIN_BYTES
from stsfs.store.object_store import ObjectVersion

Span = tuple[int, int]
"""Half-open interval of byte offsets."""

CHUNK_BYTES = 8 * 1024 * 1024
"""What has a file and a row of its own, and is given up as a whole."""

GRAINS_PER_CHUNK = CHUNK_BYTES // GRAIN_BYTES
VERSION_BYTES = 16
SEED_BYTES = 7
DIGEST_BYTES = 8
"""Each grain has a checksum: a random read verifies no more than it needs."""

HELD_BYTES = GRAINS_PER_CHUNK // 8
"""A bitmap of the grains of one chunk; bit i of the little-endian number is grain i."""


def version_id(site: str, version: ObjectVersion, key: bytes) -> bytes:
    """The name of a version on disk: 16 bytes that no other version has.

    site says where the bucket is; the numbers that a mount gives its locations mean nothing to the
    next mount. Who does not have the key, see `cache_key`, cannot tell the name, and so cannot put
    anything where it is looked for.
    """
    digest = hashlib.blake2b(digest_size=VERSION_BYTES, key=key)
    for part in (site, version.key, version.etag, str(version.size_bytes)):
        encoded = part.encode("utf-8", "surrogateescape")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()


def grain_seed(version: bytes, key: bytes) -> int:
    """What the checksums of a version begin with: a secret, so that others cannot make them.

    A message authentication code of all bytes would take ten times as long as all the rest of a
    read. These checksums find damage; they are no proof for who has seen many of them, which takes
    the rights of the user, and who has those has the key as well.
    """
    return int.from_bytes(hashlib.blake2b(version, digest_size=SEED_BYTES, key=key).digest())


def chunk_name(version: bytes, number: int) -> str:
    """The path of a chunk file below the chunk directory."""
    name = version.hex()
    return f"{name[:2]}/{name}-{number}"


def grain_digests(data: memoryview, seed: int, start: int) -> bytes:
    """Checksums of the grains of data, which begins at offset start, one behind the other.

    seed is that of the version, see `grain_seed`. The same bytes at another place, or of another
    version, have another checksum: a chunk file under a wrong name, or grains swapped by a bug,
    are noticed like a flipped bit.
    """
    seed += start  # within 64 bits, as any offset is
    return b"".join(
        [
            xxhash.xxh3_64_digest(data[at : at + GRAIN_BYTES], seed + at)
            for at in range(0, len(data), GRAIN_BYTES)
        ]
    )


def per_chunk(start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Cut [start, stop) into (chunk number, start, stop)."""
    while start < stop:
        number = start // CHUNK_BYTES
        end = min(stop, (number + 1) * CHUNK_BYTES)
        yield number, start, end
        start = end


def whole_grains(start: int, stop: int, size_bytes: int) -> Span:
    """The grains that [start, stop) has all of, in an object of size_bytes; may be empty."""
    first = start + -start % GRAIN_BYTES
    last = stop if stop == size_bytes else stop - stop % GRAIN_BYTES
    return first, max(first, last)


def grains_around(start: int, stop: int, size_bytes: int) -> Span:
    """The grains that [start, stop) has a part of."""
    return start - start % GRAIN_BYTES, min(stop + -stop % GRAIN_BYTES, size_bytes)


def bits(start: int, stop: int) -> int:
    """The bitmap of the grains that touch [start, stop), which lies within one chunk."""
    base = start - start % CHUNK_BYTES
    first = (start - base) // GRAIN_BYTES
    last = -(-(stop - base) // GRAIN_BYTES)
    return (1 << last) - (1 << first)


def held_spans(held: Mapping[int, int], start: int, stop: int) -> list[Span]:
    """The parts of [start, stop) whose grains are held, by the bitmaps of the chunks; joined."""
    spans: list[Span] = []
    for number, begin, end in per_chunk(start, stop):
        wanted = bits(begin, end)
        present = held.get(number, 0) & wanted
        if not present:
            continue
        base = number * CHUNK_BYTES
        for first, last in _ones(present):
            piece = (max(begin, base + first * GRAIN_BYTES), min(end, base + last * GRAIN_BYTES))
            if spans and spans[-1][1] == piece[0]:
                spans[-1] = (spans[-1][0], piece[1])
            else:
                spans.append(piece)
    return spans


def _ones(bitmap: int) -> Iterator[tuple[int, int]]:
    """Runs of ones in a bitmap, as half-open intervals of bit numbers."""
    shift = 0
    while bitmap:
        zeros = (bitmap & -bitmap).bit_length() - 1
        bitmap >>= zeros
        shift += zeros
        ones = (~bitmap & (bitmap + 1)).bit_length() - 1
        yield shift, shift + ones
        bitmap >>= ones
        shift += ones
