"""What the rules say about a path: what it is, may it be read, may it be changed. Pure.

Facts in, sentences out; `inspector` gathers the facts.
"""

from dataclasses import dataclass
from typing import Literal

from stsfs.errors import ArchivedObject, NotADirectory, NotFound, StsfsError
from stsfs.rules import question as rules
from stsfs.rules.asking import ask
from stsfs.rules.question import Place, Question, Spot
from stsfs.vfs.nodes import NAME_BYTES_MAX

Kind = Literal["file", "directory", "absent", "hidden", "reserved", "unknown"]
"""hidden: the bucket has the key, and no path can show it. unknown: nobody could be asked."""

ARCHIVED_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""S3's storage classes whose objects are read only after they have been restored."""


READ_ONLY = Place(label="this mount", storage="s3")
"""What the rules are told where nobody has told us of a location."""

_NOWHERE = Spot(READ_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a verdict may depend on."""

    kind: Kind
    key: str
    spot: Spot = _NOWHERE
    """What the rules know of the path; of the root of a location, its own place."""

    touched: rules.Kind = "file"
    """What a change would touch, in the words of the rules."""

    by_key: bool = True
    """Paths there are keys, and not what a view makes of something else."""

    error: StsfsError | None = None
    """Why the path is absent or unknown, or what its name meets where the key is hidden."""

    reason: str = ""
    """Why the key is hidden."""

    shadows: bool = False
    """The directory hides an object of the same key."""

    staged: bool = False
    """Its content is here, in a staging file, until S3 has it."""

    size_bytes: int = 0
    storage_class: str = ""
    outdated: bool = False
    """The version known has been replaced or deleted."""

    held_bytes: int = 0
    failure: StsfsError | None = None
    """What reading met within the last moment."""

    refused_before: bool = False
    """Something was refused there, as far back as refusals are remembered."""

    credentials: StsfsError | None = None
    """Why there are no credentials."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether something may be done, in a sentence; error is what the caller would meet."""

    allowed: bool
    sentence: str
    remedy: str = ""
    error: StsfsError | None = None


def why_hidden(key: str, prefix: str) -> str:
    """Why no entry of the directory of prefix can show this key, which begins with it."""
    name, slash, _ = key[len(prefix) :].partition("/")
    if not name:
        return "between two slashes there is no name" if slash else "it has no name"
    if name in {".", ".."}:
        return f"{name!r} means a directory itself or the one above it"
    if "\0" in name:
        return "a file name holds no zero byte"
    if (size_bytes := len(name.encode("utf-8", "surrogateescape"))) > NAME_BYTES_MAX:
        return f"a name has at most {NAME_BYTES_MAX} bytes, this one {size_bytes}"
    return "a directory of the same name is shown in its place"


def what(facts: Facts) -> str:
    """What the path is, in a sentence."""
    match facts.kind:
        case "file" if facts.staged:
            return "A file that is being written here."
        case "file":
            return "A file: one version of an object."
        case "directory" if facts.shadows:
            return "A directory. An object of the same key exists as well; it is hidden."
        case "directory" if facts.by_key:
            return "A directory: what keys have in common up to a slash."
        case "directory":
            return "A directory."
        case "hidden" if not facts.by_key:
            return f"Something that no path of its own can show: {facts.reason}."
        case "hidden":
            return f"A key that cannot be a file name: {facts.reason}."
        case "reserved":
            return "Synapse's proof of ownership has this name; it is never shown."
        case "unknown":
            return "Not known: nobody could be asked."
        case "absent":
            return "Nothing, as far as is known here."


def reading(facts: Facts) -> Verdict:
    """What an open and a read would meet now, as far as it can be known without trying."""
    match facts.kind:
        case "file":
            return _reading_file(facts)
        case "directory":
            return Verdict(True, "It can be listed.")
        case "hidden":
            kind = NotFound if facts.error is None else type(facts.error)
            if not facts.by_key:
                return _refused(kind("No path of its own leads there."))
            return _refused(
                kind(
                    "No path leads to this key.",
                    remedy="Read it with another client of S3, or copy it to another key.",
                )
            )
        case "reserved":
            return _refused(NotFound("owner.txt belongs to Synapse, and is hidden."))
    assert facts.error is not None
    return _refused(facts.error)


def _reading_file(facts: Facts) -> Verdict:
    if facts.staged:
        return Verdict(True, "Reads see what has been written, on the local disk.")
    complete = facts.held_bytes >= facts.size_bytes
    if facts.outdated:
        return Verdict(
            True, "This version was replaced or deleted; the next open looks for the new one."
        )
    if facts.credentials is not None and not complete:
        return _refused(facts.credentials)
    if facts.failure is not None and not complete:
        return _refused(facts.failure)
    if facts.storage_class in ARCHIVED_CLASSES and not facts.held_bytes:
        return _refused(
            ArchivedObject(
                f"The object lies in the archive class {facts.storage_class}.",
                remedy="Restore it in S3; it can be read while the restored copy exists.",
            )
        )
    if complete:
        return Verdict(True, "All of it is in memory.")
    if facts.refused_before:
        return Verdict(True, "It was refused before, but the next read asks S3 again.")
    return Verdict(True, "Nothing is known that stands in the way; S3 itself has the last word.")


def _refused(error: StsfsError) -> Verdict:
    return Verdict(False, error.sentence, error.remedy, error)


def changing(facts: Facts) -> Verdict:
    """What a change there would meet: of the file, in the directory, or by making something.

    What is allowed may have exceptions, which the sentence names.
    """
    error = ask(_first_change(facts))
    if error is None:
        error = _other_obstacle(facts)
    if error is not None:
        return _refused(error)
    match facts.kind:
        case "file":
            allowed, others = "It can be written", [_removal(facts), _rename(facts)]
        case "directory":
            allowed, others = "Files and directories can be made in it", [_removal(facts)]
            if facts.touched == "directory":
                others.append(_rename(facts))
        case _:
            allowed, others = "A file or a directory can be made there", []
    if not facts.spot.name:  # the root of the mount: it is the kernel that keeps it where it is
        others = []
    refusals = [error for each in others if (error := ask(each)) is not None]
    if refusals:
        return Verdict(True, f"{allowed}; it cannot be moved or removed. {refusals[0].sentence}")
    more = ", and it can be moved and removed" if others else ""
    return Verdict(True, f"{allowed}{more}. S3 itself has the last word.")


def _first_change(facts: Facts) -> Question:
    """What somebody would try there first."""
    match facts.kind:
        case "directory":
            inside = Spot(facts.spot.place, facts.key, b"x")  # the shortest name that there is
            return Question(operation="create", at=inside)
        case "absent" | "reserved":
            return Question(operation="create", at=facts.spot)
        case "file" | "hidden" | "unknown":
            return Question(operation="write", at=facts.spot)


def _removal(facts: Facts) -> Question:
    operation: rules.Operation = "unlink" if facts.kind == "file" else "rmdir"
    return Question(operation=operation, at=facts.spot, kind=facts.touched)


def _rename(facts: Facts) -> Question:
    """To any other name in its directory."""
    return Question(operation="rename", at=facts.spot, to=facts.spot, kind=facts.touched)


def _other_obstacle(facts: Facts) -> StsfsError | None:
    """What stands in the way where the rules would allow it."""
    if facts.kind == "hidden":
        return reading(facts).error
    if facts.kind == "unknown" or isinstance(facts.error, NotADirectory):
        return facts.error
    return facts.credentials
