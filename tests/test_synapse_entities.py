"""The entity calls: what Synapse tells about folders, files and their versions, read exactly."""

import json

import httpx
import pytest
import trio

from stsfs import errors
from stsfs.demo.fake_synapse.answers import MODEL
from stsfs.demo.fake_synapse.server import FakeSynapse
from stsfs.demo.fake_synapse.state import READ
from stsfs.demo.fake_synapse.sts import LocalVendor
from stsfs.synapse import entities, records
from stsfs.synapse.client import SynapseClient
from stsfs.synapse.endpoints import Endpoints
from tests.fake_synapse_api import MD5, Api, Bucket

TOKEN = "pat-of-ada"
TIMES = {"createdOn": "2020-01-01T00:00:00.000Z", "modifiedOn": "2020-01-01T00:00:01.500Z"}


async def a_token():
    return TOKEN


def scripted(*replies):
    """A client that gets one reply after the other, the last one for ever; and its requests."""
    seen, left = [], list(replies)

    def handle(request):
        seen.append(request)
        return left.pop(0) if len(left) > 1 else left[0]

    return SynapseClient(token=a_token, transport=httpx.MockTransport(handle)), seen


def ok(**body):
    return httpx.Response(200, json=body)


def sent(request):
    return json.loads(request.content)


@pytest.fixture
def synapse():
    bucket = Bucket({("lab", "b/k"): b"12345"})
    with FakeSynapse(vendor=LocalVendor(3600), storage=bucket) as fake:
        yield fake


@pytest.fixture
def ada(synapse):
    return synapse.state.add_user("ada", token=TOKEN)


@pytest.fixture
def folder(synapse, ada):
    project = synapse.state.add_project("P", ada)
    return synapse.state.add_sts_folder("D", project, ada, bucket="lab", base_key="b")


@pytest.fixture
def file(synapse, folder, ada):
    return synapse.state.add_file("s.txt", folder, ada, key="b/k", size_bytes=5, md5=MD5)


@pytest.fixture
async def api(synapse, ada):
    async with SynapseClient(Endpoints.single(synapse.url), token=a_token) as client:
        yield client.entities


# Against the fake server.


async def test_a_folder_is_listed_page_by_page(synapse, api, folder, ada):
    for number in range(120):
        synapse.state.add_folder(f"f{number:03}", folder, ada)
    page = await api.children(folder.syn_id, with_total=True)
    assert page.total_count == 120
    names = [child.name for child in page.children]
    while page.next_token is not None:
        page = await api.children(folder.syn_id, token=page.next_token)
        assert page.total_count is None
        names += [child.name for child in page.children]
    assert names == [f"f{number:03}" for number in range(120)]


async def test_a_listing_tells_all_but_size_and_place(api, folder, file, ada):
    (child,) = (await api.children(folder.syn_id)).children
    assert child == records.ChildHeader(
        entity_id=file.syn_id,
        name="s.txt",
        kind="FileEntity",
        version=1,
        created_unix_s=pytest.approx(file.created_on_unix_s, abs=0.001),
        modified_unix_s=pytest.approx(file.current.modified_on_unix_s, abs=0.001),
        created_by=str(ada.user_id),
        modified_by=str(ada.user_id),
    )


async def test_a_child_is_found_by_name_and_its_absence_is_no_error(api, folder, file):
    assert await api.child_id(folder.syn_id, "s.txt") == file.syn_id
    assert await api.child_id(folder.syn_id, "S.txt") is None
    with pytest.raises(errors.EntityNotFound):
        await api.child_id("syn1", "s.txt")


