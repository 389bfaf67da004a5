"""What is left out for a server that does not know it, and nothing more."""

import pytest

from stsfs.store.answers import Answer, Meaning
from stsfs.store.dialect import Dialect

PUT = {"x-amz-checksum-crc32c": "AAAAAA==", "if-none-match": "*", "x-amz-acl": "private"}


def answer(status, code, *, message="", header=""):
    return Answer(status, code, message, Meaning.FINAL, header=header)


def sent(dialect):
    """The headers of a put in this dialect."""
    left_out = set()
    left_out |= set() if dialect.checksums else {"x-amz-checksum-crc32c"}
    left_out |= set() if dialect.conditions else {"if-none-match"}
    left_out |= set() if dialect.acl else {"x-amz-acl"}
    return {name: value for name, value in PUT.items() if name not in left_out}


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
    """The dialect in which the server takes a put in the end."""
    dialect = Dialect(acl="private", conditions=True)
    for _ in range(4):
        headers = sent(dialect)
        refusal = server.refusal(headers)
        if refusal is None:
            return dialect
        assert dialect.learn(refusal, headers)
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
    dialect = speak(Server(*unknown, names=names))
    assert (dialect.checksums, dialect.conditions) == expected
    assert dialect.acl == "private"


def test_a_refusal_that_came_late_changes_nothing_more():
    dialect = Dialect(acl="", conditions=True)
    old = dict(PUT)
    assert dialect.learn(answer(501, "NotImplemented"), old)
    assert dialect.learn(answer(501, "NotImplemented"), sent(dialect))
    assert (dialect.checksums, dialect.conditions) == (True, False)
    assert dialect.learn(answer(501, "NotImplemented"), old)
    assert (dialect.checksums, dialect.conditions) == (True, False)


def test_a_bucket_without_acls_is_sent_none():
    dialect = Dialect(acl="private", conditions=True)
    refusal = answer(400, "AccessControlListNotSupported")
    assert dialect.learn(refusal, PUT)
    assert dialect.acl == ""
    assert not dialect.learn(refusal, sent(dialect))


def test_other_refusals_teach_nothing():
    dialect = Dialect(acl="private", conditions=True)
    for refusal in (
        answer(400, "InvalidRequest", message="The body is odd."),
        answer(400, "InvalidArgument"),
        answer(403, "AccessDenied", message="checksum"),
        answer(412, "PreconditionFailed"),
    ):
        assert not dialect.learn(refusal, PUT)
    assert not dialect.learn(answer(501, "NotImplemented"), {"x-amz-acl": "private"})
    assert (dialect.checksums, dialect.conditions, dialect.acl) == (True, True, "private")


def test_a_complaint_about_the_checksum_is_understood():
    dialect = Dialect(acl="", conditions=True)
    refusal = answer(400, "InvalidRequest", message="Unsupported checksum type")
    assert dialect.learn(refusal, PUT)
    assert not dialect.checksums
