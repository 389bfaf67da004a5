"""The life of a mount: how it begins, how it is refused, how it ends, and what it tells."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stsfs.daemon import mountinfo
from stsfs.demo.fake_synapse.guard import Fault
from stsfs.demo.fake_synapse.state import READ
from tests.mount.stage import BUCKET, PATIENCE_S, STATIC_KEYS, TOKEN
from tests.mount.users import ROOT

pytestmark = pytest.mark.mount


@pytest.fixture
def live(folder, mount):
    folder.write("x", b"contents")
    return mount(folder.syn_id)


def refused(host, location, *options, path=None, env=None):
    """Try to mount; returns the exit code and what was said, after a look for remains."""
    path = path or host.mount_point()
    was_mounted = path.is_mount()
    done = host.try_mount(location, path, *options, env=env)
    assert done.stdout == ""
    sentence, *remedy = done.stderr.splitlines()
    assert sentence.startswith("stsfs: ")
    assert len(remedy) <= 1
    assert path.is_mount() == was_mounted
    return done.returncode, done.stderr


# How it begins.


def test_a_background_mount_returns_when_the_mount_answers(host, folder, live):
    """The first command after `stsfs mount` finds the files."""
    assert (live / "x").read_bytes() == b"contents"
    assert live.path.is_mount()
    assert os.getsid(live.pid) == live.pid
    assert os.readlink(f"/proc/{live.pid}/cwd") == "/"


def test_a_mount_in_the_foreground_tells_the_service_manager_and_ends_on_sigterm(host, folder):
    """READY=1 when the mount answers, STOPPING=1 when it ends, exit code 0."""
    folder.write("x", b"contents")
    path, stage = host.mount_point(), host.stage
    notify = host.runtime.parent / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(notify))
        manager.settimeout(PATIENCE_S)
        command = [sys.executable, "-m", "stsfs", "mount", "--foreground", folder.syn_id, str(path)]
        places = ["--endpoint-url", stage.gate.url, "--synapse-endpoint", stage.synapse.url]
        with subprocess.Popen(
            [*command, *places],
            env=host.environment | {"NOTIFY_SOCKET": str(notify)},
            stderr=subprocess.PIPE,
            text=True,
        ) as daemon:
            try:
                assert manager.recv(1000) == b"READY=1"
                assert (path / "x").read_bytes() == b"contents"
                daemon.send_signal(signal.SIGTERM)
                told = iter(lambda: manager.recv(1000), b"STOPPING=1")
                assert all(each.startswith(b"STATUS=syn") for each in told)
                said = daemon.communicate(timeout=PATIENCE_S)[1]
                assert daemon.returncode == 0
            finally:
                subprocess.run(["fusermount3", "-uzq", path], check=False)
                daemon.kill()
    assert not path.is_mount()
    assert "SIGTERM" in said
    assert "Traceback" not in said


UNRECORDED = """
import errno, os
from stsfs.fuse.mount_point import MountPoint
from stsfs.cli.main import main

def note_mount(_):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

MountPoint.note_mount = note_mount
main(prog_name="stsfs")
"""


def test_a_mount_that_was_made_and_cannot_be_looked_at_is_taken_away_again(host, folder):
    path, stage = host.mount_point(), host.stage
    places = ["--endpoint-url", stage.gate.url, "--synapse-endpoint", stage.synapse.url]
    command = [sys.executable, "-c", UNRECORDED]
    try:
        done = subprocess.run(
            [*command, "mount", "--foreground", folder.syn_id, path, *places],
            env=host.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
        )
        assert done.returncode
        assert os.strerror(errno.EMFILE) in done.stderr
        assert mountinfo.mount_at(path) is None
    finally:
        subprocess.run(["fusermount3", "-uzq", path], check=False)


# How it is refused: one sentence, one remedy, one exit code for each reason.


def test_a_wrong_token_is_refused(host, folder):
    code, said = refused(host, folder.syn_id, env={"SYNAPSE_AUTH_TOKEN": "wrong-token-of-nobody"})
    assert code == 11
    assert said.startswith("stsfs: Synapse rejects the token")
    assert "PersonalAccessTokens" in said
    assert "wrong-token-of-nobody" not in said


def test_no_token_at_all_is_told_with_the_places_to_put_one(host, folder):
    code, said = refused(host, folder.syn_id, env={"SYNAPSE_AUTH_TOKEN": ""})
    assert (code, len(said.splitlines())) == (10, 2)


def test_a_folder_without_sts_storage_is_refused(host, stage):
    plain = stage.state.add_folder("plain", stage.project, stage.user)
    code, said = refused(host, plain.syn_id)
    assert code == 16
    assert plain.syn_id in said


def test_a_missing_permission_is_refused(host, stage, folder):
    bob = stage.state.add_user("bob", token="bob-may-only-read-0815")
    stage.state.set_permissions(stage.project, bob.user_id, READ)
    code, said = refused(host, folder.syn_id, env={"SYNAPSE_AUTH_TOKEN": "bob-may-only-read-0815"})
    assert code == 18
    assert "DOWNLOAD" in said


def test_an_entity_that_does_not_exist_is_refused(host):
    code, said = refused(host, "syn999")
    assert code == 14
    assert said.startswith("stsfs: There is no Synapse entity syn999.")


@pytest.mark.parametrize(("fault", "code"), [("unmet_requirements", 19), ("terms_unsigned", 23)])
def test_conditions_of_synapse_are_named(host, stage, folder, fault, code):
    stage.synapse.faults.add(Fault(fault))
    assert refused(host, folder.syn_id)[0] == code


def test_a_bucket_that_does_not_exist_is_refused(host, stage):
    code, said = refused(host, "s3://no-such-bucket/x")
    assert code == 40
    assert "NoSuchBucket" in said


def test_a_bucket_that_synapse_cannot_open_is_refused(host, stage):
    """The storage location names a bucket; the session's policy or S3 says no to the first LIST."""
    gone = stage.state.add_sts_folder(
        "gone", stage.project, stage.user, bucket="no-such-bucket", base_key="base"
    )
    assert refused(host, gone.syn_id)[0] == 40


