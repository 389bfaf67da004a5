"""Which mount a path on the command line means, and the schemas of what daemons answer."""

import os
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from stsfs.cli import asking
from stsfs.cli.asking import choose, locate
from stsfs.daemon import mountinfo
from stsfs.daemon.runtime_dir import KnownMount, MountRecord
from stsfs.errors import BadArgument, NoSuchMount
from tests.schemas import NAMES, schema


@pytest.fixture
def known(tmp_path, monkeypatch):
    """known(name, ...) makes records of mounts at these places below tmp_path."""

    def make(*names):
        records = []
        for name in names:
            path = tmp_path / name
            path.mkdir(parents=True, exist_ok=True)
            record = MountRecord("syn1", "s3://b", path, 1, tmp_path / "s", 0.0)
            records.append(KnownMount(record, "serving"))
        monkeypatch.setattr(asking.runtime_dir, "records", lambda: records)
        monkeypatch.chdir(tmp_path)

    return make


def found(typed, root):
    place = locate(str(typed))
    return str(place.mount.record.mount_path.relative_to(root)), place.inner


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("m", ("m", "")),
        ("m/", ("m", "")),
        ("m/d/x", ("m", "d/x")),
        ("./m//d//x", ("m", "/d//x")),
        ("m/d/../x", ("m", "d/../x")),
        ("m/../n/x", ("n", "x")),
        ("link/x", ("m", "x")),
        ("m/inner/x", ("m/inner", "x")),
        ("m/d/../inner/y/x", ("m/inner", "y/x")),
        ("m/innermost", ("m", "innermost")),
    ],
)
def test_a_path_is_cut_at_the_mount_point_and_no_further(known, tmp_path, typed, expected):
    known("m", "n", "m/inner")
    (tmp_path / "link").symlink_to("m")
    assert found(typed, tmp_path) == expected
    assert found(tmp_path / typed if typed[0] != "." else typed, tmp_path)[0] == expected[0]


def test_a_path_outside_of_all_mounts_is_refused(known, tmp_path):
    known("m")
    for typed in ("", "m/..", "mm", "m/../../x", "/usr"):
        with pytest.raises(NoSuchMount):
            locate(typed)


def test_a_mount_of_somebody_else_is_told_from_none(known, tmp_path, monkeypatch):
    known()
    table = tmp_path / "mountinfo"
    table.write_text("36 35 0:50 / /theirs ro - fuse.stsfs syn1 ro\n")
    monkeypatch.setattr(mountinfo, "MOUNTINFO", table)
    with pytest.raises(NoSuchMount, match="no record here"):
        locate("/theirs/x")


def test_without_a_path_the_only_mount_or_the_one_we_are_in_is_meant(known, tmp_path, monkeypatch):
    known()
    with pytest.raises(NoSuchMount):
        choose(None)
    known("m")
    assert choose(None).record.mount_path == tmp_path / "m"
    known("m", "n")
    with pytest.raises(BadArgument, match=r"/m, .*/n"):
        choose(None)
    monkeypatch.chdir(tmp_path / "n")
    assert choose(None).record.mount_path == tmp_path / "n"
    assert choose(Path("../m/x")).record.mount_path == tmp_path / "m"


def test_in_a_directory_that_is_gone_the_word_of_the_shell_is_taken(known, tmp_path, monkeypatch):
    known("m", "n")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("PWD", os.fspath(tmp_path / "n"))
    assert choose(None).record.mount_path == tmp_path / "n"
    assert found("x", tmp_path) == ("n", "x")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_and_describes_every_command_that_answers_in_json(name):
    Draft202012Validator.check_schema(schema(name))
    assert schema(name)["title"].startswith(f"stsfs {name} ")
