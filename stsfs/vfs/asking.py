"""The rules, asked about nodes and names of the tree."""

from collections.abc import Mapping

from stsfs.rules.asking import check
from stsfs.rules.question import Kind, Operation, Place, Question, Spot
from stsfs.vfs.nodes import Directory, File, Node
from stsfs.vfs.writable import Writable, WritableLocation


class Asking:
    """Raises what the rules of the locations of one mount say no with."""

    def __init__(self, writable: Writable) -> None:
        self._locations: Mapping[int, WritableLocation] = writable.locations
        self._way = writable.way

    def of_name(
        self,
        operation: Operation,
        parent: Directory,
        name: bytes,
        *,
        kind: Kind = "file",
        mode: int | None = None,
    ) -> None:
        """May something of this name be made in a directory?"""
        at = self._spot(parent, name)
        check(Question(operation=operation, at=at, kind=kind, mode=mode))

    def of_node(
        self,
        operation: Operation,
        node: Node,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        uid: int | None = None,
        gid: int | None = None,
    ) -> None:
        """May a file or directory that is there be changed or removed?"""
        check(
            Question(
                operation=operation,
                at=self._of(node),
                kind=self._kind(node),
                mode=mode,
                owner=owner,
                uid=uid,
                gid=gid,
            )
        )

    def of_rename(
        self,
        node: Node,
        parent: Directory,
        name: bytes,
        *,
        below_bytes: int = 0,
        exchange: bool = False,
    ) -> None:
        """May a file or directory get another name? below_bytes: see Question."""
        check(
            Question(
                operation="exchange" if exchange else "rename",
                at=self._of(node),
                kind=self._kind(node),
                to=self._spot(parent, name),
                below_bytes=below_bytes,
            )
        )

    def _of(self, node: Node) -> Spot:
        if self._kind(node) in ("root", "way") or node.parent is None:
            assert isinstance(node, Directory)
            return Spot(self._place(node), node.prefix)
        return self._spot(node.parent, node.name)

    def _spot(self, parent: Directory, name: bytes) -> Spot:
        return Spot(self._place(parent), parent.prefix, name)

    def _place(self, directory: Directory) -> Place:
        location = self._locations.get(directory.site.location_id)
        return self._way if location is None else location.place

    def _kind(self, node: Node) -> Kind:
        if isinstance(node, File):
            return "file"
        if node.site.location_id not in self._locations:
            return "way"
        return "root" if node.is_site_root else "directory"
