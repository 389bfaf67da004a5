"""What a mount has cost, in `stsfs status`."""

import json

import pytest

from stsfs.daemon import prices

pytestmark = pytest.mark.mount

OWN = prices.Path(prices.__file__).with_name("prices.json")


def test_requests_and_bytes_are_priced_by_the_table_of_the_option(mount, folder, tmp_path):
    data = folder.write("x", b"x" * 100_000)
    table = json.loads(OWN.read_text()) | {"currency": "EUR", "region": "eu-west-1"}
    table["per_1000_requests"] = {"get": 1000, "list": 500}
    (tmp_path / "prices.json").write_text(json.dumps(table))
    live = mount(folder.uri, "--prices", tmp_path / "prices.json")
    assert (live / "x").read_bytes() == data
    status = live.status()
    cost, count = status["cost"], {kind: n["count"] for kind, n in status["requests"].items()}
    assert count["get"] >= 1
    assert cost["requests_by_kind"]["get"] == 1.0 * (count["get"] + count.get("confirm", 0))
    assert cost["requests_by_kind"]["list"] == 0.5 * count["list"]
    assert cost["transfer"]["within_region"] == 0 < cost["transfer"]["internet"]
    shown = live.host.stsfs("status", live.path).stdout
    assert f"{cost['requests']:.2f} EUR (GET " in shown
    assert table["source"] in shown


def test_another_s3_than_amazons_has_no_price_unless_one_is_given(mount, folder):
    assert mount(folder.uri).status()["cost"] is None


def test_a_wrong_table_is_refused_in_a_sentence_before_anything_is_mounted(host, folder, tmp_path):
    (tmp_path / "prices.json").write_text("{}")
    done = host.try_mount(folder.uri, host.mount_point(), "--prices", tmp_path / "prices.json")
    assert done.returncode == 2
    sentence, remedy = done.stderr.splitlines()
    assert sentence.endswith("prices.json is not a table of prices: source is not a text.")
    assert "README" in remedy
