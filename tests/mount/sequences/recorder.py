"""A file system over a local directory that writes down every request: a process of its own.

It refuses what stsfs will refuse in a storage location (links, devices, other owners, setuid,
extended attributes), so that what a tool does next is in the recording too. The connection to the
kernel is negotiated by stsfs's own session: the same flags, the same sizes of requests.
"""

import errno
import functools
import json
import os
import stat
import sys
from pathlib import Path

import pyfuse3
import trio

from stsfs.fuse.session import Session

LONG_S = 3600.0
QUIET_NAME = b".recorder-quiet"
"""A lookup of it is answered (it is absent) once no file is open."""

MODE_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
CREATE_ONLY = os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_DIRECT


class Node:
    """A number the kernel knows, and where it lies in the directory."""

    def __init__(self, number, path):
        self.number, self.path = number, path
        self.open_to_write = 0
        self.fds = []


def recorded(fn):
    """Errors of the local directory are the answer; refusals are written down with the request."""

    @functools.wraps(fn)
    async def answer(self, *args):
        try:
            return await fn(self, *args)
        except OSError as exc:
            self.log("", error=errno.errorcode[exc.errno])
            raise pyfuse3.FUSEError(exc.errno) from exc

    return answer


def refuse(number):
    raise OSError(number, os.strerror(number))


