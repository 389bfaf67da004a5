"""All parts of the entities view of one location, and their lifetimes."""

from dataclasses import asdict
from typing import Any

import trio

from stsfs.entities.bulk import EntityViewSource
from stsfs.entities.filler import Filler
from stsfs.entities.index import EntityIndex
from stsfs.entities.magic import MagicView
from stsfs.entities.moment import PastMoment
from stsfs.entities.nodes import EntityDirectory
from stsfs.entities.objects import Objects, Outside
from stsfs.entities.view import EntityView
from stsfs.store.object_store import ObjectStore
from stsfs.supervisor import contained
from stsfs.synapse.entities import EntityApi
from stsfs.synapse.pace import REQUESTS_MAX, WINDOW_S
from stsfs.synapse.records import ChildHeader
from stsfs.vfs.nodes import ROOT_INODE, Directory, Site, new_number


class EntityLocation:
    """A Synapse folder, ready to be shown. `run` must be running; `close` follows it."""

    def __init__(
        self,
        api: EntityApi,
        index: EntityIndex,
        folder: ChildHeader,
        *,
        location_id: int,
        bucket: str,
        prefix: str,
        store: ObjectStore,
        metadata_ttl_s: float,
        outside: Outside | None = None,
        index_view: str | None = None,
        as_of_unix_s: float | None = None,
    ) -> None:
        """folder is what is mounted; index is owned from here on."""
        self.index = index
        self.source = None if index_view is None else EntityViewSource(api, index, index_view)
        self.filler = Filler(api, index, in_bulk=None if not self.source else self.source.fill)
        self.objects = Objects(location_id, bucket, prefix, store, index, outside=outside)
        moment = None if as_of_unix_s is None else PastMoment(api, as_of_unix_s)
        self.view = EntityView(
            folder.entity_id,
            self.filler,
            self.objects,
            metadata_ttl_s=metadata_ttl_s,
            moment=moment,
        )
        self._folder = folder
        self._site = Site(
            location_id, store, "", modified_ns=int(folder.modified_unix_s * 1e9), view=self.view
        )
        self._metadata_ttl_s = metadata_ttl_s

    def root(self, parent: Directory | None = None, name: bytes = b"") -> EntityDirectory:
        """The directory of the folder, as the root of a mount or within one. To be called once."""
        folder = self._folder
        made = EntityDirectory(
            ROOT_INODE if parent is None else new_number(),
            self._site,
            "",
            parent,
            name,
            entity_id=folder.entity_id,
            changed_ns=int(folder.modified_unix_s * 1e9),
            header=folder,
        )
        magic = MagicView(self.view, made, ttl_s=self._metadata_ttl_s)
        self.view.specials = magic.special
        return made

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fill the index, and take the inventory, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.filler.run)
            where = f"s3://{self.objects.bucket}/{self.objects.prefix}"
            inventory = self.objects.take_inventory
            nursery.start_soon(contained, f"inventory of {where}", inventory)
            task_status.started()

    def close(self) -> None:
        """Give the index back."""
        self.index.close()

    async def status(self) -> dict[str, Any]:
        """How much is known, and where Synapse and the bucket do not agree; JSON values."""
        extent = await self.index.ask(self.index.extent)
        missing = extent.files - extent.files_known + extent.folders - extent.folders_listed
        differences = None
        if self.objects.inventory_unix_s is not None:
            found = await self.index.ask(
                self.index.differences, self.objects.bucket, self.objects.prefix
            )
            differences = {
                "as_of_unix_s": self.objects.inventory_unix_s,
                "missing": found.missing,
                "other_size": found.other_size,
                "unregistered": found.unregistered,
                "named": [each._asdict() for each in found.named],
            }
        return {
            **asdict(extent),
            "complete": self.filler.is_complete,
            "seconds_left": round(missing * WINDOW_S / (0.9 * REQUESTS_MAX), 1),
            "last_error": self.filler.last_error,
            "index_trouble": self.index.trouble,
            "index_view": None if self.source is None else self.source.view_id,
            "index_view_files": None if self.source is None else self.source.files_told,
            "index_view_trouble": (
                None if self.source is None else self.source.trouble or self.source.left_out
            ),
            "differences": differences,
        }
