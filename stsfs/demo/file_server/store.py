"""Objects as files: which path a key has, and how objects come and go. Keys are bytes.

A key is a plain path below the bucket's directory where that is possible. Keys that cannot be
paths (`a//b`, `../x`, `dir/`, `a/b` where `a` is a file) lie in a hidden directory under their
digest, each beside a file that holds the key.
"""

import hashlib
import json
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stsfs.demo.s3_wire import Refusal

HIDDEN_PREFIX = b".s3-"
"""First components that begin so belong to the server."""

_ODD, _STAGING, UPLOADS = b".s3-odd", b".s3-staging", b".s3-uploads"
_KEY_SUFFIX = b".key"
_COMPONENT_BYTES_MAX = 255
_METADATA_XATTR = "user.s3"
_CLASSES = b".s3-classes"
"""Lies in a bucket that has objects of other storage classes than the usual one."""

STORAGE_CLASS = "x-amz-storage-class"

NO_SUCH_KEY = Refusal(404, "NoSuchKey", "The specified key does not exist.")
PRECONDITION_FAILED = Refusal(
    412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"
)


class Refused(Exception):
    """Carries the refusal to the client."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Conditions:
    """If-Match and If-None-Match, as sent; empty where absent."""

    if_match: str = ""
    if_none_match: str = ""

    def check(self, etag: str | None) -> None:
        """Raise Refused unless a change of what now has that ETag (None: nothing) may go on."""
        if self.if_match and etag is None:
            raise Refused(NO_SUCH_KEY)
        if self.if_match and not etag_matches(self.if_match, etag):
            raise Refused(PRECONDITION_FAILED)
        if self.if_none_match and etag_matches(self.if_none_match, etag):
            raise Refused(PRECONDITION_FAILED)


def etag_of(status: os.stat_result) -> str:
    """The quoted ETag: another one for each replacement, however quick and of whatever size."""
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'


EtagOf = Callable[[os.stat_result], str]
"""How the quoted ETag of an object follows from its file."""


def etag_matches(header: str, etag: str | None) -> bool:
    """Whether one of the ETags in the header, or `*`, names this one."""
    names = {name.strip().strip('"') for name in header.split(",")}
    return etag is not None and (names == {"*"} or etag.strip('"') in names)


def is_plain(key: bytes) -> bool:
    """Whether a key can be a relative path as it is."""
    components = key.split(b"/")
    return (
        b"\0" not in key
        and not key.startswith(HIDDEN_PREFIX)
        and all(
            0 < len(part) <= _COMPONENT_BYTES_MAX and part not in (b".", b"..")
            for part in components
        )
    )


class BucketDirectory:
    """One bucket. Reading needs no lock; what changes names holds `lock`."""

    def __init__(self, path: bytes, etag_of: EtagOf = etag_of) -> None:
        self.path = path
        self.etag_of = etag_of
        self.lock = threading.RLock()
        self._odd: dict[bytes, bytes] = {}
        self._odd_sorted: list[bytes] | None = None
        self._has_classes = os.path.exists(os.path.join(path, _CLASSES))
        self._load_odd()

    def odd_keys(self) -> list[bytes]:
        """All keys that are not plain paths, in byte order."""
        with self.lock:
            if self._odd_sorted is None:
                self._odd_sorted = sorted(self._odd)
            return self._odd_sorted

    def path_of(self, key: bytes) -> bytes | None:
        """Where the bytes of a key would be; None where they cannot be."""
        odd = self._odd.get(key)
        if odd is not None:
            return odd
        return os.path.join(self.path, key) if is_plain(key) else None

    def status(self, key: bytes) -> os.stat_result | None:
        """Stat an object; None if there is none."""
        path = self.path_of(key)
        return _file_status(path) if path is not None else None

    def status_of_listed(self, key: bytes) -> os.stat_result | None:
        """The same for a key that is known to be odd or plain, without another look at it."""
        return _file_status(self._odd.get(key) or self.path + b"/" + key)

    def storage_class_of_listed(self, key: bytes) -> str:
        """The storage class of an object, as a listing shows it."""
        if not self._has_classes:
            return "STANDARD"
        path = self._odd.get(key) or self.path + b"/" + key
        return read_metadata(path).get(STORAGE_CLASS, "STANDARD")

    def open(self, key: bytes) -> tuple[int, os.stat_result]:
        """Open an object for reading; the caller closes. Raises Refused."""
        path = self.path_of(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path is not None else -1
        except (FileNotFoundError, NotADirectoryError):
            fd = -1
        if fd < 0:
            raise Refused(NO_SUCH_KEY)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise Refused(NO_SUCH_KEY)
        return fd, status

    def stage(self, pieces: Iterable[bytes]) -> bytes:
        """Write a body to a new hidden file; return its path."""
        fd, path = self.staging_file()
        try:
            with os.fdopen(fd, "wb") as file:
                for piece in pieces:
                    file.write(piece)
        except BaseException:
            os.unlink(path)
            raise
        return path

    def staging_file(self) -> tuple[int, bytes]:
        """Make an empty hidden file; return it open, and its path."""
        return tempfile.mkstemp(dir=self._staging())

    def staging_directory(self) -> bytes:
        """Make an empty hidden directory; return its path."""
        return tempfile.mkdtemp(dir=self._staging())

    def _staging(self) -> bytes:
        directory = os.path.join(self.path, _STAGING)
        os.makedirs(directory, exist_ok=True)
        return directory

    def publish(
        self, key: bytes, staged: bytes, metadata: Mapping[str, str], conditions: Conditions
    ) -> os.stat_result:
        """Put a staged file in the object's place in one step. Raises Refused; the file goes."""
        try:
            if metadata:
                os.setxattr(staged, _METADATA_XATTR, json.dumps(dict(metadata)).encode())
            if STORAGE_CLASS in metadata and not self._has_classes:
                Path(os.fsdecode(os.path.join(self.path, _CLASSES))).touch()
                self._has_classes = True
            with self.lock:
                current = self.status(key)
                conditions.check(self.etag_of(current) if current else None)
                os.replace(staged, self._place(key))
                status = self.status(key)
        except BaseException:
            if os.path.exists(staged):
                os.unlink(staged)
            raise
        assert status is not None
        return status

    def delete(self, key: bytes, conditions: Conditions) -> None:
        """Remove an object and directories that become empty; a missing key is no error."""
        with self.lock:
            current = self.status(key)
            conditions.check(self.etag_of(current) if current else None)
            if current is None:
                return
            odd = self._odd.pop(key, None)
            if odd is not None:
                self._odd_sorted = None
                os.unlink(odd + _KEY_SUFFIX)
                os.unlink(odd)
                return
            path = os.path.join(self.path, key)
            os.unlink(path)
            self._prune(os.path.dirname(path))

    def _prune(self, directory: bytes) -> None:
        while directory != self.path:
            try:
                os.rmdir(directory)
            except OSError:
                return
            directory = os.path.dirname(directory)

    def _place(self, key: bytes) -> bytes:
        """Return the path for a new or existing object, with its directory made."""
        odd = self._odd.get(key)
        if odd is not None:
            return odd
        if is_plain(key):
            path = os.path.join(self.path, key)
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                pass  # a component is an object itself
            else:
                if not os.path.isdir(path):
                    return path
        directory = os.path.join(self.path, _ODD)
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, hashlib.sha256(key).hexdigest().encode())
        Path(os.fsdecode(path + _KEY_SUFFIX)).write_bytes(key)
        self._odd[key] = path
        self._odd_sorted = None
        return path

    def _load_odd(self) -> None:
        directory = Path(os.fsdecode(os.path.join(self.path, _ODD)))
        for file in directory.glob(f"*{_KEY_SUFFIX.decode()}") if directory.is_dir() else ():
            self._odd[file.read_bytes()] = os.fsencode(file.with_suffix(""))


