"""What stands behind a mount: an S3, a gate that enforces Synapse's session policy, a Synapse.

All of it runs in threads of the test's process. Whatever keeps the interpreter's lock while the
kernel waits for the mount (page faults of a mapping, h5py) must therefore run in another process.
"""

import contextlib
import http.client
import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from stsfs.demo.fake_synapse.guard import Fault
from stsfs.demo.fake_synapse.server import FakeSynapse
from stsfs.demo.fake_synapse.storage import Boto3Storage
from stsfs.demo.fake_synapse.sts import LIFETIME_S, LocalVendor
from stsfs.demo.file_server.server import FileServer
from stsfs.demo.gate.gate import Gate
from stsfs.demo.gate.sessions import Session, SessionBook

BUCKET = "lab"
TOKEN = "ada-token-4711-of-the-stage"
STATIC_KEYS = Session("AKIASTAGE", "static/secret+of0the1stage2static3secret4")
PATIENCE_S = 60.0
"""How long a test waits for what must happen; never how long something may take."""


class CountingVendor(LocalVendor):
    """Vends keys, and lets a test wait for the n-th set."""

    def __init__(self):
        super().__init__()
        self.vended = 0
        self.withheld = frozenset()
        """Operations that the role behind all sessions may not do, in S3's words."""

        self._changed = threading.Condition()

    def vend(self, *arguments):
        made = super().vend(*arguments)
        with self._changed:
            self.vended += 1
            self._changed.notify_all()
        return made

    def wait_for(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: self.vended >= count, PATIENCE_S)


class Keys:
    """The gate's key ring: what Synapse vended, and keys of S3's own."""

    def __init__(self, vendor, book):
        self._vendor, self._book = vendor, book

    def lookup(self, access_key_id):
        found = self._vendor.session(access_key_id)
        if found is None:
            return self._book.lookup(access_key_id)
        return Session(
            found.access_key_id,
            found.secret_access_key,
            found.session_token,
            found.expires_at_unix_s,
            found.bucket,
            found.base_key,
            found.permission,
            self._vendor.withheld,
        )


@dataclass
class Folder:
    """A Synapse folder with an STS location of its own, and the directory behind it."""

    stage: "Stage"
    syn_id: str
    base_key: str
    path: Path

    @property
    def uri(self):
        return f"s3://{BUCKET}/{self.base_key}"

    def write(self, name, data):
        """Make an object before anyone looks, directly as a file."""
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        return data

    def put(self, name, data):
        """Make or replace an object in one step, as another client does."""
        return self.stage.call_s3("PUT", f"{self.base_key}/{name}", data)

    def key_of(self, name):
        """The key of a file."""
        return f"{self.base_key}/{name}"

    def object_path(self, name):
        """Where the bytes of a file are on disk."""
        return self.stage.bucket / self.key_of(name)

    def adopt(self):
        """Show all that was put into `path` by hand."""

    def delete(self, name):
        self.stage.call_s3("DELETE", f"{self.base_key}/{name}")

    @property
    def sts_calls(self):
        """Requests for credentials of this folder."""
        return self.stage.synapse.counts.get(f"GET /repo/v1/entity/{self.syn_id}/sts", 0)


class Stage:
    """The servers of one test module."""

    def __init__(self, root):
        self.bucket = root / BUCKET
        self.bucket.mkdir()
        self.server = FileServer(root)
        self.vendor = CountingVendor()
        book = SessionBook()
        book.add(STATIC_KEYS)
        self.gate = Gate(self.server.url, Keys(self.vendor, book))
        self.storage = Boto3Storage(
            self.gate.url,
            access_key_id=STATIC_KEYS.access_key_id,
            secret_access_key=STATIC_KEYS.secret_access_key,
        )
        self.synapse = FakeSynapse(vendor=self.vendor, storage=self.storage, throttle=False)
        self.state = self.synapse.state
        self.user = self.state.add_user("ada", token=TOKEN)
        self.project = self.state.add_project("P", self.user)
        self.denials_expected = False
        self._folders = 0
        self._let_go = threading.Event()

    def __enter__(self):
        self._open = contextlib.ExitStack()
        self._open.callback(self.storage.close)
        self._open.enter_context(self.server)
        self._open.enter_context(self.gate)
        self.synapse.__enter__()
        return self

    def __exit__(self, *_):
        self._let_go.set()
        self.synapse.__exit__()
        self._open.close()

    def folder(self):
        """A new, empty STS folder."""
        self._folders += 1
        base_key = f"base/f{self._folders}"
        path = self.bucket / base_key
        path.mkdir(parents=True)
        made = self.state.add_sts_folder(
            f"f{self._folders}", self.project, self.user, bucket=BUCKET, base_key=base_key
        )
        return Folder(self, made.syn_id, base_key, path)

    def reset(self):
        """All servers behave, and have seen nothing."""
        self.vendor.lifetime_s = LIFETIME_S
        self.vendor.withheld = frozenset()
        self.gate.faults.clear()
        self.synapse.faults.clear()
        self.denials_expected = False
        self.forget_requests()

    def forget_requests(self):
        self.gate.requests.reset()
        self.gate.denied.reset()
        self.server.requests.reset()

    @property
    def requests(self):
        """What the gate has seen since the last `forget_requests`, by kind."""
        return {kind: n for kind, n in self.gate.requests.counts.items() if kind}

    def call_s3(self, method, key, body=None, headers=()):
        """One request straight to the file server, past the gate; returns its headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request(method, f"/{BUCKET}/{quote(key, safe='/')}", body, dict(headers))
            response = connection.getresponse()
            said = response.read()
            assert response.status < 300, said
            return response.headers

    @contextlib.contextmanager
    def synapse_background_held(self):
        """Nothing is told of any one file: what a mount asks for by itself has to wait."""
        self.synapse.faults.add(Fault(path="/version/", delay_s=PATIENCE_S))
        try:
            yield
        finally:
            self.synapse.faults.clear()

    @contextlib.contextmanager
    def synapse_down(self):
        """Nobody answers at Synapse's address."""
        self.synapse.__exit__()
        try:
            yield
        finally:
            self.synapse.__enter__()

    @contextlib.contextmanager
    def s3_holding(self):
        """S3 answers nothing until the block yields the event that lets all go on."""
        self._let_go.clear()
        self.server.pause = lambda _: self._let_go.wait(PATIENCE_S)
        self.server.first_byte_delay_s = 1
        try:
            yield self._let_go
        finally:
            self.server.first_byte_delay_s = 0
            self._let_go.set()
