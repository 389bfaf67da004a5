"""Who may do what in the fake Synapse, and what may stand where. Reads the state, changes nothing.

The order of the checks and their words are the real server's; `Refused` carries both.
"""

import re

from stsfs.demo.fake_synapse.answers import Refused, without_nulls
from stsfs.demo.fake_synapse.state import (
    ANONYMOUS,
    Entity,
    FileHandle,
    ProjectSetting,
    State,
    StorageLocation,
)

CHILDREN_MAX = 10_000
DEPTH_MAX = 50
NAME_CHARS_MAX = 256
LOCATIONS_MAX = 10

_NAME = re.compile(r"[a-zA-Z0-9,_. \-+()']+")


def find(state: State, syn_id: object) -> Entity:
    """Return an entity by `syn123` or `123`, trashed or not; 404 where there is none."""
    digits = str(syn_id).lower().removeprefix("syn")
    if not digits.isdecimal():
        raise Refused(400, f"Invalid entity ID: {syn_id}")
    entity = state.entities.get(int(digits))
    if entity is None:
        raise Refused(404, f"Resource: 'syn{digits}' does not exist")
    return entity


def authorize(state: State, user_id: int, entity: Entity, *permissions: str) -> None:
    """Refuse unless the user has every permission on the entity; the first failure wins."""
    for permission in permissions:
        _authorize_one(state, user_id, entity, permission)


def _authorize_one(state: State, user_id: int, entity: Entity, permission: str) -> None:
    if state.in_trash(entity):
        raise Refused(404, f"Entity {entity.syn_id} is in trash can.")
    above = list(state.ancestry(entity))
    if permission == "DOWNLOAD":
        if any(user_id in state.unmet_requirements.get(each.number, ()) for each in above):
            raise Refused(
                403,
                "There are unmet access requirements that must be met to read content in the "
                "requested container.",
            )
        user = state.users[user_id]
        if not user.two_factor and any(each.number in state.two_factor_required for each in above):
            raise Refused(
                403,
                "You need to enable two factor authentication to access the requested entity.",
            )
    if user_id == ANONYMOUS and permission != "READ":
        raise Refused(403, "Anonymous users have only READ access permission.")
    if permission in ("CREATE", "UPDATE") and entity.kind != "project":
        require_certified(state, user_id)
    if permission not in state.permissions(user_id, entity):
        raise Refused(403, f"You lack {permission} access to the requested entity.")


def require_certified(state: State, user_id: int) -> None:
    """Refuse users who have not passed the quiz."""
    if not state.users[user_id].certified:
        raise Refused(403, "Only certified users may create or update content in Synapse.")


def allowed(state: State, user_id: int, entity: Entity, *permissions: str) -> bool:
    """Say what `authorize` would do."""
    try:
        authorize(state, user_id, entity, *permissions)
    except Refused:
        return False
    return True


def valid_name(name: object) -> str:
    """Return the name as Synapse keeps it; 400 for one that it does not take."""
    text = str(name).strip()
    if not text:
        raise Refused(400, "Name cannot be only whitespace or empty string")
    if len(text) > NAME_CHARS_MAX:
        raise Refused(400, f"Name must be {NAME_CHARS_MAX} characters or less")
    if not _NAME.fullmatch(text):
        raise Refused(
            400,
            f"Invalid Name: '{text}'. Names may only contain: letters, numbers, spaces, "
            "underscores, hyphens, periods, plus signs, apostrophes, and parentheses",
        )
    return text


def parent_for(state: State, user_id: int, parent_id: object) -> Entity:
    """Return the parent of a new entity, after the checks that every creation makes."""
    digits = str(parent_id).lower().removeprefix("syn")
    parent = state.entities.get(int(digits)) if digits.isdecimal() else None
    if parent is None:
        raise Refused(404, f"The given parent: {parent_id} does not exist")
    if state.in_trash(parent):
        raise Refused(403, f"The parent {parent.syn_id} is in the trash can.")
    authorize(state, user_id, parent, "CREATE")
    return parent


def check_place(state: State, parent: Entity, name: str, *, itself: Entity | None = None) -> None:
    """Refuse a name that is taken, and containers that are full or too deep."""
    taken = state.child(parent.number, name)
    if taken is not None and taken is not itself:
        raise Refused(
            409,
            f"An entity with the name: {name} already exists with a parentId: {parent.syn_id}",
        )
    if len(state.children(parent.number)) >= CHILDREN_MAX and (
        itself is None or itself.parent != parent.number
    ):
        raise Refused(400, f"Limit of {CHILDREN_MAX} children exceeded for parent: {parent.syn_id}")
    if sum(1 for _ in state.ancestry(parent)) >= DEPTH_MAX:
        raise Refused(
            400,
            f"Exceeded the maximum hierarchical depth of: {DEPTH_MAX} for parent: {parent.syn_id}",
        )


def sts_location(state: State, entity: Entity) -> StorageLocation | None:
    """Return the STS-enabled location that governs the entity, or None."""
    location = state.location_of(entity)
    return location if location.sts_enabled else None


def check_kind(state: State, kind: str | None, parent: Entity) -> None:
    """Refuse, on creation only, what is neither file nor folder inside an STS folder."""
    if kind not in ("file", "folder") and sts_location(state, parent) is not None:
        raise Refused(400, "Can only create Files and Folders inside STS-enabled folders")


