"""Fills the index: what somebody waits for at once, its neighbours next, all the rest in between.

Synapse tells of one file in one request, and allows 600 in a minute. So a reader's question also
begins the questions that he is about to ask (`ls -l` goes through a folder in order), and what
nobody asks for is fetched in the background with the requests that others leave.
"""

import copy
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio
from cachetools import LRUCache, TTLCache

from stsfs.entities.index import EntityIndex
from stsfs.entities.parallel import work_off
from stsfs.entities.records import FILE_KIND, LINK_KIND, FileKey, FileRecord, key_of
from stsfs.errors import (
    EntityInTrash,
    EntityNotFound,
    PermissionMissing,
    StsfsError,
    SynapseRefusal,
)
from stsfs.supervisor import BUGS, kept_running
from stsfs.synapse.entities import EntityApi
from stsfs.synapse.paging import Paging
from stsfs.synapse.records import ChildHeader, EntityBundle, annotation_chars

log = logging.getLogger(__name__)

AHEAD_FILES = 64
"""So many of a folder are asked for ahead of whoever looks at it in order."""

AHEAD_WORKERS = 2
"""Of three requests at a time one is left for those who wait."""

AHEAD_MAX = 1000
"""Files that wait for their turn; the oldest give way."""

CRAWL_WORKERS = 2
CRAWL_BATCH = 100
CRAWL_PAUSE_S = 30.0
"""Between looks for something to fetch, when all is known; and after trouble."""

WEIGHED_CHARS = 5000
RECORDS_MAX = 10_000
"""Kept in memory; one with many annotations counts as several."""

BUNDLES_MAX = 1000
BUNDLE_BELIEVED_S = 30.0
FAILURE_REMEMBERED_S = 5.0
REFUSAL_BELIEVED_S = 300.0
"""A file that may not be read is asked for again after this: somebody may have allowed it."""

BULK_FILES_MIN = 20
"""Fewer files than these are asked for one by one."""

BULK_PAUSE_S = 60.0

FILLING = "filling the index"
"""The task that nobody waits for, as bugs in it are named."""

InBulk = Callable[[], Awaitable[None]]
"""Asks about all files at once, and saves that in the index."""


