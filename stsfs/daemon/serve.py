"""One mount from first byte to last: builds the parts, owns their lifetimes."""

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import trio

from stsfs import __version__
from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.cache.disk.directory import CacheDirectory
from stsfs.cache.disk.disk_cache import DiskCache
from stsfs.cache.disk.tier import DiskTier
from stsfs.credentials.credentials import Credentials, CredentialSource
from stsfs.credentials.lease import CredentialLease
from stsfs.daemon import machine, runtime_dir
from stsfs.daemon.config import MountConfig
from stsfs.daemon.control import serve_control
from stsfs.daemon.garbage import collect_when_idle
from stsfs.daemon.logs import register_secret
from stsfs.daemon.notify import ServiceManager
from stsfs.daemon.pressure import PressureWatch
from stsfs.daemon.questions import Questions
from stsfs.daemon.runtime_dir import MountRecord
from stsfs.daemon.status import Status
from stsfs.daemon.watchdog import answers, keep_status, keep_watchdog, status_line
from stsfs.fuse.kernel_cache import KernelCache
from stsfs.fuse.kernel_limits import READ_AHEAD_KIB, KernelLimits, raise_read_ahead
from stsfs.fuse.operations import Appearance, Operations
from stsfs.fuse.session import MAX_BACKGROUND, Session
from stsfs.fuse.xattrs import Origin, XattrOperations
from stsfs.location.parse import parse_target
from stsfs.location.resolve import Resolved, ResolveOptions, resolve
from stsfs.store.s3_store import S3Store
from stsfs.vfs.inspector import Inspector
from stsfs.vfs.nodes import Site
from stsfs.vfs.refusals import Refusals
from stsfs.vfs.tree import Tree
from stsfs.vfs.vfs import Vfs

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 64

SITE_ID = 1
"""The number of the one location that a mount shows."""


def serve_mount(config: MountConfig, manager: ServiceManager, ready: Callable[[], None]) -> int:
    """Mount, serve until unmounted or told to stop, and return the exit code.

    Calls ready once the mount answers. Raises StsfsError when it cannot be made; then nothing is
    left behind.
    """
    return trio.run(_serve, config, manager, ready)


class _Discreet:
    """A credential source whose secrets the log knows to hide, from the moment they exist."""

    def __init__(self, source: CredentialSource, first: Credentials) -> None:
        self._source = source
        _hide(first)

    @property
    def description(self) -> str:
        return self._source.description

    async def fetch(self) -> Credentials:
        fetched = await self._source.fetch()
        _hide(fetched)
        return fetched


def _hide(credentials: Credentials) -> None:
    register_secret(credentials.secret_access_key)
    register_secret(credentials.session_token)


async def _serve(config: MountConfig, manager: ServiceManager, ready: Callable[[], None]) -> int:
    options = ResolveOptions(
        profile=config.aws_profile,
        region=config.region,
        endpoint_url=config.endpoint_url,
        token_file=config.token_file,
        synapse_profile=config.synapse_profile,
        synapse_endpoint=config.synapse_endpoint,
        whole_bucket=config.whole_bucket,
    )
    resolved = await resolve(parse_target(config.location), options=options)
    try:
        for warning in resolved.warnings:
            log.warning("%s", warning)
        await _Mount(config, resolved, manager).serve(ready)
    finally:
        with trio.CancelScope(shield=True):
            await resolved.aclose()
    return 0


