"""What was found out about a server is remembered for a week, by location."""

import json

import pytest

from stsfs.daemon import known_servers, runtime_dir
from stsfs.store.capabilities import Condition, ServerCapabilities, Verdict

HERE = ("s3://lab/base/", "https://s3.example.org")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime_dir, "known_servers", lambda: tmp_path / "servers")
    return tmp_path / "servers"


def found():
    made = ServerCapabilities(acl="", conditions=False)
    for condition in Condition:
        made.found(condition, Verdict.HONOURED)
    made.found(Condition.DELETE_IF_MATCH, Verdict.IGNORED)
    return made


def recalled(uri=HERE[0], endpoint_url=HERE[1]):
    made = ServerCapabilities(acl="", conditions=False)
    return made if known_servers.recall(made, uri, endpoint_url) else None


def test_what_was_found_out_holds_for_this_location_at_this_endpoint_only():
    assert recalled() is None
    known_servers.remember(found(), *HERE)
    assert recalled().verdicts == found().verdicts
    assert recalled().found_by == "memory"
    assert recalled("s3://lab/other/") is None
    assert recalled(endpoint_url=None) is None


@pytest.mark.parametrize("age_s", [-100, known_servers.KEPT_S + 1])
def test_after_a_week_and_with_a_clock_that_was_wrong_it_is_asked_again(folder, age_s):
    known_servers.remember(found(), *HERE)
    (path,) = folder.iterdir()
    values = json.loads(path.read_text())
    values["found_at_unix_s"] -= age_s
    path.write_text(json.dumps(values))
    assert recalled() is None


@pytest.mark.parametrize("text", [
    "", "[]", "null", "{}", "{", '"text"', "\ud800".encode("utf-8", "surrogatepass"), "[" * 100_000,
    '{"format": 1, "uri": "s3://lab/base/", "endpoint_url": "https://s3.example.org", '
    '"found_at_unix_s": 1e999, "conditions": {}}',
])  # fmt: skip
def test_a_file_that_makes_no_sense_is_as_good_as_none(folder, text):
    known_servers.remember(found(), *HERE)
    (path,) = folder.iterdir()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert recalled() is None


def test_a_disk_that_takes_nothing_is_no_error(folder):
    folder.write_text("in the way")
    known_servers.remember(found(), *HERE)
    assert recalled() is None
