"""One mount from first byte to last: builds the parts, owns their lifetimes."""

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import trio

from stsfs.cache.block_cache import BlockCache
from stsfs.cache.block_pool import BlockPool
from stsfs.cache.disk.cache_key import kept_key
from stsfs.cache.disk.directory import CacheDirectory
from stsfs.cache.disk.disk_cache import DiskCache
from stsfs.cache.disk.tier import DiskTier
from stsfs.daemon import machine, mountinfo, runtime_dir, staging_dirs
from stsfs.daemon.config import MountConfig
from stsfs.daemon.control import serve_control
from stsfs.daemon.garbage import collect_when_idle
from stsfs.daemon.mount_point import check_in_place, clear_stray_mounts, confirm_mounted
from stsfs.daemon.notify import ServiceManager
from stsfs.daemon.opening import open_places
from stsfs.daemon.places import Places
from stsfs.daemon.pressure import PressureWatch
from stsfs.daemon.questions import Questions
from stsfs.daemon.runtime_dir import MountRecord
from stsfs.daemon.status import Status
from stsfs.daemon.watchdog import answers, keep_status, keep_watchdog, status_line
from stsfs.daemon.writing import Writing, drain
from stsfs.errors import StsfsError
from stsfs.fuse.kernel_cache import KernelCache
from stsfs.fuse.kernel_limits import READ_AHEAD_KIB, KernelLimits, raise_read_ahead
from stsfs.fuse.mount_point import MountOptions, MountPoint
from stsfs.fuse.operations import Appearance, Operations
from stsfs.fuse.session import MAX_BACKGROUND, Session
from stsfs.fuse.workers import limit_heap
from stsfs.fuse.write_operations import WriteOperations
from stsfs.fuse.xattrs import Origin, Xattrs
from stsfs.store.object_store import ObjectStore
from stsfs.supervisor import contained, kept_running
from stsfs.vfs.inspector import Inspector
from stsfs.vfs.refusals import Refusals
from stsfs.vfs.tree import Tree
from stsfs.vfs.verifying import Verification
from stsfs.vfs.vfs import Vfs
from stsfs.vfs.writing import WritingVfs

log = logging.getLogger(__name__)


def serve_mount(
    config: MountConfig, point: MountPoint, manager: ServiceManager, ready: Callable[[], None]
) -> int:
    """Mount on the point, serve until unmounted or told to stop, and return the exit code.

    Calls ready once the mount answers. Raises StsfsError when it cannot be made; then nothing is
    left behind.
    """
    machine.raise_descriptor_limit()
    limit_heap()
    return trio.run(_serve, config, point, manager, ready)


async def _serve(
    config: MountConfig, point: MountPoint, manager: ServiceManager, ready: Callable[[], None]
) -> int:
    places = await open_places(config)
    try:
        key = await kept_key(runtime_dir.cache_key()) if config.cache_dir is not None else b""
        mount = _Mount(config, point, places, manager, key)
        try:
            await mount.serve(ready)
        finally:
            mount.close()
    finally:
        await places.aclose()
    return 0


