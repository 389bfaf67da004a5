"""Our requests before a judge that is not our own: signatures, session policy, expiry."""

import time
from datetime import datetime

import pytest
import trio

from stsfs.credentials.credentials import Credentials
from stsfs.credentials.lease import CredentialLease
from stsfs.errors import AccessDenied, NotFound, SessionExpired, StaleVersion, SynapseUnavailable
from stsfs.store.object_store import ObjectVersion
from stsfs.store.s3_store import S3Store
from tests.fakes import read_all
from tests.strict.conftest import BASE_KEY, BUCKET, CONTROL_NAMES, MIB, ODD_NAMES

pytestmark = pytest.mark.strict

LONG_S, SHORT_S = 900, 3
HOUR_S = 3600.0


class VendorSource:
    """A CredentialSource over a vendor, as far as `allowed` sets go."""

    description = "the tests' vendor"

    def __init__(self, vendor, *, allowed=1000):
        self._vendor, self._allowed = vendor, allowed

    async def fetch(self):
        if not self._allowed:
            raise SynapseUnavailable("Synapse is down.")
        self._allowed -= 1
        made = await trio.to_thread.run_sync(
            self._vendor.vend, BUCKET, BASE_KEY, "read_only", "test"
        )
        return Credentials(
            made["accessKeyId"],
            made["secretAccessKey"],
            made["sessionToken"],
            datetime.fromisoformat(made["expiration"]).timestamp(),
        )


@pytest.fixture
def open_store(radosgw, vendor, s3, nursery):
    """open_store(lifetime_s, slow_s=0, allowed=n) -> store, lease.

    The lease's clock is slow_s behind the server's: it finds sessions in force that are over.
    """

    async def open_store(lifetime_s, *, slow_s=0.0, allowed=1000, bucket=BUCKET):
        vendor.lifetime_s = lifetime_s
        lease = CredentialLease(
            VendorSource(vendor, allowed=allowed), now_unix_s=lambda: time.time() - slow_s
        )
        await nursery.start(lease.keep_fresh)
        made = S3Store(bucket, lease, endpoint_url=radosgw.url, region="us-east-1")
        opened.append(made)
        return made, lease

    opened = []
    yield open_store
    for each in opened:
        each.close()


@pytest.fixture
async def store(open_store):
    made, _ = await open_store(LONG_S)
    return made


async def version_of(store, name):
    found = (await store.list_page(f"{BASE_KEY}/{name}", keys_max=1)).objects[0]
    assert found.key == f"{BASE_KEY}/{name}"
    return ObjectVersion(1, found.key, found.etag, found.size_bytes)


async def test_an_odd_key_is_listed_and_read(store):
    page = await store.list_page(f"{BASE_KEY}/odd/")
    assert page.prefixes == [f"{BASE_KEY}/odd//"]
    assert {each.key for each in page.objects} == {f"{BASE_KEY}/odd/{name}" for name in ODD_NAMES}
    for listed in page.objects:
        version = ObjectVersion(1, listed.key, listed.etag, listed.size_bytes)
        name = listed.key.removeprefix(f"{BASE_KEY}/odd/")
        assert await read_all(store, version) == name.encode()
        await store.confirm(version)
        probe = await store.list_page(listed.key)
        assert listed in probe.objects


async def test_control_characters_are_listed_and_read(store):
    page = await store.list_page(f"{BASE_KEY}/control/")
    assert [each.key for each in page.objects] == [f"{BASE_KEY}/control/{n}" for n in CONTROL_NAMES]
    for listed, name in zip(page.objects, CONTROL_NAMES, strict=True):
        version = ObjectVersion(1, listed.key, listed.etag, listed.size_bytes)
        assert await read_all(store, version) == name.encode()


async def test_a_key_below_an_empty_name_is_listed_and_read(store):
    (listed,) = (await store.list_page(f"{BASE_KEY}/odd//")).objects
    assert listed.key == f"{BASE_KEY}/odd//x"
    assert await read_all(store, await version_of(store, "odd//x")) == b"below an empty name"


async def test_keys_come_in_the_byte_order_that_listings_are_merged_by(store):
    keys = [each.key for each in (await store.list_page(f"{BASE_KEY}/odd/")).objects]
    assert keys == sorted(keys, key=str.encode)


async def test_ranges_of_a_large_object_are_its_bytes(store, data):
    version, content = await version_of(store, "big.bin"), data["big.bin"]
    for start, stop in ((0, 1), (5_000_001, 13_000_003), (len(content) - 1, len(content))):
        assert await read_all(store, version, start, stop) == content[start:stop]


@pytest.mark.parametrize("keys_max", [1000, 300])
async def test_pages_join_to_the_whole_listing(store, keys_max):
    names, token = [], None
    while True:
        page = await store.list_page(f"{BASE_KEY}/many/", token=token, keys_max=keys_max)
        names += [listed.key.rpartition("/")[2] for listed in page.objects]
        token = page.next_token
        if token is None:
            break
    assert names == [f"n{number:04d}" for number in range(1100)]


