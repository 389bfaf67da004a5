"""The pace: never faster than the server allows, the foreground first, the window not wasted."""

import itertools
import random

import pytest
import trio
import trio.testing

from stsfs.store.shares import OWNER
from stsfs.synapse.pace import ABANDONED_S, WINDOW_S, Pace

SERVER_WINDOW_S = 60


class Server:
    """Sees requests as the real one: some time after their sending, until before their answer.

    Of one that is cancelled it notices nothing, and works on.
    """

    def __init__(self, pace, *, way_max_s=0.04, work_max_s=0.1):
        self.pace, self.random = pace, random.Random(1)
        self.way_max_s, self.work_max_s = way_max_s, work_max_s
        self.spans_s = []
        self.finished = {False: 0, True: 0}
        self.waits_s = []

    async def ask(self, *, background=False):
        began_s = trio.current_time()
        async with self.pace.request(background=background):
            sent_s = trio.current_time()
            arrives_s = sent_s + self.random.uniform(0, self.way_max_s)
            ends_s = arrives_s + self.random.uniform(0, self.work_max_s)
            self.spans_s.append((arrives_s, ends_s))
            await trio.sleep_until(ends_s + self.random.uniform(0, self.way_max_s))
        self.finished[background] += 1
        if not background:
            self.waits_s.append(sent_s - began_s)

    async def ask_for_ever(self, *, background):
        while True:
            await self.ask(background=background)

    def running_max(self):
        ends = [(end_s, -1) for _, end_s in self.spans_s]
        changes = sorted([(start_s, 1) for start_s, _ in self.spans_s] + ends)
        return max(itertools.accumulate(change for _, change in changes))

    def busiest_window(self):
        arrivals_s, start, most = sorted(each[0] for each in self.spans_s), 0, 0
        for end, arrival_s in enumerate(arrivals_s):
            while arrivals_s[start] <= arrival_s - SERVER_WINDOW_S:
                start += 1
            most = max(most, end - start + 1)
        return most


async def fill_for(server, duration_s, *, tasks=5, background=True):
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(
                lambda: server.ask_for_ever(background=background), name="asks for ever"
            )
        await trio.sleep(duration_s)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("background", [False, True])
async def test_full_speed_for_minutes_stays_within_the_limits(autojump_clock, background):
    server = Server(Pace(), way_max_s=0.01, work_max_s=0.01)
    await fill_for(server, 300, background=background)
    assert server.running_max() <= (2 if background else 3)
    assert server.busiest_window() <= (540 if background else 600)
    windows = 300 // WINDOW_S + 1
    assert server.finished[background] >= windows * (530 if background else 590)


async def ask_as(server, owner, count=1):
    """Requests of a user of the mount, all at once; how long the last one took."""
    OWNER.set(owner)
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(server.ask)
    return trio.current_time() - began_s


@pytest.mark.parametrize("asked_before", [0, 550])
async def test_who_asks_for_little_does_not_wait_for_one_who_asks_for_much(
    autojump_clock, nursery, asked_before
):
    """Neither for one of the places nor for a place in the window."""
    server = Server(Pace())
    await ask_as(server, 1, asked_before)
    nursery.start_soon(ask_as, server, 1, 2000)
    await trio.sleep(1)
    took_s = [await ask_as(server, 2) for _ in range(10)]
    assert max(took_s) < 2
    assert await ask_as(server, 3, 3) < 5
    assert len(server.spans_s) < asked_before + 1000  # they did wait
    nursery.cancel_scope.cancel()


async def test_a_foreground_beside_a_filling_index_waits_for_one_request_at_most(autojump_clock):
    server = Server(Pace())
    one_request_s = 2 * server.way_max_s + server.work_max_s

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill_for, server, 300)
        for _ in range(100):
            await trio.sleep(server.random.uniform(1, 4))
            await server.ask()
    assert len(server.waits_s) == 100
    assert max(server.waits_s) <= one_request_s
    assert server.running_max() <= 3
    assert server.busiest_window() <= 600
    assert server.finished[True] > 300 / WINDOW_S * 400


async def test_a_folder_looked_at_during_a_long_filling_takes_seconds_not_a_window(autojump_clock):
    server = Server(Pace(), way_max_s=0.01, work_max_s=0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill_for, server, 280)
        await trio.sleep(250)
        began_s = trio.current_time()
        async with trio.open_nursery() as asking:
            for _ in range(150):
                asking.start_soon(server.ask)
        assert trio.current_time() - began_s < 15
    assert server.busiest_window() <= 600


async def test_a_small_filling_is_done_at_once(autojump_clock):
    server = Server(Pace(), way_max_s=0, work_max_s=0.01)
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(lambda: server.ask(background=True))
    assert trio.current_time() - began_s < 5


async def test_the_background_takes_no_place_while_the_foreground_waits(autojump_clock):
    pace, order = Pace(concurrent_max=1), []

    async def ask(name, *, background):
        async with pace.request(background=background):
            order.append(name)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for name, background in (("first", True), ("second", True), ("asked", False)):
            nursery.start_soon(lambda n=name, b=background: ask(n, background=b))
            await trio.testing.wait_all_tasks_blocked()
    assert order == ["first", "asked", "second"]


async def test_those_of_one_class_are_admitted_in_their_order(autojump_clock):
    pace, order = Pace(concurrent_max=1), []

    async def ask(number):
        async with pace.request():
            order.append(number)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
    assert order == [0, 1, 2, 3, 4]


async def test_one_that_gives_up_waiting_is_in_nobodys_way(autojump_clock):
    pace = Pace(concurrent_max=1)
    async with pace.request():
        with trio.move_on_after(1) as given_up:
            async with pace.request():
                pytest.fail("there was no place")
    assert given_up.cancelled_caught
    with trio.fail_after(0.1):
        async with pace.request(background=True):
            pass


async def test_a_request_counts_until_a_window_after_its_answer(autojump_clock):
    pace = Pace(requests_max=1, window_s=60)
    async with pace.request():
        await trio.sleep(20)
    answered_s = trio.current_time()
    async with pace.request():
        assert trio.current_time() == pytest.approx(answered_s + 60)


async def test_the_place_of_a_cancelled_request_is_free_when_the_server_has_noticed(autojump_clock):
    pace = Pace(concurrent_max=1)
    with trio.move_on_after(1):
        async with pace.request():
            await trio.sleep_forever()
    cancelled_s = trio.current_time()
    async with pace.request():
        assert trio.current_time() == pytest.approx(cancelled_s + ABANDONED_S)


async def test_the_place_of_a_failed_request_is_free_at_once(autojump_clock):
    pace = Pace(concurrent_max=1)
    with pytest.raises(ConnectionError):
        async with pace.request():
            raise ConnectionError
    with trio.fail_after(0.1):
        async with pace.request():
            pass


async def test_requests_that_are_cancelled_overdraw_nothing(autojump_clock):
    server = Server(Pace(requests_max=30), work_max_s=0.4)

    async def ask_and_cancel():
        for number in itertools.count():
            with trio.move_on_after(server.random.uniform(0, 0.5)):
                await server.ask(background=number % 2 == 0)

    with trio.move_on_after(300):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask_and_cancel)
    assert len(server.spans_s) > sum(server.finished.values()) > 20
    assert server.busiest_window() <= 30
    assert server.running_max() == 3
