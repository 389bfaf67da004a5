"""The collector's longest pause comes when nobody reads."""

import gc

import pytest
import trio

from stsfs.daemon.garbage import BUSY_PERIODS_MAX, PERIOD_S, collect_when_idle


@pytest.fixture(autouse=True)
def _thresholds():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


async def test_the_oldest_generation_is_collected_when_no_request_came(
    nursery, autojump_clock, monkeypatch
):
    collected_at_s = []
    monkeypatch.setattr(gc, "collect", lambda: collected_at_s.append(trio.current_time()))
    requests = 0

    def count():
        nonlocal requests
        requests += trio.current_time() < 10 * PERIOD_S
        return requests

    began_s = trio.current_time()
    nursery.start_soon(collect_when_idle, count)
    await trio.sleep(12.5 * PERIOD_S)
    assert collected_at_s
    assert min(collected_at_s) - began_s >= 10 * PERIOD_S
    assert gc.get_threshold()[2] == 1_000_000


async def test_a_mount_that_is_never_idle_collects_now_and_then(
    nursery, autojump_clock, monkeypatch
):
    collected = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(1))
    counter = iter(range(10**6))
    nursery.start_soon(collect_when_idle, lambda: next(counter))
    await trio.sleep((2 * BUSY_PERIODS_MAX + 5) * PERIOD_S)
    assert len(collected) == 2
