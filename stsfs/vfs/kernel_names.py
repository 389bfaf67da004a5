"""Keeps what the kernel knows of names within a limit, by asking it to forget.

The kernel remembers every name that it was told, until it is short of memory itself, and for each
of them a node has to stay here. Beyond the limit it is asked to forget those that were told or used
longest ago. It keeps what is in use: open files, working directories, and what lies on the way.
"""

import logging
from collections.abc import Collection
from typing import Protocol

import trio

from stsfs.vfs.nodes import UNIT_BYTES, InodeTable, Node

log = logging.getLogger(__name__)

BATCH_NODES = 1000
LOW_PARTS = 8
"""The kernel is asked until it has forgotten one part in so many of the limit."""

ROOM_S = 1.0
"""How long a reader of a directory is held up at most while the kernel forgets."""

ANSWER_S = 0.05
"""For the kernel to tell what it has forgotten: some of what it was asked for may be in use."""

LOOK_S = 0.005
"""Between two looks of a reader whether there is room."""

IN_USE_PAUSE_S = 1.0
"""Before all are asked for once more, where the kernel has use for too many of them."""


class ForgetfulKernel(Protocol):
    """The kernel, as far as it can be asked; implemented by `fuse.kernel_cache`."""

    @property
    def prunes(self) -> bool:
        """Whether it forgets without waiting for those who read the directory."""

    async def prune(self, nodes: Collection[Node]) -> None:
        """Ask it to forget nodes that it has no use for now. May raise OSError."""


class KernelNames:
    """Watches an InodeTable. `run` owns the asking; it must be running while the mount is used."""

    def __init__(self, inodes: InodeTable) -> None:
        self._inodes = inodes
        self._kernel: ForgetfulKernel | None = None
        self._exceeded = trio.Event()
        self._shrunk = trio.Event()
        self._awaited_bytes = 0  # `_shrunk` is set when no more than this is held
        inodes.on_growth = self._wake
        inodes.on_forgotten = self._note_forgotten

    def _wake(self) -> None:
        self._exceeded.set()

    def _note_forgotten(self) -> None:
        if self._inodes.held_bytes <= self._awaited_bytes:
            self._shrunk.set()

    async def run(self, kernel: ForgetfulKernel) -> None:
        """Ask the kernel to forget whenever the limit is exceeded; until cancelled."""
        self._kernel = kernel
        while True:
            await self._exceeded.wait()
            self._exceeded = trio.Event()
            try:
                await self._shrink(kernel)
            except OSError as exc:  # no descriptor is left to tell the kernel by
                log.warning("the kernel cannot be asked to forget names now: %s", exc)
                await trio.sleep(IN_USE_PAUSE_S)
                self._wake()

    async def _shrink(self, kernel: ForgetfulKernel) -> None:
        """Ask until enough is forgotten: for all of them once, and again after a pause.

        Some may be forgotten and told again at once, by kernels that cannot tell what is in use:
        that names become fewer is therefore no reason to go on without a pause.
        """
        inodes = self._inodes
        low_bytes = inodes.limit_bytes - inodes.limit_bytes // LOW_PARTS
        unasked = len(inodes)
        while inodes.held_bytes > low_bytes:
            if unasked <= 0:
                await trio.sleep(IN_USE_PAUSE_S)
                unasked = len(inodes)
                continue
            unasked -= BATCH_NODES
            nodes = inodes.oldest(BATCH_NODES)
            self._shrunk = trio.Event()
            self._awaited_bytes = inodes.held_bytes - _held_bytes(nodes)
            await kernel.prune(nodes)
            with trio.move_on_after(ANSWER_S):
                await self._shrunk.wait()

    async def room(self) -> None:
        """Return when the kernel may be told more names; soon, in any case.

        Without effect where the kernel forgets only what nobody reads: it would wait for us.
        """
        if not self._is_crowded() or self._kernel is None or not self._kernel.prunes:
            return
        with trio.move_on_after(ROOM_S):
            while self._is_crowded():
                with trio.move_on_after(ANSWER_S):
                    await self._shrunk.wait()
                await trio.sleep(LOOK_S)  # it may be long since that was told

    @property
    def takes_more(self) -> bool:
        """Whether entries of a directory that is read may be remembered by the kernel.

        One that waits for the reader before it forgets would not come to that.
        """
        inodes = self._inodes
        may_wait = self._kernel is not None and not self._kernel.prunes
        return not may_wait or inodes.held_bytes <= inodes.limit_bytes

    def _is_crowded(self) -> bool:
        return self._inodes.held_bytes > self._inodes.limit_bytes * 5 // 4


def _held_bytes(nodes: Collection[Node]) -> int:
    return sum(node.units for node in nodes) * UNIT_BYTES
