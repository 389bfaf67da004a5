"""`stsfs recover` and mounts that write, in staging directories that other users have prepared."""

import http.server
import os
import shutil
import stat
import threading

import pytest

from stsfs.errors import BadArgument
from stsfs.staging.directory import StagingDirectory
from stsfs.staging.left import part_of_user
from tests.attacks.other_user import (
    OTHER,
    SECRET,
    as_other,
    needs_two_users,
    new_machine,
    plant,
    record_text,
)

pytestmark = needs_two_users

ID = "0123456789ab"
PLACES = ["owner.json", "../.lock"]
PLANT = """
mkdir -m 0777 "$1" "$1/aaaaaaaaaaaa"
cd "$1/aaaaaaaaaaaa"
printf '%s' '{"host": "h", "pid": 1, "mount_path": "/m", "started_unix_s": 1}' > owner.json
printf '%s' "$2" > 0123456789ab.json
printf data > 0123456789ab.data
chmod 0666 *
"""

ACTIONS = ((), ("--save", "OUT"), ("--upload", "--force", ID), ("--discard", ID))


class Listening(http.server.ThreadingHTTPServer):
    """An S3 server of the other user, who wants to be sent something."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.shutdown()
        self.thread.join()
        self.server_close()


class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(dict(self.headers))
        self.send_error(403)

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def machine():
    with new_machine() as made:
        yield made


@pytest.fixture
def listening():
    with Listening() as server:
        yield server


def recover(machine, named, action):
    out = str(machine.home / "out")
    words = [out if word == "OUT" else word for word in action]
    return machine.stsfs("recover", "--staging-dir", named, *words)


def left_by_root(machine, record=None, **changes):
    """A staging directory of root's own, with one file in it; returns the owner directory."""
    directory = StagingDirectory.open(machine.home / "staging")
    directory._ownership.end()
    text = record_text(**changes) if record is None else record
    (directory.path / f"{ID}.json").write_text(text)
    (directory.path / f"{ID}.data").write_bytes(b"data")
    return directory.path


@pytest.mark.parametrize("action", ACTIONS, ids=" ".join)
def test_what_another_user_put_at_our_name_is_not_looked_at(machine, listening, action):
    as_other(PLANT, machine.shared / "stsfs-staging-0",
             record_text(endpoint_url=listening.url))  # fmt: skip
    done = recover(machine, machine.shared, action)
    assert machine.refused(done, "stsfs-staging-0", f"uid {OTHER}"), done
    assert listening.asked == []
    assert not (machine.home / "out").exists()


@pytest.mark.parametrize("action", ACTIONS, ids=" ".join)
def test_a_link_of_another_user_does_not_lead_to_a_directory_of_ours(machine, action):
    owner = left_by_root(machine)
    as_other('ln -s "$1" "$2"', owner.parent, machine.shared / "stsfs-staging-0")
    done = recover(machine, machine.shared, action)
    assert machine.refused(done, "stsfs-staging-0", "symbolic link")
    assert sorted(os.listdir(owner)) == [f"{ID}.data", f"{ID}.json", "owner.json"]


@pytest.mark.parametrize("action", ACTIONS, ids=" ".join)
def test_a_link_in_a_shared_directory_is_not_the_staging_directory(machine, action):
    owner = left_by_root(machine)
    as_other('ln -s "$1" "$2"', owner.parents[1], machine.shared / "staging")
    assert machine.refused(recover(machine, machine.shared / "staging", action), "link of")
    assert sorted(os.listdir(owner)) == [f"{ID}.data", f"{ID}.json", "owner.json"]


def test_a_directory_below_one_of_another_user_is_not_trusted(machine):
    as_other('mkdir -m 0777 "$1"', machine.shared / "theirs")
    with pytest.raises(BadArgument, match=r"theirs.* who can exchange what lies below"):
        StagingDirectory.open(machine.shared / "theirs")
    assert os.listdir(machine.shared / "theirs") == []
    machine.shared.chmod(0o777)
    with pytest.raises(BadArgument, match="can be written by other users"):
        StagingDirectory.open(machine.shared)
    assert not part_of_user(machine.shared).exists()


@pytest.mark.parametrize("kind", ["symlink", "hard link", "pipe", "device"])
@pytest.mark.parametrize("name", [f"{ID}.{end}" for end in ("data", "json", "move")] + PLACES)
def test_nothing_in_it_leads_elsewhere_or_waits(machine, kind, name):
    size_bytes = len(SECRET)
    owner = left_by_root(machine, size_bytes=size_bytes, present=[[0, size_bytes]])
    plant(machine, owner / name, kind)
    done = recover(machine, machine.home / "staging", ("--save", "OUT"))
    assert "Traceback" not in done.stderr
    assert done.returncode != 70
    assert machine.secret.read_bytes() == SECRET
    assert SECRET.decode().strip() not in done.stdout + done.stderr
    for saved in (machine.home / "out").rglob("*"):
        assert saved.is_dir() or SECRET not in saved.read_bytes()


