import contextlib
import itertools
import logging
import math

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from stsfs.credentials.lease import CredentialLease
from stsfs.errors import (
    AccessDenied,
    AnswerNotUnderstood,
    SessionExpired,
    SynapseUnavailable,
    TokenRejected,
)
from stsfs.supervisor import BUGS
from tests.lease_fakes import EPOCH_UNIX_S, HOUR_S, Source, Wall, caught


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture
def source(wall):
    return Source(wall)


@pytest.fixture
def lease(source, wall):
    return CredentialLease(source, now_unix_s=wall)


# When renewal fails.


async def test_while_synapse_is_down_the_running_set_is_used_to_its_end_and_no_longer(
    autojump_clock, nursery, lease, source
):
    await nursery.start(lease.keep_fresh)
    first = lease.current()
    source.failure = SynapseUnavailable("Synapse is down for maintenance.", remedy="Wait.")
    await trio.sleep(HOUR_S - 0.001)
    assert lease.current() == first
    await trio.sleep(0.002)
    with pytest.raises(SessionExpired) as raised:
        lease.current()
    assert "are over, and new ones cannot be had" in raised.value.sentence
    assert "down for maintenance" in raised.value.sentence
    assert raised.value.remedy == "Wait."
    assert lease.status().last_error == "Synapse is down for maintenance. Wait."

    source.failure = None
    await trio.sleep(31)
    assert lease.current() != first
    assert lease.status().last_error == ""


async def test_credentials_that_are_not_understood_end_the_session_as_no_answer_does(
    autojump_clock, nursery, lease, source
):
    await nursery.start(lease.keep_fresh)
    source.failure = AnswerNotUnderstood("It does not come from Synapse.")
    await trio.sleep(HOUR_S + 60)
    with pytest.raises(SessionExpired, match="does not come from Synapse"):
        lease.current()


@pytest.mark.parametrize("reason", [TokenRejected("revoked"), AccessDenied("moved")])
async def test_refusals_keep_their_class_when_the_set_is_over(
    autojump_clock, nursery, lease, source, reason
):
    await nursery.start(lease.keep_fresh)
    source.failure = reason
    await trio.sleep(HOUR_S + 60)
    with pytest.raises(type(reason), match=reason.sentence) as raised:
        lease.current()
    assert raised.value is not reason  # raised by many, so its traceback would grow for ever
    assert type(await caught(lease.valid)) is type(reason)


async def test_readers_do_not_hammer_a_source_that_fails(autojump_clock, nursery, lease, source):
    await nursery.start(lease.keep_fresh)
    source.failure = TokenRejected("revoked")
    await trio.sleep(HOUR_S + 1)
    fetches = source.fetches

    async def read():
        with trio.move_on_after(60):
            while True:
                await caught(lease.valid)
                await trio.sleep(0.1)

    async with trio.open_nursery() as readers:
        for _ in range(20):
            readers.start_soon(read)
    assert source.fetches - fetches <= 6


async def test_retries_grow_from_a_second_to_half_a_minute(autojump_clock, nursery, lease, source):
    await nursery.start(lease.keep_fresh)
    source.failure = SynapseUnavailable("down")
    await trio.sleep(HOUR_S)
    attempts_s = source.fetched_at_s[1:]
    gaps_s = [b - a for a, b in itertools.pairwise(attempts_s)]
    assert 1 <= gaps_s[0] <= 2
    assert all(15 <= gap_s <= 31 for gap_s in gaps_s[6:])

    source.failure = None
    await trio.sleep(60)
    fetches = source.fetches
    source.failure = SynapseUnavailable("down again")
    await trio.sleep(HOUR_S)
    first_s, second_s = source.fetched_at_s[fetches : fetches + 2]
    assert second_s - first_s <= 2


async def test_a_reader_hears_the_known_reason_while_a_slow_attempt_is_under_way(
    autojump_clock, nursery, lease, source
):
    await nursery.start(lease.keep_fresh)
    source.failure, source.takes_s = SynapseUnavailable("down"), 40
    await trio.sleep(HOUR_S + 60)
    for _ in range(20):
        with trio.fail_after(6):
            assert isinstance(await caught(lease.valid), SessionExpired)
        await trio.sleep(3)


async def test_a_source_that_never_answers_counts_as_failed(autojump_clock, nursery, lease, source):
    await nursery.start(lease.keep_fresh)
    source.takes_s = math.inf
    await trio.sleep(2 * HOUR_S)
    assert lease.status().failures > 40
    assert "within 60 s" in str(await caught(lease.valid))


async def test_a_bug_in_a_source_does_not_end_the_lease(
    autojump_clock, nursery, lease, source, caplog
):
    await nursery.start(lease.keep_fresh)
    source.failure = KeyError("bug")
    await trio.sleep(HOUR_S + 60)
    assert isinstance(await caught(lease.valid), SessionExpired)
    assert any(r.levelno == logging.CRITICAL and r.exc_info for r in caplog.records)
    source.failure = None
    await trio.sleep(31)
    lease.current()


