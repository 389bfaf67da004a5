"""How a value of a file compares with the value in a condition, in Python and as SQL. Pure."""

import fnmatch
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

HAS, GLOB = "has", "~"

Value: TypeAlias = str | int
"""Text as Synapse writes it, also for numbers and dates; or a number, or ms since 1970."""

_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBER = re.compile(r"-?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)([KMGT])(?:iB)?")
_UNIT_BYTES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?P<second>:\d\d(?P<fraction>\.\d{3}(?:\d{3})?)?)?)?"
    r"(?P<zone>Z|[+-]\d\d:\d\d)?",
    re.ASCII,
)
_EPOCH_MS = re.compile(r"-?[0-9]{10,15}")
"""A date as Synapse writes it into annotations, of all but the months around 1970."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_INT_STOP = 1 << 63

_TEXT_TYPES = frozenset(
    {"", "STRING", "MEDIUMTEXT", "LARGETEXT", "LINK", "BOOLEAN", "ENTITYID", "USERID"}
)
"""A type that nobody told is among them: Synapse takes '7' as a number where it has to be one."""


@dataclass(frozen=True, slots=True)
class Literal:
    """The value in a condition: a text, which may compare as a number or a date."""

    text: str
    number: int | float | None = None
    span_ms: tuple[int, int] | None = None
    """What a date means: [start, stop), milliseconds since 1970."""


def is_true(value: Value, sign: str, literal: Literal) -> bool:
    """Whether `value sign literal` holds; what cannot be compared is false.

    sign is =, an order, `~`, or `has`, which any value satisfies.
    """
    if sign == HAS:
        return True
    if sign == GLOB:
        return fnmatch.fnmatchcase(str(value), literal.text)
    if literal.span_ms is not None:
        time_ms = _time_ms(value)
        return time_ms is not None and _is_in_span(time_ms, sign, literal.span_ms)
    if literal.number is not None:
        number = value if isinstance(value, int) else number_of(value)
        return number is not None and _SIGNS[sign](number, literal.number)
    return _SIGNS[sign](str(value), literal.text)


def number_of(text: str) -> int | float | None:
    """Return the decimal number that a text is, or None."""
    if not _NUMBER.fullmatch(text):
        return None
    if text.lstrip("-").isdigit() and abs(int(text)) < _INT_STOP:
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else None


def bytes_of(text: str) -> int | float | None:
    """Return the size that a text is, with or without a unit (`1.5GiB`, `64K`), or None."""
    if found := _SIZE.fullmatch(text):
        return int(float(found[1]) * _UNIT_BYTES[found[2]])
    return number_of(text)


def span_ms_of(text: str) -> tuple[int, int] | None:
    """Return the day, minute, second or millisecond that a text names, or None."""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    zone = found["zone"] or ""
    bare = text.removesuffix(zone)
    try:
        # The time may be left out, a zone without a time is nothing that Python reads.
        time = datetime.fromisoformat(bare if "T" in bare or " " in bare else f"{bare}T00:00")
        offset = datetime.fromisoformat(f"2000-01-01T00:00{zone}").utcoffset() or timedelta()
        start_ms = (time.replace(tzinfo=UTC) - _EPOCH - offset) // _MS
    except ValueError:
        return None
    if found["fraction"]:
        return start_ms, start_ms + 1
    if found["second"]:
        return start_ms, start_ms + 1000
    return start_ms, start_ms + (86_400_000 if len(bare) == len("2000-01-01") else 60_000)


def sql_of(column: str, type_name: str, sign: str, literal: Literal) -> str | None:
    """Return the comparison for a column of a view, null where the entity has no value.

    None where a query could answer otherwise than `is_true`: patterns, the order of texts, lists,
    dates or numbers against columns of another type.
    """
    quoted = identifier(column)
    if sign == HAS:
        return f"{quoted} IS NOT NULL"
    if sign == GLOB:
        return None
    if literal.span_ms is not None:
        return _span_sql(quoted, sign, literal.span_ms) if type_name == "DATE" else None
    if type_name in {"INTEGER", "DATE", "DOUBLE"}:
        value = _number_sql(literal.number, type_name)
    else:
        is_said = type_name in _TEXT_TYPES and sign in {"=", "!="}
        value = string(literal.text) if is_said else None
    if value is None:
        return None
    if sign == "!=":
        return f"({quoted} IS NULL OR {quoted} <> {value})"
    return f"{quoted} {sign} {value}"


def identifier(name: str) -> str:
    """The name of a column in SQL."""
    return '"{}"'.format(name.replace('"', '""'))


def string(text: str) -> str:
    """A text in SQL, as Synapse reads it: a backslash is a character like others."""
    return "'{}'".format(text.replace("'", "''"))


def _number_sql(number: int | float | None, type_name: str) -> str | None:
    if number is None:
        return None
    if type_name == "DOUBLE" or isinstance(number, int):
        return repr(number)
    is_integer = number.is_integer() and abs(number) < _INT_STOP
    return str(int(number)) if is_integer else None


def _span_sql(quoted: str, sign: str, span_ms: tuple[int, int]) -> str:
    start_ms, stop_ms = span_ms
    return {
        "=": f"({quoted} >= {start_ms} AND {quoted} < {stop_ms})",
        "!=": f"({quoted} IS NULL OR {quoted} < {start_ms} OR {quoted} >= {stop_ms})",
        "<": f"{quoted} < {start_ms}",
        "<=": f"{quoted} < {stop_ms}",
        ">": f"{quoted} >= {stop_ms}",
        ">=": f"{quoted} >= {start_ms}",
    }[sign]


def _is_in_span(time_ms: int, sign: str, span_ms: tuple[int, int]) -> bool:
    start_ms, stop_ms = span_ms
    return {
        "=": start_ms <= time_ms < stop_ms,
        "<": time_ms < start_ms,
        "<=": time_ms < stop_ms,
        ">": time_ms >= stop_ms,
        ">=": time_ms >= start_ms,
    }[sign]


def _time_ms(value: Value) -> int | None:
    if isinstance(value, int):
        return value
    if _EPOCH_MS.fullmatch(value):
        return int(value)
    span_ms = span_ms_of(value)
    return None if span_ms is None else span_ms[0]
