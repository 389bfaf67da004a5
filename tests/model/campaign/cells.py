"""What the players write: cells of 16 bytes, each of which says which write put it where."""

import struct

CELL_BYTES = 16
HOLE = 0
"""Stands for a cell of zeros in what `decode` returns."""

_MASK = (1 << 64) - 1


class Torn(Exception):
    """Bytes that no write has put there."""


def check_value(write, index):
    """What makes up a cell that no other has."""
    return (write * 0x9E3779B97F4A7C15 ^ (index + 1) * 0xC2B2AE3D27D4EB4F) & _MASK


def encode(write, index, count):
    """The bytes of so many cells of one write, the first of them at an index of the file."""
    values = []
    for at in range(index, index + count):
        values += write, at, check_value(write, at)
    return struct.pack("<" + "IIQ" * count, *values)


def decode(data):
    """The number of the write of each cell, HOLE for zeros. Raises Torn."""
    count, rest = divmod(len(data), CELL_BYTES)
    if rest:
        raise Torn(f"{len(data)} bytes are no cells")
    values = struct.unpack("<" + "IIQ" * count, data)
    writes = values[0::3]
    for index, (write, at, check) in enumerate(
        zip(writes, values[1::3], values[2::3], strict=True)
    ):
        if write == HOLE and not at and not check:
            continue
        if at != index or check != check_value(write, index):
            raise Torn(f"cell {index} has the bytes of write {write} at {at}")
    return writes


def shape(data):
    """A content in few words."""
    if data is None:
        return "nothing"
    runs = []
    try:
        for number in decode(data):
            if runs and runs[-1][0] == number:
                runs[-1][1] += 1
            else:
                runs.append([number, 1])
    except Torn as exc:
        return f"[{exc}]"
    return "[" + " ".join(f"{number}*{count}" for number, count in runs) + "]"
