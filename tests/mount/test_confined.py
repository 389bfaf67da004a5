"""A mount with no more than what the system unit leaves to it: capabilities, calls, sockets."""

import contextlib
import ctypes.util
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.stage import PATIENCE_S

UNIT = Path(__file__).parents[2] / "systemd/stsfs@.service"

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="the unit is root's"),
    pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="it knows the sets of calls"),
    pytest.mark.skipif(not ctypes.util.find_library("seccomp"), reason="needs libseccomp"),
]

CONFINE = """
import ctypes, ctypes.util, errno, json, os, socket, sys

ALLOW, FAIL, EQUAL = 0x7FFF0000, 0x00050000, 4
calls, families, command = json.loads(sys.argv[1])
libseccomp = ctypes.CDLL(ctypes.util.find_library("seccomp"))
libseccomp.seccomp_init.restype = ctypes.c_void_p

class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64),
                ("b", ctypes.c_uint64)]

def number(name):
    return libseccomp.seccomp_syscall_resolve_name(name.encode())

def add(context, action, call, *compared):
    comparisons = (Compare * max(1, len(compared)))(*compared)
    code = libseccomp.seccomp_rule_add_array(
        ctypes.c_void_p(context), ctypes.c_uint32(action), call, len(compared), comparisons)
    assert code == 0, (call, code)

def load(context):
    assert libseccomp.seccomp_load(ctypes.c_void_p(context)) == 0

sockets = libseccomp.seccomp_init(ctypes.c_uint32(ALLOW))
for family in range(64):
    if family not in families:
        add(sockets, FAIL | errno.EAFNOSUPPORT, number("socket"), Compare(0, EQUAL, family, 0))
load(sockets)
allowed = libseccomp.seccomp_init(ctypes.c_uint32(FAIL | errno.EPERM))
for name in calls:
    if number(name) >= 0:
        add(allowed, ALLOW, number(name))
load(allowed)
os.execvp(command[0], command)
"""


def calls_in(name):
    """The system calls of a set of systemd's, or the one call."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    )
    words = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    return set().union(*(calls_in(each) for each in words if not each.startswith("#")))


def unit_values(key):
    return re.findall(rf"(?m)^{key}=(.*)$", UNIT.read_text())


def confined(*command):
    """The command as the unit would start it."""
    calls = calls_in("@default")
    for words in unit_values("SystemCallFilter"):
        changed = set().union(*(calls_in(each) for each in words.removeprefix("~").split()))
        calls = calls - changed if words.startswith("~") else calls | changed
    (families,) = unit_values("RestrictAddressFamilies")
    numbers = [int(getattr(socket, each)) for each in families.split()]
    (capabilities,) = unit_values("CapabilityBoundingSet")
    kept = [f"+{each.removeprefix('CAP_').lower()}" for each in capabilities.split()]
    rules = json.dumps([sorted(calls), numbers, [str(each) for each in command]])
    return [
        "setpriv", "--no-new-privs", f"--bounding-set=-all,{','.join(kept)}",
        sys.executable, "-c", CONFINE, rules,
    ]  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--rw",)])
def test_what_the_unit_leaves_is_enough(host, folder, tmp_path, options):
    folder.write("x", b"contents")
    path, stage = host.mount_point(), host.stage
    kept = ["--cache-dir", tmp_path / "cache"]
    if options:
        kept += ["--staging-dir", tmp_path / "staging"]
    command = confined(
        sys.executable, "-m", "stsfs", "mount", "--foreground", folder.syn_id, path,
        *options, *kept, "--endpoint-url", stage.gate.url, "--synapse-endpoint", stage.synapse.url,
    )  # fmt: skip
    with (
        ready_socket(host) as (ready, address),
        subprocess.Popen(
            command, env=host.environment | {"NOTIFY_SOCKET": address}, cwd="/",
            stderr=subprocess.PIPE, text=True,
        ) as daemon,
    ):  # fmt: skip
        try:
            process = os.pidfd_open(daemon.pid)
            assert select.select([ready, process], [], [], PATIENCE_S)[0] == [ready], (
                daemon.communicate()[1]
            )
            assert (path / "x").read_bytes() == b"contents"
            if options:
                (path / "new").write_bytes(b"written")
                assert folder.object_path("new").read_bytes() == b"written"
            status = json.loads(host.stsfs("status", "--json", path).stdout)
            assert status["bugs"]["count"] == 0
            daemon.send_signal(signal.SIGTERM)
            said = daemon.communicate(timeout=PATIENCE_S)[1]
        finally:
            os.close(process)
            with contextlib.suppress(ProcessLookupError):
                daemon.kill()
            subprocess.run(["umount", "--lazy", path], check=False, stderr=subprocess.DEVNULL)
    assert daemon.returncode == 0, said
    assert not re.search("ERROR|CRITICAL|Traceback|not permitted", said), said


@contextlib.contextmanager
def ready_socket(host):
    """What a service manager listens on; readable when the mount is ready."""
    address = str(host.runtime.parent / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(address)
        yield ready, address
