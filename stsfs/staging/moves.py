"""The journal of a rename that takes several requests: copies first, then removals.

One file of JSON lines: a header, a line for each object, all written in one step before the first
request; then a line for each thing that was done. A line that a crash has torn was not done yet as
far as anybody knows, and so it counts as missing.

The journal of several objects is forced to the disk. That of a single one is not, because programs
rename many files one by one: without it both names exist after a crash of the machine, which loses
nothing. Such a journal is void once the machine has gone down: who knows what it still has.
"""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from stsfs import values as checks
from stsfs.errors import StagingFailure
from stsfs.owned_dir import open_file
from stsfs.staging.file import (
    MOVE_SUFFIX,
    boot_id,
    open_record,
    replace_file,
    sync_directory,
)
from stsfs.staging.record import FORMAT, DamagedRecord, Fields
from stsfs.staging.room import translated

CREATED_BYTES_MAX, JOURNAL_BYTES_MAX = 512 << 20, 1 << 30
"""Of a journal when it is made, and with what is noted later: about a million objects with keys
of ordinary length. Beyond this a file is no journal of ours."""

LINE_BYTES_MAX = 128 * 1024
"""Of one line, which has two keys, or two paths, at most."""

MoveState = Literal["copying", "deleting"]
"""copying: the sources are whole, and whatever was copied may be undone. deleting: all copies are
there, and what is left of the sources has to go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedObject:
    """One object of a move."""

    source_key: str
    etag: str
    """Of the source: another version at its key is somebody else's, and stays."""

    size_bytes: int
    target_key: str
    storage_class: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRecord:
    """A rename: what goes where, and how far it has come."""

    location_uri: str
    endpoint_url: str | None
    label: str
    """What the user typed for the location."""

    path: str
    new_path: str
    """Below the mount point, without a slash in front; for people."""

    objects: tuple[MovedObject, ...]
    """Markers of directories, too."""

    state: MoveState = "copying"
    copied: Mapping[int, str] = field(default_factory=dict)
    """ETags of the copies that were made, by the index of the object."""

    uploads: Mapping[str, int] = field(default_factory=dict)
    """Multipart uploads that were begun for copies: index of the object by upload id."""

    changed_unix_s: float = 0.0


class MoveJournal:
    """The journal of one move. Methods may block; they raise StagingFull and StagingFailure."""

    def __init__(self, path: Path, *, is_durable: bool = True) -> None:
        self.path = path
        self._is_durable = is_durable

    @classmethod
    def create(cls, stem: Path, record: MoveRecord) -> "MoveJournal":
        """Write down what is about to be moved."""
        path = stem.with_name(stem.name + MOVE_SUFFIX)
        is_durable = len(record.objects) > 1
        text = encode(record, durable=is_durable)
        if len(text) > CREATED_BYTES_MAX:
            raise StagingFailure(
                f"The rename of {record.path!r} has too many objects for its journal.",
                remedy="Rename what is in it, one by one.",
            )
        with translated(path):
            replace_file(str(path), text, sync=is_durable)
        return cls(path, is_durable=is_durable)

    @property
    def id(self) -> str:
        """What `stsfs recover` calls it."""
        return self.path.name.removesuffix(MOVE_SUFFIX)

    def copied(self, index: int, etag: str) -> None:
        """Note that the copy of one object is there."""
        self._append({"copied": index, "etag": etag}, sync=False)

    def upload(self, index: int, upload_id: str) -> None:
        """Note that a multipart upload for the copy of one object was begun."""
        self._append({"upload": upload_id, "object": index}, sync=self._is_durable)

    def deleting(self) -> None:
        """Note that all copies are there: from now on the move is finished, never undone.

        When it raises, the disk may have the note all the same: the copies must stay then.
        """
        self._append({"state": "deleting"}, sync=True)

    def load(self) -> MoveRecord:
        """What was noted so far. Raises DamagedRecord."""
        with translated(self.path):
            return load(self.path)

    def discard(self) -> None:
        """Forget the move: it is finished, or undone."""
        with translated(self.path):
            self.path.unlink(missing_ok=True)
            if self._is_durable:
                sync_directory(self.path.parent)  # a journal that comes back would be followed

    def _append(self, values: dict[str, object], *, sync: bool) -> None:
        line = b"\n" + _line(values)  # on a line of its own: the one before may be torn
        flags = os.O_WRONLY | os.O_APPEND
        with translated(self.path), open(open_file(self.path, flags), "wb", 0) as file:
            length_before = os.fstat(file.fileno()).st_size
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if sync:
                    os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), length_before)
                raise


