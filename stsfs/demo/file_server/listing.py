"""ListObjectsV2 over a directory tree, in byte order of whole keys."""

import base64
import bisect
import functools
import heapq
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus

from stsfs.demo.file_server.store import (
    HIDDEN_PREFIX,
    BucketDirectory,
    Refused,
    is_plain,
)
from stsfs.demo.s3_wire import XMLNS, Refusal, xml_text

PAGE_KEYS_MAX = 1000
_CACHED_DIRECTORIES_MAX = 4096
_UNRESERVED = re.compile(rb"[A-Za-z0-9_.~/-]*")
_SETTLED_NS = 50_000_000
"""A directory changed within a tick of the file system's clock may change again unseen."""

_BEYOND = b"\xff"
"""Greater than any byte of UTF-8: prefix + _BEYOND follows every key below the prefix."""


class DirectoryNames:
    """Sorted names of directories, kept while the directory's mtime stays. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cached: dict[bytes, tuple[int, list[bytes]]] = {}

    def names(self, path: bytes, *, top: bool) -> list[bytes]:
        """Names in byte order of the keys they begin: those of directories end in `/`."""
        try:
            mtime_ns = os.stat(path).st_mtime_ns
            cached = self._cached.get(path)
            if cached is not None and cached[0] == mtime_ns:
                return cached[1]
            scanned_ns = time.time_ns()
            with os.scandir(path) as entries:
                names = sorted(
                    entry.name + b"/" if entry.is_dir() else entry.name
                    for entry in entries
                    if not (top and entry.name.startswith(HIDDEN_PREFIX))
                )
        except (FileNotFoundError, NotADirectoryError):
            return []
        if scanned_ns - mtime_ns > _SETTLED_NS:
            with self._lock:
                if len(self._cached) >= _CACHED_DIRECTORIES_MAX:
                    self._cached.clear()
                self._cached[path] = (mtime_ns, names)
        return names


@dataclass(frozen=True, slots=True)
class Page:
    """One page: keys with what they are, None for common prefixes; both count as entries."""

    entries: list[tuple[bytes, os.stat_result | None]]
    truncated: bool

    @property
    def next_after(self) -> bytes:
        """Where the following page begins: behind this."""
        key, status = self.entries[-1]
        return key if status is not None else key + _BEYOND


class Lister:
    """Answers listings of one server."""

    def __init__(self) -> None:
        self._directories = DirectoryNames()

    def page(
        self, bucket: BucketDirectory, prefix: bytes, delimiter: bytes, after: bytes, keys_max: int
    ) -> Page:
        """List at most keys_max entries behind `after`."""
        start = prefix.rpartition(b"/")[0]
        start = start + b"/" if start else b""
        plain: Iterator[bytes] = iter(())
        if not start or is_plain(start[:-1]):
            plain = self._walk(bucket.path, start, prefix, after, shallow=delimiter == b"/")
        odd_keys = bucket.odd_keys()
        first = bisect.bisect_left(odd_keys, max(prefix, after))
        odd = itertools.takewhile(
            lambda key: key.startswith(prefix),
            (key for key in itertools.islice(odd_keys, first, None) if key > after),
        )
        keys: Iterator[bytes] = heapq.merge(plain, odd) if first < len(odd_keys) else plain
        entries: list[tuple[bytes, os.stat_result | None]] = []
        for key, is_prefix in _grouped(keys, prefix, delimiter, after):
            if len(entries) >= keys_max:
                return Page(entries, truncated=keys_max > 0)
            status = None if is_prefix else bucket.status_of_listed(key)
            if is_prefix or status is not None:
                entries.append((key, status))
        return Page(entries, truncated=False)

    def _walk(
        self, base: bytes, relative: bytes, prefix: bytes, after: bytes, *, shallow: bool
    ) -> Iterator[bytes]:
        """Yield keys behind `after` that begin with prefix; of a directory only `dir/` if shallow.

        `relative` is the prefix's directory, or lies below it. Directories without keys are
        left out.
        """
        wanted = prefix.removeprefix(relative) if prefix.startswith(relative) else b""
        passed, slash = b"", b""
        if after.startswith(relative):
            passed, slash, _ = after.removeprefix(relative).partition(b"/")
        names = self._directories.names(base + b"/" + relative, top=not relative)
        begin = bisect.bisect_left(names, wanted)
        if slash:
            begin = max(begin, bisect.bisect_left(names, passed + slash))
        elif passed:
            begin = max(begin, bisect.bisect_right(names, passed))
        for name in itertools.islice(names, begin, None):
            if not name.startswith(wanted):
                return
            key = relative + name
            if not name.endswith(b"/"):
                yield key
            elif not shallow:
                yield from self._walk(base, key, prefix, after, shallow=shallow)
            elif after.startswith(key):
                if next(self._walk(base, key, prefix, after, shallow=False), None) is not None:
                    yield key
            elif _has_key(base + b"/" + key):
                yield key


def _has_key(path: bytes) -> bool:
    with os.scandir(path) as entries:
        directories = []
        for entry in entries:
            if not entry.is_dir():
                return True
            directories.append(entry.path)
    return any(_has_key(each) for each in directories)


def _grouped(
    keys: Iterable[bytes], prefix: bytes, delimiter: bytes, after: bytes
) -> Iterator[tuple[bytes, bool]]:
    """Replace keys that have the delimiter behind the prefix by their common prefix, once."""
    last: bytes | None = None
    for key in keys:
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        if end < 0:
            yield key, False
            continue
        common = key[: end + len(delimiter)]
        if common != last and not after.startswith(common + _BEYOND):
            yield common, True
        last = common


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@functools.lru_cache(maxsize=4096)
def iso_time(unix_s: int) -> str:
    """S3's notation of a time in XML."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(unix_s))


