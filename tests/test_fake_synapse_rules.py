"""The fake Synapse keeps the rules of entities and STS storage locations, in the real words."""

import pytest

from stsfs.demo.fake_synapse.answers import MODEL
from stsfs.demo.fake_synapse.state import ADMIN, READ
from tests.fake_synapse_api import (
    EXTERNAL,
    MANAGED,
    MD5,
    Api,
    at,
    fake_with_bucket,
    new_file,
    new_folder,
    setting,
)


@pytest.fixture
def fake():
    return fake_with_bucket()


@pytest.fixture
def ada(fake):
    fake.state.add_user("ada", token="ada")
    return Api(fake, "ada")


@pytest.fixture
def bob(fake):
    fake.state.add_user("bob", token="bob")
    return Api(fake, "bob")


@pytest.fixture
def project(fake, ada):
    return ada.post("/repo/v1/entity", {"concreteType": f"{MODEL}Project", "name": "P"})["id"]


@pytest.fixture
def sts(ada, project):
    """An empty STS folder on lab/a, and its storage location."""
    folder = ada.folder("sts", project)
    location = ada.location(bucket="lab", baseKey="/a/", stsEnabled=True)
    ada.use(folder, location)
    return folder, location


# Storage locations and their rules.


def test_a_storage_location_is_made_once(ada, bob):
    one = ada.location(bucket="lab", baseKey="a", stsEnabled=True)
    assert ada.location(bucket="lab", baseKey="/a/", stsEnabled=True) == one
    assert ada.location(bucket="lab", baseKey="a") != one
    assert bob.location(bucket="lab", baseKey="a", stsEnabled=True) != one
    assert ada.get(f"/repo/v1/storageLocation/{one}")["baseKey"] == "a"
    assert bob.refusal("GET", f"/repo/v1/storageLocation/{one}")[0] == 403
    assert ada.refusal("GET", "/repo/v1/storageLocation/999")[0] == 404


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"bucket": "lab", "baseKey": "c"}, "Could not find a valid user identifier"),
        ({"bucket": "lab", "baseKey": "d"}, "Did not find S3 object at key d/owner.txt"),
        ({"bucket": "nowhere"}, "Did not find S3 bucket nowhere"),
        ({}, "The bucket name is required."),
        ({"concreteType": MANAGED, "baseKey": "x"}, "Cannot specify baseKey"),
    ],
)
def test_a_storage_location_needs_its_owner_txt(ada, body, words):
    status, reason = ada.refusal(
        "POST", "/repo/v1/storageLocation", {"concreteType": EXTERNAL} | body
    )
    assert status == 400
    assert words in reason


def test_sts_can_be_enabled_on_empty_folders_only_and_alone(ada, project):
    sts = ada.location(bucket="lab", baseKey="a", stsEnabled=True)
    plain = ada.location(bucket="lab", baseKey="b")
    settings = "/repo/v1/projectSettings"
    folder = ada.folder("f", project)
    child = ada.folder("child", folder)
    assert ada.refusal("POST", settings, setting(project, sts)) == (
        400,
        "Can only enable STS on a folder",
    )
    assert ada.refusal("POST", settings, setting(folder, sts, plain)) == (
        400,
        "An STS-enabled folder cannot add other upload destinations",
    )
    for _ in range(2):  # a child in the trash can counts too
        assert ada.refusal("POST", settings, setting(folder, sts)) == (
            400,
            "Can't enable STS in a non-empty folder",
        )
        ada.done("DELETE", f"/repo/v1/entity/{child}")


def test_sts_cannot_be_overridden_below_nor_disabled_when_in_use(ada, sts):
    settings = "/repo/v1/projectSettings"
    plain = ada.location(bucket="lab", baseKey="b")
    own = ada.get(f"{settings}/{sts[0]}/type/upload")
    below = ada.folder("below", sts[0])
    assert ada.call("GET", f"{settings}/{below}/type/upload") == (200, None)
    for entity in (below, sts[0]):
        assert ada.refusal("POST", settings, setting(entity, plain)) == (
            400,
            "Can't override project settings in an STS-enabled folder path",
        )
    disable = (400, "Can't disable STS in a non-empty folder")
    assert ada.refusal("DELETE", f"{settings}/{own['id']}") == disable
    assert ada.refusal("PUT", settings, own | {"locations": [plain]}) == disable
    assert ada.refusal("PUT", settings, own | {"etag": "old"})[0] == 412
    assert ada.call("PUT", settings, own) == (200, None)


def test_only_its_owner_adds_an_external_location(fake, ada, bob, project):
    location = bob.location(bucket="lab", baseKey="b")
    status, reason = ada.refusal("POST", "/repo/v1/projectSettings", setting(project, location))
    assert status == 403
    assert "(user bob)" in reason


