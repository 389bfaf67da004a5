"""What lies in the staging directory of a user, and whose it is.

The data and the record of one file may lie with two owners: a process that took them over may
have died between two renames. They have one id, and are put together again by it.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stsfs.errors import BadArgument, ForeignPath
from stsfs.owned_dir import OwnedDir, check_file
from stsfs.staging import file, moves
from stsfs.staging.file import (
    DATA_SUFFIX,
    MOVE_SUFFIX,
    NEW_SUFFIX,
    PUBLISHED_SUFFIX,
    RECORD_SUFFIX,
)
from stsfs.staging.moves import MoveRecord
from stsfs.staging.owner import OWNER_FILE, Owner, OwnerInfo, is_local, locked, state_of
from stsfs.staging.record import DamagedRecord, Record
from stsfs.staging.room import translated

_SUFFIXES = (DATA_SUFFIX, RECORD_SUFFIX, PUBLISHED_SUFFIX, MOVE_SUFFIX)


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """A staging file that S3 has not got, as far as its owner has noted."""

    id: str
    owner: Owner
    parts: tuple[Path, ...]
    """What there is of it: data and record, or one of them."""

    data_path: Path
    stored_bytes: int
    """What the data take on the disk."""

    changed_unix_s: float
    record: Record | None = None
    is_certain: bool = False
    """See `file.Kept`: what is not certain is not uploaded unasked."""

    trouble: str = ""
    """What is damaged: it is not uploaded. With a record, bytes that this tells of are not there;
    without one, why that cannot be read."""

    @property
    def is_ready(self) -> bool:
        """Whether the next mount of its location uploads it unasked."""
        record = self.record
        if record is None or self.trouble or not self.is_certain:
            return False
        return record.state in ("closed", "failed") and record.expected is not None

    def belongs_to(self, location_uri: str, endpoint_url: str | None) -> bool:
        """Whether it was written for this location."""
        record = self.record
        return record is not None and (record.location_uri, record.endpoint_url) == (
            location_uri,
            endpoint_url,
        )


@dataclass(frozen=True, slots=True)
class LeftMove:
    """A rename that was not finished, as far as its owner has noted."""

    id: str
    owner: Owner
    parts: tuple[Path, ...]
    changed_unix_s: float
    record: MoveRecord | None = None
    trouble: str = ""
    """Why the journal cannot be read; empty if it can."""

    def belongs_to(self, location_uri: str, endpoint_url: str | None) -> bool:
        """Whether it happened in this location."""
        record = self.record
        return record is not None and (record.location_uri, record.endpoint_url) == (
            location_uri,
            endpoint_url,
        )


Left = LeftBehind | LeftMove


@dataclass(slots=True)
class _Owned:
    """The files of one owner."""

    owner: Owner
    known: list[tuple[str, str, Path]] = field(default_factory=list)
    """(id, suffix, path)."""

    half_written: list[Path] = field(default_factory=list)


def part_of_user(named: Path) -> Path:
    """This user's part of the directory that was named: users may share a disk, nothing else."""
    return named / f"stsfs-staging-{os.geteuid()}"


def what_is_left(named: Path) -> list[Left]:
    """All that any process has not published, living ones included, oldest first.

    For people who ask: changes nothing. Blocks; raises BadArgument if there is no such directory,
    or if others may change what is in it.
    """
    if (part := _checked_part(named)) is None:
        if named.is_dir():
            return []
        raise BadArgument(f"{named} is not a directory.", remedy="See --staging-dir of the mount.")
    with translated(part), locked(part):
        return look(part)


def owners(named: Path) -> list[Owner]:
    """Every process that has, or had, something in the directory that was named. Blocks.

    Raises StagingFailure, StagingFull and ForeignPath.
    """
    if (part := _checked_part(named)) is None:
        return []
    with translated(part), locked(part):
        return [each.owner for each in _scan(part)]


def is_unused(named: Path) -> bool:
    """Whether no process has anything in the directory that was named, living ones included.

    What dead processes left of nothing is removed first. False also where this user has no part in
    it: its disk may not be mounted. Blocks; raises what `owners` does.
    """
    if (part := _checked_part(named)) is None:
        return False
    with translated(part), locked(part):
        sweep(part)
        return not any(each.is_dir() and not each.is_symlink() for each in part.iterdir())


def _checked_part(named: Path) -> Path | None:
    """This user's part, which nobody else can change; None if there is none.

    Raises ForeignPath, StagingFailure and StagingFull.
    """
    part = part_of_user(named)
    with translated(part):
        try:
            OwnedDir.open(part, private=True).close()
        except (FileNotFoundError, NotADirectoryError):
            return None
    return part


def look(part: Path) -> list[Left]:
    """All that lies there, oldest first; to be called with the part locked. Raises OSError."""
    all_owned = _scan(part)
    homes = [each for each in all_owned if each.owner.state != "living"]
    found: list[Left] = _together(homes)
    for each in all_owned:
        if each.owner.state == "living":
            found += _together([each])
    return sorted(found, key=lambda one: (one.changed_unix_s, one.id))


