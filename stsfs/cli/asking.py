"""Which mount a path on the command line means, and asking its daemon."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stsfs.daemon import mountinfo, runtime_dir
from stsfs.daemon.control_client import ask
from stsfs.daemon.runtime_dir import KnownMount
from stsfs.errors import BadArgument, NoSuchMount

ANSWER_TIMEOUT_S = 30.0
"""Longer than the daemon takes to answer a question, whatever the store does."""


@dataclass(frozen=True, slots=True)
class Place:
    """A path in a mount."""

    mount: KnownMount
    inner: str
    """Below the mount point, as it was typed: `d/x`, `a//b`; empty for the mount point itself."""


def choose(path: Path | None) -> KnownMount:
    """The mount that is meant. Raises NoSuchMount, or BadArgument if it is not clear."""
    if path is not None:
        return locate(os.fspath(path)).mount
    known = runtime_dir.records()
    if not known:
        raise NoSuchMount("There is no mount.")
    if len(known) == 1:
        return known[0]
    here = runtime_dir.find(Path(_working_directory()))
    if here is None:
        paths = ", ".join(str(mount.record.mount_path) for mount in known)
        raise BadArgument("There are several mounts.", remedy=f"Name one: {paths}")
    return here


def locate(typed: str) -> Place:
    """The mount that a path lies in, and the rest of the path. Raises NoSuchMount.

    Symbolic links are followed up to the mount point and no further: below it there are none, a
    dead mount answers nothing, and `a//b` may be meant as the text of a key.
    """
    absolute = os.path.join(_working_directory(), typed)
    known = {mount.record.mount_path: mount for mount in runtime_dir.records()}
    at = 0
    while at >= 0:
        at = absolute.find("/", at + 1)
        outer, inner = (absolute, "") if at < 0 else (absolute[:at], absolute[at + 1 :])
        path = mountinfo.resolve(Path(outer))
        if path in known and not os.path.normpath(inner).startswith(".."):
            return _innermost(Place(known[path], inner), known)
    above = mountinfo.mount_above(Path(os.path.normpath(absolute)))
    if above is not None and above.is_stsfs:
        raise NoSuchMount(
            f"{typed} lies in a mount of stsfs of which there is no record here.",
            remedy="Ask as the user who made it.",
        )
    raise NoSuchMount(f"{typed} is not in a mount of stsfs.", remedy="See `stsfs list`.")


def _innermost(place: Place, known: dict[Path, KnownMount]) -> Place:
    """The same place in a mount that was made within the mount."""
    full = Path(os.path.normpath(f"{place.mount.record.mount_path}/{place.inner}"))
    path = max((p for p in known if full.is_relative_to(p)), key=lambda p: len(p.parts))
    if path == place.mount.record.mount_path:
        return place
    return Place(known[path], str(full.relative_to(path)))


def ask_about(place: Place, command: str, **arguments: Any) -> dict[str, Any]:
    """Ask the daemon of a mount about a path. Raises NoSuchMount if it is dead."""
    return ask_mount(place.mount, command, path=place.inner, **arguments)


def ask_mount(mount: KnownMount, command: str, **arguments: Any) -> dict[str, Any]:
    """Ask the daemon of a mount.

    Raises NoSuchMount if it is dead, DaemonSilent if it hangs, and what it answers.
    """
    if mount.state == "dead":
        raise NoSuchMount(dead_sentence(mount), remedy=dead_remedy(mount))
    record = mount.record
    return ask(
        record.control_socket,
        command,
        timeout_s=ANSWER_TIMEOUT_S,
        arguments=arguments,
        name=f"The daemon of {record.mount_path} (pid {record.pid})",
        remedy=f"`stsfs unmount --lazy {record.mount_path}` takes the mount away all the same,"
        f" `kill -KILL {record.pid}` ends the daemon.",
    )


def dead_sentence(mount: KnownMount) -> str:
    """That the daemon of this mount is dead."""
    return f"The daemon of {mount.record.mount_path} is dead."


def dead_remedy(mount: KnownMount) -> str:
    """What to do about it."""
    clear = f"Clear it away with `stsfs unmount {mount.record.mount_path}`"
    return f"{clear}; its log: {mount.record.log_file}" if mount.record.log_file else f"{clear}."


def _working_directory() -> str:
    # The shell's own word also works where getcwd(2) fails, in a dead mount; and where it is true
    # it is as good: symbolic links are resolved later.
    try:
        return os.getcwd()
    except OSError:
        return os.environ.get("PWD", "/")
