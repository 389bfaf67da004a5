"""Mounts that real programs write through, of root and of another user."""

import shutil

import pytest

from tests.mount.tools.tool_stage import PEOPLE, Work, mounted_by_root, mounted_by_user
from tests.mount.users import users_of
from tests.mount.writing_stage import LONG_TTL, RW, new_desks


@pytest.fixture(scope="module")
def folder(servers):
    return new_desks(servers)


@pytest.fixture(scope="module")
def of_root(folder, module_mount, tmp_path_factory):
    live = module_mount(folder.syn_id, *RW, *LONG_TTL)
    return mounted_by_root(live, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def users(servers):
    with users_of(servers) as made:
        yield made


@pytest.fixture(scope="module")
def of_user(folder, users):
    with mounted_by_user(users, folder) as made:
        yield made


@pytest.fixture(params=PEOPLE)
def work(request, folder, stage):
    made = Work(request.getfixturevalue(f"of_{request.param}"), folder)
    yield made
    shutil.rmtree(made.home)
