"""What the rules answer, from facts alone."""

from dataclasses import replace

import pytest

from stsfs.errors import (
    ArchivedObject,
    ForbiddenByRule,
    KeyTooLong,
    NameTooLong,
    NotADirectory,
    NotFound,
    ReadOnlyPlace,
    SessionExpired,
    StoreFailure,
)
from stsfs.rules.question import Place, Spot
from stsfs.vfs.explain import Facts, changing, reading, what, why_hidden


def file(**facts):
    return Facts(kind="file", key="k", size_bytes=100, **facts)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("d//", "no name"),
        ("d//below/it", "no name"),
        ("d/", "no name"),
        ("d/./x", "'.' means"),
        ("d/..", "'..' means"),
        ("d/a\0b", "zero byte"),
        ("d/" + "ü" * 128, "this one 256"),
        ("d/both", "directory of the same name"),
    ],
)
def test_a_hidden_key_has_a_reason(key, words):
    assert words in why_hidden(key, "d/")


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        (file(), None),
        (file(outdated=True, credentials=SessionExpired("over")), None),
        (file(credentials=SessionExpired("over")), SessionExpired),
        (file(credentials=SessionExpired("over"), held_bytes=100), None),
        (file(failure=StoreFailure("503")), StoreFailure),
        (file(failure=StoreFailure("503"), held_bytes=100), None),
        (file(storage_class="DEEP_ARCHIVE"), ArchivedObject),
        (file(storage_class="GLACIER", held_bytes=1), None),  # so it has been restored
        (file(storage_class="GLACIER_IR"), None),
        (file(staged=True, credentials=SessionExpired("over"), outdated=True), None),
        (Facts(kind="directory", key="d/", credentials=SessionExpired("over")), None),
        (Facts(kind="reserved", key="owner.txt"), NotFound),
        (Facts(kind="hidden", key="a//b", reason="because"), NotFound),
        (Facts(kind="hidden", key="", reason="because", by_key=False), NotFound),
        (Facts(kind="directory", key="", by_key=False), None),
        (Facts(kind="unknown", key="k", error=StoreFailure("503")), StoreFailure),
    ],
)
def test_reading_is_allowed_unless_something_known_stands_in_the_way(facts, error):
    verdict = reading(facts)
    assert verdict.allowed == (error is None)
    assert verdict.error is None or type(verdict.error) is error
    assert verdict.sentence
    assert what(facts)


def test_what_is_being_written_here_is_read_from_here():
    assert "being written here" in what(file(staged=True))
    assert "local disk" in reading(file(staged=True)).sentence


def test_what_was_refused_before_is_asked_again():
    assert "refused before" in reading(file(refused_before=True)).sentence
    assert "refused" not in reading(file(refused_before=True, held_bytes=100)).sentence


STS = Place(
    label="syn1",
    storage="external",
    prefix="base/",
    writable=True,
    reserved_names=frozenset({b"owner.txt"}),
)
WAY = Place(label="this mount", storage="none", writable=True)


def here(kind, name=b"x", place=STS, **facts):
    """Something in the root of a place that can be written."""
    touched = "directory" if kind == "directory" else "file"
    key = f"{place.prefix}{name.decode()}" + ("/" if kind == "directory" else "")
    spot = Spot(place, place.prefix, name)
    return Facts(**{"kind": kind, "key": key, "spot": spot, "touched": touched, **facts})


@pytest.mark.parametrize("kind", ["file", "directory", "absent", "reserved", "hidden", "unknown"])
def test_on_a_read_only_mount_every_change_is_refused_and_rw_is_named(kind):
    verdict = changing(Facts(kind=kind, key="k", error=NotFound("gone")))
    assert (verdict.allowed, type(verdict.error)) == (False, ReadOnlyPlace)
    assert "--rw" in verdict.remedy
    assert "stsfs refresh" in verdict.remedy


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        (here("file"), None),
        (here("directory"), None),
        (here("absent", error=NotFound("gone")), None),
        (here("absent", error=NotADirectory("/f is a file.")), NotADirectory),
        (here("absent", b"n" * 256, error=NameTooLong("256")), NameTooLong),
        (here("absent", b"n" * 200, spot=Spot(STS, "d" * 1000, b"n" * 200)), KeyTooLong),
        (here("reserved", b"owner.txt"), ForbiddenByRule),
        (here("file", place=replace(STS, shown="entities")), ReadOnlyPlace),
        (here("directory", place=WAY, touched="way"), ReadOnlyPlace),
        (here("directory", touched="root"), None),
        (here("hidden", b"", error=NotFound("gone")), NotFound),
        (here("unknown", error=StoreFailure("503")), StoreFailure),
        (here("file", credentials=SessionExpired("over")), SessionExpired),
        (here("file", storage_class="GLACIER"), None),
    ],
)
def test_a_change_is_allowed_unless_a_rule_or_something_known_stands_in_the_way(facts, error):
    verdict = changing(facts)
    assert verdict.allowed == (error is None)
    assert verdict.error is None or type(verdict.error) is error
    assert verdict.sentence


def test_a_change_is_told_in_words_that_fit_what_is_there():
    assert "written" in changing(here("file")).sentence
    assert "moved and removed" in changing(here("file")).sentence
    assert "made in it, and it can be moved" in changing(here("directory")).sentence
    assert "made there" in changing(here("absent")).sentence
    assert "Synapse" in changing(here("reserved", b"owner.txt")).sentence


def test_where_a_location_begins_things_can_be_made_and_it_cannot_be_removed():
    sentence = changing(here("directory", b"syn1", touched="root")).sentence
    assert "made in it; it cannot be moved or removed. The directories that lead" in sentence
    of_mount = changing(here("directory", b"", key="base/", touched="root")).sentence
    assert "removed" not in of_mount


@pytest.mark.parametrize("kind", ["hidden", "directory", "absent"])
def test_where_paths_are_no_keys_nothing_is_said_of_keys_and_buckets(kind):
    facts = Facts(kind=kind, key="", by_key=False, error=NotFound("gone"), reason="because")
    verdicts = reading(facts), changing(facts)
    said = what(facts) + "".join(f"{each.sentence} {each.remedy}" for each in verdicts)
    assert not {"key", "bucket", "S3"} & set(said.replace(".", " ").replace(",", " ").split())


def test_a_directory_tells_of_the_object_it_hides():
    assert "hidden" in what(Facts(kind="directory", key="d/", shadows=True))
