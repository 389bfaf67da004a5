"""What goes wrong for a while: S3 as one mount finds it, and the local disk."""

import errno

from stsfs.errors import AccessDenied, StoreFailure

CHANGES = frozenset(
    [
        "put",
        "begin_upload",
        "upload_part",
        "copy_part",
        "complete_upload",
        "abort_upload",
        "copy",
        "delete",
    ]
)
OUTAGES = ("down", "writes-down", "writes-denied", "deletes-denied", "questions-down", "lost")
QUESTIONS = frozenset(("list_page", "confirm", "traits", "written", "read_range"))


class Trouble:
    """Outages by mount, each until a moment; a disk that is full until a moment."""

    def __init__(self, now_s):
        self._now_s = now_s
        self._outages = {}
        self._full_until_s = -1.0
        self.was_any = False

    def begin(self, mount, outage, seconds):
        """From now on, for so long; it replaces the last one of this mount."""
        self.was_any = True
        self._outages[mount] = (outage, self._now_s() + seconds)

    def fill_disk(self, seconds):
        """Nothing can be written to it for so long."""
        self.was_any = True
        self._full_until_s = self._now_s() + seconds

    def end(self):
        """All is well."""
        self._outages.clear()
        self._full_until_s = -1.0

    def full_disk(self):
        """The error of a write to the disk, or None."""
        if self._now_s() < self._full_until_s:
            return OSError(errno.ENOSPC, "No space left on device")
        return None

    def fate(self, mount, method):
        """The error of a request, and whether it happens all the same; (None, True) if well."""
        outage, until_s = self._outages.get(mount, ("", 0.0))
        if not outage or self._now_s() >= until_s:
            return None, True
        changes = method in CHANGES
        if outage == "down" or (outage == "writes-down" and changes):
            return StoreFailure("S3 does not answer."), False
        if outage == "questions-down" and method in QUESTIONS:
            return StoreFailure("S3 does not answer."), False
        if outage == "writes-denied" and changes:
            return AccessDenied("S3 says no."), False
        if outage == "deletes-denied" and method == "delete":
            return AccessDenied("S3 says no."), False
        if outage == "lost" and changes:
            return StoreFailure("The answer was lost."), True
        return None, True
