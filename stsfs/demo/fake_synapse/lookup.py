"""What can be asked of the fake Synapse about users and entities; changes annotations only."""

from collections.abc import Callable

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue

from stsfs.demo.fake_synapse import rules
from stsfs.demo.fake_synapse.answers import (
    OLD_ETAG,
    Json,
    Refused,
    entity_json,
    handle_json,
    header_json,
    profile_json,
    version_json,
)
from stsfs.demo.fake_synapse.entities import acl_json, check_etag, revision_of
from stsfs.demo.fake_synapse.guard import caller, json_body, needs, the_state
from stsfs.demo.fake_synapse.state import Entity, Revision

blueprint = Blueprint("lookup", __name__)

PAGE = 50
_SORT_KEYS: dict[str, Callable[[Entity], tuple[object, int]]] = {
    "NAME": lambda entity: (entity.name, entity.number),
    "CREATED_ON": lambda entity: (entity.created_on_unix_s, entity.number),
    "MODIFIED_ON": lambda entity: (entity.current.modified_on_unix_s, entity.number),
}


@blueprint.get("/")
@blueprint.get("/repo/v1")
@blueprint.get("/auth/v1")
@blueprint.get("/file/v1")
def root() -> ResponseReturnValue:
    """Clients look here for redirections of a whole service."""
    return {}


@blueprint.get("/repo/v1/status")
def status() -> ResponseReturnValue:
    """Say that the stack is up."""
    return {"status": "READ_WRITE"}


@blueprint.get("/repo/v1/version")
def version() -> ResponseReturnValue:
    """Name the version of the stack."""
    return {"version": "demo", "stackInstance": "demo"}


@blueprint.get("/repo/v1/userProfile")
@needs("view")
def own_profile() -> ResponseReturnValue:
    """Say who the token belongs to."""
    return profile_json(the_state().users[caller()])


@blueprint.get("/repo/v1/userProfile/<int:user_id>")
@needs("view")
def profile(user_id: int) -> ResponseReturnValue:
    """Give the profile of any user."""
    user = the_state().users.get(user_id)
    if user is None:
        raise Refused(404, f"UserProfile cannot be found for: {user_id}")
    return profile_json(user)


@blueprint.get("/repo/v1/entity/<syn_id>/type")
@needs("view")
def header(syn_id: str) -> ResponseReturnValue:
    """Give the EntityHeader."""
    return header_json(the_state(), _readable(syn_id))


@blueprint.get("/repo/v1/entity/<syn_id>/path")
@needs("view")
def path(syn_id: str) -> ResponseReturnValue:
    """Give the way from the root, with names hidden that the caller may not read."""
    return _path_json(_readable(syn_id))


@blueprint.get("/repo/v1/entity/<syn_id>/permissions")
@needs("view")
def permissions(syn_id: str) -> ResponseReturnValue:
    """Give what the caller may do; the only call that an unreadable entity answers."""
    return rules.permissions_json(the_state(), caller(), rules.find(the_state(), syn_id))


@blueprint.get("/repo/v1/entity/<syn_id>/benefactor")
@needs("view")
def benefactor(syn_id: str) -> ResponseReturnValue:
    """Name the entity whose ACL counts."""
    return header_json(the_state(), the_state().benefactor(_readable(syn_id)))


@blueprint.post("/repo/v1/entity/header")
@needs("view")
def headers() -> ResponseReturnValue:
    """Give several EntityHeaders; unknown and unreadable ones are left out."""
    state = the_state()
    found = []
    for reference in json_body().get("references", []):
        try:
            found.append(header_json(state, _readable(str(reference.get("targetId")))))
        except Refused:
            continue
    return {"results": found, "totalNumberOfResults": len(found)}


@blueprint.get("/repo/v1/entity/<syn_id>/version")
@needs("view")
def versions(syn_id: str) -> ResponseReturnValue:
    """List the versions, newest first."""
    entity = _readable(syn_id)
    offset, limit = request.args.get("offset", 0, int), request.args.get("limit", 10, int)
    newest_first = entity.revisions[::-1]
    return {
        "results": [
            version_json(the_state(), entity, revision)
            for revision in newest_first[offset : offset + limit]
        ],
        "totalNumberOfResults": len(newest_first),
    }