class _Mount:
    """The parts of one mount."""

    def __init__(self, config: MountConfig, resolved: Resolved, manager: ServiceManager) -> None:
        self._config, self._manager = config, manager
        self._location = location = resolved.location
        self._lease = CredentialLease(
            _Discreet(resolved.source, resolved.first), first=resolved.first
        )
        self._store = S3Store(
            location.bucket,
            self._lease,
            region=location.region,
            endpoint_url=location.endpoint_url,
            connections_max=config.connections_max or CONNECTIONS_MAX,
            deadline_s=config.deadline_s,
            user_agent=f"stsfs/{__version__}",
        )
        pool = BlockPool(
            budget_bytes=config.memory_bytes or machine.default_budget_bytes(),
            block_bytes=config.block_bytes or machine.BLOCK_BYTES,
        )
        self._disk = self._make_disk(pool)
        self._pressure = PressureWatch(
            pool,
            fixed_bytes=config.memory_bytes,
            give_way=None if self._disk is None else self._disk.writer.give_way,
        )
        self._cache = BlockCache(pool, self._store, self._disk)
        site = Site(SITE_ID, self._store, location.prefix, location.reserved_names, time.time_ns())
        self._tree = Tree(site, metadata_ttl_s=config.metadata_ttl_s)
        self._vfs = Vfs(self._tree, self._cache, trust_listings=config.consistency == "ttl")
        self._refusals = Refusals()
        self._inspector = Inspector(self._tree, self._cache, self._vfs)
        self._operations = self._make_operations(Appearance(config.uid, config.gid, config.umask))
        self._session = Session(str(config.mount_path))
        self._limits = KernelLimits(max_background=MAX_BACKGROUND)

    async def serve(self, ready: Callable[[], None]) -> None:
        """Serve until unmounted or told to stop.

        Lifetimes, outermost first: what fetches (lease, cache, tree), signals, the kernel session,
        who may ask (control socket), what the service manager hears. After a failure the mount
        stays, dead, except before it was ready.
        """
        async with trio.open_nursery() as background:
            await background.start(self._lease.keep_fresh)
            if self._disk is not None:
                await background.start(self._disk.writer.run)
            await background.start(self._cache.run)
            await background.start(self._pressure.run)
            await background.start(self._tree.run)
            background.start_soon(collect_when_idle, lambda: self._operations.served)
            # Whether the location can be listed at all is better said now than by the first `ls`.
            await self._tree.listing(self._tree.inodes.root)
            # From before the mount: a signal in between would leave a dead one.
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                await self._session.mount(self._mount_options())
                try:
                    await self._session.negotiate(self._operations)
                    await self._serve_kernel(signals, ready)
                except BaseException:
                    if not self._answered:
                        self._session.abandon()
                    raise
                finally:
                    self._session.close()
            background.cancel_scope.cancel()
        self._store.close()

    def _make_operations(self, appearance: Appearance) -> Operations:
        deadline_s = self._config.deadline_s
        if not self._config.xattrs:
            return Operations(self._vfs, self._refusals, appearance, deadline_s=deadline_s)
        return XattrOperations(
            self._vfs,
            self._refusals,
            appearance,
            deadline_s=deadline_s,
            inspector=self._inspector,
            origin=Origin(self._location.label, self._location.bucket),
        )

    def _make_disk(self, pool: BlockPool) -> DiskTier | None:
        if self._config.cache_dir is None:
            return None
        directory = CacheDirectory.of_user(self._config.cache_dir)
        disk = DiskCache(directory, limit_bytes=self._config.cache_bytes)
        site = f"{self._location.endpoint_url or 'aws'}/{self._location.bucket}"
        return DiskTier(disk, self._store, {SITE_ID: site}, pool)

    _answered = False

    async def _serve_kernel(self, signals: AsyncIterator[int], ready: Callable[[], None]) -> None:
        async with trio.open_nursery() as serving:
            serving.start_soon(self._until_unmounted, serving.cancel_scope)
            serving.start_soon(self._answer_nobody)
            serving.start_soon(self._stop_on_signal, signals)
            await self._raise_kernel_limits()
            record = self._record()
            handlers = self._questions().handlers()
            handlers |= {"status": self._status, "unmount": self._unmount}
            await serving.start(serve_control, record.control_socket, handlers)
            runtime_dir.write_record(record)
            try:
                self._answered = True
                ready()
                serving.start_soon(keep_status, self._manager, self._status_line)
                serving.start_soon(keep_watchdog, self._manager, self._answers)
                log.info("%s is mounted on %s", self._location.uri, self._config.mount_path)
                await trio.sleep_forever()
            finally:
                runtime_dir.remove_record(record)

    def _status_line(self) -> str:
        return status_line(
            self._location.label, self._lease.status(), open_files=self._vfs.open_files
        )

    async def _answers(self, timeout_s: float) -> bool:
        return await answers(self._config.mount_path, timeout_s=timeout_s)

    async def _until_unmounted(self, serving: trio.CancelScope) -> None:
        await self._session.serve()
        self._manager.tell("STOPPING=1")
        log.info("%s is no longer mounted", self._config.mount_path)
        serving.cancel()

    async def _stop_on_signal(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            log.info("got %s, unmounting", signal.Signals(number).name)
            await self._end()

    async def _answer_nobody(self) -> None:
        await self._session.let_go()
        self._operations.cut_short()

    async def _end(self) -> None:
        await self._session.unmount()
        self._operations.cut_short()
        self._session.stop()

    async def _raise_kernel_limits(self) -> None:
        wanted_kib = self._config.read_ahead_kib
        if wanted_kib is None:
            wanted_kib = READ_AHEAD_KIB
        if wanted_kib:
            path = str(self._config.mount_path)
            await trio.to_thread.run_sync(raise_read_ahead, path, wanted_kib, self._limits)

    def _questions(self) -> Questions:
        return Questions(
            self._location,
            self._inspector,
            self._refusals,
            self._lease,
            KernelCache(self._session.duplicate),
            None if self._disk is None else self._disk.held_bytes,
        )

    async def _status(self, request: dict[str, object]) -> dict[str, object]:
        return Status(
            self._config,
            self._location,
            self._lease,
            self._store,
            self._cache,
            self._tree,
            self._vfs,
            self._refusals,
            self._inspector,
            self._limits,
            self._pressure,
            self._disk,
        ).answer(with_hidden=bool(request.get("hidden")))

    async def _unmount(self, request: dict[str, object]) -> dict[str, object]:
        await self._end()
        return {}

    def _record(self) -> MountRecord:
        path = self._config.mount_path
        return MountRecord(
            location=self._location.label,
            uri=self._location.uri,
            mount_path=path,
            pid=os.getpid(),
            control_socket=runtime_dir.control_socket(path),
            started_at_unix_s=time.time(),
            log_file=self._config.log_file,
        )

    def _mount_options(self) -> list[str]:
        """For fusermount3; `ro` lets the kernel itself refuse every change with EROFS."""
        # As typed, because mount(8) looks for the first field of a line in fstab.
        source = self._config.location.replace("\\", "\\\\").replace(",", "\\,")
        options = ["ro", "nosuid", "nodev", "default_permissions", "subtype=stsfs"]
        if self._config.allow_other:
            options.append("allow_other")
        return [*options, f"fsname={source}"]
