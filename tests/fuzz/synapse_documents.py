"""What Synapse answers when all is well, and what everybody relies on who has parsed it."""

from stsfs.entities.names import file_name, hidden_label, reason_hidden
from stsfs.entities.properties import properties_of
from stsfs.synapse.records import MODEL

TIMES = {"createdOn": "2020-01-01T00:00:00.000Z", "modifiedOn": "2020-01-02T00:00:00.000Z"}
HEADER = {
    "id": "syn12", "name": "s1.bam", "type": f"{MODEL}FileEntity", "versionNumber": 3,
    "createdBy": "7", "modifiedBy": "8", **TIMES,
}  # fmt: skip
HANDLE = {
    "id": "99", "concreteType": f"{MODEL}file.S3FileHandle", "bucketName": "lab", "key": "b/k",
    "contentSize": 5, "contentMd5": "18eaf55bb6172be2a0c1d8a7d5c4b3f2", "fileName": "k",
    "contentType": "text/plain", "storageLocationId": 4, "createdOn": TIMES["createdOn"],
}  # fmt: skip
CHILDREN = {"page": [HEADER, HEADER | {"id": "syn13"}], "nextPageToken": "50a100",
            "totalChildCount": 2}  # fmt: skip
BUNDLE = {
    "entity": {
        "id": "syn12", "name": "s1.bam", "concreteType": f"{MODEL}FileEntity", "etag": "0-1",
        "parentId": "syn1", "versionNumber": 3, "dataFileHandleId": "99", "createdBy": "7",
        "linksTo": {"targetId": "syn5", "targetVersionNumber": 2}, **TIMES,
    },
    "annotations": {"annotations": {"age": {"type": "LONG", "value": ["3", "4"]}}},
    "fileHandles": [HANDLE],
    "restrictionInformation": {"hasUnmetAccessRequirement": False},
}  # fmt: skip
ROWS = {"headers": [{"name": "a"}, {"name": "b"}], "rows": [{"values": ["1", None]}]}
STS = {
    "bucket": "lab", "baseKey": "a/b", "accessKeyId": "AK", "secretAccessKey": "SK",
    "sessionToken": "T", "expiration": "2030-01-01T00:00:00.000Z",
}  # fmt: skip
DESTINATION = {
    "concreteType": f"{MODEL}file.ExternalS3UploadDestination", "storageLocationId": 5,
    "bucket": "lab", "baseKey": "b", "stsEnabled": True,
}  # fmt: skip
VERSION = {
    "versionNumber": 2, "modifiedOn": TIMES["modifiedOn"], "modifiedByPrincipalId": "7",
    "contentSize": "5", "contentMd5": "0" * 32,
}  # fmt: skip

CALLS = {
    "children": (CHILDREN, lambda client: client.entities.children("syn1")),
    "child": ({"id": "syn3"}, lambda client: client.entities.child_id("syn1", "n")),
    "bundle": (BUNDLE, lambda client: client.entities.bundle("syn12", 3)),
    "headers": ({"results": [HEADER]}, lambda client: client.entities.headers(["syn12"])),
    "versions": ({"results": [VERSION]}, lambda client: client.entities.versions("syn12")),
    "url": (
        {"requestedFiles": [{"preSignedURL": "https://h/k?X=1"}]},
        lambda client: client.entities.presigned_url("99", "syn12"),
    ),
    "columns": (
        {"results": [{"name": "a", "columnType": "STRING"}]},
        lambda client: client.entities.columns("syn9"),
    ),
    "query": (
        {"token": "5", "queryResult": {"queryResults": ROWS, "nextPageToken": {"token": "t"}},
         "queryResults": ROWS, "nextPageToken": {"token": "t"}},
        lambda client: client.entities.query("syn9", "SELECT 1"),
    ),
    "profile": ({"ownerId": "7", "userName": "ada"}, lambda client: client.user_profile()),
    "sts": (STS, lambda client: client.sts_credentials("syn12", "read_only")),
    "type": (
        {"id": "syn1", "name": "n", "type": f"{MODEL}Folder"},
        lambda client: client.entity_header("syn1"),
    ),
    "path": (
        {"path": [{"id": "syn1", "name": "n", "type": f"{MODEL}Folder"}]},
        lambda client: client.entity_path("syn1"),
    ),
    "destination": (DESTINATION, lambda client: client.upload_destination("syn1")),
}  # fmt: skip


async def a_token():
    return "t"


def is_text(text):
    text.encode()
    return True


def check_header(header):
    assert is_text(header.entity_id)
    assert 0 <= header.version < 2**63
    assert is_text(header.kind + header.created_by + header.modified_by)
    reason_hidden(header)
    file_name(header)
    is_text(hidden_label(header, "/"))
    for name, value in properties_of(header, None, {}).items():
        assert is_text(name + value)