class Filler:
    """Knows, or finds out, where the bytes of a file are. `run` must be running."""

    def __init__(
        self, api: EntityApi, index: EntityIndex, *, in_bulk: InBulk | None = None
    ) -> None:
        self.api, self.index = api, index
        self.is_complete = False
        """The background has nothing left to fetch."""

        self.last_error = ""
        self._in_bulk = in_bulk
        self._bulk_s = float("-inf")
        self._known: LRUCache[FileKey, FileRecord] = LRUCache(RECORDS_MAX, getsizeof=_weight)
        self._asked: dict[tuple[FileKey, bool], trio.Event] = {}
        """Under way, and whether in the background: that may take long, and who waits asks too."""

        self._failures: LRUCache[FileKey, tuple[float, StsfsError]] = LRUCache(RECORDS_MAX)
        self._refused_s: LRUCache[FileKey, float] = LRUCache(RECORDS_MAX)
        self._bundles: TTLCache[str, EntityBundle] = TTLCache(
            BUNDLES_MAX, BUNDLE_BELIEVED_S, timer=trio.current_time, getsizeof=_weight
        )
        self._ahead: OrderedDict[FileKey, ChildHeader] = OrderedDict()
        self._ahead_added = trio.Event()
        self._put_off: set[str] = set()
        """Entities that failed: they come after all others, once more."""

        self._broken: set[str] = set()
        """Entities that met a bug: nobody asks for them in the background again."""

        self._more = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the requests that nobody waits for, until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(AHEAD_WORKERS):
                nursery.start_soon(kept_running, "asking Synapse ahead", self._fetch_ahead)
            nursery.start_soon(kept_running, FILLING, self._crawl)
            task_status.started()
            await trio.sleep_forever()

    def known(self, key: FileKey) -> FileRecord | None:
        """What is in memory."""
        return self._known.get(key)

    async def remembered(self, headers: Sequence[ChildHeader]) -> dict[FileKey, FileRecord]:
        """What memory and index know of these files; asks nobody."""
        keys = [key_of(each) for each in headers if each.kind in {FILE_KIND, LINK_KIND}]
        found = {key: record for key in keys if (record := self._known.get(key)) is not None}
        missing = [key for key in keys if key not in found]
        if missing:
            told = await self.index.ask(self.index.files, missing)
            self._known.update(told)
            found |= told
        return found

    async def want(self, header: ChildHeader, *, background: bool = False) -> FileRecord:
        """Where the bytes of this version are. Several callers share one request.

        Raises what EntityApi raises; a file that may be seen but not read is no error here.
        """
        key = key_of(header)
        while True:
            known = self._known.get(key)
            if known is None:
                known = (await self.remembered([header])).get(key)
            if known is not None and (background or self._is_believed(known)):
                return known
            failed_s, error = self._failures.get(key, (0.0, None))
            if error is not None and trio.current_time() < failed_s + FAILURE_REMEMBERED_S:
                raise copy.copy(error)
            under_way = self._asked.get((key, False))
            if under_way is None and background:
                under_way = self._asked.get((key, True))
            if under_way is None:
                return await self._ask(header, key, background=background)
            await under_way.wait()

    async def again(self, header: ChildHeader) -> FileRecord:
        """Ask about a version of which something is known already."""
        return await self._asked_now(header, key_of(header), background=False)

    async def bundle(self, entity_id: str) -> EntityBundle:
        """All about an entity; remembered for a while."""
        known = self._bundles.get(entity_id)
        if known is None:
            known = self._bundles[entity_id] = await self.api.bundle(entity_id)
        return known

    def _is_believed(self, record: FileRecord) -> bool:
        if not record.unreadable:
            return True
        return (
            trio.current_time()
            < self._refused_s.get(record.key, float("-inf")) + REFUSAL_BELIEVED_S
        )

    def ahead(self, headers: Sequence[ChildHeader]) -> None:
        """Somebody goes through these files in order, and will ask for them soon."""
        added = 0
        for header in headers:
            key = key_of(header)
            if header.kind != FILE_KIND or key in self._known or (key, False) in self._asked:
                continue
            self._ahead.setdefault(key, header)
            added += 1
            if added >= AHEAD_FILES:
                break
        while len(self._ahead) > AHEAD_MAX:
            self._ahead.popitem(last=False)
        if self._ahead:
            self._ahead_added.set()

    def more(self) -> None:
        """The index has learnt of folders or files: there is something to fetch."""
        self.is_complete = False
        self._more.set()

    async def remember(self, records: Sequence[FileRecord]) -> None:
        """Keep what was learnt otherwise."""
        await self.index.ask(self.index.save_files, records)
        self._known.update({each.key: each for each in records})

    async def _ask(self, header: ChildHeader, key: FileKey, *, background: bool) -> FileRecord:
        done = self._asked[key, background] = trio.Event()
        try:
            return await self._asked_now(header, key, background=background)
        except StsfsError as exc:
            # A copy: the frames that exc comes through hold what they worked on.
            self._failures[key] = (trio.current_time(), copy.copy(exc))
            raise
        finally:
            del self._asked[key, background]
            done.set()

    async def _asked_now(
        self, header: ChildHeader, key: FileKey, *, background: bool
    ) -> FileRecord:
        record = await self._fetched(header, key, background=background)
        if record.unreadable:
            self._refused_s[key] = trio.current_time()
        await self.remember([record])
        return record

    async def _fetched(self, header: ChildHeader, key: FileKey, *, background: bool) -> FileRecord:
        version = key.version if header.kind == FILE_KIND else None
        try:
            bundle = await self.api.bundle(key.entity_id, version, background=background)
        except PermissionMissing as exc:
            return FileRecord(key, unreadable=str(exc))
        record = record_of(bundle, key)
        if record.unreadable and record.size_bytes is None and header.kind == FILE_KIND:
            # Everyone who may see a file may know its size, but from its versions only.
            for each in await self.api.versions(key.entity_id, background=background):
                if each is not None and each.version == key.version:
                    return _with_size(record, each.size_bytes, each.md5)
        return record

    async def _fetch_ahead(self) -> None:
        while True:
            while self._ahead:
                _, header = self._ahead.popitem(last=False)
                try:
                    await self.want(header)
                except StsfsError as exc:
                    log.debug("%s ahead: %s", header.entity_id, exc)  # who asks will hear it
                except Exception as bug:  # noqa: BLE001 - of this file; the others are asked for
                    BUGS.note(f"asking for {header.entity_id} ahead", bug)
            if self._ahead_added.is_set():  # the other worker may wait for a new one already
                self._ahead_added = trio.Event()
            await self._ahead_added.wait()

    async def _crawl(self) -> None:
        """Fetch everything, and then what others add. A bug ends this, and not the mount."""
        while True:
            self._more = trio.Event()
            try:
                await self._ask_in_bulk()
                while await self._crawl_some():
                    pass
                if not self._put_off:
                    self.is_complete, self.last_error = not self._more.is_set(), ""
                    await self._more.wait()
                    continue
                self._put_off.clear()
            except StsfsError as exc:
                self.last_error = str(exc)
                log.info("filling the index: %s", exc)
            except Exception as bug:  # noqa: BLE001 - it would be met again
                self.last_error = f"A bug of stsfs: {bug!r}."
                BUGS.note(FILLING, bug)
                return
            await trio.sleep(CRAWL_PAUSE_S)

    async def _ask_in_bulk(self) -> bool:
        """Whether there was something to ask, which had not been asked just before."""
        now_s = trio.current_time()
        if self._in_bulk is None or now_s < self._bulk_s + BULK_PAUSE_S:
            return False
        self._bulk_s = now_s
        await self._in_bulk()
        return True

    async def _crawl_some(self) -> bool:
        """A batch of folders and files; False when there are none left."""
        index, passed = self.index, self._put_off | self._broken
        limit = CRAWL_BATCH + len(passed)
        folders = await index.ask(index.unlisted_folders, limit)
        folders = [each for each in folders if each[0] not in passed]
        files = await index.ask(index.unknown_files, limit)
        files = [each for each in files if each.entity_id not in passed]
        if not folders and not files:
            return False
        if not folders and len(files) >= BULK_FILES_MIN and await self._ask_in_bulk():
            return True
        # Folders first: with them the number of files is known, and how long all will take.
        if folders:
            steps = [(each[0], partial(self._crawl_folder, *each)) for each in folders]
        else:
            steps = [(each.entity_id, partial(self._crawl_file, each)) for each in files]
        await work_off([partial(self._step, *step) for step in steps], CRAWL_WORKERS)
        return True

    async def _step(self, entity_id: str, call: Callable[[], Awaitable[None]]) -> None:
        """One request of the crawl: what always fails must not keep it from all the rest."""
        try:
            await call()
        except StsfsError:
            self._put_off.add(entity_id)
            raise
        except Exception as bug:  # noqa: BLE001 - of this entity; the others are asked for
            self._broken.add(entity_id)
            BUGS.note(f"asking for {entity_id}", bug)

    async def _crawl_file(self, header: ChildHeader) -> None:
        try:
            await self.want(header, background=True)
        except SynapseRefusal as exc:
            await self.remember([FileRecord(key_of(header), unreadable=str(exc))])

    async def _crawl_folder(self, folder_id: str, path: str) -> None:
        try:
            headers = await all_children(self.api, folder_id, background=True)
        except (EntityNotFound, EntityInTrash, PermissionMissing) as exc:
            log.info("%s is not listed: %s", folder_id, exc)
            await self.index.ask(self.index.forget_folder, folder_id)
            return
        await self.index.ask(self.index.save_listed, folder_id, path, headers)


