"""Buckets as the conformance tests want them: changed by another client, used by our stores."""

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from stsfs.credentials.credentials import Credentials
from stsfs.demo.gate.sessions import Session
from stsfs.store.capabilities import Verdict
from stsfs.store.object_store import ObjectVersion
from stsfs.store.presigned_store import PresignedStore
from stsfs.store.probing import probe_capabilities
from stsfs.store.reach import Reach
from stsfs.store.s3_store import S3Store
from tests.fakes import MemoryStore

BUCKET = "lab"
KEYS = Session("AKIATEST", "test-secret")
LISTING = ["memory", "file server", "moto"]
"""Those that list."""

WRITING = [
    *LISTING, "file server, looking before", "file server, asked", "careless server, asked",
    "Synapse session",
]  # fmt: skip
"""Those that have a writer; radosgw joins them in tests/strict. Those that are asked were probed
before; the careless one ignores all conditions."""

PART_BYTES_MIN = 5 << 20


class FixedLease:
    """Keys that do not end."""

    clock_offset_s = 0.0

    def __init__(self, keys=KEYS):
        self._keys = keys

    def current(self):
        keys = self._keys
        return Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)

    async def valid(self):
        return self.current()

    async def renew_after(self, refused):
        raise AssertionError("the server refused keys that do not end")


class S3House:
    """A bucket of an S3 server: written by AWS's own client, read by our store."""

    knows_uploads = True
    """Whether the server says of a missing upload that it is missing, and not that it failed."""

    copies_parts = has_classes = True

    def __init__(self, url, *, keys=KEYS, session=None, base="", **options):
        """session is what our store comes with; options are its writer's."""
        self.base = base
        """What all keys of a test begin with."""

        self.verdicts = {}
        self.decides_races = options.get("conditions", True)
        self._url = url
        self._lease = FixedLease(session or keys)
        self._options = options
        self._client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )
        self._client.create_bucket(Bucket=BUCKET)
        self._stores = []

    def store(self):
        self._stores.append(
            S3Store(BUCKET, self._lease, endpoint_url=self._url, region="us-east-1")
        )
        return self._stores[-1]

    def writer(self):
        made = self.store().writer(**self._options)
        for condition, verdict in self.verdicts.items():
            made.capabilities.found(condition, verdict)
        return made

    async def ask(self):
        """Find out what the server does; all writers know it from now on."""
        writer = self.writer()
        assert await probe_capabilities(writer, self.base) == ""
        self.verdicts = dict(writer.capabilities.verdicts)
        self.decides_races = set(self.verdicts.values()) == {Verdict.HONOURED}

    def put(self, key, data, **more):
        etag = self._client.put_object(Bucket=BUCKET, Key=key, Body=data, **more)["ETag"]
        return ObjectVersion(1, key, etag, len(data))

    def delete(self, key):
        self._client.delete_object(Bucket=BUCKET, Key=key)

    def found(self, key):
        """(data, metadata, content type, storage class) of an object; None without one."""
        try:
            got = self._client.get_object(Bucket=BUCKET, Key=key)
        except ClientError:
            return None
        with got["Body"] as body:
            data = body.read()
        kind = got.get("StorageClass", "STANDARD")
        return data, got["Metadata"], got["ContentType"], kind

    def leave(self):
        for store in self._stores:
            store.close()
        self._stores.clear()
        for page in self._client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=self.base
        ):
            for listed in page.get("Contents", []):
                self.delete(listed["Key"])

    def close(self):
        self._client.close()


class SignedHouse(S3House):
    """The same, read through URLs that AWS's own client signs."""

    def store(self):
        self._stores.append(PresignedStore(self._url_of, reach=Reach(loopback=True)))
        return self._stores[-1]

    async def _url_of(self, key):
        named = {"Bucket": BUCKET, "Key": key}
        return self._client.generate_presigned_url("get_object", Params=named)


class MotoHouse(S3House):
    """moto looks at some conditions and not at others."""

    knows_uploads = False

    def __init__(self, url):
        super().__init__(url, conditions=False)


class MemoryHouse:
    base = ""
    knows_uploads = copies_parts = has_classes = decides_races = True

    def __init__(self):
        self._memory = MemoryStore()
        self.delete = self._memory.delete

    def put(self, key, data):
        return self._memory.put(key, data)

    def store(self):
        return self._memory

    def writer(self):
        return self._memory.writer

    def found(self, key):
        stored = self._memory.objects.get(key)
        if stored is None:
            return None
        metadata = dict(stored.traits.metadata)
        if stored.write_id:
            metadata["stsfs-write"] = stored.write_id
        kind = stored.traits.content_type or "binary/octet-stream"
        return stored.data, metadata, kind, stored.storage_class

    def leave(self):
        self._memory.objects.clear()

    def close(self):
        pass
