"""Adapter between pyfuse3 and the vfs. The only module that raises FUSEError.

pyfuse3 catches FUSEError and nothing else: after any other exception the request stays without an
answer, and its caller waits for ever. So every handler goes through @handler, or handles
its request within `unfailing`.
"""

import errno
import functools
import itertools
import logging
import math
import stat
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio

from stsfs import supervisor
from stsfs.errors import DeadlineExceeded, StaleVersion, StsfsError, sole, without_frames
from stsfs.fuse import errno_table
from stsfs.fuse.plain_entries import make_plain
from stsfs.fuse.xattrs import Xattrs
from stsfs.redaction import redact
from stsfs.store.shares import OWNER, Owner
from stsfs.supervisor import unfailing
from stsfs.vfs.nodes import Directory, Node
from stsfs.vfs.refusals import Refusals
from stsfs.vfs.vfs import Vfs

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
Self = TypeVar("Self", bound="Operations")

FOREVER_S = 86400.0
"""Attributes of an inode do not change: a changed object has another inode."""

BLOCK_512 = 512

ENTRIES_MAX = 256
"""Directory entries of one reply: a millisecond, during which nobody else is answered."""

OF_HANDLES = frozenset({"read", "readdir", "write", "flush", "fsync", "close"})
"""Operations whose number is that of a handle."""

OF_NAMES = frozenset({"lookup", "create", "mknod", "mkdir", "rmdir", "unlink", "symlink", "rename"})
"""Operations whose number is that of a directory, and whose next argument is a name in it."""


