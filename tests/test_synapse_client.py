"""The client: paced, patient up to a deadline, and exact about what it was told."""

import httpx
import pytest
import trio

from stsfs import errors
from stsfs.demo.fake_synapse.guard import Fault
from stsfs.demo.fake_synapse.server import FakeSynapse
from stsfs.demo.fake_synapse.state import DOWNLOAD, EDIT
from stsfs.demo.fake_synapse.sts import LocalVendor
from stsfs.synapse.client import SynapseClient
from stsfs.synapse.endpoints import PRODUCTION, Endpoints
from stsfs.synapse.pace import WINDOW_S
from stsfs.synapse.transport import RequestCounts

TOKEN = "pat-of-ada"


async def a_token():
    return TOKEN


def scripted(*replies):
    """A transport that gives one reply after the other, the last one for ever; and its requests."""
    seen, left = [], list(replies)

    def handle(request):
        seen.append(request)
        reply = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    return httpx.MockTransport(handle), seen


def ok(**body):
    return httpx.Response(200, json=body)


PROFILE = {"ownerId": "7", "userName": "ada"}


@pytest.fixture
def synapse():
    with FakeSynapse(vendor=LocalVendor(3600)) as fake:
        yield fake


@pytest.fixture
def ada(synapse):
    return synapse.state.add_user("ada", token=TOKEN)


@pytest.fixture
def folder(synapse, ada):
    project = synapse.state.add_project("Project", ada)
    return synapse.state.add_sts_folder("Data", project, ada, bucket="lab", base_key="a/b")


def client_of(synapse, **options):
    return SynapseClient(Endpoints.single(synapse.url), token=a_token, **options)


# Against the fake server.


async def test_the_profile_proves_the_token(synapse, ada):
    async with client_of(synapse) as client:
        profile = await client.user_profile()
    assert (profile.user_id, profile.user_name) == (str(ada.user_id), "ada")


@pytest.mark.parametrize("permission", ["read_only", "read_write"])
async def test_credentials_are_those_that_were_vended(synapse, folder, permission):
    async with client_of(synapse) as client:
        found = await client.sts_credentials(folder.syn_id, permission)
    session = synapse.vendor.session(found.access_key_id)
    assert session.permission == permission
    assert (found.bucket, found.base_key) == ("lab", "a/b")
    assert found.secret_access_key == session.secret_access_key
    assert found.session_token == session.session_token
    assert found.expires_at_unix_s == session.expires_at_unix_s
    assert found.secret_access_key not in repr(found)
    assert found.session_token not in repr(found)


async def test_a_location_without_base_key_has_an_empty_one(synapse, ada):
    project = synapse.state.add_project("P", ada)
    folder = synapse.state.add_sts_folder("D", project, ada, bucket="lab")
    async with client_of(synapse) as client:
        assert (await client.sts_credentials(folder.syn_id, "read_only")).base_key == ""


async def test_header_and_path_name_the_entity(synapse, folder):
    async with client_of(synapse) as client:
        header = await client.entity_header(folder.syn_id)
        path = await client.entity_path(folder.syn_id)
    assert (header.name, header.kind) == ("Data", "Folder")
    assert [entry.name for entry in path] == ["root", "Project", "Data"]
    assert path[-1] == header


async def test_the_storage_location_is_inherited_from_above(synapse, ada, folder):
    below = synapse.state.add_folder("below", folder, ada)
    async with client_of(synapse) as client:
        found = await client.upload_destination(below.syn_id)
    assert (found.kind, found.bucket, found.base_key) == ("external", "lab", "a/b")
    assert found.sts_enabled


async def test_managed_storage_names_no_bucket(synapse, ada):
    project = synapse.state.add_project("P", ada)
    folder = synapse.state.add_sts_folder("D", project, ada, bucket=None)
    async with client_of(synapse) as client:
        found = await client.upload_destination(folder.syn_id)
        plain = await client.upload_destination(project.syn_id)
        with pytest.raises(errors.ManagedStorageReadOnly):
            await client.sts_credentials(folder.syn_id, "read_write")
    assert (found.kind, found.bucket, found.sts_enabled) == ("managed", None, True)
    assert found.base_key
    assert not plain.sts_enabled


async def refusal_of(synapse, entity_id, permission="read_only"):
    async with client_of(synapse) as client:
        with pytest.raises(errors.StsfsError) as raised:
            await client.sts_credentials(entity_id, permission)
    return type(raised.value)


