"""No token, secret key or session token in what stsfs says, logs, keeps or is started with.

One life of a mount with debug logging: renewals, refusals, every command, good and failing. Then
everything that it left or showed is searched for every secret there was.
"""

import json
import os
import subprocess
import sys
import tempfile
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import pytest

from stsfs.demo.fake_synapse.guard import Fault
from tests.mount.live_mount import Host
from tests.mount.stage import PATIENCE_S, STATIC_KEYS, TOKEN, Stage

pytestmark = pytest.mark.mount

ROTATED = "ada-rotated-token-0815-of-the-stage"
REJECTED = "a-token-that-nobody-knows-4242"
EXPLAINING = ("explain", "info", "refresh")


class Life:
    """An account on the stage, and everything it gets to see."""

    def __init__(self, stage, root, runtime):
        self.stage, self.root, self.runtime = stage, root, runtime
        self.temporary = root / "tmp"
        self.temporary.mkdir()
        home = root / "home"
        home.mkdir()
        self.host = Host(home, runtime, stage)
        # Secrets lie in files only: what a user puts into variables is the user's to show.
        for name in ("SYNAPSE_AUTH_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del self.host.environment[name]
        self.host.environment["TMPDIR"] = str(self.temporary)
        self.keys_file = home / ".aws" / "credentials"
        self.keys_file.parent.mkdir()
        self.keys_file.write_text(
            f"[default]\naws_access_key_id = {STATIC_KEYS.access_key_id}\n"
            f"aws_secret_access_key = {STATIC_KEYS.secret_access_key}\n"
        )
        self.token_file = root / "secret-token"
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(TOKEN)
        self.seen = {}  # what it was -> text
        self.places = ["--endpoint-url", stage.gate.url, "--synapse-endpoint", stage.synapse.url]

    def run(self, *arguments, expected=0):
        """A command that must end so (None: anyhow); what it says is remembered."""
        done = self.host.stsfs(*arguments)
        words = " ".join(map(str, arguments))
        self.seen[f"{len(self.seen)} output of {words}"] = done.stdout + done.stderr
        if expected is not None:
            assert done.returncode == expected, f"{words}: {done.returncode} {done.stderr}"

    def look_at_process(self, pid):
        """What anyone, or the owner, can see of a process in /proc."""
        for name in ("cmdline", "environ", "comm", "status"):
            self.seen[f"{len(self.seen)} /proc/PID/{name}"] = Path(f"/proc/{pid}/{name}").read_text(
                errors="replace"
            )

    def secrets(self):
        """Every secret there ever was, in the forms in which it might be quoted."""
        found = {TOKEN, ROTATED, REJECTED, STATIC_KEYS.secret_access_key}
        for session in self.stage.vendor.sessions.values():
            found |= {session.secret_access_key, session.session_token}
        coded = [b64encode(each.encode()).decode().rstrip("=")[:-1] for each in found]
        return {*found, *coded, *(quote(each, safe="") for each in found)}

    def files(self):
        """All that lies in its directories, but what holds secrets by its purpose."""
        for top in (self.root, self.runtime):
            for directory, _, names in os.walk(top):
                for name in names:
                    path = Path(directory, name)
                    if path not in (self.token_file, self.keys_file) and path.is_file():
                        yield path


@pytest.fixture
def life(tmp_path):
    (tmp_path / "s3").mkdir()
    (tmp_path / "account").mkdir()
    # pytest's own directories can be too long for the name of a socket
    with (
        tempfile.TemporaryDirectory(prefix="stsfs-run-") as runtime,
        Stage(tmp_path / "s3") as stage,
    ):
        yield Life(stage, tmp_path / "account", Path(runtime))


def mounted(life, location, *options):
    path = life.host.mount_point()
    life.run("mount", location, path, "--debug", *life.places, *options)
    return path, life.host.record_of(path)


def ask_everything(life, path, *files):
    """Every command that tells something, of files that are there, refused and absent."""
    life.run("status", path)
    life.run("status", "--json", path)
    life.run("list")
    life.run("list", "--json")
    for command in EXPLAINING:
        for file in files:
            for options in ([], ["--json"]):
                life.run(command, *options, path / file, expected=None)


def live_through_refusals(life, path):
    """Reads, renewals with the token and with its successor, and every kind of refusal."""
    stage = life.stage
    assert (path / "x").read_bytes() == b"x" * 1000
    life.token_file.write_text(ROTATED)
    stage.state.add_token(stage.user, ROTATED)
    stage.vendor.revoke_all()
    assert (path / "y").read_bytes() == b"y"  # renewed
    stage.gate.faults.every_nth(1, status=403, code="AccessDenied", kinds=["GET"])
    with pytest.raises(PermissionError):
        (path / "denied").read_bytes()
    stage.gate.faults.clear()
    life.token_file.write_text(REJECTED)
    stage.vendor.revoke_all()
    with pytest.raises(OSError, match="Key was rejected"):
        (path / "rejected").read_bytes()
    stage.synapse.faults.add(Fault("lacks_download"))
    with pytest.raises(OSError, match=r"(?i)key|denied"):
        (path / "rejected").read_bytes()
    stage.synapse.faults.clear()


def fail_in_every_way(life, folder):
    """Commands that end with an error, tracebacks included."""
    token = ["--token-file", life.token_file]
    nowhere = life.host.mount_point()
    life.run("--debug", "mount", folder.syn_id, nowhere, *life.places, *token, expected=11)
    life.run(
        "--debug",
        "credentials",
        folder.syn_id,
        "--format",
        "env",
        *life.places,
        *token,
        expected=11,
    )
    life.run("--debug", "credentials", folder.syn_id, *life.places, *token, expected=2)
    life.run("--debug", "mount", "syn1", nowhere, *life.places, expected=10)
    life.run("--debug", "unmount", nowhere, expected=5)


def test_no_secret_is_in_what_stsfs_says_logs_keeps_or_is_started_with(life):
    folder = life.stage.folder()
    folder.write("x", b"x" * 1000)
    for name in ("y", "denied", "rejected"):
        folder.write(name, name.encode())
    path, record = mounted(life, folder.syn_id, "--token-file", life.token_file)
    by_keys, keys_record = mounted(life, folder.uri)
    try:
        assert (by_keys / "x").read_bytes() == b"x" * 1000
        for each in (record, keys_record):
            life.look_at_process(each["pid"])
        live_through_refusals(life, path)
        fail_in_every_way(life, folder)
        life.token_file.write_text(ROTATED)
        ask_everything(life, path, "", "denied", "rejected", "absent")
        ask_everything(life, by_keys, "x")
        life.seen["files while mounted"] = "\n".join(map(read, life.files()))
    finally:
        for each in (path, by_keys):
            life.run("unmount", each)
    log = Path(record["log_file"]).read_text()
    assert "AccessDenied" in log
    assert "rejects the token" in log
    assert Path(record["log_file"]) in life.files()
    found = life.secrets()
    assert len(found) > 10
    for what, text in life.seen.items():
        assert [secret for secret in found if secret in text] == [], what
    for file in life.files():
        assert [secret for secret in found if secret in read(file)] == [], file


def read(path):
    try:
        return path.read_bytes().decode("latin-1")
    except OSError:  # gone, or a socket
        return ""


def test_what_is_kept_for_other_programs_is_in_one_private_place(life):
    """`stsfs credentials` prints and keeps secrets: there and nowhere else."""
    folder = life.stage.folder()
    arguments = [
        "credentials", folder.syn_id, "--format", "process",
        "--synapse-endpoint", life.stage.synapse.url, "--token-file", str(life.token_file),
    ]  # fmt: skip
    # Held while it waits for Synapse, so that its command line can be read.
    with life.stage.synapse_down():
        asking = subprocess.Popen(
            [sys.executable, "-m", "stsfs", *arguments],
            env=life.host.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        life.look_at_process(asking.pid)
    said, complained = asking.communicate(timeout=2 * PATIENCE_S)
    assert (asking.returncode, complained) == (0, "")
    assert json.loads(said)["SecretAccessKey"] in life.secrets()
    for what, text in life.seen.items():
        assert [secret for secret in life.secrets() if secret in text] == [], what
    holding = {f for f in life.files() if any(secret in read(f) for secret in life.secrets())}
    assert [f.parent for f in holding] == [life.host.runtime / "credentials"]
    assert [f.stat().st_mode & 0o077 for f in holding] == [0]
