"""The file system itself, with no FUSE in sight: what each operation does, in terms of versions.

`fuse.operations` turns kernel requests into calls here; tests call it directly.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import trio
from cachetools import TTLCache

from stsfs.cache.block_cache import BlockCache
from stsfs.errors import IsADirectory, SessionExpired, StaleVersion, StsfsError
from stsfs.store.object_store import ObjectVersion
from stsfs.vfs.absent import AbsentNames
from stsfs.vfs.kernel_names import KernelNames
from stsfs.vfs.listing import GivenUp, Listing
from stsfs.vfs.nodes import Directory, File, Node, path_of
from stsfs.vfs.reader import CachedReader, DirectReader, ReadAheadBudget, Reader
from stsfs.vfs.tree import Tree
from stsfs.vfs.verifying import Verification, VerifyingReader

SUCCESSIONS_MAX = 10
"""How often in a row a name may be replaced while one lookup asks for it."""

VOUCHED_S = 0.1
"""From the lookup to the open of the same open(2), which follow each other at once."""

REPEATED_S = 60.0
"""From an open that met StaleVersion to its repetition, on a busy machine."""

REPEATED_MAX = 1000


@dataclass(slots=True, eq=False)
class FileHandle:
    """One open(2) of a file: it stays with its version."""

    file: File
    reader: Reader


@dataclass(slots=True, eq=False)
class DirectoryHandle:
    """One opendir(3): a listing in the state in which it was begun."""

    directory: Directory
    listing: Listing
    reached: tuple[int, Node] | None = None
    """The entry that was taken last, and the position after it."""


@dataclass(slots=True, eq=False)
class RepeatedOpen:
    """One caller's open(2) of a name, which has met StaleVersion and comes once more."""

    confirmed: File | None = None
    """What its lookup has found, and S3 has just confirmed."""

    believed_until_s: float = 0.0

    def vouch(self, file: File) -> None:
        """S3 has just confirmed what the lookup found."""
        self.confirmed, self.believed_until_s = file, trio.current_time() + VOUCHED_S

    def vouches_for(self, file: File) -> bool:
        """The open that is repeated need not ask again."""
        return self.confirmed is file and trio.current_time() < self.believed_until_s


