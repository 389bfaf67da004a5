"""Finds the locations of a mount, opens them for reading, and decides what is shown of each."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import trio

from stsfs import __version__
from stsfs.daemon import locks
from stsfs.daemon.config import ENTITIES, PlaceOptions, check_needs
from stsfs.daemon.locks import LockTarget
from stsfs.daemon.places import NOT_SYNAPSE, OUTSIDE_ID, Place, Places, Wanted
from stsfs.entities.choose import MANAGED, Choice, choose_view
from stsfs.entities.index import EntityIndex, index_path
from stsfs.entities.location import EntityLocation
from stsfs.entities.lock_view import LockSource
from stsfs.entities.names import is_shown_name
from stsfs.entities.objects import Objects, Outside
from stsfs.entities.parallel import Call, work_off
from stsfs.entities.properties import iso
from stsfs.entities.records import FOLDER_KINDS
from stsfs.errors import BadArgument, NotStsLocation
from stsfs.location.discover import sts_folders_below
from stsfs.location.overlap import check_folders, check_overlaps
from stsfs.location.parse import SynapseTarget, Target
from stsfs.location.resolve import ResolveOptions, SynapseAccess, resolve
from stsfs.store.presigned_store import PresignedStore
from stsfs.store.reach import Reach
from stsfs.synapse.entities import EntityApi
from stsfs.synapse.records import ChildHeader
from stsfs.values import one_line

log = logging.getLogger(__name__)

KEYS_ASKED = Choice("keys", "it was asked for")
ENTITIES_ASKED = Choice("entities", "it was asked for")
WRITABLE = Choice("keys", "writing is for keys")


async def open_places(config: PlaceOptions) -> Places:
    """Find and open all locations of a mount, or of a command without one.

    Raises BadArgument, and what `resolve` and the Synapse client raise; then nothing stays open.
    """
    options = ResolveOptions(
        profile=config.aws_profile,
        region=config.region,
        endpoint_url=config.endpoint_url,
        token_file=config.token_file,
        synapse_profile=config.synapse_profile,
        synapse_endpoint=config.synapse_endpoint,
        whole_bucket=config.whole_bucket,
        rw=config.rw,
    )
    targets = [await trio.to_thread.run_sync(locks.location_of, each) for each in config.locations]
    asks_synapse = any(isinstance(_inner(each), SynapseTarget) for each in targets)
    places = Places(SynapseAccess(options) if asks_synapse else None)
    try:
        await _Opening(config, options, places).open(targets)
    except BaseException:
        with trio.CancelScope(shield=True):
            await places.aclose()
        raise
    return places


def _inner(target: Target | LockTarget) -> Target:
    """The location itself, where a lock of it was named."""
    return target.target if isinstance(target, LockTarget) else target


def _why_keys(target: Target, config: PlaceOptions) -> Choice:
    if config.view == "keys":
        return KEYS_ASKED
    return WRITABLE if isinstance(target, SynapseTarget) else NOT_SYNAPSE


class _Opening:
    """The steps of `open_places`."""

    def __init__(self, config: PlaceOptions, options: ResolveOptions, places: Places) -> None:
        self._config, self._options, self._places = config, options, places
        self._folders: dict[str, ChildHeader] = {}
        self._user_id = ""

    async def open(self, targets: Sequence[Target | LockTarget]) -> None:
        wanted: list[Wanted] = []
        if len(targets) == 1:
            wanted = await self._resolved(targets[0], ())
        else:
            for target in targets:
                wanted += await self._resolved(target, (await self._name(target),))
        self._check_names([each.path for each in wanted])
        for number, each in enumerate(wanted, start=1):
            for warning in each.resolved.warnings:
                log.warning("%s", warning)
            self._places.all.append(Place(each, number, self._config))
        for place, each in zip(self._places.all, wanted, strict=True):
            if each.lock is not None:
                self._show_lock(place, each.lock)
            else:
                await self._choose(place, each.target)
        # A lock shows versions, which nobody changes: it may lie beside what it was made of.
        live = [place for place in self._places.all if place.lock is None]
        shown = [(place.location, place.entities is None) for place in live]
        check_overlaps(shown)
        if len(targets) > 1:
            await self._check_folders(live)

    async def _resolved(self, target: Target | LockTarget, path: tuple[str, ...]) -> list[Wanted]:
        """The location of a target, or all those below it."""
        options, synapse = self._options, self._places.synapse
        if isinstance(target, LockTarget):
            inner = target.target
            asks_synapse = synapse is not None and isinstance(inner, SynapseTarget)
            locks.check_synapse(target, synapse.endpoints if synapse and asks_synapse else None)
            resolved = await resolve(inner, options=options, synapse=synapse)
            locks.check_agrees(target, resolved.location)
            named = replace(resolved.location, label=str(target.path))
            return [Wanted(inner, path, replace(resolved, location=named), target)]
        try:
            return [Wanted(target, path, await resolve(target, options=options, synapse=synapse))]
        except NotStsLocation:
            assert synapse is not None
            assert isinstance(target, SynapseTarget)
            below = await sts_folders_below(synapse.client, target.synapse_id)
        wanted = []
        for found in below:
            self._folders[found.folder.entity_id] = found.folder
            inner = SynapseTarget(found.folder.entity_id)
            resolved = await resolve(inner, options=options, synapse=synapse)
            wanted.append(Wanted(inner, (*path, *found.path), resolved))
        return wanted

    async def _name(self, target: Target | LockTarget) -> str:
        """What a location is called beside others."""
        if isinstance(target, LockTarget):
            return target.path.stem
        if isinstance(target, SynapseTarget):
            return (await self._folder(target.synapse_id)).name
        return target.prefix.rpartition("/")[2] or target.bucket

    def _check_names(self, paths: list[tuple[str, ...]]) -> None:
        for index, path in enumerate(paths):
            for name in path:
                if not is_shown_name(name):
                    raise BadArgument(
                        f"{one_line(name)!r} cannot be the name of a directory in the mount.",
                        remedy="Mount that location on a directory of its own.",
                    )
            for other in paths[:index]:
                shorter = min(len(path), len(other))
                if path[:shorter] == other[:shorter]:
                    raise BadArgument(
                        f"Two locations would both be /{'/'.join(path)} in the mount.",
                        remedy="Mount them on directories of their own.",
                    )

    async def _folder(self, synapse_id: str) -> ChildHeader:
        """The folder that is meant: that of a file, where a file was named."""
        assert self._places.synapse is not None
        api = self._places.synapse.client.entities
        known = self._folders.get(synapse_id)
        if known is None:
            bundle = await api.bundle(synapse_id)
            known = bundle.header
            if known.kind not in FOLDER_KINDS:
                known = (await api.bundle(bundle.parent_id)).header
            self._folders[synapse_id] = known
        return known

    async def _choose(self, place: Place, target: Target) -> None:
        """Decide about the view, and build what it needs."""
        config = self._config
        if not isinstance(target, SynapseTarget) or config.view == "keys" or config.rw:
            place.choice = _why_keys(target, config)
            if config.view == "entities":
                raise BadArgument(
                    f"{target} is a place in S3: Synapse does not show it.",
                    remedy="Name the folder (syn...) for --view entities.",
                )
            self._check_no_entities(place)
            return
        synapse = self._places.synapse
        assert synapse is not None
        client = synapse.client
        asked: list[Call] = [self._learn_user, partial(self._folder, target.synapse_id)]
        await work_off(asked, len(asked))  # each takes a round trip
        folder = await self._folder(target.synapse_id)
        path = index_path(synapse.endpoints.repo_url, self._user_id, folder.entity_id)
        index = await trio.to_thread.run_sync(EntityIndex, path)
        try:
            if config.view == "entities":
                place.choice = ENTITIES_ASKED
            elif (await client.upload_destination(target.synapse_id)).kind == "managed":
                place.choice = MANAGED
            else:
                prefix = place.location.prefix
                place.choice = await choose_view(client, index, folder.entity_id, prefix)
            if place.choice.view == "keys":
                self._check_no_entities(place)
        except BaseException:
            index.close()
            raise
        if place.choice.view == "keys":
            index.close()
            return
        place.entities = self._entity_location(place, index, folder)

    async def _learn_user(self) -> None:
        """What a folder lists depends on who asks."""
        if not self._user_id:
            assert self._places.synapse is not None
            self._user_id = (await self._places.synapse.client.user_profile()).user_id

    def _entity_location(
        self, place: Place, index: EntityIndex, folder: ChildHeader
    ) -> EntityLocation:
        config, location = self._config, place.location
        return EntityLocation(
            self._api(),
            index,
            folder,
            location_id=place.location_id,
            bucket=location.bucket,
            prefix=location.prefix,
            store=place.store,
            metadata_ttl_s=config.metadata_ttl_s,
            outside=self._outside(),
            index_view=config.index_view,
            as_of_unix_s=config.as_of_unix_s,
        )

    def _api(self) -> EntityApi:
        assert self._places.synapse is not None
        return self._places.synapse.client.entities

    def _outside(self) -> Outside | None:
        """How files outside their location are read; one store serves all locations."""
        places, api = self._places, self._api()
        if self._config.outside == "refuse":
            return None
        if places.outside is None:

            async def url_of(name: str) -> str:
                entity_id, _, handle_id = name.partition("/")
                return await api.presigned_url(handle_id, entity_id)

            assert places.synapse is not None
            places.outside = PresignedStore(
                url_of,
                reach=Reach(loopback=places.synapse.endpoints.are_loopback),
                deadline_s=self._config.deadline_s,
                user_agent=f"stsfs/{__version__}",
            )
        return Outside(OUTSIDE_ID, places.outside.probe)

    def _show_lock(self, place: Place, target: LockTarget) -> None:
        """Show the versions of a lock. Raises BadArgument for options that mean nothing then."""
        lock, config, location = target.lock, self._config, place.location
        if config.rw:
            raise BadArgument(
                f"{target} is a lock file: it shows versions, which nobody changes.",
                remedy="Leave out --rw.",
            )
        pinned_on = iso(lock.pinned_unix_s)
        place.choice = Choice("lock", f"pinned on {pinned_on} from {lock.location}")
        for option, value in (("--as-of", config.as_of), ("--index-view", config.index_view)):
            if value is not None:
                raise BadArgument(
                    f"{option} is for what changes, and {target} shows what was pinned.",
                    remedy="Leave the option out.",
                )
        if config.view not in {"auto", lock.view}:
            raise BadArgument(
                f"{target} was written in the {lock.view} view, and cannot show another.",
                remedy="Leave out --view.",
            )
        if lock.view == "keys":
            check_needs(
                self._config, ENTITIES, why=f", and {target} was written in that of keys", remedy=""
            )
            place.lock = LockSource(lock, place.location_id, place.store)
            return
        index = EntityIndex(None)
        objects = Objects(
            place.location_id, location.bucket, location.prefix, place.store, index,
            outside=self._outside(),
        )  # fmt: skip
        place.lock = LockSource(lock, place.location_id, place.store, self._api(), objects, index)

    def _check_no_entities(self, place: Place) -> None:
        """Refuse options that mean nothing where keys are shown."""
        why = f", and {place.location.label} shows keys: {place.choice.why}"
        nothing_else = None if place.location.synapse_id is not None else ""
        check_needs(self._config, ENTITIES, why=why, remedy=nothing_else)

    async def _check_folders(self, live: Sequence[Place]) -> None:
        places = [each for each in live if each.location.synapse_id]
        folders = []
        for place in places:
            assert self._places.synapse is not None
            assert place.location.synapse_id is not None
            path = await self._places.synapse.client.entity_path(place.location.synapse_id)
            folders.append((place.location.synapse_id, {each.entity_id for each in path}))
        check_folders(folders)
