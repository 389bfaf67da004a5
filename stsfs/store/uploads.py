"""What a writer remembers of its multipart uploads: of which kind they are, and which stay behind.

Uploads cannot be listed everywhere (the sessions of Synapse may not), so that one whose id was lost
is there until the bucket's own rule removes it.
"""

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

from stsfs.store.answers import Answer, Meaning
from stsfs.store.capabilities import ServerCapabilities, speaks_of_checksums


class WhyNotCopied(enum.Enum):
    """Why a server does not make a part of bytes that it has."""

    CHECKSUM = "it does not do so in an upload with checksums"
    ARGUMENT = "it takes offence at something that it does not name"
    NEVER = "it does not know the operation, or does not allow it"


class _Kind(NamedTuple):
    is_checked: bool
    with_copies: bool


_UNKNOWN = _Kind(is_checked=True, with_copies=False)


@dataclass(slots=True)
class UploadBook:
    """The uploads of one writer."""

    lost_count: int = 0
    """Begun without an answer: they may stay behind, and nobody has their ids."""

    _kinds: dict[str, _Kind] = field(default_factory=dict)
    _left: set[str] = field(default_factory=set)

    @property
    def in_doubt_count(self) -> int:
        """Uploads that may have stayed behind."""
        return self.lost_count + len(self._left)

    def lost(self) -> None:
        """An upload may have been begun: there was no answer. Not a checkpoint."""
        self.lost_count += 1

    def begun(self, upload_id: str, *, is_checked: bool, with_copies: bool) -> None:
        """An upload was begun, with a checksum algorithm or without."""
        self._kinds[upload_id] = _Kind(is_checked, with_copies)

    def left(self, upload_id: str) -> None:
        """An upload could not be aborted."""
        self._left.add(upload_id)

    def ended(self, upload_id: str) -> None:
        """An upload was completed or aborted."""
        self._kinds.pop(upload_id, None)
        self._left.discard(upload_id)

    def is_checked(self, upload_id: str) -> bool:
        """Whether the parts of an upload have checksums."""
        return self._kinds.get(upload_id, _UNKNOWN).is_checked

    def learn(self, upload_id: str, why: WhyNotCopied, capabilities: ServerCapabilities) -> None:
        """A part was not copied into an upload: what follows for the next ones."""
        kind = self._kinds.get(upload_id, _UNKNOWN)
        may_help = why is WhyNotCopied.CHECKSUM or (
            why is WhyNotCopied.ARGUMENT and kind.with_copies
        )
        if may_help and kind.is_checked and capabilities.checksums:
            capabilities.checks_copied_parts = False
        else:
            capabilities.copies_parts = False


def why_not_copied(answer: Answer | None) -> WhyNotCopied | None:
    """What a refusal of UploadPartCopy means; None: something else than that it is not done."""
    if answer is None:
        return None
    if answer.meaning is Meaning.FORBIDDEN or answer.status in {405, 501}:
        return WhyNotCopied.NEVER
    if speaks_of_checksums(answer):
        return WhyNotCopied.CHECKSUM
    if answer.status == 400 and answer.code in {"InvalidArgument", "InvalidRequest"}:
        return WhyNotCopied.ARGUMENT
    return WhyNotCopied.NEVER if answer.code == "NotImplemented" else None
