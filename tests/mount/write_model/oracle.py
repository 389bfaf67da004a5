"""What a mount should answer: the same operations in a local directory.

It refuses what the rules of an STS folder refuse, and says of which file a descriptor is.
"""

import errno
import os
import stat
import time
from collections import defaultdict

from player import Player, body, digest, serve

RENAME_EXCHANGE = 2

DESCRIPTOR_OPERATIONS = {
    "close", "pwrite", "write", "pread", "read", "seek", "fsync", "fdatasync", "ftruncate",
    "fchmod", "futime", "fstat", "is_same", "dup", "map",
}  # fmt: skip
MAPPING_OPERATIONS = {"store", "load", "msync", "unmap"}


class Oracle(Player):
    """Answers are `[answer, marks]`; marks: `inode` and `nameless` (it was removed)."""

    def __init__(self, root):
        super().__init__(root)
        self._map_descriptors = {}
        self._kept = {}
        """A descriptor of each inode that was ever there, so that no number comes twice."""

        self._mapped = set()
        """What was mapped for writing: nobody knows when its time changes."""

        self._seen_at = defaultdict(list)
        """Contents that each path has had, by digest; the newest last."""

        self._seen_in = defaultdict(list)
        """The same by inode."""

        self._written = set()
        """Slots through which a content was changed."""

        self._durable = {}
        """Which of its contents each inode had when fsync or close said that it is safe."""

    def play(self, operation):
        name, *arguments = operation
        marks = self._marks(name, arguments)
        before = len(self._seen_in[marks["inode"]]) if marks else 0
        answer = super().play(operation)
        self._remember()
        if marks:
            self._note(name, arguments[0], marks["inode"], before)
        return [answer, marks]

    def _marks(self, name, arguments):
        if name in MAPPING_OPERATIONS:
            descriptor = self._map_descriptors.get(arguments[0])
        elif name in DESCRIPTOR_OPERATIONS:
            descriptor = self._files.get(arguments[0])
        else:
            return {}
        if descriptor is None:
            return {}
        status = os.fstat(descriptor)
        return {"inode": status.st_ino, "nameless": status.st_nlink == 0}

    def _note(self, name, slot, inode, before):
        contents = self._seen_in[inode]
        if len(contents) > before and name not in MAPPING_OPERATIONS:
            self._written.add(slot)
        if name == "close" and slot in self._written:
            self._written.discard(slot)
            self._durable[inode] = len(contents) - 1
        if name in ("fsync", "fdatasync"):
            self._durable[inode] = len(contents) - 1

    def _files_below(self):
        for directory, _, files in os.walk(self._root):
            for name in files:
                yield os.path.join(directory, name)

    def _remember(self):
        for path in self._files_below():
            with open(path, "rb") as file:
                content, inode = digest(file.read()), os.fstat(file.fileno()).st_ino
                if inode not in self._kept:
                    self._kept[inode] = os.dup(file.fileno())
            for seen in (self._seen_at[os.path.relpath(path, self._root)], self._seen_in[inode]):
                if not seen or seen[-1] != content:
                    seen.append(content)

    # What the rules refuse

    def rename(self, old, new, flags=0):
        super().rename(old, new, flags)
        if flags & RENAME_EXCHANGE and old != new:
            super().rename(old, new, flags)
            raise OSError(errno.EINVAL, "exchange")

    def link(self, old, new):
        super().link(old, new)
        self._take_back(new)

    def symlink(self, target, path):
        super().symlink(target, path)
        self._take_back(path)

    def mkfifo(self, path):
        super().mkfifo(path)
        self._take_back(path)

    def _take_back(self, path):
        os.unlink(self._at(path))
        raise OSError(errno.EPERM, "not in an STS folder")

    def chmod(self, path, mode):
        os.stat(self._at(path))
        self._ask_mode(mode)
        super().chmod(path, mode)

    def fchmod(self, slot, mode):
        self._file(slot)
        self._ask_mode(mode)
        super().fchmod(slot, mode)

    def truncate(self, path, size_bytes):
        before = os.stat(self._at(path))
        super().truncate(path, size_bytes)
        self._keep_time(self._at(path), before, size_bytes)

    def ftruncate(self, slot, size_bytes):
        before = os.fstat(self._file(slot))
        super().ftruncate(slot, size_bytes)
        self._keep_time(self._file(slot), before, size_bytes)

    def _keep_time(self, file, before, size_bytes):
        """Truncating a file to the size that it has is no change in a mount."""
        if size_bytes == before.st_size:
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _ask_mode(self, mode):
        if mode > 0o777:
            raise OSError(errno.EPERM, "permissions belong to the location")

    # Mappings

    def map(self, slot, other):
        super().map(slot, other)
        descriptor = self._file(slot)
        self._map_descriptors[other] = os.dup(descriptor)
        self._mapped.add(os.fstat(descriptor).st_ino)

    def unmap(self, other):
        super().unmap(other)
        os.close(self._map_descriptors.pop(other))

    def end(self):
        super().end()
        for descriptor in [*self._map_descriptors.values(), *self._kept.values()]:
            os.close(descriptor)

    def _shown(self, status):
        shown = super()._shown(status)
        return [*shown[:3], "any"] if status.st_ino in self._mapped else shown

    # What happens without us

    def holders(self, path):
        """What has that name, whether its directory is there, and who has the file open."""
        at = self._at(path)
        parent = os.path.isdir(os.path.dirname(at))
        try:
            status = os.lstat(at)
        except OSError:
            return {"kind": "absent", "parent": parent, "slots": [], "maps": []}
        kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
        return {
            "kind": kind,
            "parent": parent,
            "slots": [s for s, d in self._files.items() if os.fstat(d).st_ino == status.st_ino],
            "maps": [
                m for m, d in self._map_descriptors.items() if os.fstat(d).st_ino == status.st_ino
            ],
        }

    def held(self):
        """Of each file that is open, by path: what a crash may leave, and what it may not lose.

        `may`: contents, or nothing; `must`: one of these, if any, is there or can be recovered.
        """
        open_now = [*self._files.values(), *self._map_descriptors.values()]
        inodes = {os.fstat(descriptor).st_ino for descriptor in open_now}
        found = {}
        for path in self._files_below():
            if (inode := os.lstat(path).st_ino) in inodes:
                name = os.path.relpath(path, self._root)
                contents = self._seen_in[inode]
                safe = self._durable.get(inode)
                must = [] if safe is None else contents[safe:]
                found[name] = {"may": self._seen_at[name] + contents, "must": must}
        return found

    def foreign_put(self, path, size_bytes, seed):
        self.adopt(path, body(seed, size_bytes).hex(), 0o644, "now")

    def adopt(self, path, content, mode, modified):
        """A file becomes another one."""
        new = os.path.join(self._root, ".new")
        with open(new, "wb") as file:
            file.write(bytes.fromhex(content))
        os.rename(new, self._at(path))
        self.adopt_attributes(path, mode, modified)

    def adopt_attributes(self, path, mode, modified="now"):
        """A file or directory has another mode and time; nobody knows which way."""
        os.chmod(self._at(path), mode)
        modified_ns = time.time_ns() if modified == "now" else modified
        os.utime(self._at(path), ns=(modified_ns, modified_ns))


if __name__ == "__main__":
    serve(Oracle)
