"""The kernel's own list of mounts, read without touching any of them.

Format: proc_pid_mountinfo(5). Reading it never blocks on a dead or hanging file system, which
stat(2) on a mount point does.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
FILESYSTEM_TYPE = "fuse.stsfs"
"""What a mount made with `subtype=stsfs` is called."""

LINKS_MAX = 40
"""Symbolic links that lead to symbolic links, as path_resolution(7) has it."""

_USER_ID = re.compile(rb"(?:^|,)user_id=(\d+)(?:,|$)")
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mounted file system."""

    path: Path
    filesystem_type: str
    source: str
    device: str
    """`major:minor`, as in /sys/class/bdi."""

    owner_uid: int | None = None
    """Who mounted it; None for what is not FUSE."""

    is_read_only: bool = False
    """Whether the kernel itself refuses every change through it."""

    id: int = 0
    parent_id: int = 0
    """Of the mount that it lies on."""

    @property
    def is_stsfs(self) -> bool:
        """Whether one of our daemons made this mount, alive or not."""
        return self.filesystem_type == FILESYSTEM_TYPE or (
            self.filesystem_type == "fuse" and self.source == "stsfs"
        )


def mounts() -> list[MountEntry]:
    """Every mount that this process sees, in the order in which they cover each other."""
    return parse(MOUNTINFO.read_bytes())


def parse(text: bytes) -> list[MountEntry]:
    """Read the text of a mountinfo file; lines of an unknown shape are skipped."""
    entries = []
    for line in text.split(b"\n"):  # not at CR, which the path of a mount may have
        head, separator, tail = line.partition(b" - ")
        fields, kind = head.split(b" "), tail.split(b" ")
        if not separator or len(fields) < 6 or len(kind) < 2:
            continue
        if not (fields[0].isdigit() and fields[1].isdigit()):
            continue
        entries.append(
            MountEntry(
                path=Path(_plain(fields[4])),
                filesystem_type=_plain(kind[0]),
                source=_plain(kind[1]),
                device=_plain(fields[2]),
                owner_uid=_owner_uid(kind[2:]),
                is_read_only=b"ro" in fields[5].split(b","),
                id=int(fields[0]),
                parent_id=int(fields[1]),
            )
        )
    return entries


def mount_at(path: Path) -> MountEntry | None:
    """The uppermost mount exactly at `path`, which must be absolute and without symbolic links."""
    return next((entry for entry in reversed(mounts()) if entry.path == path), None)


def mount_of(mount_id: int) -> MountEntry | None:
    """The mount with this id."""
    return next((entry for entry in mounts() if entry.id == mount_id), None)


def mount_above(path: Path) -> MountEntry | None:
    """The mount that `path` lies on; None if there is none (in a chroot)."""
    covering = [entry for entry in mounts() if path.is_relative_to(entry.path)]
    return max(covering, key=lambda entry: len(entry.path.parts), default=None)


def resolve(path: Path) -> Path:
    """Make `path` absolute and free of symbolic links, also where a dead mount is in the way.

    Nothing in a mount of ours is asked for, because its daemon may not answer: from its root on
    the path is taken as it is, without `..`; there are no symbolic links below it.
    """
    is_ours = {entry.path: entry.is_stsfs for entry in mounts()}
    return _resolved(Path(os.path.abspath(path)), is_ours, LINKS_MAX)


def _resolved(path: Path, is_ours: Mapping[Path, bool], links_max: int) -> Path:
    at = Path(path.anchor)
    for index, name in enumerate(path.parts[1:], start=2):
        at = Path(os.path.normpath(at / name))
        if any(is_ours.get(each, False) for each in (at, *at.parents)):
            return Path(os.path.normpath(at.joinpath(*path.parts[index:])))
        if at in is_ours:
            continue  # the root of a mount is no link, and may not answer
        try:
            target = os.readlink(at)
        except OSError:
            continue  # no link, or nothing at all
        if links_max:
            at = _resolved(at.parent / target, is_ours, links_max - 1)
    return at


def _owner_uid(super_options: list[bytes]) -> int | None:
    """The `user_id` among the options of the file system, which come last in the line."""
    found = _USER_ID.search(super_options[-1]) if super_options else None
    return int(found[1]) if found else None


def _plain(field: bytes) -> str:
    """Undo the octal escapes of blanks, newlines and backslashes."""
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))
