"""What a mount made with --rw owns beside the rest: staging, uploads, the journal of moves."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import trio

from stsfs.daemon import known_servers, runtime_dir
from stsfs.daemon.config import ConditionalWrites, MountConfig
from stsfs.daemon.machine import descriptor_budget
from stsfs.daemon.notify import ServiceManager
from stsfs.daemon.places import Place, Places
from stsfs.location.rules_place import way_place
from stsfs.staging.attributes import AttributeIndex
from stsfs.staging.directory import StagingDirectory
from stsfs.store.capabilities import set_by_option
from stsfs.store.probing import probe_capabilities
from stsfs.store.s3_writer import S3Writer
from stsfs.supervisor import contained
from stsfs.vfs.writable import Writable, WritableLocation
from stsfs.writer.moves import Mover
from stsfs.writer.recovery import recover_at_mount
from stsfs.writer.wire import LocationName
from stsfs.writer.writing import Pending, Writers

log = logging.getLogger(__name__)

SYNAPSE_ACL = "bucket-owner-full-control"
"""Without it the role behind Synapse's credentials may not put an object.

Source: main-repo-shared-resources-template.json.vpt of Synapse-Stack-Builder.
"""

PATHS_TOLD = 10
FILES_TOLD = 100
PATIENCE_S = 20.0
"""Between two requests to the service manager to wait."""


class Writing:
    """The writing side of one mount. `run` must be running while the vfs is used.

    Blocking when it is made: it opens the staging directory. Raises BadArgument where that is not
    ours, or not on a disk that can be written to.
    """

    def __init__(self, config: MountConfig, places: Places) -> None:
        assert config.staging_dir is not None
        self._config, self._places = config, places
        self._staging = StagingDirectory.open(
            config.staging_dir,
            mount_path=config.mount_path,
            descriptors_max=max(1, descriptor_budget() // 2),
        )
        self._attributes = AttributeIndex(runtime_dir.attribute_index())
        self._writers = {
            place.location_id: object_writer(
                place, conditional_writes=config.conditional_writes, acl=config.acl
            )
            for place in places.all
        }
        self._locations = {place.location_id: self._location(place) for place in places.all}

    def writable(self) -> Writable:
        """What the vfs needs of it."""
        return Writable(
            locations=self._locations,
            way=way_place("this mount", writable=True),
            fsync_publishes=self._config.fsync == "s3",
            rename_limit=self._config.rename_limit,
        )

    async def run(
        self,
        arrived: Callable[[str], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Own uploads until cancelled. Started once moves that were cut short are put right.

        arrived is told the path of each file that an earlier mount had left, when S3 has it.
        """

        async def arrived_at(place: Place, key: str) -> None:
            await arrived("/".join((*place.path, key.removeprefix(place.location.prefix))))

        async with trio.open_nursery() as nursery:
            for each in self._locations.values():
                await nursery.start(each.writers.run)
            self._begin_probes(nursery)
            for place in self._places.all:
                each = self._locations[place.location_id]
                arrived_there = partial(arrived_at, place)
                task = f"recovery of {place.location.label}"
                await contained(task, recover_at_mount, each.writers, each.mover, arrived_there)
            task_status.started()

    def _begin_probes(self, nursery: trio.Nursery) -> None:
        """Find out what the servers do that nobody knows yet, while the mount is in use already."""
        for place in self._places.all:
            known = self._writers[place.location_id].capabilities
            if self._config.conditional_writes == "auto" and known.found_by == "assumption":
                known.begin_probe()
                nursery.start_soon(contained, "the probe of a server", self._probe, place)

    async def _probe(self, place: Place) -> None:
        writer, location = self._writers[place.location_id], place.location
        known, reason = writer.capabilities, "The probe was broken off."
        try:
            reason = await probe_capabilities(writer, location.prefix)
        finally:
            known.end_probe(reason)
        if known.is_known:
            where = (location.uri, location.endpoint_url)
            await trio.to_thread.run_sync(known_servers.remember, known, *where)
        else:
            log.warning("%s: %s (%s)", location.uri, known.two_writers(), known.reason)

    async def drain(self) -> list[Pending]:
        """Upload what is not in S3 yet; returns what could not be, and stays on the local disk."""
        left: list[Pending] = []
        for each in self._locations.values():
            left += await each.writers.drain()
        return left

    def unsaved(self) -> Mapping[str, Any]:
        """The answer to `unsaved`, see `daemon.unmount`."""
        pending = self.pending()
        return {
            "files": len(pending),
            "left_bytes": sum(max(0, each.size_bytes - each.sent_bytes) for each in pending),
            "sent_bytes": sum(
                count.sent_bytes
                for place in self._places.all
                for count in place.store.counters.kinds.values()
            ),
            "paths": [f"/{each.path}" for each in pending[:PATHS_TOLD]],
        }

    def status(self) -> dict[str, object]:
        """JSON values for `stsfs status`: what S3 has not got, and why."""
        pending = self.pending()
        return {
            "staging_dir": str(self._config.staging_dir),
            "fsync": self._config.fsync,
            "files": len(pending),
            "pending": [
                {
                    "path": f"/{each.path}",
                    "size_bytes": each.size_bytes,
                    "sent_bytes": each.sent_bytes,
                    "state": each.state,
                    "reason": each.reason,
                }
                for each in pending[:FILES_TOLD]
            ],
            "servers": [self._server(place) for place in self._places.all],
        }

    def _server(self, place: Place) -> dict[str, object]:
        """What is known of the S3 server of one location, and what that means."""
        writer = self._writers[place.location_id]
        known = writer.capabilities
        return {
            "label": place.location.label,
            "uri": place.location.uri,
            "found_by": known.found_by,
            "reason": known.reason,
            "conditions": dict(known.verdicts),
            "two_writers": known.two_writers(),
            "copies_parts": known.copies_parts,
            "uploads_in_doubt": writer.uploads.in_doubt_count,
        }

    def pending(self) -> list[Pending]:
        """What S3 has not got."""
        return [each for one in self._locations.values() for each in one.writers.pending()]

    def close(self) -> None:
        """Give up the staging directory; what lies there can be recovered from now on. Blocks."""
        self._attributes.close()
        self._staging.close()

    def _location(self, place: Place) -> WritableLocation:
        location = place.location
        name = LocationName(place.location_id, location.uri, location.endpoint_url, location.label)
        writer = self._writers[place.location_id]
        return WritableLocation(
            place=place.rules_place,
            writers=Writers(name, place.store, writer, self._staging),
            mover=Mover(name, place.store, writer, self._staging),
            attributes=self._attributes,
        )


