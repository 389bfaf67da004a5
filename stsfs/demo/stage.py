"""What the demonstration plays on: an S3, a gate before it, a Synapse and a data set, all local."""

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from stsfs.daemon import mountinfo, runtime_dir
from stsfs.daemon.unmount import unmount
from stsfs.demo.commands import install_programs
from stsfs.demo.dataset import dataset
from stsfs.demo.dataset.dataset import Dataset
from stsfs.demo.fake_synapse.server import FakeSynapse
from stsfs.demo.fake_synapse.sts import LocalVendor
from stsfs.demo.gate.gate import UPSTREAM_KEYS, Gate
from stsfs.demo.gate.sessions import Session
from stsfs.errors import MountBusy, NoSuchMount

TOKEN_LIFETIME_S = 20.0
"""Of the AWS credentials. Synapse's own live an hour: too long to watch."""

BUCKET, BASE_KEY = "lab-bucket", "projects/cohort-study"
UNMOUNT_TIMEOUT_S = 20.0

_FOREIGN_VARIABLES = ("AWS_", "SYNAPSE_", "STSFS_")
_NO_FILE = os.devnull


class _VendedKeys:
    """Tells the gate which keys the fake Synapse has given out."""

    def __init__(self, vendor: LocalVendor) -> None:
        self._vendor = vendor

    def lookup(self, access_key_id: str) -> Session | None:
        """See KeyRing."""
        vended = self._vendor.session(access_key_id)
        if vended is None:
            return None
        return Session(
            vended.access_key_id,
            vended.secret_access_key,
            vended.session_token,
            vended.expires_at_unix_s,
            vended.bucket,
            vended.base_key,
            vended.permission,
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """The running servers, and where things lie."""

    directory: Path
    """Private, and removed in the end."""

    data: Dataset
    gate: Gate
    synapse: FakeSynapse
    vendor: LocalVendor
    folder_id: str
    """The Synapse folder whose storage location holds the data set."""

    @property
    def mount_path(self) -> Path:
        """An empty directory to mount on."""
        return self.directory / "data"

    @property
    def token_file(self) -> Path:
        """Holds a Synapse token."""
        return self.directory / "token"

    @property
    def log_file(self) -> Path:
        """Where the daemon logs."""
        return self.directory / "stsfs.log"

    @property
    def programs(self) -> Path:
        """A directory for PATH."""
        return self.directory / "bin"

    @property
    def first_token_ends_unix_s(self) -> float:
        """When the credentials end with which the mount began; wall clock."""
        return next(iter(self.vendor.sessions.values())).expires_at_unix_s


@contextlib.contextmanager
def open_stage(progress: Callable[[str], None]) -> Iterator[Stage]:
    """Build everything, and take it away again; `progress` is told what is being waited for.

    The environment is the caller's, without what it says of AWS, Synapse, stsfs and proxies.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_own_environment())
        directory = Path(tempfile.mkdtemp(prefix="stsfs-demo-")).resolve()
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        os.environ["XDG_CACHE_HOME"] = str(directory / "cache")
        progress("making a small data set")
        data = _build_data(directory)
        progress("starting a local S3 and a local Synapse")
        s3_url = stack.enter_context(_serve_s3())
        vendor = LocalVendor(TOKEN_LIFETIME_S)
        synapse = stack.enter_context(FakeSynapse(vendor=vendor))
        gate = stack.enter_context(Gate(s3_url, _VendedKeys(vendor)))
        progress("uploading the data set")
        _upload(s3_url, data)
        token = secrets.token_urlsafe(32)
        folder_id = _add_folder(synapse, token)
        stage = Stage(directory, data, gate, synapse, vendor, folder_id)
        stage.mount_path.mkdir()
        _write_private(stage.token_file, token)
        install_programs(stage.programs)
        stack.callback(take_mount_away, stage.mount_path)
        yield stage


def take_mount_away(path: Path) -> str:
    """Unmount, whoever is in there, and wait for the daemon; do nothing where there is no mount.

    Returns who had to be cut off, or nothing. Raises what `daemon.unmount` raises.
    """
    if mountinfo.mount_at(path) is None and runtime_dir.find(path) is None:
        return ""
    try:
        unmount(path, lazy=False, timeout_s=UNMOUNT_TIMEOUT_S)
    except NoSuchMount:
        return ""
    except MountBusy as busy:
        unmount(path, lazy=True, timeout_s=UNMOUNT_TIMEOUT_S)
        with contextlib.suppress(NoSuchMount):  # its last user may have left just now
            unmount(path, lazy=False, timeout_s=UNMOUNT_TIMEOUT_S)
        return busy.sentence
    return ""


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Hide the configuration of the user's real accounts from us and from what we start."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(_FOREIGN_VARIABLES) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ.update(AWS_CONFIG_FILE=_NO_FILE, AWS_SHARED_CREDENTIALS_FILE=_NO_FILE)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _build_data(directory: Path) -> Dataset:
    root = directory / "upload"
    root.mkdir()
    return dataset.build(root)


@contextlib.contextmanager
def _serve_s3() -> Iterator[str]:
    """Run moto, and give its URL."""
    # Its server writes a line per request, to whatever stderr is.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def _upload(s3_url: str, data: Dataset) -> None:
    """Put the data set, and the file by which Synapse knows whose bucket it is, into the bucket."""
    s3 = boto3.client(
        "s3",
        endpoint_url=s3_url,
        region_name="us-east-1",
        aws_access_key_id=UPSTREAM_KEYS.access_key_id,
        aws_secret_access_key=UPSTREAM_KEYS.secret_access_key,
    )
    with contextlib.closing(s3):
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key=f"{BASE_KEY}/owner.txt", Body=b"ada\n")
        for file in data.files:
            body = (data.root / file.path).read_bytes()
            s3.put_object(Bucket=BUCKET, Key=f"{BASE_KEY}/{file.path}", Body=body)


def _add_folder(synapse: FakeSynapse, token: str) -> str:
    """Add a user, a project and a folder with an STS storage location; return the folder's id."""
    user = synapse.state.add_user("ada", token=token)
    project = synapse.state.add_project("Cohort study", user)
    folder = synapse.state.add_sts_folder("Data", project, user, bucket=BUCKET, base_key=BASE_KEY)
    return folder.syn_id


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(f"{text}\n")
