"""Plays operations in one directory, as a process of its own.

A line of JSON in: a directory, if it is another one, and operations. A line out: one answer for
each, `["ok", value]`, `["error", errno name]`, or `["skipped"]` where a descriptor or mapping that
is named is not there. Values hold nothing that differs between two file systems: no numbers of
inodes, and no times but those that were set. `oracle` plays the same in a local directory.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import mmap
import os
import stat
import sys

LONG_AGO_S = 1_000_000_000
"""Times that a history sets are before this; all others mean just now."""

SHOWN_BYTES = 40
PIPE_BYTES = 4096
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


class Missing(Exception):
    """The operation names a descriptor or a mapping that is not open."""


def body(seed, size_bytes):
    """Bytes that tell where they come from."""
    line = f"[{seed}]".encode()
    return (line * (size_bytes // len(line) + 1))[:size_bytes]


def digest(data):
    """Short enough to compare and to look at."""
    if len(data) <= SHOWN_BYTES:
        return data.decode("latin-1")
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]} {bytes(data[:12])!r}"


def read_all(descriptor):
    """All bytes from the start, whatever size stat says."""
    pieces, at = [], 0
    while piece := os.pread(descriptor, 1 << 20, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


class Player:
    """Operations are its public methods."""

    def __init__(self, root):
        self._root = root
        self._files, self._maps = {}, {}
        self._pipe = os.pipe()

    def _at(self, path):
        return os.path.join(self._root, path) if path else self._root

    def _file(self, slot):
        if slot not in self._files:
            raise Missing
        return self._files[slot]

    # Descriptors

    def open(self, slot, path, flags, mode=0o644):
        if slot in self._files:
            raise Missing
        number = 0
        for name in flags.split("|"):
            number |= getattr(os, f"O_{name}")
        descriptor = os.open(self._at(path), number, mode)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return "a directory"
        self._files[slot] = descriptor
        return "a file"

    def dup(self, slot, other):
        if other in self._files:
            raise Missing
        self._files[other] = os.dup(self._file(slot))

    def close(self, slot):
        descriptor = self._file(slot)
        del self._files[slot]
        os.close(descriptor)

    def close_all(self):
        for slot in sorted(self._maps):
            self.unmap(slot)
        failures = []
        for slot in sorted(self._files):
            try:
                self.close(slot)
            except OSError as exc:
                failures.append(errno.errorcode[exc.errno])
        return failures

    def pwrite(self, slot, offset, size_bytes, seed):
        return os.pwrite(self._file(slot), body(seed, size_bytes), offset)

    def write(self, slot, size_bytes, seed):
        descriptor = self._file(slot)
        done = os.write(descriptor, body(seed, size_bytes))
        return [done, os.lseek(descriptor, 0, os.SEEK_CUR)]

    def pread(self, slot, offset, size_bytes):
        return digest(os.pread(self._file(slot), size_bytes, offset))

    def read(self, slot, size_bytes):
        return digest(os.read(self._file(slot), size_bytes))

    def seek(self, slot, offset, whence):
        return os.lseek(self._file(slot), offset, whence)

    def fsync(self, slot):
        os.fsync(self._file(slot))

    def fdatasync(self, slot):
        os.fdatasync(self._file(slot))

    def ftruncate(self, slot, size_bytes):
        os.ftruncate(self._file(slot), size_bytes)

    def fchmod(self, slot, mode):
        os.fchmod(self._file(slot), mode)

    def futime(self, slot, seconds):
        os.utime(self._file(slot), ns=(seconds * 10**9 + 1, seconds * 10**9 + 7))

    def fstat(self, slot):
        return self._shown(os.fstat(self._file(slot)))

    def is_same(self, slot, path):
        return os.path.samestat(os.fstat(self._file(slot)), os.lstat(self._at(path)))

    # Mappings

    def map(self, slot, other):
        descriptor = self._file(slot)
        if other in self._maps or not os.fstat(descriptor).st_size:
            raise Missing
        self._maps[other] = mmap.mmap(descriptor, 0)

    def _touched(self, other, offset, size_bytes):
        """A mapping, and bytes of it, which are there: else this process would end by SIGBUS."""
        if other not in self._maps:
            raise Missing
        mapping = self._maps[other]
        if offset + size_bytes > min(len(mapping), mapping.size()):
            raise Missing
        pieces = []
        with memoryview(mapping)[offset : offset + size_bytes] as view:
            for at in range(0, size_bytes, PIPE_BYTES):
                os.write(self._pipe[1], view[at : at + PIPE_BYTES])
                pieces.append(os.read(self._pipe[0], PIPE_BYTES))
        return mapping, b"".join(pieces)

    def store(self, other, offset, size_bytes, seed):
        mapping, _ = self._touched(other, offset, size_bytes)
        mapping[offset : offset + size_bytes] = body(seed, size_bytes)

    def load(self, other, offset, size_bytes):
        return digest(self._touched(other, offset, size_bytes)[1])

    def msync(self, other):
        if other not in self._maps:
            raise Missing
        self._maps[other].flush()

    def unmap(self, other):
        if other not in self._maps:
            raise Missing
        self._maps.pop(other).close()

    # Names

    def mkdir(self, path, mode=0o755):
        os.mkdir(self._at(path), mode)

    def rmdir(self, path):
        os.rmdir(self._at(path))

    def unlink(self, path):
        os.unlink(self._at(path))

    def rename(self, old, new, flags=0):
        paths = [os.fsencode(self._at(each)) for each in (old, new)]
        if _libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], flags):
            raise OSError(ctypes.get_errno(), "rename")

    def link(self, old, new):
        os.link(self._at(old), self._at(new))

    def symlink(self, target, path):
        os.symlink(target, self._at(path))

    def mkfifo(self, path):
        os.mkfifo(self._at(path))

    def mknod(self, path, mode=0o644):
        os.mknod(self._at(path), stat.S_IFREG | mode)

    def truncate(self, path, size_bytes):
        os.truncate(self._at(path), size_bytes)

    def chmod(self, path, mode):
        os.chmod(self._at(path), mode)

    def utime(self, path, seconds):
        os.utime(self._at(path), ns=(seconds * 10**9 + 1, seconds * 10**9 + 7))

    # Looks

    def stat(self, path):
        return self._shown(os.lstat(self._at(path)))

    def list(self, path):
        with os.scandir(self._at(path)) as entries:
            return sorted([each.name, each.is_dir(follow_symlinks=False)] for each in entries)

    def whole(self, path):
        """The content of a file by its name."""
        descriptor = os.open(self._at(path), os.O_RDONLY)
        try:
            return digest(read_all(descriptor))
        finally:
            os.close(descriptor)

    def tree(self):
        """Everything below, by path."""
        found = {}
        for directory, names, files in os.walk(self._root):
            base = os.path.relpath(directory, self._root)
            for name in names:
                path = os.path.normpath(os.path.join(base, name))
                found[path] = self.stat(path)
            for name in files:
                path = os.path.normpath(os.path.join(base, name))
                found[path] = [*self.stat(path), self.whole(path)]
        return found

    def content(self, path):
        """All bytes of a file, as hexadecimal digits."""
        with open(self._at(path), "rb") as file:
            return file.read().hex()

    def _shown(self, status):
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            return ["directory", mode]
        is_set = status.st_mtime_ns < LONG_AGO_S * 10**9
        modified = status.st_mtime_ns if is_set else "now"
        return ["file", mode, status.st_size, modified]

    def end(self):
        """Nothing is left open."""
        with contextlib.suppress(OSError):
            self.close_all()
        for descriptor in self._pipe:
            os.close(descriptor)

    def play(self, operation):
        """The answer to one operation."""
        name, *arguments = operation
        try:
            return ["ok", getattr(self, name)(*arguments)]
        except Missing:
            return ["skipped"]
        except OSError as exc:
            return ["error", errno.errorcode[exc.errno]]


def serve(kind):
    """Answer until the end of stdin."""
    os.umask(0o022)
    player = kind("/")
    for line in sys.stdin:
        asked = json.loads(line)
        if "root" in asked:
            player.end()
            player = kind(asked["root"])
        answers = [player.play(each) for each in asked["operations"]]
        sys.stdout.write(json.dumps(answers) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(Player)
