"""What `stsfs mount` says in the end: where what is mounted, which view was chosen, and why."""

from typing import Any

from stsfs.daemon import runtime_dir
from stsfs.daemon.config import MountConfig
from stsfs.daemon.control_client import ask
from stsfs.errors import StsfsError
from stsfs.location.parse import S3Target, parse_target

PATIENCE_S = 5.0
"""The mount stands, so that its user need not wait for long to hear about it."""

_SHOWN = {"keys": "by its keys", "entities": "as Synapse shows it", "lock": "as a lock has it"}
_ASKED_FOR = "it was asked for"


def sentence(config: MountConfig, answer: dict[str, Any] | None) -> str:
    """One line about a mount; answer is that of `status`, None where there is none.

    A view that nobody could choose, and a reason that everybody knows, are left out.
    """
    places = (answer or {}).get("locations") or []
    mounted = f"{config.location} is mounted on {config.mount_path}"
    mode = "read-write" if config.rw else "read-only"
    if not places or all(_is_s3(text) for text in config.locations):
        return f"{mounted} ({mode})."
    then = "" if config.as_of is None else f", in the versions of {config.as_of}"
    if len(places) == 1:
        view, reason = places[0]["view"], places[0]["view_reason"]
        because = "" if reason == _ASKED_FOR else f": {reason}"
        return f"{mounted} ({mode}, {_SHOWN[view]}{then}{because})."
    views = [place["view"] for place in places]
    counts = [
        f"{views.count(view)} {words}" for view, words in _SHOWN.items() if view in views
    ]  # fmt: skip
    return (
        f"{mounted} ({mode}{then}): {len(places)} locations, {', '.join(counts)};"
        f" `stsfs status {config.mount_path}` says why."
    )


def status_of(config: MountConfig) -> dict[str, Any] | None:
    """What the new daemon says of itself; None if it has nothing to say that a user waits for."""
    if all(_is_s3(text) for text in config.locations):
        return None
    try:
        path = runtime_dir.control_socket(config.mount_path)
        return ask(path, "status", timeout_s=PATIENCE_S)
    except StsfsError:
        return None  # the mount stands all the same


def _is_s3(text: str) -> bool:
    try:
        return isinstance(parse_target(text), S3Target)
    except StsfsError:
        return False  # a lock file
