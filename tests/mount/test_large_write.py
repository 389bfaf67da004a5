"""The short form of `python -m tests.soak.large_write`."""

import pytest

from tests.bench.scale import MIB
from tests.soak.large_write import plan_of, write_and_read

pytestmark = pytest.mark.mount

SIZE_BYTES = 300 * MIB
LIFETIME_S = 3
RENEWALS = 2


def test_a_file_larger_than_any_memory_of_ours_is_written_while_sessions_end(stage, folder, host):
    report = write_and_read(stage, folder, host, plan_of(SIZE_BYTES, LIFETIME_S, RENEWALS))
    assert report["problems"] == []
    assert report["writing"]["sessions"] > RENEWALS
    assert report["writing"]["requests"]["PART"] >= SIZE_BYTES // (8 * MIB)
    assert host.records() == []