async def all_children(
    api: EntityApi, folder_id: str, *, background: bool = False
) -> list[ChildHeader]:
    """All children of a folder, each once: paging by offset may show one twice.

    Raises SynapseUnavailable for pages that do not come to an end, too.
    """
    found: dict[str, ChildHeader] = {}
    paging = Paging(f"the request for the children of {folder_id}")
    token = None
    while True:
        page = await api.children(folder_id, token=token, background=background)
        count_before = len(found)
        found |= {each.entity_id: each for each in page.children}
        token = page.next_token
        if token is None:
            return list(found.values())
        paging.turn(token, new=len(found) - count_before)


def record_of(bundle: EntityBundle, key: FileKey) -> FileRecord:
    """What a bundle tells of the version of key. Pure."""
    handle = bundle.handle
    target = ""
    if bundle.link_target is not None:
        entity_id, version = bundle.link_target
        target = entity_id if version is None else f"{entity_id}.{version}"
    if handle is None:
        return FileRecord(
            key,
            handle_id=bundle.handle_id or "",
            unreadable=_why_unreadable(bundle),
            annotations=bundle.annotations,
            link_target=target,
        )
    return FileRecord(
        key,
        handle.handle_id,
        handle.bucket or "",
        handle.key or "",
        handle.size_bytes,
        handle.md5,
        handle.created_unix_s,
        annotations=bundle.annotations,
    )


def _why_unreadable(bundle: EntityBundle) -> str:
    entity_id = bundle.header.entity_id
    if bundle.header.kind != FILE_KIND:
        return ""
    if bundle.has_unmet_requirement:
        return f"Conditions for the use of {entity_id} have not been accepted or approved for you."
    return f"You lack the DOWNLOAD permission on {entity_id}."


def _weight(told: FileRecord | EntityBundle) -> int:
    """What one counts towards the limit: its annotations may have a million characters."""
    annotations = told.annotations or {}
    chars = sum(annotation_chars(name, texts) for name, texts in annotations.items())
    return min(1 + chars // WEIGHED_CHARS, BUNDLES_MAX)


def _with_size(record: FileRecord, size_bytes: int | None, md5: str) -> FileRecord:
    return FileRecord(
        record.key,
        record.handle_id,
        size_bytes=size_bytes,
        md5=md5,
        unreadable=record.unreadable,
        annotations=record.annotations,
    )
