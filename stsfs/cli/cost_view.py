"""What a mount costs, as `stsfs status` shows it."""

from typing import Any


def cost_rows(cost: dict[str, Any], bucket_region: str | None) -> dict[str, str]:
    """Requests, transfer by where the reader is, and whose prices these are."""
    currency, requests, transfer = cost["currency"], cost["requests_by_kind"], cost["transfer"]
    prices = cost["prices"]
    region = bucket_region or prices["region"]
    rows = {
        "requests": f"{_amount(cost['requests'])} {currency} "
        f"(GET {_amount(requests['get'])}, LIST {_amount(requests['list'])})",
        "transfer": f"{_amount(transfer['within_region'])} {currency} to a machine in {region}, "
        f"{_amount(transfer['other_region'])} to another region, "
        f"{_amount(transfer['internet'])} to the internet",
        "prices": f"{prices['region']}, {prices['date']}: {prices['source']}",
    }
    if region != prices["region"]:
        rows["but"] = f"the bucket is in {region}, where prices may differ; see --prices"
    return rows


def _amount(amount: float) -> str:
    """`0.00`, `0.0123`, `1.50`; as many digits as matter to somebody who pays."""
    if 0 < amount < 0.0001:
        return "under 0.0001"
    return f"{amount:.4f}" if 0 < amount < 0.1 else f"{amount:.2f}"
