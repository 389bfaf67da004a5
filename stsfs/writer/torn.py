"""Bytes of writes that failed: as long as they lack, the content is not what anybody wrote."""

import copy

from stsfs.errors import StsfsError, without_frames
from stsfs.staging.spans import Spans


class TornBytes:
    """Which bytes lack because of a failed write, and why. Pure.

    A later write over them, or a file cut off before them, repairs it.
    """

    def __init__(self) -> None:
        self._spans = Spans()
        self._error: StsfsError | None = None

    def __bool__(self) -> bool:
        return bool(self._spans)

    def failed(self, start: int, stop: int, error: StsfsError) -> None:
        """A write of [start, stop) failed."""
        self._spans.add(start, stop)
        self._error = without_frames(copy.copy(error))

    def repaired(self, start: int, stop: int) -> None:
        """A write of [start, stop) succeeded."""
        self._spans.remove(start, stop)

    def clip(self, size_bytes: int) -> None:
        """The file was cut off there."""
        self._spans.clip(size_bytes)

    def check(self, path: str) -> None:
        """Raise the error of the failed write, where bytes lack."""
        if not self or self._error is None:
            return
        error = self._error
        sentence = f"{path!r} is incomplete, and is not uploaded: {error.sentence}"
        raise type(error)(sentence, remedy=error.remedy)
