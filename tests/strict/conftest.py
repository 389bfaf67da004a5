"""One radosgw for the whole run. Without `-m strict` none of this is collected."""

import contextlib
import tempfile
from pathlib import Path

import pytest

from stsfs.demo.fake_synapse.server import FakeSynapse
from tests.fakes import pattern
from tests.mount.live_mount import Host
from tests.mount.stage import TOKEN
from tests.strict.radosgw import Radosgw
from tests.strict.vendor import AssumeRoleVendor, client

BUCKET = "lab"
BASE_KEY = "projects/cohort"
LOGS = pytest.StashKey[Path]()
SECONDS = 5
"""How long a session lives; radosgw allows three."""

MIB = 1 << 20
BIG_BYTES = 256 * MIB

ODD_NAMES = [
    "a b", " ", "a+b", "100%", "%41", "%2B", "ü", "u\u0308", "🧬", "~x", "a=b&c", "n,o;p'q(r)",
    "<&>", '"', "?", "#", "a\\b", "tab\t", "new\nline", "return\r", "\x7f", "*", "$x",
]  # fmt: skip
"""Names that some part of a client or a server is known to stumble over."""

CONTROL_NAMES = ["\x01", "\x1f"]
"""Apart from the others, because radosgw 16 repeats a prefix and makes a continuation token as they
are, also with encoding-type=url: with these characters in them its answer is not XML."""


def pytest_ignore_collect(collection_path, config):
    """Leave this folder out unless it is asked for."""
    wanted = "strict" in (config.option.markexpr or "")
    return None if wanted and "not strict" not in config.option.markexpr else True


@pytest.fixture(scope="session")
def radosgw(request):
    """Its logs are kept where a test has failed; the last line of the run says where."""
    with Radosgw() as running:
        yield running
        running.keep = request.session.testsfailed > 0
        if running.keep:
            request.config.stash[LOGS] = running.folder


def pytest_terminal_summary(terminalreporter, config):
    if folder := config.stash.get(LOGS, None):
        terminalreporter.write_line(f"The logs of radosgw are in {folder}")


@pytest.fixture(scope="session")
def vendor(radosgw):
    return AssumeRoleVendor(radosgw.url)


@pytest.fixture(scope="session")
def writers_vendor(radosgw):
    """Of sessions that may do all that Synapse's may on AWS."""
    return AssumeRoleVendor(radosgw.url, role="writers", demands_acl=False)


@pytest.fixture(scope="session")
def data():
    """Contents by name below the base key."""
    contents = {f"odd/{name}": name.encode() for name in ODD_NAMES}
    contents |= {f"control/{name}": name.encode() for name in CONTROL_NAMES}
    contents |= {f"many/n{number:04d}": b"" for number in range(1100)}
    contents["odd//x"] = b"below an empty name"
    contents["big.bin"] = pattern("big", BIG_BYTES)
    contents["hello.txt"] = b"hello\n"
    contents["owner.txt"] = b"ada\n"
    return contents


@pytest.fixture(scope="session")
def s3(radosgw, data):
    """The owner's client, after everything is written."""
    owner = client("s3", radosgw.url)
    owner.create_bucket(Bucket=BUCKET)
    for name, content in data.items():
        owner.put_object(Bucket=BUCKET, Key=f"{BASE_KEY}/{name}", Body=content)
    owner.put_object(Bucket=BUCKET, Key="projects/other/secret", Body=b"not yours")
    yield owner
    owner.close()


class StrictStage:
    """What tests.mount.live_mount needs of a stage: where S3 and Synapse are."""

    def __init__(self, radosgw, synapse):
        self.gate, self.synapse = radosgw, synapse


@pytest.fixture(scope="session")
def stage(radosgw, vendor, s3):
    with FakeSynapse(vendor=vendor, throttle=False) as synapse:
        yield StrictStage(radosgw, synapse)


@pytest.fixture(scope="session")
def syn_id(stage):
    state = stage.synapse.state
    user = state.add_user("ada", token=TOKEN)
    project = state.add_project("P", user)
    made = state.add_sts_folder("f", project, user, bucket=BUCKET, base_key=BASE_KEY)
    return made.syn_id


@pytest.fixture(scope="session")
def writers_stage(radosgw, writers_vendor, s3):
    with FakeSynapse(vendor=writers_vendor, throttle=False) as synapse:
        yield StrictStage(radosgw, synapse)


@pytest.fixture
def mount(tmp_path, stage):
    """mount(location, *options) -> LiveMount, audited at its end."""
    with _mounting(tmp_path, stage) as mount:
        yield mount


@pytest.fixture
def writers_mount(tmp_path, writers_stage):
    """The same, of folders whose sessions may write."""
    with _mounting(tmp_path, writers_stage) as mount:
        yield mount


@contextlib.contextmanager
def _mounting(tmp_path, stage):
    with tempfile.TemporaryDirectory(prefix="stsfs-run-") as runtime, contextlib.ExitStack() as end:
        host = Host(tmp_path, Path(runtime), stage)

        def mount(location, *options, env=None):
            live = host.mount(location, *options, env=env)
            end.callback(lambda: _audited(live))
            return live

        yield mount


def _audited(live):
    assert live.audit() == []
