import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from stsfs.credentials.lease import ATTEMPT_GAP_S, CHECK_PERIOD_S, CredentialLease, renewal_margin_s
from stsfs.errors import (
    AwsCredentialsMissing,
    SessionExpired,
)
from tests.lease_fakes import HOUR_S, Source, Wall, caught


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture
def source(wall):
    return Source(wall)


@pytest.fixture
def lease(source, wall):
    return CredentialLease(source, now_unix_s=wall)


# Renewal in time.


async def test_hourly_tokens_are_renewed_with_a_quarter_of_an_hour_to_spare(
    autojump_clock, nursery, lease, source
):
    await nursery.start(lease.keep_fresh)
    for _ in range(24 * 60):
        await trio.sleep(60)
        lease.current()
        assert lease.status().seconds_left >= 15 * 60 - 60
    assert 24 * 60 / 45 <= source.fetches <= 24 * 60 / 40


async def test_tokens_of_twenty_seconds_never_run_out(autojump_clock, nursery, lease, source):
    source.lifetime_s = 20
    await nursery.start(lease.keep_fresh)
    for _ in range(600):
        await trio.sleep(1)
        lease.current()
        assert lease.status().seconds_left > 3
    assert source.fetches <= 600 / 14 + 1


async def test_keys_without_expiry_are_fetched_once(autojump_clock, nursery, lease, source):
    source.lifetime_s = None
    await nursery.start(lease.keep_fresh)
    await trio.sleep(2 * 24 * HOUR_S)
    assert source.fetches == 1
    assert lease.status().seconds_left is None
    assert lease.status().in_force


@given(lifetime_s=st.floats(0, 10**7))
def test_the_margin_is_a_quarter_of_the_lifetime_and_at_most_fifteen_minutes(lifetime_s):
    assert renewal_margin_s(lifetime_s) == min(lifetime_s / 4, 900)


async def test_a_set_given_at_the_start_saves_the_first_fetch(
    autojump_clock, nursery, source, wall
):
    first = source.issue()
    lease = CredentialLease(source, first=first, now_unix_s=wall)
    await nursery.start(lease.keep_fresh)
    assert lease.current() == first
    with trio.testing.assert_checkpoints():
        assert await lease.valid() == first
    await trio.sleep(HOUR_S)
    assert lease.current() != first


async def test_started_is_reported_with_the_first_set_in_force(
    autojump_clock, nursery, lease, source
):
    source.takes_s = 7
    await nursery.start(lease.keep_fresh)
    assert trio.current_time() >= 7
    assert lease.current().access_key_id == "ASIA1"


async def test_a_failing_first_fetch_is_raised_as_it_is(autojump_clock, lease, source):
    source.failure = AwsCredentialsMissing("no keys")
    with pytest.raises(AwsCredentialsMissing):
        await lease.keep_fresh()
    assert source.fetches == 1


# Machines that sleep, and clocks that are wrong.


async def test_after_a_suspension_expired_credentials_are_not_handed_out(
    autojump_clock, nursery, lease, source, wall
):
    await nursery.start(lease.keep_fresh)
    wall.suspended_s = 8 * HOUR_S
    with pytest.raises(SessionExpired):
        lease.current()
    assert (await lease.valid()).access_key_id == "ASIA2"


async def test_after_a_suspension_the_renewal_waits_for_nobody(
    autojump_clock, nursery, lease, source, wall
):
    await nursery.start(lease.keep_fresh)
    wall.suspended_s = 8 * HOUR_S
    await trio.sleep(10)
    assert lease.current().access_key_id == "ASIA2"


@pytest.mark.parametrize("ahead_s", [-2 * HOUR_S, 2 * HOUR_S])
async def test_a_wrong_clock_is_corrected_for(
    autojump_clock, nursery, lease, source, wall, ahead_s
):
    wall.ahead_s = ahead_s
    await nursery.start(lease.keep_fresh)
    lease.current()  # in force, or the store could never tell the time
    lease.clock_offset_s = -ahead_s
    assert lease.server_time_unix_s() == wall() - ahead_s
    for _ in range(48):
        await trio.sleep(HOUR_S / 2)
        lease.current()
        assert 10 * 60 < lease.status().seconds_left <= HOUR_S
    assert source.fetches < 24 * 60 / 40 + 2


async def test_a_clock_that_is_set_right_later_leaves_no_gap(autojump_clock, nursery, lease, wall):
    wall.ahead_s = 2 * HOUR_S
    await nursery.start(lease.keep_fresh)
    await trio.sleep(100)
    wall.ahead_s = 0
    for _ in range(300):
        await trio.sleep(60)
        lease.current()
        assert lease.status().seconds_left > 10 * 60