def test_a_location_that_may_not_be_listed_is_refused(host, stage, folder):
    stage.gate.faults.every_nth(1, status=403, code="AccessDenied", kinds=["LIST"])
    code, said = refused(host, folder.syn_id)
    assert code == 33
    assert "AccessDenied" in said


def test_credentials_for_a_whole_bucket_are_refused_unless_asked_for(host, stage, mount):
    folder = stage.state.add_sts_folder("whole", stage.project, stage.user, bucket=BUCKET)
    code, said = refused(host, folder.syn_id)
    assert (code, "--whole-bucket" in said) == (7, True)
    live = mount(folder.syn_id, "--whole-bucket")
    assert "base" in os.listdir(live.path)


def test_a_mount_point_that_is_not_empty_is_refused(host, folder):
    path = host.mount_point()
    (path / "precious").write_bytes(b"")
    code, said = refused(host, folder.syn_id, path=path)
    assert (code, "is not empty" in said) == (3, True)


def test_a_mount_point_that_is_a_mount_is_refused(host, folder, live):
    code, said = refused(host, folder.syn_id, path=live.path)
    assert (code, "already a mount" in said) == (3, True)
    assert (live / "x").read_bytes() == b"contents"


def test_a_mount_point_that_does_not_exist_is_refused(host, folder):
    code, said = refused(host, folder.syn_id, path=host.home / "missing")
    assert (code, "mkdir -p" in said) == (3, True)


def test_a_wrong_region_is_corrected_unseen(stage, folder, mount):
    """The bucket lives elsewhere: S3 says where, and nothing fails."""
    folder.write("x", b"contents")
    for status in (301, 400):
        stage.gate.faults.clear()
        stage.gate.faults.wrong_region("eu-central-1", status=status)
        live = mount(folder.syn_id)
        assert (live / "x").read_bytes() == b"contents"
        assert live.status()["region"] == "eu-central-1"


# How it ends.


def test_sigterm_ends_the_mount_cleanly(host, live):
    live.signal(signal.SIGTERM)
    live.wait_for_end()
    assert not live.is_mounted()
    assert os.listdir(live.path) == []
    assert host.records() == []


def test_sigint_ends_the_mount_cleanly(live):
    live.signal(signal.SIGINT)
    live.wait_for_end()
    assert not live.is_mounted()


def test_sigterm_ends_the_mount_although_a_file_is_open(live):
    """A service manager is obeyed; the reader gets an error, not silence."""
    file = os.open(live / "x", os.O_RDONLY)
    assert os.read(file, 3) == b"con"
    live.signal(signal.SIGTERM)
    live.wait_for_end()
    assert not live.is_mounted()
    with pytest.raises(OSError, match="not connected"):
        os.close(file)


@pytest.mark.parametrize("command", ["fusermount3 -u", "umount"])
def test_unmounting_from_outside_ends_the_daemon(live, command):
    """As users do it without the `stsfs` command, and as administrators do."""
    if command == "umount" and os.geteuid():
        pytest.skip("only root may call umount")
    subprocess.run([*command.split(), live.path], check=True)
    live.wait_for_end()
    assert not live.is_mounted()


def test_an_open_file_keeps_the_mount_and_its_user_is_named(live):
    with open(live / "x", "rb") as file:
        done = live.unmount("--wait", "0")
        assert done.returncode == 6
        assert f"({os.getpid()}, open file {live / 'x'})" in done.stderr
        assert file.read() == b"contents"
    assert live.is_mounted()


def test_a_lazy_unmount_lets_readers_finish(stage, folder, mount):
    data = folder.write("big", os.urandom(3 << 20))
    live = mount(folder.syn_id)
    with open(live / "big", "rb", buffering=0) as file:
        assert live.unmount("--lazy").returncode == 0
        assert not live.is_mounted()
        assert os.pread(file.fileno(), len(data), 0) == data
    live.wait_for_end()


