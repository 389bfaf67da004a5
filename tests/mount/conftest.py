"""Fixtures of the tests through real kernel mounts; their teardown is an audit."""

import contextlib
import tempfile
from pathlib import Path

import pytest

from tests.mount.entity_folder import new_folder
from tests.mount.live_mount import Host
from tests.mount.reader_client import ReaderClient
from tests.mount.stage import Stage


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with Stage(tmp_path_factory.mktemp("s3")) as stage:
        yield stage


@pytest.fixture(autouse=True)
def stage(servers):
    """The servers, behaving, and audited at the end: nothing the policy denies was ever sent."""
    servers.reset()
    yield servers
    denied = [(each.kind, each.key, each.query, each.verdict) for each in servers.gate.denied]
    expected = servers.denials_expected
    servers.reset()
    assert expected or denied == []


def pytest_generate_tests(metafunc):
    """Tests of a module that names VIEWS run in each of them."""
    if "view" in metafunc.fixturenames and hasattr(metafunc.module, "VIEWS"):
        metafunc.parametrize("view", metafunc.module.VIEWS, scope="module")


@pytest.fixture(scope="module")
def view():
    """What folders are filled with: keys, or entities."""
    return "keys"


@pytest.fixture
def folder(stage, view):
    """An empty STS folder."""
    return new_folder(stage, view)


@contextlib.contextmanager
def _host(home, stage):
    # pytest's own directories can be too long for the name of a socket
    with tempfile.TemporaryDirectory(prefix="stsfs-run-") as runtime:
        yield Host(home, Path(runtime), stage)


@contextlib.contextmanager
def _mounting(host):
    """A function that mounts; whatever it mounted is audited at the end."""
    mounts = []

    def mount(location, *options, env=None):
        mounts.append(host.mount(location, *options, env=env))
        return mounts[-1]

    try:
        yield mount
    finally:
        problems = [f"{live.path}: {each}" for live in mounts for each in live.audit()]
        assert problems == []
        assert host.records() == []


@pytest.fixture
def host(tmp_path, stage):
    """An account with the `stsfs` command."""
    with _host(tmp_path, stage) as made:
        yield made


@pytest.fixture
def mount(host):
    """mount(location, *options) -> LiveMount."""
    with _mounting(host) as mount:
        yield mount


@pytest.fixture(scope="module")
def module_host(tmp_path_factory, servers):
    with _host(tmp_path_factory.mktemp("host"), servers) as made:
        yield made


@pytest.fixture(scope="module")
def module_mount(module_host):
    """The same for a mount that all tests of a module share; it must not be changed under them."""
    with _mounting(module_host) as mount:
        yield mount


@pytest.fixture
def reader():
    """A process that opens and reads files for the test."""
    with ReaderClient() as made:
        yield made
