"""The table of rules: every row answers something, and nothing is answered in two ways."""

from dataclasses import replace
from itertools import product
from typing import get_args

import pytest

from stsfs import errors
from stsfs.location import parse
from stsfs.rules.asking import ask, check, concerning, rule_for
from stsfs.rules.question import (
    KEY_BYTES_MAX,
    NAME_BYTES_MAX,
    Kind,
    Operation,
    Place,
    Question,
    Spot,
    Storage,
)
from stsfs.rules.table import CHANGES, ROWS
from stsfs.vfs import nodes

OWNER_TXT = frozenset({b"owner.txt"})


def sts(label="syn1", storage="external", **facts):
    facts = {"writable": True, "bucket": "lab", "prefix": f"{label}/", **facts}
    return Place(label=label, storage=storage, reserved_names=OWNER_TXT, **facts)


OURS, OTHER = sts(), sts("syn2")
S3 = Place(label="s3://lab/raw", storage="s3", bucket="lab", prefix="raw/", writable=True)
WAY = Place(label="this mount", storage="none", writable=True)


def at(place=OURS, name=b"x", below=""):
    return Spot(place, place.prefix + below, name)


def asked(operation, spot=None, **facts):
    return Question(operation=operation, at=spot or at(), **facts)


LONG = b"n" * NAME_BYTES_MAX
DEEP = "d" * (KEY_BYTES_MAX - len(OURS.prefix) - NAME_BYTES_MAX - 2) + "/"

MET = [
    ("whole-bucket", asked("mount", at(sts(prefix=""))), errors.WholeBucketRefused),
    ("managed-mount", asked("mount_rw", at(sts(storage="managed"))), errors.ManagedStorageReadOnly),
    ("lock", asked("unlink", at(replace(OURS, shown="lock"))), errors.ReadOnlyPlace),
    ("managed", asked("write", at(sts(storage="managed"))), errors.ReadOnlyPlace),
    ("entities", asked("mkdir", at(replace(OURS, shown="entities"))), errors.ReadOnlyPlace),
    ("read-only", asked("symlink", at(replace(S3, writable=False))), errors.ReadOnlyPlace),
    ("sts-in-sts", asked("rename", at(), to=at(OTHER), kind="root"), errors.ForbiddenByRule),
    ("folder-into-sts", asked("rename", at(WAY), to=at(), kind="way"), errors.ForbiddenByRule),
    ("folder-into-sts", asked("rename", at(S3), to=at(), kind="root"), errors.ForbiddenByRule),
    ("outside-locations", asked("create", at(WAY)), errors.ReadOnlyPlace),
    ("outside-locations", asked("rename", at(), to=at(WAY)), errors.ReadOnlyPlace),
    ("outside-locations", asked("rename", at(), to=at(WAY), kind="root"), errors.ReadOnlyPlace),
    ("outside-locations", asked("rmdir", kind="root"), errors.ReadOnlyPlace),
    ("only-files", asked("symlink"), errors.ForbiddenByRule),
    ("only-files", asked("link", to=at(OTHER)), errors.ForbiddenByRule),
    ("only-files", asked("fifo", at(S3)), errors.ForbiddenByRule),
    ("only-files", asked("socket"), errors.ForbiddenByRule),
    ("only-files", asked("device"), errors.ForbiddenByRule),
    ("access-list", asked("set_acl"), errors.NotSupported),
    ("attributes", asked("setxattr"), errors.NotSupported),
    ("exchange", asked("exchange", to=at(name=b"y")), errors.InvalidRequest),
    ("special-bits", asked("chmod", mode=0o104755), errors.ForbiddenByRule),
    ("special-bits", asked("mkdir", mode=0o41777), errors.ForbiddenByRule),
    ("owner", asked("chown", owner=(7, 8), uid=9), errors.ForbiddenByRule),
    ("owner", asked("chown", owner=(7, 8), uid=7, gid=9), errors.ForbiddenByRule),
    ("reserved-name", asked("create", at(name=b"owner.txt")), errors.ForbiddenByRule),
    ("reserved-name", asked("rename", to=at(name=b"owner.txt")), errors.ForbiddenByRule),
    ("reserved-name", asked("rename", at(S3), to=at(name=b"owner.txt")), errors.ForbiddenByRule),
    ("name", asked("create", at(name=b"")), errors.InvalidRequest),
    ("name", asked("mkdir", at(name=b"..")), errors.InvalidRequest),
    ("name", asked("rename", to=at(name=b"a/b")), errors.InvalidRequest),
    ("name", asked("create", at(name=b"a\0")), errors.InvalidRequest),
    ("utf-8", asked("create", at(name=b"caf\xe9")), errors.InvalidRequest),
    ("long-name", asked("create", at(name=LONG + b"n")), errors.NameTooLong),
    ("long-key", asked("mkdir", at(name=LONG, below=f"d{DEEP}")), errors.KeyTooLong),
    ("long-key", asked("create", at(name=LONG, below=f"dd{DEEP}")), errors.KeyTooLong),
    ("long-key", asked("rename", to=at(), kind="directory", below_bytes=1020), errors.KeyTooLong),
    ("other-location", asked("rename", to=at(OTHER)), errors.OtherLocation),
    ("other-location", asked("rename", at(S3), to=at(), kind="directory"), errors.OtherLocation),
]  # fmt: skip

