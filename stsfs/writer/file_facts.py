"""What is known of a file that is being written, beside its bytes and its state."""

from dataclasses import dataclass, field

from stsfs.store.object_store import Expected, ObjectVersion, Traits
from stsfs.writer.object_traits import object_traits


@dataclass(slots=True, kw_only=True)
class FileFacts:
    """Names, times, and what S3 is believed to have. Only DirtyFile changes them."""

    key: str
    """Where the object will be."""

    path: str
    """Below the mount point, without a slash in front."""

    expected: Expected | None
    """What must be at the key to be replaced; None: whatever is there."""

    exclusive: bool = False
    """Made with O_EXCL: another object at the key means that the name was taken."""

    version: ObjectVersion | None = None
    """What S3 has at the key as far as is known; None: nothing of ours."""

    mode: int | None = None
    """Permission bits; None: nobody has set them."""

    modified_ns: int = 0
    are_times_set: bool = False
    """modified_ns was set explicitly after the last change of the content."""

    kept: Traits = field(default_factory=Traits)
    """What is kept of the headers and metadata of the object that was there before."""

    is_base_known: bool = True
    """Whether the object that was there before has been asked for `kept`."""

    def traits(self, *, is_final: bool) -> Traits:
        """What is stored with the object; its time too, where it will not change any more."""
        is_time_known = is_final or self.are_times_set
        return object_traits(self.kept, self.mode, self.modified_ns if is_time_known else None)
