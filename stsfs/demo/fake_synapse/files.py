"""File handles of the fake Synapse: register, look up, download."""

import re

from flask import Blueprint, Response, redirect
from flask.typing import ResponseReturnValue

from stsfs.demo.fake_synapse import rules
from stsfs.demo.fake_synapse.answers import Json, Refused, destination_json, handle_json
from stsfs.demo.fake_synapse.guard import caller, json_body, needs, services, the_state
from stsfs.demo.fake_synapse.state import (
    ANONYMOUS,
    DEFAULT_LOCATION,
    FileHandle,
    StorageLocation,
)

blueprint = Blueprint("files", __name__)

BATCH_MAX = 100


@blueprint.get("/file/v1/entity/<syn_id>/uploadDestination")
@needs("view")
def destination(syn_id: str) -> ResponseReturnValue:
    """Give the storage location in force; no permission is asked for."""
    state = the_state()
    return destination_json(state.location_of(rules.find(state, syn_id)))


@blueprint.get("/file/v1/entity/<syn_id>/uploadDestination/<int:number>")
@needs("view")
def one_destination(syn_id: str, number: int) -> ResponseReturnValue:
    """Give one of the storage locations in force."""
    for location in _locations(syn_id):
        if location.location_id == number:
            return destination_json(location)
    raise Refused(404, f"The upload destination {number} does not belong to {syn_id}")


@blueprint.get("/file/v1/entity/<syn_id>/uploadDestinations")
@needs("view")
def destinations(syn_id: str) -> ResponseReturnValue:
    """Give all storage locations in force."""
    return {"list": [destination_json(each) for each in _locations(syn_id)]}


@blueprint.get("/file/v1/entity/<syn_id>/uploadDestinationLocations")
@needs("view")
def destination_locations(syn_id: str) -> ResponseReturnValue:
    """Name all storage locations in force."""
    return {
        "list": [
            {"storageLocationId": each.location_id, "uploadType": "S3"}
            for each in _locations(syn_id)
        ]
    }


@blueprint.post("/file/v1/externalFileHandle/s3")
@needs("view", "modify", locked=False)
def register() -> ResponseReturnValue:
    """Make a file handle for an object that is already in the bucket."""
    state, body = the_state(), json_body()
    if caller() == ANONYMOUS:
        raise Refused(403, "Anonymous cannot upload files.")
    with state.lock:
        location = _check_registration(body)
    bucket, key = str(body["bucketName"]), str(body["key"])
    size_bytes = body.get("contentSize")
    storage = services().storage
    if storage is not None:
        found = storage.size_bytes(bucket, key)
        if found is None:
            raise Refused(400, f"Unable to access the file at bucket: {bucket} key: {key}.")
        size_bytes = found if size_bytes is None else size_bytes
    with state.lock:
        handle = FileHandle(
            str(state.next_number()),
            bucket,
            key,
            str(body.get("fileName") or "NOT_SET"),
            str(body.get("contentType") or "NOT_SET"),
            str(body["contentMd5"]).lower(),
            int(size_bytes or 0),
            location.location_id,
            caller(),
            state.now_unix_s(),
        )
        state.handles[handle.handle_id] = handle
    return handle_json(handle)


@blueprint.get("/file/v1/fileHandle/<handle_id>")
@needs("view")
def read_handle(handle_id: str) -> ResponseReturnValue:
    """Give a file handle to who made it."""
    return handle_json(_own_handle(handle_id))


@blueprint.delete("/file/v1/fileHandle/<handle_id>")
@needs("modify")
def delete_handle(handle_id: str) -> ResponseReturnValue:
    """Forget a file handle that no file uses; the object stays, unlike with the real server."""
    state = the_state()
    if handle_id in state.handles:
        _own_handle(handle_id)
    if any(
        revision.file_handle_id == handle_id
        for entity in state.entities.values()
        for revision in entity.revisions
    ):
        raise Refused(409, f"FileHandle {handle_id} is in use.")
    state.handles.pop(handle_id, None)
    return Response(status=204)


@blueprint.get("/file/v1/fileHandle/<handle_id>/url")
@needs("download")
def handle_url(handle_id: str) -> ResponseReturnValue:
    """Send who made a file handle to its object."""
    return redirect(_presigned(_own_handle(handle_id)), code=307)


