"""`stsfs cache`: what lies in a cache directory, and how to be rid of it."""

import os
import sqlite3
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from stsfs.cache.disk.directory import INDEX, CacheDirectory
from stsfs.cache.disk.disk_cache import NO_KEY, DiskCache
from stsfs.cli import output
from stsfs.cli.asking import ask_mount
from stsfs.cli.path_type import OwnPath
from stsfs.daemon import runtime_dir
from stsfs.daemon.config import format_size
from stsfs.errors import BadArgument, StoreFailure

_TROUBLE = (OSError, sqlite3.Error)
_DIRECTORY = OwnPath(is_directory=True)


@click.group()
def cache() -> None:
    """Look at a disk cache, or empty it.

    DIRECTORY is what was given to --cache-dir; without it, the one that the mounts of this user
    have in use.
    """


@cache.command()
@click.argument("directory", type=_DIRECTORY, required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def info(directory: Path | None, as_json: bool) -> None:
    """Show what DIRECTORY holds, and who uses it."""
    users = _users()
    found = _existing(directory, users)
    try:
        disk = DiskCache(found, limit_bytes=0, key=NO_KEY)
        totals = disk.totals()
        free_bytes = disk.free_bytes()
        disk.close()
    except _TROUBLE as exc:
        raise _unusable(found, exc) from exc
    answer = {
        "directory": str(found.path),
        **asdict(totals),
        "free_bytes": max(0, free_bytes),
        "mounts": users.get(found.path, []),
    }
    if as_json:
        output.tell_json(answer)
    else:
        _print(answer)


@cache.command()
@click.argument("directory", type=_DIRECTORY, required=False)
def clear(directory: Path | None) -> None:
    """Give up everything that DIRECTORY holds.

    Mounts that use it go on: they fetch what they need, and keep it again.
    """
    found = _existing(directory, _users())
    try:
        disk = DiskCache(found, limit_bytes=0, key=NO_KEY)
        cleared_bytes = disk.clear()
        disk.close()
    except _TROUBLE as exc:
        raise _unusable(found, exc) from exc
    output.tell(f"{format_size(cleared_bytes)} given up in {found.path}.")


def _users() -> dict[Path, list[str]]:
    """The cache directories in use, and the mounts that use them."""
    users: dict[Path, list[str]] = {}
    for mount in runtime_dir.records():
        if mount.state == "serving":
            disk = ask_mount(mount, "status").get("disk_cache")
            if disk:
                users.setdefault(Path(disk["directory"]), []).append(str(mount.record.mount_path))
    return users


def _existing(named: Path | None, users: dict[Path, list[str]]) -> CacheDirectory:
    """The directory that is meant.

    Raises BadArgument if it is not clear, or not there, and ForeignPath if others own it.
    """
    if named is not None:
        directory = CacheDirectory.of_user(named)
        directory.check()
        if not os.path.lexists(directory.path / INDEX):
            raise BadArgument(
                f"{named} holds no disk cache of yours.",
                remedy="Name the directory that was given to --cache-dir.",
            )
        return directory
    if len(users) == 1:
        return CacheDirectory(next(iter(users)))
    names = ", ".join(str(path.parent) for path in sorted(users))
    raise BadArgument(
        "Several cache directories are in use." if users else "No mount uses a disk cache.",
        remedy=f"Name one: {names}" if users else "Name the directory given to --cache-dir.",
    )


def _unusable(directory: CacheDirectory, exc: BaseException) -> StoreFailure:
    return StoreFailure(f"{directory.path} cannot be used: {exc}.")


def _print(answer: dict[str, Any]) -> None:
    from stsfs.cli.tables import Fields

    oldest = answer["oldest_use_unix_s"]
    rows = {
        "directory": answer["directory"],
        "holds": f"{format_size(answer['stored_bytes'])} of {answer['versions']} objects",
        "may grow by": f"{format_size(answer['free_bytes'])} (a tenth of the disk stays free)",
        "used by": ", ".join(answer["mounts"]) or "no mount",
    }
    if oldest is not None:
        when = datetime.fromtimestamp(oldest, UTC).astimezone()
        rows["oldest use"] = when.strftime("%Y-%m-%d %H:%M")
    output.tell_parts([Fields(rows)])
