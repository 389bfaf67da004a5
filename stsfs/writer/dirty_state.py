"""The states of a file that is being written, and every transition between them. Pure.

`DirtyFile` is the only one that makes transitions; `make check` looks for others.
"""

from collections.abc import Mapping
from enum import Enum

from stsfs.staging.record import State


class DirtyState(Enum):
    """How a file that is being written stands with S3. The value is what documents call it."""

    CLEAN = "clean"
    """S3 has the content as it is now; the file is open for writing, or about to end."""

    WRITING = "writing"
    """The content has changed since S3 had it, and nobody is uploading it."""

    PUBLISHING = "publishing"
    """An attempt to make the object is under way; the content may change meanwhile."""

    FAILED = "failed"
    """The last attempt failed, and the content has not changed since. Perhaps tried again."""

    REMOVING = "removing"
    """The name is being removed: attempts are broken off, and none begins. May still fail."""

    UNLINKED = "unlinked"
    """The file has no name any more. Open handles work on it; nothing is uploaded."""

    CONFLICT = "conflict"
    """Another client was faster. The bytes are kept for `stsfs recover`; nothing is uploaded."""

    ENDED = "ended"
    """Nobody may use the object any more: S3 has the content, or nobody wants it, or `stsfs
    recover` has it."""


TRANSITIONS: Mapping[DirtyState, frozenset[DirtyState]] = {
    DirtyState.CLEAN: frozenset(
        {DirtyState.WRITING, DirtyState.REMOVING, DirtyState.UNLINKED, DirtyState.ENDED}
    ),
    DirtyState.WRITING: frozenset(
        {
            DirtyState.PUBLISHING,
            DirtyState.FAILED,
            DirtyState.REMOVING,
            DirtyState.UNLINKED,
            DirtyState.CLEAN,
        }
    ),
    DirtyState.PUBLISHING: frozenset(
        {
            DirtyState.CLEAN,
            DirtyState.WRITING,
            DirtyState.FAILED,
            DirtyState.CONFLICT,
            DirtyState.REMOVING,
        }
    ),
    DirtyState.FAILED: frozenset(
        {
            DirtyState.WRITING,
            DirtyState.PUBLISHING,
            DirtyState.REMOVING,
            DirtyState.UNLINKED,
            DirtyState.CLEAN,
        }
    ),
    DirtyState.REMOVING: frozenset(
        {DirtyState.UNLINKED, DirtyState.CLEAN, DirtyState.WRITING, DirtyState.FAILED}
    ),
    DirtyState.UNLINKED: frozenset({DirtyState.ENDED}),
    DirtyState.CONFLICT: frozenset({DirtyState.ENDED}),
    DirtyState.ENDED: frozenset(),
}
"""WRITING and FAILED become CLEAN when an earlier attempt turns out to have succeeded; WRITING
becomes FAILED without an attempt of its own when it is taken over from a process that died."""

NAMELESS = frozenset({DirtyState.UNLINKED, DirtyState.CONFLICT, DirtyState.ENDED})
"""No name of the mount leads to the content: nothing is uploaded from it any more."""

UNWANTED = NAMELESS | {DirtyState.REMOVING}
"""An attempt that meets one of these is broken off."""

SETTLED_BY_SUCCESS = frozenset(
    {DirtyState.PUBLISHING, DirtyState.WRITING, DirtyState.FAILED, DirtyState.CLEAN}
)
"""A removal goes on, and a file without a name stays so, whatever S3 turns out to have."""

RECORD_STATES: Mapping[DirtyState, State] = {
    DirtyState.CLEAN: "published",
    DirtyState.WRITING: "writing",
    DirtyState.PUBLISHING: "closed",
    DirtyState.FAILED: "failed",
    DirtyState.REMOVING: "writing",
    DirtyState.UNLINKED: "writing",
    DirtyState.CONFLICT: "conflict",
    DirtyState.ENDED: "writing",
}
"""What each state is called in records on the local disk, and by `stsfs status`."""


class IllegalTransition(AssertionError):
    """A transition that the table does not have: a bug."""


def check_transition(old: DirtyState, new: DirtyState) -> None:
    """Raise IllegalTransition unless the table has it; staying where one is needs no entry."""
    if old is not new and new not in TRANSITIONS[old]:
        raise IllegalTransition(f"a file that is {old.value} cannot become {new.value}")
