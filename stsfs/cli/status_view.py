"""A daemon's status, arranged for people. What is missing in the answer is left out."""

from collections.abc import Iterator
from typing import Any

from stsfs.cli.cost_view import cost_rows
from stsfs.cli.location_view import (
    credential_rows,
    entity_rows,
    format_duration,
    synapse_rows,
    view_rows,
    whole_place,
)
from stsfs.cli.path_view import format_when
from stsfs.cli.tables import Fields, Grid, Line, Part, Stack
from stsfs.daemon.config import format_size
from stsfs.errors import joined

BUGS_SHOWN = 5


def sections(answer: dict[str, Any]) -> Iterator[Part]:
    """Mount, locations, credentials, requests, cost, caches, open files and errors, in this order.

    Where there are several locations each has a section of its own, with its credentials.
    """
    places = answer.get("locations") or []
    yield _mount(answer, several=len(places) > 1)
    synapse = synapse_rows(answer.get("synapse_requests"))
    if len(places) > 1:
        for title, rows in map(whole_place, places):
            yield _titled(title, Fields(rows))
    elif places:
        synapse = entity_rows(places[0].get("entities")) | synapse
    if synapse:
        yield _titled("Synapse", Fields(synapse))
    if (credentials := answer.get("credentials")) and len(places) <= 1:
        yield _titled("Credentials", Fields(credential_rows(credentials)))
    if requests := answer.get("requests"):
        yield _titled("Requests", _requests(requests, answer.get("throttled", 0)))
    if cost := answer.get("cost"):
        yield _titled("Cost", Fields(cost_rows(cost, answer.get("region"))))
    if cache := answer.get("cache"):
        rows = _cache(cache) | _names(answer.get("names")) | _disk(answer.get("disk_cache"))
        yield _titled("Cache", Fields(rows))
    for title, server in _servers(answer.get("writing")):
        yield _titled(title, Fields(server_rows(server)))
    if (writing := answer.get("writing")) and writing["files"]:
        yield _titled("Not in S3 yet", _written(writing))
    if handles := answer.get("handles"):
        yield _titled("Open files", _handles(handles, answer.get("open_files", 0)))
    if (bugs := answer.get("bugs")) and bugs["count"]:
        yield _titled("Bugs of stsfs", _bugs(bugs))
    if last := answer.get("errors"):
        yield _titled("Last errors", _errors(last))


def hidden_entries(hidden: dict[str, Any]) -> Part:
    """The keys or entities that cannot be shown, and why; how many more there are."""
    if not hidden.get("count"):
        return Line("Nothing is hidden in the directories listed now.")
    table = Grid("hidden entry", "because")
    for each in hidden.get("keys", []):
        table.add_row(each["key"], each["reason"])
    if more := hidden.get("more"):
        return Stack(table, Line(f"and {more} more"))
    return table


def _titled(title: str, body: Part) -> Part:
    return Stack(Line(title, style="bold underline"), body)


def _mount(answer: dict[str, Any], *, several: bool) -> Part:
    rows = _told(answer, ("location", "location"))
    if not several:
        rows |= _told(answer, ("bucket", "uri")) | view_rows(answer)
    rows |= _told(
        answer,
        ("versions of", "as_of"),
        ("mount", "mount_path"),
        ("mode", "mode"),
        ("pid", "pid"),
    )
    if "uptime_s" in answer:
        rows["uptime"] = format_duration(answer["uptime_s"])
    if hidden := (answer.get("hidden") or {}).get("count"):
        rows["hidden entries"] = f"{hidden} that no path can show; see --hidden"
    tuning = answer.get("tuning") or {}
    if tuning.get("read_ahead_kib") is not None:
        rows["read-ahead"] = f"{tuning['read_ahead_kib']} KiB"
    if tuning.get("max_background") is not None:
        rows["max background"] = str(tuning["max_background"])
    if tuning.get("could_not"):
        rows["could not"] = "; ".join(map(str, tuning["could_not"]))
    return Fields(rows)


def _told(answer: dict[str, Any], *names: tuple[str, str]) -> dict[str, str]:
    """What there is of (name of the row, key in the answer)."""
    return {name: str(answer[key]) for name, key in names if answer.get(key) is not None}


def _requests(requests: dict[str, Any], throttled: int) -> Part:
    numbers = ("count", "received", "sent", "repeated", "failed")
    table = Grid("kind", *numbers, right=numbers)
    for kind, numbers in requests.items():
        table.add_row(
            kind,
            str(numbers.get("count", 0)),
            format_size(numbers.get("bytes", 0)),
            format_size(numbers.get("sent_bytes", 0)),
            str(numbers.get("retries", 0)),
            str(numbers.get("failures", 0)),
        )
    if not throttled:
        return table
    times = "once" if throttled == 1 else f"{throttled} times"
    return Stack(table, Line(f"S3 asked {times} to be asked less often."))


def _cache(cache: dict[str, Any]) -> dict[str, str]:
    used_bytes, budget_bytes = cache.get("used_bytes", 0), cache.get("budget_bytes", 0)
    reads = cache.get("hits", 0) + cache.get("misses", 0)
    rows = {"memory": f"{format_size(used_bytes)} of {format_size(budget_bytes)}"}
    if cache.get("shrunk_because"):
        full = format_size(cache.get("full_budget_bytes", 0))
        why = cache["shrunk_because"]
        rows["memory was cut"] = f"from {full}, because {why}; it will grow back"
    if reads:
        rows["memory hits"] = _share(
            cache.get("hit_bytes", 0), cache.get("miss_bytes", 0), f"in {reads} reads"
        )
    return rows


