"""What has to be known of a staging file to publish it without the daemon that wrote it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from stsfs.staging.spans import Spans
from stsfs.store.object_store import Expected, Part, Traits

PARTS_MAX = 10_000
"""Of one upload (Amazon S3 User Guide, "Multipart upload limits")."""

FORMAT = 1
"""Part of each record: a program that does not know the format leaves the record alone."""

State = Literal["writing", "closed", "failed", "conflict"]
"""writing: somebody has it open, its content may be half of something. closed: whole, to be
published as it is. failed: whole, and could not be published. conflict: whole, and another client
has changed the object meanwhile."""


class DamagedRecord(ValueError):
    """A record is not what this program writes; the text says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseVersion:
    """The version of an object that a file was staged over."""

    key: str
    etag: str
    size_bytes: int
    limit_bytes: int
    """Bytes from here on are not those of the version: the file was once shorter than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One staging file: where it belongs, and what its bytes are made of.

    A byte at an offset below size_bytes is the one in the data file where `present` has it, else
    that of `base` where the offset is below base.limit_bytes, else zero.
    """

    location_uri: str
    """`s3://bucket/prefix`: with endpoint_url, the place that is meant."""

    endpoint_url: str | None
    label: str
    """What the user typed (`syn12345`): the way to credentials for it."""

    key: str
    path: str
    """Below the mount point, without a slash in front; for people."""

    size_bytes: int
    present: tuple[tuple[int, int], ...] = ()
    """As Spans has them: the bytes that lie in the data file."""

    base: BaseVersion | None = None
    expected: Expected | None = None
    """What must be at the key to be replaced; None: whatever is there."""

    exclusive: bool = False
    """It was made with O_EXCL: another object at the key means that the name was taken."""

    mode: int | None = None
    """Permission bits; None: nobody has set them."""

    mtime_ns: int | None = None
    traits: Traits = field(default_factory=Traits)
    """What must be kept of what was stored with the base."""

    write_id: str = ""
    """Of the publication that was begun; empty: none was."""

    upload_id: str | None = None
    """Of a multipart upload that was begun, and has to be finished or given up."""

    upload_write_id: str = ""
    """Stored with the object that the upload becomes."""

    parked: tuple[tuple[int, int], ...] = ()
    """Bytes that lie in parts of that upload only: without it they are lost."""

    parts: tuple[Part, ...] = ()
    """The parts that hold them."""

    state: State = "writing"
    reason: str = ""
    """Why it is not in S3, as a sentence; empty: nobody has tried."""

    changed_unix_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        values["format"] = FORMAT
        values["present"] = Spans(self.present).to_list()
        values["parked"] = Spans(self.parked).to_list()
        values["parts"] = [list(part) for part in self.parts]
        values["expected"] = None if self.expected is None else {"etag": self.expected.etag}
        values["traits"] = {
            "metadata": dict(self.traits.metadata),
            "content_type": self.traits.content_type,
            "storage_class": self.traits.storage_class,
        }
        if self.base is not None:
            values["base"] = {name: getattr(self.base, name) for name in self.base.__slots__}
        return values

    @classmethod
    def from_json(cls, values: object) -> "Record":
        """Undo `to_json`. Raises DamagedRecord for anything else."""
        fields = Fields(values, "the record")
        if (number := fields.integer("format")) != FORMAT:
            raise DamagedRecord(f"the record has format {number}; this program knows {FORMAT}")
        return cls(
            location_uri=fields.text("location_uri"),
            endpoint_url=fields.optional_text("endpoint_url"),
            label=fields.text("label"),
            key=fields.text("key"),
            path=fields.text("path"),
            size_bytes=fields.integer("size_bytes"),
            present=_spans(fields, "present"),
            base=_base(fields),
            expected=_expected(fields),
            exclusive=fields.flag("exclusive"),
            mode=fields.optional_integer("mode"),
            mtime_ns=fields.optional_integer("mtime_ns"),
            traits=_traits(fields),
            write_id=fields.text("write_id"),
            upload_id=fields.optional_text("upload_id"),
            upload_write_id=fields.text("upload_write_id") if fields.has("parts") else "",
            parked=_spans(fields, "parked") if fields.has("parts") else (),
            parts=_parts(fields) if fields.has("parts") else (),
            state=_state(fields),
            reason=fields.text("reason"),
            changed_unix_s=fields.number("changed_unix_s"),
        )


