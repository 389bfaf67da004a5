"""What is left out for a server that does not know it, and nothing more."""

import pytest

from stsfs.store.answers import Answer, Meaning
from stsfs.store.capabilities import Condition, ServerCapabilities

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