def _file_status(path: bytes) -> os.stat_result | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def read_metadata(file: int | bytes) -> dict[str, str]:
    """The headers stored with an object: content-type and x-amz-meta-*."""
    try:
        stored: dict[str, str] = json.loads(os.getxattr(file, _METADATA_XATTR))
    except OSError:
        return {}
    return stored


class FileStore:
    """Buckets as directories below one root."""

    def __init__(self, root: Path, etag_of: EtagOf = etag_of) -> None:
        """`etag_of` lets another server, which makes ETags of its own, serve the same files."""
        self.root = root
        self._etag_of = etag_of
        self._lock = threading.Lock()
        self._buckets: dict[str, BucketDirectory] = {}

    def bucket(self, name: str) -> BucketDirectory:
        """Return a bucket. Raises Refused(NoSuchBucket)."""
        bucket = self._buckets.get(name)
        if bucket is not None:
            return bucket
        path = self.root / name
        if name in ("", ".", "..") or "/" in name or "\0" in name or not path.is_dir():
            raise Refused(
                Refusal(404, "NoSuchBucket", "The specified bucket does not exist",
                        {"BucketName": name})
            )  # fmt: skip
        with self._lock:
            return self._buckets.setdefault(name, BucketDirectory(os.fsencode(path), self._etag_of))

    def create(self, name: str) -> None:
        """Make a bucket; one that exists stays."""
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise Refused(Refusal(400, "InvalidBucketName", "The specified bucket is not valid."))
        (self.root / name).mkdir(exist_ok=True)

    def names(self) -> list[str]:
        """All buckets."""
        return sorted(entry.name for entry in self.root.iterdir() if entry.is_dir())
