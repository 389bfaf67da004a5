"""The answer to `stsfs status`: the numbers of one mount, as JSON values."""

import os
import time
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Protocol

from stsfs.cache.block_cache import BlockCache
from stsfs.credentials.lease import CredentialLease
from stsfs.daemon.config import MountConfig
from stsfs.daemon.pressure import PressureWatch
from stsfs.daemon.prices import cost, own_prices
from stsfs.daemon.questions import refusal_record
from stsfs.fuse.kernel_limits import KernelLimits
from stsfs.location.location import Location
from stsfs.store.s3_store import S3Store
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
    location: Location
    lease: CredentialLease
    store: S3Store
    cache: BlockCache
    tree: Tree
    vfs: Vfs
    refusals: Refusals
    inspector: Inspector
    limits: KernelLimits
    pressure: PressureWatch
    disk_cache: DiskCacheStatus | None = None

    def answer(self, *, with_hidden: bool = False) -> dict[str, object]:
        """Everything, with units in the names; hidden keys by name only when asked for."""
        lease = self.lease.status()
        cache, pool = self.cache.counters, self.cache.pool
        store = self.store.counters
        return {
            "location": self.location.label,
            "uri": self.location.uri,
            "region": self.store.region,
            "mode": "read-only",
            "consistency": self.config.consistency,
            "metadata_ttl_s": self.config.metadata_ttl_s,
            "mount_path": str(self.config.mount_path),
            "pid": os.getpid(),
            "uptime_s": round(time.time() - _STARTED_UNIX_S, 1),
            "open_files": self.vfs.open_files,
            "inodes": len(self.tree.inodes),
            "credentials": {
                "source": lease.source,
                "in_force": lease.in_force,
                "seconds_left": lease.seconds_left,
                "renewals": lease.renewals,
                "failures": lease.failures,
                "last_error": lease.last_error,
            },
            "requests": {
                kind: {"count": n.requests, "bytes": n.received_bytes, "retries": n.retries,
                       "failures": n.failures}
                for kind, n in sorted(store.kinds.items())
            },
            "cost": self._cost(),
            "throttled": store.throttled,
            "connections_opened": store.connections_opened,
            "cache": {
                "block_bytes": pool.block_bytes,
                **self.pressure.status(),
                "used_bytes": pool.held_bytes,
                "pinned_blocks": pool.pinned_count,
                "hit_rate": _rate(cache.hit_bytes, cache.miss_bytes),
                **asdict(cache),
            },
            "disk_cache": None if self.disk_cache is None else self.disk_cache.status(),
            "handles": [
                _handle(each) for each in self.vfs.open_handles()[:HANDLES_SHOWN]
            ],
            "hidden": self._hidden() if with_hidden else {"count": self.tree.hidden_count},
            "tuning": asdict(self.limits),
            "errors": [refusal_record(each) for each in self.refusals.last(ERRORS_SHOWN)],
        }  # fmt: skip

    def _hidden(self) -> dict[str, object]:
        count = self.tree.hidden_count
        keys = [
            {"key": key, "reason": reason}
            for key, reason in islice(self.inspector.hidden(), HIDDEN_SHOWN)
        ]
        return {"count": count, "keys": keys, "more": count - len(keys)}

    def _cost(self) -> dict[str, object] | None:
        """None for another store than Amazon's whose prices nobody told us."""
        table = self.config.prices
        if table is None and self.location.endpoint_url is None:
            table = own_prices()
        return None if table is None else cost(self.store.counters.kinds, table)


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


def _rate(hits: int, misses: int) -> float | None:
    """The share of hits, 0 to 1; None when there was nothing to hit."""
    return round(hits / (hits + misses), 4) if hits + misses else None
