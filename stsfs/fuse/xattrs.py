"""Extended attributes: what `stsfs info` tells, for programs that read attributes.

A class of its own, because its mere presence costs: the kernel asks twice per file of an `ls -l`
as long as getxattr answers anything but ENOSYS, which Operations does. Setting stays ENOSYS,
which the kernel turns into ENOTSUP; on a read-only mount it says EROFS before it asks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyfuse3

from stsfs.fuse.operations import Appearance, Operations, handler
from stsfs.vfs.inspector import Inspector
from stsfs.vfs.nodes import Directory, File, Node
from stsfs.vfs.refusals import Refusals
from stsfs.vfs.vfs import Vfs


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the files of a mount come from."""

    label: str
    """`syn12345`, `s3://bucket/prefix`."""

    bucket: str


class XattrOperations(Operations):
    """Operations with attributes `user.s3.*`, `user.stsfs.*` and `user.synapse.*`."""

    def __init__(
        self,
        vfs: Vfs,
        refusals: Refusals,
        appearance: Appearance,
        *,
        deadline_s: float,
        inspector: Inspector,
        origins: Mapping[int, Origin],
    ) -> None:
        super().__init__(vfs, refusals, appearance, deadline_s=deadline_s)
        self._inspector = inspector
        self._origins = origins

    @handler
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """The value of one attribute; ENODATA for one that we do not have."""
        node = await self._vfs.attributes(inode)
        make = self._makers(node).get(name)
        if make is not None:
            return make().encode()
        if name.startswith(b"user."):
            told = (await self._vfs.properties(node)).get(name[5:].decode("utf-8", "replace"))
            if told is not None:
                return told.encode()
        raise pyfuse3.FUSEError(pyfuse3.ENOATTR)

    @handler
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
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
