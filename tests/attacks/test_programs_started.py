"""Programs that are started: not by PATH, and without the tokens of whoever mounts."""

# ruff: noqa: F811 - fixtures are imported, and then arguments

import ast
import os
import select
import signal
import sys
from pathlib import Path

import pytest

from stsfs import programs
from stsfs.daemon import mount_probe
from stsfs.daemon import unmount as unmounting
from stsfs.errors import AccessDenied, FuseUnavailable
from stsfs.fuse.mount_point import MountOptions, MountPoint
from stsfs.fuse.session import Session
from tests.mount.conftest import folder, host, servers, stage, view  # noqa: F401
from tests.mount.stage import PATIENCE_S

SOURCES = sorted((Path(__file__).parents[2] / "stsfs").rglob("*.py"))
SECRETS = {
    "SYNAPSE_AUTH_TOKEN": "t",
    "AWS_SECRET_ACCESS_KEY": "k",
    "AWS_SESSION_TOKEN": "s",
    "STSFS_MOUNT_TOKEN_FILE": "/f",
}
ALLOWED = {"PATH", "LC_ALL", "LD_LIBRARY_PATH", "_FUSE_COMMFD"}
OF_THE_SHELL = {"PWD", "SHLVL", "_", "OLDPWD"}

STARTERS = {"run", "Popen", "call", "check_call", "check_output", "run_process", "open_process"}
FORBIDDEN = {"system", "popen", "execv", "execvp", "execvpe", "posix_spawn", "posix_spawnp"}
FORBIDDEN |= {"spawnv", "spawnvp", "create_subprocess_exec", "create_subprocess_shell"}


@pytest.fixture
def secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """A directory at the front of PATH, where a program only notes that it ran."""
    directory = tmp_path / "planted"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    write_program(directory / "fusermount3", f": > {tmp_path}/ran; exit 1")
    return tmp_path / "ran"


@pytest.fixture
def ordinary_user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def write_program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def noting_program(directory, name):
    """A program that writes down its environment; returns how to read that."""
    write_program(directory / name, f"env > {directory}/environment; exit 1")

    def names():
        text = (directory / "environment").read_text()
        return {line.partition("=")[0] for line in text.splitlines()} - OF_THE_SHELL

    return names


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0, reason="root only")
def test_root_starts_no_program_of_the_path_to_mount_and_unmount(host, folder, planted):
    search = {"PATH": f"{planted.parent / 'planted'}:{os.environ['PATH']}"}
    path = host.mount_point()
    assert host.try_mount(folder.uri, path, env=search).returncode == 0
    (record,) = host.records()
    process = os.pidfd_open(record["pid"])
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)  # the daemon itself unmounts
        assert select.select([process], [], [], PATIENCE_S)[0]
    finally:
        os.close(process)
    assert not os.path.ismount(path)
    assert not planted.exists()


async def test_an_ordinary_user_starts_no_program_of_the_path(
    planted, ordinary_user, monkeypatch, tmp_path
):
    monkeypatch.setattr(programs, "SYSTEM_DIRECTORIES", (tmp_path / "empty",))
    with MountPoint.open(tmp_path) as point:
        with pytest.raises(FuseUnavailable, match=r"empty/fusermount3 cannot be run"):
            await Session(point).mount(MountOptions("x", is_read_only=True))
        point.mounted_id = point.below_id
        await Session(point).unmount()
    with pytest.raises(AccessDenied, match="not installed"):
        unmounting.detach(tmp_path, lazy=False)
    assert not planted.exists()


async def test_fusermount3_gets_no_secrets_when_it_mounts(
    secrets, ordinary_user, monkeypatch, tmp_path
):
    names = noting_program(tmp_path, "fusermount3")
    monkeypatch.setattr(programs, "SYSTEM_DIRECTORIES", (tmp_path,))
    with MountPoint.open(tmp_path) as point, pytest.raises(FuseUnavailable):
        await Session(point).mount(MountOptions("x", is_read_only=True))
    assert {"PATH", "_FUSE_COMMFD"} <= names() <= ALLOWED


async def test_fusermount3_gets_no_secrets_when_it_unmounts(
    secrets, ordinary_user, monkeypatch, tmp_path
):
    names = noting_program(tmp_path, "fusermount3")
    monkeypatch.setattr(programs, "SYSTEM_DIRECTORIES", (tmp_path,))
    with MountPoint.open(tmp_path) as point:
        point.mounted_id = point.below_id
        await Session(point).unmount()
        assert names() <= ALLOWED
        (tmp_path / "environment").unlink()
        Session(point).abandon()
        assert names() <= ALLOWED
        (tmp_path / "environment").unlink()
    with pytest.raises(AccessDenied):
        unmounting.detach(tmp_path, lazy=True)
    assert names() <= ALLOWED


def test_the_program_that_looks_whether_a_mount_answers_gets_no_secrets(
    secrets, monkeypatch, tmp_path
):
    names = noting_program(tmp_path, "python")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    mount_probe.start_probe(tmp_path).wait(60)
    assert names() <= ALLOWED


@pytest.mark.skipif(os.geteuid() != 0, reason="root only")
async def test_the_program_that_unmounts_for_root_gets_no_secrets(secrets, monkeypatch, tmp_path):
    names = noting_program(tmp_path, "python")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with MountPoint.open(tmp_path) as point:
        point.mounted_id = point.below_id
        await Session(point).unmount()
    assert names() <= ALLOWED


def test_every_program_is_started_with_an_environment_of_its_own():
    """The demo aside, which starts our own command."""
    bare = []
    for path in SOURCES:
        if "demo" in path.parts:
            continue
        for call in [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]:
            function = call.func
            if not isinstance(function, ast.Attribute):
                continue
            module = ast.unparse(function.value)
            given = {each.arg for each in call.keywords}
            is_start = module in ("subprocess", "trio", "trio.lowlevel") and (
                function.attr in STARTERS - ({"run"} if module == "trio" else set())
            )
            if (is_start and "env" not in given) or (module == "os" and function.attr in FORBIDDEN):
                bare.append(f"{path.name}:{call.lineno}")
            assert "shell" not in given, path
    assert bare == []