ALLOWED = [
    asked("mount"),
    asked("mount_rw"),
    asked("mount", at(sts(prefix="", whole_bucket=True))),
    asked("mount", at(Place(label="s3://lab", storage="s3", bucket="lab"))),
    asked("create", mode=0o100666),
    asked("create", at(name=LONG, below=f"d{DEEP}")),
    asked("mkdir", at(name=LONG, below=DEEP)),
    asked("create", at(name="ü\n".encode())),
    asked("create", at(name=b"owner.txt", below="d/")),
    asked("create", at(S3, b"owner.txt")),
    asked("unlink", at(name=b"caf\xe9")),
    asked("rename", to=at(name=b"y", below="d/"), kind="directory"),
    asked("rename", to=at(replace(OURS)), kind="file"),
    asked("rmdir", kind="directory"),
    asked("write"),
    asked("chmod", mode=0o100777),
    asked("chmod", kind="root", mode=0o700),
    asked("utimens"),
    asked("chown", owner=(7, 8), uid=7, gid=8),
    asked("chown", owner=(7, 8), gid=8),
    asked("chown", owner=(7, 8)),
]


@pytest.mark.parametrize(("name", "question", "error"), MET)
def test_a_question_is_answered_by_its_row_in_words(name, question, error):
    rule = rule_for(question)
    assert rule is not None
    answer = ask(question)
    assert (rule.name, type(answer)) == (name, error)
    assert answer.sentence.endswith(".")
    assert not {"{", "}"} & set(str(answer))
    assert answer.remedy == rule.remedy
    with pytest.raises(error):
        check(question)


@pytest.mark.parametrize("question", ALLOWED)
def test_what_no_rule_forbids_is_allowed(question):
    assert ask(question) is None
    check(question)


def test_every_row_answers_something():
    assert {name for name, _, _ in MET} == {rule.name for rule in ROWS}
    assert len({rule.name for rule in ROWS}) == len(ROWS)


def test_an_answer_names_what_it_is_about():
    told = str(ask(asked("rename", to=at(OTHER))))
    assert "syn1 and syn2" in told
    assert "syn2" in str(ask(asked("rename", to=at(replace(OTHER, shown="entities")))))
    assert "mode 4755" in str(ask(asked("chmod", mode=0o104755)))
    assert "7:8" in str(ask(asked("chown", owner=(7, 8), uid=9)))
    assert "'caf\\\\xe9'" in str(ask(asked("create", at(name=b"caf\xe9"))))
    assert "1025 bytes" in str(ask(asked("mkdir", at(name=LONG, below=f"d{DEEP}"))))
    assert "symbolic link" in str(ask(asked("symlink")))
    assert "bucket lab" in str(ask(asked("mount", at(sts(prefix="")))))