def _names(names: dict[str, Any] | None) -> dict[str, str]:
    """The memory of names, which comes out of the same budget."""
    if not names:
        return {}
    held, limit = format_size(names["held_bytes"]), format_size(names["limit_bytes"])
    return {"names": f"{held} of {limit} that they may have of the budget"}


def _disk(disk: dict[str, Any] | None) -> dict[str, str]:
    """The cache on disk: how full, what it gave of what memory lacked, and any trouble."""
    if not disk:
        return {}
    rows = {"disk": str(disk.get("directory", "?"))}
    if disk.get("stored_bytes") is not None and disk.get("limit_bytes"):
        rows["disk"] = (
            f"{format_size(disk['stored_bytes'])} of {format_size(disk['limit_bytes'])}"
            f" in {disk.get('directory', '?')}"
        )
    if disk.get("reason"):
        rows["disk trouble"] = f"{disk.get('state', 'off')}: {disk['reason']}"
    if disk.get("hit_bytes") or disk.get("miss_bytes"):
        rows["disk hits"] = _share(
            disk.get("hit_bytes", 0), disk.get("miss_bytes", 0), "that memory lacked"
        )
    return rows


def _share(hit_bytes: int, miss_bytes: int, of_what: str) -> str:
    """`93 % (1.2 GiB of 1.3 GiB in 40 reads)`."""
    whole_bytes = hit_bytes + miss_bytes
    percent = 100 * hit_bytes / max(1, whole_bytes)
    return f"{percent:.0f} % ({format_size(hit_bytes)} of {format_size(whole_bytes)} {of_what})"


def _handles(handles: list[dict[str, Any]], count: int) -> Part:
    """One line per stream; a file that is not read in sequence has one line of its own."""
    numbers = ("size", "at", "window", "fetched ahead")
    table = Grid("path", *numbers, right=numbers)
    for handle in handles:
        path, size = str(handle["path"]), format_size(handle["size_bytes"])
        streams = [stream for stream in handle["streams"] if stream["window_bytes"]]
        for stream in streams:
            table.add_row(
                path,
                size,
                format_size(stream["position"]),
                format_size(stream["window_bytes"]),
                format_size(stream["ahead_bytes"]),
            )
            path = size = ""
        if not streams:
            how = "random" if handle["streams"] else "not read"
            table.add_row(path, size, "direct" if handle["direct"] else how, "", "")
    if count > len(handles):
        return Stack(table, Line(f"and {count - len(handles)} more"))
    return table


def _servers(writing: dict[str, Any] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each location that is written to: a title, and what is known of its server."""
    servers = (writing or {}).get("servers", [])
    for server in servers:
        where = f" to {server['label']!s}" if len(servers) > 1 else ""
        yield f"Writing{where}", server


def server_rows(server: dict[str, Any]) -> dict[str, str]:
    """What a server does with changes, and what that means for those who make them."""
    rows = {"two writers": str(server["two_writers"])}
    if verdicts := server.get("conditions"):
        groups: dict[str, list[str]] = {}
        for condition, verdict in verdicts.items():
            groups.setdefault(str(verdict), []).append(condition.replace("_", " "))
        rows["conditions"] = "; ".join(f"{each}: {', '.join(groups[each])}" for each in groups)
        rows["known by"] = _FOUND_BY.get(server["found_by"], str(server["found_by"]))
    if server.get("reason"):
        rows["not all known"] = str(server["reason"])
    if not server.get("copies_parts", True):
        rows["large files"] = "what did not change is sent again: the server does not copy parts"
    if count := server.get("uploads_in_doubt"):
        rows["uploads"] = (
            f"{count} may have stayed behind in the bucket; a lifecycle rule of the bucket "
            "with AbortIncompleteMultipartUpload removes them"
        )
    return rows


_FOUND_BY = {
    "assumption": "assumption: nothing was asked yet, or it could not be",
    "option": "--conditional-writes",
    "probe": "asking the server",
    "memory": "asking the server, by an earlier mount",
}


def _written(writing: dict[str, Any]) -> Part:
    """What S3 has not got yet."""
    table = Grid("path", "size", "sent", "state", "why")
    for each in writing.get("pending", []):
        table.add_row(
            str(each["path"]),
            format_size(each["size_bytes"]),
            format_size(each["sent_bytes"]),
            str(each["state"]),
            str(each["reason"]),
        )
    if (more := writing["files"] - len(writing.get("pending", []))) > 0:
        return Stack(table, Line(f"and {more} more"))
    return table


def _bugs(bugs: dict[str, Any]) -> Part:
    """How many, the latest ones, and what to do."""
    table = Grid("when", "in", "what")
    for bug in bugs["latest"][:BUGS_SHOWN]:
        when = format_when(bug["when_unix_s"])
        table.add_row(when, str(bug["task"]), str(bug["text"]))
    where = "where stsfs logs to" if bugs["log_file"] is None else bugs["log_file"]
    times = "once" if bugs["count"] == 1 else f"{bugs['count']} times"
    said = f"stsfs met a bug of its own {times}; the mount goes on without what it worked on then."
    return Stack(table, Line(f"{said} Please report it, with the tracebacks in the log: {where}"))


def _errors(last: list[dict[str, Any]]) -> Part:
    table = Grid("when", "errno", "path", "why")
    for error in last:
        why = joined(str(error.get("sentence", "")), str(error.get("remedy", "")))
        table.add_row(
            format_when(error["when_unix_s"]) if "when_unix_s" in error else "",
            str(error.get("errno", "")),
            str(error.get("path", "")),
            why,
        )
    return table
