"""Entities in the fake Synapse: make, change, move, delete."""

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from stsfs.demo.fake_synapse import rules
from stsfs.demo.fake_synapse.answers import KIND_OF_CLASS, Json, Refused, entity_json
from stsfs.demo.fake_synapse.guard import caller, json_body, needs, the_state
from stsfs.demo.fake_synapse.state import (
    ROOT,
    Entity,
    FileHandle,
    Kind,
    Revision,
)

blueprint = Blueprint("entities", __name__)

VERSIONS_MAX = 15_000


@blueprint.post("/repo/v1/entity")
@needs("view", "modify")
def create() -> ResponseReturnValue:
    """Make a project, folder, file or link."""
    state, user_id, body = the_state(), caller(), json_body()
    kind = KIND_OF_CLASS.get(str(body.get("concreteType")))
    known = _known_kind(kind)
    if kind == "project":
        parent = state.entities[ROOT]
    else:
        parent = rules.parent_for(state, user_id, body.get("parentId"))
        rules.check_kind(state, kind, parent)
    if known is None:
        raise Refused(400, f"{body.get('concreteType')} is not supported by this server.")
    name = None if body.get("name") is None else rules.valid_name(body["name"])
    handle = _handle_of(body) if known == "file" else None
    if name is not None:
        rules.check_place(state, parent, name)
    if handle is not None:
        _check_handle(handle, parent)
    entity = state.insert(
        known, name, parent.number, user_id, handle=handle.handle_id if handle else None
    )
    entity.description = body.get("description")
    if known == "link":
        _link(entity, body)
    _label(entity.current, body)
    return entity_json(entity), 201


@blueprint.get("/repo/v1/entity/<syn_id>")
@needs("view")
def read(syn_id: str) -> ResponseReturnValue:
    """Give an entity as it is."""
    entity = rules.find(the_state(), syn_id)
    rules.authorize(the_state(), caller(), entity, "READ")
    return entity_json(entity)


@blueprint.put("/repo/v1/entity/<syn_id>")
@needs("view", "modify")
def update(syn_id: str) -> ResponseReturnValue:
    """Replace an entity: rename, move, new version."""
    state, user_id, body = the_state(), caller(), json_body()
    entity = rules.find(state, syn_id)
    rules.authorize(state, user_id, entity, "UPDATE")
    check_etag(entity, body.get("etag"))
    if KIND_OF_CLASS.get(str(body.get("concreteType"))) != entity.kind:
        raise Refused(400, "The type of an entity cannot be changed.")
    parent = rules.find(state, body.get("parentId") or f"syn{entity.parent}")
    if parent.number != entity.parent:
        rules.check_move(state, user_id, entity, parent)
    name = rules.valid_name(body.get("name") or entity.name)
    rules.check_place(state, parent, name, itself=entity)
    if entity.kind == "file":
        handle = _handle_of(body)
        _check_handle(handle, parent, unless_changed=entity)
        _set_handle(entity, handle, force=request.args.get("newVersion") == "true")
        _label(entity.current, body)
    entity.name = name
    state.move(entity, parent.number)
    entity.description = body.get("description")
    state.touch(entity, user_id)
    return entity_json(entity)


@blueprint.delete("/repo/v1/entity/<syn_id>")
@needs("modify")
def delete(syn_id: str) -> ResponseReturnValue:
    """Move an entity to the trash can; the objects stay, the name is free again."""
    state = the_state()
    entity = rules.find(state, syn_id)
    if state.in_trash(entity):
        return Response(status=204)
    rules.authorize(state, caller(), entity, "DELETE")
    entity.trashed = True
    if entity.kind != "project":
        state.acls.pop(entity.number, None)
    return Response(status=204)


@blueprint.delete("/repo/v1/entity/<syn_id>/version/<int:number>")
@needs("modify")
def delete_version(syn_id: str, number: int) -> ResponseReturnValue:
    """Forget one version, but never the last."""
    entity = rules.find(the_state(), syn_id)
    rules.authorize(the_state(), caller(), entity, "DELETE")
    revision = revision_of(entity, number)
    if len(entity.revisions) == 1:
        raise Refused(400, "Cannot delete the last version of a node")
    entity.revisions.remove(revision)
    the_state().touch(entity, caller())
    return Response(status=204)


@blueprint.put("/repo/v1/entity/<syn_id>/version/<int:number>/filehandle")
@needs("view", "modify")
def replace_handle(syn_id: str, number: int) -> ResponseReturnValue:
    """Point a version at another file handle with the same bytes."""
    state, body = the_state(), json_body()
    entity = rules.find(state, syn_id)
    rules.authorize(state, caller(), entity, "UPDATE")
    revision = revision_of(entity, number)
    new = _handle_of({"dataFileHandleId": body.get("newFileHandleId")})
    old = state.handles.get(str(body.get("oldFileHandleId")))
    if old is None or old.handle_id != revision.file_handle_id:
        raise Refused(412, "The file handle of the version is not the one given as the old one.")
    if old.content_md5 != new.content_md5:
        raise Refused(412, "The MD5s of the file handles differ.")
    parent = rules.find(state, f"syn{entity.parent}")
    _check_handle(new, parent)
    revision.file_handle_id = new.handle_id
    state.touch(entity, caller())
    return Response(status=200)


