"""Conditions on files, such as `tissue = blood and size > 1GiB`: read, and tried. Pure.

    condition   term [and term] ...
    term        name operator value, or: has name
    operator    = != < <= > >=, and ~ for patterns with * ? [abc]

A name is one of FIELDS, or else an annotation; `annotation.size` is the annotation called `size`.
A value is a word, or stands in quotes, single or double; a quote within is doubled. Without quotes
a number compares as a number, and a date (2024-05-31, or with T and a time; UTC unless it says
otherwise) as that whole day, minute or second: `created_on = 2024-05-31` is any moment of that day.
In quotes the value of an annotation is text. A file matches if one of the values of an annotation
does; `!=` is true where `=` is not, so also without the annotation.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from stsfs.entities.comparing import (
    GLOB,
    HAS,
    Literal,
    Value,
    bytes_of,
    is_true,
    number_of,
    span_ms_of,
    sql_of,
)
from stsfs.errors import BadArgument

CONDITION_CHARS_MAX = 4096

_ANNOTATION = "annotation."
_TOKEN = re.compile(
    r"""(?P<operator> != | <= | >= | [=<>~] )
      | (?P<quoted> '(?:[^']|'')*' | "(?:[^"]|"")*" )
      | (?P<word> [^\s'"=!<>~]+ )""",
    re.VERBOSE,
)
_VIEW_ID = re.compile(r"syn[0-9]+")
_HOW = "Write for example: tissue = blood and size > 1GiB"


class _Field(NamedTuple):
    """A field of every entity: its column in a view, and the type of that."""

    column: str
    type_name: str


FIELDS = {
    "name": _Field("name", "STRING"),
    "id": _Field("id", "ENTITYID"),
    "type": _Field("type", "STRING"),
    "version": _Field("currentVersion", "INTEGER"),
    "size": _Field("dataFileSizeBytes", "INTEGER"),
    "md5": _Field("dataFileMD5Hex", "STRING"),
    "created_by": _Field("createdBy", "USERID"),
    "modified_by": _Field("modifiedBy", "USERID"),
    "created_on": _Field("createdOn", "DATE"),
    "modified_on": _Field("modifiedOn", "DATE"),
}

_OWN_COLUMNS = frozenset(each.column for each in FIELDS.values()) | {
    "parentId", "projectId", "benefactorId", "etag", "path", "description", "dataFileHandleId",
    "dataFileName", "dataFileBucket", "dataFileKey", "dataFileConcreteType",
}  # fmt: skip
"""Columns of a view that show no annotation, whatever annotations are called."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a condition asks about: one file or folder, as Synapse tells of it."""

    name: str
    id: str
    type: str
    """`file`, `folder` or `link`, as in the column `type` of a view."""

    version: int | None = None
    """None, here and below, or an empty text for what is not known: it equals nothing."""

    size_bytes: int | None = None
    md5: str = ""
    created_by: str = ""
    """The number of a user, as text; so is `modified_by`."""

    modified_by: str = ""
    created_unix_s: float | None = None
    modified_unix_s: float | None = None
    annotations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison."""

    name: str
    """A key of FIELDS, or that of an annotation."""

    is_field: bool
    sign: str
    literal: Literal

    def matches(self, facts: Facts) -> bool:
        """Whether it is true of these facts."""
        values = _values(facts, self)
        if self.sign == "!=":
            return not any(is_true(value, "=", self.literal) for value in values)
        return any(is_true(value, self.sign, self.literal) for value in values)

    def to_sql(self, types: Mapping[str, str]) -> str | None:
        """The same for a view with columns of these types; None where that cannot be said."""
        if self.is_field:
            column, type_name = FIELDS[self.name]
            return sql_of(column, type_name, self.sign, self.literal) if column in types else None
        if self.name in _OWN_COLUMNS or self.name not in types:
            return None
        return sql_of(self.name, types[self.name], self.sign, self.literal)


@dataclass(frozen=True, slots=True)
class Condition:
    """Terms, all of which have to be true."""

    terms: tuple[Term, ...]

    @property
    def needs_annotations(self) -> bool:
        """Whether it asks for more than fields."""
        return not all(term.is_field for term in self.terms)

    def matches(self, facts: Facts) -> bool:
        """Whether all terms are true of these facts."""
        return all(term.matches(facts) for term in self.terms)

    def to_sql(
        self,
        view_id: str,
        columns: Mapping[str, str] | Collection[str],
        select: Sequence[str] = ("id",),
    ) -> str | None:
        """Return the query of a view that selects these columns of what matches.

        columns are those of the view: name → type as Synapse calls it (`STRING`, `DATE` …), or
        only the names; then less can be asked about annotations. None where a column is missing,
        or where a query could answer otherwise than `matches`: patterns, the order of texts, lists,
        dates that are kept as text. One difference stays: in a column of text 07 is not 7.
        Raises BadArgument for what is not the id of a view.
        """
        if not _VIEW_ID.fullmatch(view_id):
            raise BadArgument(f"{view_id!r} is not the id of a view.", remedy="Type syn12345.")
        types = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, "")
        said = [sql for term in self.terms if (sql := term.to_sql(types)) is not None]
        if len(said) < len(self.terms):
            return None
        return f"SELECT {', '.join(select)} FROM {view_id} WHERE {' AND '.join(said)}"  # noqa: S608


def parse(text: str) -> Condition:
    """Read a condition.

    Raises BadArgument, with the place and what may stand there, for what is none.
    """
    if len(text) > CONDITION_CHARS_MAX:
        raise BadArgument(f"A condition has at most {CONDITION_CHARS_MAX} characters.")
    if "\0" in text or any("\ud800" <= each <= "\udfff" for each in text):
        raise BadArgument("The condition is not text.", remedy=_HOW)
    return Condition(tuple(_Parser(text).terms()))


def _values(facts: Facts, term: Term) -> tuple[Value, ...]:
    if not term.is_field:
        return facts.annotations.get(term.name, ())
    value: Value | None
    match term.name:
        case "size":
            value = facts.size_bytes
        case "created_on":
            value = _ms(facts.created_unix_s)
        case "modified_on":
            value = _ms(facts.modified_unix_s)
        case name:
            value = getattr(facts, name)
    return () if value is None or value == "" else (value,)


def _ms(time_unix_s: float | None) -> int | None:
    return None if time_unix_s is None else round(time_unix_s * 1000)


class _Token(NamedTuple):
    kind: str
    """operator, quoted, word or end."""

    text: str
    """Without its quotes."""

    at: int
    """Characters before it."""

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these words, or any word, and not in quotes."""
        return self.kind == "word" and (not words or self.text.lower() in words)

    @property
    def is_named(self) -> bool:
        """Whether it may be a name or a value."""
        return self.kind in {"word", "quoted"}


class _Parser:
    """Goes through the tokens once, from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0

    def terms(self) -> Iterator[Term]:
        yield self._term()
        while (token := self._take()).kind != "end":
            if not token.is_word("and"):
                or_quotes = ", and a value with spaces needs quotes" if token.is_named else ""
                _refuse(token, f"only `and` can follow here{or_quotes}")
            yield self._term()

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _term(self) -> Term:
        name, sign = self._take(), self._take()
        if name.is_word(HAS) and sign.is_named:
            return Term(*_subject(sign), HAS, Literal(""))
        if not name.is_named:
            _refuse(name, "the name of a field or an annotation is expected here")
        if sign.kind != "operator":
            _refuse(sign, "one of = != < <= > >= ~ is expected here")
        value = self._take()
        if not value.is_named or value.is_word("and"):
            _refuse(value, f"a value is expected here, after {sign.text}")
        subject, is_field = _subject(name)
        read = _field_literal(subject, sign, value) if is_field else _literal(sign, value)
        return Term(subject, is_field, sign.text, read)


def _tokens(text: str) -> Iterator[_Token]:
    at, stop = 0, len(text.rstrip())
    while at < stop:
        if text[at].isspace():
            at += 1
            continue
        found = _TOKEN.match(text, at, stop)
        if found is None:
            what = "this is no operator" if text[at] == "!" else "this quote has no end"
            _refuse(_Token("word", text[at:stop], at), what)
        kind, token = str(found.lastgroup), found.group()
        if kind == "quoted":
            token = token[1:-1].replace(token[0] * 2, token[0])
        yield _Token(kind, token, at)
        at = found.end()
    yield _Token("end", "", stop)


def _subject(name: _Token) -> tuple[str, bool]:
    """What is compared, and whether that is a field."""
    if name.is_word() and name.text in FIELDS:
        return name.text, True
    subject = name.text.removeprefix(_ANNOTATION)
    if not subject:
        _refuse(name, "this name is empty")
    return subject, False


def _literal(sign: _Token, value: _Token) -> Literal:
    if value.kind == "quoted" or sign.text == GLOB:
        return Literal(value.text)
    if (span_ms := span_ms_of(value.text)) is not None:
        return Literal(value.text, span_ms=span_ms)
    return Literal(value.text, number=number_of(value.text))


def _field_literal(name: str, sign: _Token, value: _Token) -> Literal:
    type_name = FIELDS[name].type_name
    if type_name not in {"DATE", "INTEGER"}:
        return Literal(value.text)
    if sign.text == GLOB:
        _refuse(sign, f"patterns are for text, and {name} is none")
    if type_name == "DATE":
        if (span_ms := span_ms_of(value.text)) is None:
            _refuse(value, f"{name} is compared with a date, such as 2024-05-31")
        return Literal(value.text, span_ms=span_ms)
    number = bytes_of(value.text) if name == "size" else number_of(value.text)
    if number is None:
        _refuse(value, f"{name} is compared with a number{', or 1GiB' if name == 'size' else ''}")
    return Literal(value.text, number=number)


def _refuse(token: _Token, what: str) -> NoReturn:
    shown = "its end" if token.kind == "end" else repr(token.text[:40])
    raise BadArgument(
        f"The condition cannot be read at character {token.at + 1} ({shown}): {what}.", remedy=_HOW
    )