def object_writer(
    place: Place, *, conditional_writes: ConditionalWrites, acl: str | None
) -> S3Writer:
    """What changes objects of one place, under the conditions that hold there.

    With auto, what an earlier probe has found out holds; without one, AWS is believed to honour
    conditions and other servers are not. Blocks: reads a small file.
    """
    location = place.location
    if acl is None:
        acl = SYNAPSE_ACL if location.synapse_id is not None else ""
    writer = place.store.writer(acl=acl, conditions=location.endpoint_url is None)
    if conditional_writes == "auto":
        known_servers.recall(writer.capabilities, location.uri, location.endpoint_url)
    else:
        set_by_option(writer.capabilities, honoured=conditional_writes == "on")
    return writer


async def drain(writing: Writing, manager: ServiceManager) -> None:
    """Upload what is left when nobody writes any more; the service manager waits meanwhile."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ask_for_patience, writing, manager)
        left = await writing.drain()
        nursery.cancel_scope.cancel()
    for each in left:
        log.error("%s has not reached S3, and is kept: %s", each.path, each.reason or each.state)


async def _ask_for_patience(writing: Writing, manager: ServiceManager) -> None:
    """As long as uploads get on, or may yet: they end by a deadline of their own."""
    while True:
        files = writing.unsaved()["files"]
        manager.tell(
            f"EXTEND_TIMEOUT_USEC={2 * PATIENCE_S * 10**6:.0f}",
            "WATCHDOG=1",
            f"STATUS=uploading {files} files",
        )
        await trio.sleep(PATIENCE_S)