class Vfs:
    """Lookups, directories and reads of a read-only tree.

    Every method may raise what `errors` lists for file system requests.
    """

    def __init__(
        self,
        tree: Tree,
        cache: BlockCache,
        *,
        trust_listings: bool = False,
        verification: Verification | None = None,
    ) -> None:
        """With verification, what is read whole must have the digest that its view vouches for."""
        self._tree = tree
        self._cache = cache
        self._trust_listings = trust_listings
        self._verification = verification
        self._read_ahead = ReadAheadBudget(cache.pool)
        self.absent = AbsentNames()
        self.kernel_names = KernelNames(tree.inodes)
        self._files: dict[int, FileHandle] = {}
        self._directories: dict[int, DirectoryHandle] = {}
        self._last_handle = 0
        self._repeated: TTLCache[tuple[Directory, bytes, int], RepeatedOpen] = TTLCache(
            REPEATED_MAX, REPEATED_S, timer=trio.current_time
        )

    @property
    def open_files(self) -> int:
        """Handles not yet released."""
        return len(self._files)

    def open_handles(self) -> list[FileHandle]:
        """Handles of files not yet released, opened last first."""
        return list(reversed(self._files.values()))

    def node(self, inode: int) -> Node:
        """The node of a number the kernel knows."""
        return self._tree.inodes.get(inode)

    async def attributes(self, inode: int) -> Node:
        """The node of a number the kernel knows, its size and time known."""
        node = self._tree.inodes.get(inode)
        if isinstance(node, File):
            await self.settle(node)
        return node

    async def settle(self, file: File) -> None:
        """Return when size and time of a file are known."""
        if file.size_bytes is None:
            try:
                await self._tree.view(file.parent).attributes(file)
            except StaleVersion:
                self._tree.outdate(file)
                raise

    async def properties(self, node: Node) -> Mapping[str, str]:
        """What is known of a file or directory beside the object, by name."""
        directory = node if isinstance(node, Directory) else node.parent
        return await self._tree.view(directory).properties(node)

    def path(self, inode: int) -> str:
        """The path of a number, for messages; never fails."""
        try:
            return path_of(self._tree.inodes.get(inode))
        except StaleVersion:
            return f"inode {inode}"

    def inode_of(self, handle: int) -> int:
        """The inode of an open file."""
        return self._files[handle].file.inode

    def handle_path(self, handle: int) -> str:
        """The path of an open handle, for messages; never fails."""
        if (file := self._files.get(handle)) is not None:
            return path_of(file.file)
        if (directory := self._directories.get(handle)) is not None:
            return path_of(directory.directory)
        return f"handle {handle}"

    async def lookup(
        self, parent_inode: int, name: bytes, caller: int
    ) -> tuple[Node | None, float]:
        """The node of a name and for how many seconds that may be believed; None if absent.

        Counts one reference of the kernel to the node. caller is the thread that asks.
        """
        parent = self._tree.directory(parent_inode)
        distrusts = self._tree.distrusts
        repeated = self._repeated.get((parent, name, caller))
        for _ in range(SUCCESSIONS_MAX):
            node, until_s = await self._tree.lookup(parent, name)
            if repeated is None or not isinstance(node, File) or self._tree.view(parent).is_fixed:
                break
            if await self._vouch(node, repeated):
                break
        now_s = trio.current_time()
        # What was asked before a refresh may not be remembered after it.
        ttl_s = max(0.0, until_s - now_s) if distrusts == self._tree.distrusts else 0.0
        if node is None:
            return None, self.absent.tell(parent, name, now_s=now_s, ttl_s=ttl_s)
        self._tree.inodes.remember(node)
        return node, ttl_s

    def refer(self, node: Node) -> None:
        """The kernel was told of a node by a directory entry."""
        self._tree.inodes.remember(node)

    def forget(self, inode: int, lookups: int) -> None:
        """The kernel gives references back."""
        self._tree.inodes.forget(inode, lookups)

    async def open_directory(self, inode: int) -> int:
        """A handle on a directory, its first page read."""
        directory = self._tree.directory(inode)
        handle = DirectoryHandle(directory, await self._tree.listing(directory))
        self._tree.listed.hold(handle.listing)
        number = self._new_handle()
        self._directories[number] = handle
        return number

    async def read_directory(self, handle: int, start: int) -> Iterator[tuple[int, Node]]:
        """Entries from position start on, each with the position after it; none at the end."""
        opened = self._directories[handle]
        await self.kernel_names.room()
        if start == 0:
            self._read_on_in(opened, await self._tree.listing(opened.directory))
        while True:
            try:
                return await self._tree.entries(opened.listing, start)
            except GivenUp:
                last = opened.reached[1] if opened.reached and opened.reached[0] == start else None
                listing, start = await self._tree.resumed(opened.listing, start, last)
                self._read_on_in(opened, listing)

    def reached(self, handle: int, position: int, node: Node) -> None:
        """The reader of a directory was given entries up to this one; position is that after it."""
        self._directories[handle].reached = position, node

    def _read_on_in(self, opened: DirectoryHandle, listing: Listing) -> None:
        if listing is not opened.listing:
            self._tree.listed.hold(listing)
            self._tree.listed.let_go(opened.listing)
            opened.listing = listing

    def entry_ttl_s(self, handle: int, position: int) -> float:
        """For how long the entries of an open directory from a position on may be believed."""
        listing = self._directories[handle].listing
        return max(0.0, listing.told_until_s(max(position, listing.first)) - trio.current_time())

    def close_directory(self, handle: int) -> None:
        """End of a directory handle."""
        self._tree.listed.let_go(self._directories.pop(handle).listing)

    async def open(self, inode: int, flags: int, caller: int) -> int:
        """A handle on a version, after the server has confirmed it where that is not known.

        Raises StaleVersion for one that is gone; the kernel then looks the name up again and
        repeats the open, so that the new version is found.
        """
        file = self._tree.inodes.get(inode)
        self._tree.inodes.used(file)
        if isinstance(file, Directory):
            raise IsADirectory(f"{path_of(file)} is a directory.")
        with self._opening(file, caller) as vouched:
            return await self._open_version(file, flags, vouched=vouched)

    @contextmanager
    def _opening(self, file: File, caller: int) -> Iterator[bool]:
        """An open: if it meets StaleVersion, the lookup that follows confirms what it finds.

        Gives whether this is the open that is repeated, and its lookup has confirmed the file. No
        other open may believe that: the object can be replaced between the two. The kernel repeats
        an open only once, so the second StaleVersion is for the reader.
        """
        place = file.parent, file.name, caller
        repeated = self._repeated.pop(place, None)
        try:
            yield repeated is not None and repeated.vouches_for(file)
        except StaleVersion:
            if repeated is None:
                self._repeated[place] = RepeatedOpen()
            raise

    async def _open_version(self, file: File, flags: int, *, vouched: bool) -> int:
        if file.outdated:
            raise StaleVersion(f"{path_of(file)} was replaced or deleted.")
        version, confirmed = await self._version(file)
        reader: Reader
        if flags & os.O_DIRECT:
            reader = DirectReader(self._cache.store, version)
        else:
            reader = CachedReader(self._cache, version, self._read_ahead)
        try:
            if self._verification is not None and file.md5:
                self._verification.check(version, file.md5)
                reader = VerifyingReader(reader, version, file.md5, self._verification)
            if not (vouched or confirmed):
                await self._confirm(file, reader)
        except BaseException:
            reader.close()
            raise
        number = self._new_handle()
        self._files[number] = FileHandle(file, reader)
        return number

    async def read(self, handle: int, offset: int, size_bytes: int) -> memoryview:
        """Bytes of the handle's version; short only at its end. Valid while referenced."""
        opened = self._files[handle]
        try:
            return await opened.reader.read(offset, size_bytes)
        except StaleVersion as stale:
            raise await self._gone(opened.file, opened.file.version, stale) from None

    def release(self, handle: int) -> None:
        """End of a file handle."""
        self._files.pop(handle).reader.close()

    async def _vouch(self, file: File, repeated: RepeatedOpen) -> bool:
        """Confirm the version that the lookup of a repeated open has found.

        False when it is gone as well.

        The kernel repeats an open that met ESTALE only once. If the object is replaced again
        meanwhile, the next version is found here, and not by the reader as an error.
        """
        asked = file.version
        try:
            asked, confirmed = await self._version(file)
            if not confirmed:
                reader = CachedReader(self._cache, asked, self._read_ahead)
                try:
                    await reader.confirm()
                finally:
                    reader.close()
        except StaleVersion:
            if file.version is asked:  # else it was moved meanwhile
                self._tree.outdate(file)
            return False
        except StsfsError:
            return True  # the open will meet it too, and say so
        repeated.vouch(file)
        return True

    async def _version(self, file: File) -> tuple[ObjectVersion, bool]:
        """The version of a file, and whether the store has just confirmed it."""
        confirmed = False
        if file.version is None:
            try:
                confirmed = await self._tree.view(file.parent).resolve(file)
            except StaleVersion:
                self._tree.outdate(file)
                raise
        assert file.version is not None
        return file.version, confirmed

    async def _gone(
        self, file: File, version: ObjectVersion | None, stale: StaleVersion
    ) -> StaleVersion:
        """A version of a file is gone: the next lookup asks anew. What to tell until then."""
        self._tree.outdate(file)
        return await self._tree.view(file.parent).gone(file, stale)

    async def _confirm(self, file: File, reader: Reader) -> None:
        """Close-to-open consistency: an open asks the server, however fresh the listing is.

        It rarely costs a request of its own: the answer to the first range fetched is the answer.
        """
        if self._trust_listings:
            return
        version = file.version
        try:
            await reader.confirm()
        except StaleVersion as stale:
            raise await self._gone(file, version, stale) from None
        except SessionExpired:
            return  # what is cached stays readable; the rest will say why it is not

    def _new_handle(self) -> int:
        self._last_handle += 1
        return self._last_handle