async def test_a_bundle_gives_all_about_a_file(synapse, api, folder, file):
    values = {"tissue": {"type": "STRING", "value": ["blood", "bone"]}}
    Api(synapse, TOKEN).put(
        f"/repo/v1/entity/{file.syn_id}/annotations2",
        {"id": file.syn_id, "etag": file.etag, "annotations": values},
    )
    bundle = await api.bundle(file.syn_id)
    handle = bundle.handle
    assert (bundle.header.name, bundle.header.kind) == ("s.txt", "FileEntity")
    assert (bundle.parent_id, bundle.etag) == (folder.syn_id, file.etag)
    assert bundle.annotations == {"tissue": ("blood", "bone")}
    assert (handle.handle_id, handle.bucket, handle.key) == (bundle.handle_id, "lab", "b/k")
    assert (handle.size_bytes, handle.md5, handle.file_name) == (5, MD5, "s.txt")
    assert handle.storage_location_id == synapse.state.location_of(folder).location_id
    assert (bundle.has_unmet_requirement, bundle.link_target) == (False, None)


async def test_a_folder_has_no_handle_and_version_one(api, folder):
    bundle = await api.bundle(folder.syn_id)
    assert (bundle.header.kind, bundle.header.version) == ("Folder", 1)
    assert (bundle.handle_id, bundle.handle, bundle.annotations) == (None, None, {})


async def test_a_bundle_of_an_unreadable_file_names_the_handle_it_may_not_show(
    synapse, api, file, folder
):
    bob = synapse.state.add_user("bob")
    foreign = synapse.state.add_project("foreign", bob)
    file = synapse.state.add_file("x", foreign, bob, key="k", size_bytes=5, md5=MD5)
    ada = synapse.state.tokens[TOKEN][0]
    synapse.state.set_permissions(foreign, ada, READ)
    synapse.state.unmet_requirements[foreign.number] = {ada}
    bundle = await api.bundle(file.syn_id)
    assert bundle.handle_id == file.current.file_handle_id
    assert bundle.handle is None
    assert bundle.has_unmet_requirement
    (version,) = await api.versions(file.syn_id)
    assert (version.size_bytes, version.md5) == (5, MD5)


async def test_versions_come_newest_first_and_each_has_its_bundle(synapse, api, folder, file, ada):
    other = synapse.state.add_file("o", folder, ada, key="b/o", size_bytes=7, md5="f" * 32)
    user = Api(synapse, TOKEN)
    body = user.get(f"/repo/v1/entity/{file.syn_id}")
    user.put(
        f"/repo/v1/entity/{file.syn_id}",
        body | {"dataFileHandleId": other.current.file_handle_id},
    )
    versions = await api.versions(file.syn_id)
    assert [(each.version, each.size_bytes) for each in versions] == [(2, 7), (1, 5)]
    assert versions[0].modified_by == str(ada.user_id)
    assert [each.version for each in await api.versions(file.syn_id, offset=1, limit=1)] == [1]
    assert (await api.bundle(file.syn_id)).handle.key == "b/o"
    old = await api.bundle(file.syn_id, 1)
    assert (old.header.version, old.handle.key, set(old.etag)) == (1, "b/k", {"0", "-"})


async def test_headers_of_several_leave_out_those_unknown(api, folder, file):
    found = await api.headers([file.syn_id, "syn1", folder.syn_id])
    assert {each.entity_id: each.kind for each in found} == {
        file.syn_id: "FileEntity",
        folder.syn_id: "Folder",
    }


async def test_an_address_for_the_content_is_given_or_refused_with_the_reason(synapse, api, file):
    handle_id = file.current.file_handle_id
    url = await api.presigned_url(handle_id, file.syn_id)
    assert url.startswith("https://lab/b/k?")
    with pytest.raises(errors.EntityNotFound, match="file handle 1 of"):
        await api.presigned_url("1", file.syn_id)
    with pytest.raises(errors.PermissionMissing, match="content of syn1"):
        await api.presigned_url(handle_id, "syn1")


async def test_an_entity_that_is_gone_is_told_apart(api, file):
    with pytest.raises(errors.EntityNotFound):
        await api.bundle("syn1")
    file.trashed = True
    with pytest.raises(errors.EntityInTrash):
        await api.bundle(file.syn_id)


# Against scripts.


