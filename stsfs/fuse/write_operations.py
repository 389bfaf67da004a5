"""The requests of the kernel that change something.

Setting extended attributes stays ENOSYS, as in `Operations`: the kernel says ENOTSUP for it, and
asks no more. An access list is set by the same request.
"""

import stat
from collections.abc import Awaitable, Callable

import pyfuse3
import trio

from stsfs.fuse.operations import Appearance, Operations, change_handler
from stsfs.fuse.xattrs import Xattrs
from stsfs.rules.question import Operation
from stsfs.store.shares import OWNER
from stsfs.supervisor import TaskPool, unfailing
from stsfs.vfs.nodes import File, Node
from stsfs.vfs.refusals import Refusals
from stsfs.vfs.writing import AttributeChange, WritingVfs

OPENING_S = 0.1
"""How long the attributes of a file that is made are believed: for the rest of the same open(2),
which otherwise asks for them at once."""

SPECIAL_FILES: dict[int, Operation] = {
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
}


class WriteOperations(Operations):
    """Operations of a mount made with --rw. `run` must be running while requests are answered."""

    def __init__(
        self,
        vfs: WritingVfs,
        refusals: Refusals,
        appearance: Appearance,
        *,
        deadline_s: float,
        xattrs: Xattrs | None = None,
        forget_pages: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """forget_pages makes the kernel drop what it has cached of an inode."""
        super().__init__(vfs, refusals, appearance, deadline_s=deadline_s, xattrs=xattrs)
        self._writing = vfs
        self._forget_pages = forget_pages
        self._ends = TaskPool("released files")
        self._ending: set[trio.Event] = set()
        self._file_mode = stat.S_IFREG | (0o666 & ~appearance.umask)
        self._directory_mode = stat.S_IFDIR | (0o777 & ~appearance.umask)

    @change_handler
    async def create(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Open a file, made if it is not there."""
        handle, file = await self._writing.create(
            parent_inode, name, flags, _unusual(mode, self._file_mode)
        )
        self.owners[handle] = OWNER.get()
        entry = self._entry(file, 0.0)
        entry.attr_timeout = max(entry.attr_timeout, OPENING_S)
        return pyfuse3.FileInfo(fh=handle, keep_cache=True), entry

    @change_handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Bytes into an open file: into its staging file."""
        return await self._writing.write(fh, off, buf)

    @change_handler
    async def flush(self, fh: int) -> None:
        """close(2): returns when S3 has the file as it is now."""
        await self._writing.flush(fh)

    @change_handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        """What was written survives a crash from now on."""
        await self._writing.fsync(fh)

    async def release(self, fh: int) -> None:
        """End of a file handle; answered before its end has published what it has to.

        Nobody waits for the answer but the kernel, which takes it for one of the MAX_BACKGROUND
        requests that it has under way at most: slow ones would keep others from reading ahead.
        """
        ended = trio.Event()
        self._ending.add(ended)
        self._ends.start("close", self._end, fh, ended)

    async def _end(self, fh: int, ended: trio.Event) -> None:
        """The end of a file handle. A failure is logged, and remembered."""
        try:
            await self.close(fh)
        except pyfuse3.FUSEError:
            # Pages that a mapping has changed, and that could not be written, are nowhere else.
            if self._forget_pages is not None:
                await self._forget_pages(self._writing.inode_of(fh))
        finally:
            self.owners.pop(fh, None)
            with unfailing("the release of a file"):
                self._writing.release(fh)
            self._ending.discard(ended)
            ended.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the ends of released files until cancelled."""
        await self._ends.run(task_status=task_status)

    async def until_ended(self) -> None:
        """Return when the end of every released file has published what it had to."""
        while self._ending:
            await next(iter(self._ending)).wait()

    @change_handler
    async def close(self, fh: int) -> None:
        """What the end of a handle publishes."""
        await self._writing.close(fh)

    @change_handler
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Size, permission bits and time; an owner that is the owner already."""
        change = AttributeChange(
            size_bytes=attr.st_size if fields.update_size else None,
            mode=attr.st_mode if fields.update_mode else None,
            modified_ns=attr.st_mtime_ns if fields.update_mtime else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            owner=(self._appearance.uid, self._appearance.gid),
        )
        return self._entry(await self._writing.set_attributes(inode, change, fh), 0.0)

    @change_handler
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """An empty file; nothing else can be made."""
        if (operation := SPECIAL_FILES.get(stat.S_IFMT(mode))) is not None:
            self._writing.names.refuse(operation, parent_inode, name)
        mode_asked = _unusual(mode, self._file_mode)
        file = await self._writing.make_file(parent_inode, name, mode_asked)
        return self._entry(file, 0.0)

    @change_handler
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """A directory."""
        mode_asked = _unusual(mode, self._directory_mode)
        return self._entry(await self._writing.names.mkdir(parent_inode, name, mode_asked), 0.0)

    @change_handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """An empty directory goes."""
        await self._writing.names.rmdir(parent_inode, name)

    @change_handler
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """A file goes."""
        await self._writing.names.unlink(parent_inode, name)

    @change_handler
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Another name for a file or directory."""
        await self._writing.names.rename(
            parent_inode_old,
            name_old,
            parent_inode_new,
            name_new,
            replace=not flags & pyfuse3.RENAME_NOREPLACE,
            exchange=bool(flags & pyfuse3.RENAME_EXCHANGE),
        )

    @change_handler
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """There are none."""
        self._writing.names.refuse("symlink", parent_inode, name)

    @change_handler
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """There are none."""
        self._writing.names.refuse("link", new_parent_inode, new_name)

    def _entry(self, node: Node, ttl_s: float) -> pyfuse3.EntryAttributes:
        entry = super()._entry(node, ttl_s)
        if node.mode is not None:
            entry.st_mode = stat.S_IFMT(entry.st_mode) | node.mode
        if isinstance(node, File) and node.staged is not None:
            # It may become another client's file without the kernel's doing, and grows.
            entry.entry_timeout = entry.attr_timeout = 0.0
        return entry


def _unusual(mode: int, usual: int) -> int | None:
    """The bits of a new mode, unless they are what every file of the mount has."""
    bits = stat.S_IMODE(mode)
    return None if bits == stat.S_IMODE(usual) else bits
