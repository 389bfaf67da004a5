"""What `stsfs find` does: tries a condition on every file of a location.

An entity view of Synapse answers in one query what a walk answers in many requests. It is asked
where one was named and the condition can be said in SQL; both find the same files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import trio

from stsfs.daemon import locks
from stsfs.daemon.config import PlaceOptions
from stsfs.daemon.locks import LockTarget
from stsfs.daemon.opening import open_places
from stsfs.daemon.pinning import pinned_keys
from stsfs.daemon.places import Place, Places
from stsfs.entities.condition import Condition, Facts
from stsfs.entities.location import EntityLocation
from stsfs.entities.lock_file import LockedFile
from stsfs.entities.moment import PastMoment
from stsfs.entities.names import MAGIC_NAME
from stsfs.entities.parallel import work_off
from stsfs.entities.walk import WORKERS, Progress, WalkedFile, walk_headers, with_records
from stsfs.errors import (
    BadArgument,
    EntityInTrash,
    EntityNotFound,
    PermissionMissing,
    SynapseRefusal,
)
from stsfs.location.parse import SynapseTarget
from stsfs.synapse.client import SynapseClient
from stsfs.synapse.records import TableRows, entity_id, md5, number
from stsfs.synapse.transport import parsed
from stsfs.vfs.listing import is_file_name

KEY_FIELDS = frozenset({"name", "type", "size", "modified_on"})
"""What a bucket knows of a file."""

LOCK_FIELDS = KEY_FIELDS | {"id", "version", "md5"}

_RECORD_FIELDS = frozenset({"size", "md5"})
"""What the listing of a folder does not tell."""

_COLUMNS = ("id", "name", "type", "parentId", "currentVersion")
_MORE_COLUMNS = ("dataFileSizeBytes", "dataFileMD5Hex")

Say = Callable[[str], None]
"""Tells the user a sentence."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file for which the condition is true."""

    path: str
    """Below the location, without a slash in front."""

    entity_id: str = ""
    """Empty where keys are shown; so is `md5`."""

    version: int | None = None
    size_bytes: int | None = None
    """None where nobody has asked for it; see `find`."""

    md5: str = ""


async def find(
    options: PlaceOptions,
    condition: Condition,
    told: Callable[[Progress], None],
    say: Say,
    *,
    complete: bool = False,
) -> list[FoundFile]:
    """All files of one location for which the condition is true, by path; links are not followed.

    With `complete`, sizes and MD5s are asked for although the condition does not need them.
    Raises BadArgument for what the location cannot know, and what `open_places`, EntityApi and the
    store raise.
    """
    (location,) = options.locations
    target = await trio.to_thread.run_sync(locks.location_of, location)
    if isinstance(target, LockTarget):
        what = f"The lock {target}"
        known = LOCK_FIELDS if target.lock.view == "entities" else KEY_FIELDS
        _check_known(condition, known, what, f"Search {target.lock.location} itself.")
        return _of_locked(target.lock.files, condition)
    if isinstance(target, SynapseTarget) and options.view == "auto":
        options = replace(options, view="entities")
    elif options.view != "entities":
        _check_known(condition, KEY_FIELDS, f"The bucket of {target}", "Name a folder of Synapse.")
    places = await open_places(options)
    try:
        search = _Search(places, options, condition, Progress(told), say, complete)
        found = await search.all()
    finally:
        await places.aclose()
    return sorted(found, key=lambda each: each.path.encode())


def _check_known(condition: Condition, known: frozenset[str], what: str, remedy: str) -> None:
    for term in condition.terms:
        if not term.is_field or term.name not in known:
            raise BadArgument(
                f"{what} knows of a file its {', '.join(sorted(known))}, and not {term.name!r}.",
                remedy=remedy,
            )


def _of_locked(files: Sequence[LockedFile], condition: Condition) -> list[FoundFile]:
    return [
        FoundFile(each.path, each.entity_id, each.version, each.size_bytes, each.md5)
        for each in files
        if condition.matches(
            Facts(
                each.path.rpartition("/")[2],
                each.entity_id,
                "file",
                each.version,
                each.size_bytes,
                each.md5,
                modified_unix_s=each.modified_unix_s,
            )
        )
    ]


