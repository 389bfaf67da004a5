"""A daemon's status, arranged for people. What is missing in the answer is left out."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from stsfs.cli.tables import fields, grid, printable
from stsfs.daemon.config import format_size


def sections(answer: dict[str, Any]) -> Iterator[RenderableType]:
    """Mount, credentials, requests, cache and errors, in that order."""
    yield _mount(answer)
    if credentials := answer.get("credentials"):
        yield _titled("Credentials", fields(_credentials(credentials)))
    if requests := answer.get("requests"):
        yield _titled("Requests", _requests(requests))
    if cache := answer.get("cache"):
        yield _titled("Cache", fields(_cache(cache)))
    if last := answer.get("errors"):
        yield _titled("Last errors", _errors(last))


def format_duration(seconds: float) -> str:
    """`1:02:03`, with days where there are any; never negative."""
    return str(timedelta(seconds=max(0, round(seconds))))


def _titled(title: str, body: RenderableType) -> Group:
    return Group(Text(title, style="bold underline"), body)


def _mount(answer: dict[str, Any]) -> RenderableType:
    rows = {
        name: str(answer[key])
        for name, key in (
            ("location", "location"),
            ("bucket", "uri"),
            ("mount", "mount_path"),
            ("mode", "mode"),
            ("pid", "pid"),
        )
        if answer.get(key) is not None
    }
    if "uptime_s" in answer:
        rows["uptime"] = format_duration(answer["uptime_s"])
    if hidden := (answer.get("hidden") or {}).get("count"):
        rows["hidden keys"] = f"{hidden} that cannot be file names"
    tuning = answer.get("tuning") or {}
    if tuning.get("read_ahead_kib") is not None:
        rows["read-ahead"] = f"{tuning['read_ahead_kib']} KiB"
    if tuning.get("max_background") is not None:
        rows["max background"] = str(tuning["max_background"])
    if tuning.get("could_not"):
        rows["could not"] = "; ".join(map(str, tuning["could_not"]))
    return fields(rows)


def _credentials(credentials: dict[str, Any]) -> dict[str, str]:
    rows = {"source": str(credentials.get("source", "?"))}
    left_s = credentials.get("seconds_left")
    if left_s is None:
        rows["valid for"] = "no end"
    else:
        rows["valid for"] = format_duration(left_s) if left_s > 0 else "over"
    rows["renewals"] = str(credentials.get("renewals", 0))
    if credentials.get("failures"):
        rows["failures"] = str(credentials["failures"])
    if credentials.get("last_error"):
        rows["last error"] = str(credentials["last_error"])
    return rows


def _requests(requests: dict[str, Any]) -> RenderableType:
    table = grid("kind", "count", "bytes")
    table.columns[1].justify = table.columns[2].justify = "right"
    for kind, numbers in requests.items():
        received_bytes = numbers.get("bytes")
        table.add_row(
            kind,
            str(numbers.get("count", 0)),
            format_size(received_bytes) if received_bytes is not None else "",
        )
    return table


def _cache(cache: dict[str, Any]) -> dict[str, str]:
    used_bytes, budget_bytes = cache.get("used_bytes", 0), cache.get("budget_bytes", 0)
    rows = {"used": f"{format_size(used_bytes)} of {format_size(budget_bytes)}"}
    for name, count, size in (
        ("hits", "hits", "hit_bytes"),
        ("misses", "misses", "miss_bytes"),
    ):
        rows[name] = f"{cache.get(count, 0)} ({format_size(cache.get(size, 0))})"
    return rows


def _errors(last: list[dict[str, Any]]) -> RenderableType:
    table = grid("when", "errno", "path", "why")
    for error in last:
        why = " ".join(str(error[key]) for key in ("sentence", "remedy") if error.get(key))
        table.add_row(
            _when(error.get("when")),
            str(error.get("errno", "")),
            printable(str(error.get("path", ""))),
            printable(why),
        )
    return table


def _when(when: float | str | None) -> str:
    if isinstance(when, int | float):
        return datetime.fromtimestamp(when, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return str(when or "")
