"""Extended attributes: what `stsfs info` tells, for programs that read attributes.

A part that Operations has or has not, because to have it costs: the kernel asks twice per file of
an `ls -l` as long as getxattr answers anything but ENOSYS. Setting stays ENOSYS, which the kernel
turns into ENOTSUP; on a read-only mount it says EROFS before it asks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from stsfs.vfs.inspector import Inspector
from stsfs.vfs.nodes import Directory, File, Node
from stsfs.vfs.vfs import Vfs


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the files of a mount come from."""

    label: str
    """`syn12345`, `s3://bucket/prefix`."""

    bucket: str


class Xattrs:
    """The attributes `user.s3.*`, `user.stsfs.*` and `user.synapse.*` of the files of a mount.

    Raises what `Vfs.attributes` and `Vfs.properties` raise.
    """

    def __init__(self, vfs: Vfs, inspector: Inspector, origins: Mapping[int, Origin]) -> None:
        """origins are by location id."""
        self._vfs, self._inspector, self._origins = vfs, inspector, origins

    async def get(self, inode: int, name: bytes) -> bytes | None:
        """The value of one attribute; None: there is none of that name."""
        node = await self._vfs.attributes(inode)
        make = self._makers(node).get(name)
        if make is not None:
            return make().encode()
        if not name.startswith(b"user."):
            return None
        told = (await self._vfs.properties(node)).get(name[5:].decode("utf-8", "replace"))
        return None if told is None else told.encode()

    async def names(self, inode: int) -> Sequence[bytes]:
        """The names of all attributes."""
        node = await self._vfs.attributes(inode)
        told = await self._vfs.properties(node)
        return [*self._makers(node), *(f"user.{name}".encode() for name in told)]

    def _makers(self, node: Node) -> Mapping[bytes, Callable[[], str]]:
        """What makes the value of each attribute: most are asked for, few are wanted."""
        makers: dict[bytes, Callable[[], str]] = {}
        directory = node if isinstance(node, Directory) else node.parent
        origin = self._origins.get(directory.site.location_id)
        if origin is not None:
            makers[b"user.stsfs.location"] = lambda: origin.label
        if origin is not None and node.key:
            makers[b"user.s3.bucket"] = lambda: origin.bucket
            makers[b"user.s3.key"] = lambda: node.key
        if isinstance(node, File) and (version := node.version) is not None:
            makers |= {
                b"user.s3.etag": lambda: version.etag,
                b"user.s3.modified": lambda: _iso(node.modified_ns),
                b"user.s3.size": lambda: str(version.size_bytes),
                b"user.s3.storage_class": lambda: node.storage_class,
                b"user.stsfs.cached_bytes": lambda: str(self._inspector.held_bytes(version)),
            }
        return makers


def _iso(time_ns: int) -> str:
    """`2026-11-24T10:46:15Z`, as S3 writes it."""
    return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
