"""The staging directory of one process, and what processes that died have left beside it.

NAMED/stsfs-staging-UID/.lock          held for a few file operations, by whoever takes over
NAMED/stsfs-staging-UID/OWNER/         see `owner`
NAMED/stsfs-staging-UID/OWNER/ID.*     see `file` and `moves`
"""

import contextlib
import secrets
from pathlib import Path

from stsfs.errors import BadArgument, ForeignPath
from stsfs.owned_dir import OwnedDir
from stsfs.staging import left
from stsfs.staging.descriptors import DESCRIPTORS_MAX, Descriptors
from stsfs.staging.file import MOVE_SUFFIX, StagingFile, sync_directory
from stsfs.staging.left import Left, LeftBehind, LeftMove, part_of_user
from stsfs.staging.moves import MoveJournal, MoveRecord
from stsfs.staging.owner import OwnerInfo, Ownership, locked
from stsfs.staging.room import Room, translated

ID_BYTES = 6


class StagingDirectory:
    """Where one process keeps what S3 has not got yet. Every method may block.

    Raises StagingFull and StagingFailure, where nothing else is said.
    """

    def __init__(
        self, part: OwnedDir, home: OwnedDir, ownership: Ownership, *, descriptors_max: int
    ) -> None:
        self.path = home.path
        """Of this process alone; as it was called when it was made."""

        self._opened = (part, home)
        # What is opened once is used to the end, whatever becomes of the names that led there.
        self._part, self._home, self._ownership = part.fixed_path, home.fixed_path, ownership
        self._room = Room(self._home)
        self._descriptors = Descriptors(descriptors_max)
        self._is_closed = False

    @classmethod
    def open(
        cls,
        named: Path,
        *,
        mount_path: Path | None = None,
        descriptors_max: int = DESCRIPTORS_MAX,
    ) -> "StagingDirectory":
        """Begin a directory of this process below the one that the user named.

        Of its files, descriptors_max hold a descriptor between two uses.
        Raises BadArgument where that cannot be: not a directory, not ours, not writable.
        """
        with contextlib.ExitStack() as held:
            try:
                part = OwnedDir.open(part_of_user(named), create=True, private=True)
                held.callback(part.close)
                with locked(part.fixed_path):
                    home = part.open_dir(secrets.token_hex(ID_BYTES), create=True)
                    held.callback(home.close)
                    info = OwnerInfo.of_this_process(mount_path)
                    ownership = Ownership.begin(home.fixed_path, info)
                held.callback(ownership.end)
                # Records that are forced to the disk need the names above them there.
                for each in (home.fixed_path, part.fixed_path, named):
                    sync_directory(each)
            except OSError as exc:
                raise _unusable(named, exc) from exc
            except ForeignPath as exc:
                raise ForeignPath(exc.sentence, remedy="Name another --staging-dir.") from exc
            held.pop_all()
        return cls(part, home, ownership, descriptors_max=descriptors_max)

    def create(self) -> StagingFile:
        """A new, empty staging file."""
        stem = self._home / secrets.token_hex(ID_BYTES)
        return StagingFile.create(stem, self._room, descriptors=self._descriptors)

    def is_short_of_room(self) -> bool:
        """Whether bytes that S3 has as well should leave the disk."""
        return self._room.is_short()

    def create_move(self, record: MoveRecord) -> MoveJournal:
        """Write down a move before its first request; it is on the disk afterwards."""
        return MoveJournal.create(self._home / secrets.token_hex(ID_BYTES), record)

    def left_behind(
        self, location_uri: str | None = None, endpoint_url: str | None = None
    ) -> list[Left]:
        """What processes that died have left, oldest first; of one location, or of all.

        Damaged files belong to no location, and so are found only where all are asked for. What
        is no file of ours, or only the rest of one, is passed over, or removed. The paths in it
        lead there while this directory is open.
        """
        with translated(self._part), locked(self._part):
            left.sweep(self._part)
            found = left.look(self._part)
        return [
            each
            for each in found
            if each.owner.state == "dead"
            and (location_uri is None or each.belongs_to(location_uri, endpoint_url))
        ]

    def adopt(self, found: LeftBehind) -> StagingFile | None:
        """Take over what a dead process left; None if somebody else has done so, or it lives.

        An owner `elsewhere` is taken over as well: the caller knows that it is dead.
        """
        stem = self._take_over(found)
        if stem is None:
            return None
        return StagingFile(stem, self._room, descriptors=self._descriptors)

    def adopt_move(self, found: LeftMove) -> MoveJournal | None:
        """The same for a move that was not finished."""
        stem = self._take_over(found)
        return None if stem is None else MoveJournal(stem.with_name(stem.name + MOVE_SUFFIX))

    def close(self) -> None:
        """Give up the ownership: whatever is left here is left behind."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            with translated(self._part), locked(self._part):
                left.remove_if_empty(self._part / self.path.name)
        finally:
            self._ownership.end()
            for each in self._opened:
                each.close()

    def _take_over(self, found: Left) -> Path | None:
        """Rename what there is of it into our own directory; the stem it has there, or None.

        A crash between two renames leaves the parts with two owners: see `left`.
        """
        owners = {path.parent for path in found.parts}
        moved: list[tuple[Path, Path]] = []
        with translated(found.parts[0]), locked(self._part), contextlib.ExitStack() as held:
            if not all(_hold(owner, held) for owner in owners):
                return None
            try:
                for source in found.parts:
                    target = self._home / source.name
                    source.rename(target)
                    moved.append((source, target))
            except OSError as exc:
                for source, target in moved:
                    target.rename(source)
                if isinstance(exc, FileNotFoundError):
                    return None
                raise
            sync_directory(self._home)
            for owner in owners:
                left.remove_if_empty(owner)
        return self._home / found.id


def _hold(owner: Path, held: contextlib.ExitStack) -> bool:
    """Hold the lock of a dead owner until `held` ends; False if it lives, or is gone."""
    try:
        ownership = Ownership.take(owner)
    except (FileNotFoundError, ForeignPath):
        return owner.is_dir()  # it died before it had a lock
    if ownership is None:
        return False
    held.callback(ownership.end)
    return True


def _unusable(named: Path, exc: OSError) -> BadArgument:
    return BadArgument(
        f"{named} cannot hold what is being written: {exc.strerror or exc}.",
        remedy="Name a directory of yours on a local disk with --staging-dir.",
    )
