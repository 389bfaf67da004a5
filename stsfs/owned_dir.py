"""Directories and files of ours on the local disk, opened so that other users cannot redirect them.

A path is walked component by component, by descriptors. Each directory on the way must belong to
us or to root, and nobody else may exchange what it holds: it is writable by its owner only, or
sticky. Symbolic links on the way are followed where their owner is one of those two. The directory
itself, and the files in it, are opened without following links, and checked once they are open.
Behind that, paths below the directory mean the same for as long as it stays as it is.

Nothing here trusts a name: what it leads to is looked at by `fstat` of what was opened.
"""

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from stsfs import values as checks
from stsfs.errors import ForeignPath as ForeignPath  # for those who import this module

LINKS_MAX = 40
"""Symbolic links in one path, as in the kernel."""

ACL_ATTRIBUTE = "system.posix_acl_access"
_ROOT = 0
_FIXED = "/proc/self/fd/"
_BY_PATH = os.O_PATH | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class OwnedDir:
    """An open directory that belongs to us. Methods take names of entries, and may block.

    They raise ForeignPath for what is not ours or of another kind, and OSError for all else, such
    as FileNotFoundError.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        """For messages, and for what cannot be told a descriptor (SQLite)."""

        self.descriptor = descriptor
        """For calls with `dir_fd`; -1 once closed."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        create: bool = False,
        private: bool = False,
        any_owner: bool = False,
        any_parents: bool = False,
        follow: bool = False,
    ) -> Self:
        """Open a directory. Its last component may not be a symbolic link.

        follow: it may be one of ours or root's. create: make it (mode 0700), and what is missing
        above it (0755). private: take the permissions of others away. any_owner: it may be
        anybody's, and writable by others. any_parents: so may the directories above it; symbolic
        links of others are not followed still.
        """
        if follow:
            path = resolved(path)
        with contextlib.ExitStack() as held:
            at, name = _walk(path, held, create=create, check=not any_parents)
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=at)
            opened = cls(path, _opened_directory(path, name, at))
        with opened._closed_on_error():
            opened._check(private=private, any_owner=any_owner)
        return opened

    @property
    def fixed_path(self) -> Path:
        """A path, for this process only, that leads here while the directory is open, whatever
        becomes of its name; see `shown`."""
        return Path(f"{_FIXED}{self.descriptor}")

    def open_dir(
        self, name: str, *, create: bool = False, private: bool = False, any_owner: bool = False
    ) -> "OwnedDir":
        """A directory in this one; see `open`."""
        path = self.path / _entry(name)
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self.descriptor)
        opened = OwnedDir(path, _opened_directory(path, name, self.descriptor))
        with opened._closed_on_error():
            opened._check(private=private, any_owner=any_owner)
        return opened

    def open_file(
        self,
        name: str,
        flags: int = os.O_RDONLY,
        *,
        bytes_max: int | None = None,
        private: bool = False,
        any_links: bool = False,
    ) -> int:
        """The descriptor of a regular file of ours; with O_CREAT, mode 0600 where it is new.

        bytes_max: the largest size that makes sense. private: one that others can read or write is
        refused. any_links: it may have other names, too. It is not truncated: O_TRUNC would be
        done before anybody has looked.
        """
        return _opened_file(
            self.path / _entry(name), name, self.descriptor, flags,
            bytes_max=bytes_max, private=private, any_links=any_links,
        )  # fmt: skip

    def create_file(self, name: str, flags: int = os.O_WRONLY, mode: int = 0o600) -> int:
        """The descriptor of a new file. Raises FileExistsError."""
        flags |= os.O_CREAT | os.O_EXCL
        return os.open(_entry(name), flags | _FILE, mode, dir_fd=self.descriptor)

    def read(self, name: str, bytes_max: int, *, private: bool = False) -> bytes:
        """All of a file that has no more than bytes_max."""
        with open(self.open_file(name, bytes_max=bytes_max, private=private), "rb") as file:
            return file.read(bytes_max)

    def replace(self, name: str, data: bytes, *, sync: bool = False) -> None:
        """Put a file with these bytes in place of what has the name, in one step."""
        new = f"{_entry(name)}.{os.getpid()}.new"  # what a dead process has left of it is no loss
        self.unlink(new)
        with open(self.create_file(new), "wb", 0) as file:
            _write_all(file.fileno(), data)
            if sync:
                os.fsync(file.fileno())
        self.rename(new, name)

    def has(self, name: str) -> bool:
        """Whether there is an entry of this name, whatever it is."""
        try:
            os.stat(_entry(name), dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def check_file(self, name: str) -> bool:
        """Whether there is such a file; for what opens it by path. Raises ForeignPath."""
        try:
            status = os.stat(_entry(name), dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        check_file(self.path / name, status)
        return True

    def rename(self, name: str, new_name: str) -> None:
        """Give an entry another name; what has that name is replaced."""
        at = self.descriptor
        os.rename(_entry(name), _entry(new_name), src_dir_fd=at, dst_dir_fd=at)

    def unlink(self, name: str) -> None:
        """Remove a name that is no directory's; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_entry(name), dir_fd=self.descriptor)

    def names(self) -> list[str]:
        """All entries, in order."""
        return sorted(os.listdir(self.descriptor))

    def close(self) -> None:
        """Give the descriptor back; may be called again."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _check(self, *, private: bool, any_owner: bool) -> None:
        status = os.fstat(self.descriptor)
        if any_owner:
            return
        if status.st_uid != os.geteuid():
            raise foreign(self.path, f"belongs to {_user(status.st_uid)} and not to us")
        if private and status.st_mode & 0o077:
            os.fchmod(self.descriptor, 0o700)
        elif _can_be_exchanged(self.descriptor, status):
            raise _writable(self.path)


def open_file(
    path: str | Path,
    flags: int = os.O_RDONLY,
    *,
    bytes_max: int | None = None,
    private: bool = False,
) -> int:
    """The same as `OwnedDir.open_file`, for a directory that was opened as an OwnedDir before.

    Nobody else can exchange it since, and so its path still means the same.
    """
    return _opened_file(path, path, None, flags, bytes_max=bytes_max, private=private)


def open_log(path: str | Path, flags: int, mode: int = 0o600) -> int:
    """A file that users name, to be added to: no pipe, link or file of others is opened, and no
    file that has another name elsewhere, which it may have been given to have it written to.

    Directories above it may be anybody's, and are walked by descriptors: they lead nowhere else.
    mode: of one that is made. Raises ForeignPath and OSError.
    """
    found = resolved(Path(path))
    with contextlib.ExitStack() as held:
        at, name = _walk(found, held, create=False, check=False)
        with contextlib.suppress(FileNotFoundError):
            # to open a device, or the other end of a pipe, may do something
            _check_log(found, os.stat(name, dir_fd=at, follow_symlinks=False))
        descriptor = os.open(name, flags | _FILE, mode, dir_fd=at)  # whatever it is by now
    try:
        _check_log(found, os.fstat(descriptor))
        os.set_blocking(descriptor, True)  # else a terminal that is behind loses lines
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def resolved(path: Path) -> Path:
    """The path without symbolic links, of which only those of ours or root's are followed.

    For paths that users type, in place of `Path.resolve`; what is not there stays as it is typed.
    Raises ForeignPath.
    """
    pending = _parts(path.absolute())
    at = Path("/")
    links = 0
    while pending:
        name = pending.pop()
        try:
            status = os.lstat(at / name)
        except OSError:  # whoever uses it will be told
            status = None
        if status is None or not stat.S_ISLNK(status.st_mode):
            at = at.parent if name == ".." else at / name
            continue
        if status.st_uid not in _trusted():
            raise foreign(at / name, f"is a link of {_user(status.st_uid)}")
        if (links := links + 1) > LINKS_MAX:
            raise foreign(path, "has too many symbolic links")
        target = Path(os.readlink(at / name))
        if target.is_absolute():
            at = Path("/")
        pending += _parts(target)
    return at


def shown(path: Path | str) -> str:
    """A path for messages: one that begins with a `fixed_path` has the name of today."""
    text = str(path)
    if not text.startswith(_FIXED):
        return text
    head, slash, tail = text.removeprefix(_FIXED).partition("/")
    try:
        return os.readlink(_FIXED + head) + slash + tail
    except OSError:
        return text


def foreign(path: Path | str, what: str, remedy: str = "") -> ForeignPath:
    """The error for a path; what is the rest of its sentence."""
    return ForeignPath(f"{checks.one_line(shown(path))} {what}.", remedy=remedy)


def check_file(
    path: str | Path,
    status: os.stat_result,
    *,
    bytes_max: int | None = None,
    private: bool = False,
    any_links: bool = False,
) -> None:
    """Raise ForeignPath for what is not a regular file of ours; see `OwnedDir.open_file`."""
    if not stat.S_ISREG(status.st_mode):
        raise foreign(path, f"is {_kind(status.st_mode)} and not a file")
    if status.st_uid != os.geteuid():
        raise foreign(path, f"belongs to {_user(status.st_uid)} and not to us")
    if status.st_nlink > 1 and not any_links:
        raise _linked(path)
    if private and status.st_mode & 0o077:
        raise foreign(path, "can be read or written by others", "Take their permission away.")
    if bytes_max is not None and status.st_size > bytes_max:
        raise foreign(path, f"has more than {bytes_max} bytes")


def _check_log(path: Path, status: os.stat_result) -> None:
    """What is no regular file, such as a terminal, may be root's."""
    if status.st_uid not in _trusted():
        raise foreign(path, f"belongs to {_user(status.st_uid)} and not to us")
    if stat.S_ISFIFO(status.st_mode):
        raise foreign(path, f"is {_kind(status.st_mode)} and not a file")
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise _linked(path, "Remove that name, or name another file.")


def _linked(path: Path | str, remedy: str = "") -> ForeignPath:
    return foreign(path, "has a second name (a hard link) elsewhere", remedy)


def _walk(path: Path, held: contextlib.ExitStack, *, create: bool, check: bool) -> tuple[int, str]:
    """The directory that holds the last component of path, open until held ends, and its name."""
    pending = _parts(path.absolute())
    links = 0
    shown = Path("/")
    trusted = _trusted()
    at = _held("/", None, held)
    _check_parent(shown, at, trusted, check=check)
    while len(pending) > 1:
        name = pending.pop()
        entry = _held(name, at, held, create=create)
        status = os.fstat(entry)
        if stat.S_ISLNK(status.st_mode):
            if status.st_uid not in trusted:
                raise foreign(shown / name, f"is a link of {_user(status.st_uid)}")
            if (links := links + 1) > LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = Path(os.readlink("", dir_fd=entry))
            if target.is_absolute():
                shown, at = Path("/"), _held("/", None, held)
            pending += _parts(target)
            continue
        shown, at = shown / name, entry
        _check_parent(shown, at, trusted, check=check)
    return at, pending[0] if pending else "."


def _parts(path: Path) -> list[str]:
    """The components, the last one first."""
    return [part for part in path.parts[::-1] if part != path.root]


def _trusted() -> set[int]:
    """Us, root, and whoever owns /, who can do anything anyway."""
    return {os.geteuid(), _ROOT, os.stat("/").st_uid}


def _held(name: str, at: int | None, held: contextlib.ExitStack, *, create: bool = False) -> int:
    try:
        descriptor = _by_path(name, at)
    except FileNotFoundError:
        if not create:
            raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=at)
        descriptor = _by_path(name, at)
    held.callback(os.close, descriptor)
    return descriptor


def _by_path(name: str, at: int | None) -> int:
    """An entry, or a link itself. Only who asks for a directory has one mounted by autofs."""
    try:
        return os.open(name, _BY_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=at)
    except OSError as exc:
        if exc.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        return os.open(name, _BY_PATH | os.O_NOFOLLOW, dir_fd=at)


def _check_parent(path: Path, descriptor: int, trusted: set[int], *, check: bool) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if not check:
        return
    if status.st_uid not in trusted:
        whose = _user(status.st_uid)
        raise foreign(path, f"belongs to {whose}, who can exchange what lies below it")
    if _can_be_exchanged(descriptor, status):
        raise _writable(path)


def _writable(path: Path) -> ForeignPath:
    what = "can be written by other users, who can exchange what lies below it"
    return foreign(path, what, "Name a directory of yours, or take their permission away.")


def _can_be_exchanged(descriptor: int, status: os.stat_result) -> bool:
    """Whether others may rename or remove what a directory holds."""
    if status.st_mode & stat.S_ISVTX:
        return False
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_own_group(descriptor, status)


def _is_own_group(descriptor: int, status: os.stat_result) -> bool:
    """Whether the group is the private one of the owner, and no access control list adds to it.

    Where each user has such a group, the usual umask leaves it the permission to write.
    """
    with contextlib.suppress(OSError):
        os.getxattr(f"/proc/self/fd/{descriptor}", ACL_ATTRIBUTE)
        return False
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    is_private = owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name
    return is_private and set(group.gr_mem) <= {owner.pw_name}


def _opened_file(
    path: str | Path,
    name: str | Path,
    at: int | None,
    flags: int,
    *,
    bytes_max: int | None = None,
    private: bool = False,
    any_links: bool = False,
) -> int:
    assert not flags & os.O_TRUNC
    try:
        descriptor = os.open(name, flags | _FILE, 0o600, dir_fd=at)
    except OSError as exc:
        raise _in_words(path, exc) from exc
    try:
        status = os.fstat(descriptor)
        check_file(path, status, bytes_max=bytes_max, private=private, any_links=any_links)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _opened_directory(path: Path, name: str, at: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=at)
    except OSError as exc:
        if exc.errno in (errno.ENOTDIR, errno.ELOOP):  # which one a link is depends on the kernel
            mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
            raise foreign(path, f"is {_kind(mode)} and not a directory") from exc
        raise _in_words(path, exc) from exc


def _in_words(path: str | Path, exc: OSError) -> Exception:
    """What could not be opened, with its whole path."""
    if exc.errno == errno.ELOOP:
        return foreign(path, "is a symbolic link and not a file")
    if exc.errno in (errno.ENXIO, errno.EISDIR):
        return foreign(path, "is a pipe, a socket, a device or a directory and not a file")
    return OSError(exc.errno, exc.strerror, str(path))  # the constructor finds the subclass


def _entry(name: str) -> str:
    if "/" in name or name in ("", ".", ".."):
        raise ValueError("it is no name of an entry")
    return name


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
