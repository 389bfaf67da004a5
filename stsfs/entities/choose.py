"""Which view suits a location, where nobody has said: looked at once, and remembered."""

from collections import deque
from typing import Literal, NamedTuple

from stsfs.entities.filler import record_of
from stsfs.entities.index import EntityIndex
from stsfs.entities.records import FILE_KIND, key_of
from stsfs.errors import SynapseRefusal
from stsfs.synapse.client import SynapseClient

ViewName = Literal["keys", "entities", "lock"]

FILES_LOOKED_AT = 5
FOLDERS_LOOKED_AT = 4

_CHOICE = "view"


class Choice(NamedTuple):
    """A view, and why it was chosen."""

    view: ViewName
    why: str


MANAGED = Choice("entities", "Synapse manages this storage, and its keys are not file names")


async def choose_view(
    client: SynapseClient, index: EntityIndex, root_id: str, prefix: str
) -> Choice:
    """Compare the keys of a few files with their paths; at most ten requests, at the first mount.

    Raises what EntityApi raises for the first of them.
    """
    told = await index.ask(index.meta, _CHOICE)
    if told is not None:
        view, _, why = told.partition(" ")
        return Choice("keys" if view == "keys" else "entities", why)
    choice = await _look(client, root_id, prefix)
    if choice is None:
        return Choice("keys", "Synapse knows no file there to compare with")
    await index.ask(index.set_meta, _CHOICE, f"{choice.view} {choice.why}")
    return choice


async def _look(client: SynapseClient, root_id: str, prefix: str) -> Choice | None:
    """None where there is nothing to compare."""
    api = client.entities
    compared = 0
    folders = deque([(root_id, "")])
    for _ in range(FOLDERS_LOOKED_AT):
        if not folders:
            break
        folder_id, path = folders.popleft()
        for header in (await api.children(folder_id)).children:
            inner = f"{path}{header.name}"
            if header.kind == "Folder":
                folders.append((header.entity_id, f"{inner}/"))
            if header.kind != FILE_KIND or compared >= FILES_LOOKED_AT:
                continue
            try:
                record = record_of(await api.bundle(header.entity_id), key_of(header))
            except SynapseRefusal:
                continue
            if not record.object_key:
                continue
            compared += 1
            if not await _is_path(client, root_id, prefix, inner, record.object_key):
                return Choice(
                    "entities",
                    f"the key of {inner} ({header.entity_id}) is not its path, but"
                    f" {record.object_key}",
                )
    if not compared:
        return None
    files = "the file" if compared == 1 else f"the {compared} files"
    return Choice("keys", f"the keys of {files} compared are their paths")


async def _is_path(
    client: SynapseClient, root_id: str, prefix: str, inner: str, object_key: str
) -> bool:
    """Whether a key is the path of its file below the storage location.

    The folder mounted may lie below the one that has the storage location: then the key has the
    names of the folders in between, too.
    """
    if not (object_key.startswith(prefix) and object_key.endswith(inner)):
        return False
    between = object_key[len(prefix) : len(object_key) - len(inner)]
    if not between:
        return True
    names = [each.name for each in await client.entity_path(root_id)]
    return f"/{'/'.join(names)}/".endswith(f"/{between}")
