"""A mount made with --rw, without FUSE: paths and descriptors as a process sees them.

Does what the kernel does between a process and the vfs: walks paths, repeats after ESTALE, flushes
and releases.
"""

import errno
import os
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.errors import StaleVersion, StsfsError
from stsfs.fuse import errno_table
from stsfs.rules.question import Place
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.left import what_is_left
from stsfs.vfs.listing import FRESH_S
from stsfs.vfs.nodes import ROOT_INODE, Site
from stsfs.vfs.tree import Tree
from stsfs.vfs.writable import Writable, WritableLocation
from stsfs.vfs.writing import AttributeChange, WritingVfs
from stsfs.writer.moves import Mover
from stsfs.writer.wire import LocationName
from stsfs.writer.writing import Writers

CALLER = 4711
TTL_S = 30.0
URI = "s3://bucket/"
NAME = LocationName(1, URI, None, "s3://bucket")
PLACE = Place(label="s3://bucket", storage="s3", bucket="bucket", writable=True)
WAY = Place(label="the mount", storage="none", writable=True)
WRITE, UPDATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_RDWR


def errno_name(error):
    """What a process sees of an error."""
    return errno.errorcode[errno_table.reply_for(error).errno]


@dataclass
class Descriptor:
    """An open file of a process."""

    number: int
    inode: int
    position: int = 0


class Mount:
    """System calls on one mount. Each raises the StsfsError whose errno the process sees."""

    def __init__(self, vfs, tree, writers, mover, store):
        self.vfs, self.tree, self.writers, self.mover = vfs, tree, writers, mover
        self.store = store

    async def lookup(self, parent_inode, name):
        """The node of a name, one reference of the kernel kept; None if absent."""
        return (await self.vfs.lookup(parent_inode, name.encode(), CALLER))[0]

    async def walk(self, path):
        """The node of a path, or None."""
        node = self.tree.inodes.root
        for name in filter(None, path.split("/")):
            node = await self.lookup(node.inode, name)
            if node is None:
                return None
        return node

    async def parent(self, path):
        """The number of the directory that a path lies in, and the name there."""
        above, _, name = path.rpartition("/")
        node = await self.walk(above)
        if node is None:
            raise FileNotFoundError(above)
        return node.inode, name

    async def again(self, call):
        """Call, and once more after ESTALE."""
        try:
            return await call()
        except StaleVersion:
            return await call()

    async def open(self, path, flags=os.O_RDONLY, mode=None):
        """open(2)."""

        async def attempt():
            parent, name = await self.parent(path)
            node = await self.lookup(parent, name)
            if node is None:
                if not flags & os.O_CREAT:
                    raise FileNotFoundError(path)
                number, file = await self.vfs.create(parent, name.encode(), flags, mode)
                return Descriptor(number, file.inode)
            if flags & os.O_CREAT and flags & os.O_EXCL:
                raise FileExistsError(path)
            number = await self.vfs.open(node.inode, flags & ~os.O_CREAT, CALLER)
            return Descriptor(number, node.inode)

        return await self.again(attempt)

    async def write(self, descriptor, data, offset=None):
        """write(2), or pwrite(2)."""
        at = descriptor.position if offset is None else offset
        assert await self.vfs.write(descriptor.number, at, data) == len(data)
        if offset is None:
            descriptor.position += len(data)

    async def read(self, descriptor, offset=0, size_bytes=1 << 30):
        """pread(2)."""
        return bytes(await self.vfs.read(descriptor.number, offset, size_bytes))

    async def flush(self, descriptor):
        """close(2) of one of several descriptors of an open file."""
        await self.vfs.flush(descriptor.number)

    async def release(self, descriptor):
        """The last descriptor is closed, and no mapping is left."""
        try:
            await self.vfs.close(descriptor.number)
        finally:
            self.vfs.release(descriptor.number)

    async def close(self, descriptor):
        """close(2) of the only descriptor: what the process hears is what flush says."""
        try:
            await self.flush(descriptor)
        finally:
            with suppress(StsfsError):
                await self.release(descriptor)

    async def put(self, path, data, flags=WRITE):
        """Write a whole file, as `cp` does."""
        descriptor = await self.open(path, flags)
        try:
            await self.write(descriptor, data)
        finally:
            await self.close(descriptor)

    async def get(self, path):
        """Read a whole file, as `cat` does."""
        descriptor = await self.open(path)
        try:
            return await self.read(descriptor)
        finally:
            await self.close(descriptor)

    async def exists(self, path):
        """Whether a path leads somewhere."""
        return await self.walk(path) is not None

    async def names(self, path=""):
        """readdir(3): the names, in no order."""
        node = await self.walk(path)
        handle = await self.vfs.open_directory(node.inode)
        try:
            names, start = [], 0
            while entries := list(await self.vfs.read_directory(handle, start)):
                start = entries[-1][0]
                names += [each.name.decode() for _, each in entries]
        finally:
            self.vfs.close_directory(handle)
        assert len(names) == len(set(names)), names
        return sorted(names)

    async def stat(self, path):
        """The node, for its attributes."""
        node = await self.walk(path)
        if node is None:
            raise FileNotFoundError(path)
        return await self.vfs.attributes(node.inode)

    async def mkdir(self, path, mode=None):
        """mkdir(2)."""
        parent, name = await self.parent(path)
        return await self.again(lambda: self.vfs.names.mkdir(parent, name.encode(), mode))

    async def rmdir(self, path):
        """rmdir(2)."""
        parent, name = await self.parent(path)
        await self.again(lambda: self.vfs.names.rmdir(parent, name.encode()))

    async def unlink(self, path):
        """unlink(2)."""
        parent, name = await self.parent(path)
        await self.again(lambda: self.vfs.names.unlink(parent, name.encode()))

    async def rename(self, old, new, **options):
        """rename(2), or renameat2(2)."""

        async def attempt():
            old_parent, old_name = await self.parent(old)
            new_parent, new_name = await self.parent(new)
            await self.vfs.names.rename(
                old_parent, old_name.encode(), new_parent, new_name.encode(), **options
            )

        await self.again(attempt)

    async def truncate(self, path, size_bytes):
        """truncate(2)."""
        await self.again(lambda: self.set(path, size_bytes=size_bytes))

    async def set(self, path, descriptor=None, **change):
        """setattr of a path, or of an open file."""
        inode = (await self.stat(path)).inode if descriptor is None else descriptor.inode
        handle = None if descriptor is None else descriptor.number
        await self.vfs.set_attributes(inode, AttributeChange(**change), handle)