def sweep(part: Path) -> None:
    """Remove what dead processes left of files that were given up; with the part locked.

    That is what S3 has got, half-written records, records whose data are gone, empty data that were
    never kept, void journals, and owners without files. Raises OSError.
    """
    all_owned = _scan(part)
    dead = [each for each in all_owned if each.owner.state == "dead"]
    records = {i: p for each in all_owned for i, suffix, p in each.known if suffix == RECORD_SUFFIX}
    marked = {i for each in all_owned for i, suffix, _ in each.known if suffix == PUBLISHED_SUFFIX}
    published = {
        i
        for each in dead
        for i, _, _ in each.known
        if (_is_published(records[i]) if i in records else i in marked)
    }
    with_data = {i for each in all_owned for i, suffix, _ in each.known if suffix == DATA_SUFFIX}
    with_record = {i for each in all_owned for i, suffix, _ in each.known if suffix != DATA_SUFFIX}
    for each in dead:
        for path in each.half_written:
            path.unlink(missing_ok=True)
        for file_id, suffix, path in each.known:
            is_rest = suffix in (RECORD_SUFFIX, PUBLISHED_SUFFIX) and file_id not in with_data
            is_nothing = suffix == DATA_SUFFIX and file_id not in with_record and _is_empty(path)
            is_void = suffix == MOVE_SUFFIX and moves.is_void(path)
            is_over = suffix != MOVE_SUFFIX and file_id in published  # the data come first
            if is_rest or is_nothing or is_void or is_over:
                path.unlink(missing_ok=True)
        remove_if_empty(each.owner.path)


def remove_if_empty(owner: Path) -> None:
    """Remove an owner that has no files; with the part locked. Raises OSError."""
    if all(name == OWNER_FILE for name in os.listdir(owner)):
        (owner / OWNER_FILE).unlink(missing_ok=True)
        owner.rmdir()


def _scan(part: Path) -> list[_Owned]:
    """Every owner and the names of its files; foreign names and directories are passed over."""
    local = is_local(part)
    found = []
    for path in sorted(part.iterdir()):
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            continue
        info = OwnerInfo.read(path / OWNER_FILE)
        owned = _Owned(Owner(path, info, state_of(path, info, is_local=local)))
        for name in sorted(os.listdir(path)):
            if name.endswith(NEW_SUFFIX):
                owned.half_written.append(path / name)
            elif name != OWNER_FILE and (stem_suffix := _parted(name)) is not None:
                owned.known.append((*stem_suffix, path / name))
        found.append(owned)
    return found


def _parted(name: str) -> tuple[str, str] | None:
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix), suffix
    return None


def _together(all_owned: Iterable[_Owned]) -> list[Left]:
    """What the files of some owners are, put together by their ids."""
    parts: dict[tuple[str, bool], dict[str, tuple[Path, Owner]]] = {}
    for owned in all_owned:
        for file_id, suffix, path in owned.known:
            group = parts.setdefault((file_id, suffix == MOVE_SUFFIX), {})
            group.setdefault(suffix, (path, owned.owner))
    found: list[Left] = []
    for (file_id, is_move), group in parts.items():
        with contextlib.suppress(FileNotFoundError):  # its owner lives, and has just finished
            if is_move and not moves.is_void(group[MOVE_SUFFIX][0]):
                found.append(_left_move(file_id, *group[MOVE_SUFFIX]))
            elif DATA_SUFFIX in group and (RECORD_SUFFIX in group or PUBLISHED_SUFFIX not in group):
                found += _left_file(file_id, group)
    return found


def _left_move(file_id: str, path: Path, owner: Owner) -> LeftMove:
    when_s = path.lstat().st_mtime
    try:
        return LeftMove(file_id, owner, (path,), when_s, moves.load(path))
    except FileNotFoundError:
        raise
    except (DamagedRecord, OSError) as exc:
        return LeftMove(file_id, owner, (path,), when_s, trouble=_words(exc))


def _left_file(file_id: str, group: dict[str, tuple[Path, Owner]]) -> Iterator[LeftBehind]:
    data_path, owner = group[DATA_SUFFIX]
    status = data_path.lstat()
    paths = tuple(path for path, _ in group.values())
    record_path = group[RECORD_SUFFIX][0] if RECORD_SUFFIX in group else None
    kept, trouble = None, ""
    try:
        check_file(data_path, status)
        kept = file.load(record_path) if record_path is not None else None
    except ForeignPath as exc:
        trouble = exc.sentence.rstrip(".")
    except (DamagedRecord, OSError) as exc:
        trouble = _words(exc)
    if kept is None:
        if status.st_size or trouble:
            trouble = trouble or "nothing was noted about it before its process ended"
            yield LeftBehind(
                file_id, owner, paths, data_path, status.st_blocks * 512, status.st_mtime,
                trouble=trouble,
            )  # fmt: skip
        return
    if kept.record.state == "published":
        return
    # Of a process that lives, record and data may be those of two moments.
    lacking_bytes = kept.record.lacking_bytes(status.st_size) if owner.state != "living" else 0
    if lacking_bytes:
        trouble = f"{lacking_bytes} bytes that were written are not in the data file any more"
    yield LeftBehind(
        file_id, owner, paths, data_path, status.st_blocks * 512,
        kept.record.changed_unix_s or status.st_mtime, kept.record, kept.is_certain, trouble,
    )  # fmt: skip


def _is_published(record_path: Path) -> bool:
    try:
        kept = file.load(record_path)
    except (DamagedRecord, OSError):
        return False
    return kept is not None and kept.record.state == "published"


def _is_empty(path: Path) -> bool:
    try:
        return path.lstat().st_size == 0
    except FileNotFoundError:
        return True


def _words(exc: Exception) -> str:
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else str(exc)
