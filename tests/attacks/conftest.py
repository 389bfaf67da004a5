"""A directory that two users of a machine can reach."""

import pytest

from tests.attacks.neighbour import shared_place


@pytest.fixture
def place():
    """Ours. Removed after whatever is mounted: name it before the fixtures that mount."""
    with shared_place(0o755) as made:
        yield made
