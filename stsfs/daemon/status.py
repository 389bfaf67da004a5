"""The answer to `stsfs status`: the numbers of one mount, as JSON values."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Protocol

from stsfs.cache.block_cache import BlockCache
from stsfs.daemon.config import MountConfig
from stsfs.daemon.places import Place, Places
from stsfs.daemon.pressure import PressureWatch
from stsfs.daemon.prices import cost, own_prices
from stsfs.daemon.questions import refusal_record
from stsfs.daemon.writing import Writing
from stsfs.fuse.kernel_limits import KernelLimits
from stsfs.redaction import redact
from stsfs.store.counters import KindCount, StoreCounters
from stsfs.supervisor import BUGS
from stsfs.vfs.inspector import Inspector
from stsfs.vfs.nodes import path_of
from stsfs.vfs.reader import DirectReader
from stsfs.vfs.refusals import Refusals
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import FileHandle, Vfs

ERRORS_SHOWN = 10
HANDLES_SHOWN = 20
HIDDEN_SHOWN = 1000
_STARTED_UNIX_S = time.time()


class DiskCacheStatus(Protocol):
    """What tells about the cache on disk."""

    def status(self) -> dict[str, object]:
        """JSON values; `hit_bytes` and `miss_bytes` among them."""


@dataclass(frozen=True, slots=True)
class Status:
    """The parts that have something to tell."""

    config: MountConfig
    places: Places
    cache: BlockCache
    tree: Tree
    vfs: Vfs
    refusals: Refusals
    inspector: Inspector
    limits: KernelLimits
    pressure: PressureWatch
    disk_cache: DiskCacheStatus | None = None
    writing: Writing | None = None

    async def answer(self, *, with_hidden: bool = False) -> dict[str, object]:
        """Everything, with units in the names; hidden keys by name only when asked for."""
        first = self.places.all[0]
        cache, pool = self.cache.counters, self.cache.pool
        stores = [place.store.counters for place in self.places.all]
        kinds = _sum_of_kinds(stores)
        return {
            "location": self.config.location,
            "uri": first.location.uri,
            "region": first.store.region,
            "view": first.choice.view,
            "view_reason": first.choice.why,
            "as_of": self.config.as_of,
            "locations": [await _place(place) for place in self.places.all],
            "synapse_requests": self._synapse(),
            "mode": "read-only" if self.writing is None else "read-write",
            "consistency": self.config.consistency,
            "metadata_ttl_s": self.config.metadata_ttl_s,
            "mount_path": str(self.config.mount_path),
            "pid": os.getpid(),
            "uptime_s": round(time.time() - _STARTED_UNIX_S, 1),
            "open_files": self.vfs.open_files,
            "inodes": len(self.tree.inodes),
            "credentials": _credentials(first),
            "requests": {
                kind: {"count": n.requests, "bytes": n.received_bytes, "sent_bytes": n.sent_bytes,
                       "retries": n.retries, "failures": n.failures}
                for kind, n in sorted(kinds.items())
            },
            "cost": self._cost(kinds),
            "throttled": sum(store.throttled for store in stores),
            "connections_opened": sum(store.connections_opened for store in stores),
            "cache": {
                "block_bytes": pool.block_bytes,
                **self.pressure.status(),
                "used_bytes": pool.held_bytes,
                "pinned_blocks": pool.pinned_count,
                "hit_rate": _rate(cache.hit_bytes, cache.miss_bytes),
                **asdict(cache),
            },
            "names": {
                "held_bytes": self.tree.names_bytes,
                "limit_bytes": self.pressure.names_limit_bytes,
                "listed_bytes": self.tree.listed.held_bytes,
                "known_to_kernel_bytes": self.tree.inodes.held_bytes,
            },
            "disk_cache": None if self.disk_cache is None else self.disk_cache.status(),
            "writing": None if self.writing is None else self.writing.status(),
            "handles": [
                _handle(each) for each in self.vfs.open_handles()[:HANDLES_SHOWN]
            ],
            "hidden": self._hidden() if with_hidden else {"count": self.tree.hidden_count},
            "tuning": asdict(self.limits),
            "bugs": self._bugs(),
            "errors": [refusal_record(each) for each in self.refusals.last(ERRORS_SHOWN)],
        }  # fmt: skip

    def _bugs(self) -> dict[str, object]:
        """Exceptions that nobody expected, newest first, without secrets."""
        log_file = self.config.log_file
        return {
            "count": BUGS.count,
            "log_file": None if log_file is None else str(log_file),
            "latest": [
                {"when_unix_s": bug.unix_s, "task": redact(bug.task), "text": redact(bug.text)}
                for bug in reversed(BUGS.latest)
            ],
        }

    def _hidden(self) -> dict[str, object]:
        count = self.tree.hidden_count
        keys = [
            {"key": key, "reason": reason}
            for key, reason in islice(self.inspector.hidden(), HIDDEN_SHOWN)
        ]
        return {"count": count, "keys": keys, "more": count - len(keys)}

    def _synapse(self) -> dict[str, object] | None:
        """Requests to Synapse; None for a mount that makes none."""
        synapse = self.places.synapse
        return None if synapse is None else asdict(synapse.client.requests)

    def _cost(self, kinds: Mapping[str, KindCount]) -> dict[str, object] | None:
        """None for another store than Amazon's whose prices nobody told us."""
        table = self.config.prices
        if table is None and self.places.all[0].location.endpoint_url is None:
            table = own_prices()
        return None if table is None else cost(kinds, table)


async def _place(place: Place) -> dict[str, object]:
    """One location: where it is, what is shown of it, and how much of that is known."""
    return {
        "label": place.location.label,
        "path": "/" + "/".join(place.path),
        "uri": place.location.uri,
        "region": place.store.region,
        "view": place.choice.view,
        "view_reason": place.choice.why,
        "credentials": _credentials(place),
        "entities": None if place.entities is None else await place.entities.status(),
    }


def _credentials(place: Place) -> dict[str, object]:
    lease = place.lease.status()
    return {
        "source": lease.source,
        "in_force": lease.in_force,
        "seconds_left": lease.seconds_left,
        "renewals": lease.renewals,
        "failures": lease.failures,
        "last_error": lease.last_error,
    }


def _handle(handle: FileHandle) -> dict[str, object]:
    """An open file, and what is read of it in sequence, most recently used first."""
    return {
        "path": path_of(handle.file),
        "size_bytes": handle.file.size_bytes,
        "direct": isinstance(handle.reader, DirectReader),
        "streams": [
            {
                "position": stream.position,
                "window_bytes": stream.window_bytes,
                "ahead_bytes": max(0, stream.ahead - stream.position),
            }
            for stream in reversed(handle.reader.streams)
        ],
    }


def _sum_of_kinds(stores: Sequence[StoreCounters]) -> dict[str, KindCount]:
    """Requests of all stores, by kind."""
    total = StoreCounters()
    for store in stores:
        for kind, count in store.kinds.items():
            into = total.of(kind)
            into.requests += count.requests
            into.received_bytes += count.received_bytes
            into.sent_bytes += count.sent_bytes
            into.retries += count.retries
            into.failures += count.failures
    return total.kinds


def _rate(hits: int, misses: int) -> float | None:
    """The share of hits, 0 to 1; None when there was nothing to hit."""
    return round(hits / (hits + misses), 4) if hits + misses else None