def handler(
    fn: Callable[Concatenate[Self, int, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Self, int, P], Coroutine[Any, Any, T]]:
    """Give a request a deadline and turn every failure into one errno.

    The deadline is not a luxury: once a request has been read from /dev/fuse the caller waits in
    uninterruptible sleep, out of reach even of SIGKILL, until the reply. For the same reason a
    request is shielded from the end of the loop that read it: it is answered first.
    """
    return _answering(fn, is_change=False)


def change_handler(
    fn: Callable[Concatenate[Self, int, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Self, int, P], Coroutine[Any, Any, T]]:
    """The same for a request that changes something, which takes as long as it makes progress.

    The store ends every request that makes none. What is half done is not broken off with the
    mount, but ends first.
    """
    return _answering(fn, is_change=True)


def _answering(
    fn: Callable[Concatenate[Self, int, P], Coroutine[Any, Any, T]], *, is_change: bool
) -> Callable[Concatenate[Self, int, P], Coroutine[Any, Any, T]]:
    @functools.wraps(fn)
    async def answer(self: Self, number: int, /, *args: P.args, **kwargs: P.kwargs) -> T:
        OWNER.set(_owner(self, number, args))
        deadline_s = math.inf if is_change else trio.current_time() + self.deadline_s
        scopes = self.changes_under_way if is_change else self.under_way
        try:
            with trio.CancelScope(shield=True, deadline=deadline_s) as scope:
                scopes.add(scope)
                self.served += 1
                try:
                    return await fn(self, number, *args, **kwargs)
                finally:
                    scopes.discard(scope)
            if trio.current_time() < deadline_s:
                raise pyfuse3.FUSEError(errno.ENOTCONN)  # the mount ends, see `cut_short`
            raise DeadlineExceeded(f"No answer within {self.deadline_s:g} s.")
        except pyfuse3.FUSEError:
            raise
        except Exception as exc:
            raise _refusal(self, fn.__name__, number, args, sole(exc)) from exc

    return answer


def _owner(operations: "Operations", number: int, args: tuple[Any, ...]) -> Owner:
    """Who asks; where the kernel does not say it, whoever opened the handle."""
    if args and isinstance(args[-1], pyfuse3.RequestContext):
        return int(args[-1].uid)
    return operations.owners.get(number)


def _refusal(
    operations: "Operations",
    operation: str,
    number: int,
    args: tuple[Any, ...],
    exc: BaseException,
) -> pyfuse3.FUSEError:
    """What `refuse` answers; EIO where that itself fails, so that the caller gets an answer."""
    try:
        return operations.refuse(operation, number, args, exc)
    except Exception as bug:  # noqa: BLE001 - nobody else could answer the request
        supervisor.BUGS.note(f"the refusal of {operation}", bug)
        return pyfuse3.FUSEError(errno.EIO)


@dataclass(frozen=True, slots=True)
class Appearance:
    """Who owns the files of a mount, and what they may do."""

    uid: int
    gid: int
    umask: int


class Operations(pyfuse3.Operations):
    """Kernel requests in, vfs calls out; no decisions are made here."""

    def __init__(
        self,
        vfs: Vfs,
        refusals: Refusals,
        appearance: Appearance,
        *,
        deadline_s: float,
        xattrs: Xattrs | None = None,
    ) -> None:
        """Without xattrs the kernel is told once that there are no extended attributes."""
        super().__init__()
        self.deadline_s = deadline_s
        self.under_way: set[trio.CancelScope] = set()
        self.changes_under_way: set[trio.CancelScope] = set()
        self.served = 0
        self.owners: dict[int, Owner] = {}
        """Of open handles: who opened them."""

        self._vfs = vfs
        self._refusals = refusals
        self._appearance = appearance
        self._xattrs = xattrs
        self._file_mode = stat.S_IFREG | (0o444 & ~appearance.umask)
        self._directory_mode = stat.S_IFDIR | (0o555 & ~appearance.umask)

    def cut_short(self) -> None:
        """The mount ends: answer with ENOTCONN what is under way; changes end by themselves."""
        for scope in self.under_way:
            scope.cancel()

    def give_up_changes(self) -> None:
        """Nobody waits for changes any more: answer them, too. What is staged stays staged."""
        for scope in self.changes_under_way:
            scope.cancel()

    @handler
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """A name in a directory; absent names are remembered by the kernel too."""
        node, ttl_s = await self._vfs.lookup(parent_inode, name, ctx.pid)
        if node is None:
            entry = pyfuse3.EntryAttributes()
            entry.st_ino = 0
            entry.entry_timeout = ttl_s
            return entry
        return self._entry(node, ttl_s)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """References given back. Cannot fail."""
        for inode, lookups in inode_list:
            with unfailing("a request of the kernel: forget"):
                self._vfs.forget(inode, lookups)

    @handler
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Attributes of a number the kernel knows."""
        return self._entry(await self._vfs.attributes(inode), 0.0)

    @handler
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """A handle on a directory."""
        handle = await self._vfs.open_directory(inode)
        self.owners[handle] = OWNER.get()
        return handle

    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Entries with their attributes, as many as fit the kernel's buffer and a millisecond."""
        entries = await self._vfs.read_directory(fh, start_id)
        ttl_s = self._vfs.entry_ttl_s(fh, start_id)
        takes_more = self._vfs.kernel_names.takes_more
        last: tuple[int, Node] | None = None
        for next_id, node in itertools.islice(entries, ENTRIES_MAX):
            entry = self._entry(node, ttl_s)
            is_plain = not takes_more and make_plain(entry)
            if not pyfuse3.readdir_reply(token, node.name, entry, next_id):
                break
            if not is_plain:
                self._vfs.refer(node)
            last = next_id, node
        if last is not None:
            self._vfs.reached(fh, *last)

    async def releasedir(self, fh: int) -> None:
        """End of a directory handle. Cannot fail."""
        self.owners.pop(fh, None)
        with unfailing("a request of the kernel: releasedir"):
            self._vfs.close_directory(fh)

    @handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """A handle on one version. Its pages stay cached: the inode is the version."""
        handle = await self._vfs.open(inode, flags, ctx.pid)
        self.owners[handle] = OWNER.get()
        return pyfuse3.FileInfo(fh=handle, keep_cache=True)

    @handler
    async def read(self, fh: int, off: int, size: int) -> memoryview:  # type: ignore[override]
        """Bytes of an open file, without copying where they lie in one block.

        pyfuse3 takes any buffer, though its stub says bytes.
        """
        return await self._vfs.read(fh, off, size)

    async def release(self, fh: int) -> None:
        """End of a file handle. Cannot fail."""
        self.owners.pop(fh, None)
        with unfailing("a request of the kernel: release"):
            self._vfs.release(fh)

    async def flush(self, fh: int) -> None:
        """close(2) of a file that was only read."""

    @handler
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """The value of one extended attribute; ENODATA for one that there is not."""
        if self._xattrs is None:
            raise pyfuse3.FUSEError(errno.ENOSYS)
        value = await self._xattrs.get(inode, name)
        if value is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return value

    @handler
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """The names of all extended attributes."""
        if self._xattrs is None:
            raise pyfuse3.FUSEError(errno.ENOSYS)
        return await self._xattrs.names(inode)

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """A large, nearly empty file system: a bucket has no size."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 1 << 20
        data.f_blocks = data.f_bfree = data.f_bavail = 1 << 40
        data.f_files = data.f_ffree = data.f_favail = 1 << 40
        data.f_namemax = 255
        return data

    def refuse(
        self, operation: str, number: int, args: tuple[Any, ...], exc: BaseException
    ) -> pyfuse3.FUSEError:
        """The errno for an exception; said in the log, and remembered, as loudly as it deserves."""
        reply = errno_table.reply_for(exc)
        if reply.level > logging.DEBUG or log.isEnabledFor(logging.DEBUG):
            path = self._path(operation, number, args)
            if reply is errno_table.BUG and isinstance(exc, Exception):
                supervisor.BUGS.note(f"{operation} {path}", exc)
            else:
                log.log(reply.level, "%s %s: %s", operation, path, exc)
            if reply.level > logging.DEBUG:
                sentence, remedy = redact(str(exc)), ""
                if isinstance(exc, StsfsError):
                    sentence, remedy = exc.sentence, exc.remedy
                name = errno.errorcode[reply.errno]
                is_repeated = operation == "open" and isinstance(exc, StaleVersion)
                self._refusals.note(
                    path, operation, name, sentence, remedy, is_repeated=is_repeated
                )
        if isinstance(exc, StsfsError):
            without_frames(exc)
        return pyfuse3.FUSEError(reply.errno)

    def _path(self, operation: str, number: int, args: tuple[Any, ...]) -> str:
        if operation in OF_HANDLES:
            return self._vfs.handle_path(number)
        path = self._vfs.path(number)
        if operation in OF_NAMES:
            name: bytes = args[0]
            return f"{path.rstrip('/')}/{name.decode('utf-8', 'backslashreplace')}"
        return path

    def _entry(self, node: Node, ttl_s: float) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = node.inode
        entry.entry_timeout = ttl_s
        entry.attr_timeout = FOREVER_S
        entry.st_uid = self._appearance.uid
        entry.st_gid = self._appearance.gid
        entry.st_nlink = 1
        entry.st_blksize = 1 << 20
        if isinstance(node, Directory):
            entry.st_mode = self._directory_mode
        else:
            entry.st_mode = self._file_mode
            if node.size_bytes is None:
                entry.attr_timeout = 0.0  # whoever wants to see them asks: getattr waits
            entry.st_size = node.size_bytes or 0
            entry.st_blocks = -(-entry.st_size // BLOCK_512)
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = node.modified_ns
        return entry
