"""radosgw, the S3 server of Ceph, on a cluster of one node that lives in a temporary directory.

Other than the servers of the demo it is nobody's imitation: it verifies signatures, evaluates role
and session policies, and ends sessions when they are over. With `rgw sts min session duration`
sessions of seconds are possible.

All daemons are children in the foreground, which end with this process, however that ends.
"""

import base64
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple, Self

ADMIN = ("STSFSADMIN", "admin-secret")
"""Access key and secret of the user to whom buckets and roles belong."""

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
COMMAND_LIMIT_S = 60
START_LIMIT_S = 120
STOP_LIMIT_S = 20
LOOK_S = 0.05
"""How often a port is tried: radosgw tells nobody when it begins to listen."""

_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
ms bind msgr1 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
run dir = {folder}
crash dir = {folder}
admin socket =
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
keyring = {folder}/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
paxos propose interval = 0.02
paxos min wait = 0.01
mon max pg per osd = 1000
osd objectstore = memstore
memstore device bytes = 4294967296
debug mon = 0
debug osd = 0
debug ms = 0
debug rgw = 1
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
[client.rgw.a]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw sts key = abcdefghijklmnop
rgw s3 auth use sts = true
rgw sts min session duration = 3
rgw dns name = localhost
rgw max chunk size = 4194304
rgw obj stripe size = 4194304
rgw gc obj min wait = 5
rgw gc processor period = 20
rgw enable usage log = false
rgw enable ops log = false
"""

_NAMES = ("mon.", "client.admin", "osd.0", "client.rgw.a")
_KEY = """
[{name}]
key = {key}
caps mon = "allow *"
caps osd = "allow *"
"""

_ACCESS = re.compile(r' beast: \S+ \S+ - (\S+) \[[^]]*\] "(\S+) (\S+) HTTP/1\.1" (\d+) ')


class Access(NamedTuple):
    """One line of the access log."""

    user: str
    """`anonymous` where nobody was recognised: a wrong signature, or a session that is over."""

    method: str
    target: str
    status: int


class Radosgw:
    """A running radosgw; a context manager. Its directory is kept when the body of `with` fails."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stsfs-radosgw-"))
        self.keep = False
        """Whether to leave the directory, with its logs, for someone to look at."""

        self._configuration = self.folder / "ceph.conf"
        self._children: list[subprocess.Popen[bytes]] = []
        self._port = 0

    @property
    def url(self) -> str:
        """Where S3, STS and IAM answer."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.keep = True
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        for child in reversed(self._children):
            child.terminate()
            try:
                child.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.clear()
        if not self.keep and not any(failure):
            shutil.rmtree(self.folder)

    def accesses(self) -> list[Access]:
        """What was requested of radosgw so far, as its own log tells."""
        marker = f"/marker-{uuid.uuid4()}"
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            connection.sendall(f"HEAD {marker} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert connection.recv(1)
        limit_s = time.monotonic() + COMMAND_LIMIT_S
        while marker not in (log := self._log().read_text(errors="replace")):
            assert time.monotonic() < limit_s, "radosgw does not write its log"
            time.sleep(LOOK_S)  # the log has a thread of its own
        found = [Access(u, m, t, int(s)) for u, m, t, s in _ACCESS.findall(log)]
        return [access for access in found if not access.target.startswith("/marker-")]

    def _log(self) -> Path:
        return self.folder / "client.rgw.a.log"

    def _start(self) -> None:
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        assert not missing, f"not installed: {', '.join(missing)}"
        mon_port, self._port = _free_ports(2)
        fsid = str(uuid.uuid4())
        self._configuration.write_text(
            _CONFIGURATION.format(
                folder=self.folder, fsid=fsid, mon_port=mon_port, port=self._port
            ).lstrip()
        )
        for name in ("mon", "osd", "rgw"):
            (self.folder / name).mkdir()
        monmap = str(self.folder / "monmap")
        address = f"[v2:127.0.0.1:{mon_port}]"
        self._run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap)
        keyring = self.folder / "keyring"
        keyring.write_text("".join(_KEY.format(name=name, key=_new_key()) for name in _NAMES))
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", str(keyring))
        self._spawn("ceph-mon", "-i", "a")
        osd_id = str(uuid.uuid4())
        self._run("ceph", "osd", "new", osd_id, "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_id)
        self._spawn("ceph-osd", "-i", "0")
        access_key, secret = ADMIN
        user = ("--uid=admin", "--display-name=admin", "--caps=roles=*;user-policy=*")
        keys = (f"--access-key={access_key}", f"--secret-key={secret}")
        self._run("radosgw-admin", "-n", "client.rgw.a", "user", "create", *user, *keys)
        gateway = self._spawn("radosgw", "-n", "client.rgw.a")
        limit_s = time.monotonic() + START_LIMIT_S
        while not _listens(self._port):
            assert gateway.poll() is None, f"radosgw ended: {self._log()}"
            assert time.monotonic() < limit_s, f"radosgw does not start: {self._log()}"
            time.sleep(LOOK_S)

    def _run(self, program: str, *arguments: str) -> None:
        command = [program, "-c", str(self._configuration), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{program}.out", "wb") as output:
            child = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *(program, "-f", "-c", str(self._configuration), *arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._children.append(child)
        return child


def _new_key() -> str:
    """A secret as ceph-authtool writes it: type (AES), time of making, length, bytes."""
    secret = os.urandom(16)
    return base64.b64encode(struct.pack("<hiih", 1, 0, 0, len(secret)) + secret).decode()


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
