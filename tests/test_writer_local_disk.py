"""Where short work on the local disk is done."""

import threading

from stsfs.writer.local_disk import CAUTION_FIRST_S, QUICK_BYTES_MAX, SLOW_S, LocalDisk


class Scene:
    """A disk whose work takes as long as a test says."""

    def __init__(self):
        self.now_s = 1000.0
        self.waits = self.interruptions = 0
        self.disk = LocalDisk(lambda: self.now_s, lambda: (self.waits, self.interruptions))

    async def is_on_the_spot(self, size_bytes=1, *, takes_s=0.0, waits=0, interruptions=0):
        def work():
            self.now_s += takes_s
            self.waits += waits
            self.interruptions += interruptions
            return threading.current_thread() is threading.main_thread()

        return await self.disk.run(size_bytes, work)


async def test_short_work_is_done_on_the_spot_and_long_work_in_a_thread():
    scene = Scene()
    assert await scene.is_on_the_spot()
    assert await scene.is_on_the_spot(QUICK_BYTES_MAX)
    assert not await scene.is_on_the_spot(QUICK_BYTES_MAX + 1)


async def test_after_slow_work_nobody_waits_on_the_spot_for_a_while():
    scene = Scene()
    assert await scene.is_on_the_spot(takes_s=2 * SLOW_S)
    assert not await scene.is_on_the_spot()
    scene.now_s += CAUTION_FIRST_S
    assert await scene.is_on_the_spot()


async def test_a_disk_that_is_slow_again_and_again_is_tried_ever_more_rarely():
    scene = Scene()
    pauses = []
    for _ in range(4):
        await scene.is_on_the_spot(takes_s=2 * SLOW_S)
        begun_s = scene.now_s
        while not await scene.is_on_the_spot():
            scene.now_s += 0.5
        pauses.append(scene.now_s - begun_s)
    assert pauses == [CAUTION_FIRST_S * 2**number for number in range(4)]


async def test_a_slow_moment_long_ago_is_forgotten():
    scene = Scene()
    for _ in range(4):
        await scene.is_on_the_spot(takes_s=2 * SLOW_S)
        scene.now_s += 10_000
    await scene.is_on_the_spot(takes_s=2 * SLOW_S)
    scene.now_s += CAUTION_FIRST_S
    assert await scene.is_on_the_spot()


async def test_work_that_only_waits_for_a_processor_is_not_slow():
    scene = Scene()
    assert await scene.is_on_the_spot(takes_s=2 * SLOW_S, interruptions=1)
    assert await scene.is_on_the_spot(takes_s=2 * SLOW_S, interruptions=1, waits=1)
    assert not await scene.is_on_the_spot()
