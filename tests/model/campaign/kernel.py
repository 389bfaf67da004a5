"""What the kernel does between several processes and one mount: its locks.

Names of one directory are changed one at a time (i_rwsem of the directory), and a file is not
written to, cut, synced, removed or renamed while another of these is under way (that of the file).
Lookups, opens, reads, flushes and releases are not held back by any of it.
"""

import os
from collections import defaultdict
from contextlib import AsyncExitStack

import trio

from tests.writing_vfs.machine import Descriptor


class Kernel:
    """System calls of several processes on one mount; raises what `Mount` raises."""

    def __init__(self, mount):
        self.mount, self.vfs, self.writers = mount, mount.vfs, mount.writers
        self._locks = defaultdict(trio.Lock)

    async def _hold(self, stack, *inodes):
        for inode in sorted(set(inodes)):
            await stack.enter_async_context(self._locks[inode])

    async def open(self, path, flags):
        """open(2): only to make a file holds the directory."""
        if not flags & os.O_CREAT:
            return await self.mount.open(path, flags)

        async def attempt():
            mount = self.mount
            parent, name = await mount.parent(path)
            async with self._locks[parent]:
                node = await mount.lookup(parent, name)
                if node is None:
                    number, file = await self.vfs.create(parent, name.encode(), flags, None)
                    return Descriptor(number, file.inode)
            if flags & os.O_EXCL:
                raise FileExistsError(path)
            number = await self.vfs.open(node.inode, flags & ~os.O_CREAT, _CALLER)
            return Descriptor(number, node.inode)

        return await self.mount.again(attempt)

    async def write(self, descriptor, data, offset):
        async with self._locks[descriptor.inode]:
            await self.mount.write(descriptor, data, offset)

    async def fsync(self, descriptor):
        async with self._locks[descriptor.inode]:
            await self.vfs.fsync(descriptor.number)

    async def cut(self, descriptor, size_bytes):
        """ftruncate(2)."""
        async with self._locks[descriptor.inode]:
            await self.mount.set("", descriptor, size_bytes=size_bytes)

    async def truncate(self, path, size_bytes):
        async with AsyncExitStack() as stack:
            await self._hold(stack, (await self.mount.stat(path)).inode)
            await self.mount.truncate(path, size_bytes)

    async def unlink(self, path):
        await self._change_names([path], lambda: self.mount.unlink(path))

    async def rename(self, old, new, **options):
        await self._change_names([old, new], lambda: self.mount.rename(old, new, **options))

    async def mkdir(self, path):
        await self._change_names([path], lambda: self.mount.mkdir(path))

    async def rmdir(self, path):
        await self._change_names([path], lambda: self.mount.rmdir(path))

    async def _change_names(self, paths, call):
        mount = self.mount
        async with AsyncExitStack() as stack:
            places = [await mount.parent(path) for path in paths]
            await self._hold(stack, *(parent for parent, _ in places))
            nodes = [await mount.lookup(*place) for place in places]
            held = {parent for parent, _ in places}
            found = {node.inode for node in nodes if node is not None}
            await self._hold(stack, *(found - held))
            await call()

    def __getattr__(self, name):
        return getattr(self.mount, name)


_CALLER = 4711