def test_upload_destinations_are_inherited(ada, sts, project):
    below = ada.folder("below", sts[0])
    found = ada.get(f"/file/v1/entity/{below}/uploadDestination")
    assert found["concreteType"] == f"{MODEL}file.ExternalS3UploadDestination"
    assert (found["bucket"], found["baseKey"], found["stsEnabled"]) == ("lab", "a", True)
    assert ada.get(f"/file/v1/entity/{below}/uploadDestinations") == {"list": [found]}
    assert ada.get(f"/file/v1/entity/{below}/uploadDestination/{sts[1]}") == found
    assert ada.get(f"/file/v1/entity/{project}/uploadDestination")["storageLocationId"] == 1


def test_below_an_sts_folder_there_is_no_acl_of_its_own(ada, sts):
    below = ada.folder("below", sts[0])
    acl = {"resourceAccess": [{"principalId": 1, "accessType": ["READ"]}]}
    assert ada.refusal("POST", f"/repo/v1/entity/{below}/acl", acl) == (
        400,
        "Cannot override ACLs in a child of an STS-enabled folder",
    )
    assert ada.refusal("GET", f"/repo/v1/entity/{below}/acl")[0] == 404
    acl["resourceAccess"].append(
        {"principalId": int(ada.get("/repo/v1/userProfile")["ownerId"]), "accessType": [*ADMIN]}
    )
    ada.post(f"/repo/v1/entity/{sts[0]}/acl", acl)
    assert ada.get(f"/repo/v1/entity/{sts[0]}/acl")["resourceAccess"][0]["principalId"] == 1


# Files and where they may stand.


def test_objects_are_registered_by_the_owner_of_the_location_only(fake, ada, bob, sts):
    path = "/file/v1/externalFileHandle/s3"
    body = {"storageLocationId": sts[1], "bucketName": "lab", "key": "a/k", "contentMd5": MD5}
    assert ada.handle(sts[1])["contentSize"] == 5
    assert bob.refusal("POST", path, body)[0] == 403
    for change, words in [
        ({"bucketName": "other"}, "does not match the provided bucket: other"),
        ({"key": "b/k"}, "does not match the provided key: b/k"),
        ({"key": "a/absent"}, "Unable to access the file at bucket: lab key: a/absent."),
        ({"contentMd5": "no"}, "hexadecimal string of length 32"),
        ({"contentMd5": ""}, "is required and must not be the empty string"),
        ({"storageLocationId": None}, "FileHandle.storageLocationId is required."),
        ({"storageLocationId": 1}, "was not of the expected type"),
    ]:
        status, reason = ada.refusal("POST", path, body | change)
        assert (status, words in reason) == (400, True), reason


def test_files_stay_in_folders_of_their_own_location(ada, sts, project):
    plain = ada.location(bucket="lab", baseKey="b")
    inside, outside = ada.handle(sts[1])["id"], ada.handle(plain, "b/k")["id"]
    sts_only = (
        400,
        "Files in STS-enabled storage locations can only be placed in folders with the same "
        "storage location",
    )
    assert ada.refusal("POST", "/repo/v1/entity", new_file("f", project, inside)) == sts_only
    assert ada.refusal("POST", "/repo/v1/entity", new_file("f", sts[0], outside)) == (
        400,
        "Folders with STS-enabled storage locations can only accept files with the same "
        "storage location",
    )
    made = ada.file("f", sts[0], inside)
    assert ada.refusal("PUT", f"/repo/v1/entity/{made['id']}", made | at(project)) == sts_only
    below = ada.folder("below", sts[0])
    moved = ada.put(f"/repo/v1/entity/{made['id']}", made | at(below))
    assert moved["parentId"] == below


def test_folders_do_not_cross_the_border_of_sts(ada, sts, project):
    other = ada.folder("other", project)
    ada.use(other, ada.location(bucket="lab", baseKey="b", stsEnabled=True))
    below, plain = ada.folder("below", sts[0]), ada.folder("plain", project)

    def move(folder, parent):
        entity = ada.get(f"/repo/v1/entity/{folder}")
        status, answer = ada.call("PUT", f"/repo/v1/entity/{folder}", entity | at(parent))
        return answer["reason"] if status >= 400 else status

    out = (
        "Folders in STS-enabled storage locations can only be placed in folders with the same "
        "storage location"
    )
    assert move(below, project) == out
    assert move(below, other) == out
    assert move(plain, sts[0]) == (
        "Non-STS-enabled folders cannot be placed inside STS-enabled folders"
    )
    assert move(other, sts[0]) == (
        "Cannot place an STS-enabled folder inside another STS-enabled folder"
    )
    assert move(other, plain) == 200
    assert move(plain, plain).startswith("Invalid hierarchy")


def test_only_files_and_folders_stand_in_sts_folders(ada, sts):
    for kind in (f"{MODEL}Link", f"{MODEL}table.TableEntity"):
        body = {"concreteType": kind, "name": "x"} | at(sts[0])
        assert ada.refusal("POST", "/repo/v1/entity", body) == (
            400,
            "Can only create Files and Folders inside STS-enabled folders",
        )


# Entities in general.


