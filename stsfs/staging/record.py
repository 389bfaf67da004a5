"""What has to be known of a staging file to publish it without the daemon that wrote it."""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast, get_args

from stsfs import values as checks
from stsfs.staging.spans import Spans
from stsfs.store.object_store import Expected, Part, Traits

PARTS_MAX = 10_000
"""Of one upload (Amazon S3 User Guide, "Multipart upload limits")."""

EARLIER_MAX = 100
"""Publications before the last one; many more than are ever noted."""

FORMAT = 1
"""Part of each record: a program that does not know the format leaves the record alone."""

VALUES_MAX, OBJECTS_MAX = 5_000_000, 100_000
"""Of one JSON text: about 600 MB in memory, where a value of two bytes can take eighty, and an
object of eight bytes 250."""

_T = TypeVar("_T")

State = Literal["writing", "closed", "failed", "conflict", "published"]
"""writing: somebody has it open, its content may be half of something. closed: whole, to be
published as it is. failed: whole, and could not be published. conflict: whole, and another client
has changed the object meanwhile. published: S3 has got all of it, and whatever has become of the
object since, nobody is to make it again."""


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

    A byte at an offset below size_bytes is the one in the data file where `present` has it, one
    that cannot be read before the upload is completed where `parked` has it, else that of `base`
    where the offset is below base.limit_bytes, else zero.
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
    """What must be at the key to be replaced; None: whatever is there. Only who asks for that
    (`--force`) may mean it: no mount does it by itself."""

    exclusive: bool = False
    """It was made with O_EXCL: another object at the key means that the name was taken."""

    mode: int | None = None
    """Permission bits; None: nobody has set them."""

    mtime_ns: int | None = None
    traits: Traits = field(default_factory=Traits)
    """What must be kept of what was stored with the base."""

    lacks_traits: bool = False
    """S3 was not asked for that yet: it has to be before the object is replaced."""

    write_id: str = ""
    """Of the publication that was begun; empty: none was."""

    earlier: tuple[tuple[str, int], ...] = ()
    """Write id and size of publications that were begun before and may have happened, though they
    seemed to fail; the latest last. What S3 has of them is no other client's."""

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

    def lacking_bytes(self, stored_bytes: int) -> int:
        """How many bytes a data file of this length lacks that it should have."""
        return sum(
            stop - start
            for start, stop in Spans(self.present).within(
                stored_bytes, max(stored_bytes, self.size_bytes)
            )
        )

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        values["format"] = FORMAT
        values["present"] = Spans(self.present).to_list()
        values["parked"] = Spans(self.parked).to_list()
        values["parts"] = [list(part) for part in self.parts]
        values["earlier"] = [list(each) for each in self.earlier]
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
        """Undo `to_json`. Raises DamagedRecord for anything else.

        Whoever gets a record may rely on it: sizes and times can be those of a file, keys lie in
        the location, the path stays below a directory, and what goes into headers can.
        """
        fields = Fields(values, "the record")
        fields.check_format()
        location_uri, prefix = fields.location()
        size_bytes = fields.checked("size_bytes", fields.integer, checks.size_bytes)
        return cls(
            location_uri=location_uri,
            endpoint_url=fields.optional("endpoint_url", fields.text, checks.url),
            label=fields.checked("label", fields.text, checks.label),
            key=fields.key("key", prefix),
            path=fields.checked("path", fields.text, checks.path),
            size_bytes=size_bytes,
            present=_spans(fields, "present", size_bytes),
            base=_base(fields, prefix, size_bytes),
            expected=_expected(fields),
            exclusive=fields.flag("exclusive"),
            mode=fields.optional("mode", fields.integer, checks.mode),
            mtime_ns=fields.optional("mtime_ns", fields.integer, checks.time_ns),
            traits=_traits(fields),
            lacks_traits=fields.has("lacks_traits") and fields.flag("lacks_traits"),
            write_id=fields.checked("write_id", fields.text, checks.word),
            earlier=_earlier(fields) if fields.has("earlier") else (),
            upload_id=fields.optional("upload_id", fields.text, checks.word),
            upload_write_id=(
                fields.checked("upload_write_id", fields.text, checks.word)
                if fields.has("parts")
                else ""
            ),
            parked=_spans(fields, "parked", size_bytes) if fields.has("parts") else (),
            parts=_parts(fields) if fields.has("parts") else (),
            state=_state(fields),
            reason=fields.text("reason"),
            changed_unix_s=fields.checked("changed_unix_s", fields.number, checks.unix_s),
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

    def checked(self, name: str, read: Callable[[str], _T], check: Callable[[_T], _T]) -> _T:
        """What `read` gives of a field, if it passes one of the checks of `values`."""
        value = read(name)
        try:
            return check(value)
        except ValueError as exc:
            raise DamagedRecord(f"{name} of {self._what} is of no use: {exc}") from None

    def optional(
        self, name: str, read: Callable[[str], _T], check: Callable[[_T], _T]
    ) -> _T | None:
        """The same, or null."""
        return None if self.any(name) is None else self.checked(name, read, check)

    def key(self, name: str, prefix: str) -> str:
        """The key of an object below prefix, which a path can name."""
        return self.checked(name, self.text, lambda text: checks.key(text, prefix))

    def location(self) -> tuple[str, str]:
        """The location, and what its keys begin with."""
        prefix = self.checked("location_uri", self.text, checks.prefix_of)
        return self.text("location_uri"), prefix

    def check_format(self) -> None:
        """Refuse what another version of this program has written."""
        if (number := self.integer("format")) != FORMAT:
            raise DamagedRecord(f"{self._what} has format {number}; this program knows {FORMAT}")

    def integer(self, name: str) -> int:
        """A whole number."""
        value = self.any(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(name)
        return value

    def number(self, name: str) -> float:
        """Any number."""
        value = self.any(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(name)
        try:
            return float(value)
        except OverflowError:
            raise self._wrong(name) from None

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
    """The values of a JSON text. Raises DamagedRecord, also for too many values."""
    if data.count(b",") > VALUES_MAX or data.count(b"{") > OBJECTS_MAX:
        raise DamagedRecord(f"{what} has too many values")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedRecord(f"{what} is not JSON") from None


def _spans(fields: Fields, name: str, size_bytes: int) -> tuple[tuple[int, int], ...]:
    try:
        return tuple(Spans.from_list(fields.any(name), size_bytes))
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
            with contextlib.suppress(ValueError):
                return Part(number, checks.header(etag), checks.word(checksum))
    raise DamagedRecord("parts of the record has something that is no part")


def _earlier(fields: Fields) -> tuple[tuple[str, int], ...]:
    match fields.any("earlier"):
        case list(rows) if len(rows) <= EARLIER_MAX:
            return tuple(_publication(row) for row in rows)
    raise DamagedRecord("earlier of the record is not a short list")


def _publication(row: object) -> tuple[str, int]:
    match row:
        case [str(write_id), int(size_bytes)]:
            with contextlib.suppress(ValueError):
                return checks.word(write_id), checks.size_bytes(size_bytes)
    raise DamagedRecord("earlier of the record has something that is no publication")


def _base(fields: Fields, prefix: str, size_bytes: int) -> BaseVersion | None:
    if fields.any("base") is None:
        return None
    base = fields.inner("base")
    base_bytes = base.checked("size_bytes", base.integer, checks.size_bytes)
    most = min(size_bytes, base_bytes)
    return BaseVersion(
        key=base.key("key", prefix),
        etag=base.checked("etag", base.text, checks.header),
        size_bytes=base_bytes,
        limit_bytes=base.checked(
            "limit_bytes", base.integer, lambda value: checks.size_bytes(value, most)
        ),
    )


def _expected(fields: Fields) -> Expected | None:
    if fields.any("expected") is None:
        return None
    expected = fields.inner("expected")
    return Expected(expected.optional("etag", expected.text, checks.header))


def _traits(fields: Fields) -> Traits:
    traits = fields.inner("traits")
    return Traits(
        traits.checked("metadata", traits.texts, _metadata),
        traits.checked("content_type", traits.text, checks.stored_text),
        traits.checked("storage_class", traits.text, checks.stored_text),
    )


def _metadata(found: Mapping[str, str]) -> Mapping[str, str]:
    return {checks.header_name(n): checks.stored_text(text) for n, text in found.items()}


def _state(fields: Fields) -> State:
    state = fields.text("state")
    if state not in get_args(State):
        raise DamagedRecord(f"the record has the state {state!r}")
    return cast("State", state)
