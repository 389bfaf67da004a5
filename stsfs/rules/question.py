"""What the rules are asked: an operation, what it touches, and where. Pure facts, no behaviour.

Whoever asks builds a `Place` for each location of a mount once, a `Spot` for each name that an
operation touches, and a `Question` for each operation; `asking.ask` answers it.
"""

from dataclasses import dataclass
from typing import Literal

NAME_BYTES_MAX = 255
"""Of one component of a path, as Linux has it."""

KEY_BYTES_MAX = 1024
"""Of S3 (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)."""

Operation = Literal[
    "mount",
    "mount_rw",
    "create",
    "write",
    "mkdir",
    "rmdir",
    "unlink",
    "rename",
    "exchange",
    "symlink",
    "link",
    "fifo",
    "socket",
    "device",
    "chmod",
    "chown",
    "utimens",
    "setxattr",
    "set_acl",
]
"""`mount_rw` is asked beside `mount`; truncating is `write`; `exchange` is RENAME_EXCHANGE."""

Storage = Literal["s3", "synapse", "external", "managed", "none"]
"""Who keeps the bytes of a place.

s3: a place in S3, of which Synapse knows nothing. external, managed: an STS location in somebody's
own bucket, or in Synapse's. synapse: one of the two, and it is not known which. none: the
directories of a mount that only lead to its locations.
"""

Shown = Literal["keys", "entities", "lock"]
"""What a mount shows of a place: its keys, the folder as Synapse has it, the versions of a lock."""

Kind = Literal["file", "directory", "root", "way"]
"""What an operation changes. root: the root directory of a location. way: a directory of the mount
that is no part of a location, and leads to some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A storage location as the rules see it. Equal places are the same location."""

    label: str
    """What the user typed: `syn12345`, `s3://bucket/prefix`."""

    storage: Storage
    bucket: str = ""
    prefix: str = ""
    """What every key begins with: empty, or the base key and a slash."""

    shown: Shown = "keys"
    writable: bool = False
    """Whether it was asked for: the mount was made with --rw."""

    whole_bucket: bool = False
    """Whether credentials that cover a whole bucket are accepted."""

    reserved_names: frozenset[bytes] = frozenset()
    """Names in its root that are Synapse's own."""

    @property
    def is_sts(self) -> bool:
        """Whether it is an STS location of Synapse."""
        return self.storage in ("synapse", "external", "managed")


@dataclass(frozen=True, slots=True)
class Spot:
    """A name in a directory of a place."""

    place: Place
    prefix: str = ""
    """What the keys below the directory begin with: empty, or ending in `/`."""

    name: bytes = b""
    """Empty where only the place matters."""

    @property
    def in_root(self) -> bool:
        """Whether the directory is the root of its place."""
        return self.prefix == self.place.prefix

    @property
    def key_bytes(self) -> int:
        """How long the key of a file of this name is."""
        return len(self.prefix.encode("utf-8", "surrogateescape")) + len(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """May this be done? What is None or empty does not belong to the operation."""

    operation: Operation
    at: Spot
    """What is changed, removed or moved, or is to be made. For the root of a location, and for a
    directory that leads to some, the place is that of the directory itself."""

    kind: Kind = "file"
    """Of what is there, or is to be made."""

    to: Spot | None = None
    """The new name of a rename or link."""

    below_bytes: int = 0
    """Of a directory to be renamed: what the longest key below it has after its prefix."""

    mode: int | None = None
    """The new mode, of create, mkdir and chmod; the type in it is ignored."""

    owner: tuple[int, int] | None = None
    """The uid and gid shown now, of chown; beside `uid` and `gid`, the new ones."""

    uid: int | None = None
    gid: int | None = None

    @property
    def places(self) -> tuple[Place, ...]:
        """The places it touches: one or two."""
        return (self.at.place,) if self.to is None else (self.at.place, self.to.place)

    @property
    def made(self) -> Spot | None:
        """The name that it would put into a directory; None if it puts none."""
        if self.operation in ("create", "mkdir"):
            return self.at
        return self.to if self.operation == "rename" else None
