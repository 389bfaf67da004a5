"""Entity views of the fake Synapse: queries as jobs, in pages, of what the caller may see."""

from datetime import UTC, datetime

import pytest

from stsfs.demo.fake_synapse import seeds, tables, views
from stsfs.demo.fake_synapse.server import FakeSynapse
from stsfs.demo.fake_synapse.state import READ
from tests.fake_synapse_api import MD5, Api

ALL = "SELECT name FROM {view} ORDER BY name"


@pytest.fixture
def fake():
    return FakeSynapse(throttle=False)


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
    return state.add_sts_folder("sts", state.add_project("P", user), user, bucket="lab")


@pytest.fixture
def files(state, user, folder):
    """Three files in two folders, with annotations."""
    below = state.add_folder("below", folder, user)
    places = (("a", folder), ("b'c", below), ("d", below))
    made = [
        state.add_file(name, place, user, key=f"k{size}", size_bytes=size, md5=MD5)
        for size, (name, place) in enumerate(places)
    ]
    for each, tissue in zip(made, ("blood", "from syn1", None), strict=True):
        each.created_on_unix_s = 1_700_000_000.5
        seeds.annotate(state, each, user, {"age": [each.number % 7]} | (
            {"two words": [tissue]} if tissue else {}
        ))  # fmt: skip
    return made


@pytest.fixture
def view(state, user, folder, files):
    return seeds.add_entity_view(state, "v", folder, user, [folder], ["two words", "age"])


def start(api, view, sql):
    body = {"query": {"sql": sql.format(view=view.syn_id)}, "partMask": 1}
    return api.post(f"/repo/v1/entity/{view.syn_id}/table/query/async/start", body)["token"]


def answer(api, view, token, page=""):
    """What the job says: the second time, the first it is always running."""
    url = f"/repo/v1/entity/{view.syn_id}/table/query/{page}async/get/{token}"
    status, said = api.call("GET", url)
    assert (status, said["jobState"]) == (202, "PROCESSING")
    return api.call("GET", url)


def rows(api, view, sql):
    status, said = answer(api, view, start(api, view, sql))
    assert status == 200, said
    return [row["values"] for row in said["queryResult"]["queryResults"]["rows"]]


def names(api, view, condition):
    return [name for (name,) in rows(api, view, ALL.replace("ORDER", f"WHERE {condition} ORDER"))]


def test_a_view_tells_of_each_file_what_a_bundle_does(ada, state, user, view, files):
    status, said = answer(ada, view, start(ada, view, "SELECT * FROM {view} WHERE name = 'a'"))
    assert status == 200
    result = said["queryResult"]["queryResults"]
    (row,) = result["rows"]
    told = dict(zip((each["name"] for each in result["headers"]), row["values"], strict=True))
    entity, handle = files[0], state.handles[files[0].current.file_handle_id]
    modified = datetime.fromtimestamp(entity.current.modified_on_unix_s, UTC)
    assert told == {
        "id": entity.syn_id, "name": "a", "type": "file", "parentId": f"syn{entity.parent}",
        "currentVersion": "1", "etag": entity.etag, "createdOn": "1700000000500",
        "modifiedOn": str(int(modified.timestamp() * 1000)), "createdBy": str(user.user_id),
        "modifiedBy": str(user.user_id), "dataFileHandleId": handle.handle_id,
        "dataFileSizeBytes": "0", "dataFileMD5Hex": MD5, "dataFileBucket": "lab",
        "dataFileKey": "k0", "dataFileName": "a", "two words": "blood",
        "age": str(entity.number % 7),
    }  # fmt: skip


