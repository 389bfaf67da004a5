"""Whatever several players, mounts, outages and kills do: the judge's books find nothing.

What they find and is known is in `campaign.found`; STSFS_HISTORIES says how many are played.
"""

import os

import pytest

from tests.model.campaign import found
from tests.model.campaign.history import KINDS, made
from tests.model.campaign.shrinking import repeat_line, shrunk
from tests.model.campaign.world import play

pytestmark = pytest.mark.long
HISTORIES = int(os.environ.get("STSFS_HISTORIES", "1000")) // 8


@pytest.mark.parametrize("kind", KINDS)
def test_no_history_of_a_kind_is_held_against_the_program(kind):
    for seed in range(HISTORIES):
        history = made(kind, seed)
        for violation in play(kind, seed, history).violations:
            if violation.what not in found.TOLERATED[kind]:
                small, violation = shrunk(kind, seed, history, violation.what)
                pytest.fail(f"{violation}\n{repeat_line(kind, seed, small)}")


@pytest.mark.parametrize("each", found.REPAIRED, ids=lambda each: f"{each.kind}-{each.seed}")
def test_what_was_found_once_is_repaired(each):
    assert found.violations(each) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_says_all_that_happens(kind):
    """With another one, something else happens, if not in each history."""
    differing = 0
    for seed in range(3):
        history = made(kind, seed)
        first, second = play(kind, seed, history), play(kind, seed, history)
        assert (first.turns, first.changes) == (second.turns, second.changes)
        differing += first.turns != play(kind, seed + 1, history).turns
    assert differing