def test_names_are_checked_trimmed_and_unique(ada, project):
    assert ada.refusal("POST", "/repo/v1/entity", new_folder("a/b", project))[0] == 400
    assert ada.refusal("POST", "/repo/v1/entity", new_folder("é", project))[0] == 400
    assert ada.refusal("POST", "/repo/v1/entity", new_folder("x" * 257, project))[0] == 400
    assert ada.refusal("POST", "/repo/v1/entity", new_folder("  ", project))[0] == 400
    first = ada.post("/repo/v1/entity", new_folder(" a ", project))
    assert first["name"] == "a"
    ada.folder("A", project)
    assert ada.refusal("POST", "/repo/v1/entity", new_folder("a", project)) == (
        409,
        f"An entity with the name: a already exists with a parentId: {project}",
    )


def test_a_deleted_entity_is_in_the_trash_and_its_name_is_free(ada, project):
    folder = ada.folder("f", project)
    inside = ada.folder("inside", folder)
    assert ada.call("DELETE", f"/repo/v1/entity/{folder}") == (204, None)
    for gone in (folder, inside):
        assert ada.refusal("GET", f"/repo/v1/entity/{gone}") == (
            404,
            f"Entity {gone} is in trash can.",
        )
    assert ada.call("DELETE", f"/repo/v1/entity/{folder}")[0] == 204
    ada.folder("f", project)


def test_a_change_from_an_old_copy_is_refused(ada, project):
    folder = ada.folder("f", project)
    old = ada.get(f"/repo/v1/entity/{folder}")
    ada.put(f"/repo/v1/entity/{folder}", old | {"name": "g"})
    assert ada.refusal("PUT", f"/repo/v1/entity/{folder}", old)[0] == 412


def test_other_bytes_make_a_new_version_and_the_same_bytes_do_not(ada, sts):
    made = ada.file("f", sts[0], ada.handle(sts[1])["id"])
    path = f"/repo/v1/entity/{made['id']}"
    same = ada.put(path, made | {"dataFileHandleId": ada.handle(sts[1])["id"]})
    assert same["versionNumber"] == 1
    other = ada.handle(sts[1], contentMd5=MD5[::-1])["id"]
    changed = ada.put(path, same | {"dataFileHandleId": other})
    assert (changed["versionNumber"], changed["versionLabel"]) == (2, "2")
    versions = ada.get(f"{path}/version")["results"]
    assert [(v["versionNumber"], v["contentMd5"]) for v in versions] == [(2, MD5[::-1]), (1, MD5)]
    assert not ada.get(f"{path}/version/1")["isLatestVersion"]
    assert ada.call("DELETE", f"{path}/version/1")[0] == 204
    assert ada.refusal("DELETE", f"{path}/version/2")[0] == 400


def test_children_come_in_pages_of_fifty_in_the_order_of_names(ada, project):
    for number in range(120):
        ada.folder(f"{number:03}", project)
    body = {"parentId": project, "includeTypes": ["folder", "unheard-of"]}
    names, token, pages = [], None, 0
    while pages == 0 or token:
        answer = ada.post("/repo/v1/entity/children", body | {"nextPageToken": token})
        names += [entry["name"] for entry in answer["page"]]
        token, pages = answer.get("nextPageToken"), pages + 1
    assert (pages, names) == (3, [f"{number:03}" for number in range(120)])
    assert ada.refusal("POST", "/repo/v1/entity/children", body | {"nextPageToken": "51a0"})[0]
    assert ada.refusal("POST", "/repo/v1/entity/children", body | {"includeTypes": []})[0] == 400


def test_who_may_not_read_sees_redacted_names_and_no_children(fake, ada, bob, sts, project):
    state = fake.state
    folder = state.entities[int(sts[0][3:])]
    state.set_permissions(folder, state.tokens["bob"][0], READ)
    path = bob.get(f"/repo/v1/entity/{sts[0]}/path")["path"]
    assert [entry["name"] for entry in path] == ["root", "Redacted", "sts"]
    made = ada.file("f", sts[0], ada.handle(sts[1])["id"])
    bundle = bob.post(f"/repo/v1/entity/{made['id']}/bundle2", {"includeFileHandles": True})
    assert bundle == {"fileHandles": []}
    assert not bob.get(f"/repo/v1/entity/{made['id']}/permissions")["canDownload"]


def test_a_batch_says_per_file_what_went_wrong(ada, bob, sts):
    handle = ada.handle(sts[1])["id"]
    made = ada.file("f", sts[0], handle)
    body = {
        "includePreSignedURLs": True,
        "requestedFiles": [
            {"fileHandleId": each, "associateObjectId": made["id"]} for each in (handle, "9")
        ],
    }
    found, missing = ada.post("/file/v1/fileHandle/batch", body)["requestedFiles"]
    assert "X-Amz-Expires" in found["preSignedURL"]
    assert missing["failureCode"] == "NOT_FOUND"
    refused, _ = bob.post("/file/v1/fileHandle/batch", body)["requestedFiles"]
    assert refused["failureCode"] == "UNAUTHORIZED"


def test_an_unknown_call_is_answered_like_the_real_server_does(ada):
    status, reason = ada.refusal("GET", "/repo/v1/nothing/here")
    assert status == 404
    assert reason.startswith("GET was not found. Please reference API documentation")
