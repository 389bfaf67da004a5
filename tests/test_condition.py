import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stsfs.entities.condition import FIELDS, Facts, parse
from stsfs.errors import BadArgument

MAY_31_NOON_UNIX_S = 1717156800.0
MAY_31_NOON_MS = "1717156800000"
BAM = Facts(
    name="s1.bam",
    id="syn22",
    type="file",
    version=3,
    size_bytes=41943040,
    md5="18eaf55bb6172be2a0c1d8a7d5c4b3f2",
    created_by="3350000",
    modified_by="3350001",
    created_unix_s=MAY_31_NOON_UNIX_S,
    modified_unix_s=MAY_31_NOON_UNIX_S + 86400,
    annotations={
        "tissue": ("blood", "liver"),
        "age": ("42",),
        "score": ("-1.5E3",),
        "batch": ("007",),
        "collected": (MAY_31_NOON_MS,),
        "shipped": ("2024-05-31",),
        "size": ("large",),
        "has": ("it",),
        'it\'s "x"': ("a'b",),
    },
)
COLUMNS = {each.column: each.type_name for each in FIELDS.values()} | {
    "tissue": "STRING",
    "age": "INTEGER",
    "score": "DOUBLE",
    "collected": "DATE",
    'it"s': "STRING",
}


def is_true(text):
    return parse(text).matches(BAM)


def sql(text, columns=COLUMNS):
    return parse(text).to_sql("syn9", columns)


# What is true.


@pytest.mark.parametrize(
    "text",
    [
        "tissue = blood",
        "tissue = liver",
        "tissue='blood'",
        '"tissue" = "blood"',
        "tissue = blood AND age > 41",
        "annotation.tissue = blood",
        "tissue != skin",
        "absent != skin",
        "has tissue",
        "HAS tissue and Has has and has = it",
        "tissue ~ bl*d",
        "name ~ s[0-9].bam",
        "name = s1.bam and id = syn22 and type = file",
        "age = 42.0",
        "age < 100",
        "age > 5",
        "score <= -1500",
        "batch = 7",
        "batch = '007'",
        "version >= 3",
        "size = 40MiB",
        "size > 0.03G",
        "size >= 41943040 and size <= 41943040",
        "annotation.size = large",
        "md5 = 18eaf55bb6172be2a0c1d8a7d5c4b3f2",
        "created_by = 3350000 and modified_by = 3350001",
        "created_on = 2024-05-31",
        "created_on = 2024-05-31T12:00",
        "created_on = '2024-05-31 12:00:00'",
        "created_on = 2024-05-31T14:00:00+02:00",
        "created_on >= 2024-05-31 and created_on <= 2024-05-31",
        "created_on < 2024-06-01 and created_on > 2024-05-30",
        "modified_on > 2024-05-31",
        "created_on != 2024-06-01",
        "collected = 2024-05-31",
        "collected < 2024-05-31T12:01Z",
        "shipped = 2024-05-31",
        "shipped > 2024-05-30T23:59:59.999Z",
        '"it\'s ""x""" = \'a\'\'b\'',
        "has size",
    ],
)
def test_what_is_true_matches(text):
    assert is_true(text)


@pytest.mark.parametrize(
    "text",
    [
        "tissue = Blood",
        "tissue != blood",
        "tissue = blood and age > 42",
        "absent = skin",
        "absent ~ *",
        "has absent",
        "age < 5",
        "age > blood",
        "age = '42.0'",
        "batch = '7'",
        "size < 40M",
        "size = 0",
        "annotation.name = s1.bam",
        "created_on = 2024-06-01",
        "created_on > 2024-05-31",
        "created_on < 2024-05-31",
        "created_on = 2024-05-31T12:01",
        "shipped > 2024-05-31",
        "tissue > 2024-05-31",
        "age < 2024-05-31",
    ],
)
def test_what_is_not_true_does_not(text):
    assert not is_true(text)


@pytest.mark.parametrize("name", ["size", "md5", "version", "created_on"])
def test_what_is_not_known_is_equal_to_nothing(name):
    bare = Facts(name="d", id="syn1", type="folder")
    value = "2024-05-31" if name == "created_on" else "0"
    assert not parse(f"{name} = {value}").matches(bare)
    assert not parse(f"has {name}").matches(bare)
    assert parse(f"{name} != {value}").matches(bare)