def places():
    """All that can be written, and one for each other reason why a place cannot be."""
    for storage, shown, writable in [
        *product(get_args(Storage), ["keys"], [True]),
        ("none", "keys", False),
        ("s3", "lock", True),
        ("synapse", "entities", True),
        ("synapse", "keys", False),
    ]:
        named = OWNER_TXT if storage in ("synapse", "external", "managed") else frozenset()
        prefix = "" if storage == "none" else f"{storage}/"
        yield Place(
            label=f"{storage} {shown}",
            storage=storage,
            prefix=prefix,
            shown=shown,
            writable=writable,
            reserved_names=named,
        )


NAMES = (b"x", b"owner.txt", b"..", b"\xff", LONG + b"n")
BELOW = ("", "d" * KEY_BYTES_MAX + "/")


def every_question():
    """The full product of small domains."""
    all_places = list(places())
    for operation, place, kind in product(get_args(Operation), all_places, get_args(Kind)):
        moves = operation in ("rename", "exchange", "link")
        for target in all_places if moves else [None]:
            for name, below in product(NAMES, BELOW):
                changed = at(place, b"x" if moves else name, "" if moves else below)
                yield Question(
                    operation=operation,
                    at=changed,
                    to=at(target, name, below) if target is not None else None,
                    kind=kind,
                    mode=0o1777,
                    owner=(0, 0),
                    uid=1,
                )


GOES_FIRST = {
    "lock": "nothing can be changed there, and the kernel says so without asking",
    "managed": "as above",
    "entities": "as above",
    "read-only": "as above",
    "sts-in-sts": "before the rows that would let a person think that copying it is a move",
    "folder-into-sts": "as above",
    "outside-locations": "what is no part of a location has no rules of a location",
}
"""Rows that answer although a later one with another error applies too, and why that is right."""

TWO_FAULTS = {
    ("exchange", "other-location"),
    ("long-name", "long-key"),
    *product(["special-bits"], ["name", "utf-8", "long-name", "long-key"]),
    *product(["reserved-name", "name", "utf-8", "long-name", "long-key"], ["long-key"]),
    *product(["reserved-name", "name", "utf-8", "long-name", "long-key"], ["other-location"]),
}
"""Pairs of rows that a question may break both of: the first is told, the other at the next try."""


def test_where_two_rows_would_answer_differently_their_order_is_deliberate():
    disputed = set()
    for question in every_question():
        covering = [rule for rule in ROWS if rule.covers(question)]
        answer = rule_for(question)
        assert answer is (covering[0] if covering else None)
        disputed |= {
            (answer.name, later.name) for later in covering[1:] if later.error is not answer.error
        }
    assert {each for each in disputed if each[0] not in GOES_FIRST} <= TWO_FAULTS
    assert {first for first, _ in disputed} >= set(GOES_FIRST)


def test_where_nothing_can_be_changed_every_change_is_erofs():
    for question in every_question():
        closed = [
            place
            for place in question.places
            if not place.writable or place.shown != "keys" or place.storage == "managed"
        ]
        if closed and question.operation in CHANGES:
            assert type(ask(question)) is errors.ReadOnlyPlace


def test_only_the_rows_of_a_place_answer_in_it():
    for question in every_question():
        rule = rule_for(question)
        if rule is not None:
            assert any(rule in concerning(place) for place in question.places)


@pytest.mark.parametrize(("place", "is_told"), [(OURS, True), (WAY, True), (S3, False)])
def test_a_rule_is_told_where_something_can_meet_it(place, is_told):
    told = [rule.name for rule in concerning(place)]
    assert ("folder-into-sts" in told) is is_told


def test_where_nothing_can_be_changed_no_other_rule_is_told():
    names = [rule.name for rule in concerning(sts(storage="managed", writable=False))]
    assert names == ["managed-mount", "managed"]
    assert "read-only" not in [rule.name for rule in concerning(OURS)]


def test_moving_a_folder_with_a_location_is_eperm_and_never_a_copy():
    """It goes before EXDEV, after which `mv` would copy everything."""
    for place, target in product(places(), places()):
        if place.writable and target.writable:
            answer = ask(asked("rename", at(place), to=at(target), kind="root"))
            assert answer is not None
            assert not isinstance(answer, errors.OtherLocation)


def test_limits_are_those_that_paths_and_locations_have():
    assert (NAME_BYTES_MAX, KEY_BYTES_MAX) == (nodes.NAME_BYTES_MAX, parse.KEY_BYTES_MAX)