def bundle_of(*handles, **changes):
    entity = {"id": "syn2", "name": "n", "etag": "e", "parentId": "syn1"} | TIMES
    entity["concreteType"] = f"{MODEL}FileEntity"
    return ok(entity=entity | changes, annotations={}, fileHandles=handles)


def handle_of(handle_id, kind="S3FileHandle", **fields):
    name = f"{MODEL}file.{kind}"
    return {"id": handle_id, "concreteType": name, "createdOn": TIMES["createdOn"]} | fields


async def test_the_preview_of_a_file_is_not_taken_for_the_file():
    preview = handle_of("8", bucketName="b", key="preview", contentSize=1)
    own = handle_of("9", bucketName="b", key="own", contentSize=2)
    client, _ = scripted(bundle_of(preview, own, dataFileHandleId="9"))
    async with client:
        assert (await client.entities.bundle("syn2")).handle.key == "own"


@pytest.mark.parametrize(
    ("kind", "bucket", "key"),
    [("GoogleCloudFileHandle", "gs://b", "k"), ("ExternalFileHandle", None, None)],
)
async def test_a_handle_outside_s3_has_a_bucket_of_its_own_kind_or_none_and_perhaps_no_size(
    kind, bucket, key
):
    elsewhere = handle_of("9", kind, bucketName="b", key="k")
    client, _ = scripted(bundle_of(elsewhere, dataFileHandleId="9"))
    async with client:
        handle = (await client.entities.bundle("syn2")).handle
    assert (handle.bucket, handle.key, handle.size_bytes, handle.md5) == (bucket, key, None, "")
    assert handle.storage_location_id is None


@pytest.mark.parametrize("version", [None, 3])
async def test_a_link_names_its_target(version):
    target = {"targetId": "syn9"} | ({"targetVersionNumber": version} if version else {})
    client, _ = scripted(bundle_of(concreteType=f"{MODEL}Link", linksTo=target))
    async with client:
        bundle = await client.entities.bundle("syn2")
    assert (bundle.header.kind, bundle.link_target) == ("Link", ("syn9", version))


async def test_bodies_are_sent_with_their_charset():
    client, seen = scripted(ok(page=[]))
    async with client:
        await client.entities.children("syn1")
    assert seen[0].headers["Content-Type"] == "application/json; charset=UTF-8"
    assert sent(seen[0])["includeTypes"] == list(entities.CHILD_TYPES)
    assert "nextPageToken" not in sent(seen[0])


