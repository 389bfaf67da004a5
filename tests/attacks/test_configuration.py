"""What the environment and configuration files say becomes a value of ours, or is refused.

The words of a user are trusted, but they come by ways that others have been on: a copied file, a
variable of a job script, a unit.
"""

import json
import os

import pytest

from tests.attacks.on_terminal import ORDERS, assert_obeys_nothing
from tests.mount import conftest as mounts

servers, stage, host, mount = mounts.servers, mounts.stage, mounts.host, mounts.mount

HEADER = "x\r\nX-Evil: 1"
VARIABLES = [
    {"STSFS_MOUNT_ACL": HEADER, "STSFS_MOUNT_RW": "1"},
    {"STSFS_MOUNT_ACL": f"private{ORDERS}", "STSFS_MOUNT_RW": "1"},
    {"STSFS_MOUNT_REGION": HEADER},
    {"STSFS_MOUNT_REGION": "evil.example/"},
    {"AWS_REGION": "evil.example/"},
    {"AWS_REGION": "x@evil.example:443/"},
    {"STSFS_MOUNT_INDEX_VIEW": ORDERS},
    {"STSFS_MOUNT_AS_OF": ORDERS},
    {"STSFS_MOUNT_MEMORY": f"16M{ORDERS}"},
    {"STSFS_MOUNT_MEMORY": "9" * 5000},
    {"STSFS_MOUNT_CONNECTIONS": "9" * 5000},
    {"STSFS_MOUNT_DEADLINE": "nan"},
    {"STSFS_MOUNT_UMASK": "7" * 5000},
    {"STSFS_MOUNT_UID": str(2**32)},
    {"STSFS_MOUNT_PROFILE": f"none{ORDERS}"},
]


def refused(done):
    """A command that ended with a few lines in words, and with no bug of ours."""
    assert_obeys_nothing(done.stdout + done.stderr)
    assert 0 < done.returncode < 70, done.stderr
    assert "internal error" not in done.stderr
    assert len(done.stderr.splitlines()) <= 6
    return done.stderr


@pytest.mark.mount
@pytest.mark.parametrize("variables", VARIABLES, ids=lambda each: " ".join(each))
def test_a_variable_that_cannot_be_right_is_refused_in_words(stage, host, variables):
    point = host.mount_point()
    done = host.stsfs(
        "mount", "s3://lab/base", point, "--endpoint-url", stage.gate.url, env=variables
    )
    if done.returncode == 0:
        host.stsfs("unmount", point)
    refused(done)


@pytest.mark.parametrize(
    "text",
    [
        "[default]\nauthtoken = a b\n",
        f"[default]\nauthtoken = a{ORDERS}\n",
        "[default]\nauthtoken = a\x1bb\n",
        "no section",
        "\0" * 1000,
        "[a]\n" * 1_000_000,
        "[default]\nauthtoken = " + "x" * 2_000_000,
        "\udcff",
    ],
    ids=range(8),
)
def test_a_synapse_configuration_that_cannot_be_right_is_refused(stage, host, text):
    (host.home / ".synapseConfig").write_bytes(os.fsencode(text))
    environment = {"SYNAPSE_AUTH_TOKEN": ""}
    done = host.stsfs(
        "mount", "syn123", host.mount_point(), "--synapse-endpoint", stage.synapse.url,
        env=environment,
    )  # fmt: skip
    refused(done)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{}",
        "1e999",
        json.dumps({"source": ORDERS}),
        "\0",
        '{"a":' * 60_000,
        "9" * 9999,
    ],
    ids=range(7),
)
def test_a_table_of_prices_that_cannot_be_right_is_refused(host, text):
    table = host.home / f"prices{ORDERS}"
    table.write_text(text)
    done = host.stsfs("mount", "s3://lab/base", host.mount_point(), "--prices", table)
    assert "is not a table of prices" in refused(done)


def test_words_of_a_table_of_prices_are_short_and_shown(stage, host):
    """They are told by every `stsfs status`."""
    own = json.loads((mounts.Path(__file__).parents[2] / "stsfs/daemon/prices.json").read_text())
    table = host.home / "prices"
    table.write_text(json.dumps(own | {"currency": "x" * 10_000}))
    done = host.stsfs("mount", "s3://lab/base", host.mount_point(), "--prices", table)
    assert "is not a table of prices" in refused(done)


@pytest.mark.parametrize(
    "environment",
    [
        {"XDG_RUNTIME_DIR": f"/nowhere/{ORDERS}"},
        {"XDG_RUNTIME_DIR": "/" + "x" * 5000},
        {"XDG_STATE_HOME": "/dev/null/x"},
        {"XDG_STATE_HOME": "/" + "x" * 5000},
        {"HOME": f"/nowhere/{ORDERS}", "XDG_STATE_HOME": "", "XDG_CACHE_HOME": ""},
        {"NOTIFY_SOCKET": "/" + "x" * 5000, "WATCHDOG_USEC": "9" * 5000},
        {"PWD": ORDERS, "COLUMNS": "9" * 30, "TERM": ORDERS, "LANG": ORDERS},
        {"COLUMNS": "-1", "LINES": "x"},
    ],
    ids=range(8),
)
def test_an_environment_out_of_place_breaks_no_command(host, environment):
    for command in (["list"], ["recover"], ["status"], ["credentials", "--forget"]):
        done = host.stsfs(*command, env=environment)
        assert_obeys_nothing(done.stdout + done.stderr)
        assert done.returncode < 70, done.stderr
        assert "Traceback" not in done.stderr
