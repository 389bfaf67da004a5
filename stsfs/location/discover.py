"""The storage locations below a project, or below any folder that has none itself."""

import logging
from dataclasses import dataclass
from functools import partial

from stsfs.entities.filler import all_children
from stsfs.entities.names import hidden_label, reason_hidden
from stsfs.entities.parallel import work_off
from stsfs.errors import BadArgument, NotStsLocation
from stsfs.synapse.client import SynapseClient
from stsfs.synapse.records import ChildHeader
from stsfs.values import one_line

log = logging.getLogger(__name__)

FOLDERS_MAX = 500
"""Folders looked at; each costs two requests, and a mount should not take minutes."""

ASKED_MAX = 3


@dataclass(frozen=True, slots=True)
class Found:
    """A folder with a storage location of its own, and where it lies."""

    path: tuple[str, ...]
    """Names of the folders down to it, its own included."""

    folder: ChildHeader


async def sts_folders_below(client: SynapseClient, root_id: str) -> list[Found]:
    """All STS folders below an entity, by path. Does not look into them: none lies in another.

    Raises NotStsLocation where there is none, BadArgument where there is too much to look at, and
    what the client raises.
    """
    found: list[Found] = []
    level: list[tuple[tuple[str, ...], str]] = [((), root_id)]
    looked_at = 0
    while level:
        looked_at += len(level)
        if looked_at > FOLDERS_MAX:
            raise BadArgument(
                f"{root_id} has more than {FOLDERS_MAX} folders without a storage location.",
                remedy="Name the folders that have one: stsfs mount syn1 syn2 DIR.",
            )
        below: list[tuple[tuple[str, ...], ChildHeader]] = []
        for path, folder_id in level:
            below += [((*path, each.name), each) for each in await _folders(client, folder_id)]
        is_sts = await _with_sts(client, [each for _, each in below])
        found += [Found(path, each) for path, each in below if each.entity_id in is_sts]
        level = [(path, each.entity_id) for path, each in below if each.entity_id not in is_sts]
    if not found:
        raise NotStsLocation(
            f"Neither {root_id} nor any folder below or above it has an STS-enabled storage"
            " location.",
            remedy="Name a folder that has one.",
        )
    return sorted(found, key=lambda each: each.path)


async def _folders(client: SynapseClient, folder_id: str) -> list[ChildHeader]:
    """The folders in a folder that a path can name; said of the others, which have to be left out.

    They are asked for by their ids, and shown by their names, which anybody may have written.
    """
    folders: list[ChildHeader] = []
    for each in await all_children(client.entities, folder_id):
        if each.kind != "Folder":
            continue
        if reason := reason_hidden(each):
            log.warning("%s is left out: %s", one_line(hidden_label(each, folder_id)), reason)
            continue
        folders.append(each)
    return folders


async def _with_sts(client: SynapseClient, folders: list[ChildHeader]) -> set[str]:
    """Which of these folders have STS enabled."""
    found: set[str] = set()

    async def ask(folder_id: str) -> None:
        destination = await client.upload_destination(folder_id)
        if destination.sts_enabled:
            found.add(folder_id)

    await work_off([partial(ask, each.entity_id) for each in folders], ASKED_MAX)
    return found
