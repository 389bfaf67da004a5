"""Directories and files of ours: what of others is refused, and what people really have is not."""

import os
import stat

import pytest

from stsfs import owned_dir
from stsfs.errors import BadArgument, ForeignPath
from stsfs.owned_dir import OwnedDir, open_log
from tests.hangs import bounded

OTHER = 1000

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def ours(tmp_path):
    (tmp_path / "ours").mkdir(mode=0o700)
    with OwnedDir.open(tmp_path / "ours") as opened:
        yield opened


def test_a_directory_is_made_with_what_is_missing_above_it(tmp_path):
    with OwnedDir.open(tmp_path / "a" / "b" / "c", create=True) as opened:
        assert opened.names() == []
    assert stat.S_IMODE((tmp_path / "a" / "b" / "c").stat().st_mode) == 0o700


def test_others_lose_their_permissions_where_the_directory_is_ours_alone(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ForeignPath, match="can be written by other users"):
        OwnedDir.open(tmp_path / "open")
    OwnedDir.open(tmp_path / "open", private=True).close()
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700


def test_a_link_of_ours_may_lead_to_the_directory_but_not_be_it(tmp_path):
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "far").symlink_to(tmp_path / "real")
    for link in ("link", "far"):
        with OwnedDir.open(tmp_path / link / "inner") as opened:
            assert os.path.samestat(os.fstat(opened.descriptor), (tmp_path / "real/inner").stat())
        with pytest.raises(ForeignPath, match="is a symbolic link"):
            OwnedDir.open(tmp_path / link)