class Recorder(pyfuse3.Operations):
    """Requests in, the local directory's answers out, a line of JSON for each."""

    def __init__(self, backing, log_file, uid):
        super().__init__()
        self._log_file, self._uid = log_file, uid
        self._nodes = {pyfuse3.ROOT_INODE: Node(pyfuse3.ROOT_INODE, backing)}
        self._by_path = {backing: self._nodes[pyfuse3.ROOT_INODE]}
        self._backing = backing
        self._handles = {}
        self._handle_count = 0

    def log(self, operation, **facts):
        """One line, before the request is answered."""
        self._log_file.write(json.dumps({"op": operation, **facts}) + "\n")
        self._log_file.flush()

    def name(self, path):
        """As a person at the root of the mount would write it."""
        return os.path.relpath(os.fsdecode(path), os.fsdecode(self._backing))

    def _node(self, path):
        node = self._by_path.get(path)
        if node is None:
            node = Node(pyfuse3.ROOT_INODE + len(self._nodes), path)
            self._nodes[node.number] = self._by_path[path] = node
        return node

    def _child(self, parent, name):
        return os.path.join(self._nodes[parent].path, name)

    def _entry(self, node):
        seen = os.fstat(node.fds[0]) if node.fds else os.lstat(node.path)
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = node.number
        entry.st_mode, entry.st_nlink, entry.st_size = seen.st_mode, 1, seen.st_size
        entry.st_uid = entry.st_gid = self._uid
        entry.st_mtime_ns, entry.st_ctime_ns = seen.st_mtime_ns, seen.st_ctime_ns
        entry.st_atime_ns = seen.st_mtime_ns
        entry.st_blksize, entry.st_blocks = 1 << 20, -(-seen.st_size // 512)
        entry.entry_timeout = LONG_S
        entry.attr_timeout = 0.0 if node.open_to_write else LONG_S
        return entry

    @recorded
    async def lookup(self, parent_inode, name, ctx):
        if name == QUIET_NAME:
            while self._handles:
                await trio.sleep(0.002)
            raise pyfuse3.FUSEError(errno.ENOENT)
        path = self._child(parent_inode, name)
        if not os.path.lexists(path):
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._entry(self._node(path))

    @recorded
    async def getattr(self, inode, ctx):
        return self._entry(self._nodes[inode])

    @recorded
    async def setattr(self, inode, attr, fields, fh, ctx):
        node, facts = self._nodes[inode], {}
        if fields.update_size:
            facts["size"] = attr.st_size
        if fields.update_mode:
            facts["mode"] = f"{stat.S_IMODE(attr.st_mode):04o}"
        if fields.update_uid:
            facts["uid"] = attr.st_uid
        if fields.update_gid:
            facts["gid"] = attr.st_gid
        facts["times"] = [
            word
            for word, given in (
                ("atime", fields.update_atime),
                ("mtime", fields.update_mtime),
                ("ctime", fields.update_ctime),
            )
            if given
        ]
        self.log("setattr", node=self.name(node.path), handle=self._label(fh), **facts)
        if (fields.update_uid and attr.st_uid != self._uid) or (
            fields.update_gid and attr.st_gid != self._uid
        ):
            refuse(errno.EPERM)
        if fields.update_mode and attr.st_mode & MODE_SPECIAL:
            refuse(errno.EPERM)
        where = node.fds[0] if node.fds else node.path
        if fields.update_size:
            writing = [fd for each, fd, writes in self._handles.values() if each is node and writes]
            os.truncate(writing[0] if writing else node.path, attr.st_size)
        if fields.update_mode:
            os.chmod(where, stat.S_IMODE(attr.st_mode))
        if fields.update_mtime:
            atime_ns = attr.st_atime_ns if fields.update_atime else attr.st_mtime_ns
            os.utime(where, ns=(atime_ns, attr.st_mtime_ns))
        return self._entry(node)

    @recorded
    async def mknod(self, parent_inode, name, mode, rdev, ctx):
        path = self._child(parent_inode, name)
        self.log("mknod", node=self.name(path), mode=f"{mode:06o}")
        if not stat.S_ISREG(mode):
            refuse(errno.EPERM)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, stat.S_IMODE(mode)))
        return self._entry(self._node(path))

    @recorded
    async def mkdir(self, parent_inode, name, mode, ctx):
        path = self._child(parent_inode, name)
        self.log("mkdir", node=self.name(path), mode=f"{stat.S_IMODE(mode):04o}")
        os.mkdir(path, stat.S_IMODE(mode))
        return self._entry(self._node(path))

    @recorded
    async def unlink(self, parent_inode, name, ctx):
        path = self._child(parent_inode, name)
        self.log("unlink", node=self.name(path), open=self._open_handles(path))
        os.unlink(path)
        self._by_path.pop(path, None)

    @recorded
    async def rmdir(self, parent_inode, name, ctx):
        path = self._child(parent_inode, name)
        self.log("rmdir", node=self.name(path))
        os.rmdir(path)
        self._by_path.pop(path, None)

    @recorded
    async def symlink(self, parent_inode, name, target, ctx):
        path = self._child(parent_inode, name)
        self.log("symlink", node=self.name(path), target=os.fsdecode(target))
        refuse(errno.EPERM)

    @recorded
    async def link(self, inode, new_parent_inode, new_name, ctx):
        path = self._child(new_parent_inode, new_name)
        self.log("link", node=self.name(self._nodes[inode].path), target=self.name(path))
        refuse(errno.EPERM)

    @recorded
    async def rename(self, parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx):
        old, new = (
            self._child(parent_inode_old, name_old),
            self._child(parent_inode_new, name_new),
        )
        self.log(
            "rename",
            node=self.name(old),
            target=self.name(new),
            flags=[word for bit, word in ((1, "NOREPLACE"), (2, "EXCHANGE")) if flags & bit],
            over=os.path.lexists(new),
            open=self._open_handles(old),
            target_open=self._open_handles(new),
        )
        if flags & pyfuse3.RENAME_EXCHANGE:
            refuse(errno.EINVAL)
        if flags & pyfuse3.RENAME_NOREPLACE and os.path.lexists(new):
            refuse(errno.EEXIST)
        os.rename(old, new)
        self._by_path.pop(new, None)
        for path in [path for path in self._by_path if (path + b"/").startswith(old + b"/")]:
            node = self._by_path.pop(path)
            node.path = new + path[len(old) :]
            self._by_path[node.path] = node

    def _open_handles(self, path):
        return [f"h{fh}" for fh, (node, _, _) in self._handles.items() if node.path == path]

    def _label(self, fh):
        return None if fh is None else f"h{fh}"

    def _opened(self, node, flags, mode=0o600):
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        local = (os.O_RDWR if writes else os.O_RDONLY) | (flags & (os.O_TRUNC | os.O_EXCL))
        fd = os.open(node.path, local | (flags & os.O_CREAT), mode)
        self._handle_count += 1
        self._handles[self._handle_count] = (node, fd, writes)
        node.fds.append(fd)
        node.open_to_write += writes
        return pyfuse3.FileInfo(fh=self._handle_count, keep_cache=True)

    @recorded
    async def create(self, parent_inode, name, mode, flags, ctx):
        node = self._node(self._child(parent_inode, name))
        facts = {"node": self.name(node.path), "flags": flags, "mode": f"{stat.S_IMODE(mode):04o}"}
        self.log("create", handle=f"h{self._handle_count + 1}", **facts)
        info = self._opened(node, flags | os.O_CREAT, stat.S_IMODE(mode))
        return info, self._entry(node)

    @recorded
    async def open(self, inode, flags, ctx):
        node = self._nodes[inode]
        facts = {"node": self.name(node.path), "flags": flags, "size": self._entry(node).st_size}
        self.log("open", handle=f"h{self._handle_count + 1}", **facts)
        return self._opened(node, flags & ~CREATE_ONLY)

    @recorded
    async def read(self, fh, off, size):
        data = os.pread(self._handles[fh][1], size, off)
        self.log("read", handle=f"h{fh}", start=off, stop=off + len(data), asked=size)
        return data

    @recorded
    async def write(self, fh, off, buf):
        self.log("write", handle=f"h{fh}", start=off, stop=off + len(buf))
        return os.pwrite(self._handles[fh][1], buf, off)

    @recorded
    async def flush(self, fh):
        self.log("flush", handle=f"h{fh}", writes=self._handles[fh][2])

    @recorded
    async def fsync(self, fh, datasync):
        self.log("fsync", handle=f"h{fh}", datasync=bool(datasync))

    async def release(self, fh):
        self.log("release", handle=f"h{fh}")
        node, fd, writes = self._handles.pop(fh)
        node.fds.remove(fd)
        node.open_to_write -= writes
        os.close(fd)

    async def opendir(self, inode, ctx):
        return inode

    async def readdir(self, fh, start_id, token):
        path = self._nodes[fh].path
        for position, name in enumerate(sorted(os.listdir(path)), start=1):
            if position > start_id:
                entry = self._entry(self._node(os.path.join(path, name)))
                if not pyfuse3.readdir_reply(token, name, entry, position):
                    return

    @recorded
    async def fsyncdir(self, fh, datasync):
        self.log("fsyncdir", node=self.name(self._nodes[fh].path), datasync=bool(datasync))

    async def statfs(self, ctx):
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 1 << 20
        data.f_blocks = data.f_bfree = data.f_bavail = 1 << 40
        data.f_files = data.f_ffree = data.f_favail = 1 << 40
        data.f_namemax = 255
        return data

    async def setxattr(self, inode, name, value, ctx):
        self.log("setxattr", node=self.name(self._nodes[inode].path), name=os.fsdecode(name))
        raise pyfuse3.FUSEError(errno.ENOTSUP)

    async def removexattr(self, inode, name, ctx):
        self.log("removexattr", node=self.name(self._nodes[inode].path), name=os.fsdecode(name))
        raise pyfuse3.FUSEError(errno.ENOTSUP)


async def serve(mount_path, backing, log_path, uid):
    """Until it is unmounted. Says "ready" when it answers."""
    session = Session(mount_path)
    await session.mount(
        ["nosuid", "nodev", "default_permissions", "allow_other", "fsname=recorder"]
    )
    with Path(log_path).open("w") as log_file:
        await session.negotiate(Recorder(os.fsencode(backing), log_file, uid))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await session.serve()
    session.close()


if __name__ == "__main__":
    trio.run(serve, *sys.argv[1:4], int(sys.argv[4]))