@blueprint.post("/file/v1/fileHandle/batch")
@needs("view", "download")
def batch() -> ResponseReturnValue:
    """Give file handles and URLs of files that the caller may download."""
    body = json_body()
    asked = body.get("requestedFiles") or []
    flags = ("includeFileHandles", "includePreSignedURLs", "includePreviewPreSignedURLs")
    if len(asked) > BATCH_MAX:
        raise Refused(
            400, f"Request exceeds the maximum number of objects per request: {BATCH_MAX}"
        )
    if not any(body.get(flag) for flag in flags):
        raise Refused(400, "At least one of the include flags must be true.")
    return {"requestedFiles": [_batch_entry(association, body) for association in asked]}, 201


def _batch_entry(association: Json, body: Json) -> Json:
    state = the_state()
    handle_id = str(association.get("fileHandleId"))
    entry: Json = {"fileHandleId": handle_id}
    handle = state.handles.get(handle_id)
    if handle is None:
        return {**entry, "failureCode": "NOT_FOUND"}
    try:
        entity = rules.find(state, association.get("associateObjectId"))
        rules.authorize(state, caller(), entity, "DOWNLOAD")
    except Refused:
        return {**entry, "failureCode": "UNAUTHORIZED"}
    if not any(revision.file_handle_id == handle_id for revision in entity.revisions):
        return {**entry, "failureCode": "UNAUTHORIZED"}
    if body.get("includeFileHandles"):
        entry["fileHandle"] = handle_json(handle)
    if body.get("includePreSignedURLs"):
        entry["preSignedURL"] = _presigned(handle)
    return entry


def _presigned(handle: FileHandle) -> str:
    storage = services().storage
    if storage is None:
        raise Refused(502, "This server was started without an object store.")
    return storage.presigned_get(handle.bucket, handle.key, handle.file_name)


def _locations(syn_id: str) -> list[StorageLocation]:
    state = the_state()
    setting = state.setting_of(rules.find(state, syn_id))
    return [
        state.locations[number]
        for number in (setting.locations if setting else (DEFAULT_LOCATION,))
    ]


def _own_handle(handle_id: str) -> FileHandle:
    handle = the_state().handles.get(handle_id)
    if handle is None:
        raise Refused(404, f"FileHandle with id '{handle_id}' does not exist")
    if handle.created_by != caller():
        raise Refused(403, "Only the creator of a FileHandle can access it directly by its ID.")
    return handle


def _check_registration(body: Json) -> StorageLocation:
    """Return the storage location after the checks, in the real server's order."""
    number = body.get("storageLocationId")
    if number is None:
        raise Refused(400, "FileHandle.storageLocationId is required.")
    for key, word in (("bucketName", "bucket"), ("key", "key"), ("contentMd5", "contentMd5")):
        if not body.get(key):
            raise Refused(400, f"FileHandle.{word} is required and must not be the empty string.")
    if not re.fullmatch(r"[0-9a-fA-F]{32}", str(body["contentMd5"])):
        raise Refused(
            400, "The content MD5 digest must be a valid hexadecimal string of length 32."
        )
    location = the_state().locations.get(int(number))
    if location is None:
        raise Refused(404, f"Storage location setting: '{number}' does not exist")
    name = f"ExternalS3StorageLocationSetting.id={number}"
    if location.kind != "external":
        raise Refused(
            400,
            f"StorageLocationSetting.id={number} was not of the expected type: "
            "org.sagebionetworks.repo.model.project.ExternalS3StorageLocationSetting",
        )
    bucket, key = str(body["bucketName"]), str(body["key"])
    if bucket != location.bucket:
        raise Refused(400, f"The bucket for {name} does not match the provided bucket: {bucket}")
    if location.sts_enabled and not key.startswith(location.base_key):
        raise Refused(400, f"The baseKey for {name} does not match the provided key: {key}")
    if location.created_by != caller():
        raise Refused(
            403,
            f"Only the creator of {name} can create an external S3FileHandle with "
            f"storageLocationId = {number}",
        )
    return location
