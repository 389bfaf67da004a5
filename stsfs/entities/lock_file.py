"""The lock file: what a location held at one moment, as text that can be kept, sent and compared.

    stsfs-lock 1
    location    syn12345
    bucket      study-data
    base_key    cohort
    view        entities
    pinned_on   2026-11-24T10:46:15.000Z
    path        entity   version  size_bytes  md5   etag    key           modified_on
    a/s1.bam    syn22    3        41943040    18e…  "18e…"  cohort/7/s1   2026-11-20T08:00:00.000Z
    end         1

with one tab between columns. Files come in the order of their paths' bytes, so that two locks of
one state differ in `pinned_on` alone. A tab, line feed, carriage return or backslash is written
`\\t`, `\\n`, `\\r`, `\\\\`; what is unknown or empty is `-`, and the text `-` itself is `\\-`.

A lock is input from somebody else. What `parse` returns cannot lead out of the mount or out of the
base key, nor break a header of HTTP; but which servers it names is a claim. Whoever mounts it has
to find out the location anew and compare, and must never send a token to the Synapse of a lock.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias, cast

from stsfs import values
from stsfs.entities.names import MAGIC_NAME
from stsfs.errors import BadArgument
from stsfs.synapse.records import unix_s
from stsfs.vfs.listing import is_file_name

FORMAT_NAME, FORMAT_VERSION = "stsfs-lock", "1"

FILE_BYTES_MAX = 1 << 30
FILES_MAX = 4_000_000
"""A mount holds a lock in memory: about 1 KiB per file."""

DIRECTORIES_MAX = 1_000_000
CHARS_PER_DIRECTORY_MIN, DIRECTORIES_FREE = 16, 1024
"""A small lock makes few directories: one per so many characters of it, and some for nothing. What
a mount holds in memory is therefore at most some fifty times what the file has."""

LINE_CHARS_MAX = 128 * 1024
"""A longer line counts as several, which no lock has."""

DEPTH_MAX = 512
"""Names in a path: as many as the longest key can have."""

PATH_BYTES_MAX = 4096
"""As the system has it (PATH_MAX)."""

COLUMNS = ("path", "entity", "version", "size_bytes", "md5", "etag", "key", "modified_on")

View: TypeAlias = Literal["entities", "keys"]

_REQUIRED = ("location", "bucket", "base_key", "view", "pinned_on")
_OPTIONAL = ("synapse", "region", "endpoint")

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_WORD = re.compile(r"[!-~]*")
_SETTING_FORMS = {
    "synapse": (_WORD, "a URL"),
    "bucket": (_WORD, "a bucket"),
    "region": (_WORD, "a region"),
    "endpoint": (_WORD, "a URL"),
    "view": (re.compile("entities|keys"), "a view: entities or keys"),
    "pinned_on": (_TIME, "a time"),
}
_COLUMN_FORMS = {
    "entity": (re.compile(r"(?:syn[1-9][0-9]{0,17})?"), "a Synapse id"),
    "version": (re.compile(r"(?:[1-9][0-9]{0,17})?"), "a number"),
    "size_bytes": (re.compile(r"[0-9]{1,18}"), "a number of bytes"),
    "md5": (re.compile(r"(?:[0-9a-f]{32})?"), "32 hexadecimal digits"),
    "etag": (re.compile(r"[!-~]{0,1024}"), "an ETag"),  # goes into a header of HTTP
    "modified_on": (_TIME, "a time"),
}
"""What may stand there, and what to call it. The rest may be any text."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPED = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}
_ESCAPES = str.maketrans(_ESCAPED)
_PLAIN = {"\\-": "-"} | {escape: plain for plain, escape in _ESCAPED.items()}
_ESCAPE = re.compile(r"\\.?", re.DOTALL)

_Tree: TypeAlias = "dict[str, _Tree | None]"
"""Names of one directory: what is below each, or None for a file."""


@dataclass(frozen=True, slots=True)
class LockedFile:
    """One version of one file."""

    path: str
    """From the root of the mount, without a slash at its beginning."""

    entity_id: str
    """Empty in a view of keys; so is `md5`."""

    version: int | None
    size_bytes: int
    md5: str
    etag: str
    """As the server writes it, quotes included. Empty for what does not lie in the bucket."""

    key: str
    """Empty for what does not lie below the base key, and is had by its entity."""

    modified_unix_s: float
    """To the millisecond."""


@dataclass(frozen=True, slots=True)
class Lock:
    """All files of a location at one moment."""

    location: str
    """What the user typed: `syn12345`, `s3://bucket/prefix`."""

    bucket: str
    base_key: str
    """Empty for the whole bucket; never begins or ends with `/`."""

    region: str | None
    endpoint_url: str | None
    """None for AWS itself."""

    view: View
    pinned_unix_s: float
    """To the millisecond."""

    files: tuple[LockedFile, ...]
    synapse_url: str | None = None
    """None for the public Synapse. Only to be compared, never to be followed."""

    @property
    def prefix(self) -> str:
        """What every key begins with."""
        return f"{self.base_key}/" if self.base_key else ""


