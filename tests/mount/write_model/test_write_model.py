"""Random histories through a real mount answer as in a local directory.

Where they may differ stands in `differences` and `oracle`. STSFS_HISTORIES says how many are
played; `python -m tests.mount.write_model KIND SEED 1` plays one again.
"""

import os

import pytest

from tests.mount.write_model.arena import Arena, Difference
from tests.mount.write_model.found import FOUND
from tests.mount.write_model.histories import make_history
from tests.mount.write_model.shrink import shrink

pytestmark = [pytest.mark.mount, pytest.mark.long]

HISTORIES = int(os.environ.get("STSFS_HISTORIES", "300"))
SHARES = {"local": 0.7, "faults": 0.1, "foreign": 0.17, "remounts": 0.02, "kills": 0.01}
"""Mounting takes longer than a whole history."""

CONFLICT = r"kept: see `stsfs recover`"
FIRST_SEEDS = 1_000_000


@pytest.fixture(scope="module")
def make_arena(servers, module_mount, tmp_path_factory):
    """A function that makes an arena, which ends by itself."""
    made = []

    def make(*, ttl_s=30):
        local = tmp_path_factory.mktemp("local")
        made.append(Arena(servers.folder(), module_mount, local, ttl_s=ttl_s).__enter__())
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


@pytest.fixture(scope="module")
def arena(make_arena):
    """One for all that needs no mount of its own."""
    return make_arena()


@pytest.fixture(scope="module")
def shared_arena(make_arena):
    """One in which changes of other clients show at once."""
    made = make_arena(ttl_s=0)
    made.live.allow_in_log(CONFLICT)
    return made


@pytest.mark.parametrize("history", FOUND.values(), ids=FOUND.keys())
def test_what_was_wrong_once_stays_right(arena, history):
    arena.play(history)


@pytest.mark.parametrize("kind", ["local", "faults", "remounts", "kills"])
def test_random_histories_answer_as_in_a_local_directory(arena, kind):
    play_many(arena, kind)


def test_random_histories_with_another_client_end_with_what_was_written_last(shared_arena):
    play_many(shared_arena, "foreign")


def play_many(arena, kind):
    """All of the suite's histories of one kind."""
    for seed in range(FIRST_SEEDS, FIRST_SEEDS + round(HISTORIES * SHARES[kind])):
        history = make_history(seed, kind)
        try:
            arena.play(history)
        except Difference as first:
            shorter, why = shrink(history, arena)
            lines = "\n".join(f"  {each}" for each in shorter)
            pytest.fail(f"{kind} {seed}: {first}\nshorter:\n{lines}\n{why}", pytrace=False)
