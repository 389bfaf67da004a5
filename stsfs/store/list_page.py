"""ListObjectsV2 pages: parsed in C while they arrive, then read column by column.

A page of 1000 keys costs about 2 ms after its last byte; reading it element by element in Python
costs four times as much, and every reader on the event loop would wait for it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import unquote_plus

import trio
from lxml import etree

from stsfs.errors import StoreFailure
from stsfs.store.etags import normal_etags
from stsfs.store.object_store import ListedObject, ListPage
from stsfs.values import UNIX_S_MAX, UNIX_S_MIN, header, one_line, size_bytes

_COLUMNS = ("Key", "ETag", "Size", "LastModified", "StorageClass")
_SLICE_ROWS = 250
_FIELDS_MAX = 100  # beside the rows: a dozen

PAGE_BYTES_MAX = 8 << 20
"""Of one page: twice what a thousand of the longest keys make, encoded."""

ROWS_MAX = 10_000
"""Of one page: the most that any server sends; more are not even looked at."""

MARKS_MAX = 30 * ROWS_MAX
"""Of one page: characters that begin an element, an attribute or a reference, for each of which the
parser takes a hundred bytes and more. A row has about 25."""

UNCOUNTED_BYTES = 512 * 1024
"""Of one page: so short a beginning cannot take much memory, and most pages are no longer."""

_MARKS = (b"<", b"&", b'"', b"'")


class ListPageParser:
    """Feed bytes, then take the page. Keys are decoded if the server says that it encoded them.

    ETags are in their normal form, sizes and times in range.
    """

    def __init__(self) -> None:
        # No entities, no network: what arrives is data from a server we do not control.
        self._xml = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
        self._fed_bytes = self._marks = 0

    def feed(self, data: bytes) -> None:
        """Parse one more piece. Raises StoreFailure when it is too much, or cannot be XML."""
        self._fed_bytes += len(data)
        if self._fed_bytes > PAGE_BYTES_MAX:
            raise StoreFailure(f"A page of the listing has more than {PAGE_BYTES_MAX} bytes.")
        if self._fed_bytes > UNCOUNTED_BYTES:
            self._marks += sum(map(data.count, _MARKS))
        if self._marks > MARKS_MAX:
            raise StoreFailure("A page of the listing has more XML elements than any page needs.")
        try:
            self._xml.feed(data)
        except etree.XMLSyntaxError as exc:
            raise StoreFailure(f"The listing is not XML ({one_line(exc.msg)}).") from exc

    async def page(self) -> ListPage:
        """The page, after its last byte. Raises StoreFailure when it makes no sense.

        Gives other tasks a turn between its columns, and between slices of its rows.
        """
        try:
            root = self._xml.close()
        except etree.XMLSyntaxError as exc:
            raise StoreFailure("The listing ended in the middle of its XML.") from exc
        if etree.QName(root).localname != "ListBucketResult":
            raise StoreFailure(f"The listing is a <{one_line(etree.QName(root).localname)}>.")
        space = etree.QName(root).namespace
        mark = f"{{{space}}}" if space else ""
        next_token = None
        if root.findtext(f"{mark}IsTruncated") == "true":
            next_token = root.findtext(f"{mark}NextContinuationToken")
            if not next_token:
                raise StoreFailure("The listing is truncated but names no continuation.")
        if len(root) > ROWS_MAX + _FIELDS_MAX:
            raise StoreFailure(f"A page of the listing has more than {ROWS_MAX} rows.")
        encoded = root.findtext(f"{mark}EncodingType") == "url"
        decode = unquote_plus if encoded else str
        prefixes = [
            decode(shared.findtext(f"{mark}Prefix") or "")
            for shared in root.iterchildren(f"{mark}CommonPrefixes")
        ]
        return ListPage(await _objects(root, mark, decode), prefixes, next_token)


async def _objects(
    root: etree._Element, mark: str, decode: Callable[[str], str]
) -> list[ListedObject]:
    """The Contents elements, a column of texts at a time."""
    rows = list(root.iterchildren(f"{mark}Contents"))
    columns = []
    for name in _COLUMNS:
        column = [field.text or "" for field in root.iter(mark + name)]
        if len(column) != len(rows):  # a server that leaves a field out: look row by row
            column = [row.findtext(mark + name) or "" for row in rows]
        columns.append(column)
        await trio.lowlevel.checkpoint()
    objects: list[ListedObject] = []
    for first in range(0, len(rows), _SLICE_ROWS):
        objects += _slice(decode, *(column[first : first + _SLICE_ROWS] for column in columns))
        await trio.lowlevel.checkpoint()
    return objects


def _slice(
    decode: Callable[[str], str],
    keys: list[str],
    etags: list[str],
    sizes: list[str],
    times: list[str],
    classes: list[str],
) -> list[ListedObject]:
    try:
        unix_s = {text: _unix_s(text) for text in set(times)}
        for storage_class in set(classes):
            header(storage_class)
        sizes_bytes = list(map(int, sizes))
        size_bytes(min(sizes_bytes))
        size_bytes(max(sizes_bytes))
        return [
            ListedObject(decode(key), etag, size, unix_s[time], storage_class)
            for key, etag, size, time, storage_class in zip(
                keys, normal_etags(etags), sizes_bytes, times, classes, strict=True
            )
        ]
    except (ValueError, OverflowError, OSError) as exc:
        raise StoreFailure(
            f"The listing has a size or date or storage class that is none ({one_line(str(exc))})."
        ) from exc


def _unix_s(text: str) -> float:
    """Times without a zone are UTC, as S3's are. Some servers write the year 1 for none."""
    time = datetime.fromisoformat(text)
    unix_s = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if UNIX_S_MIN <= unix_s <= UNIX_S_MAX:
        return unix_s
    return UNIX_S_MIN if unix_s < 0 else UNIX_S_MAX
