"""Synapse in memory, as EntityApi shows it: other clients' changes, faults, delays, counts."""

import hashlib
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.entities.index import EntityIndex
from stsfs.entities.location import EntityLocation
from stsfs.errors import EntityNotFound, PermissionMissing
from stsfs.synapse.records import (
    ChildHeader,
    ChildPage,
    EntityBundle,
    FileHandle,
    TableRows,
    VersionInfo,
)
from stsfs.vfs.nodes import ROOT_INODE
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs
from tests.fakes import Fault

BUCKET, PREFIX = "bucket", "base/"
BEGUN_UNIX_S = 1_600_000_000.0
TTL_S = 30.0


@dataclass
class Entity:
    """What Synapse keeps of one; `handles` by version number."""

    header: ChildHeader
    parent_id: str
    handles: dict = field(default_factory=dict)
    changed: dict = field(default_factory=dict)
    annotations: dict = field(default_factory=dict)
    target: tuple | None = None


class FakeApi:
    """EntityApi over dicts. `scripts[method]` holds Faults (or None), one used up per call.

    `denied` may be seen and not downloaded, `invisible` not even seen; `broken` always fail.
    """

    def __init__(self, store, *, pace=None, delay_s=0.0):
        self.store, self.pace, self.delay_s = store, pace, delay_s
        self.entities, self.calls, self.log = {}, Counter(), []
        self.scripts, self.broken = {}, {}
        self.denied, self.unmet, self.invisible = set(), set(), set()
        self.page_children = 50
        self.rows = TableRows((), ())
        self._last = 0
        self.root_id = self.folder("", "root")

    # What other clients do.

    def folder(self, parent_id, name, kind="Folder"):
        return self._made(parent_id, name, kind)

    def file(self, parent_id, name, data=b"", *, bucket=BUCKET, key=None, size_bytes=...):
        entity_id = self._made(parent_id, name, "FileEntity")
        self.upload(entity_id, data, bucket=bucket, key=key, size_bytes=size_bytes, number=1)
        return entity_id

    def link(self, parent_id, name, target_id, version=None):
        entity_id = self._made(parent_id, name, "Link")
        self.entities[entity_id].target = (target_id, version)
        return entity_id

    def upload(self, entity_id, data, *, bucket=BUCKET, key=None, size_bytes=..., number=None):
        """Give a file new bytes in a new version."""
        entity, now_unix_s = self.entities[entity_id], self._tick()
        number = number or entity.header.version + 1
        handle_id = str(10_000 + self._last)
        if key is None:
            key = f"{PREFIX}{handle_id}/{entity.header.name}"
        if bucket == BUCKET:
            self.store.put(key, data)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        size_bytes = len(data) if size_bytes is ... else size_bytes
        entity.handles[number] = FileHandle(
            handle_id, bucket, key, size_bytes, md5, entity.header.name, "", 1, now_unix_s
        )
        entity.changed[number] = now_unix_s
        self._change(entity_id, version=number, modified_unix_s=now_unix_s)

    def annotate(self, entity_id, **values):
        self.entities[entity_id].annotations = {name: (v,) for name, v in values.items()}
        self._touch(entity_id)

    def rename(self, entity_id, name):
        self._change(entity_id, name=name)
        self._touch(entity_id)

    def move(self, entity_id, parent_id):
        self.entities[entity_id].parent_id = parent_id
        self._touch(entity_id)

    def delete(self, entity_id):
        del self.entities[entity_id]

    def key_of(self, entity_id):
        entity = self.entities[entity_id]
        return entity.handles[entity.header.version].key

    def header(self, entity_id, version=None):
        entity = self.entities[entity_id]
        if version is None:
            return entity.header
        return replace(entity.header, version=version, modified_unix_s=entity.changed[version])

    def now_unix_s(self):
        return BEGUN_UNIX_S + self._last

    def script(self, method, *faults):
        self.scripts.setdefault(method, []).extend(faults)

    def background_ids(self):
        """What was asked in the background, in order."""
        return [entity_id for _, entity_id, background in self.log if background]

    # What EntityApi does.

    async def children(self, parent_id, *, token=None, with_total=False, background=False):
        async with self._request("children", parent_id, background):
            found = [e.header for e in self.entities.values() if e.parent_id == parent_id]
        found.sort(key=lambda each: (each.name, each.entity_id))
        start = int(token or 0)
        stop = start + self.page_children
        more = str(stop) if len(found) > stop else None
        return ChildPage(tuple(found[start:stop]), more, len(found) if with_total else None)

    async def child_id(self, parent_id, name, *, background=False):
        async with self._request("child_id", parent_id, background):
            ids = (
                entity_id
                for entity_id, each in self.entities.items()
                if each.parent_id == parent_id and each.header.name == name
            )
            return next(ids, None)

    async def bundle(self, entity_id, version=None, *, background=False):
        async with self._request("bundle", entity_id, background):
            entity = self.entities[entity_id]
            if version not in {None, *entity.handles}:
                raise EntityNotFound(f"{entity_id} has no version {version}.")
            header = self.header(entity_id, version)
            handle = entity.handles.get(header.version)
            hidden = entity_id in self.denied | self.unmet
            return EntityBundle(
                header,
                entity.parent_id,
                "e",
                handle and handle.handle_id,
                None if hidden else handle,
                entity.annotations,
                entity_id in self.unmet,
                entity.target,
            )

    async def versions(self, entity_id, *, offset=0, limit=50, background=False):
        async with self._request("versions", entity_id, background):
            entity = self.entities[entity_id]
            numbers = sorted(entity.handles, reverse=True)[offset : offset + limit]
            return tuple(
                VersionInfo(
                    number,
                    entity.changed[number],
                    "7",
                    entity.handles[number].size_bytes,
                    entity.handles[number].md5,
                )
                for number in numbers
            )

    async def query(self, view_id, sql, *, background=False):
        async with self._request("query", view_id, background, known=True):
            return self.rows

    @asynccontextmanager
    async def _request(self, method, entity_id, background, *, known=False):
        script = self.scripts.get(method)
        fault = (script.pop(0) if script else None) or Fault()
        if self.pace is None:
            await self._work(method, entity_id, background, fault)
        else:
            async with self.pace.request(background=background):
                await self._work(method, entity_id, background, fault)
        if entity_id in self.broken:
            raise self.broken[entity_id]
        if not known and entity_id not in self.entities:
            raise EntityNotFound(f"{entity_id} does not exist.")
        if entity_id in self.invisible:
            raise PermissionMissing(f"You lack the READ permission on {entity_id}.")
        yield

    async def _work(self, method, entity_id, background, fault):
        self.calls[method] += 1
        self.log.append((method, entity_id, background))
        await trio.sleep(self.delay_s + fault.delay_s)
        if fault.error is not None:
            raise fault.error

    def _made(self, parent_id, name, kind):
        now_unix_s = self._tick()
        entity_id = f"syn{self._last}"
        header = ChildHeader(entity_id, name, kind, 1, now_unix_s, now_unix_s, "7", "7")
        self.entities[entity_id] = Entity(header, parent_id)
        return entity_id

    def _change(self, entity_id, **changes):
        entity = self.entities[entity_id]
        entity.header = replace(entity.header, **changes)

    def _touch(self, entity_id):
        now_unix_s = self._tick()
        self._change(entity_id, modified_unix_s=now_unix_s)
        entity = self.entities[entity_id]
        if entity.changed:
            entity.changed[entity.header.version] = now_unix_s

    def _tick(self):
        self._last += 1
        return self.now_unix_s()


