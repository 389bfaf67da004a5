"""What is left out for a server that does not know it, and nothing more."""

import pytest
import trio

from stsfs.store.answers import Answer, Meaning
from stsfs.store.capabilities import (
    PROBE_WAIT_S,
    Condition,
    ServerCapabilities,
    Verdict,
    set_by_option,
)

ABSENT = Condition.PUT_IF_ABSENT
PUT = {"x-amz-checksum-crc32c": "AAAAAA==", "if-none-match": "*", "x-amz-acl": "private"}


def answer(status, code, *, message="", header=""):
    return Answer(status, code, message, Meaning.FINAL, header=header)


def sent(known):
    """The headers of a put in this known."""
    left_out = set()
    left_out |= set() if known.checksums else {"x-amz-checksum-crc32c"}
    left_out |= set() if known.honours(ABSENT) else {"if-none-match"}
    left_out |= set() if known.acl else {"x-amz-acl"}
    return {name: value for name, value in PUT.items() if name not in left_out}


def learn(known, refusal, headers):
    return known.learn(refusal, headers, [ABSENT] if "if-none-match" in headers else [])


class Server:
    """Refuses with 501 while a header is sent that it does not know."""

    def __init__(self, *unknown, names=False):
        self._unknown, self._names = unknown, names

    def refusal(self, headers):
        for name in self._unknown:
            if name in headers:
                return answer(501, "NotImplemented", header=name if self._names else "")
        return None


def speak(server):
    """The known in which the server takes a put in the end."""
    known = ServerCapabilities(acl="private", conditions=True)
    for _ in range(4):
        headers = sent(known)
        refusal = server.refusal(headers)
        if refusal is None:
            return known
        assert learn(known, refusal, headers)
    raise AssertionError("it goes on for ever")


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize(
    ("unknown", "expected"),
    [
        ((), (True, True)),
        (("x-amz-checksum-crc32c",), (False, True)),
        (("if-none-match",), (True, False)),
        (("if-none-match", "x-amz-checksum-crc32c"), (False, False)),
    ],
)
def test_what_a_server_does_not_know_is_left_out_and_the_rest_is_kept(unknown, expected, names):
    known = speak(Server(*unknown, names=names))
    assert (known.checksums, known.honours(ABSENT)) == expected
    assert known.acl == "private"


def test_a_refusal_that_came_late_changes_nothing_more():
    known = ServerCapabilities(acl="", conditions=True)
    old = dict(PUT)
    assert learn(known, answer(501, "NotImplemented"), old)
    assert learn(known, answer(501, "NotImplemented"), sent(known))
    assert (known.checksums, known.honours(ABSENT)) == (True, False)
    assert learn(known, answer(501, "NotImplemented"), old)
    assert (known.checksums, known.honours(ABSENT)) == (True, False)


def test_a_bucket_without_acls_is_sent_none():
    known = ServerCapabilities(acl="private", conditions=True)
    refusal = answer(400, "AccessControlListNotSupported")
    assert learn(known, refusal, PUT)
    assert known.acl == ""
    assert not learn(known, refusal, sent(known))


def test_other_refusals_teach_nothing():
    known = ServerCapabilities(acl="private", conditions=True)
    for refusal in (
        answer(400, "InvalidRequest", message="The body is odd."),
        answer(400, "InvalidArgument"),
        answer(400, "BadDigest", message="The checksum did not match."),
        answer(404, "InvalidRequest", message="No such checksum."),
        answer(403, "AccessDenied", message="checksum"),
        answer(412, "PreconditionFailed"),
    ):
        assert not learn(known, refusal, PUT)
    assert not learn(known, answer(501, "NotImplemented"), {"x-amz-acl": "private"})
    assert (known.checksums, known.honours(ABSENT), known.acl) == (True, True, "private")


def test_a_complaint_about_the_checksum_is_understood():
    known = ServerCapabilities(acl="", conditions=True)
    refusal = answer(400, "InvalidRequest", message="Unsupported checksum type")
    assert learn(known, refusal, PUT)
    assert not known.checksums


@pytest.mark.parametrize("honoured", [True, False])
def test_what_the_user_says_of_a_server_is_known_without_a_probe(honoured):
    known = ServerCapabilities(acl="", conditions=not honoured)
    set_by_option(known, honoured=honoured)
    assert known.is_known
    assert known.found_by == "option"
    assert all(known.honours(condition) is honoured for condition in Condition)


def test_of_a_new_server_all_is_believed_but_its_conditions():
    known = ServerCapabilities(acl="private", conditions=False)
    assert (known.checksums, known.copies_parts, known.checks_copied_parts) == (True, True, True)
    assert not known.is_known
    assert not any(map(known.honours, Condition))
    assert all(map(known.sends, Condition))


SAFE, REST, UNSEEN, MAYBE = (
    "do not overwrite each other: the server refuses that.",
    "A rename or a removal can take",
    "can overwrite each other unseen",
    "may overwrite each other unseen",
)


@pytest.mark.parametrize(
    ("ignored", "told"),
    [
        ([], SAFE),
        ([Condition.DELETE_IF_MATCH], REST),
        ([Condition.COPY_SOURCE_IF_MATCH], REST),
        ([Condition.COMPLETE_IF_MATCH], UNSEEN),
        (list(Condition), UNSEEN),
    ],
)
def test_what_is_ignored_is_told_by_what_it_means_for_two_writers(ignored, told):
    known = ServerCapabilities(acl="", conditions=False)
    assert MAYBE in known.two_writers()
    for condition in Condition:
        known.found(condition, Verdict.IGNORED if condition in ignored else Verdict.HONOURED)
    assert told in known.two_writers()
    assert (known.two_writers().split(".")[0].endswith("refuses that")) == (told in (SAFE, REST))


def test_what_is_assumed_is_told_as_that():
    assert "if the server refuses that" in ServerCapabilities(acl="", conditions=True).two_writers()


async def test_a_change_waits_for_a_probe_that_is_under_way_but_not_for_ever(autojump_clock):
    known = ServerCapabilities(acl="", conditions=False)
    await known.settled()
    known.begin_probe()
    begun_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(known.settled)
        await trio.sleep(3)
        known.end_probe("denied")
    assert (trio.current_time() - begun_s, known.reason) == (3, "denied")
    known.begin_probe()
    await known.settled()
    assert trio.current_time() - begun_s == 3 + PROBE_WAIT_S
