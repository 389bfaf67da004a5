"""A Synapse folder in memory and mounts of it, without a kernel."""

import pytest

from tests.entities_fakes import FakeApi, Shown, wall_clock
from tests.fakes import MemoryStore


@pytest.fixture
def clock(autojump_clock, monkeypatch):
    wall_clock(monkeypatch, autojump_clock)
    return autojump_clock


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def api(store):
    return FakeApi(store)


@pytest.fixture
def root(api):
    return api.root_id


@pytest.fixture
async def mount(api, store, nursery):
    """Makes mounts; the background is held, so that every request is one that was waited for."""

    async def make(**options):
        made = Shown(api, store, **options)
        await nursery.start(made.cache.run)
        return made

    return make
