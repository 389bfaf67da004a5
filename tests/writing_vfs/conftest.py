"""A mount for writing, in this process: a store in memory, a staging directory, no kernel."""

import pytest

from tests.fakes import MemoryStore
from tests.writing_vfs.machine import Machine


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def machine(store, tmp_path):
    return Machine(store, tmp_path / "staging")


@pytest.fixture
async def mount(machine):
    async with machine.mounted() as made:
        yield made


@pytest.fixture
async def hosts(store, tmp_path):
    one, other = Machine(store, tmp_path / "a"), Machine(store, tmp_path / "b")
    async with one.mounted() as a, other.mounted() as b:
        yield a, b
