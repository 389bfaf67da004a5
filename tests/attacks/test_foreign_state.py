"""Indexes, journals, lists, locks and logs of this user, where somebody else has put something."""

import os
import sqlite3
import stat

import pytest

from tests.attacks.other_user import OTHER, SECRET, as_other, needs_two_users, new_machine, plant

pytestmark = needs_two_users

KINDS = ("symlink", "hard link", "pipe", "device", "theirs")


@pytest.fixture
def machine():
    with new_machine() as made:
        yield made


def precious(path):
    """A database of another program of ours."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE precious (value TEXT)")
        database.execute("INSERT INTO precious VALUES ('kept')")
        database.execute("PRAGMA user_version = 7")
    database.close()
    return path.read_bytes()


ENTITY_INDEX = """
import sys
from pathlib import Path
from stsfs.entities.index import EntityIndex, index_path
if sys.argv[1] == "path":
    print(index_path("https://synapse.example", "1", "syn1"))
else:
    index = EntityIndex(index_path("https://synapse.example", "1", "syn1"))
    index.set_meta("n", "v")
    print(index.meta("n"), index.trouble)
    index.close()
"""

ATTRIBUTES = """
import sys
from stsfs.daemon.runtime_dir import attribute_index
from stsfs.staging.attributes import AttributeIndex
index = AttributeIndex(attribute_index())
index.put(("s3://b/p", None), "p/a", "e", mode=0o600, mtime_ns=1)
print(len(index.of_keys(("s3://b/p", None), "p/a", "p/a")))
index.close()
"""


def entity_index_path(machine):
    return machine.home.__class__(machine.python(ENTITY_INDEX, "path").strip())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-journal"])
def test_the_index_of_entities_is_a_file_of_ours_or_in_memory(machine, kind, end):
    path = entity_index_path(machine)
    plant(machine, path.with_name(path.name + end), kind)
    told = machine.python(ENTITY_INDEX, "use")
    assert told.startswith("v ")
    assert "cannot be used" in told
    assert machine.secret.read_bytes() == SECRET


def test_the_index_of_entities_is_not_kept_where_others_can_exchange_it(machine):
    machine.environment["CACHE_DIRECTORY"] = str(machine.shared / "cache")
    as_other('mkdir -m 0777 "$1"', machine.shared / "cache")
    told = machine.python(ENTITY_INDEX, "use")
    assert told.startswith("v ")
    assert f"uid {OTHER}" in told
    assert os.listdir(machine.shared / "cache") == []


@pytest.mark.parametrize("through_link", [False, True])
def test_tables_of_other_programs_stay(machine, through_link):
    path = entity_index_path(machine)
    target = machine.home / "precious.sqlite3" if through_link else path
    before = precious(target)
    if through_link:
        path.parent.mkdir(parents=True, mode=0o700)
        path.symlink_to(target)
    told = machine.python(ENTITY_INDEX, "use")
    assert told.startswith("v ")
    assert ("symbolic link" if through_link else "another program") in told
    assert target.read_bytes() == before


def test_what_is_no_database_is_put_aside(machine):
    path = entity_index_path(machine)
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_bytes(b"notes of somebody\n" * 1000)
    assert machine.python(ENTITY_INDEX, "use").strip() == "v"
    assert path.with_name(path.name + ".damaged").read_bytes() == b"notes of somebody\n" * 1000


def test_an_index_of_the_first_kind_is_used_on(machine):
    path = entity_index_path(machine)
    machine.python(ENTITY_INDEX, "use")
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA application_id = 0")
    database.close()
    assert machine.python(ENTITY_INDEX, "use").strip() == "v"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["", "-wal", ".lock", ".changes-0123456789ab"])
def test_modes_and_times_are_kept_in_files_of_ours_or_not_at_all(machine, kind, end):
    state = machine.home / "state" / "stsfs"
    plant(machine, state / f"attributes.sqlite{end}", kind)
    assert machine.python(ATTRIBUTES).strip() == ("1" if end.startswith(".changes") else "0")
    assert machine.secret.read_bytes() == SECRET


def test_modes_and_times_do_not_go_into_a_database_of_another_program(machine):
    path = machine.home / "state" / "stsfs" / "attributes.sqlite"
    before = precious(path)
    assert machine.python(ATTRIBUTES).strip() == "0"
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["staging-dirs", "staging-dirs.lock"])
def test_the_list_of_staging_directories_is_a_file_of_ours(machine, kind, name):
    state = machine.home / "state" / "stsfs"
    (state / "staging").mkdir(parents=True, mode=0o700)
    (state / "staging-dirs").write_text('"/nowhere"\n')
    plant(machine, state / name, kind)
    code = """
