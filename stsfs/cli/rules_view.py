"""The table of rules, arranged for people, scripts and the README."""

import errno
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from stsfs.cli.exit_codes import exit_code
from stsfs.fuse.errno_table import reply_for
from stsfs.rules.table import Rule

if TYPE_CHECKING:
    from stsfs.cli.tables import Part

_STORAGE = {
    "s3": "a place in S3; Synapse knows nothing of it",
    "synapse": "an STS location of Synapse; whether Synapse manages it has not been asked",
    "external": "an STS location of Synapse in somebody's own bucket",
    "managed": "an STS location in storage managed by Synapse",
    "none": "directories of a mount that only lead to its locations",
}
_MOUNTED = {True: "with --rw", False: "read-only", None: "not here; --rw is supposed"}
_SHOWN = {"keys": "its keys", "entities": "the folder as Synapse has it", "lock": "a lock"}


def answer(rule: Rule) -> str:
    """What a program meets: the name of an errno, or how the command to mount ends."""
    refusal = rule.error("")
    if _is_of_mount(rule):
        return f"exit code {exit_code(refusal)}"
    return errno.errorcode[reply_for(refusal).errno]


def record(rule: Rule) -> dict[str, Any]:
    """A row in JSON values."""
    return {
        "name": rule.name,
        "operations": sorted(rule.operations),
        "says": rule.says.replace("`", ""),
        "errno": None if _is_of_mount(rule) else answer(rule),
        "exit_code": exit_code(rule.error("")),
        "remedy": rule.remedy,
        "source": rule.source,
    }


def markdown(rules: Iterable[Rule]) -> str:
    """The table of the README, with its header."""
    lines = ["| rule | answer | what to do instead | from |", "|---|---|---|---|"]
    for rule in rules:
        code = answer(rule) if _is_of_mount(rule) else f"`{answer(rule)}`"
        remedy = rule.remedy.removesuffix(".")
        lines.append(f"| {rule.says} | {code} | {remedy} | {rule.source} |")
    return "".join(f"{line}\n" for line in lines)


def table(place: dict[str, Any] | None, rules: Iterable[Rule]) -> "Part":
    """What is known of a place, if there is one, above the rules; see `place_record`."""
    from stsfs.cli.tables import Fields, Grid, Line, Stack

    table = Grid("rule", "answer", "what to do instead", "from")
    for rule in rules:
        table.add_row(rule.says.replace("`", ""), answer(rule), rule.remedy, rule.source)
    if place is None:
        return table
    title = Line(place["label"], style="bold")
    return Stack(title, Fields(dict(_known(place))), Line(), table)


def _is_of_mount(rule: Rule) -> bool:
    return rule.operations <= {"mount", "mount_rw"}


def _known(place: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "storage", _STORAGE[place["storage"]]
    if place["storage"] != "none":
        yield "bucket", place["bucket"] or "told with the credentials only"
        yield "base key", place["prefix"].rstrip("/") or "none: the whole bucket"
        yield "shown", _SHOWN[place["shown"]]
    yield "mounted", _MOUNTED[place["writable"]]
    if place["reserved_names"]:
        yield "reserved", f"{', '.join(place['reserved_names'])}, in its root"
