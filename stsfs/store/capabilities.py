"""What one S3 server can do beyond plain S3: assumed at first, found out by a probe, and learnt.

Source of what AWS does: "Add preconditions to S3 operations with conditional requests" in the S3
user guide. Many other servers ignore some of these headers without a word.
"""

import enum
import logging
from collections.abc import Collection, Mapping

import trio

from stsfs.store.answers import Answer

log = logging.getLogger(__name__)

CHECKSUM, ALGORITHM = "x-amz-checksum-crc32c", "x-amz-checksum-algorithm"
_CHECKSUMS = frozenset({CHECKSUM, ALGORITHM})
_CONDITIONS = frozenset({"if-match", "if-none-match", "x-amz-copy-source-if-match"})

PROBE_WAIT_S = 10.0
"""How long a change waits for a probe that is under way."""


class Condition(enum.StrEnum):
    """One condition of one operation."""

    PUT_IF_ABSENT = "put_if_absent"
    PUT_IF_MATCH = "put_if_match"
    COMPLETE_IF_ABSENT = "complete_if_absent"
    COMPLETE_IF_MATCH = "complete_if_match"
    COPY_IF_ABSENT = "copy_if_absent"
    COPY_IF_MATCH = "copy_if_match"
    COPY_SOURCE_IF_MATCH = "copy_source_if_match"
    DELETE_IF_MATCH = "delete_if_match"


class Verdict(enum.StrEnum):
    """What a server does with a condition."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    REFUSED = "refused"
    UNKNOWN = "unknown"


_UNSAFE_WRITES = (
    "Two writers of one file can overwrite each other unseen: the server does not refuse a change "
    "of what another client has changed meanwhile. stsfs looks before and after each change."
)
_UNKNOWN_WRITES = (
    "Whether the server refuses a change of what another client has changed meanwhile is not "
    "known, so that two writers of one file may overwrite each other unseen. stsfs looks before "
    "and after each change."
)
_UNSAFE_REST = (
    "Two writers of one file do not overwrite each other: the server refuses that. A rename or a "
    "removal can take what another client has written in that moment."
)
_SAFE = "Two writers of one file do not overwrite each other: the server refuses that."
_ASSUMED = "Two writers of one file do not overwrite each other, if the server refuses that."


class ServerCapabilities:
    """What is sent to one server and relied upon there, shared by all changes of one location."""

    def __init__(self, *, acl: str, conditions: bool) -> None:
        """conditions is what is believed of each condition until it is known."""
        self.acl = acl
        """The canned ACL of what is made; empty: none is sent."""

        self.assumed = conditions
        self.found_by = "assumption"
        """assumption, option, probe, or memory: how the verdicts came about."""

        self.reason = ""
        """Why a probe has not told everything; empty where it has, or there was none."""

        self.checksums = True
        self.copies_parts = True
        """UploadPartCopy is there and allowed."""

        self.checks_copied_parts = True
        """Uploads with a checksum algorithm take copied parts."""

        self._verdicts = dict.fromkeys(Condition, Verdict.UNKNOWN)
        self._guessed = False
        self._probing: trio.Event | None = None

    @property
    def verdicts(self) -> Mapping[Condition, Verdict]:
        """What is known of each condition."""
        return self._verdicts

    @property
    def is_known(self) -> bool:
        """Whether there is a verdict on each condition."""
        return Verdict.UNKNOWN not in self._verdicts.values()

    def honours(self, condition: Condition) -> bool:
        """Whether a condition is sent and relied upon; where not, changes look for themselves."""
        verdict = self._verdicts[condition]
        return verdict is Verdict.HONOURED or (verdict is Verdict.UNKNOWN and self.assumed)

    def sends(self, condition: Condition) -> bool:
        """Whether the condition of a copy's source is sent: also where it is not relied upon."""
        return self._verdicts[condition] is not Verdict.REFUSED

    def found(self, condition: Condition, verdict: Verdict) -> None:
        """Note what a server does with a condition."""
        self._verdicts[condition] = verdict

    def begin_probe(self) -> None:
        """From now on `settled` waits. To be followed by `end_probe`."""
        self._probing = trio.Event()

    def end_probe(self, reason: str = "") -> None:
        """The probe has ended; reason says why it has not told everything."""
        self.reason = reason
        if self._probing is not None:
            self._probing.set()
            self._probing = None

    async def settled(self) -> None:
        """Wait for a probe that is under way, PROBE_WAIT_S at most."""
        if self._probing is not None:
            with trio.move_on_after(PROBE_WAIT_S):
                await self._probing.wait()

    def two_writers(self) -> str:
        """What the verdicts mean for two clients that change one file, in a sentence or two."""
        writes = [Condition.PUT_IF_ABSENT, Condition.PUT_IF_MATCH]
        writes += [Condition.COMPLETE_IF_ABSENT, Condition.COMPLETE_IF_MATCH]
        if not all(map(self.honours, writes)):
            unsure = {self._verdicts[each] for each in writes} & {Verdict.IGNORED, Verdict.REFUSED}
            return _UNSAFE_WRITES if unsure else _UNKNOWN_WRITES
        if not all(map(self.honours, Condition)):
            return _UNSAFE_REST
        return _SAFE if self.is_known else _ASSUMED

    def learn(self, answer: Answer, sent: Mapping[str, str], asked: Collection[Condition]) -> bool:
        """Whether a refusal is about headers that will be left out from now on.

        asked are the conditions that were sent. Sources: the error codes of the
        S3 API reference (AccessControlListNotSupported of buckets whose owner owns all objects;
        NotImplemented, which may name the header).
        """
        if answer.code == "AccessControlListNotSupported":
            return self._without_acl(sent)
        if answer.status == 501:
            return self._without_what_is_unknown(answer, sent, asked)
        if speaks_of_checksums(answer) and sent.keys() & _CHECKSUMS:
            self._without_checksums()
            return True
        return False

    def _without_acl(self, sent: Mapping[str, str]) -> bool:
        if self.acl:
            log.info("the bucket knows no ACLs; going on without %s", self.acl)
            self.acl = ""
        return "x-amz-acl" in sent

    def _without_what_is_unknown(
        self, answer: Answer, sent: Mapping[str, str], asked: Collection[Condition]
    ) -> bool:
        """A server that names no header may mean either: first checksums go, then conditions."""
        checksums = sent.keys() & _CHECKSUMS
        conditions = [each for each in asked if self.sends(each)]
        if (checksums and not self.checksums) or (asked and not conditions):
            return True  # learnt since then, from the answer to another request
        if conditions and (answer.header in _CONDITIONS or not checksums):
            log.warning("the server knows no conditional changes; looking before each one")
            for each in conditions:
                self.found(each, Verdict.REFUSED)
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


def speaks_of_checksums(answer: Answer) -> bool:
    """Whether a server complains about a checksum that it does not know."""
    told = answer.code in {"InvalidRequest", "InvalidArgument"} and answer.status == 400
    return told and "checksum" in answer.message.lower()


def set_by_option(capabilities: ServerCapabilities, *, honoured: bool) -> None:
    """The user says what the server does: nothing is probed."""
    capabilities.found_by = "option"
    for condition in Condition:
        capabilities.found(condition, Verdict.HONOURED if honoured else Verdict.IGNORED)
