"""The locations of one mount, open for reading, and put together to one tree (see `opening`)."""

import time
from dataclasses import dataclass

import trio

from stsfs import __version__
from stsfs.credentials.lease import CredentialLease
from stsfs.daemon.config import PlaceOptions
from stsfs.daemon.locks import LockTarget
from stsfs.entities.choose import MANAGED, Choice
from stsfs.entities.location import EntityLocation
from stsfs.entities.lock_view import LockSource, LockView
from stsfs.location.location import Location
from stsfs.location.parse import Target
from stsfs.location.resolve import Resolved, SynapseAccess
from stsfs.location.rules_place import rules_place
from stsfs.rules import question as rules
from stsfs.store.presigned_store import PresignedStore
from stsfs.store.router import StoreRouter
from stsfs.store.s3_store import S3Store
from stsfs.vfs.nodes import ROOT_INODE, Directory, Site, new_number
from stsfs.vfs.static_view import StaticView

CONNECTIONS_MAX = 64
OUTSIDE_ID = 0
"""The location of what Synapse signs URLs for, file by file."""

NOT_SYNAPSE = Choice("keys", "it is a place in S3, of which Synapse knows nothing")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A location, and where in the mount it is to be shown."""

    target: Target
    path: tuple[str, ...]
    resolved: Resolved
    lock: LockTarget | None = None
    """Set where only the versions of a lock are wanted."""


class Place:
    """One location of a mount: who may read it, from where, and what is shown of it."""

    def __init__(self, wanted: Wanted, location_id: int, config: PlaceOptions) -> None:
        self.path, self.location_id = wanted.path, location_id
        self.location: Location = wanted.resolved.location
        self.choice = NOT_SYNAPSE
        self.entities: EntityLocation | None = None
        self.lock: LockSource | None = None
        self._config = config
        first = wanted.resolved.first
        self.lease = CredentialLease(wanted.resolved.source, first=first)
        self.store = S3Store(
            self.location.bucket,
            self.lease,
            region=self.location.region,
            endpoint_url=self.location.endpoint_url,
            connections_max=config.connections_max or CONNECTIONS_MAX,
            deadline_s=config.deadline_s,
            user_agent=f"stsfs/{__version__}",
        )

    @property
    def disk_name(self) -> str:
        """What the disk cache knows the location by, whoever mounts it."""
        return f"{self.location.endpoint_url or 'aws'}/{self.location.bucket}"

    @property
    def rules_place(self) -> rules.Place:
        """What the rules want to know of it, once its view is chosen."""
        return rules_place(
            self.location,
            shown=self.choice.view,
            writable=self._config.rw,
            whole_bucket=self._config.whole_bucket,
            managed=True if self.choice == MANAGED else None,
        )

    def root(self, parent: Directory | None = None) -> Directory:
        """The directory that shows it: the root of the mount, or below parent. Called once."""
        name = self.path[-1].encode() if parent is not None else b""
        if self.entities is not None:
            return self.entities.root(parent, name)
        if self.lock is not None:
            return LockView(self.lock, parent, name).root
        location = self.location
        site = Site(
            self.location_id,
            self.store,
            location.prefix,
            location.reserved_names,
            time.time_ns(),
        )
        number = ROOT_INODE if parent is None else new_number()
        return Directory(number, site, location.prefix, parent, name)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own what renews and fills, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.lease.keep_fresh)
            if self.entities is not None:
                await nursery.start(self.entities.run)
            task_status.started()

    def close(self) -> None:
        """Give connections and files back."""
        self.store.close()
        if self.entities is not None:
            self.entities.close()
        if self.lock is not None:
            self.lock.close()


class Places:
    """All locations of a mount. `aclose` when nothing is read any more."""

    def __init__(self, synapse: SynapseAccess | None) -> None:
        self.synapse = synapse
        self.all: list[Place] = []
        self.outside: PresignedStore | None = None

    @property
    def router(self) -> StoreRouter:
        """Where the bytes of every version come from."""
        stores = {place.location_id: place.store for place in self.all}
        router = StoreRouter(dict(stores))
        if self.outside is not None:
            router.add(OUTSIDE_ID, self.outside)
        return router

    @property
    def disk_names(self) -> dict[int, str]:
        """What the disk cache knows the locations by."""
        names = {place.location_id: place.disk_name for place in self.all}
        if self.synapse is not None:
            names[OUTSIDE_ID] = f"synapse/{self.synapse.client.host}"
        return names

    def root(self) -> Directory:
        """The root of the tree. Called once."""
        if not self.all[0].path:
            return self.all[0].root()
        site = Site(OUTSIDE_ID, self.router, "", modified_ns=time.time_ns())
        static = StaticView(site)
        for place in self.all:
            parent = static.root
            for name in place.path[:-1]:
                parent = static.add_directory(parent, name.encode())
            static.add(place.root(parent))
        return static.root

    async def aclose(self) -> None:
        """Close everything; waits for nobody."""
        for place in self.all:
            place.close()
        if self.outside is not None:
            self.outside.close()
        if self.synapse is not None:
            with trio.CancelScope(shield=True):
                await self.synapse.aclose()
