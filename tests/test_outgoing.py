"""How a body on its way counts as progress, try after try."""

import pytest
import trio

from stsfs.errors import DeadlineExceeded, StoreFailure
from stsfs.store.counters import KindCount
from stsfs.store.outgoing import Outgoing, encoded
from stsfs.store.retry import FAILURES_MAX, Trouble
from tests.fakes import BytesBody

MIB = 1 << 20


def on_its_way(size_bytes, deadline_s=60.0):
    trouble, count = Trouble("write 'k'", deadline_s=deadline_s), KindCount()
    return Outgoing(BytesBody(bytes(size_bytes)), trouble, count), trouble, count


async def failing(outgoing, trouble, silence_s):
    """All of it is sent again and again, to a server that fails after a silence."""
    while True:
        await outgoing.prepare(checksum=False)
        outgoing.sent(outgoing.size_bytes)
        await trio.sleep(silence_s)
        await trouble.back_off("503")


async def test_the_checksum_is_the_one_of_the_standard():
    """Test vectors: RFC 3720, appendix B.4."""
    trouble = Trouble("x", deadline_s=1.0)
    for data, crc in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)):
        outgoing = Outgoing(BytesBody(data), trouble, KindCount())
        assert await outgoing.prepare(checksum=True) == encoded(crc)
    assert await Outgoing(BytesBody(b"x"), trouble, KindCount()).prepare(checksum=False) == ""


async def test_bytes_that_leave_for_the_first_time_forgive_what_was_before(autojump_clock):
    outgoing, trouble, count = on_its_way(100 * MIB)
    for number in range(2 * FAILURES_MAX):
        await outgoing.prepare(checksum=False)
        outgoing.sent((number + 1) * MIB)
        await trouble.back_off("cut")
    assert count.sent_bytes == sum(range(2 * FAILURES_MAX + 1)) * MIB


async def going_a_little_further_each_time(outgoing, trouble):
    for number in range(100):
        await outgoing.prepare(checksum=False)
        outgoing.sent(MIB + number * 1000)
        await trio.sleep(20)
        await trouble.back_off("slow")


@pytest.mark.parametrize(("deadline_s", "raised"), [(60.0, DeadlineExceeded), (3600, StoreFailure)])
async def test_a_few_bytes_more_with_each_try_forgive_nothing(autojump_clock, deadline_s, raised):
    """The next try begins at the beginning: who takes little is not served for ever."""
    outgoing, trouble, _ = on_its_way(100 * MIB, deadline_s)
    with pytest.raises(raised):
        await going_a_little_further_each_time(outgoing, trouble)


async def test_bytes_that_leave_again_forgive_no_failure(autojump_clock):
    outgoing, trouble, _ = on_its_way(MIB)
    with pytest.raises(StoreFailure, match=f"Failed {FAILURES_MAX} times"):
        await failing(outgoing, trouble, 0)


async def test_the_time_in_which_bytes_leave_again_does_not_count_against_the_deadline(
    autojump_clock,
):
    outgoing, trouble, _ = on_its_way(100 * MIB, deadline_s=60.0)
    for _ in range(3):
        await outgoing.prepare(checksum=False)
        for _ in range(50):
            await trio.sleep(2)
            outgoing.sent(2 * MIB)
        await trouble.back_off("503")


async def test_the_time_in_which_nothing_leaves_counts(autojump_clock):
    outgoing, trouble, _ = on_its_way(MIB, deadline_s=60.0)
    with pytest.raises(DeadlineExceeded):
        await failing(outgoing, trouble, 25)