def test_an_owner_that_is_a_link_or_of_another_user_is_passed_over(machine):
    owner = left_by_root(machine)
    aside = machine.home / "aside"
    owner.rename(aside)
    owner.symlink_to(aside)
    assert ID not in recover(machine, machine.home / "staging", ()).stdout
    owner.unlink()
    aside.rename(owner)
    os.chown(owner, OTHER, OTHER)
    assert ID not in recover(machine, machine.home / "staging", ()).stdout


@pytest.mark.parametrize("path", ["../escaped", "/etc/escaped", "a/../../escaped", "..", "a//b"])
def test_a_record_does_not_choose_another_directory(machine, path):
    left_by_root(machine, path=path)
    recover(machine, machine.home / "staging", ("--save", "OUT"))
    written = [each for each in (machine.home / "out").rglob("*") if each.is_file()]
    assert all(each.read_bytes() == b"data" for each in written)
    assert not (machine.home / "escaped").exists()


def test_saving_does_not_follow_links_of_others(machine):
    left_by_root(machine)
    victim = machine.home / "victim"
    victim.mkdir()
    for script in (
        'ln -s "$2" "$1/out"',
        'mkdir -m 0777 "$1/out"; ln -s "$2" "$1/out/dir"',
        'mkdir -m 0777 "$1/out" "$1/out/dir"; ln -s "$2/new" "$1/out/dir/file.partial"',
        'mkdir -m 0777 "$1/out" "$1/out/dir"; ln -s "$2/new" "$1/out/dir/file"',
    ):
        as_other(f'rm -rf "$1/out"; {script}', machine.shared, victim)
        done = recover(machine, machine.home / "staging", ("--save", machine.shared / "out"))
        assert "Traceback" not in done.stderr
        assert os.listdir(victim) == [], script
        if (machine.shared / "out").is_dir() and not (machine.shared / "out").is_symlink():
            shutil.rmtree(machine.shared / "out")  # with what root has saved there


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o4755, 0o7777])
def test_what_is_saved_is_closed_to_others(machine, mode):
    left_by_root(machine, mode=mode)
    done = recover(machine, machine.home / "staging", ("--save", "OUT"))
    assert done.returncode == 0, done.stderr
    saved = machine.home / "out" / "dir" / "file"
    assert saved.read_bytes() == b"data"
    assert not stat.S_IMODE(saved.stat().st_mode) & 0o7077
    assert not stat.S_IMODE(saved.parent.stat().st_mode) & 0o077


OVER_BASE = {
    "base": {"key": "base/old", "etag": '"e"', "size_bytes": 100, "limit_bytes": 50},
    "size_bytes": 60,
}
BEGUN = {"upload_id": "u1"}


@pytest.mark.parametrize(
    ("action", "changes"),
    [(("--upload",), {}), (("--save", "OUT"), OVER_BASE), (("--discard", ID), BEGUN)],
    ids=["upload", "save", "discard"],
)
def test_credentials_go_only_to_servers_that_the_user_names(machine, listening, action, changes):
    left_by_root(machine, endpoint_url=listening.url, **changes)
    done = recover(machine, machine.home / "staging", action)
    assert listening.asked == []
    assert f"--endpoint-url {listening.url}" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("way", ["option", "environment", "configuration"])
def test_a_server_that_the_user_names_is_asked(machine, listening, way):
    left_by_root(machine, endpoint_url=listening.url)
    more = ()
    match way:
        case "option":
            more = ("--endpoint-url", listening.url)
        case "environment":
            machine.environment["AWS_ENDPOINT_URL"] = listening.url
        case "configuration":
            config = machine.home / "config"
            config.write_text(f"[default]\nendpoint_url = {listening.url}\n")
            machine.environment["AWS_CONFIG_FILE"] = str(config)
    recover(machine, machine.home / "staging", ("--upload", *more))
    assert listening.asked != []


def test_a_record_does_not_open_another_file_as_its_location(machine):
    lock = machine.home / "lock.json"
    os.mkfifo(lock)
    left_by_root(machine, label=str(lock))
    done = recover(machine, machine.home / "staging", ("--upload",))
    assert machine.refused(done, str(lock))
