"""Lock files as locations: which text means one, and whether it fits what is really there.

A lock comes from somebody else. The location it names is found anew, with the user's own token,
credentials and endpoints; whatever of that differs from the lock is refused, and never followed.
"""

from dataclasses import dataclass
from pathlib import Path

from stsfs.entities.lock_file import Lock, is_lock_file, load
from stsfs.errors import BadArgument
from stsfs.location.location import Location
from stsfs.location.parse import SynapseTarget, Target, parse_target
from stsfs.synapse.endpoints import PRODUCTION, Endpoints

LOCK_SUFFIX = ".lock"


@dataclass(frozen=True, slots=True)
class LockTarget:
    """A lock file, and the location that it is about."""

    path: Path
    lock: Lock
    target: Target

    def __str__(self) -> str:
        return str(self.path)


def absolute(text: str) -> str:
    """A location as it can be read in any working directory: the path of a lock made absolute."""
    return text if lock_path(text) is None else str(Path(text).absolute())


def lock_path(text: str) -> Path | None:
    """The lock file that a user means by a text; None for a location of another kind."""
    return Path(text) if not is_location(text) and is_lock_file(Path(text)) else None


def is_location(text: str) -> bool:
    """Whether a text names a location itself, whatever files there are."""
    try:
        parse_target(text)
    except BadArgument:
        return False
    return True


def location_of(text: str) -> Target | LockTarget:
    """Read a location; blocks while a lock file is read.

    Raises BadArgument, with what to type instead.
    """
    path = lock_path(text)
    if path is not None:
        lock = load(path)
        return LockTarget(path, lock, parse_target(lock.location))
    if text.endswith(LOCK_SUFFIX) and "://" not in text:
        raise BadArgument(
            f"{text} is not a lock file, or it cannot be read.",
            remedy="Write one with `stsfs pin`.",
        )
    return parse_target(text)


def named_synapse(endpoints: Endpoints) -> str | None:
    """What a lock calls a Synapse; None for the public one."""
    return None if endpoints.repo_url == PRODUCTION.repo_url else endpoints.repo_url


def check_synapse(lock: LockTarget, endpoints: Endpoints | None) -> None:
    """Refuse a lock of another Synapse than the one that the user asks; None: he asks none.

    Raises BadArgument.
    """
    if lock.lock.view == "entities" and not isinstance(lock.target, SynapseTarget):
        raise BadArgument(
            f"{lock.path} has entities of {lock.target}, which is no place in Synapse.",
            remedy="Write it anew with `stsfs pin`.",
        )
    if endpoints is None:
        return
    yours, theirs = named_synapse(endpoints), lock.lock.synapse_url
    if yours != theirs:
        raise BadArgument(
            f"{lock.path} was written for {theirs or 'the public Synapse'}, and yours is"
            f" {yours or 'the public one'}.",
            remedy="Name that one with --synapse-endpoint, if you trust it with your token.",
        )


def check_agrees(lock: LockTarget, found: Location) -> None:
    """Refuse a lock whose location is not what it was. Raises BadArgument."""
    theirs, yours = lock.lock.endpoint_url, found.endpoint_url
    if (theirs or "").rstrip("/") != (yours or "").rstrip("/"):
        raise BadArgument(
            f"{lock.path} was written for {theirs or 'AWS'}, and you ask {yours or 'AWS'}.",
            remedy="Name the service with --endpoint-url, if you trust it with your credentials."
            if theirs
            else "Leave out --endpoint-url.",
        )
    if (lock.lock.bucket, lock.lock.base_key) != (found.bucket, found.base_key):
        raise BadArgument(
            f"{lock.path} was written for s3://{lock.lock.bucket}/{lock.lock.prefix}, and"
            f" {lock.target} is {found.uri} now.",
            remedy="Write the lock anew with `stsfs pin`.",
        )