async def test_pages_that_end_at_odd_keys_join_to_the_whole_listing(store):
    keys, token = [], None
    while True:
        page = await store.list_page(f"{BASE_KEY}/odd/", token=token, keys_max=1)
        keys += [*page.prefixes, *(listed.key for listed in page.objects)]
        token = page.next_token
        if token is None:
            break
    names = sorted([*ODD_NAMES, "/"], key=str.encode)
    assert keys == [f"{BASE_KEY}/odd/{name}" for name in names]


async def test_directories_are_rolled_up(store):
    root = await store.list_page(f"{BASE_KEY}/")
    assert root.prefixes == [f"{BASE_KEY}/{name}/" for name in ("control", "many", "odd")]


async def test_a_replaced_object_is_stale(store, s3):
    key = f"{BASE_KEY}/replaced"
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"0123456789")
    version = await version_of(store, "replaced")
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"9876543210")
    with pytest.raises(StaleVersion):
        await read_all(store, version)
    with pytest.raises(StaleVersion):
        await store.confirm(version)
    s3.delete_object(Bucket=BUCKET, Key=key)


async def test_a_missing_key_is_stale(store):
    missing = ObjectVersion(1, f"{BASE_KEY}/missing", '"0"', 10)
    with pytest.raises(StaleVersion):
        await read_all(store, missing)
    with pytest.raises(StaleVersion):
        await store.confirm(missing)


@pytest.mark.parametrize("prefix", ["", "projects/", "projects/other/", f"{BASE_KEY}x/"])
async def test_a_listing_outside_the_base_key_is_denied(store, prefix):
    with pytest.raises(AccessDenied, match="403 AccessDenied"):
        await store.list_page(prefix)


async def test_an_object_outside_the_base_key_is_denied(store, s3):
    key = "projects/other/secret"
    etag = s3.head_object(Bucket=BUCKET, Key=key)["ETag"]
    with pytest.raises(AccessDenied, match="403 AccessDenied"):
        await read_all(store, ObjectVersion(1, key, etag, 9))


async def test_the_proof_of_ownership_cannot_be_read(store):
    version = await version_of(store, "owner.txt")
    with pytest.raises(AccessDenied, match="403 AccessDenied"):
        await read_all(store, version)


async def test_a_missing_bucket_is_not_found(open_store):
    store, _ = await open_store(LONG_S, bucket="no-such-bucket")
    with pytest.raises(NotFound):
        await store.list_page(f"{BASE_KEY}/")


async def test_a_wrong_secret_is_said_to_be_one(radosgw, vendor, s3, nursery):
    right = await VendorSource(vendor).fetch()
    wrong = Credentials(right.access_key_id, "wrong", right.session_token)
    lease = CredentialLease(VendorSource(vendor), first=wrong)
    store = S3Store(BUCKET, lease, endpoint_url=radosgw.url, region="us-east-1")
    with pytest.raises(AccessDenied, match="SignatureDoesNotMatch"):
        await store.list_page(f"{BASE_KEY}/")
    store.close()


async def test_sessions_are_renewed_before_they_end(open_store, radosgw, data):
    before = len(radosgw.accesses())
    store, lease = await open_store(SHORT_S)
    version = await version_of(store, "big.bin")
    while lease.status().renewals < 3:
        assert await read_all(store, version, 0, MIB) == data["big.bin"][:MIB]
    assert lease.status().failures == 0
    found = radosgw.accesses()[before:]
    assert {access.status for access in found if access.method == "GET"} == {200, 206}


async def test_a_session_that_is_refused_is_renewed_unseen(open_store, radosgw, data):
    """radosgw answers AccessDenied, not ExpiredToken; its own clock tells them apart."""
    before = len(radosgw.accesses())
    store, lease = await open_store(SHORT_S, slow_s=HOUR_S)
    version, content = await version_of(store, "big.bin"), data["big.bin"]
    position = 0
    while lease.status().renewals < 2:
        assert (
            await read_all(store, version, position, position + MIB)
            == (content[position : position + MIB])
        )
        position = (position + MIB) % len(content)
    refused = [access for access in radosgw.accesses()[before:] if access.status == 403]
    assert len(refused) == 1
    assert (await store.list_page(f"{BASE_KEY}/")).objects


async def test_a_session_that_is_over_for_good_is_no_denial(open_store):
    store, lease = await open_store(SHORT_S, allowed=1, slow_s=HOUR_S)
    version = await version_of(store, "big.bin")

    async def read_on():
        while True:
            await read_all(store, version, 0, MIB)

    with pytest.raises(SessionExpired, match="Synapse is down"):
        await read_on()
    assert not lease.status().in_force
