"""Versions, annotations, links and handles of the fake Synapse change as with the real one."""

import itertools
from datetime import UTC, datetime

import pytest

from stsfs.demo.fake_synapse import seeds
from stsfs.demo.fake_synapse.answers import MODEL, OLD_ETAG
from stsfs.demo.fake_synapse.state import ALL_SCOPES, DEFAULT_LOCATION, DOWNLOAD, READ
from tests.fake_synapse_api import MD5, Api, at, fake_with_bucket

BUNDLE = dict.fromkeys(
    ("includeEntity", "includeAnnotations", "includeFileHandles", "includeRestrictionInformation"),
    True,
)


@pytest.fixture
def fake():
    made = fake_with_bucket()
    ticks = itertools.count(1_700_000_000)
    made.state.now_unix_s = lambda: next(ticks)
    return made


@pytest.fixture
def state(fake):
    return fake.state


@pytest.fixture
def user(state):
    return state.add_user("ada", token="ada")


@pytest.fixture
def ada(fake, user):
    return Api(fake, "ada")


@pytest.fixture
def folder(state, user):
    project = state.add_project("P", user)
    return state.add_sts_folder("sts", project, user, bucket="lab", base_key="a")


@pytest.fixture
def file(state, user, folder):
    return state.add_file("f", folder, user, key="a/1", size_bytes=5, md5=MD5)


def path_of(entity, *parts):
    return "/".join(["/repo/v1/entity", entity.syn_id, *map(str, parts)])


def page(ada, parent, *types):
    body = {"parentId": parent.syn_id, "includeTypes": types or ["file", "folder"]}
    return ada.post("/repo/v1/entity/children", body)["page"]


# What a change leaves behind.


def change_annotations(ada, state, user, file):
    body = ada.get(path_of(file, "annotations2"))
    ada.put(path_of(file, "annotations2"), body | {"annotations": {}})


def change_entity(ada, state, user, file):
    ada.put(path_of(file), ada.get(path_of(file)) | {"description": "new"})


def change_handle(ada, state, user, file):
    old = file.current.file_handle_id
    new = state.new_handle("f", state.entities[file.parent], user, "a/2", 5, MD5).handle_id
    body = {"oldFileHandleId": old, "newFileHandleId": new}
    ada.put(path_of(file, "version", 1, "filehandle"), body)


def delete_old_version(ada, state, user, file):
    seeds.add_version(state, file, user, key="a/2", size_bytes=6, md5=MD5[::-1])
    ada.done("DELETE", path_of(file, "version", 1))


@pytest.mark.parametrize(
    "change", [change_annotations, change_entity, change_handle, delete_old_version]
)
def test_every_change_gives_another_etag_and_time(ada, state, user, file, change):
    before = ada.get(path_of(file))
    change(ada, state, user, file)
    after = ada.get(path_of(file))
    assert after["etag"] != before["etag"]
    assert after["modifiedOn"] > before["modifiedOn"]
    assert after["createdOn"] == before["createdOn"]


def test_a_handle_is_replaced_in_place_by_one_with_the_same_md5_only(
    ada, state, user, folder, file
):
    path, old = path_of(file, "version", 1, "filehandle"), file.current.file_handle_id
    other = state.new_handle("f", folder, user, "a/2", 5, MD5[::-1]).handle_id
    same = state.new_handle("f", folder, user, "a/3", 5, MD5).handle_id
    for body in (
        {"oldFileHandleId": old, "newFileHandleId": other},
        {"oldFileHandleId": other, "newFileHandleId": same},
    ):
        assert ada.refusal("PUT", path, body)[0] == 412
    ada.put(path, {"oldFileHandleId": old, "newFileHandleId": same})
    after = ada.get(path_of(file))
    assert (after["versionNumber"], after["dataFileHandleId"]) == (1, same)


def test_the_number_of_a_deleted_version_is_not_used_again(ada, state, user, file):
    seeds.add_version(state, file, user, key="a/2", size_bytes=6, md5=MD5[::-1])
    ada.done("DELETE", path_of(file, "version", 2))
    assert ada.get(path_of(file))["versionNumber"] == 1
    assert ada.refusal("GET", path_of(file, "version", 2))[0] == 404
    made = seeds.add_version(state, file, user, key="a/3", size_bytes=6, md5=MD5[::-1])
    assert made.number == 3


def test_every_version_has_annotations_of_its_own(ada, state, user, file):
    moment = datetime(2024, 1, 2, tzinfo=UTC)
    seeds.annotate(state, file, user, {"tissue": ["blood"], "ok": [True], "taken": [moment]})
    seeds.add_version(state, file, user, key="a/2", size_bytes=6, md5=MD5[::-1])
    new = ada.get(path_of(file, "annotations2"))
    assert new["annotations"] == {
        "tissue": {"type": "STRING", "value": ["blood"]},
        "ok": {"type": "BOOLEAN", "value": ["true"]},
        "taken": {"type": "TIMESTAMP_MS", "value": ["1704153600000"]},
    }
    seeds.annotate(state, file, user, {"n": [1, 2], "x": [0.5]})
    bundles = [ada.post(path_of(file, "version", n, "bundle2"), BUNDLE) for n in (1, 2)]
    assert bundles[0]["annotations"]["annotations"] == new["annotations"]
    assert bundles[0]["annotations"]["etag"] == OLD_ETAG
    assert bundles[1]["annotations"]["annotations"] == {
        "n": {"type": "LONG", "value": ["1", "2"]},
        "x": {"type": "DOUBLE", "value": ["0.5"]},
    }
    assert ada.get(path_of(file, "version", 1, "annotations2")) == bundles[0]["annotations"]


