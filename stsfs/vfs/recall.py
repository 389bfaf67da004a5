"""Modes and times that were set here, for the nodes that pages of a bucket show."""

from collections.abc import Mapping

import trio

from stsfs.staging.attribute_rows import Attributes
from stsfs.staging.attributes import AttributeIndex
from stsfs.store.object_store import ListPage
from stsfs.vfs.nodes import Directory, File, Node
from stsfs.vfs.writable import Writable

LocationKey = tuple[str, str | None]
"""URI and endpoint URL, as the index knows a location, whoever mounts it."""

_NONE: Mapping[str, Attributes] = {}


class Recall:
    """The attribute index, for the locations of one mount. Raises nothing."""

    def __init__(self, indexes: Mapping[int, tuple[AttributeIndex, LocationKey]]) -> None:
        """indexes are by location id; a location without one forgets."""
        self._indexes = indexes

    @classmethod
    def of(cls, writable: Writable) -> "Recall":
        """That of all locations which have an index."""
        return cls(
            {
                number: (
                    each.attributes,
                    (each.writers.location.uri, each.writers.location.endpoint_url),
                )
                for number, each in writable.locations.items()
                if each.attributes is not None
            }
        )

    async def of_page(self, directory: Directory, page: ListPage) -> Mapping[str, Attributes]:
        """What is remembered of the keys and prefixes of a page, by key; one query."""
        # The marker of the directory itself comes first, and belongs to the directory above.
        objects = [o for o in (*page.objects[:2], *page.objects[-1:]) if o.key != directory.prefix]
        names = [*(o.key for o in objects), *page.prefixes[:1], *page.prefixes[-1:]]
        if not names or (found := self._of(directory)) is None:
            return _NONE
        index, location = found
        names.sort(key=str.encode)
        return await trio.to_thread.run_sync(index.of_keys, location, names[0], names[-1])

    def note(self, node: Node) -> None:
        """Remember the mode and time of a node, of the version that it has."""
        if (found := self._of(node)) is None:
            return
        index, location = found
        if isinstance(node, Directory):
            index.put(location, node.prefix, "", mode=node.mode, mtime_ns=node.own_modified_ns)
        elif node.version is not None:
            version = node.version
            index.put(
                location, version.key, version.etag, mode=node.mode, mtime_ns=node.modified_ns
            )

    def forget(self, node: Node, key: str) -> None:
        """A key is gone: of a file, or of a directory, with its slash."""
        if (found := self._of(node)) is not None:
            found[0].forget(found[1], key)

    def moved(self, node: Node, old_key: str, new_key: str, new_etag: str) -> None:
        """An object has another key now."""
        if (found := self._of(node)) is not None:
            found[0].move(found[1], old_key, new_key, new_etag)

    def moved_prefix(self, directory: Directory, old_prefix: str, new_prefix: str) -> None:
        """All below a prefix is below another one now."""
        if (found := self._of(directory)) is not None:
            found[0].move_prefix(found[1], old_prefix, new_prefix)

    def _of(self, node: Node) -> tuple[AttributeIndex, LocationKey] | None:
        directory = node.parent if isinstance(node, File) else node
        return self._indexes.get(directory.site.location_id)
