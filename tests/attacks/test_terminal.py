"""Nothing from outside gives orders to a terminal, through whichever command it is shown.

The commands run on a terminal of their own; every character that arrives there must be one that is
shown, and no name may begin a line of its own.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stsfs.daemon import holders, mountinfo
from stsfs.demo.fake_synapse.guard import Fault
from tests.attacks.on_terminal import ORDERS, assert_obeys_nothing, on_terminal
from tests.mount import conftest as mounts
from tests.mount.entity_folder import entity_folder
from tests.recover_stage import own_directories, run_recover
from tests.schemas import checked
from tests.test_staging_directory import leave, leave_move

NAMELESS = ("refresh", "unmount", "rules")
"""Commands that have no name to show when all is well."""

COLOUR = re.compile(rb"\x1b\[[0-9;]*m")

servers, stage, host, mount = mounts.servers, mounts.stage, mounts.host, mounts.mount

NAME = f"s1{ORDERS}.bam"


@pytest.fixture
def hostile(stage):
    """A folder of entities whose names, annotations and keys are orders."""
    made = entity_folder(stage)
    state = stage.state
    inner = state.add_folder(f"d{ORDERS}", made.entity, stage.user)
    key = f"{made.base_key}/1/s1"
    made._write_object(key, b"data")
    file = state.add_file(NAME, inner, stage.user, key=key, size_bytes=4, md5="0" * 32)
    state.add_file(
        f"gone{ORDERS}", inner, stage.user, key=f"{key}-gone", size_bytes=4, md5="0" * 32
    )
    state.add_file(f"a/{ORDERS}", inner, stage.user, key=key, size_bytes=4, md5="0" * 32)
    file.annotations[f"tissue{ORDERS}"] = {"type": "STRING", "value": [f"blood{ORDERS}"]}
    return made


@pytest.fixture
def places(stage):
    return ["--endpoint-url", stage.gate.url, "--synapse-endpoint", stage.synapse.url]


@pytest.mark.mount
def test_names_reasons_and_mount_points_are_shown_and_not_obeyed(hostile, host, places, stage):
    point = host.home / f"m{ORDERS}"
    point.mkdir()
    shown = []

    def run(*arguments, code=0):
        ended, printed = on_terminal(host, *arguments)
        shown.append((arguments[0], printed))
        assert ended == code, printed.decode(errors="replace")
        return printed

    try:
        run("mount", hostile.syn_id, point, *places)
        inner = point / f"d{ORDERS}"
        assert NAME in os.listdir(inner)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (inner / f"gone{ORDERS}").read_bytes()
        for command in (
            ["status", point], ["status", "--hidden", point], ["status", "--differences", point],
            ["list"], ["rules", inner], ["refresh", inner],
            ["explain", inner / NAME], ["explain", inner / f"gone{ORDERS}"],
            ["explain", inner / f"absent{ORDERS}"],
            ["info", inner / NAME],
            ["find", inner, "size < 1GiB", *places],
            ["find", hostile.syn_id, "name ~ s1*", *places],
            ["pin", hostile.syn_id, "--skip-unreadable", *places],
        ):  # fmt: skip
            run(*command)
        run("verify", inner, code=38)
        run("info", inner / f"absent{ORDERS}", code=40)
        run("find", hostile.syn_id, f"'x{ORDERS}", code=2)
        run("status", f"/nowhere{ORDERS}", code=5)
        _code, coloured = on_terminal(host, "status", point, env={"TERM": "xterm-256color"})
        shown.append(("status", COLOUR.sub(b"", coloured)))
    finally:
        run("unmount", point)
    for command, printed in shown:
        assert b"forged" in printed or command in NAMELESS, command
        assert_obeys_nothing(printed)


@pytest.mark.mount
def test_a_process_that_keeps_a_mount_busy_is_named_and_not_obeyed(hostile, host, mount, tmp_path):
    live = mount(hostile.syn_id)
    program = tmp_path / "\x1b[2J\nX\x9b8m"  # 15 bytes is all that the kernel keeps
    shutil.copy(shutil.which("sleep"), program)
    with subprocess.Popen([program, "600"], cwd=live.path) as holder:
        try:
            code, printed = on_terminal(host, "unmount", "--wait", "0.5", live.path)
        finally:
            holder.kill()
    assert code == 6
    assert "\\x1b[2J" in printed.decode()
    assert_obeys_nothing(printed)


@pytest.mark.mount
def test_find_gives_exact_paths_to_programs(hostile, host, mount, places):
    """In a pipe a path is data: it is what the kernel knows, and JSON has the same."""
    live = mount(hostile.syn_id)
    inner = live.path / f"d{ORDERS}"
    exact = os.fsencode(inner / NAME)
    found = subprocess.run(
        [sys.executable, "-m", "stsfs", "find", "-0", live.path, "name ~ s1*", *places],
        env=host.environment, cwd="/", capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert found == exact + b"\0"
    told = host.stsfs("find", "--json", live.path, "name ~ s1*", *places)
    assert [each["path"] for each in checked("find", told.stdout)["files"]] == [os.fsdecode(exact)]


@pytest.mark.mount
def test_a_reason_of_synapse_is_shown_and_not_obeyed(hostile, host, places, stage):
    stage.synapse.faults.add(Fault(status=400, reason=f"because {ORDERS}", path="/entity"))
    code, printed = on_terminal(host, "mount", hostile.syn_id, host.mount_point(), *places)
    assert code != 0
    assert_obeys_nothing(printed)


def test_what_records_name_is_listed_and_saved_and_not_obeyed(tmp_path, monkeypatch):
    named = own_directories(monkeypatch, tmp_path)
    leave(named, state="closed", path=ORDERS)
    leave(named, state="failed", path="a", reason=ORDERS)
    leave(named, state="conflict", path="b", label=f"syn1 {ORDERS}")
    leave_move(named, path=f"c{ORDERS}", new_path=f"d{ORDERS}")
    listed = run_recover()
    assert listed.stdout.count("forged") == 5
    assert_obeys_nothing(listed.output)
    assert any(each["path"] == ORDERS for each in json.loads(run_recover("--json").stdout)["left"])
    saved = run_recover("--save", tmp_path / f"saved{ORDERS}")
    assert "forged" in saved.output
    assert_obeys_nothing(saved.output)


LOCK = """stsfs-lock 1
location\tsyn12345
bucket\tstudy
base_key\tcohort
view\tentities
pinned_on\t2026-11-24T10:46:15.000Z
"""


@pytest.mark.parametrize(
    "text",
    [
        LOCK.replace("study", f"study{ORDERS}"),
        LOCK.replace("syn12345", f"syn{ORDERS}"),
        LOCK.replace("stsfs-lock 1", f"stsfs-lock {ORDERS}"),
        f"{LOCK}path\tentity\n",
        LOCK + ORDERS,
    ],
)
def test_the_fields_of_a_lock_are_shown_and_not_obeyed(host, places, tmp_path, text):
    lock = tmp_path / f"l{ORDERS}.lock"
    lock.write_text(text)
    code, printed = on_terminal(host, "mount", lock, host.mount_point(), *places)
    assert code == 2
    assert b"forged" in printed
    assert_obeys_nothing(printed)


@pytest.mark.parametrize(
    "arguments",
    [
        [ORDERS], [f"--{ORDERS}"], ["list", ORDERS], ["mount", f"--{ORDERS}"],
        ["mount", "x", "/mnt", "--umask", ORDERS], ["mount", "x", "/mnt", "-o", ORDERS],
        ["cache", "info", f"/tmp/{ORDERS}"],
        ["cache", ORDERS], ["credentials", ORDERS, "--format", "env"], ["--debug", "info", ORDERS],
        ["recover", "--staging-dir", f"/tmp/{ORDERS}"],
    ],
)  # fmt: skip
def test_words_of_a_command_line_are_shown_and_not_obeyed(host, arguments):
    """A shell puts the names of files there: `stsfs info *`."""
    _code, printed = on_terminal(host, *arguments)
    assert b"forged" in printed
    assert_obeys_nothing(printed)


def test_a_carriage_return_in_the_path_of_a_mount_begins_no_line_of_the_mount_table():
    """The kernel writes blanks and line feeds of a path as numbers, but no carriage return."""
    line = b"36 35 0:40 / /tmp/a\rb rw - fuse.stsfs stsfs rw,user_id=7\n"
    (entry,) = mountinfo.parse(line)
    assert os.fspath(entry.path) == "/tmp/a\rb"
    assert (entry.is_stsfs, entry.owner_uid) == (True, 7)


def test_what_a_process_has_mapped_is_one_path_whatever_it_holds(tmp_path):
    maps = tmp_path / "proc" / "12" / "maps"
    maps.parent.mkdir(parents=True)
    maps.write_bytes(b"7f0-7f1 r--p 00000000 00:28 2 /m/a\r7f0-7f1 r--p 0 0:2 2 /m/b\n")
    maps.with_name("comm").write_bytes(b"\x1b[2J\n")
    (found,) = holders.holders(Path("/m"), tmp_path / "proc")
    assert found.path == "/m/a\r7f0-7f1 r--p 0 0:2 2 /m/b"
    assert found.how == "mapped file"
