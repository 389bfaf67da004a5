"""What `stsfs pin` does: looks at all of a location, and writes down each file's version."""

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import trio

from stsfs.daemon import locks
from stsfs.daemon.config import PlaceOptions
from stsfs.daemon.opening import open_places
from stsfs.daemon.places import Place, Places
from stsfs.entities.location import EntityLocation
from stsfs.entities.lock_file import FILES_MAX, Lock, LockedFile, can_hold, render
from stsfs.entities.parallel import work_off
from stsfs.entities.records import FileRecord
from stsfs.entities.walk import WORKERS, Progress, WalkedFile, walk_shown
from stsfs.errors import (
    AccessDenied,
    BadArgument,
    NameTooLong,
    ObjectMissing,
    StoreFailure,
    StsfsError,
    SynapseRefusal,
    without_frames,
)
from stsfs.location.location import Location
from stsfs.owned_dir import OwnedDir
from stsfs.store.object_store import ListedObject, ObjectStore
from stsfs.store.paging import Pages, object_at
from stsfs.vfs.listing import is_file_name

SINGLE_MAX = 200
"""Fewer keys than these are asked for one by one, however many others lie beside them."""

SINGLE_WORKERS = 16
PAGES_MIN = 100
PAGES_PER_FILE = 0.02
"""An inventory reads so many pages before the rest is asked for one by one; a page is a thousand
keys, and one key costs a request too."""


@dataclass(slots=True)
class Pinned:
    """A lock, and what does not stand in it."""

    lock: Lock
    hidden: int
    """Entities or keys that no path can show."""

    left_out: dict[str, StsfsError] = field(default_factory=dict)
    """Why, by path."""

    other_size: list[str] = field(default_factory=list)
    """Files whose object has not the size that Synapse knows: pinned as they are, without MD5."""

    @property
    def size_bytes(self) -> int:
        """Of all files in the lock."""
        return sum(each.size_bytes for each in self.lock.files)


async def pin(
    options: PlaceOptions, told: Callable[[Progress], None], *, skip_unreadable: bool
) -> Pinned:
    """Look at everything that a mount with these options would show, and pin it.

    Raises AccessDenied or ObjectMissing for what cannot be read, unless that is to be left out;
    and what `open_places`, EntityApi and the store raise.
    """
    places = await open_places(options)
    try:
        place = _only(places)
        async with trio.open_nursery() as nursery:
            await nursery.start(place.lease.keep_fresh)
            pinned = await _pinned(places, place, Progress(told))
            nursery.cancel_scope.cancel()
    finally:
        await places.aclose()
    if pinned.left_out and not skip_unreadable:
        raise _refusal(pinned.left_out)
    return pinned


def _only(places: Places) -> Place:
    first = places.all[0]
    if first.lock is not None:
        raise BadArgument(f"{first.location.label} is a lock already.", remedy="Copy the file.")
    if len(places.all) > 1 or first.path:
        labels = ", ".join(each.location.label for each in places.all)
        raise BadArgument(
            f"A lock holds one storage location, and below this are others: {labels}.",
            remedy="Pin each of them.",
        )
    return first


def _refusal(left_out: dict[str, StsfsError]) -> StsfsError:
    path = min(left_out)
    first = left_out[path]
    count = len(left_out)
    what = "One file" if count == 1 else f"{count} files"
    kind = ObjectMissing if isinstance(first, ObjectMissing) else AccessDenied
    return kind(
        f"{what} cannot be read, so the lock would not be complete. {path}: {first.sentence}",
        remedy="Add --skip-unreadable to leave out what cannot be read.",
    )


async def _pinned(places: Places, place: Place, progress: Progress) -> Pinned:
    location, synapse = place.location, places.synapse
    lock = Lock(
        location=location.label,
        bucket=location.bucket,
        base_key=location.base_key,
        region=None,
        endpoint_url=location.endpoint_url,
        view="keys" if place.entities is None else "entities",
        pinned_unix_s=time.time(),
        files=(),
        synapse_url=None if synapse is None else locks.named_synapse(synapse.endpoints),
    )
    pinned = Pinned(lock, 0)
    if place.entities is None:
        files = await pinned_keys(place.store, location, progress)
    else:
        files = await _Entities(place, place.entities, pinned, progress).files()
    if len(files) > FILES_MAX:
        raise BadArgument(
            f"A lock has at most {FILES_MAX} files, and here are {len(files)}.",
            remedy="Pin smaller parts of the location.",
        )
    pinned.hidden = progress.hidden
    pinned.lock = replace(lock, files=tuple(files), region=place.store.region)
    return pinned


async def pinned_keys(
    store: ObjectStore, location: Location, progress: Progress
) -> list[LockedFile]:
    """All objects below a prefix that a mount shows as files."""
    listed: list[ListedObject] = []
    pages = Pages(store, location.prefix, skips_unusable=True)
    while (page := await pages.next()) is not None:
        listed += page.objects
        progress.found(len(page.objects), folders=0 if page.next_token is None else 1)  # pages
    files, progress.hidden = files_of_keys(listed, location)
    return [
        LockedFile(path, "", None, each.size_bytes, "", each.etag, each.key, each.modified_unix_s)
        for path, each in files
    ]