@blueprint.post("/repo/v1/entity/<syn_id>/acl")
@needs("view", "modify")
def create_acl(syn_id: str) -> ResponseReturnValue:
    """Give an entity an ACL of its own."""
    state, body = the_state(), json_body()
    entity = rules.find(state, syn_id)
    rules.authorize(state, caller(), entity, "CHANGE_PERMISSIONS")
    if rules.sts_location(state, entity) is not None and entity.number not in state.settings:
        raise Refused(400, "Cannot override ACLs in a child of an STS-enabled folder")
    if entity.number in state.acls:
        raise Refused(403, f"Resource already has an ACL: {entity.syn_id}")
    state.acls[entity.number] = {
        int(access["principalId"]): frozenset(access["accessType"])
        for access in body.get("resourceAccess", [])
    }
    return acl_json(entity), 201


@blueprint.get("/repo/v1/entity/<syn_id>/acl")
@needs("view")
def read_acl(syn_id: str) -> ResponseReturnValue:
    """Give the ACL; 404 for an entity that inherits, naming the one that has it."""
    state = the_state()
    entity = rules.find(state, syn_id)
    rules.authorize(state, caller(), entity, "READ")
    if entity.number not in state.acls:
        raise Refused(
            404,
            f"The requested ACL does not exist. This entity inherits its permissions from: "
            f"{state.benefactor(entity).syn_id}",
        )
    return acl_json(entity)


def acl_json(entity: Entity) -> Json:
    """AccessControlList."""
    return {
        "id": entity.syn_id,
        "etag": entity.etag,
        "resourceAccess": [
            {"principalId": principal, "accessType": sorted(permissions)}
            for principal, permissions in the_state().acls[entity.number].items()
        ],
    }


def check_etag(entity: Entity, etag: object) -> None:
    """Refuse a change that was made from an outdated copy."""
    if etag != entity.etag:
        raise Refused(
            412,
            f"Object: {entity.syn_id} was updated since you last fetched it, retrieve it again "
            "and re-apply the update",
        )


def revision_of(entity: Entity, number: int) -> Revision:
    """Return one version; 404 where it does not exist."""
    for revision in entity.revisions:
        if revision.number == number:
            return revision
    raise Refused(404, f"Version {number} of {entity.syn_id} does not exist")


def _known_kind(kind: str | None) -> Kind | None:
    match kind:
        case "project" | "folder" | "file" | "link":
            return kind
    return None


def _link(entity: Entity, body: Json) -> None:
    reference = body.get("linksTo") or {}
    if not reference.get("targetId"):
        raise Refused(400, "linksTo.targetId is required.")
    target = rules.find(the_state(), str(reference["targetId"]))
    version = reference.get("targetVersionNumber")
    entity.link_to = target.number, None if version is None else int(version)
    entity.link_kind = target.kind


def _handle_of(body: Json) -> FileHandle:
    handle_id = body.get("dataFileHandleId")
    if handle_id is None:
        raise Refused(400, "FileEntity.dataFileHandleId cannot be null")
    handle = the_state().handles.get(str(handle_id))
    if handle is None:
        raise Refused(404, f"FileHandle with id '{handle_id}' does not exist")
    return handle


def _check_handle(
    handle: FileHandle, parent: Entity, *, unless_changed: Entity | None = None
) -> None:
    used = unless_changed is not None and unless_changed.current.file_handle_id == handle.handle_id
    if handle.created_by != caller() and not used:
        raise Refused(
            403, f"Only the creator of a FileHandle can use it. FileHandleId = {handle.handle_id}"
        )
    rules.check_file_place(the_state(), handle, parent)


def _set_handle(entity: Entity, handle: FileHandle, *, force: bool) -> None:
    """Make a new version where the bytes differ, else swap the handle in place."""
    state, current = the_state(), entity.current
    old = state.handles.get(current.file_handle_id or "")
    changed = old is None or old.content_md5 != handle.content_md5
    if not force and not changed:
        current.file_handle_id = handle.handle_id
        return
    if len(entity.revisions) >= VERSIONS_MAX:
        raise Refused(400, f"Exceeded the maximum number of versions: {VERSIONS_MAX}")
    entity.new_version(state.now_unix_s(), caller(), handle.handle_id)


def _label(revision: Revision, body: Json) -> None:
    revision.comment = body.get("versionComment")
    if revision.number == body.get("versionNumber", revision.number):
        revision.label = body.get("versionLabel") or revision.label
