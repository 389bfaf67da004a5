"""The fake Synapse refuses what the real one refuses, in its words, and fails on demand."""

import json
import threading
import urllib.error
import urllib.request

import pytest

from stsfs.demo.fake_synapse.answers import MODEL
from stsfs.demo.fake_synapse.guard import FAULTS, Fault
from stsfs.demo.fake_synapse.server import FakeSynapse
from stsfs.demo.fake_synapse.state import DOWNLOAD, PUBLIC, READ
from stsfs.demo.fake_synapse.sts import LocalVendor, timestamp
from tests.fake_synapse_api import MANAGED, Api, fake_with_bucket


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


# Tokens and users.


def test_a_wrong_token_is_401_and_says_bearer(fake):
    response = fake.app.test_client().get(
        "/repo/v1/userProfile", headers={"Authorization": "Bearer no"}
    )
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    assert response.get_json()["reason"] == "Invalid access token"


def test_without_a_token_one_is_anonymous_and_may_only_read(fake, ada, sts, project):
    nobody = Api(fake, None)
    assert nobody.get("/repo/v1/userProfile")["userName"] == "anonymous"
    entity = fake.state.entities[int(project[3:])]
    fake.state.set_permissions(entity, PUBLIC, DOWNLOAD)
    assert nobody.refusal("GET", f"/repo/v1/entity/{sts[0]}/sts?permission=read_only") == (
        403,
        "Anonymous users have only READ access permission.",
    )


def test_missing_scopes_are_listed_in_order(fake, ada, sts):
    fake.state.tokens["ada"] = (fake.state.tokens["ada"][0], frozenset({"view"}))
    status, reason = ada.refusal("GET", f"/repo/v1/entity/{sts[0]}/sts?permission=read_only")
    assert (status, reason.partition(": ")[2]) == (403, "download, modify")


def test_terms_that_were_not_accepted_close_everything(fake, ada):
    fake.state.users[fake.state.tokens["ada"][0]].terms_signed = False
    assert ada.refusal("GET", "/repo/v1/userProfile")[1] == ("Terms of use have not been signed.")


# STS.


def test_credentials_cover_the_whole_location_also_from_a_folder_below(fake, ada, sts):
    below = ada.folder("below", sts[0])
    answer = ada.get(f"/repo/v1/entity/{below}/sts?permission=read_only")
    assert (answer["bucket"], answer["baseKey"]) == ("lab", "a")
    session = fake.vendor.sessions[answer["accessKeyId"]]
    assert (session.bucket, session.base_key, session.permission) == ("lab", "a", "read_only")
    assert session.session_name.endswith(f"-{below}")
    assert answer["expiration"] == timestamp(session.expires_at_unix_s)
    assert ada.get(f"/_test/sessions/{session.access_key_id}") == session.as_json()
    assert list(ada.get("/_test/sessions")) == [session.access_key_id]
    assert ada.call("GET", "/_test/sessions/AKIA")[0] == 404


def test_managed_storage_gives_no_write_access(ada, project):
    folder = ada.folder("managed", project)
    made = ada.post("/repo/v1/storageLocation", {"concreteType": MANAGED, "stsEnabled": True})
    ada.use(folder, made["storageLocationId"])
    sts = f"/repo/v1/entity/{folder}/sts?permission="
    assert ada.get(sts + "read_only")["baseKey"] == made["baseKey"]
    assert ada.refusal("GET", sts + "read_write") == (
        400,
        "STS write access is not allowed in Synapse storage",
    )
    assert ada.refusal("GET", sts + "READ_ONLY")[0] == 400
    assert ada.refusal("GET", f"/repo/v1/entity/{project}/sts?permission=read_only") == (
        400,
        "Entity must have an STS-enabled storage location",
    )


def test_read_write_wants_every_permission_in_order(fake, ada, bob, sts, project):
    entity = fake.state.entities[int(project[3:])]
    user = fake.state.tokens["bob"][0]
    path = f"/repo/v1/entity/{sts[0]}/sts?permission=read_write"
    has = READ
    for permission in ("DOWNLOAD", "UPDATE", "CREATE", "DELETE"):
        fake.state.set_permissions(entity, user, has)
        assert bob.refusal("GET", path) == (
            403,
            f"You lack {permission} access to the requested entity.",
        )
        has = has | {permission}
    fake.state.set_permissions(entity, user, has)
    assert bob.get(path)["bucket"] == "lab"


