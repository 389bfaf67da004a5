"""`mount.stsfs`, called as mount(8) calls it."""

import sys

import pytest

from stsfs.cli import mount_helper
from stsfs.cli.location_options import locations_of


@pytest.fixture
def call(monkeypatch):
    """Call the helper; returns what it asks of `stsfs`."""

    def run(*arguments):
        asked = []
        monkeypatch.setattr(sys, "argv", ["mount.stsfs", *arguments])
        monkeypatch.setattr(mount_helper, "stsfs", lambda words, prog_name: asked.append(words))
        mount_helper.main()
        return asked

    return run


def test_what_mount_passes_on(call):
    assert call("syn1", "/m", "-o", "ro,umask=027") == [
        ["mount", "-o", "ro,umask=027", "--", "syn1", "/m"]
    ]
    assert call("-v", "-t", "fuse.stsfs", "-n", "s3://b/k", "/m m") == [
        ["mount", "--", "s3://b/k", "/m m"]
    ]


@pytest.mark.parametrize("options", ["rw", "rw,write,ro", "ro", "ro,rw,write,acl=private"])
def test_a_mount_is_read_only_unless_its_options_have_a_word_of_their_own(call, options):
    (words,) = call("syn1", "/m", "-o", options)
    assert "write" not in ",".join(words).split(",")
    assert "rw" not in ",".join(words).split(",")
    assert "--rw" not in words


def test_the_word_for_writing_is_passed_on(call):
    assert call("syn1", "/m", "-o", "rw,write,nofail") == [
        ["mount", "-o", "write,nofail", "--", "syn1", "/m"]
    ]


def test_several_locations_are_one_field(call):
    assert call("syn1,syn2", "/m") == [["mount", "--", "syn1,syn2", "/m"]]
    assert locations_of(call("syn1,syn2", "/m")[0][2:3]) == ("syn1", "syn2")


def test_a_fake_mount_mounts_nothing(call):
    assert call("syn1", "/m", "-f", "-o", "ro") == []


@pytest.mark.parametrize("arguments", [(), ("syn1",), ("syn1", "/m", "x"), ("syn1", "/m", "-z")])
def test_what_cannot_be_right_is_a_usage_error(call, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        call(*arguments)
    assert ended.value.code == 2
    assert "usage: mount.stsfs" in capsys.readouterr().err
