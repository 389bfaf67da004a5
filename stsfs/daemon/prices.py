"""What a mount's requests and bytes cost, by a table of prices."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stsfs.errors import BadArgument
from stsfs.store.counters import KindCount
from stsfs.values import SHOWN_CHARS_MAX

GB_BYTES = 1 << 30
"""S3 bills in units of 2**30 bytes, and calls them GB."""

_FILE_BYTES_MAX = 64 * 1024
_WORDS = ("source", "date", "region", "currency")
_REQUESTS = ("get", "list")
_TRANSFERS = ("within_region", "other_region", "internet")

_BILLED_AS = {
    "get": "get", "confirm": "get", "traits": "get",
    "list": "list", "put": "list", "begin": "list", "part": "list", "part_copy": "list",
    "complete": "list", "copy": "list",
}  # fmt: skip
"""Which price of S3 is that of each kind that the store counts: what changes costs as a LIST.

What only ends something (`delete`, `abort`) is free.
"""


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices of one region, in one currency."""

    source: str
    date: str
    region: str
    currency: str
    per_1000_requests: Mapping[str, float]
    """For `get` and `list`."""

    per_gb_out: Mapping[str, float]
    """For bytes that stay `within_region`, go to an `other_region`, or to the `internet`."""


@cache
def own_prices() -> PriceTable:
    """The table that comes with the program."""
    return read_prices(Path(__file__).with_name("prices.json"))


def read_prices(path: Path) -> PriceTable:
    """The table in a JSON file of the form of prices.json. Raises BadArgument."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_FILE_BYTES_MAX))
    except OSError as exc:
        raise BadArgument(f"The prices in {path} cannot be read: {exc.strerror}.") from exc
    except (ValueError, RecursionError) as exc:  # not UTF-8, too
        raise _wrong(path, "it is not JSON") from exc
    if not isinstance(found, dict):
        raise _wrong(path, "it is not a JSON object")
    for name in _WORDS:
        if not isinstance(found.get(name), str) or not found[name].strip():
            raise _wrong(path, f"{name} is not a text")
        if len(found[name]) > SHOWN_CHARS_MAX:
            raise _wrong(path, f"{name} has more than {SHOWN_CHARS_MAX} characters")
    source, date, region, currency = (str(found[name]) for name in _WORDS)
    return PriceTable(
        source,
        date,
        region,
        currency,
        per_1000_requests=_numbers(path, found, "per_1000_requests", _REQUESTS),
        per_gb_out=_numbers(path, found, "per_gb_out", _TRANSFERS),
    )


def cost(counts: Mapping[str, KindCount], table: PriceTable) -> dict[str, object]:
    """Cost of all requests so far, and what their bytes cost by where the reader is.

    Whether this machine is in the bucket's region is not known here, so all three prices of the
    bytes are given. Requests that S3 does not bill, because it failed, are counted in. Amounts
    are rounded to a millionth.
    """
    requests = dict.fromkeys(_REQUESTS, 0.0)
    for kind, count in counts.items():
        billed_as = _BILLED_AS.get(kind)
        if billed_as is None:
            continue
        requests[billed_as] += count.requests * table.per_1000_requests[billed_as] / 1000
    received_gb = sum(count.received_bytes for count in counts.values()) / GB_BYTES
    return {
        "currency": table.currency,
        "requests": round(sum(requests.values()), 6),
        "requests_by_kind": {name: round(amount, 6) for name, amount in requests.items()},
        "transfer": {
            name: round(received_gb * price, 6) for name, price in table.per_gb_out.items()
        },
        "prices": {"region": table.region, "date": table.date, "source": table.source},
    }


def _numbers(
    path: Path, found: Mapping[str, Any], group: str, names: tuple[str, ...]
) -> dict[str, float]:
    given = found.get(group)
    prices = {}
    for name in names:
        price = given.get(name) if isinstance(given, dict) else None
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < 1e9:
            raise _wrong(path, f"{group}.{name} is not a number of at least 0")
        prices[name] = float(price)
    return prices


def _wrong(path: Path, why: str) -> BadArgument:
    return BadArgument(
        f"{path} is not a table of prices: {why}.", remedy="The README shows such a table."
    )
