"""What an error in one of pyfuse3's tasks ends: that request, and no other."""

import errno
import os

import pyfuse3
import pytest
import trio

from stsfs.fuse import workers as module
from stsfs.fuse.workers import CROWD, workers


class Kernel:
    """A session as pyfuse3 has one: its tasks wait for requests, read them and handle them."""

    def __init__(self):
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.failures = []
        """What reading raises, in turn, before it reads anything."""

        self.handle = self.answer
        self.answered, self.buffers = [], 0
        self.waiting, self.lock = 0, trio.Lock()

    def close(self):
        os.close(self.reading)
        os.close(self.writing)

    def ask(self, requests):
        os.write(self.writing, requests)

    async def answer(self, request):
        self.answered.append(request)

    async def main(self):
        """Like pyfuse3.main: what it knows as trio is not the module."""
        async with pyfuse3.trio.open_nursery() as nursery:
            nursery.start_soon(self.loop, nursery, name="worker")

    async def loop(self, nursery):
        """Like pyfuse3's loop: one task waits, and begins another one when nobody else does."""
        self.buffers += 1
        while True:
            self.waiting += 1
            try:
                async with self.lock:
                    await pyfuse3.trio.lowlevel.wait_readable(self.reading)
            except pyfuse3.trio.ClosedResourceError:
                return
            finally:
                self.waiting -= 1
            if not self.waiting:
                nursery.start_soon(self.loop, nursery, name="worker")
            if self.failures:
                raise self.failures.pop(0)
            await self.handle(os.read(self.reading, 1))


@pytest.fixture
def kernel():
    made = Kernel()
    yield made
    made.close()


async def until(condition):
    while not condition():
        await trio.testing.wait_all_tasks_blocked()


async def serve(kernel, *, task_status=trio.TASK_STATUS_IGNORED):
    with workers():
        task_status.started()
        await kernel.main()


async def test_pyfuse3_has_its_trio_back_afterwards():
    with workers():
        assert pyfuse3.trio is not trio
        assert pyfuse3.trio.ClosedResourceError is trio.ClosedResourceError
        assert pyfuse3.trio.lowlevel.notify_closing is trio.lowlevel.notify_closing
    assert pyfuse3.trio is trio


async def test_a_withdrawn_request_leaves_every_handler_and_reader_alone(kernel, nursery, bugs):
    go_on = trio.Event()

    async def handle(request):
        if request == b"1":
            await go_on.wait()
        await kernel.answer(request)

    kernel.handle = handle
    await nursery.start(serve, kernel)
    kernel.ask(b"1")
    await trio.testing.wait_all_tasks_blocked()
    kernel.failures = [OSError(errno.EAGAIN, "withdrawn"), BlockingIOError(errno.EAGAIN, "again")]
    kernel.ask(b"2")
    await until(lambda: kernel.answered)
    assert kernel.answered == [b"2"]
    go_on.set()
    await until(lambda: kernel.answered == [b"2", b"1"])
    assert bugs.count == 0
    nursery.cancel_scope.cancel()


async def test_a_bug_costs_one_request_and_is_counted(kernel, nursery, bugs, autojump_clock):
    async def handle(request):
        if request == b"1":
            raise KeyError("surprise")
        await kernel.answer(request)

    kernel.handle = handle
    await nursery.start(serve, kernel)
    kernel.ask(b"12")
    await until(lambda: kernel.answered)
    assert kernel.answered == [b"2"]
    assert bugs.count == 1
    assert "surprise" in bugs.latest[0].text
    nursery.cancel_scope.cancel()


async def test_a_machine_short_of_descriptors_is_asked_again(kernel, nursery, bugs, autojump_clock):
    kernel.failures = [OSError(errno.ENFILE, "full"), OSError(errno.ENOMEM, "full")]
    await nursery.start(serve, kernel)
    kernel.ask(b"1")
    await until(lambda: kernel.answered)
    assert bugs.count == 0
    nursery.cancel_scope.cancel()


async def test_a_broken_connection_ends_all_tasks(kernel):
    kernel.failures = [OSError(errno.ECONNABORTED, "given up")]
    kernel.ask(b"1")
    with pytest.raises(ExceptionGroup) as raised:
        await serve(kernel)
    assert raised.group_contains(OSError, match="given up")


async def test_who_waits_for_a_request_looks_again_before_it_is_read(kernel, nursery, monkeypatch):
    looks = []

    def is_readable(descriptor):
        looks.append(descriptor)
        return len(looks) > 1

    monkeypatch.setattr(module, "_is_readable", is_readable)
    await nursery.start(serve, kernel)
    kernel.ask(b"1")
    await until(lambda: kernel.answered)
    assert looks[:2] == [kernel.reading] * 2
    nursery.cancel_scope.cancel()


async def test_readable_is_what_can_be_read_and_what_is_gone(kernel):
    assert not module._is_readable(kernel.reading)
    kernel.ask(b"1")
    assert module._is_readable(kernel.reading)
    ours, theirs = os.pipe()
    os.close(theirs)
    assert module._is_readable(ours)
    os.close(ours)


async def test_in_a_crowd_every_request_gets_a_fresh_buffer(kernel, nursery):
    go_on = trio.Event()

    async def handle(request):
        if request == b"w":
            await go_on.wait()
        await kernel.answer(request)

    async def grown_by_quick_ones():
        before, answered = kernel.buffers, len(kernel.answered)
        for number in range(1, 6):
            kernel.ask(b"q")
            await until(lambda: len(kernel.answered) == answered + number)  # noqa: B023
            await trio.testing.wait_all_tasks_blocked()
        return kernel.buffers - before

    kernel.handle = handle
    await nursery.start(serve, kernel)
    assert await grown_by_quick_ones() <= 2  # who answers, and who waits meanwhile
    kernel.ask(b"w" * CROWD)
    await until(lambda: kernel.waiting and kernel.buffers > CROWD)
    assert await grown_by_quick_ones() >= 4
    nursery.cancel_scope.cancel()
