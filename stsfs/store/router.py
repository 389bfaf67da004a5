"""One ObjectStore for the objects of several locations."""

from collections.abc import Mapping

from stsfs.errors import StoreFailure
from stsfs.store.object_store import ListPage, ObjectStore, ObjectVersion, RangeSink


class StoreRouter:
    """Sends each request to the store of its version's location; raises what that raises.

    A version of a location that was never added is a bug of the caller (KeyError).
    """

    def __init__(self, stores: Mapping[int, ObjectStore]) -> None:
        self._stores = dict(stores)

    def add(self, location_id: int, store: ObjectStore) -> None:
        """From now on location_id is known; it must not have been before."""
        assert location_id not in self._stores
        self._stores[location_id] = store

    async def read_range(
        self, version: ObjectVersion, start: int, stop: int, sink: RangeSink, *, ahead: bool = False
    ) -> None:
        """See ObjectStore."""
        store = self._stores[version.location_id]
        await store.read_range(version, start, stop, sink, ahead=ahead)

    async def confirm(self, version: ObjectVersion) -> None:
        """See ObjectStore."""
        await self._stores[version.location_id].confirm(version)

    async def list_page(
        self,
        prefix: str,
        *,
        token: str | None = None,
        start_after: str = "",
        keys_max: int = 1000,
        delimiter: str = "/",
    ) -> ListPage:
        """Raises StoreFailure: a prefix does not say of which location it is."""
        raise StoreFailure(f"Cannot list {prefix!r} without knowing of which location.")
