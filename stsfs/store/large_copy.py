"""Copies of objects that are too large for one request."""

import logging
import uuid
from dataclasses import replace

import trio

from stsfs.errors import StaleVersion, StsfsError, WriteConflict
from stsfs.store.object_store import ObjectVersion, ObjectWriter, Part

log = logging.getLogger(__name__)

PART_BYTES = 512 << 20
PARTS_MAX = 10_000
_AT_ONCE = 8
_ABORT_S = 10.0


async def copy_in_parts(
    writer: ObjectWriter,
    source: ObjectVersion,
    key: str,
    storage_class: str,
    part_bytes: int = PART_BYTES,
) -> str:
    """See ObjectWriter.copy. An upload that does not come to its end is given up."""
    try:
        traits = replace(await writer.traits(source), storage_class=storage_class)
    except StaleVersion as stale:
        raise WriteConflict(stale.sentence) from stale
    write_id = uuid.uuid4().hex
    upload_id = await writer.begin_upload(key, traits, write_id=write_id)
    try:
        part_bytes = max(part_bytes, -(-source.size_bytes // PARTS_MAX))
        parts = await _parts(writer, source, key, upload_id, part_bytes)
        return await writer.complete_upload(key, upload_id, parts, expected=None, write_id=write_id)
    except BaseException:  # a cancellation included
        await _give_up(writer, key, upload_id)
        raise


async def _parts(
    writer: ObjectWriter, source: ObjectVersion, key: str, upload_id: str, part_bytes: int
) -> list[Part]:
    """All parts, some at a time. Raises what the first that fails raises."""
    starts = iter(range(0, source.size_bytes, part_bytes))
    made: list[Part] = []
    failures: list[StsfsError] = []

    async def work(scope: trio.CancelScope) -> None:
        for start in starts:
            stop = min(start + part_bytes, source.size_bytes)
            number = start // part_bytes + 1
            try:
                made.append(await writer.copy_part(key, upload_id, number, source, start, stop))
            except StsfsError as failure:
                failures.append(failure)
                scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(_AT_ONCE):
            nursery.start_soon(work, nursery.cancel_scope)
    if failures:
        raise failures[0]
    return sorted(made)


async def _give_up(writer: ObjectWriter, key: str, upload_id: str) -> None:
    with trio.move_on_after(_ABORT_S, shield=True):
        try:
            await writer.abort_upload(key, upload_id)
        except StsfsError as failure:
            log.warning("the upload %s of %r stays behind: %s", upload_id, key, failure)