def test_a_killed_daemon_leaves_a_dead_mount_never_an_empty_directory(host, folder, live):
    """ "A dead mount looks dead": ENOTCONN, until it is cleared away."""
    live.signal(signal.SIGKILL)
    live.wait_for_end()
    assert live.is_mounted()
    for look in (
        lambda: os.listdir(live.path),
        lambda: os.stat(live / "never seen"),
        lambda: os.open(live / "x", os.O_RDONLY),
    ):
        with pytest.raises(OSError) as raised:  # noqa: PT011 - the number is the answer
            look()
        assert raised.value.errno == errno.ENOTCONN
    (listed,) = json.loads(host.stsfs("list", "--json").stdout)
    assert listed["state"] == "dead"
    done = host.stsfs("status", live.path)
    assert (done.returncode, f"stsfs unmount {live.path}" in done.stderr) == (5, True)
    assert live.unmount().returncode == 0
    assert not live.is_mounted()
    assert host.try_mount(folder.syn_id, live.path).returncode == 0
    assert (live / "x").read_bytes() == b"contents"
    assert live.unmount().returncode == 0


def test_after_an_unmount_the_same_place_can_be_mounted_again(host, folder, live):
    assert live.unmount().returncode == 0
    live.wait_for_end()
    done = host.try_mount(folder.syn_id, live.path)
    assert done.returncode == 0, done.stderr
    assert (live / "x").read_bytes() == b"contents"
    assert host.stsfs("unmount", live.path).returncode == 0


def test_requests_under_way_are_answered_when_the_mount_ends(stage, folder, mount, reader):
    """No process is left in a system call that nobody will answer."""
    folder.write("x", b"contents")
    live = mount(folder.syn_id)
    with stage.s3_holding():
        with subprocess.Popen(
            ["cat", live / "x"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as waiting:
            stage.server.requests.wait_for(stage.server.requests.count("GET") + 1, "GET")
            live.signal(signal.SIGTERM)
            said = waiting.communicate(timeout=PATIENCE_S)[1]
        live.wait_for_end()
    assert waiting.returncode == 1
    assert "not connected" in said


# What it tells.


def test_status_and_list_tell_the_same_in_words_and_json(host, folder, live):
    assert (live / "x").read_bytes() == b"contents"
    status = live.status()
    assert status["location"] == folder.syn_id
    assert status["uri"] == folder.uri
    assert (status["mode"], status["pid"]) == ("read-only", live.pid)
    assert status["requests"]["get"]["bytes"] == len(b"contents")
    assert status["requests"]["list"]["count"] == 1
    assert status["credentials"]["in_force"]
    assert 0 < status["credentials"]["seconds_left"] <= 3600
    (listed,) = json.loads(host.stsfs("list", "--json").stdout)
    assert (listed["location"], listed["pid"], listed["state"]) == (
        folder.syn_id,
        live.pid,
        "serving",
    )
    for command in (["status", live.path], ["status", live / "x"], ["status"], ["list"]):
        done = host.stsfs(*command)
        assert (done.returncode, folder.syn_id in done.stdout) == (0, True)


def test_secrets_appear_nowhere(host, stage, folder, mount, tmp_path):
    """Not in the log at its loudest, status, records, the process list or /proc/PID/mountinfo."""
    folder.write("x", b"contents")
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    stage.denials_expected = True
    mounts = [
        mount(folder.syn_id, "--debug", "--token-file", token_file),
        mount(folder.uri, "--log-level", "debug"),
    ]
    for live in mounts:
        assert (live / "x").read_bytes() == b"contents"
    stage.vendor.revoke_all()
    folder.put("y", b"new")
    stage.gate.faults.status_once(500)
    with open(mounts[0] / "x", "rb") as file:
        assert file.read() == b"contents"
    secrets = [TOKEN, STATIC_KEYS.secret_access_key]
    for session in stage.vendor.sessions.values():
        secrets += [session.secret_access_key, session.session_token]
    seen = [host.stsfs("list").stdout, host.stsfs("list", "--json").stdout]
    for live in mounts:
        seen += [live.log(), json.dumps(live.status()), host.stsfs("status", live.path).stdout]
        seen += [Path(f"/proc/{live.pid}/{name}").read_text() for name in ("cmdline", "mountinfo")]
    seen += [path.read_text() for path in host.runtime.glob("*.json")]
    everything = "\n".join(seen)
    assert [secret for secret in secrets if secret in everything] == []
    assert folder.syn_id in everything


def test_what_the_daemon_keeps_is_for_its_owner_alone(host, live):
    """Log, record, socket and their directories: no access for group or others."""
    kept = [host.runtime, *host.runtime.iterdir(), live.log_file, live.log_file.parent]
    assert len(kept) >= 5
    for path in kept:
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_log_says_what_was_mounted_where(folder, live):
    assert re.search(
        f"{re.escape(folder.uri)} is mounted on {re.escape(str(live.path))}", live.log()
    )