@pytest.mark.parametrize(
    ("time_unix_s", "true_signs"),
    [
        (1717113599.999, ["!=", "<", "<="]),
        (1717113600.0, ["=", "<=", ">="]),
        (1717199999.999, ["=", "<=", ">="]),
        (1717200000.0, ["!=", ">", ">="]),
    ],
)
def test_a_day_is_all_its_moments_and_no_other(time_unix_s, true_signs):
    facts = Facts(name="f", id="syn1", type="file", created_unix_s=time_unix_s)
    signs = ["!=", "<", "<=", "=", ">", ">="]
    true = [each for each in signs if parse(f"created_on {each} 2024-05-31").matches(facts)]
    assert true == sorted(true_signs, key=signs.index)


def test_a_condition_says_whether_it_needs_annotations():
    assert not parse("name = x and size > 1").needs_annotations
    assert parse("name = x and annotation.size > 1").needs_annotations


# What cannot be read.


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "character 1 (its end): the name of a field or an annotation is expected"),
        ("tissue", "character 7 (its end): one of = != < <= > >= ~ is expected"),
        ("tissue =", "character 9 (its end): a value is expected here, after ="),
        ("tissue == x", "character 9 ('='): a value is expected here"),
        ("tissue = and age = 3", "character 10 ('and'): a value is expected"),
        ("tissue blood", "character 8 ('blood'): one of ="),
        ("= blood", "character 1 ('='): the name of"),
        ("has", "character 4 (its end): one of ="),
        ("'' = x", "this name is empty"),
        ("annotation. = x", "this name is empty"),
        ("tissue = white blood", "character 16 ('blood'): only `and` can follow here, and a value"),
        ("tissue = x or age = 3", "character 12 ('or'): only `and` can follow"),
        ("tissue = x =", "character 12 ('='): only `and` can follow here."),
        ("tissue = x and", "character 15 (its end): the name of"),
        ("tissue = 'blood", 'character 10 ("\'blood"): this quote has no end'),
        ("tissue ! x", "character 8 ('! x'): this is no operator"),
        ("size > large", "size is compared with a number, or 1GiB"),
        ("version = x", "version is compared with a number."),
        ("created_on > May", "created_on is compared with a date, such as 2024-05-31"),
        ("created_on > 2024-13-01", "created_on is compared with a date"),
        ("size ~ 4*", "character 6 ('~'): patterns are for text, and size is none"),
        ("a = \0", "not text"),
        ("a = \udc80", "not text"),
        ("a" * 5000, "at most 4096 characters"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(text, reason):
    with pytest.raises(BadArgument) as caught:
        parse(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        condition = parse(text)
    except BadArgument:
        return
    assert condition.matches(BAM) in {True, False}


# As a query.


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("tissue = blood and size > 1K", "\"tissue\" = 'blood' AND \"dataFileSizeBytes\" > 1024"),
        ("tissue = 'O''Neil'", "\"tissue\" = 'O''Neil'"),
        ("'it\"s' = x", '"it""s" = \'x\''),
        ("tissue != blood", "(\"tissue\" IS NULL OR \"tissue\" <> 'blood')"),
        ("has tissue", '"tissue" IS NOT NULL'),
        ("score >= -1.5", '"score" >= -1.5'),
        ("age < 1e3", '"age" < 1000'),
        ("collected = 2024-05-31T12:00:00.000Z",
         f'("collected" >= {MAY_31_NOON_MS} AND "collected" < 1717156800001)'),
        ("created_on = 2024-05-31",
         '("createdOn" >= 1717113600000 AND "createdOn" < 1717200000000)'),
        ("created_on > 2024-05-31", '"createdOn" >= 1717200000000'),
        ("created_on <= 2024-05-31", '"createdOn" < 1717200000000'),
        ("created_on >= 2024-05-31", '"createdOn" >= 1717113600000'),
        ("created_on < 2024-05-31", '"createdOn" < 1717113600000'),
    ],
)  # fmt: skip
def test_a_condition_becomes_the_query_of_a_view(text, where):
    assert sql(text) == f"SELECT id FROM syn9 WHERE {where}"


@pytest.mark.parametrize(
    "text",
    [
        "organ = heart",
        "tissue = blood and organ = heart",
        "annotation.name = x",
        "tissue ~ bl*",
        "name ~ *.bam",
        "tissue < blood",
        "tissue = 2024-05-31",
        "age = old",
        "age = '7'",
        "age > 1.5",
        "score = 2024-05-31",
        "sites = a",
    ],
)
def test_what_a_view_would_answer_otherwise_is_not_asked(text):
    assert sql(text, COLUMNS | {"sites": "STRING_LIST"}) is None


def test_without_the_types_of_columns_only_equality_is_asked():
    names = {"tissue", "age", "dataFileSizeBytes"}
    assert sql("tissue = blood and age = 42 and size > 5", names) == (
        "SELECT id FROM syn9 WHERE \"tissue\" = 'blood' AND \"age\" = '42'"
        ' AND "dataFileSizeBytes" > 5'
    )
    assert sql("age > 42", names) is None
    assert sql("version = 1", names) is None


