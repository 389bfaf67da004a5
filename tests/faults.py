"""What happens to a request of a store in memory: by script, and when the test says so."""

from dataclasses import dataclass

import trio


class Hold:
    """Holds a request until the test lets it go."""

    def __init__(self):
        self._reached, self._free = trio.Event(), trio.Event()

    async def reached(self):
        """The request has come."""
        await self._reached.wait()

    def let_go(self):
        self._free.set()

    async def pass_by(self):
        self._reached.set()
        await self._free.wait()


@dataclass(frozen=True)
class Fault:
    """What happens to one request: a delay or a hold, then perhaps an error after so many bytes.

    happened is for changes: the change is made first, then come the delay, hold and error.
    """

    error: BaseException | None = None
    after_bytes: int = 0
    delay_s: float = 0.0
    happened: bool = False
    hold: Hold | None = None

    async def wait(self):
        await trio.sleep(self.delay_s)
        if self.hold is not None:
            await self.hold.pass_by()