def render(lock: Lock) -> Iterator[str]:
    """Return the lines of the lock file, each with its line feed."""
    yield f"{FORMAT_NAME} {FORMAT_VERSION}\n"
    settings = {
        "location": lock.location,
        "synapse": lock.synapse_url,
        "bucket": lock.bucket,
        "base_key": lock.base_key,
        "region": lock.region,
        "endpoint": lock.endpoint_url,
        "view": lock.view,
        "pinned_on": _time_text(lock.pinned_unix_s),
    }
    yield from (_line(name, value) for name, value in settings.items() if value is not None)
    yield _line(*COLUMNS)
    # Code points have the order of their UTF-8 bytes.
    for each in sorted(lock.files, key=attrgetter("path")):
        yield _line(
            each.path,
            each.entity_id,
            "" if each.version is None else str(each.version),
            str(each.size_bytes),
            each.md5,
            each.etag,
            each.key,
            _time_text(each.modified_unix_s),
        )
    yield _line("end", str(len(lock.files)))


def parse(source: str | Iterable[str], name: str) -> Lock:
    """Read a lock file, whole or line by line; name is what messages call it.

    Raises BadArgument, with the line and what to do, for another format or version of it, a file
    that was cut off, and whatever a mount cannot show or must not trust.
    """
    lines = source.split("\n") if isinstance(source, str) else source
    return _Parser(lines, name).lock()


