"""The short form of `make soak`: everything at once, for some seconds."""

import pytest

from tests.soak.crews import KINDS
from tests.soak.soak import SHORT, Soak

pytestmark = [pytest.mark.mount, pytest.mark.long]


def test_mixed_readers_in_bad_weather_see_right_bytes_and_nothing_grows(
    stage, folder, host, tmp_path
):
    report = Soak(stage, folder, host, tmp_path / "cache", SHORT).run()
    assert report["problems"] == []
    assert report["outages_s"] > 0
    assert report["replacements"] > 0
    assert set(report["attempts"]) >= {kind for kinds in KINDS for kind in kinds}
    assert host.records() == []
    assert report["writing"]["kills"] > 0
    assert set(report["writing"]["operations"]) > {"cp", "fsync", "save", "log", "delete"}
