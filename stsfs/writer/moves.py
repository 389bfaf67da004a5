"""Renames in S3: copies first, then removals, with a journal on the local disk.

While it is copied, a move can be undone; once all copies are there, it can only be finished. In
between both names exist. What another client has put at a source meanwhile is never removed.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import trio

from stsfs.errors import AccessDenied, StsfsError, WriteConflict
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.moves import MovedObject, MoveJournal, MoveRecord
from stsfs.store.object_store import (
    NO_TIME_UNIX_S,
    Expected,
    ListedObject,
    ObjectStore,
    ObjectVersion,
    ObjectWriter,
)
from stsfs.store.paging import Pages, object_at
from stsfs.writer.parallel import Call, work_off
from stsfs.writer.wire import LocationName

log = logging.getLogger(__name__)

COPIES_MAX = 8
"""Requests of one move at a time."""


class Mover:
    """Moves objects of one location. Raises what ObjectWriter raises, and what is named."""

    def __init__(
        self, location: LocationName, store: ObjectStore, writer: ObjectWriter,
        staging: StagingDirectory, *, copies_max: int = COPIES_MAX,
    ) -> None:  # fmt: skip
        self._location, self._store, self._writer = location, store, writer
        self._staging, self._copies_max = staging, copies_max

    async def move_object(
        self, source: ObjectVersion, target_key: str, *, path: str, target_path: str,
        storage_class: str = "", expected: Expected | None = None,
    ) -> ObjectVersion:  # fmt: skip
        """Move one version, in place of what is at target_key; returns what is there then.

        WriteConflict: the source is not that version any more, or what is expected is not at
        target_key, and nothing has happened. Other errors say so if both names exist.
        """
        moved = MovedObject(
            source_key=source.key,
            etag=source.etag,
            size_bytes=source.size_bytes,
            target_key=target_key,
            storage_class=_class_to_ask_for(storage_class),
        )
        copied = await self._move([moved], path, target_path, [expected])
        return copied[target_key]

    async def move_tree(
        self, objects: Sequence[ListedObject], source_prefix: str, target_prefix: str, *,
        path: str, target_path: str, replaced: ListedObject | None = None,
    ) -> Mapping[str, ObjectVersion]:  # fmt: skip
        """Move all of these objects from one prefix to another; returns them by their new keys.

        Only `replaced`, the marker of an empty directory, may be at one of the new keys. Where a
        copy fails, the others are removed again and nothing has happened: WriteConflict if
        something else is there. Where a removal fails, all copies stay, and the error says so.
        """
        moved = [
            MovedObject(
                source_key=each.key,
                etag=each.etag,
                size_bytes=each.size_bytes,
                target_key=target_prefix + each.key.removeprefix(source_prefix),
                storage_class=_class_to_ask_for(each.storage_class),
            )
            for each in objects
        ]
        there = {} if replaced is None else {replaced.key: replaced.etag}
        expected = [Expected(there.get(each.target_key)) for each in moved]
        return await self._move(moved, path, target_path, expected)

    async def resume(self, journal: MoveJournal) -> str:
        """Finish or undo what a process that died has begun; returns a sentence about it.

        A source goes only where its copy still is, and where nobody has made it anew since: the
        two together never lose bytes. Raises DamagedRecord for a journal that cannot be read.
        """
        record = await trio.to_thread.run_sync(journal.load)
        objects = record.objects
        for upload_id, index in record.uploads.items():
            await self._abort(objects[index].target_key, upload_id)
        sources = await self._listed(_common_prefix([each.source_key for each in objects]))
        targets = await self._listed(_common_prefix([each.target_key for each in objects]))
        copies = _copies(record, targets)
        unknown = [each for each in objects if each.target_key in targets.keys() - copies.keys()]
        copies |= await self._recognised(unknown, targets)
        if record.state == "deleting" or (len(objects) == 1 and copies):
            # The copies were all there. Where one was removed or replaced since, by somebody who
            # saw both names, its source is all there is of those bytes.
            moved = [each for each in objects if _may_go(each, sources, copies, targets)]
            await self._delete_sources(moved)
            stay = len(sources.keys() & {each.source_key for each in objects}) - len(moved)
            done = "finished"
            if stay:
                done += (
                    f"; {stay} objects stay at the old place: they or their copies may have changed"
                )
        else:
            whole = [each for each in objects if _is_there(each.source_key, each.etag, sources)]
            await self._delete_copies(whole, copies)
            done = "undone"
            if stay := len(targets.keys() & {each.target_key for each in objects} - copies.keys()):
                done += f"; {stay} objects stay at the new place, which may be another client's"
        await trio.to_thread.run_sync(journal.discard)
        return f"The rename of {record.path!r} to {record.new_path!r} was {done}."

    async def _recognised(
        self, objects: Sequence[MovedObject], targets: Mapping[str, ListedObject]
    ) -> dict[str, str]:
        """ETags of copies whose answers were lost, and that are not the ETags of their sources."""
        found: dict[str, str] = {}

        async def look(each: MovedObject) -> None:
            if targets[each.target_key].size_bytes == each.size_bytes:
                source = ObjectVersion(
                    self._location.location_id, each.source_key, each.etag, each.size_bytes
                )
                etag = await self._writer.copied(source, each.target_key)
                if etag is not None:
                    found[each.target_key] = etag

        await work_off((partial(look, each) for each in objects), at_once=self._copies_max)
        return found

    async def _move(
        self,
        objects: Sequence[MovedObject],
        path: str,
        target_path: str,
        expected: Sequence[Expected | None],
    ) -> Mapping[str, ObjectVersion]:
        record = MoveRecord(
            location_uri=self._location.uri,
            endpoint_url=self._location.endpoint_url,
            label=self._location.label,
            path=path,
            new_path=target_path,
            objects=tuple(objects),
            changed_unix_s=time.time(),
        )
        journal = await trio.to_thread.run_sync(self._staging.create_move, record)
        copies: dict[str, str] = {}
        try:
            await self._copy_all(objects, journal, copies, expected)
            if len(objects) > 1:
                await trio.to_thread.run_sync(journal.deleting)
        except StsfsError:
            await self._undo(objects, copies, expected, target_path)
            await trio.to_thread.run_sync(journal.discard)
            raise
        try:
            await self._delete_sources(objects)
        except StsfsError as exc:
            # Nobody is to finish it later: what is at the sources by then may be meant to be there.
            await trio.to_thread.run_sync(journal.discard)
            sentence = f"{path!r} was copied to {target_path!r} and not removed: both exist."
            raise type(exc)(f"{sentence} {exc.sentence}", remedy=exc.remedy) from exc
        await trio.to_thread.run_sync(journal.discard)
        return {
            each.target_key: ObjectVersion(
                self._location.location_id,
                each.target_key,
                copies[each.target_key],
                each.size_bytes,
            )
            for each in objects
        }

    async def _copy_all(
        self,
        objects: Sequence[MovedObject],
        journal: MoveJournal,
        copies: dict[str, str],
        expected: Sequence[Expected | None],
    ) -> None:
        conflicts: list[WriteConflict] = []
        pauses_s: list[float] = []

        async def copy(index: int, each: MovedObject) -> None:
            source = ObjectVersion(
                self._location.location_id, each.source_key, each.etag, each.size_bytes
            )
            copies[each.target_key] = ""  # under way: it may be there, whatever is answered

            async def note_upload(upload_id: str) -> None:
                await trio.to_thread.run_sync(journal.upload, index, upload_id)

            try:
                etag = await self._writer.copy(
                    source,
                    each.target_key,
                    storage_class=each.storage_class,
                    expected=expected[index],
                    on_upload=note_upload,
                    on_unchecked=pauses_s.append if len(objects) > 1 else None,
                )
            except WriteConflict as conflict:
                del copies[each.target_key]  # what is there, if anything, is another client's
                conflicts.append(conflict)
                return
            copies[each.target_key] = etag
            await trio.to_thread.run_sync(journal.copied, index, etag)

        def calls() -> Iterator[Call]:
            for index, each in enumerate(objects):
                if conflicts:
                    break
                yield partial(copy, index, each)

        # After a conflict, what is under way gets its answer: another client may be moving the
        # same objects to the same keys, and without the answer its copies look like ours.
        await work_off(calls(), at_once=self._copies_max)
        if conflicts:
            raise conflicts[0]
        if pauses_s:
            await trio.sleep(max(pauses_s))
            await self._look_at_copies(objects, copies)

    async def _look_at_copies(self, objects: Sequence[MovedObject], copies: dict[str, str]) -> None:
        """Raise WriteConflict where another client has replaced a copy unseen.

        One listing for all of them, in place of a look and a pause for each. It comes later than
        those would, so that it misses nothing that they would see.
        """
        there = await self._listed(_common_prefix([each.target_key for each in objects]))
        replaced = [key for key, etag in copies.items() if not _is_there(key, etag, there)]
        for key in replaced:
            del copies[key]
        if replaced:
            raise WriteConflict(f"{replaced[0]!r} was changed by another client.")

    async def _abort(self, key: str, upload_id: str) -> None:
        """Give up the upload of a process that died; where that is denied, it stays behind."""
        try:
            await self._writer.abort_upload(key, upload_id)
        except AccessDenied as denied:
            log.warning("the upload %s of %r stays behind: %s", upload_id, key, denied)

    async def _undo(
        self,
        objects: Sequence[MovedObject],
        copies: Mapping[str, str],
        expected: Sequence[Expected | None],
        target_path: str,
    ) -> None:
        """Remove the copies that were made, and have replaced nothing.

        One whose source is gone stays: another client has moved it to the same place.
        """
        if len(objects) == 1:
            return
        try:
            sources = await self._listed(_common_prefix([each.source_key for each in objects]))
            made: dict[str, str] = {}
            for each, was_there in zip(objects, expected, strict=True):
                etag = copies.get(each.target_key)
                is_new = was_there is None or was_there.etag is None
                if etag is None or not is_new or each.source_key not in sources:
                    continue
                if etag == "":
                    there = await self._listed(each.target_key, only=True)
                    etag = each.etag if _is_there(each.target_key, each.etag, there) else ""
                if etag:
                    made[each.target_key] = etag
            await self._delete_copies(objects, made)
        except StsfsError as exc:
            log.error("copies are left in %r: %s", target_path, exc)

    async def _delete_sources(self, objects: Sequence[MovedObject]) -> None:
        calls = (partial(self._delete, each.source_key, each.etag) for each in objects)
        await work_off(calls, at_once=self._copies_max)

    async def _delete_copies(
        self, objects: Sequence[MovedObject], copies: Mapping[str, str]
    ) -> None:
        calls: Iterator[Call] = (
            partial(self._delete, each.target_key, copies[each.target_key])
            for each in objects
            if each.target_key in copies
        )
        await work_off(calls, at_once=self._copies_max)

    async def _delete(self, key: str, etag: str) -> None:
        try:
            await self._writer.delete(key, expected=Expected(etag))
        except WriteConflict:
            log.warning("%r was replaced by another client while it was moved, and stays", key)

    async def _listed(self, prefix: str, *, only: bool = False) -> dict[str, ListedObject]:
        """What S3 has with this prefix; only: at most the object of just this key."""
        if only:
            there = await object_at(self._store, prefix)
            return {} if there is None else {prefix: there}
        found: dict[str, ListedObject] = {}
        pages = Pages(self._store, prefix)
        while (page := await pages.next()) is not None:
            found |= {each.key: each for each in page.objects}
        return found


def _copies(record: MoveRecord, targets: Mapping[str, ListedObject]) -> dict[str, str]:
    """ETags of the copies that are there, by key.

    The answer to one may have been lost with the process: the same bytes are as good as a copy.
    """
    found = {}
    for index, each in enumerate(record.objects):
        etag = record.copied.get(index, each.etag)
        if _is_there(each.target_key, etag, targets):
            found[each.target_key] = etag
    return found


def _may_go(
    each: MovedObject,
    sources: Mapping[str, ListedObject],
    copies: Mapping[str, str],
    targets: Mapping[str, ListedObject],
) -> bool:
    """Whether the source is still the object that was copied, and its copy is there.

    One with the same bytes may have been put there since: the store's own clock tells, to the
    second, because what was copied is not younger than its copy. A store that tells no times, or
    the year 1, does not tell that.
    """
    if each.target_key not in copies or not _is_there(each.source_key, each.etag, sources):
        return False
    copied_unix_s = targets[each.target_key].modified_unix_s
    return NO_TIME_UNIX_S < sources[each.source_key].modified_unix_s <= copied_unix_s


def _is_there(key: str, etag: str, listed: Mapping[str, ListedObject]) -> bool:
    found = listed.get(key)
    return found is not None and found.etag == etag


def _common_prefix(keys: Sequence[str]) -> str:
    first, last = min(keys), max(keys)
    length = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
        min(len(first), len(last)),
    )
    return first[:length]


def _class_to_ask_for(storage_class: str) -> str:
    """Empty for the one that a copy has by itself."""
    return "" if storage_class == "STANDARD" else storage_class