def files_of_keys(
    listed: Iterable[ListedObject], location: Location
) -> tuple[list[tuple[str, ListedObject]], int]:
    """The files that keys are shown as, by path, and how many keys no path shows. Pure.

    As in `vfs.key_listing`: where both `a` and `a/...` exist, `a` is the directory.
    """
    skip, reserved = len(location.prefix), location.reserved_names
    found: list[tuple[str, ListedObject]] = []
    directories: set[str] = set()
    hidden = 0
    for each in listed:
        path = each.key[skip:]
        folder, _, name = path.rpartition("/")
        if path.partition("/")[0].encode() in reserved:
            continue
        above = folder
        while above and above not in directories:
            directories.add(above)
            above = above.rpartition("/")[0]
        if (not name and all(map(is_file_name, folder.encode().split(b"/")))) or not path:
            continue  # the marker of a directory
        if all(map(is_file_name, path.encode().split(b"/"))):
            found.append((path, each))
        else:
            hidden += 1
    files = [(path, each) for path, each in found if path not in directories]
    return files, hidden + len(found) - len(files)


class _Entities:
    """Pins the files of a Synapse folder."""

    def __init__(
        self, place: Place, entities: EntityLocation, pinned: Pinned, progress: Progress
    ) -> None:
        self._place, self._entities = place, entities
        self._pinned, self._progress = pinned, progress
        self._filler, self._objects = entities.filler, entities.objects

    async def files(self) -> list[LockedFile]:
        """All that a mount shows, as it is now."""
        if self._entities.source is not None:
            await self._entities.source.fill()
        root = self._entities.root()
        walked = await walk_shown(self._entities.view, root, self._progress)
        records = await self._records(walked)
        inside = [each for each in records.values() if self._is_readable_inside(each)]
        objects = await find_objects(
            self._place.store, self._objects.prefix, {each.object_key for each in inside}
        )
        files: list[LockedFile] = []
        for each in walked:
            record = records.get(each.path)
            if record is None:
                continue
            try:
                files.append(await self._locked(each, record, objects))
            except (AccessDenied, NameTooLong, StoreFailure, SynapseRefusal) as exc:
                self._pinned.left_out[each.path] = without_frames(exc)
        return files

    async def _records(self, walked: Sequence[WalkedFile]) -> dict[str, FileRecord]:
        """Where the bytes of each file are, by path."""
        records: dict[str, FileRecord] = {}

        async def ask(each: WalkedFile) -> None:
            try:
                records[each.path] = await self._filler.want(each.header)
            except SynapseRefusal as exc:
                self._pinned.left_out[each.path] = without_frames(exc)
            self._progress.done()

        await work_off([partial(ask, each) for each in walked], WORKERS)
        return records

    def _is_readable_inside(self, record: FileRecord) -> bool:
        return not record.unreadable and self._objects.is_inside(record)

    async def _locked(
        self, walked: WalkedFile, record: FileRecord, objects: Mapping[str, ListedObject]
    ) -> LockedFile:
        if not can_hold(walked.path):
            raise NameTooLong("Its path is longer than one in a lock may be.")
        header, md5 = walked.header, record.md5
        etag = key = ""
        size_bytes = record.size_bytes
        if self._is_readable_inside(record):
            key = record.object_key
            if key not in objects:
                raise ObjectMissing(f"Synapse says that {header.entity_id} lies in {key}, and"
                                    " there is no such object.")  # fmt: skip
            etag, size_bytes = objects[key].etag, objects[key].size_bytes
            if record.size_bytes not in {None, size_bytes}:
                self._pinned.other_size.append(walked.path)
                md5 = ""  # it is that of other bytes
        elif size_bytes is None or not self._objects.is_open_to_us(record):
            version, _, _ = await self._objects.version(record)  # raises what cannot be read
            size_bytes = version.size_bytes
        created_unix_s = record.created_unix_s
        return LockedFile(
            walked.path,
            header.entity_id,
            header.version,
            size_bytes,
            md5,
            etag,
            key,
            header.modified_unix_s if created_unix_s is None else created_unix_s,
        )


async def find_objects(
    store: ObjectStore, prefix: str, keys: Collection[str]
) -> dict[str, ListedObject]:
    """What lies at these keys now, without those that do not exist.

    Lists everything below the prefix, unless single questions cost less. Raises what the store
    raises.
    """
    found: dict[str, ListedObject] = {}
    pages_max = 0
    if len(keys) >= SINGLE_MAX:
        pages_max = max(PAGES_MIN, int(len(keys) * PAGES_PER_FILE))
    token = None
    for _ in range(pages_max):
        page = await store.list_page(prefix, token=token, delimiter="")
        found |= {each.key: each for each in page.objects if each.key in keys}
        token = page.next_token
        if token is None:
            return found

    async def ask(key: str) -> None:
        if (there := await object_at(store, key)) is not None:
            found[key] = there

    await work_off([partial(ask, key) for key in keys if key not in found], SINGLE_WORKERS)
    return found


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock file in one step: readers see the old one, or all of the new one.

    The directory may be anybody's; links of others do not lead there. Raises BadArgument where it
    is not possible, and ForeignPath.
    """
    staged = f".{path.name}.{os.getpid()}"
    try:
        with OwnedDir.open(path.parent, any_owner=True, any_parents=True, follow=True) as directory:
            descriptor = directory.create_file(staged, mode=0o666)
            try:
                with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
                    file.writelines(render(lock))
                    file.flush()
                    os.fsync(file.fileno())
                directory.rename(staged, path.name)
            finally:
                directory.unlink(staged)
    except OSError as exc:
        raise BadArgument(f"{path} cannot be written: {exc.strerror}.") from exc