class Fields:
    """Reads the values of a JSON object, each of its own kind. Raises DamagedRecord."""

    def __init__(self, values: object, what: str) -> None:
        if not isinstance(values, dict):
            raise DamagedRecord(f"{what} is not a JSON object")
        self._values = cast("dict[str, object]", values)
        self._what = what

    @classmethod
    def parse(cls, data: bytes, what: str) -> "Fields":
        """The fields of a JSON text."""
        return cls(parse_json(data, what), what)

    def text(self, name: str) -> str:
        """A string."""
        value = self.any(name)
        if not isinstance(value, str):
            raise self._wrong(name)
        return value

    def optional_text(self, name: str) -> str | None:
        """A string or null."""
        return None if self.any(name) is None else self.text(name)

    def integer(self, name: str) -> int:
        """A whole number."""
        value = self.any(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(name)
        return value

    def optional_integer(self, name: str) -> int | None:
        """A whole number or null."""
        return None if self.any(name) is None else self.integer(name)

    def number(self, name: str) -> float:
        """Any number."""
        value = self.any(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(name)
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.any(name)
        if not isinstance(value, bool):
            raise self._wrong(name)
        return value

    def texts(self, name: str) -> Mapping[str, str]:
        """An object of strings."""
        value = self.any(name)
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise self._wrong(name)
        return cast("dict[str, str]", value)

    def inner(self, name: str) -> "Fields":
        """An object in this one."""
        return Fields(self.any(name), f"{name} of {self._what}")

    def has(self, name: str) -> bool:
        """Whether there is such a field."""
        return name in self._values

    def any(self, name: str) -> object:
        """Whatever it is."""
        if name not in self._values:
            raise DamagedRecord(f"{self._what} has no {name}")
        return self._values[name]

    def _wrong(self, name: str) -> DamagedRecord:
        return DamagedRecord(f"{name} of {self._what} is of another kind")


def parse_json(data: bytes, what: str) -> object:
    """The values of a JSON text. Raises DamagedRecord."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedRecord(f"{what} is not JSON") from None


def _spans(fields: Fields, name: str) -> tuple[tuple[int, int], ...]:
    try:
        return tuple(Spans.from_list(fields.any(name)))
    except ValueError as exc:
        raise DamagedRecord(f"{name} of the record: {exc}") from None


def _parts(fields: Fields) -> tuple[Part, ...]:
    match fields.any("parts"):
        case list(rows):
            return tuple(_part(row) for row in rows)
    raise DamagedRecord("parts of the record is not a list")


def _part(row: object) -> Part:
    match row:
        case [int(number), str(etag), str(checksum)] if 1 <= number <= PARTS_MAX:
            return Part(number, etag, checksum)
    raise DamagedRecord("parts of the record has something that is no part")


def _base(fields: Fields) -> BaseVersion | None:
    if fields.any("base") is None:
        return None
    base = fields.inner("base")
    return BaseVersion(
        key=base.text("key"),
        etag=base.text("etag"),
        size_bytes=base.integer("size_bytes"),
        limit_bytes=base.integer("limit_bytes"),
    )


def _expected(fields: Fields) -> Expected | None:
    if fields.any("expected") is None:
        return None
    return Expected(fields.inner("expected").optional_text("etag"))


def _traits(fields: Fields) -> Traits:
    traits = fields.inner("traits")
    return Traits(
        traits.texts("metadata"), traits.text("content_type"), traits.text("storage_class")
    )


def _state(fields: Fields) -> State:
    state = fields.text("state")
    if state not in get_args(State):
        raise DamagedRecord(f"the record has the state {state!r}")
    return cast("State", state)
