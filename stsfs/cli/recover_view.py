"""What `stsfs recover` shows: a table for people, records for scripts."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stsfs.daemon.config import format_size
from stsfs.daemon.staging_dirs import Looked, staging_dir_of
from stsfs.staging.left import Left, LeftBehind, LeftMove
from stsfs.staging.record import Record
from stsfs.staging.spans import Spans

if TYPE_CHECKING:
    from stsfs.cli.tables import Grid

_STATES = {
    "writing": "half-written",
    "closed": "whole",
    "failed": "whole, the upload failed",
    "conflict": "whole, and another client has changed the object",
}
_LEFT_OPEN = {"writing": "nobody closed it"}
"""The reason where none was noted."""

_MOVES = {
    "copying": "rename, not all is copied",
    "deleting": "rename, not all is removed at its old place",
}


def table(found: Sequence[Left]) -> "Grid":
    """All that is left, oldest first."""
    from stsfs.cli.tables import Grid

    rows = Grid("id", "file", "size", "last change", "state")
    for each in found:
        when = datetime.fromtimestamp(each.changed_unix_s, UTC).astimezone()
        rows.add_row(
            each.id,
            name(each),
            format_size(_size_bytes(each)),
            when.strftime("%Y-%m-%d %H:%M"),
            state(each),
        )
    return rows


def advice(found: Sequence[Left]) -> Iterator[str]:
    """What a person can do next."""
    mine = [each for each in found if each.owner.state != "living" or is_conflict(each)]
    yield ""
    if len(mine) < len(found):
        yield "What a mount has in use it uploads by itself when it is closed: see `stsfs status`."
    if not mine:
        return
    if any(not doubt(each) and _kept_state(each) in ("closed", "failed") for each in mine):
        yield "What is whole is uploaded by the next mount of its location with --rw, or now with"
        yield "    stsfs recover --upload"
    if any(is_conflict(each) for each in mine):
        yield "Where another client has changed the object, save yours and compare; or replace it,"
        yield "once the mount that it was written in is gone:"
        yield "    stsfs recover --upload --force ID"
    if any(isinstance(each, LeftMove) for each in mine):
        yield "A rename that was cut short is finished or undone by the same."
    yield from _room(found)
    yield "To have the files in a directory, or to give one up for ever:"
    yield "    stsfs recover --save DIR [ID]..."
    yield "    stsfs recover --discard ID..."
    yield "Nothing is given up by itself, however old it is. All that is old at once:"
    yield "    stsfs recover --discard --older-than 30d"


def nothing(looked: Looked) -> Iterator[str]:
    """That nothing is left of what was asked about, as far as anybody has looked."""
    if not looked.directories:
        yield "No staging directory of yours is known, and so nothing that is left."
        return
    if looked.troubles or looked.left:
        yield "Nothing of what was asked about is left in"
    else:
        yield "Everything that was written has reached S3. Nothing is left in"
    for named in looked.directories:
        yield f"    {named}"


def answer(found: Sequence[Left], looked: Looked) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "left": [record(each) for each in found],
        "looked_at": [str(each) for each in looked.directories],
        "troubles": looked.troubles,
    }


def _room(found: Sequence[Left]) -> Iterator[str]:
    """What it takes on the disk, by staging directory."""
    stored: dict[Path, int] = {}
    for each in found:
        if isinstance(each, LeftBehind):
            named = staging_dir_of(each)
            stored[named] = stored.get(named, 0) + each.stored_bytes
    for named, stored_bytes in stored.items():
        yield f"These files take {format_size(stored_bytes)} of the disk in {named}"


def name(left: Left) -> str:
    """What it is called: the location, and the path in it."""
    record = left.record
    if record is None:
        return "(unknown)"
    if isinstance(left, LeftMove):
        assert left.record is not None
        return f"{record.label}: {record.path} -> {left.record.new_path}"
    return f"{record.label}: {record.path}"


def state(left: Left) -> str:
    """How it stands, and why."""
    is_living = left.owner.state == "living"
    if is_living and not is_conflict(left):
        return f"in use by {owner(left)}"
    if left.record is None or left.trouble:
        return f"damaged: {left.trouble}"
    if isinstance(left, LeftMove):
        text = _MOVES[left.record.state]
    else:
        text = _STATES[left.record.state]
        if not left.is_certain:
            text += "; the machine went down before all of it was on the disk"
        reason = left.record.reason or _LEFT_OPEN.get(left.record.state)
        if reason:
            text += f": {reason}"
        if parked_bytes := Spans(left.record.parked).total_bytes:
            force = " --force" if is_conflict(left) else ""
            text = (
                f"{text.rstrip('.')}; {format_size(parked_bytes)} of it are only in an upload that"
                f" S3 keeps: --upload{force} completes it"
            )
    if left.owner.state == "elsewhere":
        text = f"written on {owner(left)}; {text}"
    return f"{text} ({owner(left)})" if is_living else text


def is_conflict(left: Left) -> bool:
    """Whether another client has changed the object: nobody writes to ours any more."""
    return left.record is not None and left.record.state == "conflict"


def doubt(left: Left) -> str:
    """Why it is not uploaded unless it is named; empty: it is."""
    if left.owner.state == "elsewhere":
        return f"{owner(left)} may still be at it"
    if left.record is None:
        return "nothing says where it belongs"
    if isinstance(left, LeftMove):
        return ""
    if left.trouble:
        return f"it is damaged: {left.trouble}"
    if not left.is_certain:
        return "the machine went down before all of it was on the disk"
    if left.record.state == "writing":
        return "it is half-written"
    return "" if left.record.expected else "it would replace whatever is at its key"


def owner(left: Left) -> str:
    """Who has it, in words."""
    info = left.owner.info
    if info is None:
        return "a process that has not said who it is"
    if left.owner.state == "elsewhere":
        return f"the machine {info.host}"
    if info.mount_path:
        return f"the mount at {info.mount_path}"
    return f"process {info.pid}"


def record(left: Left) -> dict[str, Any]:
    """JSON values."""
    kept, info = left.record, left.owner.info
    is_move = isinstance(left, LeftMove)
    return {
        "id": left.id,
        "kind": "move" if is_move else "file",
        "owner": left.owner.state,
        "mount_path": info.mount_path or None if info is not None else None,
        "host": info.host if info is not None else None,
        "location": None if kept is None else kept.label,
        "uri": None if kept is None else kept.location_uri,
        "endpoint_url": None if kept is None else kept.endpoint_url,
        "path": None if kept is None else kept.path,
        "new_path": left.record.new_path if isinstance(left, LeftMove) and left.record else None,
        "size_bytes": _size_bytes(left),
        "stored_bytes": None if isinstance(left, LeftMove) else left.stored_bytes,
        "parked_bytes": _parked_bytes(left),
        "upload_id": left.record.upload_id if isinstance(left.record, Record) else None,
        "changed_unix_s": left.changed_unix_s,
        "state": _kept_state(left),
        "certain": None if isinstance(left, LeftMove) else left.is_certain,
        "reason": _reason(left),
        "files": [str(path) for path in left.parts],
    }


def _parked_bytes(left: Left) -> int | None:
    return Spans(left.record.parked).total_bytes if isinstance(left.record, Record) else None


def _kept_state(left: Left) -> str:
    if left.record is not None:
        return "damaged" if left.trouble else left.record.state
    return "writing" if left.owner.state == "living" else "damaged"


def _reason(left: Left) -> str | None:
    if left.record is None or left.trouble:
        return left.trouble
    return None if isinstance(left, LeftMove) else left.record.reason or None


def _size_bytes(left: Left) -> int:
    if isinstance(left, LeftMove):
        return 0 if left.record is None else sum(each.size_bytes for each in left.record.objects)
    return left.stored_bytes if left.record is None else left.record.size_bytes
