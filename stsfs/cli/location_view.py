"""The locations of a mount, in a daemon's status, arranged for people."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from stsfs.cli.path_view import format_when
from stsfs.cli.tables import Grid, Line, Part, Stack
from stsfs.daemon.config import format_size

NOTHING_COMPARED = (
    "Nothing to compare: no location is shown as Synapse shows it, or its objects have not all been"
    " listed (which is done in the background, for 100 000 objects at most)."
)


def view_rows(place: dict[str, Any]) -> dict[str, str]:
    """Which view a location has, and why; nothing where that is not told."""
    if not place.get("view"):
        return {}
    return {"view": f"{place['view']} (because {place.get('view_reason', '?')})"}


def whole_place(place: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """One of several locations: its title, and all that is told of it."""
    rows = {"bucket": str(place.get("uri", "?"))} | view_rows(place)
    rows |= entity_rows(place.get("entities"))
    if credentials := place.get("credentials"):
        rows |= credential_rows(credentials)
    return f"{place.get('label', '?')} on {place.get('path', '?')}", rows


def entity_rows(entities: dict[str, Any] | None) -> dict[str, str]:
    """How much of a folder is known, by which means, and where Synapse and the bucket disagree."""
    if not entities:
        return {}
    rows = {"index": _extent(entities)}
    if entities.get("last_error"):
        rows["index waits"] = str(entities["last_error"])
    if entities.get("index_trouble"):
        rows["index is not kept"] = str(entities["index_trouble"])
    if view := entities.get("index_view"):
        trouble = entities.get("index_view_trouble")
        told = f"told of {_number(entities.get('index_view_files') or 0, 'file')}"
        rows["index view"] = f"{view}: {trouble or told}"
    if differences := entities.get("differences"):
        rows["differences"] = _counts(differences)
    return rows


def credential_rows(credentials: dict[str, Any]) -> dict[str, str]:
    """Where credentials come from, how long they are valid, and how renewals went."""
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


def synapse_rows(requests: dict[str, Any] | None) -> dict[str, str]:
    """Requests to Synapse, by who waited for them."""
    if not requests:
        return {}
    rows = {
        "requests": f"{requests.get('foreground', 0)} that somebody waited for,"
        f" {requests.get('background', 0)} in the background"
    }
    if throttled := requests.get("throttled"):
        rows["throttled"] = "once" if throttled == 1 else f"{throttled} times"
    return rows


def differences(answer: dict[str, Any]) -> Iterator[Part]:
    """Files whose object is missing or another one, and what is counted beside them."""
    places = answer.get("locations") or []
    compared = [
        (place, found)
        for place in places
        if (found := (place.get("entities") or {}).get("differences"))
    ]
    if not compared:
        yield Line(NOTHING_COMPARED)
    for place, found in compared:
        title = Line(f"{place.get('label', '?')}: {_counts(found, hint=False)}.")
        if named := found.get("named"):
            yield Stack(title, Line(), _named(named, found))
        else:
            yield title


def format_duration(seconds: float) -> str:
    """`1:02:03`, with days where there are any; never negative."""
    return str(timedelta(seconds=max(0, round(seconds))))


def _extent(entities: dict[str, Any]) -> str:
    """`4213 of 20000 files, 180 of 200 folders known; about 27 min to go`."""
    files, folders = entities.get("files", 0), entities.get("folders", 0)
    known, listed = entities.get("files_known", 0), entities.get("folders_listed", 0)
    if (known, listed) == (files, folders) and entities.get("complete"):
        return f"all {_number(files, 'file')} in {_number(folders, 'folder')} known"
    told = f"{known} of {_number(files, 'file')}, {listed} of {_number(folders, 'folder')} known"
    if entities.get("complete"):
        return f"{told}; the rest is asked for when somebody looks"
    minutes = round(entities.get("seconds_left", 0) / 60)
    more = ", and more for what the other folders hold" if listed < folders else ""
    return f"{told}; about {minutes} min to go{more}" if minutes else f"{told}; nearly done"


def _counts(found: dict[str, Any], *, hint: bool = True) -> str:
    """`3 files have no object, 1 has another size, 12 objects belong to no file shown`."""
    missing, other = found.get("missing", 0), found.get("other_size", 0)
    unregistered = found.get("unregistered", 0)
    parts = []
    if missing:
        parts.append(f"{_number(missing, 'file')} {'has' if missing == 1 else 'have'} no object")
    if other:
        who = str(other) if missing else _number(other, "file")
        parts.append(f"{who} {'has' if other == 1 else 'have'} an object of another size")
    if unregistered:
        belong = "belongs" if unregistered == 1 else "belong"
        parts.append(f"{_number(unregistered, 'object')} {belong} to no file shown")
    if not parts:
        return "none between Synapse and the bucket" if hint else "no differences"
    return ", ".join(parts) + ("; see --differences" if hint and (missing or other) else "")


def _named(named: list[dict[str, Any]], found: dict[str, Any]) -> Part:
    numbers = ("in Synapse", "in the bucket")
    table = Grid("file", "name", *numbers, "key", right=numbers)
    for each in named:
        table.add_row(
            str(each.get("entity_id", "")),
            _name(each.get("name")),
            _size(each.get("size_bytes"), "not told"),
            _size(each.get("object_bytes"), "no object"),
            str(each.get("object_key", "")),
        )
    more = found.get("missing", 0) + found.get("other_size", 0) - len(named)
    when = f"Listed {format_when(found['as_of_unix_s'])}." if "as_of_unix_s" in found else ""
    return Stack(table, Line(f"and {more} more. {when}" if more > 0 else when))


def _name(name: object) -> str:
    return name if isinstance(name, str) else "?"


def _size(size_bytes: int | None, none: str) -> str:
    return none if size_bytes is None else format_size(size_bytes)


def _number(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