@blueprint.get("/repo/v1/entity/<syn_id>/version/<int:number>")
@needs("view")
def old_version(syn_id: str, number: int) -> ResponseReturnValue:
    """Give an entity as it was."""
    entity = _readable(syn_id)
    return entity_json(entity, revision_of(entity, number))


@blueprint.get("/repo/v1/entity/<syn_id>/version/<int:number>/generatedBy")
@blueprint.get("/repo/v1/entity/<syn_id>/generatedBy", defaults={"number": 0})
@needs("view")
def generated_by(syn_id: str, number: int) -> ResponseReturnValue:
    """There is no provenance here."""
    raise Refused(404, f"No activity is associated with {_readable(syn_id).syn_id}")


@blueprint.get("/repo/v1/entity/<syn_id>/filehandles")
@needs("view")
def file_handles(syn_id: str) -> ResponseReturnValue:
    """List the file handles of an entity."""
    entity = _readable(syn_id)
    rules.authorize(the_state(), caller(), entity, "DOWNLOAD")
    return {"list": _handles_json(entity.current)}


@blueprint.post("/repo/v1/entity/children")
@needs("view")
def children() -> ResponseReturnValue:
    """List a container, 50 entries to a page, without what the caller may not see."""
    state, body = the_state(), json_body()
    types = body.get("includeTypes")
    if types is None:
        raise Refused(400, "EntityChildrenRequest.includeTypes is required.")
    if not types:
        raise Refused(400, "EntityChildrenRequest.includeTypes must include at least one type")
    parent = _readable(str(body.get("parentId") or "syn4489"))
    limit, offset = _page_of(body.get("nextPageToken"))
    shown = [
        entity
        for entity in state.children(parent.number)
        # What has no ACL of its own can be read by whoever can read its parent.
        if entity.kind in types
        and (entity.number not in state.acls or rules.allowed(state, caller(), entity, "READ"))
    ]
    key = _SORT_KEYS.get(str(body.get("sortBy") or "NAME"), _SORT_KEYS["NAME"])
    shown.sort(key=key, reverse=body.get("sortDirection") == "DESC")
    answer: Json = {
        "page": [header_json(state, entity) for entity in shown[offset : offset + limit]]
    }
    if len(shown) > offset + limit:
        answer["nextPageToken"] = f"{limit}a{offset + limit}"
    if body.get("includeTotalChildCount"):
        answer["totalChildCount"] = len(shown)
    if body.get("includeSumFileSizes"):
        handles = (state.handles.get(entity.current.file_handle_id or "") for entity in shown)
        answer["sumFileSizesBytes"] = sum(each.content_size_bytes or 0 for each in handles if each)
    return answer


@blueprint.post("/repo/v1/entity/child")
@needs("view")
def child() -> ResponseReturnValue:
    """Find a child by its name."""
    state, body = the_state(), json_body()
    name = body.get("entityName")
    parent = rules.find(state, body.get("parentId") or "syn4489")
    if not rules.allowed(state, caller(), parent, "READ"):
        raise Refused(403, "Lack of READ permission on the parent entity.")
    found = state.child(parent.number, str(name))
    if found is None:
        raise Refused(404, f"Child not found for parent: '{parent.syn_id}' with name: '{name}'")
    return {"id": found.syn_id}


@blueprint.post("/repo/v1/entity/<syn_id>/bundle2", defaults={"number": None})
@blueprint.post("/repo/v1/entity/<syn_id>/version/<int:number>/bundle2")
@needs("view")
def bundle(syn_id: str, number: int | None) -> ResponseReturnValue:
    """Give several things about an entity at once: those whose flag is set."""
    asked = json_body()
    entity = _readable(syn_id)
    revision = entity.current if number is None else revision_of(entity, number)
    parts: dict[str, tuple[str, Callable[[], object]]] = {
        "includeEntity": ("entity", lambda: entity_json(entity, revision)),
        "includeAnnotations": ("annotations", lambda: _annotations_json(entity, revision)),
        "includePermissions": (
            "permissions",
            lambda: rules.permissions_json(the_state(), caller(), entity),
        ),
        "includeEntityPath": ("path", lambda: _path_json(entity)),
        "includeHasChildren": (
            "hasChildren",
            lambda: bool(the_state().children(entity.number)),
        ),
        "includeFileHandles": ("fileHandles", lambda: _visible_handles(entity, revision)),
        "includeRestrictionInformation": (
            "restrictionInformation",
            lambda: _restriction_json(entity),
        ),
        "includeBenefactorACL": (
            "benefactorAcl",
            lambda: acl_json(the_state().benefactor(entity)),
        ),
    }
    answer = {name: make() for flag, (name, make) in parts.items() if asked.get(flag)}
    if asked.get("includeEntity"):
        answer["entityType"] = entity.kind
    if asked.get("includeAccessControlList") and entity.number in the_state().acls:
        answer["accessControlList"] = acl_json(entity)
    if asked.get("includeFileName") and revision.file_handle_id:
        answer["fileName"] = the_state().handles[revision.file_handle_id].file_name
    return jsonify(answer)