def load(path: Path) -> Lock:
    """Read the lock file at path.

    Raises BadArgument as `parse` does, and for what cannot be read or is over FILE_BYTES_MAX.
    """
    try:
        with open(path, encoding="utf-8", newline="\n", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > FILE_BYTES_MAX:
                raise BadArgument(
                    f"{path} cannot be a lock: it is no file, or over {FILE_BYTES_MAX} bytes.",
                    remedy=_AGAIN,
                )
            return parse(iter(partial(file.readline, LINE_CHARS_MAX), ""), str(path))
    except OSError as exc:
        raise BadArgument(f"{path} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise BadArgument(f"{path} is not a lock file: it is not UTF-8.", remedy=_AGAIN) from exc


def can_hold(path: str) -> bool:
    """Whether a path is neither too long nor too deep for a lock."""
    return path.count("/") < DEPTH_MAX and len(path.encode(errors="replace")) <= PATH_BYTES_MAX


def is_lock_file(path: Path) -> bool:
    """Whether path is a file that begins as a lock does, of whichever version."""
    begins = f"{FORMAT_NAME} ".encode()
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            return file.read(len(begins)) == begins
    except (OSError, ValueError):
        return False


def _open_at_once(path: str, flags: int) -> int:
    """An opener for `open` that waits for nobody: a pipe has no bytes as long as nobody writes."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


_AGAIN = "Copy the file again if it was cut off or edited, or write it anew with `stsfs pin`."


class _Parser:
    """Goes through the lines once, and knows where it is."""

    def __init__(self, lines: Iterable[str], name: str) -> None:
        self._lines = (line.removesuffix("\n").removesuffix("\r") for line in lines)
        self._name, self._number = name, 0
        self._tree: _Tree = {}
        self._chars_count = self._directories_count = 0

    def lock(self) -> Lock:
        self._check_format(self._next())
        settings = dict(self._settings())
        base_key = settings["base_key"]
        if base_key.strip("/") != base_key:
            self._refuse("the base key begins or ends with a slash")
        view = cast("View", settings["view"])
        pinned_unix_s = self._time(settings["pinned_on"])
        prefix = f"{base_key}/" if base_key else ""
        files = self._files(prefix, view)
        return Lock(
            location=settings["location"],
            bucket=settings["bucket"],
            base_key=base_key,
            region=settings.get("region") or None,
            endpoint_url=settings.get("endpoint") or None,
            view=view,
            pinned_unix_s=pinned_unix_s,
            files=tuple(sorted(files, key=attrgetter("path"))),
            synapse_url=settings.get("synapse") or None,
        )

    def _check_format(self, line: str) -> None:
        name, _, version = line.partition(" ")
        if name != FORMAT_NAME:
            self._refuse(f"a lock file begins with `{FORMAT_NAME}`, and this does not")
        if version != FORMAT_VERSION:
            raise BadArgument(
                f"{self._name} has version {_quoted(version)} of the lock format, and this stsfs"
                f" reads version {FORMAT_VERSION}.",
                remedy="Use the stsfs that wrote it, or write it anew with `stsfs pin`.",
            )

    def _settings(self) -> Mapping[str, str]:
        """Read up to the line that names the columns."""
        found: dict[str, str] = {}
        while (cells := self._next_cells()) != list(COLUMNS):
            if len(cells) != 2 or cells[0] not in {*_REQUIRED, *_OPTIONAL}:
                self._refuse("this is neither a setting of a lock nor the line of its columns")
            name, value = cells
            if name in found:
                self._refuse(f"{name} is set twice")
            found[name] = value
        for name in _REQUIRED:
            if not found.get(name) and (name not in found or name != "base_key"):
                self._refuse(f"{name} is missing above this line")
        self._check(found, _SETTING_FORMS)
        return found

    def _files(self, prefix: str, view: View) -> list[LockedFile]:
        files: list[LockedFile] = []
        while len(cells := self._next_cells()) != 2 or cells[0] != "end":
            if len(cells) != len(COLUMNS):
                self._refuse(f"a file has {len(COLUMNS)} columns, and here are {len(cells)}")
            if len(files) == FILES_MAX:
                self._refuse(f"a lock has at most {FILES_MAX} files")
            files.append(self._file(dict(zip(COLUMNS, cells, strict=True)), prefix, view))
        if cells[1] != str(len(files)):
            self._refuse(f"{cells[1]} files are announced, and {len(files)} are there")
        for line in self._lines:
            self._number += 1
            if line:
                self._refuse("something follows the end of the lock")
        return files

    def _file(self, cells: Mapping[str, str], prefix: str, view: View) -> LockedFile:
        self._check(cells, _COLUMN_FORMS)
        path, key = cells["path"], cells["key"]
        if key and not (key.startswith(prefix) and key != prefix):
            self._refuse(
                f"the key {_quoted(key)} does not lie below the base key {_quoted(prefix)}"
            )
        if not key and not cells["entity"]:
            self._refuse(f"neither a key nor an entity says where {_quoted(path)} is")
        self._place(path, view)
        try:
            values.label(path)
            values.key(key or f"{prefix}-", prefix, is_shown=False)
        except ValueError as exc:
            self._refuse(f"{_quoted(path)} has a path or a key that is of no use: {exc}")
        return LockedFile(
            path=path,
            entity_id=cells["entity"],
            version=int(cells["version"]) if cells["version"] else None,
            size_bytes=int(cells["size_bytes"]),
            md5=cells["md5"],
            etag=cells["etag"],
            key=key,
            modified_unix_s=self._time(cells["modified_on"]),
        )

    def _check(
        self, cells: Mapping[str, str], forms: Mapping[str, tuple[re.Pattern[str], str]]
    ) -> None:
        for name, (form, what) in forms.items():
            if name in cells and not form.fullmatch(cells[name]):
                self._refuse(f"{name} is {_quoted(cells[name])}, which is not {what}")

    def _place(self, path: str, view: View) -> None:
        """Refuse a path that a directory tree with the paths before cannot have."""
        if not can_hold(path):
            self._refuse(
                f"{_quoted(path)} has more than {DEPTH_MAX} names or {PATH_BYTES_MAX} bytes"
            )
        names = path.split("/")
        if not all(is_file_name(name.encode(errors="surrogatepass")) for name in names):
            self._refuse(f"{_quoted(path)} is not a path within a mount")
        if view == "entities" and names[0].encode(errors="surrogatepass") == MAGIC_NAME:
            self._refuse(f"{_quoted(path)} begins with a name that the mount itself uses")
        here: _Tree = self._tree
        for name in names[:-1]:
            if name not in here:
                self._count_directory()
                here[name] = {}
            below = here[name]
            if below is None:
                self._refuse(f"{_quoted(path)} lies below a file")
            here = below
        if names[-1] in here:
            taken = "a directory too" if here[names[-1]] is not None else "here twice"
            self._refuse(f"{_quoted(path)} is {taken}")
        here[names[-1]] = None

    def _count_directory(self) -> None:
        """Refuse one more than there may be at this place of the lock."""
        self._directories_count += 1
        most = min(DIRECTORIES_MAX, DIRECTORIES_FREE + self._chars_count // CHARS_PER_DIRECTORY_MIN)
        if self._directories_count > most:
            self._refuse(f"the files up to here lie in more than {most} directories")

    def _next(self) -> str:
        line = next(self._lines, None)
        if line is None:
            self._refuse("the lock stops here, before its end")
        self._number += 1
        self._chars_count += len(line)
        return line

    def _next_cells(self) -> list[str]:
        return [self._unescaped(cell) for cell in self._next().split("\t")]

    def _unescaped(self, cell: str) -> str:
        if cell == "-":
            return ""
        if not cell:
            self._refuse("a column is empty")
        if "\\" not in cell:
            return cell
        if not set(_ESCAPE.findall(cell)) <= _PLAIN.keys():
            self._refuse(f"{_quoted(cell)} is not escaped rightly")
        return _ESCAPE.sub(lambda found: _PLAIN[found.group()], cell)

    def _time(self, text: str) -> float:
        try:
            return unix_s(text)
        except ValueError:
            self._refuse(f"{_quoted(text)} is not a time")

    def _refuse(self, what: str) -> NoReturn:
        raise BadArgument(f"{self._name}, line {self._number}: {what}.", remedy=_AGAIN)


def _quoted(text: str) -> str:
    """A part of a lock in a message, shortened: it may be as long as a line."""
    return repr(values.one_line(text))


def _line(*cells: str) -> str:
    return "\t".join(map(_escaped, cells)) + "\n"


def _escaped(text: str) -> str:
    if text in {"", "-"}:
        return "\\-" if text else "-"
    return text.translate(_ESCAPES)


def _time_text(time_unix_s: float) -> str:
    time = _EPOCH + timedelta(milliseconds=round(time_unix_s * 1000))
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
