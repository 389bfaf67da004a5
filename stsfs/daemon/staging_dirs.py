"""Which staging directories mounts of this user have used, so that `recover` looks at all of them.

`--staging-dir` names any directory, and a mount that was killed tells nobody. So each mount that
writes adds a line to a file beside the default staging directory, before it takes the first byte,
and a mount that leaves nothing behind removes it at its end. A line that is still there means:
something may lie there.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stsfs.daemon import runtime_dir
from stsfs.errors import ForeignPath, StagingFailure, StsfsError
from stsfs.owned_dir import OwnedDir
from stsfs.staging.left import Left, is_unused, part_of_user, what_is_left

FILE = "staging-dirs"
"""Lines of JSON strings."""

FILE_BYTES_MAX = 16 << 20

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Looked:
    """What was found, where it was looked, and where that was not possible."""

    left: list[Left] = field(default_factory=list)
    """Oldest first."""

    directories: list[Path] = field(default_factory=list)
    """As they were named to the mounts."""

    troubles: list[str] = field(default_factory=list)
    """Sentences: what cannot be looked at may hold something."""


def remember(named: Path) -> None:
    """Note that a mount uses this directory. Blocks; trouble is logged, not raised."""
    for number, path in enumerate(_files()):
        try:
            with _locked(path):
                if named not in _read(path)[0]:
                    _append(path, named)
        except (OSError, ForeignPath) as exc:
            if number == 0:
                log.warning(
                    "%s cannot be written (%s): after a crash, `stsfs recover` has to be told"
                    " --staging-dir %s", path, _words(exc), named,
                )  # fmt: skip


def forget_if_unused(named: Path) -> None:
    """Remove the note where nothing lies there, and no process uses it. Blocks; raises nothing."""
    for path in _files():
        with contextlib.suppress(OSError, StsfsError):
            if not path.exists():
                continue
            # With the list locked: a mount makes its directory there first, and adds its line then.
            with _locked(path):
                if named in _read(path)[0] and is_unused(named):
                    _remove(path, named)


def forget(named: Path) -> None:
    """Remove the note, whatever lies there. Raises StagingFailure and ForeignPath."""
    for path in _files():
        try:
            if path.exists():
                with _locked(path):
                    _remove(path, named)
        except OSError as exc:
            raise StagingFailure(f"{path} cannot be written: {exc.strerror}.") from exc


def look() -> Looked:
    """What is left in all directories that are known. Blocks; raises nothing for one of them.

    Known are the default one, those that mounts have noted, and those of the mounts that are
    there now.
    """
    looked = Looked()
    noted: list[Path] = []
    for number, path in enumerate(_files()):
        try:
            found, is_whole = _read(path)
        except (OSError, ForeignPath) as exc:
            # A home directory that the environment names may be another user's, who notes theirs.
            if number == 0 or not isinstance(exc, ForeignPath):
                looked.troubles.append(f"{path} cannot be read: {_words(exc).rstrip('.')}.")
            continue
        if not is_whole:
            looked.troubles.append(f"{path} has lines that are no names of directories.")
        noted += found
    for known in runtime_dir.records():
        if known.record.staging_dir is not None:
            noted.append(known.record.staging_dir)
    defaults = [path.with_name("staging") for path in _files()]
    for named in dict.fromkeys([*(each for each in defaults if os.path.isdir(each)), *noted]):
        try:
            if named in noted and not part_of_user(named).is_dir():
                raise StagingFailure(f"{named} does not have what a mount has made there.")
            looked.left += what_is_left(named)
        except (StsfsError, OSError) as exc:
            words = _words(exc)
            looked.troubles.append(words if isinstance(exc, StsfsError) else f"{named}: {words}.")
        else:
            looked.directories.append(named)
    looked.left.sort(key=lambda one: (one.changed_unix_s, one.id))
    return looked


def look_at(named: Path) -> Looked:
    """What is left in one directory. Blocks; raises BadArgument and StagingFailure."""
    return Looked(what_is_left(named), [named])


def staging_dir_of(left: Left) -> Path:
    """The directory as it was named: NAMED/stsfs-staging-UID/OWNER holds the files."""
    return left.owner.path.parents[1]


def _files() -> list[Path]:
    """Where it is noted. What reads it may not have the XDG_STATE_HOME of the mount."""
    beside = runtime_dir.staging_root().with_name(FILE)
    usual = Path(os.path.expanduser("~/.local/state/stsfs")) / FILE
    return list(dict.fromkeys([beside, usual]))


def _read(path: Path) -> tuple[list[Path], bool]:
    """The directories, and whether all lines could be read. Raises OSError and ForeignPath."""
    lines = _lines(path)
    found = [each for each in map(_parsed, lines) if each is not None]
    return list(dict.fromkeys(found)), len(found) == len(lines)


def _parsed(line: bytes) -> Path | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return Path(value) if isinstance(value, str) and value.startswith("/") else None


def _append(path: Path, named: Path) -> None:
    with _beside(path) as directory:
        descriptor = directory.open_file(path.name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with open(descriptor, "wb", 0) as file:
        # On a line of its own: the one before may be torn.
        file.write(b"\n" + json.dumps(os.fspath(named)).encode("ascii") + b"\n")
        os.fsync(file.fileno())


def _remove(path: Path, named: Path) -> None:
    """Write the file anew; lines that nobody understands stay."""
    lines = [each for each in _lines(path) if _parsed(each) != named]
    with _beside(path) as directory:
        directory.replace(path.name, b"".join(each + b"\n" for each in lines), sync=True)


def _lines(path: Path) -> list[bytes]:
    try:
        with _beside(path) as directory:
            text = directory.read(path.name, FILE_BYTES_MAX)
    except FileNotFoundError:
        return []
    return [each for each in text.splitlines() if each.strip()]


def _beside(path: Path, *, create: bool = False) -> OwnedDir:
    """The directory of a list; it may be a link of ours. Raises OSError and ForeignPath."""
    return OwnedDir.open(path.parent, create=create, follow=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process of this user at a time. Raises OSError and ForeignPath."""
    with _beside(path, create=True) as directory:
        descriptor = directory.open_file(path.name + ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _words(exc: OSError | StsfsError) -> str:
    return str(exc.strerror) if isinstance(exc, OSError) else exc.sentence
