"""A hostile server in Synapse's place, over real sockets: memory, time, and what is believed."""

import gzip
import itertools
import re
import zlib
from pathlib import Path

import pytest

from tests.attacks.hostile_synapse import MIB, answer, asked_by_a_process, serving

ROOT = Path(__file__).parents[2]
GROWN_BYTES_MAX = 96 * MIB
"""Of a process that asks: a body of the greatest length as bytes, as text and as values."""


def compressed_zeros(size_bytes, window_bits):
    """About a thousandth of that many bytes; the end, which nobody gets to, is missing."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, window_bits)
    first, again = (
        compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    return first + again * (size_bytes // MIB - 1)


def bomb(encoding, window_bits):
    return lambda: [
        answer(compressed_zeros(4096 * MIB, window_bits), f"Content-Encoding: {encoding}")
    ]


def twice_compressed():
    inner = compressed_zeros(4096 * MIB, 31)
    return [answer(gzip.compress(inner), "Content-Encoding: gzip, gzip")]


ENDLESS = {
    "gzip of 4 GiB": bomb("gzip", 31),
    "deflate of 4 GiB": bomb("deflate", 15),
    "an encoding that nobody asked for": bomb("br", 31),
    "gzip in gzip": twice_compressed,
    "a body without end": lambda: itertools.chain(
        [b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b"x" * 65536)
    ),
    "chunks without end": lambda: itertools.chain(
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"],
        itertools.repeat(b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    ),
    "a head without end": lambda: itertools.chain(
        [b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"X-A: " + b"x" * 6000 + b"\r\n")
    ),
    "early hints without end": lambda: itertools.repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
    "five million lists": lambda: [answer(b"[" + b"[]," * 2_600_000 + b"[]]")],
    "lists in lists": lambda: [answer(b"[" * 200_000)],
    "dicts in dicts": lambda: [answer(b'{"a":' * 200_000)],
    "a refusal in lists": lambda: [answer(b"[" * 200_000, status=403)],
    "a refusal of megabytes": lambda: [answer(b"x" * 50 * MIB, status=403)],
    "a number of millions of digits": lambda: [answer(b"9" * 5 * MIB)],
}


@pytest.mark.parametrize("attack", ENDLESS)
def test_no_answer_takes_memory_or_is_anything_but_an_error_of_ours(attack):
    pieces = ENDLESS[attack]
    made = pieces()
    repeated = made if isinstance(made, list) else None
    with serving(lambda request: repeated or pieces()) as url:
        outcome = asked_by_a_process(url)
    assert outcome.said.startswith(("SynapseUnavailable: ", "PermissionMissing: "))
    assert len(outcome.said) < 1000
    assert outcome.grown_bytes < GROWN_BYTES_MAX


def test_nobody_reads_answers_of_synapse_but_the_module_that_bounds_them():
    readers = re.compile(r"json\.loads|\.json\(\)|aiter_\w+|\.aread\(")
    for path in (ROOT / "stsfs" / "synapse").glob("*.py"):
        found = set(readers.findall(path.read_text()))
        assert found == ({"json.loads"} if path.name == "bodies.py" else set()), path


def test_compressed_bodies_are_not_asked_for():
    asked = []

    def script(request):
        asked.append(request.headers.get("accept-encoding"))
        return [answer({"ownerId": "7"})]

    with serving(script) as url:
        assert asked_by_a_process(url).said == ""
    assert asked == ["identity"]


def test_a_short_body_that_a_proxy_has_compressed_is_read_all_the_same():
    body = gzip.compress(b'{"ownerId": "7"}')
    with serving(lambda request: [answer(body, "Content-Encoding: gzip")]) as url:
        assert asked_by_a_process(url).said == ""


def test_cookies_do_not_pile_up():
    numbers = itertools.count()
    sent = []

    def script(request):
        sent.append(request.headers.get("cookie"))
        fields = [f"Set-Cookie: c{next(numbers)}={'x' * 1000}; Path=/" for _ in range(50)]
        return [answer({"ownerId": "7"}, *fields)]

    with serving(script) as url:
        outcome = asked_by_a_process(url, calls=100)
    assert set(sent) == {None}
    assert outcome.grown_bytes < 16 * MIB