# Who sees what of a file.


def test_without_download_a_bundle_has_no_handles_but_versions_tell_size_and_md5(
    fake, state, user, folder, file
):
    bob = state.add_user("bob", token="bob")
    api = Api(fake, "bob")
    state.set_permissions(folder, bob.user_id, READ)
    lacking = api.post(path_of(file, "bundle2"), BUNDLE)
    assert lacking["fileHandles"] == []
    assert not lacking["restrictionInformation"]["hasUnmetAccessRequirement"]
    state.set_permissions(folder, bob.user_id, DOWNLOAD)
    state.unmet_requirements[folder.number] = {bob.user_id}
    unmet = api.post(path_of(file, "bundle2"), BUNDLE)
    assert unmet["fileHandles"] == []
    assert unmet["restrictionInformation"]["hasUnmetAccessRequirement"]
    (version,) = api.get(path_of(file, "version"))["results"]
    assert (version["contentSize"], version["contentMd5"]) == ("5", MD5)
    state.unmet_requirements.clear()
    (handle,) = api.post(path_of(file, "bundle2"), BUNDLE)["fileHandles"]
    assert (handle["bucketName"], handle["key"], handle["contentSize"]) == ("lab", "a/1", 5)


def test_a_handle_may_lie_elsewhere_and_its_size_may_be_unknown(ada, state, user, folder):
    outside = state.add_file(
        "o", folder, user, key="x", size_bytes=None, md5=MD5, bucket="elsewhere"
    )
    (handle,) = ada.post(path_of(outside, "bundle2"), BUNDLE)["fileHandles"]
    assert (handle["bucketName"], handle["storageLocationId"]) == ("elsewhere", DEFAULT_LOCATION)
    assert "contentSize" not in handle
    (version,) = ada.get(path_of(outside, "version"))["results"]
    assert "contentSize" not in version


# What stands where.


def test_a_link_names_its_target_and_the_class_of_that(ada, state, user, folder, file):
    link = seeds.add_link(state, "l", folder, user, file, 1)
    told = ada.get(path_of(link))
    assert told["concreteType"] == f"{MODEL}Link"
    assert told["linksTo"] == {"targetId": file.syn_id, "targetVersionNumber": 1}
    assert told["linksToClassName"] == f"{MODEL}FileEntity"
    project = state.entities[folder.parent]
    body = {"concreteType": f"{MODEL}Link", "name": "m"} | at(project.syn_id)
    made = ada.post("/repo/v1/entity", body | {"linksTo": {"targetId": folder.syn_id}})
    assert made["linksTo"] == {"targetId": folder.syn_id}
    assert made["linksToClassName"] == f"{MODEL}Folder"
    assert ada.refusal("POST", "/repo/v1/entity", body | {"name": "n"})[0] == 400


def test_what_is_neither_file_nor_folder_is_listed_if_asked_for(ada, state, user, folder):
    kinds = {"table": "table.TableEntity", "submissionview": "table.SubmissionView",
             "dockerrepo": "docker.DockerRepository"}  # fmt: skip
    for kind in kinds:
        seeds.add_table(state, f"a {kind}", folder, user, kind)
    assert page(ada, folder) == []
    found = {entry["name"]: entry["type"] for entry in page(ada, folder, *kinds)}
    assert found == {f"a {kind}": MODEL + name for kind, name in kinds.items()}


def test_children_follow_renames_moves_and_the_trash(ada, state, user, folder, file):
    below = state.add_folder("below", folder, user)
    seeds.rename(state, file, "g", user)
    assert [entry["name"] for entry in page(ada, folder)] == ["below", "g"]
    seeds.move(state, file, below, user)
    assert [entry["name"] for entry in page(ada, folder)] == ["below"]
    assert [entry["name"] for entry in page(ada, below)] == ["g"]
    question = {"parentId": below.syn_id, "entityName": "g"}
    assert ada.post("/repo/v1/entity/child", question) == {"id": file.syn_id}
    seeds.trash(state, file)
    assert page(ada, below) == []
    assert ada.refusal("POST", "/repo/v1/entity/child", question)[0] == 404


def test_a_child_with_an_acl_of_its_own_is_listed_to_those_in_it(fake, state, user, folder):
    open_one, closed = (state.add_folder(name, folder, user) for name in ("open", "closed"))
    bob = state.add_user("bob", token="bob")
    state.set_permissions(folder, bob.user_id, READ)
    state.set_permissions(closed, bob.user_id, frozenset())
    assert [entry["id"] for entry in page(Api(fake, "bob"), folder)] == [open_one.syn_id]


def test_refusals_of_the_throttle_are_counted(fake, ada, user):
    limits = fake.services.throttle
    for _ in range(3):
        assert limits.enter(user.user_id)
    assert ada.call("GET", "/repo/v1/userProfile")[0] == 429
    assert limits.refused == 1
    limits.leave(user.user_id)
    assert ada.call("GET", "/repo/v1/userProfile")[0] == 200
    assert limits.refused == 1


def test_a_token_needs_no_more_than_view_to_look(fake, state, user, file):
    assert {"view"} < ALL_SCOPES
    state.add_token(user, "viewer", scopes=frozenset({"view"}))
    api = Api(fake, "viewer")
    assert api.post(path_of(file, "bundle2"), BUNDLE)["fileHandles"]
    assert api.refusal("PUT", path_of(file, "annotations2"), {})[0] == 403
