"""Storage locations, upload settings and STS credentials of the fake Synapse."""

import json
import re
import uuid

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from stsfs.demo.fake_synapse import rules
from stsfs.demo.fake_synapse.answers import (
    MODEL,
    Json,
    Refused,
    location_json,
    setting_json,
    without_nulls,
)
from stsfs.demo.fake_synapse.guard import caller, json_body, needs, services, the_state
from stsfs.demo.fake_synapse.state import (
    MANAGED_BUCKET,
    Entity,
    ProjectSetting,
    StorageLocation,
    new_etag,
)
from stsfs.demo.fake_synapse.sts import Permission

blueprint = Blueprint("locations", __name__)

_PERMISSIONS: dict[Permission, tuple[str, ...]] = {
    "read_only": ("DOWNLOAD",),
    "read_write": ("DOWNLOAD", "UPDATE", "CREATE", "DELETE"),
}
_EXTERNAL = f"{MODEL}project.ExternalS3StorageLocationSetting"
_MANAGED = f"{MODEL}project.S3StorageLocationSetting"


@blueprint.get("/repo/v1/entity/<syn_id>/sts")
@needs("view", "modify", "download", locked=False)
def sts(syn_id: str) -> ResponseReturnValue:
    """Vend credentials for the whole storage location that governs the entity."""
    wanted = request.args.get("permission")
    permission: Permission
    match wanted:
        case "read_only" | "read_write":
            permission = wanted
        case _:
            raise Refused(400, f"permission must be read_only or read_write, not {wanted}")
    state = the_state()
    with state.lock:
        entity = rules.find(state, syn_id)
        rules.authorize(state, caller(), entity, *_PERMISSIONS[permission])
        location = rules.sts_location(state, entity)
    if location is None:
        raise Refused(400, "Entity must have an STS-enabled storage location")
    if permission == "read_write" and location.kind == "managed":
        raise Refused(400, "STS write access is not allowed in Synapse storage")
    session_name = f"sts-{caller()}-{syn_id}"[:64]
    try:
        vended = services().vendor.vend(
            location.bucket, location.base_key, permission, session_name
        )
    except Exception as exc:
        raise Refused(502, f"AssumeRole failed: {type(exc).__name__}") from exc
    return without_nulls(
        {"bucket": location.bucket, "baseKey": location.base_key or None, **vended}
    )


@blueprint.post("/repo/v1/storageLocation")
@needs("view", "modify", locked=False)
def create_location() -> ResponseReturnValue:
    """Make a storage location, or find the same one that this user made before."""
    state, user_id, body = the_state(), caller(), json_body()
    kind = body.get("concreteType")
    base_key = str(body.get("baseKey") or "").strip("/ \t")
    sts_enabled = body.get("stsEnabled") is True
    made_from = json.dumps([user_id, {**body, "baseKey": base_key}], sort_keys=True)
    bucket = MANAGED_BUCKET
    if kind == _EXTERNAL:
        bucket = _owned_bucket(body, base_key)
    elif kind != _MANAGED:
        raise Refused(400, f"{kind} is not supported by this server.")
    elif base_key:
        raise Refused(400, "Cannot specify baseKey when creating an S3StorageLocationSetting")
    elif sts_enabled:
        base_key = f"{user_id}/{uuid.uuid4()}"
    with state.lock:
        for same in state.locations.values():
            if same.made_from == made_from:
                return location_json(same), 201
        location = StorageLocation(
            state.next_number(),
            "external" if kind == _EXTERNAL else "managed",
            user_id,
            state.now_unix_s(),
            bucket=bucket,
            base_key=base_key,
            sts_enabled=sts_enabled,
            banner=body.get("banner"),
            description=body.get("description"),
            made_from=made_from,
        )
        state.locations[location.location_id] = location
        return location_json(location), 201


@blueprint.get("/repo/v1/storageLocation/<int:number>")
@needs("view")
def read_location(number: int) -> ResponseReturnValue:
    """Give a storage location to who made it."""
    location = the_state().locations.get(number)
    if location is None:
        raise Refused(404, f"Storage location setting: '{number}' does not exist")
    if location.created_by != caller():
        raise Refused(403, "Only the creator can access storage location settings")
    return location_json(location)


@blueprint.get("/repo/v1/storageLocation")
@needs("view")
def own_locations() -> ResponseReturnValue:
    """List the caller's storage locations."""
    own = [each for each in the_state().locations.values() if each.created_by == caller()]
    return {"list": [location_json(each) for each in own]}


