"""ListObjectsV2 pages: parsed in C while they arrive, then read column by column.

A page of 1000 keys costs about 2 ms after its last byte; reading it element by element in Python
costs four times as much, and every reader on the event loop would wait for it. Rows are therefore
checked a slice at a time, and one by one only in a slice that has a row that makes no sense.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import unquote_plus

import trio
from lxml import etree

from stsfs.errors import StoreFailure
from stsfs.store.answers import unix_s_of
from stsfs.store.etags import normal_etag, normal_etags
from stsfs.store.object_store import NO_TIME_UNIX_S, ListedObject, ListPage
from stsfs.values import (
    KEY_BYTES_MAX,
    TEXT_CHARS_MAX,
    UNIX_S_MAX,
    UNIX_S_MIN,
    header,
    one_line,
    size_bytes,
)

_COLUMNS = ("Key", "ETag", "Size", "LastModified", "StorageClass")
_SLICE_ROWS = 250
_FIELDS_MAX = 100  # beside the rows: a dozen

PAGE_BYTES_MAX = 8 << 20
"""Of one page: twice what a thousand of the longest keys make, encoded."""

ROWS_MAX = 2000
"""Of one page: as many as are asked for at most, and paging.ROWS_SLACK; more are not even looked
at."""

_ROW_MARKS_MAX = 50
"""AWS writes up to 40, with an owner and checksums."""

MARKS_MAX = ROWS_MAX * _ROW_MARKS_MAX
"""Of one page: characters that begin an element, an attribute or a reference, for each of which the
parser takes a hundred bytes and more."""

UNCOUNTED_BYTES = 512 * 1024
"""Of one page: in so short a beginning only elements are counted, and most pages are no longer."""

_TRUNCATED = {"true": True, "1": True, "false": False, "0": False, "": False}
"""As XML writes it; where nothing is written, more follows if there is a continuation."""

_ANY = "{*}"
"""Servers write other namespaces than AWS, or none, or one for a part of the page: rows that are
not looked for would be missing without a word."""

_MARKS = (b"<", b"&", b'"', b"'")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What a server that does not encode keys writes for what is no text."""

_NOT_PLAIN = ("%", "+", _REPLACEMENT)
"""A key without any of them stands for itself."""

NOT_UTF8 = "its key is not UTF-8"
TOO_LONG = f"its key has more than {KEY_BYTES_MAX} bytes"


class ListPageParser:
    """Feed bytes, then take the page. Keys are decoded if the server says that it encoded them.

    Keys are UTF-8 and no longer than keys can be, ETags in their normal form, sizes in range; a row
    of which that is not true is among the unusable ones.
    """

    def __init__(self) -> None:
        # No entities, no network: what arrives is data from a server we do not control.
        self._xml = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
        self._fed_bytes = self._marks = 0
        self._begun = False

    def announced(self, length_bytes: int | None) -> None:
        """Raise StoreFailure for a page whose length is too much already."""
        if length_bytes is not None and length_bytes > PAGE_BYTES_MAX:
            raise StoreFailure(f"A page of the listing has more than {PAGE_BYTES_MAX} bytes.")

    def feed(self, data: bytes) -> None:
        """Parse one more piece. Raises StoreFailure when it is too much, or cannot be XML."""
        self._fed_bytes += len(data)
        if self._fed_bytes > PAGE_BYTES_MAX:
            raise StoreFailure(f"A page of the listing has more than {PAGE_BYTES_MAX} bytes.")
        if self._fed_bytes > UNCOUNTED_BYTES:
            self._marks += sum(map(data.count, _MARKS))
        else:
            self._marks += data.count(b"<")
        if self._marks > MARKS_MAX:
            raise StoreFailure("A page of the listing has more XML elements than any page needs.")
        if not self._begun:
            data = data.lstrip()  # blanks, with which servers gain time, may stand before <?xml
            self._begun = bool(data)
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
        next_token = _next_token(root)
        if len(root) > ROWS_MAX + _FIELDS_MAX:
            raise StoreFailure(f"A page of the listing has more than {ROWS_MAX} rows.")
        rows = _Rows(is_encoded=root.findtext(f"{_ANY}EncodingType") == "url")
        prefixes = rows.prefixes(
            [
                prefix.text or ""
                for shared in root.iterchildren(f"{_ANY}CommonPrefixes")
                for prefix in shared.iterchildren(f"{_ANY}Prefix")
            ]
        )
        objects: list[ListedObject] = []
        columns = await _columns(root)
        for first in range(0, len(columns[0]), _SLICE_ROWS):
            objects += rows.objects(*(column[first : first + _SLICE_ROWS] for column in columns))
            await trio.lowlevel.checkpoint()
        return ListPage(objects, prefixes, next_token, rows.unusable)


