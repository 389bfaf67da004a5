"""What processes that died have left: their moves are put right, their files published."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from stsfs.errors import StagingFailure, StsfsError
from stsfs.staging.left import LeftBehind, LeftMove
from stsfs.staging.record import DamagedRecord
from stsfs.store.object_store import ObjectVersion
from stsfs.writer.listeners import Watcher
from stsfs.writer.moves import Mover
from stsfs.writer.parallel import work_off
from stsfs.writer.writing import Writers

log = logging.getLogger(__name__)

FILES_AT_ONCE = 8

Arrived = Callable[[str], Awaitable[None]]
"""Told the key of each file that was left, and is in S3 now."""


@dataclass(slots=True)
class Recovery:
    """What was found when the mount began; for the log and for status."""

    moves: list[str] = field(default_factory=list)
    """A sentence about each rename that was finished or undone, or could not be."""

    uploading: list[str] = field(default_factory=list)
    """Paths of the files that are published now, in the background."""

    listed: list[str] = field(default_factory=list)
    """Paths of those that only `stsfs recover` shows: half-written or damaged ones, conflicts."""


async def _tell_nobody(key: str) -> None:
    await trio.lowlevel.checkpoint()


async def recover_at_mount(
    writers: Writers, mover: Mover, arrived: Arrived = _tell_nobody
) -> Recovery:
    """Put right what was left in this location. Returns once the names are right.

    Files are published in the background, by the tasks of writers. Trouble is logged, not raised.
    """
    recovery, location = Recovery(), writers.location
    try:
        found = await trio.to_thread.run_sync(
            writers.staging.left_behind, location.uri, location.endpoint_url
        )
    except StsfsError as exc:
        log.error("it is not known what was not uploaded before: %s", exc)
        return recovery
    for left in found:
        if isinstance(left, LeftMove):
            recovery.moves.append(await _put_right(left, writers, mover))
    waiting = []
    for left in found:
        if isinstance(left, LeftMove) or left.record is None:
            continue
        if left.is_ready:
            recovery.uploading.append(left.record.path)
            waiting.append(left)
        else:
            recovery.listed.append(left.record.path)
            log.warning("%r was not uploaded: see `stsfs recover`", left.record.path)
            if left.record.upload_id is not None and not left.record.parked:
                writers.tasks.start(
                    "an upload", writers.give_up, left.record.key, left.record.upload_id
                )
    if waiting:
        writers.tasks.start("recovery", _publish_all, waiting, writers, arrived)
    return recovery


async def publish_left(
    left: LeftBehind, writers: Writers, *, force: bool = False, watcher: Watcher | None = None
) -> ObjectVersion | None:
    """Publish one file that was left, under the conditions of the mount that it was written in.

    With force, whatever is at its key is replaced. None: somebody else has taken it over. Raises
    what DirtyFile.publish raises; the bytes are kept then, and tried again where that may help.
    StagingFailure: the file is damaged.
    """
    record = left.record
    assert record is not None, "what has no record belongs nowhere"
    if left.trouble:
        raise StagingFailure(
            f"It is damaged: {left.trouble}.",
            remedy="Save what is there with --save, or give it up with --discard.",
        )
    file = await trio.to_thread.run_sync(writers.staging.adopt, left)
    if file is None:
        return None
    staged = writers.adopt(record, file, force=force)
    staged.watcher = watcher
    if record.upload_id is not None and not record.parked:
        await writers.give_up(record.key, record.upload_id)
    try:
        return await staged.publish()
    finally:
        await staged.close()


async def _publish_all(found: list[LeftBehind], writers: Writers, arrived: Arrived) -> None:
    watcher = _Arrivals(writers, arrived)

    async def publish(left: LeftBehind) -> None:
        assert left.record is not None
        try:
            await publish_left(left, writers, watcher=watcher)
        except StsfsError as exc:
            log.error("%r is still not in S3: %s", left.record.path, exc)

    await work_off((partial(publish, left) for left in found), at_once=FILES_AT_ONCE)


class _Arrivals:
    """Watcher of the files that were left, those included that arrive at a later try only."""

    def __init__(self, writers: Writers, arrived: Arrived) -> None:
        self._writers, self._arrived = writers, arrived

    def published(self, version: ObjectVersion) -> None:
        log.info("%r, which was left before, is in S3 now", version.key)
        self._writers.tasks.start("recovery", self._arrived, version.key)

    def failed(self, error: StsfsError) -> None:
        """Logged where it happens."""

    def gone(self) -> None:
        """Nobody shows it."""


async def _put_right(left: LeftMove, writers: Writers, mover: Mover) -> str:
    try:
        journal = await trio.to_thread.run_sync(writers.staging.adopt_move, left)
        said = "" if journal is None else await mover.resume(journal)
    except (StsfsError, DamagedRecord) as exc:
        said = f"A rename that was cut short is not put right: {exc}"
    log.warning("%s", said)
    return said