def list_objects_v2(
    lister: Lister, bucket: BucketDirectory, name: str, params: Mapping[str, str]
) -> bytes:
    """Answer a ListObjectsV2 request with its XML document. Raises Refused."""
    asked = params.get("max-keys", str(PAGE_KEYS_MAX))
    if not asked.isdecimal():
        raise Refused(Refusal(400, "InvalidArgument", "Provided max-keys not an integer"))
    keys_max = min(int(asked), PAGE_KEYS_MAX)
    after = _utf8(params.get("start-after", ""))
    if token := params.get("continuation-token"):
        try:
            after = base64.b64decode(token, validate=True)
        except ValueError:
            message = "The continuation token provided is incorrect"
            raise Refused(Refusal(400, "InvalidArgument", message)) from None
    prefix, delimiter = _utf8(params.get("prefix", "")), _utf8(params.get("delimiter", ""))
    page = lister.page(bucket, prefix, delimiter, after, keys_max)
    encoded = params.get("encoding-type") == "url"

    def text(value: bytes) -> str:
        if _UNRESERVED.fullmatch(value):
            return value.decode("ascii")
        # S3 writes a space as + here, unlike everywhere else.
        if encoded:
            return quote_plus(value, safe="/")
        return xml_text(value.decode("utf-8", "surrogateescape"))

    echoed = {
        "Name": xml_text(name),
        "Prefix": text(prefix),
        "Delimiter": text(delimiter),
        "MaxKeys": str(keys_max),
        "KeyCount": str(len(page.entries)),
        "IsTruncated": str(page.truncated).lower(),
        "EncodingType": "url" if encoded else "",
        "ContinuationToken": token or "",
        "StartAfter": text(_utf8(params.get("start-after", ""))),
        "NextContinuationToken": "",
    }
    if page.truncated:
        echoed["NextContinuationToken"] = base64.b64encode(page.next_after).decode()
    head = "".join(
        f"<{element}>{value}</{element}>"
        for element, value in echoed.items()
        if value or element == "Prefix"
    )
    entries = _entries(page, text, bucket)
    document = f"<ListBucketResult {XMLNS}>{head}{entries}</ListBucketResult>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'.encode("utf-8", "surrogateescape")


def _entries(page: Page, text: Callable[[bytes], str], bucket: BucketDirectory) -> str:
    contents, prefixes = [], []
    for key, status in page.entries:
        if status is None:
            prefixes.append(f"<CommonPrefixes><Prefix>{text(key)}</Prefix></CommonPrefixes>")
            continue
        etag = bucket.etag_of(status).replace('"', "&quot;")
        contents.append(
            f"<Contents><Key>{text(key)}</Key>"
            f"<LastModified>{iso_time(int(status.st_mtime))}</LastModified>"
            f"<ETag>{etag}</ETag><Size>{status.st_size}</Size>"
            f"<StorageClass>{bucket.storage_class_of_listed(key)}</StorageClass></Contents>"
        )
    return "".join(contents + prefixes)