@pytest.mark.parametrize("ahead_s", [-48 * HOUR_S, 48 * HOUR_S])
async def test_a_correction_is_given_up_when_the_clock_is_set_right(
    autojump_clock, nursery, lease, wall, ahead_s
):
    """New sets that seem to be over would be asked for, and never used, ever after."""
    wall.ahead_s = ahead_s
    await nursery.start(lease.keep_fresh)
    lease.clock_offset_s = -ahead_s
    await trio.sleep(100)
    wall.ahead_s = 0
    await lease.valid()
    if ahead_s > 0:
        lease.clock_offset_s = 0.0  # as the store does when it sees requests refused
    assert 10 * 60 < lease.status().seconds_left <= HOUR_S
    assert lease.clock_offset_s == 0


async def test_a_set_that_was_over_when_it_came_is_not_used_once_the_clocks_are_compared(
    autojump_clock, nursery, lease, source
):
    source.lifetime_s = -60
    await nursery.start(lease.keep_fresh)
    lease.clock_offset_s = -1.0
    with pytest.raises(SessionExpired):
        lease.current()


@pytest.mark.parametrize(("lifetime_s", "fetches_max"), [(-60, 50), (0, 50), (0.001, 601)])
async def test_sets_that_end_when_they_come_do_not_make_it_busy(
    autojump_clock, nursery, lease, source, lifetime_s, fetches_max
):
    source.lifetime_s = lifetime_s
    await nursery.start(lease.keep_fresh)
    await trio.sleep(600)
    assert source.fetches <= fetches_max


async def test_a_source_that_repeats_one_set_is_asked_rarely(
    autojump_clock, nursery, lease, source
):
    source.always = source.issue()
    await nursery.start(lease.keep_fresh)
    await trio.sleep(HOUR_S - 1)
    assert lease.current() == source.always
    assert source.fetches < 20


# One fetch for all.


async def test_a_thousand_readers_cause_one_fetch(autojump_clock, nursery, lease, source, wall):
    source.takes_s = 1
    await nursery.start(lease.keep_fresh)
    wall.suspended_s = 2 * HOUR_S
    seen = set()

    async def read():
        seen.add((await lease.valid()).access_key_id)

    async with trio.open_nursery() as readers:
        for _ in range(1000):
            readers.start_soon(read)
    assert seen == {"ASIA2"}
    assert source.fetches == 2


async def test_a_reader_that_is_cancelled_does_not_cancel_the_fetch(
    autojump_clock, nursery, lease, source, wall
):
    source.takes_s = 5
    await nursery.start(lease.keep_fresh)
    wall.suspended_s = 2 * HOUR_S
    with trio.move_on_after(1) as impatient:
        await lease.valid()
    assert impatient.cancelled_caught
    assert (await lease.valid()).access_key_id == "ASIA2"
    assert source.fetches == 2


async def test_the_store_refusing_a_set_renews_it_once_for_all(
    autojump_clock, nursery, lease, source
):
    await nursery.start(lease.keep_fresh)
    refused = lease.current()
    renewed = []

    async def request():
        renewed.append(await lease.renew_after(refused))

    async with trio.open_nursery() as requests:
        for _ in range(100):
            requests.start_soon(request)
    assert {c.access_key_id for c in renewed} == {"ASIA2"}
    assert await lease.renew_after(refused) == lease.current()  # a latecomer
    assert source.fetches == 2


async def test_keys_without_expiry_are_renewed_when_refused(autojump_clock, nursery, lease, source):
    source.lifetime_s = None
    await nursery.start(lease.keep_fresh)
    begun_s = trio.current_time()
    assert (await lease.renew_after(lease.current())).access_key_id == "ASIA2"
    assert trio.current_time() - begun_s < CHECK_PERIOD_S, "at once, not at the next look"


async def test_a_store_that_refuses_everything_cannot_hurry_the_source(
    autojump_clock, nursery, lease, source
):
    await nursery.start(lease.keep_fresh)
    for _ in range(50):
        await lease.renew_after(lease.current())
    assert trio.current_time() >= 50 * ATTEMPT_GAP_S - 1


async def test_a_refused_set_that_comes_again_is_not_used_again(
    autojump_clock, nursery, lease, source
):
    source.always = source.issue()
    await nursery.start(lease.keep_fresh)
    error = await caught(lambda: lease.renew_after(source.always))
    assert isinstance(error, SessionExpired)
    assert "still hands out" in str(error)
    with pytest.raises(SessionExpired):
        lease.current()
    fetches = source.fetches
    for _ in range(100):
        await caught(lambda: lease.renew_after(source.always))
    assert source.fetches == fetches
    source.always = None
    await trio.sleep(31)
    lease.current()
