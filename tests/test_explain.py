"""What the rules answer, from facts alone."""

import pytest

from stsfs.errors import ArchivedObject, NotFound, SessionExpired, StoreFailure
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


def test_what_was_refused_before_is_asked_again():
    assert "refused before" in reading(file(refused_before=True)).sentence
    assert "refused" not in reading(file(refused_before=True, held_bytes=100)).sentence


def test_a_change_is_refused_everywhere_and_says_what_to_do_instead():
    assert "stsfs refresh" in changing(file()).remedy
    assert "Synapse" in changing(Facts(kind="reserved", key="owner.txt")).sentence
    assert not changing(Facts(kind="absent", key="k")).allowed


@pytest.mark.parametrize("kind", ["hidden", "directory", "absent"])
def test_where_paths_are_no_keys_nothing_is_said_of_keys_and_buckets(kind):
    facts = Facts(kind=kind, key="", by_key=False, error=NotFound("gone"), reason="because")
    verdicts = reading(facts), changing(facts)
    said = what(facts) + "".join(f"{each.sentence} {each.remedy}" for each in verdicts)
    assert not {"key", "bucket", "S3"} & set(said.replace(".", " ").replace(",", " ").split())


def test_a_directory_tells_of_the_object_it_hides():
    assert "hidden" in what(Facts(kind="directory", key="d/", shadows=True))
