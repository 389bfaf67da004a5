"""What is checked before a mount, and who keeps one busy, without mounting."""

import os
from pathlib import Path

import pytest

from stsfs.daemon import holders, mount_point
from stsfs.daemon import unmount as unmounting
from stsfs.daemon.mount_point import check_fuse, check_mount_point
from stsfs.errors import AccessDenied, FuseUnavailable, MountBusy, MountPointUnusable


def test_unusable_mount_points(tmp_path):
    (tmp_path / "file").touch()
    for path, words in [
        (tmp_path / "absent", "does not exist"),
        (tmp_path / "file", "not a directory"),
        (tmp_path, "not empty"),
        (Path("/proc"), "already a mount"),
    ]:
        with pytest.raises(MountPointUnusable, match=words):
            check_mount_point(path)


def test_a_missing_fuse_device_is_named_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(mount_point, "FUSE_DEVICE", tmp_path / "fuse")
    with pytest.raises(FuseUnavailable, match="--device /dev/fuse"):
        check_fuse(allow_other=False)


@pytest.fixture
def ordinary_user(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(mount_point, "FUSE_DEVICE", Path(os.devnull))
    monkeypatch.setattr(mount_point, "FUSE_CONFIG", tmp_path / "fuse.conf")
    monkeypatch.setenv("PATH", str(tmp_path))


def command(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_missing_fusermount3_is_named_with_a_remedy(ordinary_user):
    with pytest.raises(FuseUnavailable, match="apt install fuse3"):
        check_fuse(allow_other=False)


def test_allow_other_needs_a_line_in_fuse_conf(ordinary_user, tmp_path):
    command(tmp_path / "fusermount3", "exit 0")
    check_fuse(allow_other=False)
    for text in ("", "#user_allow_other\n"):
        (tmp_path / "fuse.conf").write_text(text)
        with pytest.raises(FuseUnavailable, match="user_allow_other"):
            check_fuse(allow_other=True)
    (tmp_path / "fuse.conf").write_text("mount_max = 10\n user_allow_other\n")
    check_fuse(allow_other=True)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("fusermount3: failed to unmount /m: Device or resource busy", MountBusy),
        ("fusermount3: entry for /m not found in /etc/mtab", AccessDenied),
    ],
)
def test_refusals_of_fusermount3_are_told_apart(ordinary_user, tmp_path, words, error):
    command(tmp_path / "fusermount3", f"echo '{words}' >&2; exit 1")
    with pytest.raises(error):
        unmounting.detach(Path("/m"), lazy=False)


def test_holders_are_found_by_directory_file_and_mapping(tmp_path):
    for pid in ("1", "2", "3", "4", "self"):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "comm").write_text(f"c{pid}\n")
    (tmp_path / "1" / "cwd").symlink_to("/m")
    (tmp_path / "2" / "fd" / "5").symlink_to("/m/a")
    (tmp_path / "3" / "maps").write_text(
        "7f-80 r--p 0 00:35 12 /m/dir/a file\n7f-80 r--p 0 0:0 0\n"
    )
    (tmp_path / "4" / "cwd").symlink_to("/mm")
    assert [str(holder) for holder in holders.holders(Path("/m"), proc=tmp_path)] == [
        "c1 (1, working directory)",
        "c2 (2, open file)",
        "c3 (3, mapped file)",
    ]