@dataclass(frozen=True, slots=True)
class _Search:
    """One search of all locations that were named."""

    places: Places
    options: PlaceOptions
    condition: Condition
    progress: Progress
    say: Say
    complete: bool

    async def all(self) -> list[FoundFile]:
        found: list[FoundFile] = []
        for place in self.places.all:
            above = "".join(f"{name}/" for name in place.path)
            inner = await self._in(place)
            found += [replace(each, path=above + each.path) for each in inner]
        return found

    async def _in(self, place: Place) -> list[FoundFile]:
        if place.entities is None:
            return await self._by_keys(place)
        if self.options.index_view is not None and self.options.as_of is None:
            assert self.places.synapse is not None
            client, view_id = self.places.synapse.client, self.options.index_view
            found = await self._by_query(client, view_id, place.entities.view.root_id)
            if found is not None:
                return found
        return await self._by_walk(place.entities)

    async def _by_keys(self, place: Place) -> list[FoundFile]:
        async with trio.open_nursery() as nursery:
            await nursery.start(place.lease.keep_fresh)
            files = await pinned_keys(place.store, place.location, self.progress)
            nursery.cancel_scope.cancel()
        return _of_locked(files, self.condition)

    async def _by_walk(self, entities: EntityLocation) -> list[FoundFile]:
        """Look at every file, and ask about each one as far as the condition needs that."""
        filler, api = entities.filler, entities.filler.api
        moment_unix_s = self.options.as_of_unix_s
        moment = None if moment_unix_s is None else PastMoment(api, moment_unix_s)
        files = await walk_headers(filler, entities.view.root_id, self.progress, moment)
        annotations = self.condition.needs_annotations
        if self.complete or annotations or self._needs_records():
            if entities.source is not None:
                await entities.source.fill()
            files = await with_records(filler, files, self.progress, annotations=annotations)
        return [_of_walked(each) for each in files if self.condition.matches(_facts(each))]

    def _needs_records(self) -> bool:
        return any(each.is_field and each.name in _RECORD_FIELDS for each in self.condition.terms)

    async def _by_query(
        self, client: SynapseClient, view_id: str, root_id: str
    ) -> list[FoundFile] | None:
        """Ask an entity view; None, and a word to the user, where it cannot answer."""
        api = client.entities
        try:
            types = await api.columns(view_id)
            wanted = [*_COLUMNS, *(_MORE_COLUMNS if self.complete else ())]
            missing = [each for each in wanted if each not in types]
            if missing:
                self._say_walk(f"{view_id} has no column {', '.join(missing)}")
                return None
            select = [*_COLUMNS, *(each for each in _MORE_COLUMNS if each in types)]
            sql = self.condition.to_sql(view_id, types, select)
            if sql is None:
                self._say_walk(f"The condition cannot be asked of {view_id}")
                return None
            rows = await api.query(view_id, sql)
        except SynapseRefusal as exc:
            self._say_walk(exc.sentence.rstrip("."))
            return None
        found, left_out = parsed(rows, f"the query of {view_id}", files_of_rows)
        if 0 < left_out == len(rows.rows) + rows.left_out:
            self._say_walk(f"No row of {view_id} makes sense")
            return None
        if left_out:
            self.say(f"{left_out} rows of {view_id} make no sense: what they stand for is missing.")
        paths = await _paths_of(client, root_id, {parent_id for parent_id, _ in found})
        return [
            replace(each, path=paths[parent_id] + each.path)
            for parent_id, each in found
            if parent_id in paths and not _is_magic(paths[parent_id] + each.path)
        ]

    def _say_walk(self, why: str) -> None:
        self.say(f"{why}; every file is looked at instead.")


def _is_magic(path: str) -> bool:
    return path.partition("/")[0].encode("utf-8", "surrogatepass") == MAGIC_NAME


def _facts(walked: WalkedFile) -> Facts:
    header, record = walked.header, walked.record
    return Facts(
        header.name,
        header.entity_id,
        "file",
        header.version,
        None if record is None else record.size_bytes,
        "" if record is None else record.md5,
        header.created_by,
        header.modified_by,
        header.created_unix_s,
        header.modified_unix_s,
        {} if record is None or record.annotations is None else record.annotations,
    )


def _of_walked(walked: WalkedFile) -> FoundFile:
    facts = _facts(walked)
    return FoundFile(walked.path, facts.id, facts.version, facts.size_bytes, facts.md5)


def files_of_rows(rows: TableRows) -> tuple[list[tuple[str, FoundFile]], int]:
    """The files among the rows of a view that a mount can show, with their parents' ids. Pure.

    And how many rows make no sense. Raises KeyError where there are rows without what was selected.
    """
    found: list[tuple[str, FoundFile]] = []
    taken: set[tuple[str, str]] = set()
    left_out = rows.left_out
    for row in rows.rows:
        cells = dict(zip(rows.columns, row, strict=True))
        name, kind = cells["name"] or "", cells["type"]
        if kind != "file" or not is_file_name(name.encode("utf-8", "surrogatepass")):
            continue
        version, size = cells["currentVersion"], cells.get("dataFileSizeBytes")
        try:
            parent_id = entity_id(cells, "parentId")
            file = FoundFile(
                name,
                entity_id(cells, "id"),
                None if version is None else number(version),
                None if size is None else number(size),
                md5(cells.get("dataFileMD5Hex")),
            )
        except (TypeError, ValueError):
            left_out += 1
            continue
        if (parent_id, name) not in taken:
            taken.add((parent_id, name))
            found.append((parent_id, file))
    return found, left_out


async def _paths_of(client: SynapseClient, root_id: str, folder_ids: set[str]) -> Mapping[str, str]:
    """The paths of folders below the root, with a slash at the end; without those elsewhere."""
    paths: dict[str, str] = {}

    async def ask(folder_id: str) -> None:
        try:
            path = await client.entity_path(folder_id)
        except (EntityNotFound, EntityInTrash, PermissionMissing):
            return
        ids = [each.entity_id for each in path]
        if root_id in ids:
            names = [each.name for each in path[ids.index(root_id) + 1 :]]
            if all(is_file_name(each.encode("utf-8", "surrogatepass")) for each in names):
                paths[folder_id] = "".join(f"{name}/" for name in names)

    await work_off([partial(ask, each) for each in folder_ids], WORKERS)
    return paths