def test_a_vendor_that_fails_is_a_502(fake, ada, sts):
    def fail(*_):
        raise OSError("no AWS")

    fake.vendor.vend = fail
    assert ada.refusal("GET", f"/repo/v1/entity/{sts[0]}/sts?permission=read_only")[0] == 502


def test_sessions_end_when_told_to():
    now_unix_s = 1000.0
    vendor = LocalVendor(20, now_unix_s=lambda: now_unix_s)
    key = vendor.vend("b", "", "read_only", "s")["accessKeyId"]
    assert vendor.session(key).expires_at_unix_s == 1020
    vendor.revoke_all()
    assert vendor.session(key).expires_at_unix_s == 1000
    assert vendor.session(key).secret_access_key not in repr(vendor.session(key))


# Faults, throttles, the server itself.


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_hits_as_often_as_it_says_and_only_its_path(ada, kind):
    ada.post("/_test/fault", {"kind": kind, "times": 2, "path": "GET /repo/v1/userProfile"})
    assert ada.call("GET", "/repo/v1/status")[0] == 200
    answers = [ada.call("GET", "/repo/v1/userProfile")[0] for _ in range(3)]
    assert answers == [FAULTS[kind][0]] * 2 + [200]


def test_faults_are_cleared_and_wrong_ones_refused(ada):
    ada.post("/_test/fault", {"status": 418, "reason": "teapot"})
    assert ada.refusal("GET", "/repo/v1/userProfile") == (418, "teapot")
    ada.done("DELETE", "/_test/fault")
    ada.get("/repo/v1/userProfile")
    assert ada.call("POST", "/_test/fault", {"kind": "typo"})[0] == 400
    assert ada.call("POST", "/_test/fault", {"typo": 1})[0] == 400


def test_requests_are_counted_but_not_those_of_the_test(ada):
    ada.get("/repo/v1/userProfile")
    ada.get("/repo/v1/userProfile")
    assert ada.get("/_test/counts") == {"GET /repo/v1/userProfile": 2}


def request(url, token="ada"):
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(asked, timeout=120) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


@pytest.mark.parametrize("throttle", [True, False])
def test_a_fourth_request_at_once_is_throttled_unless_turned_off(capfd, throttle):
    with FakeSynapse(throttle=throttle) as fake:
        fake.state.add_user("ada", token="ada")
        fake.state.add_user("bob", token="bob")
        fake.faults.add(Fault(path="userProfile", times=3, delay_s=60))
        profile = f"{fake.url}/repo/v1/userProfile"
        held = [threading.Thread(target=request, args=[profile]) for _ in range(3)]
        for thread in held:
            thread.start()
        for _ in held:
            assert fake.faults.held.acquire(timeout=120)
        status, body = request(profile)
        assert status == (429 if throttle else 200)
        if throttle:
            assert body == {
                "reason": "Too many concurrent requests. Allowed 3 concurrent connections at any "
                "time."
            }
        assert request(profile, "bob")[0] == 200
        fake.faults.stopped.set()
        for thread in held:
            thread.join()
        assert request(profile)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_too_many_requests_in_a_minute_are_throttled(ada):
    answers = [ada.call("GET", "/repo/v1/userProfile") for _ in range(601)]
    assert {status for status, _ in answers[:600]} == {200}
    assert answers[600] == (
        429,
        {"reason": "Requests are too frequent. Allowed 600 requests every 60 seconds."},
    )


def test_a_stopped_server_is_unreachable_and_comes_back_with_its_state():
    fake = FakeSynapse()
    with fake:
        fake.state.add_user("ada", token="ada")
        url = fake.url
        assert request(f"{url}/repo/v1/userProfile")[0] == 200
    with pytest.raises(urllib.error.URLError):
        request(f"{url}/repo/v1/userProfile")
    with fake:
        assert fake.url == url
        assert request(f"{url}/repo/v1/userProfile")[0] == 200
