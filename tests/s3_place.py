"""S3 as a test wants it: a file server behind a gate, and a lease on sessions of Synapse's kind."""

import trio

from stsfs.credentials.credentials import Credentials
from stsfs.demo.file_server.server import FileServer
from stsfs.demo.gate.gate import Gate
from stsfs.demo.gate.sessions import SessionBook
from stsfs.store.object_store import ObjectVersion
from stsfs.store.s3_store import S3Store


class VendingLease:
    """The store's view of a lease: sessions of a book, a new one whenever one is refused."""

    def __init__(self, book, *, permission="read_only", base_key="base"):
        self._book, self._permission, self._base_key = book, permission, base_key
        self.clock_offset_s, self.renewals = 0.0, -1
        self._renew()

    def current(self):
        return self._held

    async def valid(self):
        return self._held

    async def renew_after(self, refused):
        await trio.lowlevel.checkpoint()
        if refused == self._held:
            self._renew()
        return self._held

    def _renew(self):
        self.renewals += 1
        made = self._book.vend("lab", self._base_key, self._permission, 3600)
        self._held = Credentials(
            made.access_key_id, made.secret_access_key, made.session_token, made.expires_at_unix_s
        )


class Place:
    """A file server behind a gate, and a store that reads from it."""

    def __init__(self, root, *, permission="read_only", **options):
        """options are the file server's."""
        self.folder = root / "lab" / "base"
        self.folder.mkdir(parents=True)
        self.server = FileServer(root, **options)
        self.book, self._permission = SessionBook(), permission

    def __enter__(self):
        self.server.__enter__()
        self.gate = Gate(self.server.url, self.book).__enter__()
        self.faults = self.gate.faults
        self.lease = VendingLease(self.book, permission=self._permission)
        return self

    def __exit__(self, *exc):
        self.gate.__exit__(*exc)
        self.server.__exit__(*exc)

    def store(self, **options):
        options.setdefault("region", "us-east-1")
        return S3Store("lab", self.lease, endpoint_url=self.gate.url, **options)

    def write(self, name, data):
        (self.folder / name).write_bytes(data)

    async def version(self, store, name):
        page = await store.list_page(f"base/{name}", keys_max=1)
        found = page.objects[0]
        return ObjectVersion(1, found.key, found.etag, found.size_bytes)
