"""Copies of objects that are too large for one request."""

import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from stsfs.errors import PartCopyRefused, StaleVersion, StsfsError, WriteConflict
from stsfs.store.object_store import Expected, ObjectVersion, ObjectWriter, Part, Traits

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
    *,
    expected: Expected | None = None,
    on_upload: Callable[[str], Awaitable[None]] | None = None,
) -> str:
    """See ObjectWriter.copy. An upload that does not come to its end is given up.

    A server may refuse to copy into an upload of one kind only: then it is tried with another.
    """
    try:
        traits = replace(await writer.traits(source), storage_class=storage_class)
    except StaleVersion as stale:
        raise WriteConflict(stale.sentence) from stale
    part_bytes = max(part_bytes, -(-source.size_bytes // PARTS_MAX))
    try:
        return await _copied(writer, source, key, traits, part_bytes, expected, on_upload)
    except PartCopyRefused:
        if not writer.copies_parts:
            raise
        return await _copied(writer, source, key, traits, part_bytes, expected, on_upload)


async def _copied(
    writer: ObjectWriter,
    source: ObjectVersion,
    key: str,
    traits: Traits,
    part_bytes: int,
    expected: Expected | None,
    on_upload: Callable[[str], Awaitable[None]] | None,
) -> str:
    write_id = uuid.uuid4().hex
    upload_id = await writer.begin_upload(key, traits, write_id=write_id, with_copies=True)
    try:
        if on_upload is not None:
            await on_upload(upload_id)
        parts = await _parts(writer, source, key, upload_id, part_bytes)
        return await writer.complete_upload(
            key, upload_id, parts, expected=expected, write_id=write_id
        )
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
