"""A lock file as a directory: every file in the version that was pinned, and nothing else.

What has changed since is not shown in its new state, nor in a mixture: opening it ends with
StaleVersion, in a sentence that names both versions. Synapse is asked only about files outside
the storage location, and about what has changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from stsfs.entities.filler import record_of
from stsfs.entities.index import EntityIndex
from stsfs.entities.lock_file import Lock, LockedFile
from stsfs.entities.objects import Objects
from stsfs.entities.properties import PREFIX, iso
from stsfs.entities.records import FileRecord, key_of
from stsfs.errors import AccessDenied, BadArgument, StaleVersion, StsfsError
from stsfs.store.object_store import ObjectStore, ObjectVersion
from stsfs.store.paging import object_at
from stsfs.synapse.entities import EntityApi
from stsfs.vfs.nodes import Directory, File, Node, Site, new_number, path_of
from stsfs.vfs.static_view import StaticView


@dataclass(slots=True, eq=False)
class PinnedFile(File):
    """A file of a lock. Without a key its version is learnt at the first open."""

    locked: LockedFile | None = None

    @property
    def pinned(self) -> LockedFile:
        """What the lock says, which every file of this view has."""
        assert self.locked is not None
        return self.locked

    @property
    def key(self) -> str:
        """Empty for what lies outside the location."""
        return self.pinned.key

    @property
    def md5(self) -> str:
        """What Synapse had on record."""
        return self.pinned.md5

    @property
    def size_bytes(self) -> int | None:
        """As it was pinned."""
        return self.pinned.size_bytes


@dataclass(frozen=True, slots=True)
class LockSource:
    """Where the bytes of a lock come from: a location, with what the user himself may do there."""

    lock: Lock
    location_id: int
    store: ObjectStore
    api: EntityApi | None = None
    """Where the lock is one of entities."""

    objects: Objects | None = None
    """With `api`: reads what lies outside."""

    index: EntityIndex | None = None
    """What `objects` remembers by; owned from here on."""

    def close(self) -> None:
        """Give the index back."""
        if self.index is not None:
            self.index.close()


class LockView(StaticView):
    """Implements View on the files of a lock."""

    def __init__(
        self, source: LockSource, parent: Directory | None = None, name: bytes = b""
    ) -> None:
        """Build the tree. Raises BadArgument for a file that could not be read in one version."""
        lock = source.lock
        modified_ns = int(lock.pinned_unix_s * 1e9)
        super().__init__(
            Site(source.location_id, source.store, "", modified_ns=modified_ns), parent, name
        )
        self._source = source
        folder, directory = "", self.root
        for each in lock.files:  # those of one folder come one after the other
            if (above := each.path.rpartition("/")[0]) != folder:
                folder, directory = above, self._directory(above)
            self._add_file(each, directory)

    def _add_file(self, locked: LockedFile, directory: Directory) -> None:
        if locked.key and not locked.etag:
            raise BadArgument(
                f"The lock has a key and no ETag for {locked.path}: that names no version.",
                remedy="Write the lock anew with `stsfs pin`.",
            )
        version = None
        if locked.key:
            location_id = self._source.location_id
            version = ObjectVersion(location_id, locked.key, locked.etag, locked.size_bytes)
        file = PinnedFile(
            new_number(),
            directory,
            locked.path.rpartition("/")[2].encode(),
            version,
            int(locked.modified_unix_s * 1e9),
            "",
            locked=locked,
        )
        self.add(file)

    def _directory(self, path: str) -> Directory:
        found = self.root
        for name in filter(None, path.split("/")):
            found = self.add_directory(found, name.encode())
        return found

    async def resolve(self, file: File) -> bool:
        """See View: for files outside the location, whose bytes Synapse gives."""
        assert isinstance(file, PinnedFile)
        pinned, objects = file.pinned, self._source.objects
        if objects is None:
            raise AccessDenied(f"The bytes of {pinned.path} are had from Synapse alone.")
        record = await self._record(pinned)
        version, _, asked = await objects.version(record)
        other_bytes = version.size_bytes != pinned.size_bytes
        if other_bytes or (pinned.md5 and record.md5 and record.md5 != pinned.md5):
            there = f"{version.size_bytes} bytes, MD5 {record.md5 or 'unknown'}"
            raise self._changed(file, f"that version is {there}")
        file.version = version
        return asked

    async def _record(self, pinned: LockedFile) -> FileRecord:
        assert self._source.api is not None
        bundle = await self._source.api.bundle(pinned.entity_id, pinned.version)
        return record_of(bundle, key_of(bundle.header))

    async def gone(self, file: File, error: StaleVersion) -> StaleVersion:
        """See View. Names what was pinned and what is there now."""
        assert isinstance(file, PinnedFile)
        now = [await self._object_now(file)] if file.key else []
        if self._source.api is not None:
            now.append(await self._entity_now(file.pinned))
        return self._changed(file, "; ".join(now))

    def _changed(self, file: PinnedFile, now: str) -> StaleVersion:
        pinned = file.pinned
        parts = [f"{pinned.size_bytes} bytes"]
        if pinned.etag:
            parts.append(f"ETag {pinned.etag}")
        elif pinned.md5:
            parts.append(f"MD5 {pinned.md5}")
        if pinned.version is not None:
            parts.insert(0, f"version {pinned.version} of {pinned.entity_id}")
        day = iso(self._source.lock.pinned_unix_s)
        return StaleVersion(
            f"{path_of(file)} is no longer what was pinned on {day} ({', '.join(parts)}): {now}.",
            remedy="Mount the location itself to see it as it is, or pin it anew.",
        )

    async def _object_now(self, file: PinnedFile) -> str:
        """What lies at the key, as far as that can be had."""
        try:
            found = await object_at(self._source.store, file.key)
        except StsfsError as exc:
            return f"its object is another, and what it is cannot be asked ({exc.sentence})"
        if found is None:
            return f"there is no object {file.key} any more"
        return (
            f"its object has now {found.size_bytes} bytes, ETag {found.etag},"
            f" of {iso(found.modified_unix_s)}"
        )

    async def _entity_now(self, pinned: LockedFile) -> str:
        """Which version Synapse has, as far as that can be had."""
        assert self._source.api is not None
        try:
            header = (await self._source.api.bundle(pinned.entity_id)).header
        except StsfsError as exc:
            return f"of {pinned.entity_id} Synapse says: {exc.sentence.rstrip('.')}"
        return f"{pinned.entity_id} is at version {header.version}"

    async def properties(self, node: Node) -> Mapping[str, str]:
        """See View: what the lock says."""
        if not isinstance(node, PinnedFile) or not node.pinned.entity_id:
            return {}
        pinned = node.pinned
        found = {f"{PREFIX}id": pinned.entity_id}
        if pinned.version is not None:
            found[f"{PREFIX}version"] = str(pinned.version)
        if pinned.md5:
            found[f"{PREFIX}md5"] = pinned.md5
        return found