@blueprint.get("/repo/v1/entity/<syn_id>/annotations2", defaults={"number": None})
@blueprint.get("/repo/v1/entity/<syn_id>/version/<int:number>/annotations2")
@needs("view")
def annotations(syn_id: str, number: int | None) -> ResponseReturnValue:
    """Give the annotations; every version has its own."""
    entity = _readable(syn_id)
    return _annotations_json(
        entity, entity.current if number is None else revision_of(entity, number)
    )


@blueprint.put("/repo/v1/entity/<syn_id>/annotations2")
@needs("view", "modify")
def set_annotations(syn_id: str) -> ResponseReturnValue:
    """Replace the annotations."""
    entity, body = rules.find(the_state(), syn_id), json_body()
    rules.authorize(the_state(), caller(), entity, "UPDATE")
    check_etag(entity, body.get("etag"))
    entity.annotations = dict(body.get("annotations", {}))
    the_state().touch(entity, caller())
    return _annotations_json(entity, entity.current)


@blueprint.app_errorhandler(404)
def unknown_call(_: Exception) -> ResponseReturnValue:
    """Answer paths that this server does not know as the real one does."""
    return Response(
        '{"concreteType":"org.sagebionetworks.repo.model.ErrorResponse","reason":"'
        f"{request.method} was not found. Please reference API documentation at "
        'https://rest-docs.synapse.org/rest/"}',
        status=404,
        mimetype="application/json",
    )


def _readable(syn_id: str) -> Entity:
    entity = rules.find(the_state(), syn_id)
    rules.authorize(the_state(), caller(), entity, "READ")
    return entity


def _page_of(token: str | None) -> tuple[int, int]:
    if token is None:
        return PAGE, 0
    limit, separator, offset = token.partition("a")
    if not separator or not limit.isdecimal() or not offset.isdecimal():
        raise Refused(400, f"Unknow token format: {token}")
    if int(limit) > PAGE:
        raise Refused(400, f"Limit must not exceed: {PAGE}")
    return int(limit), int(offset)


def _path_json(entity: Entity) -> Json:
    state = the_state()
    entries = []
    for each in reversed(list(state.ancestry(entity))):
        entry = {key: header_json(state, each)[key] for key in ("name", "id", "type")}
        if not rules.allowed(state, caller(), each, "READ"):
            entry["name"] = "Redacted"
        entries.append(entry)
    return {"path": entries}


def _annotations_json(entity: Entity, revision: Revision) -> Json:
    etag = entity.etag if revision is entity.current else OLD_ETAG
    return {"id": entity.syn_id, "etag": etag, "annotations": revision.annotations}


def _handles_json(revision: Revision) -> list[Json]:
    handle = the_state().handles.get(revision.file_handle_id or "")
    return [handle_json(handle)] if handle else []


def _visible_handles(entity: Entity, revision: Revision) -> list[Json]:
    return (
        _handles_json(revision) if rules.allowed(the_state(), caller(), entity, "DOWNLOAD") else []
    )


def _restriction_json(entity: Entity) -> Json:
    state = the_state()
    conditions = [
        state.unmet_requirements[each.number]
        for each in state.ancestry(entity)
        if each.number in state.unmet_requirements
    ]
    return {
        "objectId": entity.number,
        "restrictionLevel": "CONTROLLED_BY_ACT" if conditions else "OPEN",
        "hasUnmetAccessRequirement": any(caller() in users for users in conditions),
        "restrictionDetails": [],
    }