from pathlib import Path
from stsfs.daemon import staging_dirs
staging_dirs.remember(Path("/srv/disk"))
"""
    machine.python(code)
    done = machine.stsfs("recover")
    assert machine.refused(done, "staging-dirs" if name == "staging-dirs" else "/nowhere")
    assert machine.secret.read_bytes() == SECRET


def test_notes_of_another_user_whose_home_is_named_are_passed_over(machine):
    machine.environment["HOME"] = str(machine.shared / "ada")
    as_other(
        'mkdir -p "$1"; echo \'"/srv/theirs"\' > "$1/staging-dirs"',
        machine.shared / "ada/.local/state/stsfs",
    )  # fmt: skip
    done = machine.stsfs("recover")
    assert (done.returncode, "/srv/theirs" in done.stdout + done.stderr) == (0, False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_known_of_servers_is_read_from_and_written_to_files_of_ours(machine, kind):
    code = """
from stsfs.daemon import known_servers
from stsfs.store.capabilities import ServerCapabilities
known_servers.remember(ServerCapabilities(acl="", conditions=False), "s3://b/p", None)
print(known_servers.recall(ServerCapabilities(acl="", conditions=False), "s3://b/p", None))
"""
    assert machine.python(code).strip() == "True"
    (path,) = (machine.home / "state" / "stsfs" / "servers").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    plant(machine, path, kind)
    recall = code.replace("known_servers.remember", "(lambda *_: None)")
    assert machine.python(recall).strip() == "False"
    assert machine.python(code).strip() == "True"
    assert machine.secret.read_bytes() == SECRET


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["0123456789abcdef.json", ".lock"])
def test_records_of_mounts_are_files_of_ours(machine, kind, name):
    plant(machine, machine.home / "run" / "stsfs" / name, kind)
    done = machine.stsfs("list")
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if name.endswith(".json") else 48), done.stderr
    assert machine.secret.read_bytes() == SECRET


def test_the_runtime_directory_is_not_taken_from_others(machine):
    as_other('mkdir -m 0777 "$1"', machine.shared / "theirs")
    ours = machine.shared / "theirs" / "run"
    ours.mkdir(mode=0o700)
    machine.environment["XDG_RUNTIME_DIR"] = str(ours)
    assert machine.refused(machine.stsfs("list"), f"uid {OTHER}", "exchange")
    assert os.listdir(ours) == []


APPEND = """
import sys
from stsfs.daemon.spawn import open_private
from stsfs.errors import BadArgument
try:
    open(sys.argv[1], "a", opener=open_private).write("a line of the log")
except BadArgument as exc:
    print(exc)
"""


@pytest.mark.parametrize("script", ['ln -s "$2" "$1"', 'mkfifo -m 0666 "$1"', 'echo > "$1"'])
def test_a_log_in_a_shared_directory_is_a_file_of_ours(machine, script):
    path = machine.shared / "stsfs.log"
    as_other(script, path, machine.secret)
    assert f"uid {OTHER}" in machine.python(APPEND, path)
    assert machine.secret.read_bytes() == SECRET
    done = machine.stsfs("mount", "s3://bucket/base", machine.home, "--log-file", path)
    assert done.returncode not in (0, 70)
    assert machine.secret.read_bytes() == SECRET


def test_a_log_is_no_second_name_of_another_file_of_ours(machine):
    """Others can give it one where the kernel does not protect hard links."""
    path = machine.shared / "stsfs.log"
    os.link(machine.secret, path)
    assert "second name" in machine.python(APPEND, path)
    point = machine.home / "m"
    point.mkdir()
    done = machine.stsfs("mount", "s3://bucket/base", point, "--log-file", path)
    assert machine.refused(done, "second name")
    assert machine.secret.read_bytes() == SECRET


@pytest.mark.parametrize("command", ["info", "clear"])
@pytest.mark.parametrize("script", [
    'mkdir -m 0777 "$1/stsfs-0"; cd "$1/stsfs-0"; : > index-1.sqlite3; mkdir chunks-1; : > lock;'
    ' : > chunks-1/kept; chmod -R 0777 .',
    'ln -s "$2" "$1/stsfs-0"',
])  # fmt: skip
def test_a_cache_of_others_is_neither_looked_at_nor_emptied(machine, command, script):
    ours = machine.home / "ours"
    (ours / "chunks-1").mkdir(parents=True, mode=0o700)
    (ours / "index-1.sqlite3").touch(mode=0o600)
    (ours / "lock").touch(mode=0o600)
    (ours / "chunks-1" / "kept").touch()
    as_other(script, machine.shared, ours)
    done = machine.stsfs("cache", command, machine.shared)
    assert machine.refused(done, "stsfs-0"), done.stdout
    assert done.returncode in (2, 48)
    assert (machine.shared / "stsfs-0" / "chunks-1" / "kept").exists()
    assert (ours / "chunks-1" / "kept").exists()
    assert (ours / "index-1.sqlite3").read_bytes() == b""