async def test_a_bug_of_the_lease_itself_does_not_end_it(
    autojump_clock, nursery, lease, source, monkeypatch
):
    def broken():
        monkeypatch.undo()
        raise KeyError("bug")

    before = BUGS.count
    monkeypatch.setattr(lease, "_due_in_s", broken)
    await nursery.start(lease.keep_fresh)
    await trio.sleep(2 * HOUR_S)
    assert BUGS.count == before + 1
    assert lease.status().renewals > 1
    lease.current()


async def test_an_outage_is_logged_once(autojump_clock, nursery, lease, source, caplog):
    await nursery.start(lease.keep_fresh)
    source.failure = SynapseUnavailable("down")
    await trio.sleep(10 * HOUR_S)
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


async def test_waiting_ends_when_the_lease_ends(autojump_clock, lease, source, wall):
    errors = []

    async def read():
        errors.append(await caught(lease.valid))

    async with trio.open_nursery() as readers, trio.open_nursery() as owner:
        await owner.start(lease.keep_fresh)
        wall.suspended_s = 2 * HOUR_S
        source.takes_s = math.inf
        readers.start_soon(read)
        await trio.sleep(10)
        owner.cancel_scope.cancel()
    assert isinstance(errors[0], SessionExpired)
    assert "nobody renews" in str(errors[0])


async def test_before_the_first_set_there_is_a_reason_too(autojump_clock, lease):
    with pytest.raises(SessionExpired, match="test source"):
        lease.current()


async def test_status_counts_and_tells_no_secret(autojump_clock, nursery, lease, source, wall):
    await nursery.start(lease.keep_fresh)
    source.failure = SynapseUnavailable("down")
    await trio.sleep(HOUR_S)
    status = lease.status()
    assert (status.source, status.renewals) == ("test source", 1)
    assert status.failures == source.fetches - 1
    assert status.last_renewal_unix_s == EPOCH_UNIX_S
    assert status.seconds_left <= 0
    assert "secret" not in repr(status) + repr(lease.__dict__)


# Any history.

events = st.one_of(
    st.tuples(st.just("pass"), st.floats(0.01, 5000)),
    st.tuples(st.just("suspend"), st.floats(1, 100_000)),
    st.tuples(st.just("lifetime"), st.sampled_from([-5.0, 0.5, 20.0, HOUR_S, 12 * HOUR_S, None])),
    st.tuples(
        st.just("fail"), st.sampled_from([None, TokenRejected("no"), SynapseUnavailable("")])
    ),
    st.tuples(st.just("refuse"), st.none()),
    st.tuples(st.just("read"), st.none()),
)


@given(history=st.lists(events, max_size=12), takes_s=st.sampled_from([0.0, 0.3, 90.0]))
@settings(deadline=None, max_examples=60)
def test_in_any_history_no_set_is_used_that_is_over_and_the_lease_recovers(history, takes_s):
    trio.run(live, history, takes_s, clock=trio.testing.MockClock(autojump_threshold=0))


async def live(history, takes_s):
    wall = Wall()
    source = Source(wall)
    lease = CredentialLease(source, now_unix_s=wall)
    refused = set()

    def check(credentials):
        ends_unix_s = credentials.expires_at_unix_s
        assert credentials not in refused
        assert ends_unix_s is None or ends_unix_s > wall() or credentials in source.born_over

    async with trio.open_nursery() as nursery:
        await nursery.start(lease.keep_fresh)
        source.takes_s = takes_s
        for event, value in history:
            match event:
                case "pass":
                    await trio.sleep(value)
                case "suspend":
                    wall.suspended_s += value
                case "lifetime":
                    source.lifetime_s = value
                case "fail":
                    source.failure = value
                case "refuse" if lease.status().in_force:
                    refused.add(lease.current())
                    with contextlib.suppress(TokenRejected, SessionExpired):
                        check(await lease.renew_after(lease.current()))
                case "read":
                    with contextlib.suppress(TokenRejected, SessionExpired):
                        check(await lease.valid())
            with contextlib.suppress(TokenRejected, SessionExpired):
                check(lease.current())
        source.failure, source.lifetime_s, source.takes_s = None, HOUR_S, 0.0
        await trio.sleep(200)
        check(lease.current())
        starts_s = source.fetched_at_s
        assert all(b - a >= 0.99 for a, b in itertools.pairwise(starts_s))
        nursery.cancel_scope.cancel()


async def test_a_failure_is_said_once_and_another_one_again(
    autojump_clock, nursery, lease, source, caplog
):
    await nursery.start(lease.keep_fresh)

    def said():
        return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]

    source.failure = SynapseUnavailable("Synapse is down for maintenance.")
    await trio.sleep(HOUR_S)
    (once,) = said()
    assert "down for maintenance" in once
    source.failure = SynapseUnavailable("Synapse cannot be reached.")
    await trio.sleep(HOUR_S)
    assert len(said()) == 2
    assert "cannot be reached" in said()[1]
    source.failure = None
    await trio.sleep(HOUR_S)
    source.failure = SynapseUnavailable("Synapse cannot be reached.")
    await trio.sleep(HOUR_S)
    assert len(said()) == 3, "it was over in between"
