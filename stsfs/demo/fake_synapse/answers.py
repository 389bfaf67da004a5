"""Refusals and JSON shapes of the fake Synapse, as the real server writes them."""

from typing import Any

from stsfs.demo.fake_synapse.state import (
    Entity,
    FileHandle,
    ProjectSetting,
    Revision,
    State,
    StorageLocation,
    User,
)
from stsfs.demo.fake_synapse.sts import timestamp

Json = dict[str, Any]

MODEL = "org.sagebionetworks.repo.model."
CLASS_OF_KIND = {
    "project": f"{MODEL}Project",
    "folder": f"{MODEL}Folder",
    "file": f"{MODEL}FileEntity",
    "link": f"{MODEL}Link",
    "table": f"{MODEL}table.TableEntity",
    "entityview": f"{MODEL}table.EntityView",
    "submissionview": f"{MODEL}table.SubmissionView",
    "dataset": f"{MODEL}table.Dataset",
    "materializedview": f"{MODEL}table.MaterializedView",
    "dockerrepo": f"{MODEL}docker.DockerRepository",
}
KIND_OF_CLASS = {name: kind for kind, name in CLASS_OF_KIND.items()}
OLD_ETAG = "00000000-0000-0000-0000-000000000000"
VIEW_COLUMNS = {
    "id": "ENTITYID", "name": "STRING", "type": "STRING", "parentId": "ENTITYID",
    "currentVersion": "INTEGER", "etag": "STRING", "createdOn": "DATE", "modifiedOn": "DATE",
    "createdBy": "USERID", "modifiedBy": "USERID", "dataFileHandleId": "FILEHANDLEID",
    "dataFileSizeBytes": "INTEGER", "dataFileMD5Hex": "STRING", "dataFileBucket": "STRING",
    "dataFileKey": "STRING", "dataFileName": "STRING",
}  # fmt: skip
"""Those of every view of files, with their types."""


