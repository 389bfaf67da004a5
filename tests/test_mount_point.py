"""What is checked before a mount, and who keeps one busy, without mounting."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stsfs import programs
from stsfs.daemon import holders, mount_point, mount_probe, mountinfo
from stsfs.daemon import unmount as unmounting
from stsfs.daemon.mount_point import (
    check_cache_dir,
    check_fuse,
    check_in_place,
    check_mount_point,
    check_staging_dir,
    claimed,
    clear_dead_mount,
    clear_stray_mounts,
    confirm_mounted,
)
from stsfs.daemon.mountinfo import MountEntry
from stsfs.errors import AccessDenied, BadArgument, FuseUnavailable, MountBusy, MountPointUnusable
from stsfs.fuse.mount_point import MountPoint


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
    monkeypatch.setattr(programs, "SYSTEM_DIRECTORIES", (tmp_path,))


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
        "c1 (1, working directory /m)",
        "c2 (2, open file /m/a)",
        "c3 (3, mapped file /m/dir/a file)",
    ]


@pytest.fixture
def kernel_says(monkeypatch, tmp_path):
    """What is mounted at a path, and whether it is dead; returns the calls that detach."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    detached = []

    def say(entry, *, dead):
        mounted = [entry]
        monkeypatch.setattr(mountinfo, "mounts", lambda: list(mounted))
        monkeypatch.setattr(mount_probe, "is_dead", lambda path, timeout_s: dead)

        def detach(path, *, lazy):
            detached.append((path, lazy))
            mounted.clear()

        monkeypatch.setattr(mount_point, "detach", detach)
        return detached

    return say


M = Path("/m")


@pytest.mark.parametrize(
    ("kind", "owner", "dead"),
    [
        ("fuse.stsfs", os.geteuid(), False),
        ("fuse.stsfs", os.geteuid() + 1, True),
        ("fuse.other", os.geteuid(), True),
    ],
)
def test_only_dead_mounts_of_our_own_are_cleared_away(kernel_says, kind, owner, dead):
    detached = kernel_says(MountEntry(M, kind, "s", "0:50", owner), dead=dead)
    assert not clear_dead_mount(M)
    assert detached == []
    with pytest.raises(MountPointUnusable, match="dead" if owner != os.geteuid() else "already"):
        check_mount_point(M)


def test_a_dead_mount_of_our_own_is_cleared_away(kernel_says):
    detached = kernel_says(MountEntry(M, "fuse.stsfs", "s", "0:50", os.geteuid()), dead=True)
    assert clear_dead_mount(M)
    assert not clear_dead_mount(M)
    assert detached == [(M, True)]


def test_a_place_is_claimed_by_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with claimed(M) as claim:
        with pytest.raises(MountPointUnusable, match="just mounting"), claimed(M):
            pass
        with claimed(Path("/n")):
            pass
        claim.release()
        with claimed(M):
            pass
    assert [path.name for path in (tmp_path / "stsfs").iterdir()] == []


def test_a_claim_ends_with_its_process(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    program = (
        "import os; from pathlib import Path; from stsfs.daemon import runtime_dir;"
        "runtime_dir.claim(Path('/m')); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], check=True)
    with claimed(M):
        pass


@pytest.mark.parametrize("kind", ["nfs4", "fuse.stsfs", "fuse", "lustre", "cifs"])
@pytest.mark.parametrize("check", [check_cache_dir, check_staging_dir])
def test_neither_blocks_nor_written_bytes_are_kept_on_a_network_file_system(
    monkeypatch, check, kind
):
    mounted = [MountEntry(Path("/"), "ext4", "d", "8:1"), MountEntry(M, kind, "server", "0:50")]
    monkeypatch.setattr(mountinfo, "mounts", lambda: mounted)
    with pytest.raises(BadArgument, match="no local disk") as raised:
        check(M / "cache")
    assert kind in raised.value.sentence
    check(Path("/tmp/nvme"))


def test_a_cache_directory_is_made_only_where_its_parent_is(tmp_path):
    check_cache_dir(tmp_path / "cache")
    with pytest.raises(BadArgument, match="does not exist"):
        check_cache_dir(tmp_path / "disk" / "cache")


def test_a_path_is_made_plain_without_asking_a_mount_of_ours(tmp_path, monkeypatch):
    mount = tmp_path / "mnt"
    (mount / "inside").mkdir(parents=True)
    (mount / "link").symlink_to("/elsewhere")
    (tmp_path / "to-mount").symlink_to(mount)
    (tmp_path / "to-inside").symlink_to("to-mount/inside")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "plain").mkdir()
    (tmp_path / "to-plain").symlink_to("plain")
    entry = MountEntry(mount, "fuse.stsfs", "syn1", "0:1")
    monkeypatch.setattr(mountinfo, "mounts", lambda: [entry])
    looked_at = []
    readlink = os.readlink

    def noted(path):
        looked_at.append(Path(path))
        return readlink(path)

    monkeypatch.setattr(os, "readlink", noted)
    for typed, plain in [
        ("mnt", "mnt"), ("to-mount", "mnt"), ("mnt/link/x", "mnt/link/x"),
        ("to-mount/a/../b", "mnt/b"), ("to-inside/c", "mnt/inside/c"), ("loop/x", "loop/x"),
        ("to-plain/new", "plain/new"), ("mnt/../plain", "plain"),
    ]:  # fmt: skip
        assert mountinfo.resolve(tmp_path / typed) == tmp_path / plain
    assert not [each for each in looked_at if each.is_relative_to(mount)]


@pytest.fixture
def point(tmp_path):
    with MountPoint.open(tmp_path) as made:
        made.mounted_id = 7
        yield made


def entry_on(point, **changes):
    known = {"path": point.path, "filesystem_type": "fuse.stsfs", "source": "s", "device": "0:50"}
    known |= {"id": 7, "parent_id": point.below_id}
    return MountEntry(**known | changes)


def test_a_new_mount_is_believed_only_where_it_was_meant_to_be(point, monkeypatch):
    def says(entry):
        monkeypatch.setattr(mountinfo, "mounts", lambda: [entry])

    says(entry_on(point))
    assert confirm_mounted(point) == entry_on(point)
    for changes in (
        {"path": Path("/elsewhere")},
        {"filesystem_type": "tmpfs"},
        {"parent_id": point.below_id + 1},
        {"id": 8},
    ):
        says(entry_on(point, **changes))
        with pytest.raises(MountPointUnusable, match="no longer the directory"):
            confirm_mounted(point)
    point.mounted_id = None
    with pytest.raises(MountPointUnusable, match="no longer the directory"):
        confirm_mounted(point)


def test_of_stray_mounts_only_new_dead_ones_of_our_own_are_taken_away(
    point, monkeypatch, tmp_path, kernel_says
):
    us = os.geteuid()
    old, stray, others = (
        entry_on(point, path=Path(f"/{number}"), id=number, owner_uid=uid)
        for number, uid in ((1, us), (2, us), (3, us + 1))
    )
    detached = kernel_says(stray, dead=True)
    monkeypatch.setattr(mountinfo, "mounts", lambda: [old, stray, others])
    clear_stray_mounts(frozenset({1}))
    assert detached == [(Path("/2"), True)]


def test_a_directory_that_was_moved_is_not_in_its_place(tmp_path):
    (tmp_path / "m").mkdir()
    with MountPoint.open(tmp_path / "m") as point:
        check_in_place(point)
        (tmp_path / "m").rename(tmp_path / "n")
        (tmp_path / "m").mkdir()
        with pytest.raises(MountPointUnusable, match="moved or replaced"):
            check_in_place(point)
