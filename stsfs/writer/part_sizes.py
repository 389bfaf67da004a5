"""How long the parts of a stream are whose end nobody knows: they grow, so that 5 TiB fit.

S3 allows 10 000 parts of 5 MiB to 5 GiB each, and objects of 5 TiB (Amazon S3 User Guide,
"Multipart upload limits"). A thousand parts have 8 MiB each, the next thousand 16 MiB, and so on:
the ten sizes add up to 1000 * 8 MiB * (2**10 - 1), which is 7.8 TiB; the largest is 4 GiB.
"""

FIRST_PART_BYTES = 8 * 1024 * 1024
STEP_PARTS = 1000
PARTS_MAX = 10_000
OBJECT_BYTES_MAX = 5 * 1024**4
FILE_BYTES_MAX = 1 << 63
"""No offset in a file is larger."""


def part_span(number: int) -> tuple[int, int]:
    """The bytes [start, stop) of a part, counted from 1, of a stream that goes on."""
    step, index = divmod(number - 1, STEP_PARTS)
    size_bytes = FIRST_PART_BYTES << step
    before_bytes = STEP_PARTS * FIRST_PART_BYTES * ((1 << step) - 1)
    start = before_bytes + index * size_bytes
    return start, start + size_bytes


def part_at(offset: int) -> int:
    """The number of the part that holds the byte at offset."""
    step = (offset // (STEP_PARTS * FIRST_PART_BYTES) + 1).bit_length() - 1
    before_bytes = STEP_PARTS * FIRST_PART_BYTES * ((1 << step) - 1)
    return step * STEP_PARTS + (offset - before_bytes) // (FIRST_PART_BYTES << step) + 1


def part_count(size_bytes: int) -> int:
    """How many parts so many bytes have; an empty stream has none."""
    return part_at(size_bytes - 1) if size_bytes else 0
