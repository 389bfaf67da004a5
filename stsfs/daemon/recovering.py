"""What `stsfs recover` does with what was not uploaded: puts it where it belongs, or gives it up.

Bytes leave the staging directory only when S3 has them, or when they are given up by name.
"""

import re
import shlex
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import trio

from stsfs.credentials.aws_chain import endpoint_of_chain
from stsfs.daemon import locks
from stsfs.daemon.config import PlaceOptions
from stsfs.daemon.opening import open_places
from stsfs.daemon.places import Place
from stsfs.daemon.writing import object_writer
from stsfs.errors import BadArgument, StagingFailure, StsfsError
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.file import StagingFile
from stsfs.staging.left import Left, LeftBehind, LeftMove
from stsfs.staging.moves import MoveJournal, MoveRecord
from stsfs.staging.record import DamagedRecord, Record
from stsfs.values import one_line, server_url
from stsfs.writer.moves import Mover
from stsfs.writer.recovery import publish_left
from stsfs.writer.wire import LocationName
from stsfs.writer.writing import Writers


@dataclass(frozen=True, slots=True)
class Done:
    """What came of one file or move."""

    left: Left
    sentence: str
    error: StsfsError | None = None
    """Why it is still where it was."""


Told = Callable[[Done], None]

FILES_AT_ONCE = 8

_AWS_HOST = re.compile(r"s3(-fips)?(\.dualstack)?([.-][a-z0-9-]+)?\.amazonaws\.com(\.cn)?")

GIVE_UP_S = 30.0
"""For the uploads of one location to be aborted: what is given up need not wait for S3 longer."""


async def upload(
    found: Sequence[Left], staging: StagingDirectory, options: PlaceOptions, told: Told, *,
    force: bool = False,
) -> list[Done]:  # fmt: skip
    """Publish files, and finish or undo moves, as the next mount of their locations would.

    With force, whatever another client has put at the key of a file is replaced. A location that
    cannot be opened is an error of each of its files.
    """
    done: dict[int, Done] = {}

    def note(left: Left, sentence: str, error: StsfsError | None = None) -> None:
        one = done[id(left)] = Done(left, sentence, error)
        told(one)

    for group in by_location(found):
        try:
            record = group[0].record
            if record is None:
                raise BadArgument(
                    f"Nothing says where it belongs: {group[0].trouble}.",
                    remedy="Save its bytes with --save, or give it up with --discard.",
                )
            async with opened(record, replace(options, rw=True)) as place:
                await _put_right(group, place, staging, note, force=force)
        except StsfsError as exc:
            for left in group:
                if id(left) not in done:
                    note(left, "", exc)
    return [done[id(left)] for left in found]


async def discard(
    found: Sequence[Left], staging: StagingDirectory, options: PlaceOptions, told: Told
) -> list[Done]:
    """Give up files and journals for ever, and the uploads to S3 that were begun for them.

    An upload that cannot be given up, because its location cannot be opened, say, is no error: it
    stays in S3, and the sentence says so.
    """
    done: dict[int, Done] = {}
    for group in by_location(found):
        taken: list[tuple[Left, StagingFile | MoveJournal]] = []
        for left in group:
            try:
                # First of all: the upload of what a mount has taken over is not ours to give up.
                taken.append((left, await trio.to_thread.run_sync(_adopted, left, staging)))
            except StsfsError as exc:
                done[id(left)] = Done(left, "", exc)
                told(done[id(left)])
        begun = [each for left, _ in taken for each in _uploads(left)]
        stay = await _give_up_uploads(begun, group[0].record, options)
        for left, adopted in taken:
            sentence = _given_up(left, stay)
            try:
                await trio.to_thread.run_sync(adopted.discard)
                one = Done(left, sentence)
            except StsfsError as exc:
                one = Done(left, "", exc)
            told(one)
            done[id(left)] = one
    return [done[id(left)] for left in found]


def _uploads(left: Left) -> list[tuple[str, str]]:
    """The key and id of each multipart upload that was begun, and may not have ended."""
    record = left.record
    if isinstance(record, MoveRecord):
        return [(record.objects[at].target_key, each) for each, at in record.uploads.items()]
    if record is None or record.upload_id is None:
        return []
    return [(record.key, record.upload_id)]


def _given_up(left: Left, stay: Mapping[str, str]) -> str:
    """What is said of it; stay has why which uploads are still there."""
    upload_ids = [upload_id for _, upload_id in _uploads(left)]
    if not upload_ids:
        return "given up"
    for upload_id in upload_ids:
        if upload_id in stay:
            return f"given up, but its upload {upload_id} stays in S3: {stay[upload_id]}"
    return "given up, and its upload with it"


async def _give_up_uploads(
    begun: Sequence[tuple[str, str]], record: Record | MoveRecord | None, options: PlaceOptions
) -> dict[str, str]:
    """Abort uploads in the location of a record: why which of them stay, by their ids."""
    if not begun or record is None:
        return {}
    stay = {upload_id: f"no answer came within {GIVE_UP_S:g} s." for _, upload_id in begun}
    with trio.move_on_after(GIVE_UP_S):
        try:
            async with opened(record, replace(options, rw=True)) as place:
                writer = object_writer(place, conditional_writes="auto", acl=None)
                for key, upload_id in begun:
                    try:
                        await writer.abort_upload(key, upload_id)
                        del stay[upload_id]
                    except StsfsError as exc:
                        stay[upload_id] = exc.sentence
        except StsfsError as exc:
            stay = dict.fromkeys(stay, str(exc))
    return stay


