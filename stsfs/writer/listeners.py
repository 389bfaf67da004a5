"""Who is told what becomes of a file that is being written."""

from typing import TYPE_CHECKING, Protocol

from stsfs.errors import StsfsError
from stsfs.store.object_store import ObjectVersion

if TYPE_CHECKING:
    from stsfs.writer.dirty_file import DirtyFile


class FileEnded(Exception):
    """The file is not being written any more: S3 has its content, and is to be asked."""


class Watcher(Protocol):
    """Who shows the file. Called at once, in whatever task it happens; not a checkpoint."""

    def published(self, version: ObjectVersion) -> None:
        """S3 has this now. The file may have been changed again since."""

    def failed(self, error: StsfsError) -> None:
        """An attempt failed; the bytes are kept. After a conflict the file has lost its name."""

    def gone(self) -> None:
        """The file has ended: readers ask S3 from now on, if it has a name."""


class Home(Protocol):
    """Where files that are being written live. Implemented by Writers."""

    def ended(self, file: "DirtyFile", *, is_kept: bool) -> None:
        """The file has ended; is_kept: its bytes wait for `stsfs recover`."""

    def published(self, file: "DirtyFile") -> None:
        """An attempt succeeded."""

    def failed(self, file: "DirtyFile", error: StsfsError) -> None:
        """An attempt failed, and another one may help."""
