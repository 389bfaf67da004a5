"""What holds for every test."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from stsfs import supervisor
from stsfs.daemon import core_dumps
from tests.order import in_order

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.hookimpl(trylast=True)  # when pytest has put together what shares a fixture
def pytest_collection_modifyitems(items):
    """See tests/order.py."""
    items[:] = in_order(items)


@pytest.fixture(autouse=True)
def _core_files_as_they_were():
    """Commands that run in the process of the tests do not forbid core files for all after them."""
    with pytest.MonkeyPatch.context() as patch:  # its own: that of a test ends when it always did
        patch.setattr(core_dumps.resource, "setrlimit", lambda *_: None)
        patch.setattr(core_dumps, "COREDUMP_FILTER", Path(os.devnull))
        yield


@pytest.fixture
def bugs(monkeypatch):
    """The bugs that are noted from here on."""
    fresh = supervisor.BugLog()
    monkeypatch.setattr(supervisor, "BUGS", fresh)
    return fresh