@pytest.mark.parametrize("view_id", ["syn9 UNION SELECT 1", "9", "syn9\n", ""])
def test_only_an_entity_can_be_the_view(view_id):
    with pytest.raises(BadArgument, match="is not the id of a view"):
        parse("name = x").to_sql(view_id, COLUMNS)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
TEXTS |= st.sampled_from(
    ["'", '"', "\\'", "' OR 1=1 --", '" OR 1=1 --', "a", "7", "; DROP TABLE t"]
)
DAYS = st.integers(19872, 19876).map(lambda day: day * 86_400_000)
TIMES_MS = st.builds(
    lambda day, ms: day + ms, DAYS, st.sampled_from([0, 1, 43_200_000, 86_399_999])
)
DATES = st.sampled_from(["2024-05-30", "2024-05-31T12:00", "2024-05-31T00:00:00Z", "2024-06-01"])
NUMBERS = st.integers(-3, 3) | st.sampled_from([-1.5, 0.1, 2.0])
NUMBER_WORDS = st.sampled_from(["-1.5", "0", "0.1", "1", "2.0", "2e0", "-3"])
ORDERS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])


def quoted(text, quote):
    return quote + text.replace(quote, quote * 2) + quote


@st.composite
def questions(draw):
    """Facts, a condition, and the name of the column of text that both may use."""
    column = draw(TEXTS.filter(lambda name: name.strip() and not name.startswith("annotation.")))
    column = column if column.lower() not in {each.lower() for each in COLUMNS} else "free"
    annotations = {
        column: draw(st.none() | TEXTS),
        "age": draw(st.none() | st.integers(-3, 3)),
        "score": draw(st.none() | NUMBERS),
        "collected": draw(st.none() | TIMES_MS),
    }
    facts = Facts(
        name=draw(TEXTS.filter(bool)),
        id="syn22",
        type="file",
        size_bytes=draw(st.none() | st.integers(0, 3)),
        created_unix_s=draw(st.none() | TIMES_MS.map(lambda ms: ms / 1000)),
        annotations={
            name: (str(value),) for name, value in annotations.items() if value is not None
        },
    )
    quote = st.sampled_from("'\"")
    equality = st.sampled_from(["=", "!="])
    name = quoted(column, draw(quote))
    terms = {
        "text": f"{name} {draw(equality)} {quoted(draw(TEXTS), draw(quote))}",
        "same": f"{name} = {quoted(annotations[column] or '', draw(quote))}",
        "name": f"name {draw(equality)} {quoted(draw(TEXTS), draw(quote))}",
        "has": f"has {name}",
        "age": f"age {draw(ORDERS)} {draw(st.sampled_from(['-3', '0', '2e0', '1']))}",
        "score": f"score {draw(ORDERS)} {draw(NUMBER_WORDS)}",
        "size": f"size {draw(ORDERS)} {draw(st.sampled_from(['0', '2', '3']))}",
        "collected": f"collected {draw(ORDERS)} {draw(DATES)}",
        "created": f"created_on {draw(ORDERS)} {draw(DATES)}",
    }
    chosen = draw(st.lists(st.sampled_from(sorted(terms)), min_size=1, max_size=3))
    return facts, " and ".join(terms[each] for each in chosen), column, annotations


@given(questions())
def test_a_query_finds_what_matches_and_cannot_be_broken_out_of(question):
    facts, text, column, annotations = question
    condition = parse(text)
    own = {
        "id": facts.id,
        "name": facts.name,
        "dataFileSizeBytes": facts.size_bytes,
        "createdOn": facts.created_unix_s and round(facts.created_unix_s * 1000),
    }
    row = own | annotations
    kinds = {"age": "INTEGER", "score": "REAL", "name": "TEXT", column: "TEXT"}
    names = ['"{}"'.format(each.replace('"', '""')) for each in row]
    declared = [f"{name} {kinds.get(each, '')}" for name, each in zip(names, row, strict=True)]
    types = COLUMNS | {column: "STRING"}
    query = condition.to_sql("syn9", {name: types[name] for name in row})
    assert query is not None
    with sqlite3.connect(":memory:") as database:
        database.execute(f"CREATE TABLE syn9 ({', '.join(declared)})")
        database.execute(f"INSERT INTO syn9 VALUES ({', '.join('?' * len(row))})", [*row.values()])
        found = database.execute(query).fetchall()
    database.close()
    assert (found == [("syn22",)]) is condition.matches(facts)