class _Mount:
    """The parts of one mount."""

    def __init__(
        self,
        config: MountConfig,
        point: MountPoint,
        places: Places,
        manager: ServiceManager,
        cache_key: bytes,
    ) -> None:
        self._config, self._places, self._manager = config, places, manager
        self._point = point
        router = places.router
        pool = BlockPool(
            budget_bytes=config.memory_bytes or machine.default_budget_bytes(),
            block_bytes=config.block_bytes or machine.BLOCK_BYTES,
        )
        self._disk = self._make_disk(pool, router, cache_key)
        self._cache = BlockCache(pool, router, self._disk)
        self._tree = Tree(places.root(), metadata_ttl_s=config.metadata_ttl_s)
        self._pressure = PressureWatch(
            pool,
            fixed_bytes=config.memory_bytes,
            names=self._tree,
            give_way=None if self._disk is None else self._disk.writer.give_way,
        )
        self._tree.listed.on_growth = self._pressure.share
        self._writing = Writing(config, places) if config.rw else None
        if config.rw and config.staging_dir is not None:
            staging_dirs.remember(config.staging_dir)
        self._vfs = self._make_vfs()
        self._refusals = Refusals()
        self._inspector = Inspector(self._tree, self._cache, self._vfs)
        self._operations = self._make_operations(Appearance(config.uid, config.gid, config.umask))
        self._session = Session(point)
        self._kernel = KernelCache(self._session.duplicate)
        self._is_ready = trio.Event()
        self._limits = KernelLimits(max_background=MAX_BACKGROUND)

    async def serve(self, ready: Callable[[], None]) -> None:
        """Serve until unmounted or told to stop.

        Lifetimes, outermost first: what fetches (lease, cache, tree), signals, the kernel session,
        who may ask (control socket), what the service manager hears. After a failure the mount
        stays, dead, except before it was ready.
        """
        async with trio.open_nursery() as background:
            for place in self._places.all:
                await background.start(place.run)
            if self._disk is not None:
                await background.start(self._disk.writer.run)
            await background.start(self._cache.run)
            await background.start(self._pressure.run)
            await background.start(self._tree.run)
            if self._writing is not None:
                await background.start(self._writing.run, self._show_anew)
            if isinstance(self._operations, WriteOperations):
                await background.start(self._operations.run)
            background.start_soon(
                kept_running, "names in the kernel", self._vfs.kernel_names.run, self._kernel
            )
            background.start_soon(
                kept_running, "garbage collection", collect_when_idle, self._requests_served
            )
            # Whether the location can be listed at all is better said now than by the first `ls`.
            await self._tree.listing(self._tree.inodes.root)
            # From before the mount: a signal in between would leave a dead one.
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                check_in_place(self._point)
                before = frozenset(entry.id for entry in mountinfo.mounts())
                try:
                    await self._session.mount(self._mount_options())
                    confirm_mounted(self._point)
                    await self._session.negotiate(self._operations)
                    await self._serve_kernel(signals, ready)
                except BaseException:
                    if not self._answered:
                        self._session.abandon()
                        clear_stray_mounts(before)
                    raise
                finally:
                    self._session.close()
            background.cancel_scope.cancel()

    def close(self) -> None:
        """Give up what the mount owns on the local disk."""
        if self._writing is not None:
            self._writing.close()
            assert self._config.staging_dir is not None
            staging_dirs.forget_if_unused(self._config.staging_dir)

    def _make_vfs(self) -> Vfs:
        trust_listings = self._config.consistency == "ttl"
        if self._writing is not None:
            writable = self._writing.writable()
            return WritingVfs(self._tree, self._cache, writable, trust_listings=trust_listings)
        return Vfs(
            self._tree,
            self._cache,
            trust_listings=trust_listings,
            verification=None if self._config.verify == "off" else Verification(),
        )

    def _make_operations(self, appearance: Appearance) -> Operations:
        vfs, refusals, deadline_s = self._vfs, self._refusals, self._config.deadline_s
        xattrs = self._make_xattrs() if self._config.xattrs else None
        if isinstance(vfs, WritingVfs):
            return WriteOperations(
                vfs, refusals, appearance, deadline_s=deadline_s, xattrs=xattrs,
                forget_pages=self._forget_pages,
            )  # fmt: skip
        return Operations(vfs, refusals, appearance, deadline_s=deadline_s, xattrs=xattrs)

    async def _forget_pages(self, inode: int) -> None:
        await self._kernel.forget((), (inode,))

    def _make_xattrs(self) -> Xattrs:
        origins = {
            each.location_id: Origin(each.location.label, each.location.bucket)
            for each in self._places.all
        }
        return Xattrs(self._vfs, self._inspector, origins)

    def _make_disk(self, pool: BlockPool, store: ObjectStore, key: bytes) -> DiskTier | None:
        if self._config.cache_dir is None:
            return None
        directory = CacheDirectory.of_user(self._config.cache_dir)
        disk = DiskCache(directory, limit_bytes=self._config.cache_bytes, key=key)
        return DiskTier(disk, store, self._places.disk_names, pool)

    async def _show_anew(self, path: str) -> None:
        """Something has come to S3, but not by way of the kernel: whoever looks now finds it."""
        await self._is_ready.wait()
        try:
            await self._inspector.forget(path, self._kernel)
        except (StsfsError, OSError) as exc:  # no descriptor is left to tell the kernel by
            log.warning("%r may not be seen at once: %s", path, exc)

    _answered = False

    async def _serve_kernel(self, signals: AsyncIterator[int], ready: Callable[[], None]) -> None:
        async with trio.open_nursery() as serving:
            serving.start_soon(self._until_unmounted, serving.cancel_scope)
            serving.start_soon(contained, "end of the connection", self._answer_nobody)
            serving.start_soon(kept_running, "signals", self._stop_on_signal, signals)
            await self._raise_kernel_limits()
            record = self._record()
            handlers = self._questions().handlers()
            handlers |= {
                "status": self._status,
                "unmount": self._unmount,
                "unsaved": self._unsaved,
            }
            await serving.start(serve_control, record.control_socket, handlers)
            runtime_dir.write_record(record)
            try:
                self._answered = True
                ready()
                self._is_ready.set()
                serving.start_soon(kept_running, "status line", self._keep_status)
                serving.start_soon(kept_running, "watchdog", self._keep_watchdog)
                for place in self._places.all:
                    log.info(
                        "%s is mounted on %s, by its %s: %s",
                        place.location.uri,
                        self._config.mount_path.joinpath(*place.path),
                        place.choice.view,
                        place.choice.why,
                    )
                await trio.sleep_forever()
            finally:
                # A mount that is left in the kernel is dead: `stsfs list` goes on showing it.
                if not self._is_mounted():
                    runtime_dir.remove_record(record)

    def _is_mounted(self) -> bool:
        assert self._point.mounted_id is not None
        entry = mountinfo.mount_of(self._point.mounted_id)
        return entry is not None and entry.is_stsfs and entry.path == self._point.path

    def _requests_served(self) -> int:
        return self._operations.served

    def _status_line(self) -> str:
        return status_line(
            self._config.location,
            self._places.all[0].lease.status(),
            open_files=self._vfs.open_files,
        )

    async def _keep_status(self) -> None:
        await keep_status(self._manager, self._status_line)

    async def _keep_watchdog(self) -> None:
        await keep_watchdog(self._manager, self._answers)

    async def _answers(self, timeout_s: float) -> bool:
        return await answers(self._config.mount_path, timeout_s=timeout_s)

    async def _until_unmounted(self, serving: trio.CancelScope) -> None:
        await self._session.serve()
        self._manager.tell("STOPPING=1")
        log.info("%s is no longer mounted", self._config.mount_path)
        if isinstance(self._operations, WriteOperations):
            await self._operations.until_ended()
        if self._writing is not None:
            await drain(self._writing, self._manager)
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
            {place.location_id: place for place in self._places.all},
            self._inspector,
            self._refusals,
            self._kernel,
            None if self._disk is None else self._disk.held_bytes,
        )

    async def _status(self, request: dict[str, object]) -> dict[str, object]:
        return await Status(
            self._config,
            self._places,
            self._cache,
            self._tree,
            self._vfs,
            self._refusals,
            self._inspector,
            self._limits,
            self._pressure,
            self._disk,
            self._writing,
        ).answer(with_hidden=bool(request.get("hidden")))

    async def _unmount(self, request: dict[str, object]) -> dict[str, object]:
        await self._end()
        return {}

    async def _unsaved(self, request: dict[str, object]) -> dict[str, object]:
        if self._writing is None:
            return {"files": 0}
        return dict(self._writing.unsaved())

    def _record(self) -> MountRecord:
        path = self._config.mount_path
        return MountRecord(
            location=self._config.location,
            uri=self._places.all[0].location.uri,
            mount_path=path,
            pid=os.getpid(),
            control_socket=runtime_dir.control_socket(path),
            started_at_unix_s=time.time(),
            log_file=self._config.log_file,
            staging_dir=self._config.staging_dir if self._config.rw else None,
        )

    def _mount_options(self) -> MountOptions:
        return MountOptions(
            self._config.location,  # as typed: mount(8) looks for it when it reads fstab
            is_read_only=not self._config.rw,
            allow_other=self._config.allow_other,
        )
