"""Tells the kernel to forget names and pages: for a refresh that somebody asked for.

Written straight to the kernel's descriptor, because pyfuse3 cannot say FUSE_EXPIRE_ONLY: an entry
invalidated without it is unhashed, and a shell in that directory loses its getcwd(2) although the
directory is still there. Kernels before 6.2 ignore the flag.

Wire format: linux/fuse.h, struct fuse_notify_inval_entry_out and fuse_notify_inval_inode_out.
"""

import itertools
import os
import struct
import threading
from collections.abc import Callable, Collection, Iterable

import trio

_INVAL_INODE, _INVAL_ENTRY = 2, 3
_EXPIRE_ONLY = 1
_HEADER = struct.Struct("<IiQ")
_ENTRY = struct.Struct("<QII")
_INODE = struct.Struct("<Qqq")


class KernelCache:
    """Implements vfs.inspector.KernelCache on the kernel's end of a session."""

    def __init__(self, duplicate: Callable[[], int]) -> None:
        self._duplicate = duplicate
        self._limiter = trio.CapacityLimiter(1)  # others need threads, too, while the kernel waits

    async def forget(self, entries: Collection[tuple[int, bytes]], inodes: Collection[int]) -> None:
        """Ask again about these names (directory, name), and drop the pages of these inodes.

        The kernel waits for lookups and reads that are under way, so this happens in a thread,
        while they are answered here. Whoever is cancelled leaves the rest to the thread.
        """
        # Made one by one in the thread: there may be a million.
        messages = itertools.chain(map(_entry_message, entries), map(_inode_message, inodes))
        # A descriptor of its own: the session may end while the kernel waits.
        sender = _Sender(self._duplicate(), messages)
        try:
            await trio.to_thread.run_sync(
                sender.send, abandon_on_cancel=True, limiter=self._limiter
            )
        except trio.Cancelled:
            sender.give_up()
            raise


class _Sender:
    """Messages for the kernel, and the descriptor they go to, which it owns."""

    def __init__(self, descriptor: int, messages: Iterable[bytes]) -> None:
        self._descriptor = descriptor
        self._messages = messages
        self._begun = threading.Lock()

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
                except OSError:
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
