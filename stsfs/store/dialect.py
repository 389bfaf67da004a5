"""What a server understands beyond plain S3: believed at first, and learnt from its refusals."""

import logging
from collections.abc import Mapping

from stsfs.store.answers import Answer

log = logging.getLogger(__name__)

CHECKSUM, ALGORITHM = "x-amz-checksum-crc32c", "x-amz-checksum-algorithm"
_CHECKSUMS = frozenset({CHECKSUM, ALGORITHM})
_CONDITIONS = frozenset({"if-match", "if-none-match"})


class Dialect:
    """What is sent to one server. It only shrinks, except for a wrong guess that is taken back."""

    def __init__(self, *, acl: str, conditions: bool) -> None:
        self.acl = acl
        """The canned ACL of what is made; empty: none is sent."""

        self.conditions = conditions
        self.checksums = True
        self._guessed = False

    def learn(self, answer: Answer, sent: Mapping[str, str]) -> bool:
        """Whether a refusal is about headers that will be left out from now on.

        Sources: the error codes of the S3 API reference (AccessControlListNotSupported of buckets
        whose owner owns all objects; NotImplemented, which may name the header).
        """
        if answer.code == "AccessControlListNotSupported":
            return self._without_acl(sent)
        if answer.status == 501:
            return self._without_what_is_unknown(answer, sent)
        told = answer.code in {"InvalidRequest", "InvalidArgument"} and answer.status == 400
        if told and "checksum" in answer.message.lower() and sent.keys() & _CHECKSUMS:
            self._without_checksums()
            return True
        return False

    def _without_acl(self, sent: Mapping[str, str]) -> bool:
        if self.acl:
            log.info("the bucket knows no ACLs; going on without %s", self.acl)
            self.acl = ""
        return "x-amz-acl" in sent

    def _without_what_is_unknown(self, answer: Answer, sent: Mapping[str, str]) -> bool:
        """A server that names no header may mean either: first checksums go, then conditions."""
        checksums, conditions = sent.keys() & _CHECKSUMS, sent.keys() & _CONDITIONS
        if (checksums and not self.checksums) or (conditions and not self.conditions):
            return True  # learnt since then, from the answer to another request
        if conditions and (answer.header in _CONDITIONS or not checksums):
            log.warning("the server knows no conditional changes; looking before each one")
            self.conditions = False
            self.checksums, self._guessed = self.checksums or self._guessed, False
            return True
        if checksums:
            self._guessed = not answer.header and bool(conditions)
            self._without_checksums()
        return bool(checksums)

    def _without_checksums(self) -> None:
        if self.checksums:
            log.warning("the server knows no CRC32C; going on without checksums")
            self.checksums = False
