"""Requests and bytes by kind become an amount of money, by a table anyone can replace."""

import json
import re

import pytest

from stsfs.cli.cost_view import cost_rows
from stsfs.daemon import prices
from stsfs.daemon.prices import GB_BYTES, cost, own_prices, read_prices
from stsfs.errors import BadArgument
from stsfs.store.counters import KindCount

COUNTS = {
    "get": KindCount(requests=20_000, received_bytes=9 * GB_BYTES),
    "confirm": KindCount(requests=5_000),
    "list": KindCount(requests=1_000, received_bytes=GB_BYTES),
}


def test_the_table_that_comes_with_the_program_is_whole_and_says_where_it_is_from():
    table = own_prices()
    assert (table.region, table.currency) == ("us-east-1", "USD")
    assert re.fullmatch(r"\d{4}-\d{2}", table.date)
    assert "S3 Standard" in table.source


def test_requests_are_priced_by_kind_and_bytes_by_where_they_may_have_gone():
    found = cost(COUNTS, own_prices())
    assert found["requests_by_kind"] == {"get": 0.01, "list": 0.005}
    assert found["requests"] == 0.015
    assert found["transfer"] == {"within_region": 0.0, "other_region": 0.2, "internet": 0.9}
    assert found["currency"] == "USD"


def test_a_mount_that_asked_nothing_costs_nothing():
    found = cost({}, own_prices())
    assert found["requests"] == 0
    assert set(found["transfer"].values()) == {0}
    assert "0.00 USD (GET 0.00, LIST 0.00)" in cost_rows(found, "us-east-1")["requests"]


def test_status_reads_like_a_bill():
    rows = cost_rows(cost(COUNTS, own_prices()), "us-east-1")
    assert rows == {
        "requests": "0.0150 USD (GET 0.0100, LIST 0.0050)",
        "transfer": "0.00 USD to a machine in us-east-1, 0.20 to another region, "
        "0.90 to the internet",
        "prices": f"us-east-1, {own_prices().date}: {own_prices().source}",
    }


def test_status_says_when_the_prices_are_those_of_another_region():
    rows = cost_rows(cost(COUNTS, own_prices()), "eu-west-1")
    assert "a machine in eu-west-1" in rows["transfer"]
    assert "the bucket is in eu-west-1" in rows["but"]


def own_text():
    return prices.Path(prices.__file__).with_name("prices.json").read_text()


def test_a_table_can_be_replaced(tmp_path):
    other = json.loads(own_text()) | {"currency": "EUR", "region": "eu-west-1"}
    other["per_gb_out"]["internet"] = 1
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(other))
    found = cost(COUNTS, read_prices(path))
    assert (found["currency"], found["transfer"]["internet"]) == ("EUR", 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: "{", "not JSON"),
        (lambda table: "[1]", "not a JSON object"),
        (lambda table: table | {"date": 2025}, "date is not a text"),
        (lambda table: table | {"source": " "}, "source is not a text"),
        (lambda table: table | {"per_gb_out": 0.09}, "per_gb_out.within_region is not a number"),
        (lambda table: table | {"per_1000_requests": {"get": 1}}, "per_1000_requests.list"),
        (
            lambda table: table | {"per_1000_requests": {"get": -1, "list": 1}},
            "per_1000_requests.get is not a number of at least 0",
        ),
        (
            lambda table: table | {"per_1000_requests": {"get": float("nan"), "list": 1}},
            "per_1000_requests.get",
        ),
        (
            lambda table: table | {"per_1000_requests": {"get": True, "list": 1}},
            "per_1000_requests.get",
        ),
    ],
)
def test_a_table_that_cannot_be_right_is_refused_in_one_line(tmp_path, change, words):
    path = tmp_path / "prices.json"
    changed = change(json.loads(own_text()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(BadArgument) as raised:
        read_prices(path)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_table_that_is_missing_or_not_text_is_refused(tmp_path):
    with pytest.raises(BadArgument, match="No such file"):
        read_prices(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadArgument, match="not JSON"):
        read_prices(tmp_path / "binary")