def test_links_in_a_ring_end(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        OwnedDir.open(tmp_path / "a" / "c")


@needs_root
def test_a_parent_of_another_user_is_refused(tmp_path):
    (tmp_path / "theirs" / "ours").mkdir(parents=True)
    os.chown(tmp_path / "theirs", OTHER, OTHER)
    with pytest.raises(ForeignPath, match=r"theirs belongs to .*uid 1000.*, who can exchange"):
        OwnedDir.open(tmp_path / "theirs" / "ours")
    OwnedDir.open(tmp_path / "theirs" / "ours", any_parents=True).close()


@needs_root
def test_a_link_of_another_user_is_never_followed(tmp_path):
    (tmp_path / "real" / "ours").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    os.chown(tmp_path / "link", OTHER, OTHER, follow_symlinks=False)
    for any_parents in (False, True):
        with pytest.raises(ForeignPath, match=r"is a link of .*uid 1000"):
            OwnedDir.open(tmp_path / "link" / "ours", any_parents=any_parents)


@pytest.mark.parametrize("mode", [0o777, 0o733])
def test_a_parent_that_all_can_write_to_has_to_be_sticky(tmp_path, mode):
    (tmp_path / "shared" / "ours").mkdir(parents=True)
    (tmp_path / "shared").chmod(mode)
    with pytest.raises(ForeignPath, match="can be written by other users"):
        OwnedDir.open(tmp_path / "shared" / "ours")
    (tmp_path / "shared").chmod(mode | stat.S_ISVTX)
    OwnedDir.open(tmp_path / "shared" / "ours").close()


@needs_root
def test_a_group_may_write_only_where_it_is_the_private_one_of_the_owner(tmp_path):
    (tmp_path / "shared" / "ours").mkdir(parents=True)
    (tmp_path / "shared").chmod(0o775)
    OwnedDir.open(tmp_path / "shared" / "ours").close()
    os.chown(tmp_path / "shared", 0, OTHER)
    with pytest.raises(ForeignPath, match="can be written by other users"):
        OwnedDir.open(tmp_path / "shared" / "ours")


@needs_root
def test_a_directory_of_another_user_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", OTHER, OTHER)
    with pytest.raises(ForeignPath, match=r"belongs to .*uid 1000.* and not to us") as caught:
        OwnedDir.open(tmp_path / "theirs")
    assert isinstance(caught.value, BadArgument)


def test_only_files_are_opened_and_nothing_waits_for_a_pipe(ours, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (ours.path / "link").symlink_to(secret)
    (ours.path / "hard").hardlink_to(secret)
    (ours.path / "dir").mkdir()
    os.mkfifo(ours.path / "pipe")
    for name in ("link", "hard", "dir", "pipe"):
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT):
            with pytest.raises(ForeignPath):
                ours.open_file(name, flags)
        with pytest.raises(ForeignPath):
            ours.check_file(name)
        with pytest.raises(FileExistsError):
            ours.create_file(name)
    assert secret.read_text() == "secret"
    os.close(ours.open_file("hard", any_links=True))


def test_a_file_larger_than_makes_sense_is_refused(ours):
    ours.replace("file", b"12345")
    assert ours.read("file", 5) == b"12345"
    with pytest.raises(ForeignPath, match="more than 4 bytes"):
        ours.read("file", 4)


@needs_root
def test_a_file_of_another_user_is_refused(ours):
    ours.replace("file", b"")
    os.chown(ours.path / "file", OTHER, OTHER)
    with pytest.raises(ForeignPath, match=r"uid 1000"):
        ours.open_file("file")
    ours.replace("file", b"ours again")
    assert ours.read("file", 100) == b"ours again"


def test_what_is_written_is_closed_to_others(ours):
    old = os.umask(0)
    try:
        ours.replace("new", b"")
        os.close(ours.create_file("made"))
        os.close(ours.open_file("opened", os.O_RDWR | os.O_CREAT))
    finally:
        os.umask(old)
    modes = {stat.S_IMODE((ours.path / name).stat().st_mode) for name in ours.names()}
    assert modes == {0o600}
    (ours.path / "made").chmod(0o604)
    with pytest.raises(ForeignPath, match="read or written by others"):
        ours.open_file("made", private=True)


def test_a_replacement_does_not_go_through_a_link_in_its_way(ours, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("old")
    (ours.path / f"file.{os.getpid()}.new").symlink_to(victim)
    (ours.path / "file").symlink_to(victim)
    ours.replace("file", b"new")
    assert (victim.read_text(), ours.read("file", 9)) == ("old", b"new")


def test_names_that_lead_elsewhere_are_bugs(ours):
    for name in ("..", ".", "", "a/b", "/etc/passwd"):
        with pytest.raises(ValueError, match="no name"):
            ours.open_file(name)


def test_errors_of_the_disk_have_the_whole_path(ours):
    with pytest.raises(FileNotFoundError) as caught:
        ours.open_file("absent")
    assert caught.value.filename == str(ours.path / "absent")
    assert not ours.check_file("absent")


def test_no_descriptor_stays_behind(tmp_path, ours):
    before = os.listdir("/proc/self/fd")
    (ours.path / "link").symlink_to("x")
    for name in ("link", "absent"):
        with pytest.raises((ForeignPath, FileNotFoundError)):
            ours.open_file(name)
        with pytest.raises((ForeignPath, FileNotFoundError)):
            OwnedDir.open(ours.path / name)
    assert os.listdir("/proc/self/fd") == before


def test_directories_on_the_way_are_asked_for_as_such(tmp_path, monkeypatch):
    """The kernel mounts what autofs has only for those who do."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    asked = {}
    plain_open = os.open

    def noted(path, flags, *args, **kwargs):
        asked.setdefault(path, flags)
        return plain_open(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", noted)
    OwnedDir.open(tmp_path / "a" / "b").close()
    assert all(flags & os.O_DIRECTORY for flags in asked.values())


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_APPEND, os.O_RDWR])
def test_a_pipe_that_takes_the_place_of_a_log_just_before_it_is_opened_keeps_nobody_waiting(
    tmp_path, monkeypatch, flags
):
    log = tmp_path / "log"
    log.write_text("lines")
    looked = owned_dir._check_log

    def exchanged_after_the_look(path, status):
        looked(path, status)
        if log.is_file():
            log.unlink()
            os.mkfifo(log)

    monkeypatch.setattr(owned_dir, "_check_log", exchanged_after_the_look)
    with bounded(120), pytest.raises((ForeignPath, OSError)):
        open_log(log, flags)


def test_a_log_is_written_to_as_any_file_once_it_is_open(tmp_path):
    descriptor = open_log(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    assert os.get_blocking(descriptor)
    os.close(descriptor)
