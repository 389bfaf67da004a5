"""Answers about one path, arranged for people."""

from datetime import UTC, datetime
from typing import Any

from stsfs.cli.tables import Fields, Line, Part, Stack
from stsfs.daemon.config import KIB, format_size
from stsfs.errors import joined


def explanation(answer: dict[str, Any]) -> Part:
    """The answer of `explain`."""
    rows = {"what": _with_size(answer)}
    if answer["uri"] is not None:
        rows["key"] = answer["uri"]
    rows["reading"] = _verdict(answer["read"])
    rows["changing"] = _verdict(answer["change"])
    if last := answer["last_refusal"]:
        rows["last refused"] = (
            f"{last['operation']}, {format_when(last['when_unix_s'])}: {last['errno']}."
            f" {_sentences(last)}"
        )
    rows |= _known(answer)
    if credentials := answer["credentials"]:
        rows["credentials"] = _credentials(credentials)
    return Stack(Line(_whole_path(answer), style="bold"), Fields(rows))


def description(answer: dict[str, Any]) -> Part:
    """The answer of `info`."""
    rows = {"kind": answer["kind"], "location": answer["location"]}
    if answer["uri"] is not None:
        rows["key"] = answer["uri"]
    if answer["kind"] == "file":
        rows |= {
            "size": _exact_size(answer["size_bytes"]),
            "modified": format_when(answer["modified_unix_s"]),
            "ETag": answer["etag"] or "not known before it is opened",
            "storage class": answer["storage_class"] or "not told",
        }
    rows |= answer["properties"]
    rows["inode"] = str(answer["inode"])
    rows |= _known(answer)
    return Stack(Line(_whole_path(answer), style="bold"), Fields(rows))


def format_when(unix_s: float) -> str:
    """A moment in local time, to the second."""
    return datetime.fromtimestamp(unix_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _whole_path(answer: dict[str, Any]) -> str:
    return f"{answer['mount_path']}{answer['path']}".rstrip("/")


def _with_size(answer: dict[str, Any]) -> str:
    if answer["size_bytes"] is None:
        return str(answer["what"])
    storage = f", storage class {answer['storage_class']}" if answer["storage_class"] else ""
    return f"{answer['what']} {format_size(answer['size_bytes'])}{storage}."


def _exact_size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "not told"
    if size_bytes < KIB:
        return f"{size_bytes} bytes"
    return f"{format_size(size_bytes)} ({size_bytes} bytes)"


def _verdict(verdict: dict[str, Any]) -> str:
    if verdict["allowed"]:
        return f"allowed. {_sentences(verdict)}"
    return f"{verdict['errno']}. {_sentences(verdict)}"


def _sentences(told: dict[str, Any]) -> str:
    return joined(told["sentence"], told["remedy"])


def _known(answer: dict[str, Any]) -> dict[str, str]:
    """What is remembered; nothing is said of what there is not."""
    known, size_bytes = answer["known"] or {}, answer["size_bytes"]
    rows = {}
    for name, key in (("in memory", "memory_bytes"), ("on disk", "disk_bytes")):
        if known.get(key) is not None:
            whole = known[key] == size_bytes and size_bytes
            rows[name] = format_size(known[key]) + (" (all of it)" if whole else "")
    if known.get("open_handles"):
        rows["open"] = "once" if known["open_handles"] == 1 else f"{known['open_handles']} times"
    if listing := known.get("listing"):
        names = f"{listing['entries']} names" + ("" if listing["complete"] else " so far")
        title = "listing" if answer["kind"] == "directory" else "its directory"
        rows[title] = f"{names}, trusted for another {listing['trusted_for_s']:.0f} s"
    return rows


def _credentials(credentials: dict[str, Any]) -> str:
    state = "in force" if credentials["in_force"] else "over"
    trouble = f" {credentials['last_error']}" if credentials["last_error"] else ""
    return f"from {credentials['source']}: {state}.{trouble}"
