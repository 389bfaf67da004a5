"""The answer to `stsfs status`: the numbers of one mount, as JSON values."""

import os
import time
from dataclasses import asdict, dataclass

from stsfs.cache.block_cache import BlockCache
from stsfs.credentials.lease import CredentialLease
from stsfs.daemon.config import MountConfig
from stsfs.fuse.kernel_limits import KernelLimits
from stsfs.location.location import Location
from stsfs.store.s3_store import S3Store
from stsfs.vfs.refusals import Refusals
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs

ERRORS_SHOWN = 10
_STARTED_UNIX_S = time.time()


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
    limits: KernelLimits

    def answer(self) -> dict[str, object]:
        """Everything, with units in the names."""
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
            "throttled": store.throttled,
            "connections_opened": store.connections_opened,
            "cache": {
                "block_bytes": pool.block_bytes,
                "budget_bytes": pool.blocks_max * pool.block_bytes,
                "used_bytes": pool.used_bytes,
                "pinned_blocks": pool.pinned_count,
                **asdict(cache),
            },
            "hidden": {"count": self.tree.hidden_count},
            "tuning": asdict(self.limits),
            "errors": [
                {"path": r.path, "operation": r.operation, "errno": r.errno_name,
                 "sentence": r.sentence, "remedy": r.remedy, "when": r.at_unix_s}
                for r in self.refusals.last(ERRORS_SHOWN)
            ],
        }  # fmt: skip