class DirectIndex(EntityIndex):
    """An index without a thread: a MockClock would jump while one works."""

    async def ask(self, call, *arguments):
        await trio.lowlevel.checkpoint()
        return self._answer(call, *arguments)


class Shown:
    """One mount of a folder without a kernel. Of another one it knows what the index holds."""

    def __init__(self, api, store, index=None, *, nursery=None, **options):
        index = index or DirectIndex(None)
        self.location = EntityLocation(
            api, index, api.header(api.root_id), location_id=1, bucket=BUCKET, prefix=PREFIX,
            store=store, metadata_ttl_s=TTL_S, **options,
        )  # fmt: skip
        self.tree = Tree(self.location.root(), metadata_ttl_s=TTL_S)
        self.view, self.filler = self.location.view, self.location.filler
        self.cache = BlockCache(BlockPool(budget_bytes=4 << 20, block_bytes=1 << 16), store)
        self.vfs = Vfs(self.tree, self.cache)

    async def find(self, path):
        """The node of a path, or None, as a kernel looks it up without remembering."""
        node, inode = self.tree.inodes.root, ROOT_INODE
        for name in path.split("/"):
            node, _ = await self.vfs.lookup(inode, name.encode(), 1)
            if node is None:
                return None
            inode = node.inode
        return node

    async def stat(self, path):
        node = await self.find(path)
        await self.vfs.settle(node)
        return node

    async def names(self, path=""):
        """All that readdir shows."""
        inode = (await self.find(path)).inode if path else ROOT_INODE
        handle, start, found = await self.vfs.open_directory(inode), 0, []
        while entries := list(await self.vfs.read_directory(handle, start)):
            start = entries[-1][0]
            found += [node.name.decode() for _, node in entries]
        self.vfs.close_directory(handle)
        return found

    async def read(self, path):
        """Open and read, as the kernel does: after ESTALE it looks up once more."""
        handle = await self.open(path)
        data = bytes(await self.vfs.read(handle, 0, 1 << 20))
        self.vfs.release(handle)
        return data

    async def open(self, path):
        return await self.vfs.open((await self.find(path)).inode, 0, 1)


def wall_clock(monkeypatch, clock):
    """The time of day goes with a MockClock."""
    monkeypatch.setattr("time.time", lambda: BEGUN_UNIX_S + clock.current_time())