async def test_the_refusals_of_sts_are_told_apart(synapse, ada, folder):
    state = synapse.state
    bob = state.add_user("bob")
    foreign = state.add_project("foreign", bob)
    shared = state.add_sts_folder("shared", foreign, bob, bucket="bob")

    assert await refusal_of(synapse, "syn1") is errors.EntityNotFound
    assert await refusal_of(synapse, f"syn{folder.parent}") is errors.NotStsLocation
    assert await refusal_of(synapse, shared.syn_id) is errors.PermissionMissing
    state.set_permissions(foreign, ada.user_id, DOWNLOAD)
    assert await refusal_of(synapse, shared.syn_id, "read_write") is errors.PermissionMissing
    state.set_permissions(foreign, ada.user_id, EDIT)
    ada.certified = False
    assert await refusal_of(synapse, shared.syn_id, "read_write") is errors.CertificationRequired
    state.two_factor_required.add(shared.number)
    ada.two_factor = False
    assert await refusal_of(synapse, shared.syn_id) is errors.TwoFactorRequired
    state.unmet_requirements[foreign.number] = {ada.user_id}
    assert await refusal_of(synapse, shared.syn_id) is errors.AccessRequirementUnmet
    shared.trashed = True
    assert await refusal_of(synapse, shared.syn_id) is errors.EntityInTrash
    ada.terms_signed = False
    assert await refusal_of(synapse, folder.syn_id) is errors.TermsOfUseUnsigned


async def test_a_token_without_scopes_and_a_revoked_one_are_told_apart(synapse, ada, folder):
    synapse.state.add_token(ada, TOKEN, scopes=frozenset({"view"}))
    assert await refusal_of(synapse, folder.syn_id) is errors.ScopeMissing
    synapse.state.revoke_token(TOKEN)
    assert await refusal_of(synapse, folder.syn_id) is errors.TokenRejected


async def test_transient_failures_stay_unseen(synapse, ada):
    for kind in ("unavailable", "throttled", "internal"):
        synapse.faults.add(Fault(kind, times=1))
    async with client_of(synapse) as client:
        assert (await client.user_profile()).user_name == "ada"
    assert synapse.counts["GET /repo/v1/userProfile"] == 4


async def test_a_refusal_is_not_asked_again(synapse, folder):
    synapse.faults.add(Fault("lacks_download"))
    assert await refusal_of(synapse, folder.syn_id) is errors.PermissionMissing
    assert synapse.counts[f"GET /repo/v1/entity/{folder.syn_id}/sts"] == 1


async def test_a_stopped_server_is_unavailable_and_a_restarted_one_answers(synapse, ada):
    async with client_of(synapse, deadline_s=0.2) as client:
        await client.user_profile()
        synapse.__exit__(None, None, None)
        with pytest.raises(errors.SynapseUnavailable, match="cannot be reached"):
            await client.user_profile()
        synapse.__enter__()
        assert (await client.user_profile()).user_name == "ada"


async def test_the_throttle_of_the_server_is_never_met(synapse, ada):
    synapse.faults.add(Fault(delay_s=0.01))
    async with client_of(synapse) as client, trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(client.user_profile)
    assert synapse.counts["GET /repo/v1/userProfile"] == 12


# Against scripts.


async def test_every_attempt_asks_for_the_token_again(autojump_clock):
    names = iter(["one", "two", "three"])

    async def rotating():
        return next(names)

    transport, seen = scripted(httpx.Response(503), httpx.ConnectError("refused"), ok(**PROFILE))
    async with SynapseClient(token=rotating, transport=transport) as client:
        await client.user_profile()
    sent = [request.headers["Authorization"] for request in seen]
    assert sent == ["Bearer one", "Bearer two", "Bearer three"]


async def test_the_session_cookie_is_kept():
    first = httpx.Response(200, json=PROFILE, headers={"Set-Cookie": "sessionID=abc; HttpOnly"})
    transport, seen = scripted(first, ok(**PROFILE))
    async with SynapseClient(token=a_token, transport=transport) as client:
        await client.user_profile()
        await client.user_profile()
    assert "cookie" not in seen[0].headers
    assert seen[1].headers["cookie"] == "sessionID=abc"


async def test_each_service_is_asked_at_its_own_host():
    transport, seen = scripted(
        ok(**PROFILE), ok(concreteType="x.S3UploadDestination", storageLocationId=1)
    )
    async with SynapseClient(token=a_token, transport=transport) as client:
        await client.user_profile()
        await client.upload_destination("syn1")
    assert str(seen[0].url).startswith(PRODUCTION.repo_url)
    assert str(seen[1].url).startswith(PRODUCTION.file_url)


async def test_the_deadline_ends_the_retries_and_names_the_last_cause(autojump_clock):
    transport, seen = scripted(httpx.Response(503, json={"reason": "down for maintenance."}))
    async with SynapseClient(token=a_token, deadline_s=30, transport=transport) as client:
        began_s = trio.current_time()
        with pytest.raises(errors.SynapseUnavailable, match="down for maintenance"):
            await client.user_profile()
    assert trio.current_time() - began_s == pytest.approx(30)
    assert len(seen) > 3