@dataclass
class Machine:
    """What outlives a mount: the bucket and the local disk."""

    store: object
    staging_root: object
    attributes: object = None
    page_ttl_s: float = TTL_S
    place: Place = PLACE
    options: dict = field(default_factory=dict)

    def left_behind(self):
        """What the mounts of the past have left on the disk."""
        return what_is_left(self.staging_root)

    @asynccontextmanager
    async def mounted(self):
        """One mount from beginning to end. Cancelled, it is as if the daemon was killed."""
        staging = StagingDirectory.open(self.staging_root)
        try:
            tree = Tree(Site(1, self.store, ""), metadata_ttl_s=self.page_ttl_s)
            pool = BlockPool(budget_bytes=24 << 16, block_bytes=1 << 16)
            cache = BlockCache(pool, self.store)
            writers = Writers(NAME, self.store, self.store.writer, staging)
            mover = Mover(NAME, self.store, self.store.writer, staging)
            location = WritableLocation(
                place=self.place, writers=writers, mover=mover, attributes=self.attributes
            )
            writable = Writable(locations={1: location}, way=WAY, **self.options)
            vfs = WritingVfs(tree, cache, writable)
            async with trio.open_nursery() as nursery:
                await nursery.start(cache.run)
                await nursery.start(tree.run)
                await nursery.start(writers.run)
                mount = Mount(vfs, tree, writers, mover, self.store)
                mount.staging = staging
                yield mount
                nursery.cancel_scope.cancel()
        finally:
            staging.close()


async def a_moment_later():
    """What was listed until now decides no change any more."""
    await trio.sleep(FRESH_S + 0.1)


async def until(condition):
    """Let time pass until something is so.

    Mock time runs on while threads work, so nothing follows from how much of it has passed.
    """
    for _ in range(10_000):
        if condition():
            return
        await trio.sleep(0.5)
    raise AssertionError("it never was")


def root_node(mount):
    """The root directory."""
    return mount.tree.inodes.get(ROOT_INODE)


def data(store, key):
    """What S3 has."""
    return store.objects[key].data


def changes(store):
    """Requests that have changed something, by method, in order."""
    return [method for method, _ in store.writer.changes]
