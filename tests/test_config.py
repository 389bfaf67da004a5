import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stsfs.cli.mount_options import parse_mount_options
from stsfs.daemon.config import GIB, KIB, MIB, MountConfig, format_size, parse_size
from stsfs.errors import BadArgument

KNOWN = {"uid": True, "umask": True, "allow_other": False, "endpoint_url": True, "rw": False}


def config(**changes):
    required = {"locations": ("syn1",), "mount_path": Path("/m"), "uid": 0, "gid": 0}
    return MountConfig(**{**required, **changes})


def test_defaults_are_valid_and_frozen():
    made = config()
    assert (made.metadata_ttl_s, made.consistency, made.deadline_s) == (30, "open", 60)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.uid = 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rw": True, "staging_dir": Path("/s"), "view": "entities"}, "keys view"),
        ({"rw": True, "staging_dir": Path("/m/s")}, "--staging-dir must not lie inside the mount"),
        ({"rename_limit": 0}, "--rename-limit is 0; it must lie between 1 and 1000000."),
        ({"locations": (" ",)}, "empty"),
        ({"metadata_ttl_s": -1}, "--metadata-ttl is -1; it must lie between 0 and 86400 seconds."),
        ({"metadata_ttl_s": float("nan")}, "--metadata-ttl"),
        ({"deadline_s": 0}, "--deadline"),
        ({"uid": -1}, "--uid is -1; it must lie"),
        ({"gid": 2**32 - 1}, "--gid"),
        ({"umask": 0o1000}, "--umask is 1000"),
        ({"connections_max": 0}, "--connections"),
        ({"read_ahead_kib": -1}, "--read-ahead-kib"),
        ({"block_bytes": 100_000}, "power of two"),
        ({"block_bytes": 2048}, "power of two"),
        ({"memory_bytes": MIB}, "--memory is 1.0 MiB"),
        ({"memory_bytes": 16 * MIB, "block_bytes": 4 * MIB}, "eight blocks"),
        ({"endpoint_url": "localhost:9000"}, "--endpoint-url"),
        ({"synapse_endpoint": "https://"}, "--synapse-endpoint"),
        ({"log_file": Path("/m/log")}, "inside the mount"),
    ],
)
def test_what_cannot_be_right_is_refused_with_the_name_of_the_option(changes, words):
    with pytest.raises(BadArgument) as raised:
        config(**changes)
    assert words in str(raised.value)


def test_debug_wins_over_the_log_level():
    assert config(log_level="error").effective_log_level == "error"
    assert config(log_level="error", debug=True).effective_log_level == "debug"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64k", 64 * KIB),
        ("64 KiB", 64 * KIB),
        ("128MiB", 128 * MIB),
        ("128mb", 128 * MIB),
        ("1.5G", 3 * GIB // 2),
        (" 2TiB ", 2048 * GIB),
        ("7B", 7),
    ],
)
def test_sizes_are_read(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "1 2", "1e9", "0x10", "1..5M"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(BadArgument, match="not a size"):
        parse_size(text)


@given(st.integers(0, 2**60))
def test_a_printed_size_reads_back_as_about_the_same(size_bytes):
    assert parse_size(format_size(size_bytes)) == pytest.approx(size_bytes, rel=0.06)


def test_sizes_are_printed_for_people():
    sizes = (0, 1023, 1024, 1536, MIB, GIB - 1, 2048 * GIB, 2**60)
    assert [format_size(size) for size in sizes] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1024.0 MiB", "2.0 TiB", "1048576.0 TiB",
    ]  # fmt: skip


def test_mount_options_are_read_by_the_names_of_the_long_ones():
    texts = ["uid=7,umask=022", "allow_other,endpoint-url=http://h/?a=b", "", "uid=8"]
    assert parse_mount_options(texts, KNOWN) == {
        "uid": "8",
        "umask": "022",
        "allow_other": "true",
        "endpoint_url": "http://h/?a=b",
    }


def test_generic_options_of_fstab_are_dropped():
    generic = (
        "ro,_netdev,nofail,noauto,user,users,exec,noexec,nosuid,nodev,noatime,defaults,"
        "x-systemd.automount,x-systemd.requires=a.service,X-mount.mkdir,comment=x,async"
    )
    assert parse_mount_options([generic], KNOWN) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fast", "'fast' is not known"),
        ("roo", "not known"),
        ("uid", "needs a value"),
        ("uid=", "needs a value"),
        ("allow_other=yes", "takes no value"),
    ],
)
def test_mount_options_that_cannot_be_right_are_refused(text, words):
    with pytest.raises(BadArgument, match=words):
        parse_mount_options([text], KNOWN)