async def test_what_was_not_understood_until_the_deadline_is_told_as_such(autojump_clock):
    """And not as a service that is down."""
    transport, seen = scripted(httpx.Response(200, headers={"Content-Encoding": "br"}))
    async with SynapseClient(token=a_token, deadline_s=30, transport=transport) as client:
        with pytest.raises(errors.AnswerNotUnderstood, match="No success within 30 s"):
            await client.entities.bundle("syn1")
    assert len(seen) > 3


async def test_a_server_that_says_nothing_is_unavailable_at_the_deadline(autojump_clock):
    async def hang(_):
        await trio.sleep_forever()

    transport = httpx.MockTransport(hang)
    async with SynapseClient(token=a_token, deadline_s=5, transport=transport) as client:
        with pytest.raises(errors.SynapseUnavailable, match="does not answer"):
            await client.user_profile()


async def test_a_missing_token_is_not_retried():
    async def none():
        raise errors.NoSynapseToken("none")

    transport, seen = scripted(ok(**PROFILE))
    async with SynapseClient(token=none, transport=transport) as client:
        with pytest.raises(errors.NoSynapseToken):
            await client.user_profile()
    assert seen == []


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, text="<html>Log in</html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"bucket": "b"}),
        httpx.Response(200),
    ],
)
async def test_a_success_that_is_not_synapses_is_unavailable(reply):
    transport, _ = scripted(reply)
    async with SynapseClient(token=a_token, transport=transport) as client:
        with pytest.raises(errors.SynapseUnavailable, match="does not come from Synapse"):
            await client.sts_credentials("syn1", "read_only")


@pytest.mark.parametrize(
    ("written", "unix_s"),
    [
        ("2020-01-01T00:00:00.000Z", 1577836800.0),
        ("2020-01-01T00:00:00.500Z", 1577836800.5),
        ("2020-01-01T00:00:00Z", 1577836800.0),
        ("2020-01-01T00:00:00", 1577836800.0),
    ],
)
async def test_the_expiration_is_read_as_utc(written, unix_s):
    body = {
        "bucket": "b",
        "accessKeyId": "a",
        "secretAccessKey": "s",
        "sessionToken": "t",
        "expiration": written,
    }
    transport, _ = scripted(ok(**body))
    async with SynapseClient(token=a_token, transport=transport) as client:
        assert (await client.sts_credentials("syn1", "read_only")).expires_at_unix_s == unix_s


async def test_an_entity_id_cannot_leave_its_place_in_the_url():
    transport, seen = scripted(httpx.Response(404, json={"reason": "does not exist"}))
    async with SynapseClient(token=a_token, transport=transport) as client:
        with pytest.raises(errors.EntityNotFound):
            await client.sts_credentials("../x?y", "read_only")
    assert seen[0].url.raw_path == b"/repo/v1/entity/..%2Fx%3Fy/sts?permission=read_only"


# The pace.


async def test_at_most_three_requests_run_at_a_time(autojump_clock):
    running = most = 0

    async def handle(_):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        return ok(**PROFILE)

    transport = httpx.MockTransport(handle)
    client = SynapseClient(token=a_token, transport=transport)
    async with client, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(client.user_profile)
    assert most == 3


async def test_waiting_for_the_window_is_no_failure_of_the_server(autojump_clock):
    transport, _ = scripted(ok(**PROFILE))
    client = SynapseClient(token=a_token, deadline_s=5, transport=transport)
    async with client, trio.open_nursery() as nursery:
        for _ in range(700):
            nursery.start_soon(client.user_profile)
    assert trio.current_time() > 60
    assert client.requests.foreground == 700


async def test_a_server_that_hangs_fails_those_who_wait_behind_others_too(autojump_clock):
    failures = []

    async def hang(_):
        await trio.sleep_forever()

    async def ask():
        with pytest.raises(errors.SynapseUnavailable):
            await client.user_profile()
        failures.append(trio.current_time())

    began_s = trio.current_time()
    client = SynapseClient(token=a_token, deadline_s=5, transport=httpx.MockTransport(hang))
    async with client, trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(ask)
    assert len(failures) == 60
    assert max(failures) - began_s <= 5 + WINDOW_S + 1


async def test_requests_are_counted_by_class_and_so_is_being_throttled(autojump_clock):
    transport, _ = scripted(
        httpx.Response(429, json={"reason": "Too many concurrent requests."}),
        ok(concreteType="x.S3UploadDestination", storageLocationId=1),
    )
    async with SynapseClient(token=a_token, transport=transport) as client:
        await client.upload_destination("syn1", background=True)
        await client.upload_destination("syn1")
    assert client.requests == RequestCounts(foreground=1, background=2, throttled=1)