@blueprint.post("/repo/v1/projectSettings")
@needs("view", "modify")
def create_setting() -> ResponseReturnValue:
    """Let a project or folder use storage locations."""
    state, body = the_state(), json_body()
    entity = _entity_of_setting(body.get("projectId"), "CREATE", "Cannot create settings for")
    locations = [int(number) for number in body.get("locations", [])]
    rules.check_setting(state, caller(), entity, locations, None)
    setting = ProjectSetting(str(state.next_number()), entity.number, tuple(locations))
    state.settings[entity.number] = setting
    return setting_json(setting), 201


@blueprint.put("/repo/v1/projectSettings")
@needs("view", "modify")
def update_setting() -> ResponseReturnValue:
    """Replace the storage locations of a setting; the answer is empty."""
    body = json_body()
    setting = _setting(str(body.get("id")))
    entity = _entity_of_setting(f"syn{setting.entity}", "UPDATE", "Cannot update settings on")
    if body.get("etag") != setting.etag:
        raise Refused(
            412,
            "Project setting was updated since you last fetched it, retrieve it again and "
            "reapply the update.",
        )
    locations = [int(number) for number in body.get("locations", [])]
    rules.check_setting(the_state(), caller(), entity, locations, setting)
    setting.locations, setting.etag = tuple(locations), new_etag()
    return Response(status=200)


@blueprint.get("/repo/v1/projectSettings/<setting_id>")
@needs("view")
def read_setting(setting_id: str) -> ResponseReturnValue:
    """Give a setting by its own id."""
    setting = _setting(setting_id)
    _entity_of_setting(f"syn{setting.entity}", "READ", "Cannot read settings of")
    return setting_json(setting)


@blueprint.get("/repo/v1/projectSettings/<syn_id>/type/upload")
@needs("view")
def setting_of_entity(syn_id: str) -> ResponseReturnValue:
    """Give the entity's own setting; nothing, not 404, where it has none itself."""
    entity = rules.find(the_state(), syn_id)
    if not rules.allowed(the_state(), caller(), entity, "READ"):
        raise Refused(
            403, f"The current user does not have READ access on the project {entity.syn_id}."
        )
    setting = the_state().settings.get(entity.number)
    return Response(status=200) if setting is None else setting_json(setting)


@blueprint.delete("/repo/v1/projectSettings/<setting_id>")
@needs("modify")
def delete_setting(setting_id: str) -> ResponseReturnValue:
    """Go back to the storage location of the entity above."""
    setting = _setting(setting_id)
    _entity_of_setting(f"syn{setting.entity}", "DELETE", "Cannot delete settings from")
    rules.check_setting_removal(the_state(), setting)
    del the_state().settings[setting.entity]
    return Response(status=204)


def _setting(setting_id: str) -> ProjectSetting:
    for setting in the_state().settings.values():
        if setting.setting_id == setting_id:
            return setting
    raise Refused(404, f"Project setting: '{setting_id}' does not exist")


def _entity_of_setting(syn_id: object, permission: str, refusal: str) -> Entity:
    entity = rules.find(the_state(), syn_id)
    if not rules.allowed(the_state(), caller(), entity, permission):
        raise Refused(403, f"{refusal} this project")
    return entity


def _owned_bucket(body: Json, base_key: str) -> str:
    """Return the bucket after the owner check: owner.txt names the caller."""
    bucket, storage = str(body.get("bucket") or ""), services().storage
    if not bucket:
        raise Refused(400, "The bucket name is required.")
    if storage is None:
        return bucket
    key = f"{base_key}/owner.txt" if base_key else "owner.txt"
    advice = (
        "Synapse needs to establish that the user has permission to write to the bucket. Create "
        f"object {key} in bucket {bucket} containing a line-separated list of user identifiers."
    )
    if not storage.bucket_exists(bucket):
        raise Refused(400, f"Did not find S3 bucket {bucket}. For security purposes, {advice}")
    owners = storage.read(bucket, key)
    if owners is None:
        raise Refused(400, f"Did not find S3 object at key {key} from bucket {bucket}. {advice}")
    named = {word.strip().lower() for word in re.split(r"[,\n]", owners.decode(errors="replace"))}
    if not named - {""}:
        raise Refused(400, f"No user identifier found under key {key}. {advice}")
    user = the_state().users[caller()]
    if not named & {str(user.user_id), user.name.lower(), user.email.lower()}:
        raise Refused(
            400,
            f"Could not find a valid user identifier under key {key} from bucket {bucket}. "
            f"{advice}",
        )
    return bucket