def encode(record: MoveRecord, *, durable: bool) -> bytes:
    """The text of a move that begins."""
    header = {
        "format": FORMAT,
        "location_uri": record.location_uri,
        "endpoint_url": record.endpoint_url,
        "label": record.label,
        "path": record.path,
        "new_path": record.new_path,
        "changed_unix_s": record.changed_unix_s,
        "objects": len(record.objects),
        "boot_id": None if durable else boot_id(),
    }
    lines = [_line(header)]
    lines += [_line({n: getattr(each, n) for n in each.__slots__}) for each in record.objects]
    return b"".join(lines)


def is_void(path: Path) -> bool:
    """Whether the machine has gone down since, and the journal was not forced to the disk."""
    first = b"unread"
    try:
        with open_record(path) as file:
            first = file.readline(LINE_BYTES_MAX)
        written_at = Fields.parse(first, "the journal").optional_text("boot_id")
    except DamagedRecord:
        return not first  # else it is for a person to look at
    except OSError:
        return False
    return written_at not in (None, boot_id())


def load(path: Path) -> MoveRecord:
    """Undo `encode`, with what was noted since. Raises DamagedRecord and OSError.

    Keys lie in the location; no object is moved twice, or to where another comes from.
    """
    with open_record(path) as file:
        if os.fstat(file.fileno()).st_size > JOURNAL_BYTES_MAX:
            raise DamagedRecord("the journal is too large to be one of ours")
        header = Fields.parse(file.readline(LINE_BYTES_MAX), "the journal")
        header.check_format()
        location_uri, prefix = header.location()
        objects = _objects(file, header.integer("objects"), prefix)
        state, copied, uploads = _progress(file, len(objects))
    return MoveRecord(
        location_uri=location_uri,
        endpoint_url=header.optional("endpoint_url", header.text, checks.url),
        label=header.checked("label", header.text, checks.label),
        path=header.checked("path", header.text, checks.path),
        new_path=header.checked("new_path", header.text, checks.path),
        objects=objects,
        state=state,
        copied=copied,
        uploads=uploads,
        changed_unix_s=header.checked("changed_unix_s", header.number, checks.unix_s),
    )


def _objects(file: BinaryIO, count: int, prefix: str) -> tuple[MovedObject, ...]:
    objects: list[MovedObject] = []
    while len(objects) < count:
        line = file.readline(LINE_BYTES_MAX)
        if not line:
            raise DamagedRecord("the journal is cut off")
        objects.append(_object(line, prefix))
    sources = {each.source_key for each in objects}
    targets = {each.target_key for each in objects}
    if not objects or not len(sources) == len(targets) == len(objects):
        raise DamagedRecord("the journal moves nothing, or something twice")
    if not sources.isdisjoint(targets):  # what is copied there would be removed
        raise DamagedRecord("the journal moves an object to where another one comes from")
    return tuple(objects)


def _progress(file: BinaryIO, count: int) -> tuple[MoveState, dict[int, str], dict[str, int]]:
    state: MoveState = "copying"
    copied: dict[int, str] = {}
    uploads: dict[str, int] = {}
    while line := file.readline(LINE_BYTES_MAX):
        if not line.endswith(b"\n"):
            continue  # torn
        try:
            values = Fields.parse(line, "a line of the journal")
            if values.has("state"):
                state = "deleting" if values.text("state") == "deleting" else state
            elif values.has("upload"):
                if 0 <= (index := values.integer("object")) < count:
                    uploads[values.checked("upload", values.text, checks.word)] = index
            elif 0 <= (index := values.integer("copied")) < count:
                copied[index] = values.checked("etag", values.text, checks.header)
        except DamagedRecord:
            continue  # torn, or empty
    return state, copied, uploads


def _object(line: bytes, prefix: str) -> MovedObject:
    def check_key(text: str) -> str:
        # Hidden keys move with the others. S3 has refused a target that is too long; the source
        # of it is still to be looked after.
        return checks.key(text, prefix, is_shown=False, bytes_max=4 * checks.KEY_BYTES_MAX)

    values = Fields.parse(line, "an object of the journal")
    return MovedObject(
        source_key=values.checked("source_key", values.text, check_key),
        etag=values.checked("etag", values.text, checks.header),
        size_bytes=values.checked("size_bytes", values.integer, checks.size_bytes),
        target_key=values.checked("target_key", values.text, check_key),
        storage_class=values.checked("storage_class", values.text, checks.word),
    )


def _line(values: dict[str, object]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"
