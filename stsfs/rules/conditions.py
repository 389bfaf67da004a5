"""When the rows of the table apply: predicates over a question, or over a place. Pure."""

from collections.abc import Callable

from stsfs.rules.question import Place, Question, Spot

SPECIAL_BITS = 0o7000
"""setuid, setgid and the sticky bit."""


def uncovered(place: Place) -> bool:
    """Whether its credentials cover a whole bucket, and nobody has agreed to that."""
    return place.is_sts and not place.prefix and not place.whole_bucket


def other_owner(question: Question) -> bool:
    """Whether a chown would change anything."""
    assert question.owner is not None
    uid, gid = question.owner
    return question.uid not in (None, uid) or question.gid not in (None, gid)


def special_bits(question: Question) -> bool:
    """Whether the new mode has more than permission bits."""
    return question.mode is not None and bool(question.mode & SPECIAL_BITS)


def sts_into_sts(question: Question) -> bool:
    """Whether the root of an STS location would move into one; which one does not matter."""
    return question.kind == "root" and question.at.place.is_sts and _into_sts(question)


def folder_into_sts(question: Question) -> bool:
    """Whether a directory of the mount that is in no STS location would move into one."""
    return question.kind in ("root", "way") and not question.at.place.is_sts and _into_sts(question)


def _into_sts(question: Question) -> bool:
    return question.to is not None and question.to.place.is_sts


def no_location(question: Question) -> bool:
    """Whether a directory would change that only leads to locations, or would lose one of them."""
    if any(place.storage == "none" for place in question.places):
        return True
    return question.kind == "root" and question.operation in ("rename", "exchange", "rmdir")


def elsewhere(question: Question) -> bool:
    """Whether something would move to another location."""
    return question.to is not None and question.to.place != question.at.place


def reserved(question: Question) -> bool:
    """Whether one of the names belongs to Synapse."""
    spots = (question.at, question.to) if question.to is not None else (question.at,)
    return any(spot.in_root and spot.name in spot.place.reserved_names for spot in spots)


def impossible(spot: Spot) -> bool:
    """Whether no file system of Linux has such a name."""
    name = spot.name
    return name in (b"", b".", b"..") or b"/" in name or b"\0" in name


def is_utf8(name: bytes) -> bool:
    """Whether it is the text of a key."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def of_name(condition: Callable[[Spot], bool]) -> Callable[[Question], bool]:
    """A condition on the name that an operation would make."""
    return lambda question: (made := question.made) is not None and condition(made)


def key_bytes(question: Question) -> int:
    """How long the longest key is that an operation would make: 0 if it makes none.

    The key of a directory ends in a slash: that of its marker, or of what lies below it.
    """
    if question.made is None:
        return 0
    is_directory = question.kind != "file" or question.operation == "mkdir"
    return question.made.key_bytes + is_directory + question.below_bytes