def _adopted(left: Left, staging: StagingDirectory) -> StagingFile | MoveJournal:
    taken = staging.adopt_move(left) if isinstance(left, LeftMove) else staging.adopt(left)
    if taken is None:
        raise taken_by_others()
    return taken


def by_location(found: Iterable[Left]) -> Iterable[list[Left]]:
    """The same, those of one location together; what belongs nowhere is alone."""
    groups: dict[object, list[Left]] = {}
    for left in found:
        record = left.record
        where: object = left.id
        if record is not None:
            where = (record.label, record.location_uri, record.endpoint_url)
        groups.setdefault(where, []).append(left)
    return groups.values()


@asynccontextmanager
async def opened(record: Record | MoveRecord, options: PlaceOptions) -> AsyncIterator[Place]:
    """The location that something was written in. Raises BadArgument, and what `open_places` does.

    Credentials are sent to servers that the user names, or to AWS, never to one that only a record
    names: that may have been copied from elsewhere. The body raises nothing of ours.
    """
    endpoint_url = await _endpoint_url(record, options)
    places = await open_places(
        replace(options, locations=(record.label,), endpoint_url=endpoint_url, view="keys")
    )
    try:
        there = (record.location_uri, record.endpoint_url)
        place = next(
            (p for p in places.all if (p.location.uri, p.location.endpoint_url) == there), None
        )
        if place is None:
            shown = ", ".join(each.location.uri for each in places.all)
            raise BadArgument(
                f"{record.label} is {shown} now, and this was written in {record.location_uri}"
                f" ({record.endpoint_url or 'AWS'}).",
                remedy="Save its bytes with --save, and copy them where they belong.",
            )
        async with trio.open_nursery() as nursery:
            await nursery.start(place.run)
            yield place
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await places.aclose()


async def _endpoint_url(record: Record | MoveRecord, options: PlaceOptions) -> str | None:
    """The S3 server to ask; None: that of the configuration of the AWS tools, or AWS.

    Raises BadArgument for one that nobody but the record names, and for a label that is none.
    """
    if not locks.is_location(record.label):
        raise BadArgument(
            f"It was written in {one_line(record.label)}, which is no location.",
            remedy="Save its bytes with --save, or give it up with --discard.",
        )
    recorded = record.endpoint_url
    if recorded is None or _is_aws(recorded):
        return options.endpoint_url or recorded
    named = options.endpoint_url or await trio.to_thread.run_sync(
        endpoint_of_chain, options.aws_profile
    )
    if named is not None and named.rstrip("/") == recorded.rstrip("/"):
        return recorded
    raise BadArgument(
        f"It was written to the S3 server {one_line(recorded)}, and credentials are sent only to"
        " servers that you name.",
        remedy=f"Add --endpoint-url {shlex.quote(recorded)} if it is the right one.",
    )


def _is_aws(url: str) -> bool:
    """Whether a URL is that of S3 itself, which only AWS can answer at."""
    try:
        parts = urlsplit(server_url(url))
    except ValueError:
        return False
    return parts.scheme == "https" and _AWS_HOST.fullmatch(parts.hostname or "") is not None


def taken_by_others() -> StsfsError:
    """The error for what a mount has taken over since it was listed."""
    return StagingFailure("A mount has taken it over meanwhile.", remedy="Look again.")


Note = Callable[..., None]


async def _put_right(
    group: Sequence[Left], place: Place, staging: StagingDirectory, note: Note, *, force: bool
) -> None:
    """Moves first, one by one: files may lie below what they rename."""
    location = place.location
    name = LocationName(place.location_id, location.uri, location.endpoint_url, location.label)
    writer = object_writer(place, conditional_writes="auto", acl=None)
    mover = Mover(name, place.store, writer, staging)
    writers = Writers(name, place.store, writer, staging)
    async with trio.open_nursery() as nursery:
        await nursery.start(writers.run)
        for left in group:
            try:
                if isinstance(left, LeftMove):
                    note(left, await _resume(left, mover, staging))
            except StsfsError as exc:
                note(left, "", exc)
        limit = trio.CapacityLimiter(FILES_AT_ONCE)

        async def publish(left: LeftBehind) -> None:
            async with limit:
                try:
                    if await publish_left(left, writers, force=force) is None:
                        raise taken_by_others()
                    note(left, "uploaded")
                except StsfsError as exc:
                    note(left, "", exc)

        async with trio.open_nursery() as files:
            for left in group:
                if isinstance(left, LeftBehind):
                    files.start_soon(publish, left)
        nursery.cancel_scope.cancel()


async def _resume(left: LeftMove, mover: Mover, staging: StagingDirectory) -> str:
    journal = await trio.to_thread.run_sync(staging.adopt_move, left)
    if journal is None:
        raise taken_by_others()
    try:
        return await mover.resume(journal)
    except DamagedRecord as exc:
        raise StagingFailure(f"The journal of the rename cannot be read: {exc}.") from exc