class Refused(Exception):
    """An answer other than success: a status and an ErrorResponse."""

    def __init__(self, status: int, reason: str, body: Json | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.body = body or {"concreteType": f"{MODEL}ErrorResponse", "reason": reason}


def oauth_refusal(status: int, error: str, description: str) -> Refused:
    """Return a refusal in the form of OAuth errors."""
    body = {
        "concreteType": f"{MODEL}OAuthErrorResponse",
        "error": error,
        "error_description": description,
        "reason": f"{error}. {description}",
    }
    return Refused(status, description, body)


def without_nulls(body: Json) -> Json:
    """Synapse omits what is null."""
    return {key: value for key, value in body.items() if value is not None}


def profile_json(user: User) -> Json:
    """UserProfile."""
    return {
        "ownerId": str(user.user_id),
        "etag": OLD_ETAG,
        "userName": user.name,
        "firstName": user.name.title(),
        "lastName": "",
        "emails": [user.email],
        "createdOn": timestamp(0),
    }


def entity_json(entity: Entity, revision: Revision | None = None) -> Json:
    """Project, Folder or FileEntity; an older version where a revision is given."""
    at = revision or entity.current
    current = at is entity.current
    body: Json = {
        "name": entity.name,
        "description": entity.description,
        "id": entity.syn_id,
        "etag": entity.etag if current else OLD_ETAG,
        "createdOn": timestamp(entity.created_on_unix_s),
        "modifiedOn": timestamp(at.modified_on_unix_s),
        "createdBy": str(entity.created_by),
        "modifiedBy": str(at.modified_by),
        "parentId": None if entity.parent is None else f"syn{entity.parent}",
        "concreteType": CLASS_OF_KIND[entity.kind],
    }
    if entity.kind == "file":
        body |= {
            "versionNumber": at.number,
            "versionLabel": at.label or str(at.number),
            "versionComment": at.comment,
            "isLatestVersion": current,
            "dataFileHandleId": at.file_handle_id,
        }
    if entity.link_to is not None:
        target, version = entity.link_to
        reference = {"targetId": f"syn{target}", "targetVersionNumber": version}
        body["linksTo"] = without_nulls(reference)
        body["linksToClassName"] = CLASS_OF_KIND.get(entity.link_kind or "")
    if entity.kind == "entityview":
        columns = len(VIEW_COLUMNS) + len(entity.annotation_columns)
        body |= {
            "scopeIds": [f"syn{number}" for number in entity.scope],
            "viewTypeMask": 1,
            "columnIds": [str(number) for number in range(1, columns + 1)],
        }
    return without_nulls(body)


def header_json(state: State, entity: Entity) -> Json:
    """EntityHeader."""
    at = entity.current
    return {
        "name": entity.name,
        "id": entity.syn_id,
        "type": CLASS_OF_KIND[entity.kind],
        "versionNumber": at.number,
        "versionLabel": at.label or str(at.number),
        "isLatestVersion": True,
        "benefactorId": state.benefactor(entity).number,
        "createdOn": timestamp(entity.created_on_unix_s),
        "modifiedOn": timestamp(at.modified_on_unix_s),
        "createdBy": str(entity.created_by),
        "modifiedBy": str(at.modified_by),
    }


def version_json(state: State, entity: Entity, revision: Revision) -> Json:
    """VersionInfo."""
    handle = state.handles.get(revision.file_handle_id or "")
    return without_nulls(
        {
            "id": entity.syn_id,
            "versionNumber": revision.number,
            "versionLabel": revision.label or str(revision.number),
            "versionComment": revision.comment,
            "isLatestVersion": revision is entity.current,
            "modifiedBy": str(revision.modified_by),
            "modifiedByPrincipalId": str(revision.modified_by),
            "modifiedOn": timestamp(revision.modified_on_unix_s),
            "contentSize": str(handle.content_size_bytes)
            if handle and handle.content_size_bytes is not None
            else None,
            "contentMd5": handle.content_md5 if handle else None,
        }
    )


def handle_json(handle: FileHandle) -> Json:
    """S3FileHandle."""
    return without_nulls(
        {
            "id": handle.handle_id,
            "etag": handle.etag,
            "createdBy": str(handle.created_by),
            "createdOn": timestamp(handle.created_on_unix_s),
            "modifiedOn": timestamp(handle.created_on_unix_s),
            "concreteType": f"{MODEL}file.S3FileHandle",
            "contentType": handle.content_type,
            "contentMd5": handle.content_md5,
            "fileName": handle.file_name,
            "storageLocationId": handle.storage_location_id,
            "contentSize": handle.content_size_bytes,
            "status": "AVAILABLE",
            "bucketName": handle.bucket,
            "key": handle.key,
            "isPreview": False,
        }
    )


def location_json(location: StorageLocation) -> Json:
    """S3StorageLocationSetting or ExternalS3StorageLocationSetting."""
    external = location.kind == "external"
    name = "ExternalS3StorageLocationSetting" if external else "S3StorageLocationSetting"
    return without_nulls(
        {
            "concreteType": f"{MODEL}project.{name}",
            "storageLocationId": location.location_id,
            "uploadType": "S3",
            "banner": location.banner,
            "description": location.description,
            "etag": location.etag,
            "createdOn": timestamp(location.created_on_unix_s),
            "createdBy": location.created_by,
            "bucket": location.bucket if external else None,
            "baseKey": location.base_key or None,
            "stsEnabled": location.sts_enabled,
        }
    )


def destination_json(location: StorageLocation) -> Json:
    """S3UploadDestination or ExternalS3UploadDestination."""
    external = location.kind == "external"
    name = "ExternalS3UploadDestination" if external else "S3UploadDestination"
    return without_nulls(
        {
            "concreteType": f"{MODEL}file.{name}",
            "storageLocationId": location.location_id,
            "uploadType": "S3",
            "banner": location.banner,
            "bucket": location.bucket if external else None,
            "baseKey": location.base_key or None,
            "stsEnabled": location.sts_enabled,
        }
    )


def setting_json(setting: ProjectSetting) -> Json:
    """UploadDestinationListSetting."""
    return {
        "concreteType": f"{MODEL}project.UploadDestinationListSetting",
        "id": setting.setting_id,
        "projectId": f"syn{setting.entity}",
        "settingsType": "upload",
        "etag": setting.etag,
        "locations": list(setting.locations),
    }
