"""From a file handle to the object it means: the S3 side of an entity.

Synapse tells bucket and key, but neither ETag nor whether the object is still what it was. One
LIST of the key tells both; an inventory of the whole location saves most of those.
"""

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio
from cachetools import LRUCache

from stsfs import values
from stsfs.entities.index import EntityIndex
from stsfs.entities.records import FileRecord, ObjectFact
from stsfs.errors import AccessDenied, ObjectMissing, StsfsError
from stsfs.store.object_store import ObjectStore, ObjectVersion
from stsfs.store.paging import object_at

log = logging.getLogger(__name__)

FACTS_MAX = 10_000
INVENTORY_PAGES_MAX = 100
"""Of a thousand keys each: what a larger location holds is asked for key by key."""

INVENTORY_FRESH_S = 600.0
_INVENTORY = "inventory_unix_s"

Probe = Callable[[str], Awaitable[tuple[str, int, float]]]
"""ETag, size and time of what lies outside, by the name of its version (PresignedStore.probe)."""


@dataclass(frozen=True, slots=True)
class Outside:
    """How files outside the location are read; their versions have a location of their own."""

    location_id: int
    probe: Probe


def _is_signed_for(record: FileRecord) -> bool:
    """Whether a file lies in a bucket, so that a URL of it is one that Synapse has signed.

    For all others it hands on what whoever made the entity has written.
    """
    return bool(record.handle_id and record.bucket)


def _refusal(record: FileRecord) -> AccessDenied:
    """The error for a file outside that is not read."""
    entity_id = record.key.entity_id
    if not record.bucket:
        return AccessDenied(
            f"The bytes of {entity_id} lie in no bucket: Synapse knows an address of them only,"
            " which stsfs does not ask.",
            remedy=f"See https://www.synapse.org/Synapse:{entity_id}.{record.key.version}.",
        )
    scheme = "" if "://" in record.bucket else "s3://"
    return AccessDenied(
        f"The bytes of {entity_id} lie outside the storage location"
        f" ({scheme}{record.bucket}/{record.object_key}).",
        remedy="Mount with --outside fetch to read them by way of Synapse.",
    )


def outside_name(entity_id: str, handle_id: str) -> str:
    """What the key of a version outside is: enough to ask Synapse for its URL."""
    return f"{entity_id}/{handle_id}"


class Objects:
    """The objects of one storage location."""

    def __init__(
        self,
        location_id: int,
        bucket: str,
        prefix: str,
        store: ObjectStore,
        index: EntityIndex,
        *,
        outside: Outside | None = None,
    ) -> None:
        self.bucket, self.prefix = bucket, prefix
        self.inventory_unix_s: float | None = None
        """When the last complete inventory was begun."""

        self._location_id = location_id
        self._store = store
        self._index = index
        self._outside = outside
        self._facts: LRUCache[str, ObjectFact] = LRUCache(FACTS_MAX)

    def is_inside(self, record: FileRecord) -> bool:
        """Whether the credentials of the location open the object of a file."""
        return record.bucket == self.bucket and record.object_key.startswith(self.prefix)

    def is_open_to_us(self, record: FileRecord) -> bool:
        """Whether this mount reads the bytes of a file at all, wherever they lie."""
        if record.unreadable:
            return False
        return self.is_inside(record) or (self._outside is not None and _is_signed_for(record))

    async def remembered(self, records: list[FileRecord]) -> dict[str, ObjectFact]:
        """What is known of the objects of these files; asks nobody."""
        keys = [each.object_key for each in records if each.object_key and self.is_inside(each)]
        missing = [key for key in keys if key not in self._facts]
        if missing:
            self._facts.update(await self._index.ask(self._index.objects, missing))
        return {key: fact for key in keys if (fact := self._facts.get(key)) is not None}

    async def fact(self, record: FileRecord) -> tuple[ObjectFact, bool]:
        """The object of a file in the location, and whether the store was asked just now.

        Raises ObjectMissing where there is none.
        """
        known = (await self.remembered([record])).get(record.object_key)
        if known is not None:
            return known, False
        key = record.object_key
        there = await object_at(self._store, key)
        if there is None:
            raise ObjectMissing(
                f"Synapse says that {record.key.entity_id} lies in s3://{self.bucket}/{key}, and"
                " there is no such object.",
                remedy="It was deleted without Synapse; whoever did that may upload it again.",
            )
        found = ObjectFact(*there[1:])
        await self.remember({key: found})
        return found, True

    async def version(self, record: FileRecord) -> tuple[ObjectVersion, ObjectFact, bool]:
        """The version of a file, its object, and whether the store was asked just now.

        Raises AccessDenied for a file that may not be read, and what the store raises.
        """
        entity_id, version_number = record.key.entity_id, record.key.version
        if record.unreadable:
            raise AccessDenied(
                record.unreadable,
                remedy=f"See https://www.synapse.org/Synapse:{entity_id}.{version_number}.",
            )
        if self.is_inside(record):
            fact, asked = await self.fact(record)
            key = record.object_key
            return ObjectVersion(self._location_id, key, fact.etag, fact.size_bytes), fact, asked
        if self._outside is None or not self.is_open_to_us(record):
            raise _refusal(record)
        name = outside_name(entity_id, record.handle_id)
        etag, size_bytes, modified_unix_s = await self._outside.probe(name)
        fact = ObjectFact(etag, size_bytes, modified_unix_s, "")
        return ObjectVersion(self._outside.location_id, name, etag, size_bytes), fact, True

    async def remember(self, facts: dict[str, ObjectFact]) -> None:
        """Keep what a LIST has shown."""
        self._facts.update(facts)
        await self._index.ask(self._index.save_objects, list(facts.items()))

    async def forget(self, key: str) -> None:
        """The store has said that this object is another by now."""
        self._facts.pop(key, None)
        await self._index.ask(self._index.forget_object, key)

    async def take_inventory(self) -> None:
        """List the whole location once, unless that was done lately or it is too large."""
        told = await self._index.ask(self._index.meta, _INVENTORY)
        begun_unix_s = time.time()
        if told is not None:
            with contextlib.suppress(ValueError):
                self.inventory_unix_s = values.unix_s(float(told))
                if 0 <= begun_unix_s - self.inventory_unix_s < INVENTORY_FRESH_S:
                    return
        token = None
        try:
            for _ in range(INVENTORY_PAGES_MAX):
                page = await self._store.list_page(self.prefix, token=token, delimiter="")
                facts = [(each.key, ObjectFact(*each[1:])) for each in page.objects]
                await self._index.ask(self._index.save_objects, facts)
                await trio.lowlevel.checkpoint()
                token = page.next_token
                if token is None:
                    await self._index.ask(self._index.forget_objects_before, begun_unix_s)
                    await self._index.ask(self._index.set_meta, _INVENTORY, str(begun_unix_s))
                    self.inventory_unix_s = begun_unix_s
                    return
        except StsfsError as exc:
            log.info("the inventory of s3://%s/%s: %s", self.bucket, self.prefix, exc)