CALLS = {
    "children": lambda api: api.children("syn1"),
    "child_id": lambda api: api.child_id("syn1", "n"),
    "bundle": lambda api: api.bundle("syn1"),
    "headers": lambda api: api.headers(["syn1"]),
    "versions": lambda api: api.versions("syn1"),
    "presigned_url": lambda api: api.presigned_url("7", "syn1"),
    "query": lambda api: api.query("syn1", "SELECT id FROM syn1"),
    "next_query_page": lambda api: api.next_query_page("syn1", "t"),
}
FOREIGN = {
    "a page": httpx.Response(200, text="<html>Log in</html>"),
    "a list": httpx.Response(200, json=[]),
    "null": httpx.Response(200, json=None),
    "other": ok(page=[{"id": "syn1"}], results=[{}], requestedFiles=[{}], entity={}, id=7),
    "no time": ok(page=[{"id": "a", "name": "n", "type": "t"} | TIMES | {"createdOn": "now"}]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("reply", FOREIGN)
async def test_a_success_that_is_not_synapses_is_unavailable(call, reply):
    client, _ = scripted(FOREIGN[reply])
    async with client:
        with pytest.raises(errors.SynapseUnavailable, match="does not come from Synapse"):
            await CALLS[call](client.entities)


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_says_what_it_was_refused(call):
    client, _ = scripted(httpx.Response(403, json={"reason": "You lack READ access to it."}))
    async with client:
        with pytest.raises(errors.PermissionMissing):
            await CALLS[call](client.entities)


async def test_calls_of_the_background_are_counted_there():
    client, _ = scripted(ok(page=[]))
    async with client:
        await client.entities.children("syn1", background=True)
    assert (client.requests.foreground, client.requests.background) == (0, 1)


# Queries of views.

STARTED = httpx.Response(201, json={"token": "job/7"})
RUNNING = httpx.Response(202, json={"jobState": "PROCESSING"})


def page_of(*rows, token=None):
    found = {"queryResults": {"headers": [{"name": "id"}, {"name": "tissue"}]}}
    found["queryResults"]["rows"] = [{"values": list(row)} for row in rows]
    if token:
        found["nextPageToken"] = {"concreteType": f"{MODEL}table.QueryNextPageToken"}
        found["nextPageToken"]["token"] = token
    return found


async def test_a_query_waits_for_its_job_and_collects_all_pages(autojump_clock):
    first = ok(queryResult=page_of(["syn1", "blood"], token="next"))
    last = ok(**page_of(["syn2", None]))
    client, seen = scripted(STARTED, RUNNING, RUNNING, first, STARTED, last)
    async with client:
        rows = await client.entities.query("syn9", "SELECT id, tissue FROM syn9")
    assert rows.columns == ("id", "tissue")
    assert rows.rows == (("syn1", "blood"), ("syn2", None))
    query, following = "/repo/v1/entity/syn9/table/query/", "nextPage/async/"
    assert [request.url.raw_path.decode() for request in seen] == [
        f"{query}async/start",
        *[f"{query}async/get/job%2F7"] * 3,
        f"{query}{following}start",
        f"{query}{following}get/job%2F7",
    ]
    assert sent(seen[0])["query"] == {"sql": "SELECT id, tissue FROM syn9"}
    assert sent(seen[0])["partMask"] == 1
    assert sent(seen[4])["token"] == "next"


async def test_a_query_that_never_ends_is_given_up(autojump_clock):
    client, seen = scripted(STARTED, RUNNING)
    async with client:
        began_s = trio.current_time()
        with pytest.raises(errors.SynapseUnavailable, match="within 300 s"):
            await client.entities.query("syn9", "SELECT id FROM syn9")
    assert trio.current_time() - began_s == pytest.approx(300)
    assert len(seen) < 100


async def test_a_query_that_fails_says_why():
    failed = httpx.Response(202, json={"jobState": "FAILED", "errorMessage": "Unknown column x"})
    client, _ = scripted(STARTED, failed)
    async with client:
        with pytest.raises(errors.SynapseRefusal, match="Unknown column x"):
            await client.entities.query("syn9", "SELECT x FROM syn9")


async def test_a_query_with_too_many_rows_is_refused(monkeypatch):
    monkeypatch.setattr(entities, "ROWS_MAX", 3)
    page = page_of(["syn1", "a"], ["syn2", "b"], token="next")
    client, seen = scripted(STARTED, ok(queryResult=page), STARTED, ok(**page))
    async with client:
        with pytest.raises(errors.SynapseRefusal, match="more than 3 rows"):
            await client.entities.query("syn9", "SELECT id, tissue FROM syn9")
    assert len(seen) == 4


async def test_rows_that_do_not_fit_their_columns_are_left_out_and_counted_on_all_pages():
    first = page_of(["syn1"], ["syn2", "a"], token="more")
    client, _ = scripted(STARTED, ok(queryResult=first), STARTED, ok(**page_of(["syn3"])))
    async with client:
        found = await client.entities.query("syn9", "SELECT id, name FROM syn9")
    assert (found.rows, found.left_out) == ((("syn2", "a"),), 2)


# Times.


@pytest.mark.parametrize(
    ("written", "unix_s"),
    [("2020-01-01T00:00:00.500Z", 1577836800.5), ("2020-01-01T00:00:00", 1577836800.0)],
)
def test_times_are_read_as_utc(written, unix_s):
    assert records.unix_s(written) == unix_s


@pytest.mark.parametrize("written", ["", "yesterday", None, 5])
def test_what_is_no_time_is_no_time(written):
    with pytest.raises((ValueError, TypeError)):
        records.unix_s(written)