def _next_token(root: etree._Element) -> str | None:
    truncated = (root.findtext(f"{_ANY}IsTruncated") or "").strip().lower()
    token = root.findtext(f"{_ANY}NextContinuationToken")
    if truncated not in _TRUNCATED:
        raise StoreFailure(f"The listing is {one_line(truncated)!r}, instead of truncated or not.")
    if not (token if truncated == "" else _TRUNCATED[truncated]):
        return None
    if not token:
        raise StoreFailure("The listing is truncated but names no continuation.")
    if len(token) > TEXT_CHARS_MAX:
        raise StoreFailure("The listing names a continuation that is too long to be sent.")
    return token


async def _columns(root: etree._Element) -> list[list[str]]:
    """The texts of the Contents elements, a column at a time."""
    rows = list(root.iterchildren(f"{_ANY}Contents"))
    columns = []
    for name in _COLUMNS:
        column = [field.text or "" for field in root.iter(_ANY + name)]
        if len(column) != len(rows):  # a server that leaves a field out: look row by row
            column = [row.findtext(_ANY + name) or "" for row in rows]
        columns.append(column)
        await trio.lowlevel.checkpoint()
    return columns


class _Rows:
    """The rows of one page, from texts to values."""

    def __init__(self, *, is_encoded: bool) -> None:
        self.unusable: dict[str, str] = {}
        """Why, by key, as far as that can be shown."""

        self._decode = _decoded if is_encoded else _text
        self._shown = unquote_plus if is_encoded else str

    def prefixes(self, texts: list[str]) -> list[str]:
        """The common prefixes."""
        return [key for text in texts if (key := self._key(text)) is not None]

    def objects(
        self,
        keys: list[str],
        etags: list[str],
        sizes: list[str],
        times: list[str],
        classes: list[str],
    ) -> list[ListedObject]:
        """The objects of a slice."""
        try:
            return list(
                map(ListedObject, *_usable(self._decode, keys, etags, sizes, times, classes))
            )
        except (ValueError, OverflowError, OSError, StoreFailure):
            rows = zip(keys, etags, sizes, times, classes, strict=True)
            return [found for row in rows if (found := self._row(*row)) is not None]

    def _key(self, text: str) -> str | None:
        try:
            key = self._decode(text)
        except ValueError:
            self.unusable[self._shown(text)[:KEY_BYTES_MAX]] = NOT_UTF8
            return None
        if len(key.encode()) > KEY_BYTES_MAX:
            self.unusable[key[:KEY_BYTES_MAX]] = TOO_LONG
            return None
        return key

    def _row(
        self, key: str, etag: str, size: str, time: str, storage_class: str
    ) -> ListedObject | None:
        decoded = self._key(key)
        if decoded is None:
            return None
        try:
            size_number = _sizes([size])[0]
            unix_s = _unix_s(time)
            return ListedObject(
                decoded, normal_etag(etag), size_number, unix_s, header(storage_class)
            )
        except (ValueError, OverflowError, OSError, StoreFailure) as exc:
            self.unusable[decoded] = f"the server's listing makes no sense of it: {_why(exc)}"
            return None


def _usable(
    decode: Callable[[str], str],
    keys: list[str],
    etags: list[str],
    sizes: list[str],
    times: list[str],
    classes: list[str],
) -> tuple[list[str], list[str], list[int], list[float], list[str]]:
    """The same columns as values. Raises an error if a single one makes no sense."""
    decoded, joined = keys, "\n".join(keys)
    if any(map(joined.__contains__, _NOT_PLAIN)):
        decoded = decode(joined).split("\n")  # all at once costs a quarter less
        if len(decoded) != len(keys):  # one of them has a line break
            decoded = [decode(key) for key in keys]
    if 4 * max(map(len, decoded)) > KEY_BYTES_MAX:
        for key in decoded:
            if len(key.encode()) > KEY_BYTES_MAX:
                raise ValueError(TOO_LONG)
    unix_s = {text: _unix_s(text) for text in set(times)}
    for storage_class in set(classes):
        header(storage_class)
    return decoded, normal_etags(etags), _sizes(sizes), [unix_s[time] for time in times], classes


def _sizes(texts: list[str]) -> list[int]:
    digits = "".join(texts)
    if not (digits.isascii() and digits.isdigit()):  # int takes blanks, signs and other alphabets
        raise ValueError("its size is no number")
    found = list(map(int, texts))
    size_bytes(max(found))
    return found


def _decoded(key: str) -> str:
    return unquote_plus(key, errors="strict")


def _text(key: str) -> str:
    if _REPLACEMENT in key:
        raise ValueError(NOT_UTF8)
    return key


def _unix_s(text: str) -> float:
    """Times without a zone are UTC, as S3's are. Some servers write the year 1 for none.

    NO_TIME_UNIX_S for what is no time: the object is there all the same.
    """
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        return unix_s_of(text) or NO_TIME_UNIX_S
    unix_s = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if UNIX_S_MIN <= unix_s <= UNIX_S_MAX:
        return unix_s
    return UNIX_S_MIN if unix_s < 0 else UNIX_S_MAX


def _why(exc: Exception) -> str:
    return one_line(str(exc))
