"""A bug in a background task ends what it worked on, and nothing else."""

import trio

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
