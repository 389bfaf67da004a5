"""A bug in a background task ends what it worked on, and nothing else."""

import pytest
import trio

from stsfs import supervisor
from stsfs.supervisor import TaskPool, contained, kept_running


async def fail(text="wrong"):
    raise KeyError(text)


async def test_a_bug_ends_its_own_task_and_is_told_to_its_owner(nursery, bugs, caplog):
    pool, told = TaskPool("uploads"), []
    await nursery.start(pool.run)
    pool.start("of a.bam", fail, on_bug=told.append)
    await trio.testing.wait_all_tasks_blocked()
    other = trio.Event()

    async def goes_on():
        other.set()

    pool.start("of b.bam", goes_on)
    await other.wait()
    assert [type(each) for each in told] == [KeyError]
    assert bugs.count == 1
    assert bugs.latest[0].task == "uploads: of a.bam"
    assert "Traceback" in caplog.text


async def test_an_owner_that_fails_as_well_ends_nothing(nursery, bugs):
    pool = TaskPool("uploads")
    await nursery.start(pool.run)

    def fails_too(_):
        raise ValueError("second")

    pool.start("of a.bam", fail, on_bug=fails_too)
    await trio.testing.wait_all_tasks_blocked()
    assert pool.is_running
    assert bugs.count == 2


async def test_cancellation_passes_through(bugs):
    with trio.CancelScope() as scope:
        scope.cancel()
        await contained("sleeping", trio.sleep_forever)
    assert scope.cancelled_caught
    assert bugs.count == 0


async def test_a_bug_beside_a_cancelled_task_is_noted(bugs):
    async def both():
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            inner.start_soon(fail)

    assert not await contained("both", both)
    assert bugs.count == 1


async def test_a_task_that_must_go_on_is_started_again(autojump_clock, bugs):
    calls = []

    async def sometimes():
        calls.append(trio.current_time())
        if len(calls) < 3:
            await fail()

    await kept_running("sometimes", sometimes)
    assert len(calls) == 3
    assert bugs.count == 2


async def pauses(runs_s):
    """How long kept_running waits after each run that ends with a bug after so many seconds."""
    waited, ended_s, rest = [], None, iter(runs_s)

    async def call():
        nonlocal ended_s
        if ended_s is not None:
            waited.append(trio.current_time() - ended_s)
        run_s = next(rest, None)
        if run_s is not None:
            await trio.sleep(run_s)
            ended_s = trio.current_time()
            await fail()

    await kept_running("failing", call)
    return waited


async def test_the_pause_before_a_new_start_grows_up_to_a_minute(autojump_clock, bugs):
    assert await pauses([0] * 9) == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])


async def test_the_pause_is_short_again_after_a_minute_without_a_bug(autojump_clock, bugs):
    assert await pauses([0, 0, 59, 0, 60, 0]) == pytest.approx([1, 2, 4, 8, 1, 2])


def noted(bugs, caplog, task="one", text="wrong"):
    """Whether the bug was logged with its traceback; it is logged in any case."""
    caplog.clear()
    try:
        raise KeyError(text)
    except KeyError as exc:
        bugs.note(task, exc)
    (record,) = caplog.records
    assert record.levelname == "CRITICAL"
    assert task in record.getMessage()
    return record.exc_info is not None


def test_the_traceback_of_a_bug_that_repeats_is_logged_once_per_doubling(bugs, caplog):
    shown = [number for number in range(1, 40) if noted(bugs, caplog, text=str(number))]
    assert shown == [1, 2, 4, 8, 16, 32]
    assert "39 times" in caplog.text
    assert bugs.count == 39


def test_another_bug_between_is_logged_with_its_own_traceback(bugs, caplog):
    assert [noted(bugs, caplog) for _ in range(3)] == [True, True, False]
    assert noted(bugs, caplog, task="another")
    try:
        {}["elsewhere"]
    except KeyError as exc:
        caplog.clear()
        bugs.note("one", exc)
    assert "Traceback" in caplog.text
    assert noted(bugs, caplog)  # the fourth time


def test_few_kinds_of_bugs_are_counted(bugs, caplog, monkeypatch):
    monkeypatch.setattr(supervisor, "KINDS_MAX", 3)
    for number in range(100):
        assert noted(bugs, caplog, task=f"file {number}")
    assert len(bugs._repeats) == 3
