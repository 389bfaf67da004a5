"""The systemd units, judged by systemd's own tools; `make test-systemd` runs them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stsfs.cli import exit_codes

UNITS = Path(__file__).parents[1] / "systemd"
SYSTEM, USER = UNITS / "stsfs@.service", UNITS / "user/stsfs@.service"
EXPOSURE_MAX = 40
"""Of 100. The rest is for what would hide the mount from others, and what mounting takes."""

REMAINING = {
    "UserOrDynamicUser": "mount(2) takes root",
    "CapabilityBoundingSet_CAP_SYS_ADMIN": "mount(2) takes it",
    "CapabilityBoundingSet_CAP_DAC_FOWNER_IPC_OWNER": "mount points and tokens in closed homes",
    "SystemCallFilter_mount": "mount and umount2, and no other of them",
    "DeviceAllow": "/dev/fuse",
    "PrivateDevices": "a mount namespace",
    "PrivateMounts": "a mount namespace",
    "PrivateTmp": "a mount namespace",
    "ProtectControlGroups": "a mount namespace",
    "ProtectHome": "a mount namespace",
    "ProtectKernelLogs": "a mount namespace",
    "ProtectKernelModules": "a mount namespace",
    "ProtectKernelTunables": "a mount namespace; the read-ahead of the mount is one",
    "ProtectProc": "a mount namespace; `stsfs unmount` names who uses a file",
    "ProcSubset": "a mount namespace; mountinfo, meminfo and pressure are read",
    "ProtectSystem": "a mount namespace",
    "RootDirectoryOrRootImage": "a mount namespace",
    "PrivateUsers": "a user namespace cannot mount for the others",
    "PrivateNetwork": "S3 and Synapse",
    "IPAddressDeny": "addresses of S3 and Synapse are not known beforehand",
    "RestrictAddressFamilies_AF_INET_INET6": "S3 and Synapse",
    "RestrictAddressFamilies_AF_UNIX": "the control socket, the service manager",
}
"""What `systemd-analyze security` goes on finding, and what it is there for."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)


@pytest.fixture(params=[SYSTEM, USER], ids=["system", "user"])
def instance(request, tmp_path):
    """An instance of the unit whose command exists here."""
    text = request.param.read_text()
    path = tmp_path / "stsfs@test.service"
    text, count = re.subn(r"(?m)^(ExecStart=.*)\bstsfs ", rf"\1{sys.executable} -m stsfs ", text)
    assert count == 1
    path.write_text(text)
    return path


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(instance):
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", instance],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_the_system_unit_is_confined_as_far_as_a_mount_allows():
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", SYSTEM],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


@needs_systemd
def test_every_point_that_remains_has_its_reason():
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--json=short", SYSTEM],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = {each["json_field"] for each in json.loads(done.stdout) if each.get("set") is False}
    assert found <= set(REMAINING)


@pytest.mark.parametrize("unit", [SYSTEM, USER], ids=["system", "user"])
def test_nothing_gives_the_mount_a_namespace_of_its_own(unit):
    """In which nobody else would see it."""
    private = (
        r"(?m)^(Private(Tmp|Devices|Mounts|Users)|Protect(System|Home|Kernel\w+|ControlGroups|Proc)"
        r"|ProcSubset|DynamicUser|MountFlags|\w+Paths|Root\w+|TemporaryFileSystem|Bind\w+)="
    )
    assert re.findall(private, unit.read_text()) == []


@pytest.mark.parametrize("unit", [SYSTEM, USER], ids=["system", "user"])
def test_a_start_is_not_repeated_where_only_a_person_can_help(unit):
    """And only codes that exist are listed; Synapse or S3 being down is worth another try."""
    (line,) = re.findall(r"(?m)^RestartPreventExitStatus=(.*)$", unit.read_text())
    listed = {int(word) for word in line.split()}
    known = set(exit_codes._CODES.values())
    assert listed <= known
    assert {12, 31, 36, 37, 70, 71}.isdisjoint(listed)
    assert {2, 3, 11, 14} <= listed
