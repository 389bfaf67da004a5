"""A source of credentials and a wall clock, both under a test's control."""

import pytest
import trio

from stsfs.credentials.credentials import Credentials
from stsfs.errors import StsfsError

EPOCH_UNIX_S = 1_700_000_000.0
HOUR_S = 3600.0


class Wall:
    """This machine's wall clock, and true time, which goes on while trio's clock is suspended."""

    def __init__(self):
        self.suspended_s = 0.0
        self.ahead_s = 0.0

    def true_unix_s(self):
        return EPOCH_UNIX_S + trio.current_time() + self.suspended_s

    def __call__(self):
        return self.true_unix_s() + self.ahead_s


class Source:
    """Gives sets that live for `lifetime_s` of true time, or raises `failure`."""

    description = "test source"

    def __init__(self, wall):
        self.wall = wall
        self.lifetime_s, self.takes_s = HOUR_S, 0.0
        self.failure = None
        self.always = None
        self.fetched_at_s = []
        self.born_over = set()

    @property
    def fetches(self):
        return len(self.fetched_at_s)

    def issue(self):
        ends = None
        if self.lifetime_s is not None:
            ends = self.wall.true_unix_s() + self.lifetime_s
        return Credentials(f"ASIA{self.fetches}", "secret", "token", ends)

    async def fetch(self):
        self.fetched_at_s.append(trio.current_time())
        await trio.sleep(self.takes_s)
        if self.failure is not None:
            raise self.failure
        issued = self.always or self.issue()
        if self.lifetime_s is not None and self.lifetime_s <= 0:
            self.born_over.add(issued)
        return issued


async def caught(call):
    """The error that an async call raises."""
    with pytest.raises(StsfsError) as raised:
        await call()
    return raised.value
