import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stsfs.cli.mount import mount
from stsfs.cli.mount_options import from_mount, parse_mount_options
from stsfs.daemon.config import (
    ENTITIES,
    GIB,
    KIB,
    MIB,
    NEEDS,
    MountConfig,
    format_size,
    parse_size,
)
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


ASKED = {
    "staging_dir": Path("/s"),
    "fsync": "s3",
    "conditional_writes": "on",
    "acl": "private",
    "rename_limit": 3,
    "cache_bytes": GIB,
    "as_of": "2026-01-01",
    "index_view": "syn2",
    "outside": "refuse",
    "verify": "on-full-read",
}
GIVEN = {
    "--rw": {"rw": True, "staging_dir": Path("/s")},
    "--cache-dir": {"cache_dir": Path("/c")},
    ENTITIES: {"view": "entities"},
}
LACKING = {"--rw": {}, "--cache-dir": {}, ENTITIES: {"view": "keys"}}


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: need.field)
def test_an_option_that_would_do_nothing_is_refused_with_what_it_needs(need):
    asked = {need.field: ASKED[need.field]}
    with pytest.raises(BadArgument) as raised:
        config(**LACKING[need.of], **asked)
    assert f"{need.option} needs {need.of}" in raised.value.sentence
    assert need.option in raised.value.remedy
    assert getattr(config(**{**GIVEN[need.of], **asked}), need.field) == ASKED[need.field]


@pytest.mark.parametrize("need", [each for each in NEEDS if each.of == ENTITIES], ids=str)
def test_what_needs_entities_is_refused_for_writing_because_that_shows_keys(need):
    with pytest.raises(BadArgument, match=r"--rw|Writing is for the keys view"):
        config(rw=True, staging_dir=Path("/s"), **{need.field: ASKED[need.field]})


def test_the_table_of_needs_is_about_options_of_mount():
    options = {name for param in mount.params for name in param.opts}
    assert {need.option for need in NEEDS} <= options
    assert {need.add.split()[0] for need in NEEDS} <= options


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
        "_netdev,nofail,noauto,user,users,exec,noexec,nosuid,nodev,noatime,defaults,"
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


@pytest.mark.parametrize(
    ("texts", "rw"),
    [
        ([""], None),
        (["defaults"], None),
        (["ro"], "false"),
        (["rw"], "true"),
        (["write"], "true"),
        (["rw,write", "rw"], "true"),
    ],
)
def test_mount_options_say_whether_to_write(texts, rw):
    assert parse_mount_options(texts, KNOWN).get("rw") == rw


@pytest.mark.parametrize("texts", [["ro,rw"], ["rw", "ro"], ["write,ro"]])
def test_mount_options_that_contradict_each_other_are_refused(texts):
    with pytest.raises(BadArgument, match="contradict"):
        parse_mount_options(texts, KNOWN)


@pytest.mark.parametrize(
    ("passed", "meant"),
    [
        ("rw", ""),
        ("rw,noexec,user,uid=7", "noexec,user,uid=7"),
        ("rw,write,fsync=s3", "write,fsync=s3"),
        ("ro,write,uid=7", "ro,uid=7"),
        ("ro,uid=7,write,staging-dir=/s,staging_dir=/s,fsync=s3", "ro,uid=7"),
    ],
)
def test_mount_passes_rw_wherever_nobody_has_said_ro_and_so_it_means_nothing(passed, meant):
    assert from_mount(passed) == meant