def check_file_place(state: State, handle: FileHandle, parent: Entity) -> None:
    """Refuse a file whose storage location is not that of its folder, if either is STS."""
    files = state.locations[handle.storage_location_id]
    folders = state.location_of(parent)
    if files.location_id == folders.location_id:
        return
    if files.sts_enabled:
        raise Refused(
            400,
            "Files in STS-enabled storage locations can only be placed in folders with the same "
            "storage location",
        )
    if folders.sts_enabled:
        raise Refused(
            400,
            "Folders with STS-enabled storage locations can only accept files with the same "
            "storage location",
        )


def check_folder_move(state: State, folder: Entity, new_parent: Entity) -> None:
    """Refuse moves of a folder into, out of or between STS locations."""
    old, new = sts_location(state, folder), sts_location(state, new_parent)
    if old is not None and folder.number in state.settings:
        if new is not None:
            raise Refused(
                400, "Cannot place an STS-enabled folder inside another STS-enabled folder"
            )
        return
    if old is not None and (new is None or new.location_id != old.location_id):
        raise Refused(
            400,
            "Folders in STS-enabled storage locations can only be placed in folders with the same "
            "storage location",
        )
    if old is None and new is not None:
        raise Refused(400, "Non-STS-enabled folders cannot be placed inside STS-enabled folders")


def check_move(state: State, user_id: int, entity: Entity, new_parent: Entity) -> None:
    """Refuse a move for lack of permission, cycles, or the rules of STS folders."""
    if entity in state.ancestry(new_parent):
        raise Refused(400, "Invalid hierarchy: an entity cannot be an ancestor of itself")
    if not allowed(state, user_id, new_parent, "CREATE"):
        raise Refused(403, f"You cannot move content into the new location, {new_parent.syn_id}.")
    if not allowed(state, user_id, entity, "CHANGE_PERMISSIONS"):
        raise Refused(403, "CHANGE_PERMISSIONS is required to move to a new location")
    if entity.kind == "folder":
        check_folder_move(state, entity, new_parent)


def check_setting(
    state: State, user_id: int, entity: Entity, locations: list[int], old: ProjectSetting | None
) -> None:
    """Refuse an upload setting that the entity cannot have; `old` is what it would replace."""
    if not locations:
        raise Refused(400, "settings.locations must at least have one entry")
    if len(locations) > LOCATIONS_MAX:
        raise Refused(
            400, f"The maximum number of settings.locations is limited to {LOCATIONS_MAX}"
        )
    for number in locations:
        location = state.locations.get(number)
        if location is None:
            raise Refused(400, f"uploadId {number} is not a valid upload destination location")
        if location.kind == "external" and location.created_by != user_id:
            owner = state.users[location.created_by].name
            raise Refused(
                403,
                f"Only the owner of the external S3 upload destination (user {owner}) can add "
                "this upload destination to a project.",
            )
    if entity.kind not in ("project", "folder"):
        raise Refused(400, "The id is not the id of a project or folder entity")
    if old is None:
        if sts_location(state, entity) is not None:
            raise Refused(400, "Can't override project settings in an STS-enabled folder path")
        if entity.number in state.settings:
            raise Refused(
                400,
                f"A project setting of type 'upload' for project {entity.syn_id} already exists.",
            )
    _check_sts_setting(state, entity, locations, old)


def _check_sts_setting(
    state: State, entity: Entity, locations: list[int], old: ProjectSetting | None
) -> None:
    empty = not state.children(entity.number, trashed=True)
    was_sts = old is not None and state.locations[old.locations[0]].sts_enabled
    if not any(state.locations[number].sts_enabled for number in locations):
        if was_sts and not empty:
            raise Refused(400, "Can't disable STS in a non-empty folder")
        return
    if entity.kind != "folder":
        raise Refused(400, "Can only enable STS on a folder")
    if len(locations) > 1:
        raise Refused(400, "An STS-enabled folder cannot add other upload destinations")
    unchanged = old is not None and list(old.locations) == locations
    if not empty and not unchanged:
        raise Refused(400, "Can't enable STS in a non-empty folder")


def check_setting_removal(state: State, setting: ProjectSetting) -> None:
    """Refuse to take STS from a folder that has children, trashed ones included."""
    is_sts = state.locations[setting.locations[0]].sts_enabled
    if is_sts and state.children(setting.entity, trashed=True):
        raise Refused(400, "Can't disable STS in a non-empty folder")


def permissions_json(state: State, user_id: int, entity: Entity) -> dict[str, object]:
    """UserEntityPermissions."""
    has = {
        permission: allowed(state, user_id, entity, permission)
        for permission in ("READ", "DOWNLOAD", "CREATE", "UPDATE", "DELETE", "CHANGE_PERMISSIONS")
    }
    granted = state.permissions(user_id, entity)
    return without_nulls(
        {
            "canView": has["READ"],
            "canEdit": has["UPDATE"],
            "canMove": has["UPDATE"] and has["CHANGE_PERMISSIONS"],
            "canAddChild": has["CREATE"],
            "canCertifiedUserEdit": "UPDATE" in granted,
            "canCertifiedUserAddChild": "CREATE" in granted,
            "isCertifiedUser": state.users[user_id].certified,
            "isCertificationRequired": True,
            "canChangePermissions": has["CHANGE_PERMISSIONS"],
            "canChangeSettings": "CHANGE_SETTINGS" in granted,
            "canDelete": has["DELETE"],
            "canDownload": has["DOWNLOAD"],
            "canUpload": has["CREATE"],
            "canEnableInheritance": entity.number in state.acls and entity.kind != "project",
            "canPublicRead": allowed(state, ANONYMOUS, entity, "READ"),
            "canModerate": "MODERATE" in granted,
            "isEntityOpenData": False,
            "isDataContributor": "UPDATE" in granted,
            "ownerPrincipalId": entity.created_by,
        }
    )