def test_a_view_names_its_scope_and_its_columns(ada, view, folder):
    told = ada.get(f"/repo/v1/entity/{view.syn_id}")
    assert (told["scopeIds"], told["viewTypeMask"]) == ([folder.syn_id], 1)
    columns = ada.get(f"/repo/v1/entity/{view.syn_id}/column")["results"]
    assert told["columnIds"] == [each["id"] for each in columns]
    types = {each["name"]: each["columnType"] for each in columns}
    assert (types["createdOn"], types["two words"], types["age"]) == ("DATE", "STRING", "INTEGER")


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("name = 'b''c'", ["b'c"]),
        ("dataFileSizeBytes >= 1 AND \"two words\" = 'from syn1'", ["b'c"]),
        ("dataFileSizeBytes < 2 AND name <> 'a'", ["b'c"]),
        ("createdOn = 1700000000500 AND dataFileSizeBytes > 1", ["d"]),
        ("createdOn > '1700000000500'", []),
        ("\"two words\" <> 'blood'", ["b'c"]),
        ("type = 'folder'", []),
    ],
)
def test_conditions_compare_texts_and_numbers(ada, view, condition, found):
    assert names(ada, view, condition) == found


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM syn1",
        "SELECT name FROM {view} WHERE",
        "SELECT name FROM {view} WHERE nothing = 1",
        "SELECT name FROM {view} WHERE \"nothing\" = 'nothing'",
        "SELECT name FROM {view}; SELECT name FROM {view}",
        "DELETE FROM {view}",
        "SELECT * FROM sqlite_master",
        "PRAGMA table_info({view})",
        "",
    ],
)
def test_what_is_no_query_of_the_view_is_refused_by_the_job(ada, view, sql):
    status, said = answer(ada, view, start(ada, view, sql))
    assert status == 400, said
    assert said["reason"]
    assert len(rows(ada, view, ALL)) == 3


def test_many_rows_come_in_pages(ada, state, view):
    state.view_page_rows = 2
    status, said = answer(ada, view, start(ada, view, ALL))
    assert status == 200
    token = said["queryResult"]["nextPageToken"]
    url = f"/repo/v1/entity/{view.syn_id}/table/query/nextPage/async/start"
    status, last = answer(ada, view, ada.post(url, token)["token"], "nextPage/")
    assert [row["values"] for row in last["queryResults"]["rows"]] == [["d"]]
    assert (status, "nextPageToken" in last) == (200, False)
    assert ada.refusal("POST", url, token | {"token": "no 2"})[0] == 400
    assert rows(ada, view, "SELECT name FROM {view} ORDER BY name LIMIT 1 OFFSET 1") == [["b'c"]]


def test_a_view_shows_only_what_the_caller_may_read(fake, state, view, folder, files):
    bob = state.add_user("bob", token="bob")
    api, url = Api(fake, "bob"), f"/repo/v1/entity/{view.syn_id}/table/query/async/start"
    assert api.refusal("POST", url, {"query": {"sql": "SELECT 1"}})[0] == 403
    state.set_permissions(folder, bob.user_id, READ)
    state.set_permissions(state.entities[files[1].parent], bob.user_id, frozenset())
    assert rows(api, view, ALL) == [["a"]]


def test_a_job_is_for_who_began_it_and_remembered_for_a_while(fake, ada, state, view, folder):
    bob = state.add_user("bob", token="bob")
    state.set_permissions(folder, bob.user_id, READ)
    token = start(ada, view, ALL)
    url = f"/repo/v1/entity/{view.syn_id}/table/query/async/get/{token}"
    assert Api(fake, "bob").refusal("GET", url)[0] == 403
    for _ in range(tables.JOBS_MAX):
        start(ada, view, ALL)
    assert ada.refusal("GET", url)[0] == 404


def test_a_view_that_lags_shows_the_past_until_it_is_thawed(ada, state, user, view, files):
    views.freeze(state, view)
    seeds.trash(state, files[0])
    seeds.rename(state, files[2], "e", user)
    assert rows(ada, view, ALL) == [["a"], ["b'c"], ["d"]]
    views.thaw(state, view)
    assert rows(ada, view, ALL) == [["b'c"], ["e"]]


def test_only_views_can_be_asked(ada, folder):
    url = f"/repo/v1/entity/{folder.syn_id}/table/query/async/start"
    assert ada.refusal("POST", url, {"query": {"sql": "SELECT 1"}})[0] == 400
