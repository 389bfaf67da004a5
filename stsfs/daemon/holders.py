"""Who keeps a mount busy, as far as /proc shows it to us.

Only links and maps are read, never the files behind them: the mount may hang.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOLDERS_MAX = 20
"""Enough to know whom to ask; a cluster node may have thousands."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process with its foot in the door."""

    pid: int
    command: str
    how: str
    """`working directory`, `open file`, `mapped file` or `root directory`."""

    path: str
    """What it holds; the first of several."""

    def __str__(self) -> str:
        return f"{self.command} ({self.pid}, {self.how} {self.path})"


def holders(mount_path: Path, proc: Path = Path("/proc")) -> list[Holder]:
    """Other processes that use files of the mount; those of other users are seen by root only."""
    found = []
    for process in proc.iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        how, path = _how(process, mount_path)
        if how:
            found.append(Holder(int(process.name), _command(process), how, path))
            if len(found) == HOLDERS_MAX:
                break
    return sorted(found, key=lambda holder: holder.pid)


def _how(process: Path, mount_path: Path) -> tuple[str, str]:
    for name, how in (("cwd", "working directory"), ("root", "root directory")):
        if _is_inside(path := _target(process / name), mount_path):
            return how, path
    for link in _children(process / "fd"):
        if _is_inside(path := _target(link), mount_path):
            return "open file", path
    for path in _mapped(process / "maps"):
        if _is_inside(path, mount_path):
            return "mapped file", path
    return "", ""


def _children(directory: Path) -> Iterator[Path]:
    try:
        yield from directory.iterdir()
    except OSError:
        return  # the process has ended, or is not ours


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _mapped(maps: Path) -> Iterator[str]:
    try:
        with open(maps, errors="surrogateescape", newline="\n") as lines:
            for line in lines:
                fields = line.rstrip("\n").split(maxsplit=5)
                if len(fields) == 6 and fields[5].startswith("/"):
                    yield fields[5]
    except OSError:
        return


def _is_inside(path: str, mount_path: Path) -> bool:
    return path == str(mount_path) or path.startswith(f"{mount_path}/")


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
