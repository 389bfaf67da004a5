"""What `stsfs recover --save` does: writes files that were not uploaded into a directory.

The directory, and those below it, are held by descriptors, and no link is followed in them: what
others have put there, or exchange meanwhile, leads nowhere else.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from stsfs.daemon.config import PlaceOptions
from stsfs.daemon.places import Place
from stsfs.daemon.recovering import Done, Told, by_location, opened
from stsfs.errors import AlreadyExists, ChangesLeft, ForeignPath, StagingFailure, StsfsError
from stsfs.owned_dir import OwnedDir, open_file
from stsfs.staging.left import LeftBehind
from stsfs.staging.record import Record
from stsfs.staging.spans import Spans
from stsfs.store.object_store import ObjectVersion
from stsfs.writer.sources import StoreSource

PIECE_BYTES = 1 << 20
PARTIAL_SUFFIX, MISSING_SUFFIX = ".partial", ".missing.json"


async def save(
    found: Sequence[LeftBehind], directory: Path, options: PlaceOptions, told: Told
) -> list[Done]:
    """Write files below a directory; what it holds already stays, and so does what is saved.

    What only S3 has of a file is fetched. Where that fails, `NAME.partial` has the rest, and
    `NAME.partial.missing.json` says which bytes it lacks: the error is ChangesLeft then. Parked
    bytes (see Record) always are among those: nobody can read the parts of an upload.
    """
    done = {}
    for group in by_location(found):
        async with AsyncExitStack() as held:
            place: Place | None = None
            trouble: StsfsError | None = None
            record = group[0].record
            wanted = any(isinstance(left, LeftBehind) and _of_base(left.record) for left in group)
            if isinstance(record, Record) and wanted:
                try:
                    place = await held.enter_async_context(opened(record, options))
                except StsfsError as exc:
                    trouble = exc
            for left in group:
                assert isinstance(left, LeftBehind)
                try:
                    one = await _Saving(left, directory, place, trouble).save()
                except StsfsError as exc:
                    one = Done(left, "", exc)
                told(one)
                done[id(left)] = one
    return [done[id(left)] for left in found]


@dataclass(slots=True)
class _Saving:
    """One file on its way into the directory."""

    left: LeftBehind
    directory: Path
    place: Place | None
    """Where bytes that are not here come from; None: from nowhere, because of `trouble`."""

    trouble: StsfsError | None
    missing: Spans = field(default_factory=Spans)

    async def save(self) -> Done:
        """Raises StagingFailure, AlreadyExists, and ChangesLeft for a part of the file."""
        run = trio.to_thread.run_sync
        with await run(self._parent) as parent:
            name = await run(self._free_name, parent)
            partial_name = name + PARTIAL_SUFFIX
            partial_path = parent.path / partial_name
            with _in_words(partial_path):
                descriptor = await run(parent.create_file, partial_name)
            try:
                await run(self._copy_present, descriptor, partial_path)
                await self._fetch(descriptor, partial_path)
                await run(self._finish, descriptor, partial_path)
            finally:
                os.close(descriptor)
            if self.missing:
                await run(self._write_missing, parent, partial_name)
                raise self._in_part(partial_path)
            with _in_words(parent.path / name):
                await run(parent.rename, partial_name, name)
            doubt = "" if self.left.record else ", all that is there"
            return Done(self.left, f"saved as {parent.path / name}{doubt}")

    def _in_part(self, path: Path) -> ChangesLeft:
        """The error that says how much is missing, why, and how to get it."""
        record = self.left.record
        sentences = [f"saved in part: {path} lacks {self.missing.total_bytes} bytes."]
        remedies = []
        if record is not None and record.parked:
            parked_bytes = Spans(record.parked).total_bytes
            sentences.append(
                f"{parked_bytes} of them are only in an upload that was not completed: S3 keeps"
                " them, and lets nobody read them."
            )
            force = " --force" if record.state == "conflict" else ""
            remedies.append(f"`stsfs recover --upload{force} {self.left.id}` completes it.")
        if self.left.trouble:
            sentences.append(f"It is damaged: {self.left.trouble}.")
        if self.trouble is not None:
            sentences.append(self.trouble.sentence)
            remedies.append(self.trouble.remedy)
        return ChangesLeft(" ".join(sentences), remedy=" ".join(filter(None, remedies)))

    @property
    def _names(self) -> list[str]:
        """The path below the directory; a record has been checked to lead nowhere else."""
        record = self.left.record
        return [self.left.id] if record is None else record.path.split("/")

    def _parent(self) -> OwnedDir:
        """The directory that it goes into."""
        with _in_words(self.directory):
            # It may be anybody's: what is put there is closed to others.
            at = OwnedDir.open(self.directory, create=True, any_owner=True, any_parents=True)
        for name in self._names[:-1]:
            with at, _in_words(at.path / name):
                at = at.open_dir(name, create=True, any_owner=True)
        return at

    def _free_name(self, parent: OwnedDir) -> str:
        """What it is called there: nothing that is there is replaced."""
        name = self._names[-1]
        with _in_words(parent.path / name):
            for each in (name, f"{name}.{self.left.id}"):
                if not (parent.has(each) or parent.has(each + PARTIAL_SUFFIX)):
                    return each
        raise AlreadyExists(
            f"{parent.path / name} is there already.", remedy="Name another directory."
        )

    def _copy_present(self, descriptor: int, path: Path) -> None:
        """What lies in the staging file; all of it where nothing is known of it."""
        record = self.left.record
        for start, stop in () if record is None else record.parked:
            self.missing.add(start, stop)
        try:
            source = open(open_file(self.left.data_path), "rb", 0)  # noqa: SIM115 - closed below
        except OSError as exc:
            raise StagingFailure(f"{self.left.data_path} is gone: {exc.strerror}.") from exc
        with source, _in_words(path):
            spans = [(0, os.fstat(source.fileno()).st_size)]
            if record is not None:
                spans = [(a, min(b, record.size_bytes)) for a, b in record.present]
            for start, stop in spans:
                while start < stop:
                    data = os.pread(source.fileno(), min(PIECE_BYTES, stop - start), start)
                    if not data:  # shorter than its record says
                        self.missing.add(start, stop)
                        break
                    _write(descriptor, data, start)
                    start += len(data)

    async def _fetch(self, descriptor: int, path: Path) -> None:
        """What only the base has."""
        record = self.left.record
        wanted = _of_base(record)
        if not wanted or record is None or record.base is None:
            return
        if self.place is None:
            for start, stop in wanted:
                self.missing.add(start, stop)
            return
        base = record.base
        version = ObjectVersion(self.place.location_id, base.key, base.etag, base.size_bytes)
        source = StoreSource(self.place.store, version)
        for start, stop in wanted:
            while start < stop:
                size_bytes = min(PIECE_BYTES, stop - start)
                if self.trouble is None:
                    try:
                        data = await source.read(start, size_bytes)
                        await trio.to_thread.run_sync(_written, descriptor, data, start, path)
                        start += len(data)
                        continue
                    except StagingFailure:
                        raise
                    except StsfsError as exc:
                        self.trouble = exc
                self.missing.add(start, stop)
                break

    def _finish(self, descriptor: int, path: Path) -> None:
        record = self.left.record
        with _in_words(path):
            if record is not None:
                os.ftruncate(descriptor, record.size_bytes)
                if record.mode is not None:
                    os.fchmod(descriptor, record.mode & 0o700)  # it was closed to others here
                if record.mtime_ns is not None:
                    with suppress(OverflowError):
                        os.utime(descriptor, ns=(record.mtime_ns, record.mtime_ns))
            os.fsync(descriptor)

    def _write_missing(self, parent: OwnedDir, partial_name: str) -> None:
        name = partial_name + MISSING_SUFFIX
        with (
            _in_words(parent.path / name),
            open(parent.create_file(name), "w", encoding="ascii") as file,
        ):
            json.dump({"missing": self.missing.to_list()}, file)


def _of_base(record: Record | None) -> list[tuple[int, int]]:
    """The ranges that only the base has. Where bytes are parked, it has other ones."""
    if record is None or record.base is None:
        return []
    stop = min(record.size_bytes, record.base.limit_bytes, record.base.size_bytes)
    here = Spans((*record.present, *record.parked))
    return here.gaps(0, stop)


def _written(descriptor: int, data: memoryview, offset: int, path: Path) -> None:
    with _in_words(path):
        _write(descriptor, data, offset)


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Raise StagingFailure in place of an OSError, and for what is in the way."""
    try:
        yield
    except OSError as exc:
        raise StagingFailure(f"{path} cannot be written: {exc.strerror or exc}.") from exc
    except ForeignPath as exc:
        raise StagingFailure(exc.sentence, remedy="Name another directory.") from exc
