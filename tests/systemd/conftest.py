"""One booted container for the whole run. Without `-m systemd` none of this is collected."""

import os
import shutil

import pytest

from tests.mount.stage import Stage
from tests.systemd import debian_root
from tests.systemd.container import Container
from tests.systemd.service import Desk


def pytest_ignore_collect(collection_path, config):
    """Leave this folder out unless it is asked for."""
    expression = config.option.markexpr or ""
    return None if "systemd" in expression and "not systemd" not in expression else True


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    with Stage(tmp_path_factory.mktemp("s3")) as stage:
        yield stage


@pytest.fixture(scope="session")
def desk(stage, tmp_path_factory):
    """Where services are set up and looked at."""
    if os.geteuid() != 0 or not shutil.which("systemd-nspawn"):
        pytest.skip("needs root and systemd-nspawn")
    settings = tmp_path_factory.mktemp("etc") / "stsfs"
    settings.mkdir()
    desk = Desk(stage, settings)
    boot = desk.prepare(debian_root.BOOT_INSTANCE)
    with Container(debian_root.prepare(), settings) as container:
        desk.open(container, boot)
        yield desk


@pytest.fixture
def service(desk, request):
    """A service that is set up, not started; nothing of it is left in the end."""
    made = desk.prepare(request.node.name.replace("_", "-")[5:40])
    yield made
    made.put_away()
