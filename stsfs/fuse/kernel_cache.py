"""Tells the kernel to forget names and pages: for a refresh that somebody asked for, or for memory.

Written straight to the kernel's descriptor, because pyfuse3 cannot say FUSE_EXPIRE_ONLY: an entry
invalidated without it is unhashed, and a shell in that directory loses its getcwd(2) although the
directory is still there. Kernels before 6.2 ignore the flag. Nor can it say FUSE_NOTIFY_PRUNE, by
which kernels from 6.18 on forget just what nobody uses.

Wire format: linux/fuse.h, struct fuse_notify_inval_entry_out, fuse_notify_inval_inode_out and
fuse_notify_prune_out.
"""

import errno
import itertools
import os
import struct
import threading
from collections.abc import Callable, Collection, Iterable

import trio

from stsfs.vfs.nodes import File, Node

_INVAL_INODE, _INVAL_ENTRY, _PRUNE = 2, 3, 9
_EXPIRE_ONLY = 1
_HEADER = struct.Struct("<IiQ")
_ENTRY = struct.Struct("<QII")
_INODE = struct.Struct("<Qqq")
_PRUNED = struct.Struct("<IIQ")


class KernelCache:
    """Implements vfs.inspector.KernelCache and vfs.kernel_names.ForgetfulKernel.

    On the kernel's end of a session.
    """

    def __init__(self, duplicate: Callable[[], int]) -> None:
        self._duplicate = duplicate
        self.prunes = True
        """Until the kernel has said that it does not know how."""

        self._limiter = trio.CapacityLimiter(1)  # others need threads, too, while the kernel waits
        self._prune_limiter = trio.CapacityLimiter(1)

    async def forget(self, entries: Collection[tuple[int, bytes]], inodes: Collection[int]) -> None:
        """Ask again about these names (directory, name), and drop the pages of these inodes.

        The kernel waits for lookups and reads that are under way, so this happens in a thread,
        while they are answered here. Whoever is cancelled leaves the rest to the thread.
        """
        # Made one by one in the thread: there may be a million.
        messages = itertools.chain(map(_entry_message, entries), map(_inode_message, inodes))
        await self._send(messages, self._limiter)

    async def prune(self, nodes: Collection[Node]) -> None:
        """Ask the kernel to forget nodes that nobody uses now. May raise OSError.

        One that cannot be asked so forgets the names of files, as if they had been removed: who has
        one of them open notices nothing but the path that /proc shows. Directories stay.
        """
        if self.prunes:
            numbers = [node.inode for node in nodes]
            message = _PRUNED.pack(len(numbers), 0, 0) + struct.pack(f"<{len(numbers)}Q", *numbers)
            self.prunes = await self._send([_message(_PRUNE, message)], self._prune_limiter)
        if not self.prunes:
            names = [
                _message(
                    _INVAL_ENTRY,
                    _ENTRY.pack(node.parent.inode, len(node.name), 0) + node.name + b"\0",
                )
                for node in nodes
                if isinstance(node, File)
            ]
            await self._send(names, self._prune_limiter)

    async def _send(self, messages: Iterable[bytes], limiter: trio.CapacityLimiter) -> bool:
        """Send from a thread; whether the kernel has understood all of them."""
        # A descriptor of its own: the session may end while the kernel waits.
        sender = _Sender(self._duplicate(), messages)
        try:
            await trio.to_thread.run_sync(sender.send, abandon_on_cancel=True, limiter=limiter)
        except trio.Cancelled:
            sender.give_up()
            raise
        return not sender.is_misunderstood


class _Sender:
    """Messages for the kernel, and the descriptor they go to, which it owns."""

    def __init__(self, descriptor: int, messages: Iterable[bytes]) -> None:
        self._descriptor = descriptor
        self._messages = messages
        self._begun = threading.Lock()
        self.is_misunderstood = False
        """The kernel does not know a message."""

    def send(self) -> None:
        """Send all and close. Blocking; for one thread."""
        if not self._begun.acquire(blocking=False):
            return
        try:
            for message in self._messages:
                try:
                    os.write(self._descriptor, message)
                except FileNotFoundError:
                    continue  # the kernel has already forgotten it
                except OSError as exc:
                    self.is_misunderstood = exc.errno == errno.EINVAL
                    return  # no longer mounted: nothing is remembered
        finally:
            os.close(self._descriptor)

    def give_up(self) -> None:
        """Close, unless the thread has begun and does so itself."""
        if self._begun.acquire(blocking=False):
            os.close(self._descriptor)


def _entry_message(entry: tuple[int, bytes]) -> bytes:
    parent, name = entry
    return _message(_INVAL_ENTRY, _ENTRY.pack(parent, len(name), _EXPIRE_ONLY) + name + b"\0")


def _inode_message(inode: int) -> bytes:
    return _message(_INVAL_INODE, _INODE.pack(inode, 0, 0))


def _message(code: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), code, 0) + body
